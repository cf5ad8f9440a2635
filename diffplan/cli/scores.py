"""Scores that others publish, in the simulators that others use: train, tune, run the episodes, print the table.

    diffplan scores                                    # D4RL's protocol, three tasks, from nothing
    diffplan scores --suite multi2d                    # with random goals; the planners are the same
    diffplan scores --suite ogbench                    # OGBench's, five questions a task
    diffplan scores --suite gridworld                  # where the bound is the shortest path
    diffplan scores --tasks medium --episodes 100 --run runs/quick
    diffplan scores --do render --tasks large          # table, figure and every row's rollouts, from files
    diffplan scores --do table                         # table and figure alone
    diffplan scores --do data                          # statistics of the data, beside the published ones
    diffplan scores --do markdown                      # the table of docs/scores.md, from results/

Writes RUN/SUITE/scores.csv and scores.png; beside them, for every task, its data, its networks and rollouts/*.npz, some
episodes of every row. Table and figure of a whole suite at its own settings are copied to results/. Stopped and started
again, it goes on after what was trained. The first suite takes about an hour on two cores; 11 minutes a task are
training.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffplan.benchmarks.rows import SUITES, ScoresSettings
from diffplan.cli import command
from diffplan.runs import console, say
from diffplan.settings import ConfigError, settings

FIRST = next(iter(SUITES.values()))
"""The suite that the command begins with."""


@settings("")
class Command:
    """What to do with which suite."""

    do: Literal["run", "table", "render", "data", "markdown"] = "run"
    """run: everything; table: print and draw scores.csv again; render: that and pictures of every row's episodes; data:
    statistics of the data made so far; markdown: the table of docs/scores.md, from the results that are committed."""
    results: Path = Path("results")
    """Where the table and the figure of a whole suite at its own settings are copied: scores.csv of the
    first, scores/SUITE.csv of others."""
    scores: Annotated[ScoresSettings, tyro.conf.arg(name="")] = FIRST
    """What is scored."""

    def committed(self, suite: str) -> Path:
        """A suite's table among the results."""
        return self.results / ("scores.csv" if suite == FIRST.suite else f"scores/{suite}.csv")


def whole(config: ScoresSettings, path: Path) -> bool:
    """Whether a table holds all tasks of a suite, and was made by the settings that the suite begins with."""
    from diffplan.metrics.table import read_rows

    own = SUITES[config.suite]
    tasks = {row["task"] for row in read_rows(path)}
    return replace(config, run=own.run, tasks=own.tasks) == own and tasks == set(own.named)


def begun(arguments: Sequence[str]) -> Command:
    """What flags change: the settings of the suite that they name."""
    return Command(scores=SUITES.get(command.value_of("--suite", arguments) or "", FIRST))


def action(config: Command) -> None:
    """Carry the command out."""
    from diffplan.benchmarks import report, run, statistics
    from diffplan.metrics.table import write

    scores = config.scores
    directory = scores.run / scores.suite
    if config.do == "markdown":
        return print(report.markdown([path for path in map(config.committed, SUITES) if path.exists()]))
    if config.do == "data":
        path = config.results / "scores" / "data.csv"
        rows = list(statistics.table(scores.run))
        if not rows:
            raise ConfigError(f"run={str(scores.run)!r}: must be a directory in which a suite has made data")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, rows, statistics.COLUMNS)
        return say(str(path))
    path = run.run(scores) if config.do == "run" else directory / "scores.csv"
    report.show(path, console)
    picture = report.figure(path)
    for written in (path, picture):
        say(str(written))
    if config.do == "run" and whole(scores, path):
        kept = config.committed(scores.suite)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)
        shutil.copy(picture, kept.with_suffix(".png"))
    if config.do == "render":
        for episodes in report.kept(path, scores.named):
            say(str(report.rollouts(episodes)))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    read = lambda: command.parse(Command, arguments, "diffplan scores", __doc__, begun(arguments))
    command.run(lambda: action(read()))
