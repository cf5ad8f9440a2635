"""Gridworlds as a task: shortest paths to one random goal after another, some moves random; plans in one-hot cells."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.codec import Cells
from diffplan.envs import experts, gridworld, layout
from diffplan.envs.gridworld import MOVES, Gridworld
from diffplan.episodes import Episodes, from_stacked
from diffplan.settings import COUNT, FRACTION, SEED, ConfigError, at_least, settings
from diffplan.task import Plane, Task, Words
from diffplan.types import Scalar, Trajectory


@settings("task")
class GridworldSettings:
    """Noisy shortest paths in a gridworld, where steps on the goal are rewarded."""

    layout: str = "fourrooms"
    """fourrooms, corridors, street, or the path of a text drawing (# wall, O free, G goal)."""
    slip: Annotated[float, FRACTION] = 0.0
    """Probability that a step takes a random move in place of its own."""
    max_steps: Annotated[int | None, COUNT] = None
    """Steps of an episode in the world itself; the world's own, if not given."""
    episodes: Annotated[int, at_least(2, 1e7)] = 500
    """Independent trajectories, simulated side by side. One at least is held out."""
    steps: Annotated[int, at_least(2, 1e7)] = 500
    """Steps of each."""
    noise: Annotated[float, FRACTION] = 0.2
    """Probability that behaviour takes a random move."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""


def environment(config: GridworldSettings) -> Gridworld:
    """The gridworld.

    Raises:
        ConfigError: if there is neither such a world nor such a drawing, or if it has no goal.
    """
    path = Path(config.layout).expanduser()
    try:
        is_file = path.suffix or "/" in config.layout
        world = Gridworld(layout.read(path)) if is_file else gridworld.named(config.layout)
        layout.goal(world.rows)
    except ValueError as error:
        raise ConfigError(f"task.layout={config.layout!r}: {error}") from error
    return replace(world, slip=config.slip, max_steps=config.max_steps or world.max_steps)


def simulate(world: Gridworld, config: GridworldSettings) -> Episodes:
    """Behaviour."""
    key = jax.random.key(config.seed)
    walks = experts.wander(world, key, config.episodes, config.steps, config.noise)
    return from_stacked(np.asarray(walks.observations), np.asarray(walks.actions))


@dataclass(frozen=True)
class IllegalMoves:
    """1 where any step leads where no move leads."""

    world: Gridworld

    def __call__(self, plan: Trajectory) -> Scalar:
        """0 or 1."""
        cell = jax.vmap(lambda observation: self.world.state_of(observation).cell)(plan.observations)
        legal = jnp.any(jnp.asarray(self.world.next_cell)[cell[:-1]] == cell[1:, None], axis=1)
        return 1 - jnp.all(legal).astype(jnp.float32)


def nearest_move(observation: Float[Array, "2"], place: Float[Array, "2"]) -> Float[Array, "5"]:
    """The move that leads nearest to a place, as one-hot; staying if no move leads nearer."""
    apart = jnp.asarray(MOVES, jnp.float32) + (observation - place)[None]
    return jax.nn.one_hot(jnp.argmin((apart**2).sum(axis=-1)), len(MOVES))


@dataclass(frozen=True)
class ShortestPath:
    """The most steps on the goal in an episode of so many, without slip: those that are left after the way there."""

    world: Gridworld

    def __call__(self, start: Float[np.ndarray, "2"], steps: int) -> float:
        """steps - d, with d the moves from start to goal."""
        cell = np.abs(self.world.cells - start).sum(axis=1).argmin()
        apart = int(self.world.moves_to_goal[cell])
        return float(max(0, steps - apart)) if apart >= 0 else 0.0


def place(observations: Float[Array, "*b 2"]) -> Float[Array, "*b 2"]:
    """The cell."""
    return observations


def make(config: GridworldSettings) -> Task:
    """A gridworld as a task.

    Raises:
        ConfigError: if there is no such world.
    """
    world = environment(config)
    behaviour = {name: getattr(config, name) for name in ("slip", "episodes", "steps", "noise", "seed")}
    goal = world.goal
    return Task(
        name=f"gridworld-{Path(config.layout).stem}",
        observation_dim=2,
        action_dim=len(MOVES),
        episodes=lambda: simulate(world, config),
        settings=behaviour | {"drawing": "\n".join(world.rows)},
        discrete=True,
        reward=world.reward,
        reward_settings={"reward": "goal"},
        simulator=world,
        violations={"moves": IllegalMoves(world)},
        residual=world.residual,
        tracker=nearest_move,
        goal=(0, 1),
        bound=ShortestPath(world) if config.slip == 0 else None,
        cells=Cells(jnp.asarray(world.cells, jnp.float32), jnp.asarray(world.next_cell)),
        plane=Plane(place, ("row", "column"), world.walls, (-0.5, -0.5), 1.0, (float(goal[0]), float(goal[1]), 0.5)),
        words=Words(
            ("row", "column"),
            ("stay", "up", "down", "left", "right"),
            "steps on the goal",
            {"moves": "with an illegal move"},
        ),
    )
