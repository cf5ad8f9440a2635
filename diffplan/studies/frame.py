"""A study is a question with a claim, an expected curve and a falsifier, all stated before the numbers.

Each study is a folder beside this file. `run` makes rows, one for each seed and condition; `verdict` turns the table
into findings, each with an interval over seeds:

    supported       the interval lies wholly on the claimed side of the threshold
    falsified       it lies wholly on the other side
    inconclusive    it holds the threshold, or there are too few seeds to have one

Its files stand in ``RUN/NAME``: study.csv and verdict.json, and figure.png, which the study's figure.py draws.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from itertools import groupby
from operator import itemgetter
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
    """One sentence of the claim, the number that decides it with its 95 % interval, and its verdict."""

    statement: str
    estimate: float
    low: float
    high: float
    threshold: float
    verdict: Verdict


class Study(NamedTuple):
    """A question and how it is answered. claim, expected and falsified_by are stated before any number."""

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
    """Repetitions with their own labels, starts and noise; intervals are over them."""
    seed: Annotated[int, SEED] = 0
    """Added to the number of every repetition."""
    new_settings: bool = False
    """Run a study anew that was run with other settings; the table that is there is kept aside."""
    size: Annotated[float, more_than(0)] = 1.0
    """Fraction of the plans, pools and training steps; below 1 for trials only."""

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
    estimate = mean_interval(values)
    verdict: Verdict = "inconclusive"  # with fewer than two seeds too: then the interval is NaN
    if estimate.low > threshold:
        verdict = "supported"
    elif estimate.high < threshold:
        verdict = "falsified"
    return Finding(statement, *estimate[:3], threshold, verdict)


def below(statement: str, values: Float[np.ndarray, "seeds"], threshold: float) -> Finding:
    """A claim that a mean over seeds is below a threshold."""
    finding = above(statement, values, threshold)
    other: dict[Verdict, Verdict] = {"supported": "falsified", "falsified": "supported", "inconclusive": "inconclusive"}
    return finding._replace(verdict=other[finding.verdict])


def entries(columns: Mapping[str, Any], *index: int) -> dict[str, float]:
    """One entry of every column: the numbers of a row."""
    return {name: float(column[index]) for name, column in columns.items()}


def by_seed(table: Table, name: str, **where: Any) -> Float[np.ndarray, "seeds"]:
    """A column of the rows that match, averaged within each seed."""
    return np.array([table[name][matching(table, seed=seed, **where)].mean() for seed in np.unique(table["seed"])])


def execute(study: Study, config: StudySettings) -> Path:
    """Run a study, or read back its table, and write its verdict; returns its directory."""

    def make(directory: Path) -> None:
        rows = []
        with Progress(str(run.directory / study.name), total=config.seeds, unit="seeds") as progress:
            for _, of_seed in groupby(study.run(config), itemgetter("seed")):
                rows += of_seed
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
    before = {name: getattr(study, name) for name in ("claim", "expected", "falsified_by")}
    after = [{name: number(value) for name, value in finding._asdict().items()} for finding in findings]
    write_json(directory / "verdict.json", {"study": study.name, **before, "findings": after})
    return findings
