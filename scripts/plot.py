"""Draws the figure and the page of a run again and prints its table, from the files in its directory alone.

    python scripts/plot.py runs/demo                       # about 5 s on two CPU cores
    python scripts/plot.py runs/demo --table markdown      # the table of the README, alone on stdout

Writes frontier.png, frontier.pdf, report.html and summary.csv into the run directory. Expect two lines for a method: at
its best strength and at its largest. In the demo, guidance is best at scale 22 with gold of about 29, above the best
1 % of the data (21), and near 0 at scale 1000, where its proxy is highest.
"""

import sys
from pathlib import Path
from typing import Literal

import tyro


def main(run_dir: tyro.conf.Positional[Path], table: Literal["terminal", "markdown"] = "terminal") -> None:
    """Draw a run again from its files.

    Args:
        run_dir: directory with results.csv, config.json, plans.npz and data.npz.
        table: how to print the results.
    """
    from diffplan.report import figure, load, page, record
    from diffplan.report import table as results

    try:
        if table == "markdown":
            print(results.markdown(run_dir))
        else:
            results.show(run_dir)
        paths = [*figure.frontier(run_dir), page.page(run_dir), record.record(run_dir)]
    except load.RunError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    for path in paths:
        sys.stderr.write(f"{path}  {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    tyro.cli(main)
