"""Scores that others publish, in the simulators that others use: train, tune, run the episodes, print the table.

    python scripts/benchmark.py                                    # Maze2D, three mazes, from nothing
    python scripts/benchmark.py --suite multi2d                    # with random goals; the planners are the same
    python scripts/benchmark.py --suite ogbench                    # point mazes, five tasks each
    python scripts/benchmark.py --suite gridworld                  # where the bound is the shortest path
    python scripts/benchmark.py --tasks umaze --episodes 100 --run runs/quick
    python scripts/benchmark.py --do render --tasks large          # table, figure and every row's rollouts, from files
    python scripts/benchmark.py --do table                         # table and figure alone
    python scripts/benchmark.py --do data                          # statistics of the data, beside the published ones
    python scripts/benchmark.py --do markdown                      # the README's table, from results/

Writes RUN/SUITE/scores.csv and scores.png; beside them, for every maze, its data, its networks and rollouts/*.npz, some
episodes of every row. Table and figure of a whole suite at its own settings are copied to results/. Stopped and started
again, it goes on after what was trained. Maze2D takes about an hour on two cores, of which 11 minutes a maze are
training.
"""

import argparse
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffplan import runtime
from diffplan.benchmarks.rows import SUITES, ScoresSettings
from diffplan.config import ConfigError


@dataclass(frozen=True)
class Command:
    """What to do with which suite."""

    do: Literal["run", "table", "render", "data", "markdown"] = "run"
    """run: everything; table: print and draw scores.csv again; render: that and pictures of every row's episodes; data:
    statistics of the data made so far; markdown: the README's table, from the results that are committed."""
    results: Path = Path("results")
    """Where the table and the figure of a whole suite at its own settings are copied: scores.csv of Maze2D,
    scores/SUITE.csv of others."""
    scores: Annotated[ScoresSettings, tyro.conf.arg(name="")] = SUITES["maze2d"]
    """What is scored."""

    def committed(self, suite: str) -> Path:
        """A suite's table among the results."""
        return self.results / ("scores.csv" if suite == "maze2d" else f"scores/{suite}.csv")


def whole(config: ScoresSettings, path: Path) -> bool:
    """Whether a table holds all mazes of a suite, and was made by the settings that the suite begins with."""
    from diffplan.metrics.table import read_rows

    own = SUITES[config.suite]
    tasks = {row["task"] for row in read_rows(path)}
    return replace(config, run=own.run, tasks=own.tasks) == own and tasks == set(own.named)


def begun(arguments: list[str]) -> Command:
    """What the flags change: the settings of the suite that they name."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--suite")
    named = reader.parse_known_args(arguments)[0].suite
    return Command(scores=SUITES.get(named, SUITES["maze2d"]))


def main(command: Command) -> None:
    """Carry the command out."""
    from diffplan.benchmarks import report, run, statistics
    from diffplan.metrics.table import write

    config = command.scores
    directory = config.run / config.suite
    if command.do == "markdown":
        return print(report.markdown([path for path in map(command.committed, SUITES) if path.exists()]))
    if command.do == "data":
        path = command.results / "scores" / "data.csv"
        rows = list(statistics.table(config.run))
        if not rows:
            raise ConfigError(f"run={str(config.run)!r}: must be a directory in which a suite has made data")
        write(path, rows, statistics.COLUMNS)
        return runtime.say(str(path))
    path = run.run(config) if command.do == "run" else directory / "scores.csv"
    report.show(path, runtime.console)
    picture = report.figure(path)
    for written in (path, picture):
        runtime.say(str(written))
    if command.do == "run" and whole(config, path):
        kept = command.committed(config.suite)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)
        shutil.copy(picture, kept.with_suffix(".png"))
    if command.do == "render":
        for episodes in report.kept(path, config.named):
            runtime.say(str(report.rollouts(episodes)))


if __name__ == "__main__":
    runtime.command(main, Command, default=begun(sys.argv[1:]))
