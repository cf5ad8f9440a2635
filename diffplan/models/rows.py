"""A network over the rows of a plan: what it says beyond a Markov chain of them.

It reads a plan x beside what a chain of k states (138) says of it: the mean m_t of every row and the posterior
gamma_t of its state. With p_t the observation of a row and phi(p) = sin(B p), cos(B p), where the directions of B are
random and its lengths in equal ratios from 0.5 to 20,

    u_t = W [x_t, phi(p_t), s (x_t+1 - x_t), s (x_t - x_t-1), m_t] + gate(e) sum_i gamma_t(i) E_i + position_t    (12e)

s = 5 enlarges the differences to the two neighbours: they are small beside the rows, and decide whether a step is
possible. E_i is what is learned of state i, as where the walls are near it. A block is that of (12), with a depthwise
convolution along the plan (width 5) beside the mixing of rows:

    u = u + gate(e) * (conv(v) + MLP_rows(v^T)^T),   v = scale(e) * norm(u) + shift(e);   then the channels       (12f)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.blocks import sin_cos, sinusoidal
from diffplan.models.mixer import Block, standardised

STEEPER = 5.0
"""s of (12e)."""

LENGTHS = (0.5, 20.0)
"""The shortest and the longest row of B in (12e), in radians to a standard deviation of the data."""

REACH = 2
"""Rows to either side that the convolution of (12f) covers, times its dilation."""


class Rows(NamedTuple):
    """How large the network is. features: rows of B. dilations: one block each."""

    width: int = 64
    expand: int = 3
    features: int = 32
    dilations: tuple[int, ...] = (1, 2, 1)


def directions(count: int, dim: int) -> Float[np.ndarray, "dim count"]:
    """B of (12e), transposed; fixed."""
    random = np.random.default_rng(9).normal(size=(dim, count))
    return (random / np.linalg.norm(random, axis=0) * np.geomspace(*LENGTHS, count)).astype(np.float32)


def described(x: Float[Array, "h d"], observed: int, features: int) -> Float[Array, "h i"]:
    """What is in the brackets of (12e) but for the mean."""
    phase = x[:, :observed] @ directions(features, observed)
    padded = jnp.pad(x, ((1, 1), (0, 0)), mode="edge")
    ahead, behind = STEEPER * (padded[2:] - x), STEEPER * (x - padded[:-2])
    return jnp.concatenate([x, *sin_cos(phase), ahead, behind], axis=1)


class RowBlock(Block):
    """(12f)."""

    def __init__(self, rows: int, size: Rows, dilation: int, rngs: nnx.Rngs):
        super().__init__(rows, size.width, size.expand, False, rngs)
        taps = 2 * REACH + 1
        self.dilation = dilation
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (taps, size.width)) / taps**0.5)

    def along(self, v: Float[Array, "h w"]) -> Float[Array, "h w"]:
        """The depthwise convolution, 0 beyond both ends."""
        reach, rows = REACH * self.dilation, len(v)
        padded = jnp.pad(v, ((reach, reach), (0, 0)))
        shifted = [padded[j * self.dilation : j * self.dilation + rows] for j in range(2 * REACH + 1)]
        return sum((w[None] * v for w, v in zip(self.kernel[...], shifted, strict=True)), jnp.zeros_like(v))

    def mixed(self, v: Float[Array, "h w"]) -> Float[Array, "h w"]:
        """What is said along the plan."""
        return self.along(v) + super().mixed(v)


class RowNetwork(nnx.Module):
    """``x[h, d]``, ``m[h, d]``, ``gamma[h, k]``, ``c_noise[]`` and where it takes one a ``condition[c]``, to
    ``[h, d]``. observed: the first entries of a row, of which Fourier features are taken.
    """

    def __init__(
        self,
        horizon: int,
        dim: int,
        states: int,
        observed: int,
        size: Rows,
        *,
        condition: int = 0,
        rngs: nnx.Rngs,
    ):
        width = self.width = size.width
        linear = lambda inputs, outputs: nnx.Linear(inputs, outputs, rngs=rngs)
        self.observed, self.features = observed, size.features
        self.embed = linear(4 * dim + 2 * size.features, width)
        self.table = nnx.Param(jax.random.normal(rngs.params(), (states, width)))
        self.gate = nnx.Linear(width, width, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (horizon, width)))
        self.noise_in, self.noise_out = linear(width, width), linear(width, width)
        self.blocks = nnx.List([RowBlock(horizon, size, dilation, rngs) for dilation in size.dilations])
        self.out = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros, rngs=rngs)
        if condition:  # last, so that the other parameters do not depend on it
            self.condition_in, self.condition_out = linear(condition, width), linear(width, width)

    def __call__(
        self,
        x: Float[Array, "h d"],
        mean: Float[Array, "h d"],
        posterior: Float[Array, "h k"],
        c_noise: Float[Array, ""],
        condition: Float[Array, "c"] | None = None,
    ) -> Float[Array, "h d"]:
        e = self.noise_out(nnx.silu(self.noise_in(sinusoidal(c_noise, self.width).astype(x.dtype))))
        if condition is not None:
            e = e + self.condition_out(nnx.silu(self.condition_in(condition)))
        e = nnx.silu(e)
        about = nnx.sigmoid(self.gate(e))[None] * (posterior @ self.table[...])
        read = jnp.concatenate([described(x, self.observed, self.features), mean], axis=1)
        u = self.embed(read) + about + self.position[...]
        for block in self.blocks:
            u = block(u, e)
        return self.out(standardised(u))
