"""Studies: list them, run one, or draw one again from its files.

    diffplan study list
    diffplan study run pressure            # at most 10 minutes on two CPU cores
    diffplan study run potemkin --seeds 2 --size 0.1 --run runs/trial
    diffplan study render pressure         # verdict and figure again, from RUN/NAME/study.csv

Writes RUN/NAME/study.csv, verdict.json and figure.png. The verdict is computed from the table; expect it to say
"inconclusive" where the interval over seeds holds the threshold.
"""

import importlib
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

import rich.table
import tyro
from rich.box import SIMPLE_HEAD

from diffplan.cli import command
from diffplan.runs import console, say
from diffplan.settings import settings
from diffplan.studies.frame import Finding, StudySettings

NAMES = ("pressure", "held_out_class", "potemkin", "pareto", "matched_proxy")


@settings("")
class Command:
    """What to do with which study."""

    do: tyro.conf.Positional[Literal["list", "run", "render"]]
    """list: every study and its claim; run: make table, verdict and figure; render: the last two, from the table."""
    name: tyro.conf.Positional[Literal["pressure", "held_out_class", "potemkin", "pareto", "matched_proxy", "all"]] = (
        "all"
    )
    """Which study."""
    study: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)
    """How large it is run."""


def show(findings: list[Finding]) -> None:
    """The findings as a table."""
    table = rich.table.Table("finding", "estimate", "95 %", "threshold", "verdict", box=SIMPLE_HEAD, show_edge=False)
    for result in findings:
        numbers = (f"{result.estimate:.3g}", f"{result.low:.3g} to {result.high:.3g}", f"{result.threshold:g}")
        table.add_row(result.statement, *numbers, result.verdict)
    console.print(table)


def action(config: Command) -> None:
    """List studies, run them, or draw them again."""
    from diffplan.studies import frame
    from diffplan.studies.drawing import draw

    for name in NAMES if config.name == "all" else (config.name,):
        study = importlib.import_module(f"diffplan.studies.{name}.study").STUDY
        if config.do == "list":
            say(f"{name}  (about {study.minutes:g} minutes)")
            for title in ("claim", "expected", "falsified_by"):
                say(f"    {title.replace('_', ' ')}: {getattr(study, title)}")
            continue
        directory = config.study.run / name
        directory = frame.execute(study, config.study) if config.do == "run" else directory
        show(frame.conclude(study, directory))
        picture = draw(directory, importlib.import_module(f"diffplan.studies.{name}.figure").compose)
        for path in (directory / "study.csv", directory / "verdict.json", picture):
            say(str(path))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.run(lambda: action(command.parse(Command, arguments, "diffplan study", __doc__)))
