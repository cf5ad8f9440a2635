"""Draws the figures and the page of a run again and prints its table, from the files in its directory alone.

    diffplan plot runs/demo                       # about 5 s on two CPU cores
    diffplan plot runs/demo --out pictures        # leaves the run as it is: for results that may only be read
    diffplan plot runs/demo --table markdown      # the table of docs/demo.md, and nothing else

Writes frontier.png, frontier.pdf, axes.png, axes.pdf, report.html, summary.csv and budgets.csv. Expect two lines for a
method: at its best strength and at its largest. Whatever the task or the chosen methods leave out is left out of the
pictures as well, and the notes say why.
"""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from diffplan.cli import command
from diffplan.settings import require, settings


@settings("")
class PlotSettings:
    """Which run to draw."""

    run: tyro.conf.Positional[Path]
    """Directory with results.csv, config.json, plans.npz and data.npz."""
    out: Path | None = None
    """Where to write; by default into the run."""
    table: Literal["terminal", "markdown"] = "terminal"
    """How to print the results. markdown: print them, and draw nothing; results.csv and config.json are enough."""


def action(config: PlotSettings) -> None:
    """Draw a run again from its files.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
        OSError: if the run may only be read and `out` is not given.
    """
    from diffplan.report import draw
    from diffplan.report import table as results

    if config.table == "markdown":
        require(config.out is None, "out", str(config.out), "left out with table=markdown, which draws nothing")
        print(results.markdown(config.run))
        return
    results.show(config.run)
    try:
        paths = draw.draw(config.run, config.out)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise OSError(f"{error.filename}: may not be written; name another directory with --out DIR") from None
    for path in paths:
        sys.stderr.write(f"{path}  {path.stat().st_size / 1000:.0f} kB\n")


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.run(lambda: action(command.parse(PlotSettings, arguments, "diffplan plot", __doc__)))
