"""The denoiser of plans given conditions, trained so that it also answers when nothing, or only a part, is asked.

With c the condition of a window x0 and m a random mask over its parts, each part dropped (set to 0) with probability p
independently of the others (Ho and Salimans 2022, algorithm 1):

    min E |D(x_sigma, sigma, m c) - x0|^2 (1 + sigma^2) / sigma^2         D -> E[x0 | x_sigma, m c]             (91)

A value of 0 alone would be a condition like any other, so every part begins with a flag: see `methods.conditional`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan import denoise
from diffplan.denoise import Edm, NoiseLevels
from diffplan.learn.train import Draw, Task
from diffplan.types import Apply, Level, Params, PRNGKey, Scalar


@struct.dataclass
class ConditionalEdm:
    """A network ``apply(params, x[h, d], c_noise[], condition[c])`` as a `Conditional`: at each condition, an `Edm`."""

    params: Params
    apply: Apply = struct.field(pytree_node=False)

    def given(self, condition: Float[Array, "c"]) -> Edm:
        """The denoiser at one condition; nothing is asked at 0."""
        return Edm(self.params, lambda params, x, c_noise: self.apply(params, x, c_noise, condition))

    def __call__(self, x: Float[Array, "h d"], sigma: Level, condition: Float[Array, "c"]) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x, condition]."""
        return self.given(condition)(x, sigma)


def dropped(key: PRNGKey, condition: Float[Array, "c"], parts: Int[np.ndarray, "c"], drop: float) -> Float[Array, "c"]:
    """The condition with each of its parts set to 0 with probability `drop`."""
    keep = jax.random.bernoulli(key, 1 - drop, (int(parts.max()) + 1,))
    return jnp.where(keep[parts], condition, 0.0)


def task(apply: Apply, draw: Draw, parts: Int[np.ndarray, "c"], levels: NoiseLevels, drop: float) -> Task:
    """Equation (91) as a training task.

    draw: ``draw(key, data) -> (window [h, d], entries that stay clean [h, d], condition [c])``. parts: which part each
    entry of a condition belongs to, numbered from 0. drop: p.
    """

    def loss(params: Params, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        x, mask, condition = example
        key_drop, key_loss = jax.random.split(key)
        given = ConditionalEdm(params, apply).given(dropped(key_drop, condition, parts, drop))
        return denoise.loss(key_loss, given, x, mask, levels)

    return Task(loss, draw)
