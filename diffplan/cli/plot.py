"""Draws the figure and the page of a run again and prints its table, from the files in its directory alone.

    diffplan plot runs/demo                       # about 5 s on two CPU cores
    diffplan plot runs/demo --table markdown      # the table of the README, alone on stdout

Writes frontier.png, frontier.pdf, report.html and summary.csv into the run directory. Expect two lines for a method: at
its best strength and at its largest. In the demo, guidance is best at scale 22 with a promised return of about 29,
above the best 1 % of the data (21), and near 0 at scale 1000, where its proxy is highest.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from diffplan.cli import command
from diffplan.settings import settings


@settings("")
class PlotSettings:
    """Which run to draw."""

    run: tyro.conf.Positional[Path]
    """Directory with results.csv, config.json, plans.npz and data.npz."""
    table: Literal["terminal", "markdown"] = "terminal"
    """How to print the results."""


def action(config: PlotSettings) -> None:
    """Draw a run again from its files."""
    from diffplan.report import figure, page, record
    from diffplan.report import table as results

    if config.table == "markdown":
        print(results.markdown(config.run))
    else:
        results.show(config.run)
    for path in [*figure.frontier(config.run), page.page(config.run), record.record(config.run)]:
        sys.stderr.write(f"{path}  {path.stat().st_size / 1000:.0f} kB\n")


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.run(lambda: action(command.parse(PlotSettings, arguments, "diffplan plot", __doc__)))
