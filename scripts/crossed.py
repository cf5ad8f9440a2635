"""Twelve methods at equal budgets in 27 cells: worlds, rewards, priors and labels crossed (docs/crossed.md).

    python scripts/crossed.py calibrate    # prices of evaluations: minutes, on a machine with nothing else to do
    python scripts/crossed.py run          # tuning, then every cell: hours on two CPU cores; stop it at any moment
    python scripts/crossed.py report       # tests, summary, verdicts and figure, from the rows that are there

Models stand in runs/crossed, tables in results/crossed; a call goes on where the last one was stopped.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from diffplan.planner.presets import settings_of
from diffplan.runs import RunError, console
from diffplan.settings import ConfigError
from diffplan.studies.crossed import report, run
from diffplan.studies.crossed.models import Models


@dataclass(frozen=True)
class Config:
    """What to do, and where."""

    do: Annotated[Literal["calibrate", "run", "report"], tyro.conf.Positional]
    """calibrate: measure prices; run: tune, and run the cells; report: judge the rows."""
    models: Path = Path("runs/crossed")
    """Directory of what is learned."""
    out: Path = Path("results/crossed")
    """Directory of the tables."""
    preset: str = "demo"
    """What is learned: demo, or debug to see that everything works."""


def main(config: Config) -> None:
    """Do it."""
    models = Models(config.models, settings_of(config.preset))
    if config.do == "calibrate":
        return run.calibrate(models, config.out)
    if config.do == "run":
        run.tune(models, config.out)
        run.score(models, config.out)
    shown = Table("test", "ms", "difference", "corrected 95 %", "p", "verdict")
    for each in report.write(config.out):
        numbers = f"{1000 * each.budget:g}", f"{each.mean:.2f}", f"{each.low:.2f} to {each.high:.2f}", f"{each.p:.3g}"
        shown.add_row(each.name, *numbers, each.verdict)
    console.print(shown)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except (ConfigError, RunError, ValueError) as error:
        sys.exit(str(error))
