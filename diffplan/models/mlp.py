"""A plain network from one vector to another, for what sees no plan but a single row of it.

u_0 = z,    u_i = silu(A_i u_i-1 + b_i),  i = 1 .. depth,    y = A u_depth + b
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class MLP(nnx.Module):
    """``depth`` hidden layers of ``width``; several inputs, numbers among them, are read as one vector."""

    def __init__(self, inputs: int, outputs: int, *, width: int = 128, depth: int = 2, rngs: nnx.Rngs):
        sizes = [inputs, *[width] * depth]
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.out = nnx.Linear(sizes[-1], outputs, rngs=rngs)

    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "o"]:
        u = jnp.concatenate([jnp.atleast_1d(part) for part in inputs])
        for layer in self.hidden:
            u = nnx.silu(layer(u))
        return self.out(u)
