"""OGBench's point mazes as a task: its own simulator and data generator, and a rewarded place."""

from dataclasses import dataclass
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffplan.envs import layout, pointmaze
from diffplan.envs.pointmaze import KINDS, MOVES, NAMES, PointMaze
from diffplan.episodes import Episodes
from diffplan.metrics import validity
from diffplan.runs import Progress
from diffplan.settings import SEED, at_least, require, settings
from diffplan.task import Plane, Task, Words
from diffplan.types import Scalar, Trajectory


@settings("task")
class PointMazeSettings:
    """Behaviour by the rules of OGBench's generator, and steps near one place, which are rewarded."""

    maze: str = "medium-navigate"
    """medium, large or giant, a dash, and navigate or stitch."""
    episodes: Annotated[int, at_least(2, 1e7)] = 200
    """Episodes. One at least is held out."""
    steps: Annotated[int, at_least(2, 1e6)] = 500
    """Steps of each."""
    noise: Annotated[float, at_least(0)] = 0.5
    """Standard deviation of the noise on actions, in units of the largest action."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""

    def check(self) -> None:
        """Raise ConfigError unless there is such a maze."""
        allowed = [f"{name}-{kind}" for name in NAMES for kind in KINDS]
        require(self.maze in allowed, "task.maze", self.maze, f"one of {', '.join(allowed)}")


class Worlds:
    """OGBench's environments, one an episode; a `diffplan.simulators.Host`."""

    observation_dim, action_dim = 2, 2
    action_low, action_high = np.full(2, -1, np.float32), np.full(2, 1, np.float32)

    def __init__(self, maze: PointMaze):
        self.maze, self.pool = maze, []
        self.observation_low, self.observation_high = maze.observation_low, maze.observation_high

    def __repr__(self) -> str:
        return f"OGBench {self.maze.name}"

    def reset(self, seeds: Int[np.ndarray, "n"]) -> tuple[list[Any], Float[np.ndarray, "n 2"]]:
        """Puts each ball at rest in a free cell that its seed draws."""
        while len(self.pool) < len(seeds):
            env = pointmaze.environment(self.maze.name)
            env.reset(seed=0)
            self.pool.append(env.unwrapped)
        worlds, places = self.pool[: len(seeds)], []
        for world, seed in zip(worlds, seeds.tolist(), strict=True):
            rng = np.random.default_rng(seed)
            centre = self.maze.centre(rng.choice(self.maze.cells))
            places.append(centre + rng.uniform(-self.maze.jitter, self.maze.jitter, 2))
            pointmaze.begin(world, places[-1])
        return worlds, np.asarray(places, np.float32)

    def step(self, handles: list[Any], actions: Float[np.ndarray, "n 2"]) -> tuple[np.ndarray, ...]:
        """Moves every ball on. The reward is that of the place that is left."""
        before = np.stack([world.get_xy() for world in handles])
        for world, action in zip(handles, np.clip(actions, -1, 1), strict=True):
            world.step(np.asarray(action, np.float64))
        after = np.stack([world.get_xy() for world in handles]).astype(np.float32)
        near = np.linalg.norm(before - region_of(self.maze)[0], axis=1) <= region_of(self.maze)[1]
        never = np.zeros(len(handles), bool)
        return after, near.astype(np.float32), never, never

    def release(self, handles: list[Any]) -> None:
        """Nothing: the next reset uses them again."""


def region_of(maze: PointMaze) -> tuple[Float[np.ndarray, "2"], float]:
    """(centre, radius) of the rewarded place: the cell on the most shortest paths, half a cell around."""
    hops = layout.hops(layout.successors(maze.rows, MOVES))
    between = ((hops[:, :, None] + hops[None]) == hops[:, None, :]).sum(axis=(0, 2))  # [middle]
    return np.asarray(maze.centre(maze.cells[int(between.argmax())]), np.float32), maze.unit / 2


@dataclass(frozen=True)
class Near:
    """1 within a radius of a place."""

    x: float
    y: float
    radius: float

    def __call__(self, observation: Float[Array, "2"], action: Float[Array, "2"]) -> Scalar:
        """0 or 1."""
        return (jnp.linalg.norm(observation - jnp.array([self.x, self.y])) <= self.radius).astype(jnp.float32)


def place(observations: Float[Array, "*b 2"]) -> Float[Array, "*b 2"]:
    """(y, x): rows and columns of the drawing."""
    return observations[..., ::-1]


def make(config: PointMazeSettings) -> Task:
    """A point maze as a task.

    Raises:
        ImportError: if OGBench is not installed.
    """
    name, kind = config.maze.split("-")
    try:
        maze = pointmaze.named(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"task=pointmaze-{config.maze}: {error.name} is missing: pip install 'diffplan[simulators]'"
        ) from error
    (x, y), radius = region_of(maze)

    def episodes() -> Episodes:
        made = []
        with Progress(f"{config.maze}: data", total=config.episodes * config.steps) as progress:
            for episode in pointmaze.generate(name, kind, config.episodes, config.steps, config.noise, config.seed):
                made.append(episode)
                progress.advance(config.steps)
        lengths = np.array([len(episode.actions) for episode in made])
        whole = lambda field: np.concatenate([getattr(episode, field) for episode in made]).astype(np.float32)
        return Episodes(whole("observations"), whole("actions"), lengths)

    def walls(plan: Trajectory) -> Scalar:
        """1 where any segment of a plan meets a wall."""
        return validity.crosses(maze.crosses_wall, plan.observations).astype(jnp.float32)

    left, low = maze.observation_low.tolist()
    return Task(
        name=f"pointmaze-{config.maze}",
        observation_dim=2,
        action_dim=2,
        episodes=episodes,
        settings=config,
        reward=Near(float(x), float(y), radius),
        reward_settings={"place": [float(x), float(y)], "radius": radius},
        simulator=Worlds(maze),
        violations={"walls": walls},
        tracker=lambda observation, target: jnp.clip((target - observation) / maze.stride, -1, 1),
        goal=(0, 1),
        plane=Plane(place, ("y", "x"), maze.walls, (low, left), maze.unit, (float(y), float(x), radius)),
        words=Words(("x", "y"), ("x force", "y force"), "steps in the target", {"walls": "through walls"}),
    )
