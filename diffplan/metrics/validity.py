"""Validity: whether a plan could happen. Judged on segments between points, never on points alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffplan.types import Scalar, Trajectory


def crosses(segment_crosses: Callable[[Array, Array], Array], positions: Float[Array, "h p"]) -> Bool[Array, ""]:
    """Whether any segment of the path meets a wall; `segment_crosses(p, q)` decides for one segment."""
    return jnp.any(jax.vmap(segment_crosses)(positions[:-1], positions[1:]))


def longest_step(positions: Float[Array, "h p"]) -> Scalar:
    """The largest distance between neighbouring points, in the unit of the positions."""
    return jnp.max(jnp.linalg.norm(positions[1:] - positions[:-1], axis=-1))


def dynamics_residual(residual: Callable[[Array, Array, Array], Array], trajectory: Trajectory) -> Scalar:
    """The mean over steps of how far the next observation is from what the environment would have given."""
    o, a = trajectory.observations, trajectory.actions
    return jnp.mean(jax.vmap(residual)(o[:-1], a[:-1], o[1:]))


def is_finite(x: Float[Array, "h d"]) -> Bool[Array, ""]:
    """Whether every entry is finite."""
    return jnp.all(jnp.isfinite(x))
