"""Distances between plans, and from plans to data, as root mean square differences per entry in normalised units."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.types import Scalar


def data_distance(x: Float[Array, "h d"], data: Float[Array, "m h d"]) -> Scalar:
    """From a plan to its nearest neighbour among m data windows.

    |x - y|^2 is expanded around the data's mean, so that a batch of plans is one matrix product.
    """
    centre = data.mean(axis=0)
    rows, plan = (data - centre[None]).reshape(len(data), -1), (x - centre).ravel()
    squared = jnp.sum(rows**2, axis=1) - 2 * rows @ plan + jnp.sum(plan**2)
    return jnp.sqrt(jnp.maximum(jnp.min(squared), 0.0) / plan.size)


def pairwise_distance(plans: Float[Array, "n h d"]) -> Scalar:
    """The mean distance over all pairs of different plans, n >= 2; how diverse a batch is."""
    flat = plans.reshape(len(plans), -1)
    centred = flat - flat.mean(axis=0, keepdims=True)
    distances = jnp.sqrt(jnp.mean((centred[:, None, :] - centred[None, :, :]) ** 2, axis=-1))
    return jnp.sum(distances) / (len(plans) * (len(plans) - 1))
