"""What is scored, and a row of the table: measured here, or published by others."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffplan.config import DataConfig, TrainConfig, require
from diffplan.studies.scores.control import Outcome
from diffplan.studies.scores.planner import PlannerConfig
from diffplan.studies.scores.published import TASKS

COLUMNS = (
    *("suite", "task", "simulator", "method", "controller", "episodes", "mean", "sem", "limit_fraction"),
    *("seconds_per_plan", "train_minutes", "source"),
)
Row = dict[str, Any]

MEASURED = "measured here"
"""The source of rows of ours."""

KEPT = 16
"""Episodes of a row whose paths and plans are kept for pictures."""


@dataclass(frozen=True)
class ScoresConfig:
    """Which suite, and how much of it."""

    run: Path = field(default_factory=lambda: Path("runs/scores"))
    """Directory of everything that is made."""
    suite: Literal["maze2d", "multi2d", "ogbench", "gridworld"] = "maze2d"
    """Which protocol: Maze2D with its own goal, Maze2D with random goals, OGBench's point mazes, gridworlds."""
    tasks: tuple[str, ...] = ()
    """Mazes; all of the suite's, if none is named."""
    behaviour: str = ""
    """Behaviour to learn Maze2D from, in place of data made here: a file of D4RL's (.hdf5), or the id of a Minari data
    set of PointMaze on this machine; {task} in it stands for the maze."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """What is trained; the same for all mazes."""
    episodes: int = 500
    """Episodes of each row; OGBench's protocol has its own 50 a task."""
    every: int = 45
    """Steps between plans where planned anew."""
    candidates: int = 16
    """The most candidates that selection may draw."""
    tuning: int = 100
    """Episodes a setting in tuning; none of them is scored."""
    seed: int = 0
    """Of starts and plans."""

    def __post_init__(self) -> None:
        for name in ("episodes", "every", "candidates"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.tuning >= 2, "tuning", self.tuning, "at least 2, to tell settings apart")
        learns = self.suite in ("maze2d", "multi2d")
        require(learns or not self.behaviour, "behaviour", self.behaviour, f"empty in the suite {self.suite}")
        several = len(self.named) > 1 and self.behaviour
        require(not several or "{task}" in self.behaviour, "behaviour", self.behaviour, "with {task} for several mazes")
        for task in self.tasks:
            require(task in TASKS[self.suite], "tasks", task, f"some of {', '.join(TASKS[self.suite])}")

    @property
    def named(self) -> tuple[str, ...]:
        """The mazes."""
        return self.tasks or TASKS[self.suite]


SHORTER = TrainConfig(2000, 128, "muon", 5e-2)

SUITES = {
    "maze2d": ScoresConfig(),
    "multi2d": ScoresConfig(suite="multi2d"),
    "ogbench": ScoresConfig(suite="ogbench", planner=PlannerConfig(stride=27, prior=SHORTER), every=100, tuning=50),
    "gridworld": ScoresConfig(
        suite="gridworld",
        planner=PlannerConfig(
            DataConfig("fourrooms", rows=200_000, lanes=200, noise=0.2),
            horizon=48,
            stride=1,
            prior=SHORTER,
            width=64,
            patch=2,
        ),
        every=10,
    ),
}
"""What each suite begins with; one configuration for all its mazes."""


def measured(
    about: Row, simulator: str, method: str, controller: str, scores: Float[np.ndarray, "n"], top: float, **more: Any
) -> Row:
    """A row of ours. about: suite and task; top: the limit's mean score, NaN where it is not known."""
    error = scores.std(ddof=1) / np.sqrt(len(scores))
    fraction = {} if np.isnan(top) else {"limit_fraction": scores.mean() / top}
    numbers = {"episodes": len(scores), "mean": scores.mean(), "sem": error} | fraction
    named = {"simulator": simulator, "method": f"diffplan {method}", "controller": controller}
    return about | named | numbers | more | {"source": MEASURED}


class Drawn(NamedTuple):
    """How a maze is drawn: walls ``[i, j]``, where rows and columns begin, the side of a cell, the radius of a goal. A
    place is (down, across), or where `turned`, (across, down).
    """

    walls: Bool[np.ndarray, "i j"]
    low: tuple[float, float]
    unit: float
    near: float
    turned: bool


def keep(directory: Path, row: Row, found: Outcome, goals: Float[np.ndarray, "n 2"], drawn: Drawn) -> None:
    """Some episodes of a row, for `scripts/benchmark.py --do render`."""
    directory.mkdir(parents=True, exist_ok=True)
    about = np.asarray([row["method"], row["controller"], row["simulator"]])
    file = directory / (hashlib.sha256("|".join(about).encode()).hexdigest()[:12] + ".npz")
    episodes = {"paths": found.paths[:KEPT], "plans": found.plans[:KEPT], "goals": goals[:KEPT]}
    np.savez(file, allow_pickle=False, about=about, **episodes, **drawn._asdict())
