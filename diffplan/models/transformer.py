"""A transformer over the rows of a plan: the mixer's frame, with self-attention in place of its mixing of tokens.

With v the tokens ``[t, w]`` of (12) and a head's own matrices Q, K and V of w / n columns each (Vaswani et al. 2017,
arXiv 1706.03762), its part of the w numbers is

    softmax((v Q) (v K)^T / sqrt(w / n)) v V,        the heads side by side, times O                      (156)

modulated by the noise level as the mixer is (Peebles and Xie 2023, DiT).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.mixer import Block, Mixer, Trunk

HEAD = 16
"""Numbers of a head; a row that it does not divide has one head."""


class AttentionBlock(Block):
    """(12), with (156)."""

    def add_mixing(self, tokens: int, width: int, rngs: nnx.Rngs) -> None:
        """The layers of `mixed`."""
        self.heads = width // HEAD if width % HEAD == 0 else 1
        self.query_key_value = nnx.Linear(width, 3 * width, rngs=rngs)
        self.output = nnx.Linear(width, width, rngs=rngs)

    def mixed(self, v: Float[Array, "t w"]) -> Float[Array, "t w"]:
        """The attention (156)."""
        query, key, value = (
            self.query_key_value(v).reshape(len(v), 3, self.heads, -1).transpose(1, 2, 0, 3)
        )  # [heads, t, w / n]
        weights = jax.nn.softmax(query @ key.transpose(0, 2, 1) / query.shape[-1] ** 0.5)
        return self.output(jnp.moveaxis(weights @ value, 0, 1).reshape(v.shape))


class AttentionTrunk(Trunk):
    """The mixer's, with attention."""

    block_type = AttentionBlock


class Transformer(Mixer):
    """The denoising network, as `Mixer`."""

    trunk_type = AttentionTrunk
