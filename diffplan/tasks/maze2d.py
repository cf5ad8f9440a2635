"""Maze2D as a task: D4RL's noisy waypoint controller in a maze, and three true rewards."""

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffplan.metrics import validity
from diffplan.runs import Progress
from diffplan.settings import SEED, at_least, more_than, require, settings
from diffplan.task import Disc, Task
from diffplan.tasks.truth import Truth
from diffplan.types import PRNGKey, Scalar, Trajectory
from envs import experts, maze2d
from envs.base import follow, rollout
from envs.maze2d import Maze2d

CHUNK = 250
"""Steps simulated per compiled call; the first two time limits are burnt in, so that trajectories start as in a long
run."""


@settings("data")
class DataSettings:
    """Behaviour data: D4RL's noisy waypoint controller in a maze."""

    maze: str = "umaze"
    """open, umaze, medium, large, or the path of a text drawing (# wall, O free, G goal)."""
    rows: Annotated[int, at_least(1, 1e10)] = 1_000_000
    """Environment steps to record."""
    trajectories: Annotated[int, at_least(2, 1e7)] = 500
    """Independent trajectories, simulated side by side; rows / trajectories steps each. One at least is held out."""
    noise: Annotated[float, at_least(0)] = 0.5
    """Standard deviation of the noise on the controller's actions, in units of the largest action."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""

    def check(self) -> None:
        """Raise ConfigError unless every trajectory has a row."""
        allowed = f"between 2 and data.rows ({self.rows})"
        require(self.trajectories <= self.rows, "data.trajectories", self.trajectories, allowed)

    @property
    def steps(self) -> int:
        """Rows of each trajectory."""
        return self.rows // self.trajectories


@settings("gold")
class GoldSettings:
    """The true reward. The optimisers never see it; labels of it train the proxies."""

    kind: Literal["region", "goal", "path"] = "region"
    """region: steps spent in a disc of free space; goal: steps within 0.5 cells of the maze's goal; path: cells
    travelled."""
    centre: tuple[float, float] = (1.6, 2.7)
    """Centre of the region, in cells (D4RL coordinates)."""
    radius: Annotated[float, more_than(0)] = 0.3
    """Radius of the region, in cells."""


def environment(data: DataSettings, gold: GoldSettings) -> Maze2d:
    """The maze with its true reward.

    Raises:
        ValueError: if `data.maze` is neither a layout's name nor a readable drawing.
    """
    path = Path(data.maze).expanduser()
    maze = Maze2d.from_text(path.read_text()) if path.is_file() else maze2d.named(data.maze)
    match gold.kind:
        case "region":
            return replace(maze, gold=maze2d.time_in_region(gold.centre, gold.radius))
        case "goal":
            return replace(maze, gold=maze2d.time_near_goal)
        case "path":
            return replace(maze, gold=maze2d.path_length)


def target(maze: Maze2d, gold: GoldSettings) -> Disc | None:
    """The disc that the true reward pays for, in cells; None where it pays for none."""
    match gold.kind:
        case "region":
            return *gold.centre, gold.radius
        case "goal":
            return float(maze.goal[0]), float(maze.goal[1]), 0.5
    return None


def simulate(maze: Maze2d, config: DataSettings) -> tuple[Float[np.ndarray, "n t o"], Float[np.ndarray, "n t a"]]:
    """Behaviour, in chunks with progress: (observations, actions)."""
    steps, burn_in = config.steps, ceil(2 * maze.max_steps / CHUNK)
    state = experts.init(maze, jax.random.key(config.seed), config.trajectories)
    chunks = []
    with Progress("data", total=config.trajectories * steps) as progress:
        for number in range(burn_in + ceil(steps / CHUNK)):
            state, rows = experts.advance(maze, state, CHUNK, config.noise)
            if number >= burn_in:
                chunks.append((np.asarray(rows.observations), np.asarray(rows.actions)))
                progress.advance(config.trajectories * CHUNK)
    observations, actions = (np.concatenate(parts, axis=1)[:, :steps] for parts in zip(*chunks, strict=True))
    return observations, actions


@dataclass(frozen=True)
class OpenLoop:
    """Executes the plan's own actions."""

    maze: Maze2d

    def __call__(self, key: PRNGKey, plan: Trajectory) -> Scalar:
        """The return."""
        return rollout(self.maze, key, self.maze.state_of(plan.observations[0]), plan.actions).reward.sum()


@dataclass(frozen=True)
class Tracked:
    """Follows the plan's places with D4RL's tracking controller."""

    maze: Maze2d

    def __call__(self, key: PRNGKey, plan: Trajectory) -> Scalar:
        """The return."""
        ahead = jnp.concatenate([plan.observations[1:], plan.observations[-1:]])
        track = lambda key, observation, t: experts.tracking_action(observation, ahead[t])
        state = self.maze.state_of(plan.observations[0])
        return follow(self.maze, key, state, track, len(ahead)).transitions.reward.sum()


def task(data: DataSettings, gold: GoldSettings) -> Task:
    """Maze2D as a task.

    Raises:
        ValueError: if there is no such maze.
    """
    maze = environment(data, gold)

    def walls(plan: Trajectory) -> Scalar:
        """1 where any segment of a plan meets a wall."""
        return validity.crosses(maze.crosses_wall, plan.observations[:, :2]).astype(jnp.float32)

    return Task(
        name=data.maze,
        settings={"data": data, "drawing": "\n".join(maze.rows)},
        episodes=lambda: simulate(maze, data),
        reward_settings=gold,
        reward=maze.reward,
        dynamics=Truth(maze),
        rollouts={"open_loop": OpenLoop(maze), "tracked": Tracked(maze)},
        violations={"walls": walls},
        residual=maze.residual,
        target=target(maze, gold),
        walls=maze.walls,
    )
