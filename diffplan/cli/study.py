"""Studies: list them, run one, draw one again from its files, or compare its verdicts on other seeds.

    diffplan study list
    diffplan study run pressure            # about 12 minutes on two CPU cores
    diffplan study run potemkin --seeds 2 --size 0.1 --run runs/trial
    diffplan study render pressure         # verdict and figure again, from RUN/NAME/study.csv
    diffplan study run pressure --seed 8 --run runs/other      # other seeds, elsewhere: the first run stays
    diffplan study compare pressure --other runs/other         # the findings whose verdicts differ between the two

Writes RUN/NAME/study.csv, verdict.json and figure.png; compare writes RUN/NAME/verdict_other_seeds.json. The verdict is
computed from the table; expect it to say "inconclusive" where the interval over seeds holds the threshold. A claim
about several conditions has a verdict for each of them in verdict.json, under "maps".
"""

import importlib
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import rich.table
import tyro
from rich.box import SIMPLE_HEAD

from diffplan.cli import command
from diffplan.runs import console, say
from diffplan.settings import settings
from diffplan.studies.findings import Finding
from diffplan.studies.frame import StudySettings

NAMES = ("pressure", "held_out_class", "potemkin", "pareto", "matched_proxy")


@settings("")
class Command:
    """What to do with which study."""

    do: tyro.conf.Positional[Literal["list", "run", "render", "compare"]]
    """list: every study and its claim; run: make table, verdict and figure; render: the last two, from the table;
    compare: which verdicts another run changes."""
    name: tyro.conf.Positional[Literal["pressure", "held_out_class", "potemkin", "pareto", "matched_proxy", "all"]] = (
        "all"
    )
    """Which study."""
    study: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)
    """How large it is run."""
    other: Path = field(default_factory=lambda: Path("runs/other"))
    """For compare: the directory of studies that were run with another seed."""


def show(findings: list[Finding]) -> None:
    """The findings as a table. The range of a check is that of all its numbers."""
    names = ("finding", "estimate", "95 %", "n", "threshold", "verdict")
    table = rich.table.Table(*names, box=SIMPLE_HEAD, show_edge=False)
    for result in findings:
        numbers = ("", "")
        if not result.cells:
            least = "all " if result.kind == "check" else ""
            numbers = (f"{result.estimate:.3g}", f"{least}{result.low:.3g} to {result.high:.3g}")
        table.add_row(result.statement, *numbers, count(result), f"{result.threshold:g}", verdict(result))
    console.print(table)


def count(result: Finding) -> str:
    """How many numbers a finding is of, and how many seeds have none."""
    return f"{result.n} of {result.n + result.missing}" if result.missing else f"{result.n}"


def verdict(result: Finding) -> str:
    """The verdict in words; of a claim about cells, with the number of cells that say so."""
    counts = ", ".join(f"{name} in {number}" for name, number in result.counts().items())
    return f"{result.verdict}: {counts}" if result.cells else result.verdict


def contrast(directory: Path, other: Path) -> None:
    """Say which verdicts differ between two runs of a study."""
    from diffplan.studies.compare import changed, compare

    result = compare(directory, other)
    for kind, entries in (("finding", result.findings), ("cell", result.cells)):
        differ = changed(entries)
        table = rich.table.Table(kind, "verdict", "on other seeds", box=SIMPLE_HEAD, show_edge=False)
        for one in differ:
            condition = [f"{name}={value}" for name, value in one.get("where", {}).items()]
            table.add_row(", ".join([one["statement"], *condition]), one["verdict"], one["other_verdict"])
        say(f"{directory.name}: {len(differ)} of {len(entries)} {kind}s have another verdict")
        if differ:
            console.print(table)
    say(str(directory / "verdict_other_seeds.json"))


def action(config: Command) -> None:
    """List studies, run them, draw them again, or compare them."""
    from diffplan.studies import frame
    from diffplan.studies.drawing import draw

    for name in NAMES if config.name == "all" else (config.name,):
        study = importlib.import_module(f"diffplan.studies.{name}.study").STUDY
        directory = config.study.run / name
        if config.do == "list":
            say(f"{name}  (about {study.minutes:g} minutes)")
            for title in ("claim", "expected", "falsified_by"):
                say(f"    {title.replace('_', ' ')}: {getattr(study, title)}")
            continue
        if config.do == "compare":
            contrast(directory, config.other / name)
            continue
        directory = frame.execute(study, config.study) if config.do == "run" else directory
        show(frame.conclude(study, directory))
        picture = draw(directory, importlib.import_module(f"diffplan.studies.{name}.figure").compose)
        for path in (directory / "study.csv", directory / "verdict.json", picture):
            say(str(path))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.run(lambda: action(command.parse(Command, arguments, "diffplan study", __doc__)))
