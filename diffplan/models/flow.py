"""The network of a flow map: that of `RowNetwork` without a Markov chain, told where it is to go.

A row is read as in (12e), without the terms of the chain. The embedding e of (12f) is that of two levels: the noise
level of the plan, and the level to which it is taken.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.blocks import sinusoidal
from diffplan.models.mixer import standardised
from diffplan.models.rows import RowBlock, Rows, described


class FlowNetwork(nnx.Module):
    """``x[h, d]``, ``c_noise[]`` and ``c_target[]`` to ``[h, d]``. observed: the first entries of a row, of which
    Fourier features are taken.
    """

    def __init__(self, horizon: int, dim: int, observed: int, size: Rows, *, rngs: nnx.Rngs):
        width = self.width = size.width
        linear = lambda inputs, outputs: nnx.Linear(inputs, outputs, rngs=rngs)
        self.observed, self.features = observed, size.features
        self.embed = linear(3 * dim + 2 * size.features, width)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (horizon, width)))
        self.noise_in, self.target_in, self.noise_out = (linear(width, width) for _ in range(3))
        self.blocks = nnx.List([RowBlock(horizon, size, dilation, rngs) for dilation in size.dilations])
        self.out = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, x: Float[Array, "h d"], c_noise: Float[Array, ""], c_target: Float[Array, ""]
    ) -> Float[Array, "h d"]:
        level = lambda c: sinusoidal(c, self.width).astype(x.dtype)
        e = self.noise_in(level(c_noise)) + self.target_in(level(c_target))
        e = nnx.silu(self.noise_out(nnx.silu(e)))
        u = self.embed(described(x, self.observed, self.features)) + self.position[...]
        for block in self.blocks:
            u = block(u, e)
        return self.out(standardised(u))
