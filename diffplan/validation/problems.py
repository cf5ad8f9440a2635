"""The problems whose every answer is known: a Gaussian, four modes in the plane, and paths in rooms of cells.

The cells are those of a small gridworld with walls; a plan is a path of 16 cells from a corner, as points of the plane
in standard deviations, and its reward is additive: closeness to the opposite corner. The prior is a random walk.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffplan.envs.gridworld import Gridworld
from diffplan.oracle.control import World
from diffplan.oracle.gaussian import Gaussian
from diffplan.oracle.mixture import Mixture, mixture
from diffplan.oracle.tabular import Chain, markov
from diffplan.types import Scalar

WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""The weights lambda of the reward at which samplers are held to the truth."""

ROOMS = Gridworld.from_text(
    """
    #######
    #OOOOO#
    #O##OO#
    #OOOOO#
    #OO#OO#
    #OOOOG#
    #######
    """
)
WALK = (0.1, 0.225, 0.225, 0.225, 0.225)
"""The prior's probability of each move: stay, up, down, left, right. Into a wall is to stay."""


class Cells(NamedTuple):
    """Paths in a gridworld: the exact prior, and an additive reward that is defined off the cells too."""

    chain: Chain
    goal: Float[Array, "d"]
    """Where the reward is highest, as a point."""
    std: Scalar
    """Cells to a unit of the plane."""

    def step_reward(self, point: Float[Array, "d"]) -> Scalar:
        """The reward of being at a point for one step: 0.4 at the goal, less with distance."""
        return 0.4 * jnp.exp(-jnp.sum((self.std * (point - self.goal)) ** 2) / (2 * 3.7**2))

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The reward of a plan, on the cells or off."""
        return jax.vmap(self.step_reward)(x).sum()

    @property
    def rewards(self) -> Float[Array, "h k"]:
        """The same as a table."""
        step = jax.vmap(self.step_reward)(self.chain.points)
        return jnp.broadcast_to(step[None], (self.chain.horizon, len(step)))

    def path_reward(self, path: Int[Array, "h"]) -> Scalar:
        """The reward of a path of cells."""
        return self.reward(self.chain.points[path])


def cells(horizon: int = 16) -> Cells:
    """The random walk in `ROOMS`, from its first cell; the goal is its last."""
    places = jnp.asarray(ROOMS.cells, jnp.float32)
    world = behaviour(ROOMS)
    walk = markov(world.start, jnp.einsum("sa,sat->st", world.policy, world.moves), horizon, places)
    fraction = walk.occupancy().mean(axis=0)
    from_mean = places - (fraction @ places)[None]
    std = jnp.sqrt(fraction @ jnp.sum(from_mean**2, axis=1) / 2)
    chain = walk._replace(points=from_mean / std)
    return Cells(chain, chain.points[-1], std)


def behaviour(rooms: Gridworld) -> World:
    """The random walk as tables."""
    k = len(rooms.cells)
    policy = jnp.broadcast_to(jnp.asarray(WALK, jnp.float32)[None], (k, len(WALK)))
    return World(jnp.zeros(k).at[0].set(1.0), policy, jnp.asarray(rooms.distribution, jnp.float32))


class Linear(NamedTuple):
    """A distribution with a linear reward."""

    distribution: Gaussian | Mixture
    slope: Float[Array, "h d"]

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """slope . x"""
        return jnp.sum(self.slope * x)


def gaussian() -> Linear:
    """A correlated Gaussian plan of three steps of two, away from the origin."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) / 5
    covariance = jnp.asarray(root @ root.T + 0.15 * np.eye(6), jnp.float32)
    slope = jnp.asarray([[1.0, 0.5], [0.0, 0.5], [1.0, 1.0]]) / 2
    return Linear(Gaussian.of(jnp.asarray(rng.uniform(size=6), jnp.float32), covariance, (3, 2)), slope)


MODES = ((2.0, 2.0), (2.0, -2.0), (-2.0, 2.0), (-2.0, -2.0))


def modes() -> Linear:
    """Four modes in the plane, the one that pays best the rarest (5 %); a linear reward."""
    weights = jnp.asarray([0.05, 0.25, 0.2, 0.5])
    covariances = jnp.broadcast_to(0.35**2 * jnp.eye(2)[None], (4, 2, 2))
    return Linear(mixture(weights, jnp.asarray(MODES), covariances, (1, 2)), jnp.asarray([[1.0, 0.5]]))
