"""Scores that others publish, in the simulators that others use: train, tune, run the episodes, print the table.

    python scripts/benchmark.py                                    # Maze2D, three mazes, from nothing
    python scripts/benchmark.py --tasks umaze --episodes 100 --run runs/quick
    python scripts/benchmark.py --do render --tasks large          # the table, figure and rollouts again, from files
    python scripts/benchmark.py --do table                         # the table and the figure alone

Writes into the run directory: scores.csv, scores.png, and for every task its data, its networks and
TASK/rollouts/*.npz, some episodes of every row. Stopped and started again, it goes on after what was trained.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from diffplan import runtime
from diffplan.studies.scores.suite import ScoresConfig


@dataclass(frozen=True)
class Command:
    """What to do with which suite."""

    do: Literal["run", "table", "render"] = "run"
    """run: everything; table: print and draw scores.csv again; render: that and pictures of every row's episodes."""
    scores: Annotated[ScoresConfig, tyro.conf.arg(name="")] = field(default_factory=ScoresConfig)
    """What is scored."""


def main(command: Command) -> None:
    """Carry the command out."""
    from diffplan.report import scores as report
    from diffplan.studies.scores import suite
    from envs import maze2d

    config = command.scores
    if command.do == "run":
        suite.run(config)
    report.show(config.run, runtime.console)
    for path in (config.run / "scores.csv", report.figure(config.run)):
        runtime.say(str(path))
    if command.do == "render":
        for task in config.tasks:
            maze = maze2d.named(task)
            for kept in sorted((config.run / task / "rollouts").glob("*.npz")):
                runtime.say(str(report.rollouts(kept.parent, maze.walls, maze.goal, kept)))


if __name__ == "__main__":
    runtime.command(main, Command)
