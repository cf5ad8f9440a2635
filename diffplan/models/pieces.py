"""A denoiser that is blind between the pieces of a plan, and for one piece the plain network over the whole plan.

    F(x, c) = [F_1(x_1, c), ..., F_k(x_k, c)],    x = [x_1, ..., x_k] cut along its steps              (115)

Each F_i is an `MLP` of its own, from its piece and the noise level to its piece. The prior of such a denoiser is the
product of the distributions of its pieces, whatever it was trained on: choices that are made in different pieces are
independent.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.mlp import MLP


class Pieces(nnx.Module):
    """Equation (115): ``x[h, d]``, ``c_noise[]`` to ``[h, d]``; `pieces` of ``horizon / pieces`` steps."""

    def __init__(
        self, horizon: int, dim: int, *, pieces: int = 1, width: int = 64, depth: int = 2, rngs: nnx.Rngs
    ) -> None:
        if pieces < 1 or horizon % pieces:
            raise ValueError(f"pieces={pieces}: must divide the horizon, {horizon}")
        size = horizon // pieces * dim
        self.networks = nnx.List([MLP(size + 1, size, width=width, depth=depth, rngs=rngs) for _ in range(pieces)])

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, "h d"]:
        parts = x.reshape(len(self.networks), -1)
        return jnp.stack([net(part, c_noise) for net, part in zip(self.networks, parts, strict=True)]).reshape(x.shape)
