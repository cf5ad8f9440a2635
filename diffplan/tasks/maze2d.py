"""Maze2D as a task: D4RL's noisy waypoint controller in a maze, and three true rewards."""

from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.envs import experts, layout, maze2d, robotics
from diffplan.envs.maze2d import Maze2d
from diffplan.episodes import Episodes, from_stacked
from diffplan.metrics import validity
from diffplan.runs import Progress
from diffplan.settings import COUNT, SEED, ConfigError, at_least, more_than, settings
from diffplan.task import Adapter, Disc, Plane, Task, Words
from diffplan.types import Scalar, Trajectory

CHUNK = 250
"""Steps simulated per compiled call; the first two time limits are burnt in, so that trajectories start as in a long
run."""

WORDS = {
    "region": "steps in the target",
    "goal": "steps at the goal",
    "path": "cells travelled",
}


@settings("task")
class Maze2dSettings:
    """D4RL's noisy waypoint controller in a maze, and what is rewarded there."""

    maze: str = "umaze"
    """open, umaze, medium, large, or the path of a text drawing (# wall, O free, G goal)."""
    reward: Literal["region", "goal", "path"] = "region"
    """region: steps spent in a disc of free space; goal: steps within 0.5 cells of the maze's goal; path: cells
    travelled."""
    centre: tuple[float, float] | None = None
    """Centre of the region, in cells (D4RL coordinates); chosen by the maze, if not given."""
    radius: Annotated[float, more_than(0)] = 0.3
    """Radius of the region, in cells."""
    max_steps: Annotated[int | None, COUNT] = None
    """Steps after which the controller gives up a target; the maze's own, if not given."""
    episodes: Annotated[int, at_least(2, 1e7)] = 500
    """Independent trajectories, simulated side by side. One at least is held out."""
    steps: Annotated[int, at_least(2, 1e7)] = 2000
    """Steps of each."""
    noise: Annotated[float, at_least(0)] = 0.5
    """Standard deviation of the noise on the controller's actions, in units of the largest action."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""


def environment(config: Maze2dSettings) -> tuple[Maze2d, Disc | None]:
    """(the maze with its true reward, the disc that it pays for, in cells).

    Raises:
        ConfigError: if there is neither such a maze nor such a drawing, or if nobody can stand in the region.
    """
    path = Path(config.maze).expanduser()
    try:
        is_file = path.suffix or "/" in config.maze
        maze = Maze2d(layout.read(path)) if is_file else maze2d.named(config.maze)
        maze = replace(maze, max_steps=config.max_steps or maze.max_steps)
        match config.reward:
            case "region":
                centre, radius = config.centre or maze2d.default_region(maze)[0], config.radius
                if not maze2d.open_place(maze, centre, radius):
                    best = tuple(maze2d.default_region(maze)[0])
                    raise ConfigError(
                        f"task.centre={centre}: no point within task.radius ({radius:g}) of it is free in "
                        f"{config.maze}: choose another, such as {best}"
                    )
                return replace(maze, gold=maze2d.time_in_region(centre, radius)), (*centre, radius)
            case "goal":
                goal = maze.goal
                return replace(maze, gold=maze2d.time_near_goal), (float(goal[0]), float(goal[1]), 0.5)
            case "path":
                return replace(maze, gold=maze2d.path_length), None
    except ValueError as error:
        raise ConfigError(f"task.maze={config.maze!r}: {error}") from error


def simulate(maze: Maze2d, config: Maze2dSettings) -> Episodes:
    """Behaviour, in chunks with progress."""
    steps, burn_in = config.steps, ceil(2 * maze.max_steps / CHUNK)
    state = experts.init(maze, jax.random.key(config.seed), config.episodes)
    chunks = []
    with Progress("data", total=config.episodes * steps) as progress:
        for number in range(burn_in + ceil(steps / CHUNK)):
            state, rows = experts.advance(maze, state, CHUNK, config.noise)
            if number >= burn_in:
                chunks.append(tuple(np.asarray(part) for part in (rows.observations, rows.actions)))
                progress.advance(config.episodes * CHUNK)
    return from_stacked(*(np.concatenate(parts, axis=1)[:, :steps] for parts in zip(*chunks, strict=True)))


@dataclass(frozen=True)
class Walls:
    """1 where any segment of a plan meets a wall."""

    maze: Maze2d

    def __call__(self, plan: Trajectory) -> Scalar:
        """0 or 1."""
        return validity.crosses(self.maze.crosses_wall, plan.observations[:, :2]).astype(jnp.float32)


def place(observations: Float[Array, "*b 4"]) -> Float[Array, "*b 2"]:
    """The position."""
    return observations[..., :2]


def adapter(maze: Maze2d, env: Any) -> Adapter | None:
    """Of a PointMaze of gymnasium-robotics: a quarter turn; None for any other environment."""
    if "PointMaze" not in str(getattr(getattr(env, "spec", None), "id", "")):
        return None
    turned = lambda rows: robotics.from_pointmaze(maze, rows).astype(np.float32)
    at_rest = lambda goal: np.concatenate([goal, np.zeros_like(goal)], axis=-1)
    return Adapter(
        observation=lambda raw: turned(raw["observation"]),
        goal=lambda raw: turned(at_rest(np.asarray(raw["desired_goal"])))[..., :2],
        action=robotics.to_turned,
    )


def make(config: Maze2dSettings) -> Task:
    """Maze2D as a task.

    Raises:
        ConfigError: if there is no such maze, or if nobody can stand in the region.
    """
    maze, region = environment(config)
    behaviour = {name: getattr(config, name) for name in ("episodes", "steps", "noise", "seed")}
    return Task(
        name=f"maze2d-{Path(config.maze).stem}",
        observation_dim=4,
        action_dim=2,
        episodes=lambda: simulate(maze, config),
        settings=behaviour | {"drawing": "\n".join(maze.rows), "max_steps": maze.max_steps},
        reward=maze.reward,
        reward_settings={"reward": config.reward, "region": region},
        simulator=maze,
        violations={"walls": Walls(maze)},
        residual=maze.residual,
        tracker=experts.tracking_action,
        goal=(0, 1),
        adapter=partial(adapter, maze),
        plane=Plane(place, ("row [cells]", "column [cells]"), maze.walls, (-0.7, -0.7), 1.0, region),
        words=Words(
            ("row [cells]", "column [cells]", "row speed [cells/s]", "column speed [cells/s]"),
            ("row force", "column force"),
            WORDS[config.reward],
            {"walls": "through walls"},
        ),
    )
