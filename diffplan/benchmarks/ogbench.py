"""OGBench's point mazes under their stock protocol: five tasks, 50 episodes each, the percentage that reach the goal.

The planner learns from OGBench's data, which is simulated again if there is no file. OGBench's own environments draw
noise on starts and goals and decide when a goal is reached. Tuning uses the same environments between random cells.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffplan.benchmarks.episodes import Controller, Manner, Trials, agent_of, episodes
from diffplan.benchmarks.rows import Drawing, Name, Row, Scores, ScoresSettings, Sheet
from diffplan.benchmarks.tuning import Method, Methods, methods
from diffplan.data import npz
from diffplan.envs import pointmaze
from diffplan.envs.pointmaze import PointMaze
from diffplan.episodes import Episodes
from diffplan.planner import reaching
from diffplan.planner.model import PlanOptions
from diffplan.planner.planner import Planner
from diffplan.runs import Progress, Run, say
from diffplan.runs.files import file_digest
from diffplan.tasks import pointmaze as tasks
from diffplan.tasks.pointmaze import PointMazeSettings

EPISODES = 50
"""Of each task."""


class Worlds:
    """OGBench's own environments, one an episode; an `episodes.Simulator`. reached: which goals have been."""

    def __init__(self, name: str, count: int):
        with Progress(f"{name}: environments", total=count, unit="environments") as progress:
            self.envs: list[Any] = []
            for _ in range(count):
                self.envs.append(pointmaze.environment(name))
                progress.advance(1)
        self.observations = np.zeros((count, 2), np.float32)
        self.over = np.zeros(count, bool)
        self.reached = np.zeros(count, bool)

    def begin(self, options: list[dict[str, Any]], seed: int) -> Trials:
        """Resets every environment with its own options."""
        np.random.seed(seed)  # noqa: NPY002  (OGBench draws its noise from numpy's global generator)
        firsts = [env.reset(seed=seed + i, options=options[i]) for i, env in enumerate(self.envs)]
        self.observations = np.asarray([first for first, _ in firsts], np.float32)
        self.over, self.reached = np.zeros(len(firsts), bool), np.zeros(len(firsts), bool)
        return Trials(self.observations.copy(), np.asarray([info["goal"] for _, info in firsts], np.float32))

    def start(self, observations: Float[np.ndarray, "n 2"]) -> None:
        """They have begun already."""

    def run(self, states: None, act: Callable[[np.ndarray], np.ndarray], steps: int) -> Float[np.ndarray, "n steps 2"]:
        """Steps those that are not over; the others stay where they are."""
        path = np.empty((len(self.envs), steps, 2), np.float32)
        for t in range(steps):
            actions = act(self.observations) if not self.over.all() else np.zeros((len(self.envs), 2))
            for i in np.flatnonzero(~self.over):
                observation, _, terminated, truncated, info = self.envs[i].step(np.asarray(actions[i], np.float64))
                self.observations[i], self.over[i] = observation, terminated or truncated
                self.reached[i] = info["success"]
            path[:, t] = self.observations
        return path


def data(folder: Path, name: str, kind: str = "navigate") -> tuple[Episodes, str]:
    """The episodes of ``FOLDER/pointmaze-NAME-KIND-v0.npz``; made first, if there is no such file.

    A file that was downloaded may stand there instead. Returns (episodes, digest of the file).
    """
    path = folder / f"pointmaze-{name}-{kind}-v0.npz"
    maze = pointmaze.named(name)
    if not path.exists():
        write(folder, name, kind, *pointmaze.published(name, kind))
    episodes, notes = npz.read(path, limits=maze)
    for note in notes:
        say(f"{path}: {note}")
    return episodes, file_digest(path)


def write(
    folder: Path, name: str, kind: str, episodes: int, steps: int, noise: float = 0.5, seed: int = 0
) -> dict[Path, list[pointmaze.Episode]]:
    """Makes a data set, and a tenth as many episodes to validate; returns what was written where."""
    total, everything = episodes + max(1, episodes // 10), []
    with Progress(f"{name} {kind}: data", total=total * steps) as progress:
        for episode in pointmaze.generate(name, kind, total, steps, noise, seed):
            everything.append(episode)
            progress.advance(steps)
    parts = {"": everything[:episodes], "-val": everything[episodes:]}
    written = {folder / f"pointmaze-{name}-{kind}-v0{suffix}.npz": part for suffix, part in parts.items()}
    for path, part in written.items():
        pointmaze.save(path, part)
    return written


def schedule(config: ScoresSettings, methods: Methods, steps: int) -> Iterator[tuple[Controller, Method, int]]:
    """(controller, method, steps between plans) of every row."""
    *cold, warm = methods
    for method in cold:
        for name in ("inverse", "tracking"):
            yield name, method, config.every
    yield "actions", cold[-1], config.every
    yield "tracking", warm, config.every
    yield "tracking", cold[-1], steps


def anywhere(maze: PointMaze, count: int, seed: int) -> list[dict[str, Any]]:
    """Episodes between random cells, for tuning."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice(maze.cells, (count, 2))
    return [{"task_info": {"init_ij": tuple(start), "goal_ij": tuple(goal)}} for start, goal in pairs]


def rows_of(config: ScoresSettings, task: str) -> Iterator[Row]:
    """All rows of one maze, ours."""
    maze, directory = pointmaze.named(task), config.run / "ogbench"
    run = Run(directory / task, config.new_settings)
    behaviour, identity = data(directory, task)
    ways, minutes = reaching.fit(run, config.planner, behaviour, identity)
    planner = Planner.of_ways(tasks.make(PointMazeSettings(f"{task}-navigate")), ways, config.planner, behaviour)
    asked = [{"task_id": number + 1} for number in range(len(maze.tasks)) for _ in range(EPISODES)]
    worlds, few = Worlds(task, len(asked)), Worlds(task, config.tuning)
    left, top = maze.observation_low.tolist()
    drawing = Drawing(maze.walls, (top, left), maze.unit, maze.tolerance, turned=True)

    manner = Manner(maze.tolerance, maze.tolerance, config.seed)

    def score(options: PlanOptions) -> Scores:
        trials = few.begin(anywhere(maze, config.tuning, config.seed + 1), config.seed + 1)
        episodes(few, agent_of(planner, options, "inverse", config.every, manner), trials, maze.max_steps)
        return 100.0 * few.reached

    for controller, method, every in schedule(config, methods(task, config.candidates, score), maze.max_steps):
        trials = worlds.begin(asked, config.seed)
        agent = agent_of(planner, method.options, controller, every, manner)
        outcome = episodes(worlds, agent, trials, maze.max_steps)
        sheet = Sheet(config, task, trials.goals, drawing, np.nan)
        name = Name(method.name, controller, "ogbench")
        yield sheet.planned(name, every, 100.0 * worlds.reached, outcome, minutes)
