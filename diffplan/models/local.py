"""A local network: every step of a plan looks at its neighbours, block by block further away.

A block joins each step with those `dilation` before and behind it (zeros beyond the ends), modulated by the noise level
as in (12), and adds what a two-layer perceptron makes of the three:

    u_t = u_t + MLP([v_t-k, v_t, v_t+k]),   v = scale(e) * norm(u) + shift(e)                         (12b)

The weights are shared along the plan, so what is learned of a move at one step is known at all. The receptive field is
1 + 2 * the sum of the dilations: a knob for what a plan may compose (Kamb and Ganguli 2024, arXiv 2412.20292). As in
the mixer, everything is a matrix product.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.blocks import sinusoidal
from diffplan.models.mixer import standardised


class LocalBlock(nnx.Module):
    """Equation (12b)."""

    def __init__(self, width: int, dilation: int, expand: int, smooth: bool, rngs: nnx.Rngs):
        self.dilation, self.smooth = dilation, smooth
        zeros = nnx.initializers.zeros
        self.modulate = nnx.Linear(width, 2 * width, kernel_init=zeros, rngs=rngs)
        self.inner = nnx.Linear(3 * width, expand * width, rngs=rngs)
        self.outer = nnx.Linear(expand * width, width, rngs=rngs)

    def __call__(self, u: Float[Array, "h w"], e: Float[Array, "w"]) -> Float[Array, "h w"]:
        shift, scale = jnp.split(self.modulate(e)[None], 2, axis=-1)
        v = standardised(u) * (1 + scale) + shift
        k, h = self.dilation, len(u)
        padded = jnp.pad(v, ((k, k), (0, 0)))
        joined = jnp.concatenate([padded[:h], v, padded[2 * k :]], axis=1)
        activate = nnx.silu if self.smooth else nnx.relu
        return u + self.outer(activate(self.inner(joined)))


class Local(nnx.Module):
    """``x[h, d_in]``, ``c_noise[]`` to ``[h, d_out]``; `smooth` for networks that are differentiated."""

    def __init__(
        self,
        horizon: int,
        dim: int,
        out: int,
        *,
        width: int = 64,
        dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4),
        expand: int = 2,
        smooth: bool = False,
        rngs: nnx.Rngs,
    ):
        self.width = width
        self.embed = nnx.Linear(dim, width, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (horizon, width)))
        self.noise_in, self.noise_out = nnx.Linear(width, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.blocks = nnx.List([LocalBlock(width, k, expand, smooth, rngs) for k in dilations])
        self.out = nnx.Linear(width, out, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, "h o"]:
        e = nnx.silu(self.noise_out(nnx.silu(self.noise_in(sinusoidal(c_noise, self.width)))))
        u = self.embed(x) + self.position[...]
        for block in self.blocks:
            u = block(u, e)
        return self.out(standardised(u))


class LocalValue(nnx.Module):
    """A learned reward's or energy's network of the same kind: ``x[h, d]``, ``c_noise[]`` to one number.

    The mean over steps of a readout, so that an additive reward is easy to say.
    """

    def __init__(
        self, horizon: int, dim: int, *, width: int = 64, dilations: tuple[int, ...] = (1, 2, 4), rngs: nnx.Rngs
    ):
        self.net = Local(horizon, dim, 1, width=width, dilations=dilations, smooth=True, rngs=rngs)

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.mean(self.net(x, c_noise))
