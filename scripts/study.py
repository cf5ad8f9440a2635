"""Studies: list them, run one, or draw one again from its files.

    python scripts/study.py list
    python scripts/study.py run pressure            # at most 10 minutes on two CPU cores
    python scripts/study.py run potemkin --seeds 2 --size 0.1 --run runs/trial
    python scripts/study.py render pressure         # verdict and figure again, from RUN/NAME/study.csv

Writes RUN/NAME/study.csv, verdict.json and figure.png. The verdict is computed from the table; expect it to say
"inconclusive" where the interval over seeds holds the threshold.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import rich.table
import tyro
from rich.box import SIMPLE_HEAD

from diffplan import runtime
from diffplan.studies.frame import Finding, StudySettings

NAMES = ("pressure", "held_out_class", "potemkin", "pareto")


@dataclass(frozen=True)
class Command:
    """What to do with which study."""

    do: tyro.conf.Positional[Literal["list", "run", "render"]]
    """list: every study and its claim; run: make table, verdict and figure; render: the last two, from the table."""
    name: tyro.conf.Positional[Literal["pressure", "held_out_class", "potemkin", "pareto", "all"]] = "all"
    """Which study."""
    study: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)
    """How large it is run."""


def show(findings: list[Finding]) -> None:
    """The findings as a table."""
    table = rich.table.Table("finding", "estimate", "95 %", "threshold", "verdict", box=SIMPLE_HEAD, show_edge=False)
    for result in findings:
        numbers = (f"{result.estimate:.3g}", f"{result.low:.3g} to {result.high:.3g}", f"{result.threshold:g}")
        table.add_row(result.statement, *numbers, result.verdict)
    runtime.console.print(table)


def main(command: Command) -> None:
    """Carry the command out."""
    from diffplan.studies import frame

    for name in NAMES if command.name == "all" else (command.name,):
        study = importlib.import_module(f"diffplan.studies.{name}.study").STUDY
        if command.do == "list":
            runtime.say(f"{name}  (about {study.minutes:g} minutes)")
            for title in ("claim", "expected", "falsified_by"):
                runtime.say(f"    {title.replace('_', ' ')}: {getattr(study, title)}")
            continue
        directory = command.study.run / name
        directory = frame.execute(study, command.study) if command.do == "run" else directory
        show(frame.conclude(study, directory))
        picture: Path = importlib.import_module(f"diffplan.studies.{name}.figure").figure(directory)
        for path in (directory / "study.csv", directory / "verdict.json", picture):
            runtime.say(str(path))


if __name__ == "__main__":
    runtime.command(main, Command)
