"""Settings of the suites, and a row of the table of scores: measured here, or published by others."""

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffplan.benchmarks.episodes import Outcome
from diffplan.benchmarks.published import TASKS
from diffplan.planner.presets import CELLS, SHORTER
from diffplan.planner.reaching import GoalSettings
from diffplan.runs import say
from diffplan.settings import COUNT, SEED, at_least, require, settings

COLUMNS = (
    *("suite", "task", "simulator", "method", "controller", "episodes", "mean", "sem", "bound_fraction"),
    *("seconds_per_plan", "train_minutes", "source"),
)
Row = dict[str, Any]
Scores = Float[np.ndarray, "n"]
Paths = Float[np.ndarray, "n steps o"]
Plans = Float[np.ndarray, "n m h o"]

MEASURED = "measured here"
"""The source of rows of ours."""

KEPT = 16
"""Episodes of a row whose paths and plans are kept for pictures."""


@settings("data")
class DataSettings:
    """Behaviour that is made here."""

    episodes: Annotated[int, at_least(2, 1e7)] = 250
    """Independent trajectories, simulated side by side."""
    steps: Annotated[int, at_least(2, 1e7)] = 4000
    """Steps of each."""
    noise: Annotated[float, at_least(0)] = 0.5
    """In mazes, the standard deviation of the noise on actions, in units of the largest action; in gridworlds, the
    probability of a random move."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""


@settings("")
class ScoresSettings:
    """Which suite, and how much of it."""

    run: Path = field(default_factory=lambda: Path("runs/scores"))
    """Directory of all files."""
    suite: Literal["maze2d", "multi2d", "ogbench", "gridworld"] = "maze2d"
    """Which protocol: Maze2D with its own goal, Maze2D with random goals, OGBench's point mazes, gridworlds."""
    tasks: tuple[str, ...] = ()
    """Mazes; all of the suite's, if none is named."""
    behaviour: str = ""
    """Behaviour to learn Maze2D from, in place of data made here: a file in Maze2D's coordinates (.hdf5, .h5, .npz), or
    the id of a Minari data set of PointMaze on this machine; {task} in it stands for the maze."""
    skip_bad: bool = False
    """Leave out episodes of that file that hold NaN or places outside the maze's bounds, instead of stopping."""
    new_settings: bool = False
    """Go on in a run that was made with other settings: what they made is kept aside, and made anew."""
    data: DataSettings = field(default_factory=DataSettings)
    """Behaviour that is made here, in the suites maze2d, multi2d and gridworld."""
    planner: GoalSettings = field(default_factory=GoalSettings)
    """What is trained; the same for all mazes."""
    episodes: Annotated[int, COUNT] = 500
    """Episodes of each row; OGBench's protocol has its own 50 a task."""
    every: Annotated[int, COUNT] = 45
    """Steps between plans."""
    candidates: Annotated[int, COUNT] = 16
    """The largest number of candidates of best of n."""
    tuning: Annotated[int, at_least(2)] = 100
    """Episodes a setting in tuning; none of them is scored."""
    seed: Annotated[int, SEED] = 0
    """Of starts and plans."""

    def check(self) -> None:
        """Raise ConfigError naming a task that is not in the suite, or behaviour that it cannot learn from."""
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


SUITES = {
    "maze2d": ScoresSettings(),
    "multi2d": ScoresSettings(suite="multi2d"),
    "ogbench": ScoresSettings(suite="ogbench", planner=GoalSettings(stride=27, prior=SHORTER), every=100, tuning=50),
    "gridworld": ScoresSettings(
        suite="gridworld",
        data=DataSettings(episodes=200, steps=1000, noise=0.2),
        planner=CELLS,
        every=10,
    ),
}
"""The default settings of each suite; one configuration for all its mazes."""


class Drawing(NamedTuple):
    """How a maze is drawn: walls ``[i, j]``, where rows and columns begin, the side of a cell, the radius of a goal. A
    place is (down, across), or where `turned`, (across, down).
    """

    walls: Bool[np.ndarray, "i j"]
    low: tuple[float, float]
    unit: float
    near: float
    turned: bool


class Name(NamedTuple):
    """What distinguishes a row from the others of its task: planning method, controller and simulator."""

    method: str
    controller: str
    simulator: str


class Sheet(NamedTuple):
    """One maze's rows: what they share, and where their episodes are kept. bound: its score, NaN if it is unknown."""

    config: ScoresSettings
    task: str
    goals: Float[np.ndarray, "n 2"]
    drawing: Drawing
    bound: float

    def measured(self, name: Name, scores: Scores, **cost: float) -> Row:
        """A row of ours."""
        mean, error = scores.mean(), scores.std(ddof=1) / np.sqrt(len(scores))
        say(f"{self.task}: {', '.join(name)}: {mean:.1f}")
        numbers = {"episodes": len(scores), "mean": mean, "sem": error, "bound_fraction": mean / self.bound}
        return {"suite": self.config.suite, "task": self.task, "source": MEASURED} | name._asdict() | numbers | cost

    def rollout(self, name: Name, scores: Scores, paths: Paths, plans: Plans | None = None, **cost: float) -> Row:
        """A row of ours; some of its episodes are kept for `diffplan scores --do render`."""
        directory = self.config.run / self.config.suite / "rollouts" / self.task
        directory.mkdir(parents=True, exist_ok=True)
        file = re.sub(r"[^a-z0-9.]+", "-", " ".join(name).removeprefix("diffplan ").lower())
        plans = np.empty((len(paths), 0, 1, paths.shape[-1])) if plans is None else plans
        episodes = {"paths": paths[:KEPT], "plans": plans[:KEPT], "goals": self.goals[:KEPT]}
        about = {"about": list(name), **self.drawing._asdict()}
        np.savez(directory / f"{file}.npz", allow_pickle=False, **episodes, **about)
        return self.measured(name, scores, **cost)

    def planned(self, name: Name, every: int, scores: Scores, outcome: Outcome, minutes: float) -> Row:
        """A row of a planner that planned every so many steps, after so many minutes of training."""
        when = f"every {every} steps" if every < outcome.paths.shape[1] else "one plan"
        name = name._replace(method=f"diffplan {name.method}, {when}")
        cost = {"seconds_per_plan": outcome.seconds_per_plan, "train_minutes": minutes}
        return self.rollout(name, scores, outcome.paths, outcome.plans, **cost)
