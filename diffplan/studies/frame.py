"""What a study is: a question with its claim, the curve that is expected and what would falsify it, stated before the
numbers; then a table, and a verdict that code reads off the table.

A study is one file beside this. `run` makes rows, one for each seed and condition; `verdict` turns the table into
findings, each with an interval over seeds:

    supported       the interval lies wholly on the claimed side of the threshold
    falsified       it lies wholly on the other side
    inconclusive    it holds the threshold, or there are too few seeds to have one

Its files, in ``RUN/NAME``: study.csv, verdict.json; `diffplan.report.study` draws figure.png from the first.
"""

from collections.abc import Callable, Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import Table, matching, read, write
from diffplan.runs import Progress, Run, keep
from diffplan.runs.files import write_json
from diffplan.settings import SEED, at_least, more_than, require, settings

Verdict = Literal["supported", "falsified", "inconclusive"]


class Finding(NamedTuple):
    """One sentence of the claim, the number that decides it with its 95 % interval, and what it says."""

    statement: str
    estimate: float
    low: float
    high: float
    threshold: float
    verdict: Verdict


class Study(NamedTuple):
    """A question and how it is answered. claim, expected and falsified_by are stated before any number is seen."""

    name: str
    claim: str
    expected: str
    falsified_by: str
    minutes: float
    """About how long eight seeds take on two CPU cores."""
    columns: tuple[str, ...]
    run: Callable[["StudySettings"], Iterator[dict[str, Any]]]
    """Yields rows; the number of seeds is the configuration's."""
    verdict: Callable[[Table], list[Finding]]


@settings("")
class StudySettings:
    """How large a study is run."""

    run: Path = field(default_factory=lambda: Path("runs/studies"))
    """Directory of all studies; each has its own in it."""
    seeds: Annotated[int, at_least(1, 100_000)] = 8
    """Repetitions: each draws everything anew, labels, starts and noise; intervals are over them."""
    seed: Annotated[int, SEED] = 0
    """Added to the number of every repetition."""
    new_settings: bool = False
    """Run a study anew that was run with other settings; the table that is there is kept aside."""
    size: Annotated[float, more_than(0)] = 1.0
    """Share of the plans, pools and training steps; below 1 only for trying out."""

    def check(self) -> None:
        """Raise ConfigError unless the size is at most the whole."""
        require(self.size <= 1, "size", self.size, "above 0 and at most 1")

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is made."""
        return "run", "new_settings"

    def scaled(self, count: int, least: int = 1) -> int:
        """So many of `count` as `size` says."""
        return max(least, round(self.size * count))


def above(statement: str, values: Float[np.ndarray, "seeds"], threshold: float) -> Finding:
    """A claim that a mean over seeds is above a threshold."""
    if np.isfinite(values).sum() < 2:
        only = float(values[np.isfinite(values)][0]) if np.isfinite(values).any() else np.nan
        return Finding(statement, only, np.nan, np.nan, threshold, "inconclusive")
    result = mean_interval(values)
    verdict: Verdict = "inconclusive"
    if result.low > threshold:
        verdict = "supported"
    elif result.high < threshold:
        verdict = "falsified"
    return Finding(statement, result.value, result.low, result.high, threshold, verdict)


def below(statement: str, values: Float[np.ndarray, "seeds"], threshold: float) -> Finding:
    """A claim that a mean over seeds is below a threshold."""
    result = above(statement, values, threshold)
    other: dict[Verdict, Verdict] = {"supported": "falsified", "falsified": "supported", "inconclusive": "inconclusive"}
    return result._replace(verdict=other[result.verdict])


def by_seed(table: Table, name: str, **where: Any) -> Float[np.ndarray, "seeds"]:
    """A column of the rows that match, averaged within each seed."""
    return np.array([table[name][matching(table, seed=seed, **where)].mean() for seed in np.unique(table["seed"])])


def execute(study: Study, config: StudySettings) -> Path:
    """Run a study, or read back its table, and write its verdict; returns its directory."""

    def make(directory: Path) -> None:
        rows = []
        with Progress(str(run.directory / study.name), total=config.seeds, unit="seeds") as progress:
            for row in study.run(config):
                if rows and row["seed"] != rows[-1]["seed"]:
                    progress.advance(1)
                rows.append(row)
            progress.advance(1)
        write(directory / "study.csv", rows, study.columns)

    run = Run(config.run, config.new_settings)
    kept = keep(run, study.name, make, config, files=("study.csv",))
    conclude(study, kept.directory)
    return kept.directory


def conclude(study: Study, directory: Path) -> list[Finding]:
    """The verdict of the table in a directory, written to ``verdict.json``."""
    findings = study.verdict(read(directory / "study.csv"))
    number = lambda value: None if isinstance(value, float) and not np.isfinite(value) else value
    content = {
        "study": study.name,
        "claim": study.claim,
        "expected": study.expected,
        "falsified_by": study.falsified_by,
        "findings": [{name: number(value) for name, value in result._asdict().items()} for result in findings],
    }
    write_json(directory / "verdict.json", content)
    return findings
