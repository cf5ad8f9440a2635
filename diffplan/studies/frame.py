"""A study is a question with a claim, an expected curve and a falsifier, all stated before the numbers.

Each study is a folder beside this file. `run` makes rows, one for each seed and condition; `verdict` turns the table
into findings and checks (`diffplan.studies.findings`).

Its files stand in ``RUN/NAME``: study.csv and verdict.json, and figure.png, which the study's figure.py draws.
verdict.json has every finding under `findings`, and under `maps` the cells of every finding that has cells.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from diffplan.metrics.table import Table, read, write
from diffplan.runs import Progress, Run, keep
from diffplan.runs.files import write_json
from diffplan.settings import SEED, at_least, more_than, require, settings
from diffplan.studies.findings import Finding


class Study(NamedTuple):
    """A question and how it is answered. claim, expected and falsified_by are stated before any number."""

    name: str
    claim: str
    expected: str
    falsified_by: str
    minutes: float
    """About how long the default settings take on two CPU cores."""
    columns: tuple[str, ...]
    run: Callable[["StudySettings"], Iterator[dict[str, Any]]]
    """Yields rows, seed by seed; the numbers of seeds are the configuration's."""
    verdict: Callable[[Table], list[Finding]]


@settings("")
class StudySettings:
    """How large a study is run."""

    run: Path = field(default_factory=lambda: Path("runs/studies"))
    """Directory of all studies; each has its own in it."""
    seeds: Annotated[int, at_least(1, 100_000)] = 8
    """Repetitions of what is trained or sampled, with their own labels, starts and noise; intervals are over them."""
    exact_seeds: Annotated[int, at_least(1, 100_000)] = 64
    """Repetitions of the references, which need no training; the first `seeds` of them are those of the methods."""
    seed: Annotated[int, SEED] = 0
    """Of all repetitions. Another seed gives others, and shares none."""
    new_settings: bool = False
    """Run a study anew that was run with other settings; the table that is there is kept aside."""
    size: Annotated[float, more_than(0)] = 1.0
    """Fraction of the plans, pools, training steps and exact_seeds; below 1 for trials only."""

    def check(self) -> None:
        """Raise ConfigError unless the size is at most the whole."""
        require(self.size <= 1, "size", self.size, "above 0 and at most 1")

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is made."""
        return "run", "new_settings"

    def scaled(self, count: int, least: int = 1) -> int:
        """So many of `count` as `size` says."""
        return max(least, round(self.size * count))

    @property
    def references(self) -> int:
        """How many repetitions the references have."""
        return max(self.seeds, self.scaled(self.exact_seeds))


def entries(columns: Mapping[str, Any], *index: int) -> dict[str, float]:
    """One entry of every column: the numbers of a row."""
    return {name: float(column[index]) for name, column in columns.items()}


def execute(study: Study, config: StudySettings) -> Path:
    """Run a study, or read back its table, and write its verdict; returns its directory."""

    def make(directory: Path) -> None:
        rows = []
        with Progress(str(run.directory / study.name), total=config.references, unit="seeds") as progress:
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
    before = {name: getattr(study, name) for name in ("claim", "expected", "falsified_by")}
    maps = [
        {"statement": one.statement, "threshold": one.threshold, "cells": [numbers(cell) for cell in one.cells]}
        for one in findings
        if one.cells
    ]
    after = {"findings": [words(one) | numbers(one) for one in findings], "maps": maps}
    write_json(directory / "verdict.json", {"study": study.name, **before, **after})
    return findings


def words(finding: Finding) -> dict[str, Any]:
    """What a finding says, of what kind it is, and in how many cells it holds."""
    counts = {"cells": finding.counts()} if finding.cells else {}
    return {"statement": finding.statement, "kind": finding.kind, "threshold": finding.threshold} | counts


def numbers(finding: Finding) -> dict[str, Any]:
    """The condition, the verdict and the numbers of a finding or a cell; a number that does not exist is null."""
    values = {name: getattr(finding, name) for name in ("verdict", "estimate", "low", "high", "n", "missing")}
    cell = {"where": finding.where, "p": finding.p} if finding.where else {}
    return rounded(cell | values | dict(finding.beside))


def rounded(value: Any) -> Any:
    """Numbers with six significant digits, and None for those that are not finite."""
    if isinstance(value, Mapping):
        return {name: rounded(entry) for name, entry in value.items()}
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if np.isfinite(value) else None
