"""A patched mixer: the fast default denoiser, and its scalar-valued sibling for learned rewards.

A plan ``x[h, d]`` is cut into t = h / p patches of p steps, each a token of width w (Tolstikhin et al. 2021,
MLP-Mixer). A block mixes over tokens, then over channels, each time modulated by an embedding e of the noise level
(adaptive layer norm, Peebles and Xie 2023, DiT):

    u = u + gate(e) * MLP_tokens(scale(e) * norm(u) + shift(e))^T,   then the same over channels         (12)

Where a point's place decides what may follow, as between walls, tokens are single points, and a place p, the first two
entries of x, is given with random Fourier features of it (Tancik et al. 2020, arXiv 2006.10739),

    sin(B p), cos(B p),     B ~ N(0, 3^2) [features, 2], fixed                                           (12c)

A condition, where a network takes one, is embedded by two layers of its own and added to e before its last activation.
Everything is a matrix product over the batch, so on two CPU cores it runs near the peak of the machine, where
convolutions do not; a fixed horizon is the price.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.blocks import sin_cos, sinusoidal

FREQUENCY = 3.0
"""Standard deviation of B in (12c): a map with details of a third of the data's deviation."""


def with_features(x: Float[Array, "h d"], features: int) -> Float[Array, "h wide"]:
    """Points with the features (12c) of their places."""
    if not features:
        return x
    with jax.ensure_compile_time_eval():  # a constant of the program: see `sinusoidal`
        directions = FREQUENCY * jax.random.normal(jax.random.key(9), (2, features))
    phase = x[:, :2] @ directions
    return jnp.concatenate([x, *sin_cos(phase)], axis=1)


def standardised(u: Float[Array, "t w"]) -> Float[Array, "t w"]:
    """Layer norm without parameters; the modulation in (12) supplies them."""
    centred = u - u.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)


class Block(nnx.Module):
    """Equation (12): tokens, then channels. `smooth` chooses SiLU, for networks that are differentiated; else ReLU."""

    def __init__(self, tokens: int, width: int, expand: int, smooth: bool, rngs: nnx.Rngs):
        self.smooth = smooth
        zeros = nnx.initializers.zeros
        self.modulate = nnx.Linear(width, 6 * width, kernel_init=zeros, rngs=rngs)
        self.add_mixing(tokens, width, rngs)
        self.channels_in = nnx.Linear(width, expand * width, rngs=rngs)
        self.channels_out = nnx.Linear(expand * width, width, rngs=rngs)

    def add_mixing(self, tokens: int, width: int, rngs: nnx.Rngs) -> None:
        """The layers of `mixed`."""
        self.tokens_in = nnx.Linear(tokens, 4 * tokens, rngs=rngs)
        self.tokens_out = nnx.Linear(4 * tokens, tokens, rngs=rngs)

    def mixed(self, v: Float[Array, "t w"]) -> Float[Array, "t w"]:
        """What tokens say to each other."""
        activate = nnx.silu if self.smooth else nnx.relu
        return self.tokens_out(activate(self.tokens_in(v.T))).T

    def __call__(self, u: Float[Array, "t w"], e: Float[Array, "w"]) -> Float[Array, "t w"]:
        activate = nnx.silu if self.smooth else nnx.relu
        shift_t, scale_t, gate_t, shift_c, scale_c, gate_c = jnp.split(self.modulate(e)[None], 6, axis=-1)
        u = u + (1 + gate_t) * self.mixed(standardised(u) * (1 + scale_t) + shift_t)
        y = standardised(u) * (1 + scale_c) + shift_c
        return u + (1 + gate_c) * self.channels_out(activate(self.channels_in(y)))


class Size(NamedTuple):
    """How large a mixer is. patch: steps to a token; expand: of the hidden layers; features: Fourier features."""

    patch: int = 8
    width: int = 128
    depth: int = 3
    expand: int = 4
    features: int = 0


DENOISER, REWARD = Size(), Size(width=64, depth=2)


class Trunk(nnx.Module):
    """Patches, noise-level embedding and blocks: ``x[h, d]`` to tokens ``[t, w]``."""

    block_type: type[Block] = Block

    def __init__(self, horizon: int, dim: int, size: Size, smooth: bool, rngs: nnx.Rngs, condition: int = 0):
        patch, width, depth, expand, features = size
        if horizon % patch:
            raise ValueError(f"patch must divide the horizon: got patch={patch}, horizon={horizon}")
        self.patch, self.width, self.features = patch, width, features
        tokens = horizon // patch
        self.embed = nnx.Linear(patch * (dim + 2 * features), width, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (tokens, width)))
        self.noise_in, self.noise_out = nnx.Linear(width, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.blocks = nnx.List([self.block_type(tokens, width, expand, smooth, rngs) for _ in range(depth)])
        if condition:  # last, so that the other parameters do not depend on it
            self.condition_in = nnx.Linear(condition, width, rngs=rngs)
            self.condition_out = nnx.Linear(width, width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "h d"], c_noise: Float[Array, ""], condition: Float[Array, "c"] | None = None
    ) -> Float[Array, "t w"]:
        e = self.noise_out(nnx.silu(self.noise_in(sinusoidal(c_noise, self.width).astype(x.dtype))))
        if condition is not None:
            e = e + self.condition_out(nnx.silu(self.condition_in(condition)))
        e = nnx.silu(e)
        x = with_features(x, self.features)
        u = self.embed(x.reshape(-1, self.patch * x.shape[1])) + self.position[...]
        for block in self.blocks:
            u = block(u, e)
        return u


class Mixer(nnx.Module):
    """The denoising network: ``x[h, d]``, ``c_noise[]``, and where it takes one a ``condition[c]``, to ``[h, d]``."""

    trunk_type: type[Trunk] = Trunk

    def __init__(self, horizon: int, dim: int, size: Size = DENOISER, *, condition: int = 0, rngs: nnx.Rngs):
        self.trunk = self.trunk_type(horizon, dim, size, False, rngs, condition)
        self.out = nnx.Linear(size.width, size.patch * dim, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, x: Float[Array, "h d"], c_noise: Float[Array, ""], condition: Float[Array, "c"] | None = None
    ) -> Float[Array, "h d"]:
        return self.out(standardised(self.trunk(x, c_noise, condition))).reshape(x.shape)


class Value(nnx.Module):
    """A learned reward's network: ``x[h, d]``, ``c_noise[]`` to one number, the mean of a readout over tokens.

    The tokens are not normalised before the readout: a norm there would bound the reward of any plan whatever, and so
    hide what an optimiser does to a learned reward far from its data.
    """

    def __init__(self, horizon: int, dim: int, size: Size = REWARD, *, rngs: nnx.Rngs):
        self.trunk = Trunk(horizon, dim, size, True, rngs)
        self.hidden = nnx.Linear(size.width, size.width, rngs=rngs)
        self.out = nnx.Linear(size.width, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.mean(self.out(nnx.silu(self.hidden(self.trunk(x, c_noise)))))
