"""What can be had of several rewards at once; of every reward, more is better.

Point a dominates b if it is nowhere below it and somewhere above. The front is the set of points that none dominates;
its hypervolume is the volume that lies below some point and above a reference (Zitzler and Thiele 1999):

    front = {b : no a with a >= b and a != b},     volume = |union over points v of [reference, v]|      (103)
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffplan.types import Scalar


def front(values: Float[Array, "n m"]) -> Bool[Array, "n"]:
    """Which of n points are on the front; equal points stay together, and a point that is not finite is not on it."""
    finite = jnp.all(jnp.isfinite(values), axis=1)
    no_worse = jnp.all(values[:, None] >= values[None], axis=2)  # [a b]: a is nowhere below b
    better = jnp.any(values[:, None] > values[None], axis=2)
    return finite & ~jnp.any(no_worse & better & finite[:, None], axis=0)


def hypervolume(values: Float[Array, "n 2"], reference: Float[Array, "2"]) -> Scalar:
    """The area of (103): walking from the largest first reward down, each point adds what it has above all before."""
    kept = jnp.where(jnp.all(jnp.isfinite(values), axis=1, keepdims=True), values, reference[None])
    width, height = jnp.maximum(kept - reference[None], 0.0)[jnp.argsort(-kept[:, 0])].T
    before = jnp.concatenate([jnp.zeros(1), jnp.maximum.accumulate(height)[:-1]])
    return jnp.sum(width * jnp.maximum(height - before, 0.0))
