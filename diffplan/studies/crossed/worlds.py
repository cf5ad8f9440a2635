"""Three worlds, and three true rewards in each: one that behaviour often earns, a rare one, and one off the data.

Every reward of a row is between 0 and about 1. A dense reward falls off from a place as exp(-d^2 / 2 b^2). A rare one
is 1 in states that few windows of behaviour reach, else 0. One off the data grows towards states that no behaviour
reaches, though actions can: speeds that behaviour never keeps up, a room that it never enters, more energy than it ever
pumps.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.envs import experts, gridworld, pendulum
from diffplan.envs.gridworld import Gridworld
from diffplan.envs.pendulum import angle, energy
from diffplan.episodes import Episodes, from_stacked
from diffplan.task import Reward, Task
from diffplan.tasks import make_task
from diffplan.types import Scalar

Bound = Callable[[Float[np.ndarray, "o"], int], float]
"""The optimal return of a start and a number of steps."""


@dataclass(frozen=True)
class Near:
    """exp(-d^2 / 2 width^2), with d the distance of the first entries of an observation from a place."""

    place: tuple[float, ...]
    width: float

    def __call__(self, observation: Float[Array, "o"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        gap = observation[: len(self.place)] - jnp.asarray(self.place)
        return jnp.exp(-jnp.sum(gap**2) / (2 * self.width**2))


@dataclass(frozen=True)
class Resting:
    """1 within `radius` of a place and slower than `speed`, else 0. Observations are (x, y, speed x, speed y)."""

    place: tuple[float, float]
    radius: float
    speed: float

    def __call__(self, observation: Float[Array, "4"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        near = jnp.linalg.norm(observation[:2] - jnp.asarray(self.place)) <= self.radius
        return (near & (jnp.linalg.norm(observation[2:]) <= self.speed)).astype(jnp.float32)


@dataclass(frozen=True)
class Fast:
    """The speed as a fraction of `most`. Observations are (x, y, speed x, speed y)."""

    most: float

    def __call__(self, observation: Float[Array, "4"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        return jnp.sqrt(jnp.sum(observation[2:] ** 2) + 1e-6) / self.most


@dataclass(frozen=True)
class At:
    """1 in a cell, else 0."""

    cell: tuple[int, int]

    def __call__(self, observation: Float[Array, "2"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        return jnp.all(jnp.round(observation) == jnp.asarray(self.cell)).astype(jnp.float32)


@dataclass(frozen=True)
class Leaning:
    """1 where the rod leans by `lean` rad or more from upright, to either side, and is nearly still; else 0."""

    lean: float
    width: float
    speed: float

    def __call__(self, observation: Float[Array, "3"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        near = jnp.abs(jnp.abs(angle(observation[:2])) - self.lean) <= self.width
        return (near & (jnp.abs(observation[2]) <= self.speed)).astype(jnp.float32)


@dataclass(frozen=True)
class Energetic:
    """The rod's energy above rest below, as a fraction of `most` joules."""

    most: float

    def __call__(self, observation: Float[Array, "3"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        return (energy(observation) + 10) / self.most


class World(NamedTuple):
    """A world. behaviour: ``behaviour(seed) -> Task``, whose episodes have a seed of their own. rewards: by kind.

    states: of the prior's chain. bound: ``bound(reward) -> optimal return of a start and a number of steps``, or None.
    """

    name: str
    behaviour: Callable[[int], Task]
    rewards: dict[str, tuple[Reward, str]]
    states: int | None = None
    bound: Callable[[Reward], Bound] | None = None

    def task(self, seed: int, kind: str) -> Task:
        """The world with behaviour of a seed and one of its rewards."""
        reward, words = self.rewards[kind]
        bound = self.bound and self.bound(reward)
        return self.behaviour(seed).asking(reward, {"reward": repr(reward)}, words, bound=bound)


CLOSED = "\n".join((*gridworld.FOUR_ROOMS.rows[:7], "#GOOOO#######", *("#OOOOO#######",) * 4, "#" * 13))
"""Four rooms without the room at the lower right, where behaviour never goes."""


def confined(seed: int, episodes: int = 500, steps: int = 500, noise: float = 0.2) -> Episodes:
    """Behaviour of four rooms that keeps to three of them."""
    walks = experts.wander(Gridworld.from_text(CLOSED), jax.random.key(seed), episodes, steps, noise)
    return from_stacked(np.asarray(walks.observations), np.asarray(walks.actions))


def rooms(seed: int) -> Task:
    """Four rooms, whose behaviour keeps to three of them."""
    task = make_task("gridworld-fourrooms")
    settings: Any = {"confined": CLOSED, "seed": seed}
    return replace(task, episodes=lambda: confined(seed), settings=settings)


def best_walk(reward: Reward) -> Bound:
    """The optimal return in four rooms, by dynamic programming over cells: V_k(c) = r(c) + max over moves of V_k-1."""
    world = gridworld.FOUR_ROOMS
    earned = np.asarray(jax.vmap(reward, (0, None))(jnp.asarray(world.cells, jnp.float32), jnp.zeros(world.action_dim)))

    def bound(start: Float[np.ndarray, "2"], steps: int) -> float:
        values = np.zeros(len(earned))
        for _ in range(steps):
            values = earned + values[world.next_cell].max(axis=1)
        return float(values[np.abs(world.cells - start).sum(axis=1).argmin()])

    return bound


def best_swing(reward: Reward) -> Bound:
    """The optimal return of the pendulum, by value iteration on a grid (`envs.pendulum`)."""
    return lambda start, steps: float(pendulum.bound(np.asarray(start)[None], steps, gold=reward)[0])


def seeded(name: str) -> Callable[[int], Task]:
    """A world that ships, with behaviour of another seed."""
    return lambda seed: make_task(name, seed=seed)


WORLDS = {
    "umaze": World(
        "umaze",
        seeded("maze2d-umaze"),
        {
            "dense": (Near((3.0, 1.0), 0.8), "closeness to a dead end, summed over steps"),
            "rare": (Resting((2.0, 3.0), 0.25, 0.6), "steps at rest in the middle of the corridor"),
            "off_data": (Fast(5.0), "speed, summed over steps"),
        },
        states=128,
    ),
    "rooms": World(
        "rooms",
        rooms,
        {
            "dense": (Near((1.0, 1.0), 4.0), "closeness to the corner of the first room, summed over steps"),
            "rare": (At((5, 11)), "steps in a corner"),
            "off_data": (Near((11.0, 11.0), 4.0), "closeness to the corner of the closed room, summed over steps"),
        },
        bound=best_walk,
    ),
    "pendulum": World(
        "pendulum",
        seeded("pendulum"),
        {
            "dense": (Near((1.0, 0.0, 0.0), 1.0), "closeness to upright and still, summed over steps"),
            "rare": (Leaning(1.2, 0.12, 0.5), "steps at rest, leaning by 1.2 rad"),
            "off_data": (Energetic(20.0), "energy, summed over steps"),
        },
        states=256,
        bound=best_swing,
    ),
}
"""By name."""
