"""Scores that others publish, in the simulators that others use: train, tune, run the episodes, print the table.

    python scripts/benchmark.py                                    # Maze2D, three mazes, from nothing
    python scripts/benchmark.py --suite multi2d                    # with random goals; the planners are the same
    python scripts/benchmark.py --suite ogbench                    # point mazes, five tasks each
    python scripts/benchmark.py --suite gridworld                  # where the limit is the shortest path
    python scripts/benchmark.py --tasks umaze --episodes 100 --run runs/quick
    python scripts/benchmark.py --do render --tasks large          # table, figure and every row's rollouts, from files
    python scripts/benchmark.py --do table                         # table and figure alone

Writes RUN/SUITE/scores.csv and scores.png; beside them, for every maze, its data, its networks and
rollouts/SUITE/*.npz, some episodes of every row. Stopped and started again, it goes on after what was trained.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from diffplan import runtime
from diffplan.studies.scores.rows import SUITES, ScoresConfig


@dataclass(frozen=True)
class Command:
    """What to do with which suite."""

    do: Literal["run", "table", "render"] = "run"
    """run: everything; table: print and draw scores.csv again; render: that and pictures of every row's episodes."""
    scores: Annotated[ScoresConfig, tyro.conf.arg(name="")] = SUITES["maze2d"]
    """What is scored."""


def begun(arguments: list[str]) -> Command:
    """What the flags change: the settings of the suite that they name."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--suite")
    named = reader.parse_known_args(arguments)[0].suite
    return Command(scores=SUITES.get(named, SUITES["maze2d"]))


def main(command: Command) -> None:
    """Carry the command out."""
    from diffplan.report import scores as report
    from diffplan.studies.scores import run

    config = command.scores
    if command.do == "run":
        run.run(config)
    directory = config.run / config.suite
    report.show(directory, runtime.console)
    for path in (directory / "scores.csv", report.figure(directory)):
        runtime.say(str(path))
    if command.do == "render":
        for task in config.named:
            for kept in sorted((directory / "rollouts" / task).glob("*.npz")):
                runtime.say(str(report.rollouts(kept)))


if __name__ == "__main__":
    runtime.command(main, Command, default=begun(sys.argv[1:]))
