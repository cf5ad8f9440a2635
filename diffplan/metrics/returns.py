"""Returns of plans."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.types import Scalar, Trajectory

RewardOfRow = Callable[[Float[Array, "o"], Float[Array, "a"]], Scalar]
"""(observation, action) -> reward."""


def plan_return(reward: RewardOfRow, trajectory: Trajectory) -> Scalar:
    """The promised return of a plan: the reward summed over its rows, whether or not they can be executed."""
    return jnp.sum(jax.vmap(reward)(trajectory.observations, trajectory.actions))
