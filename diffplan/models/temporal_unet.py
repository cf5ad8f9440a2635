"""The temporal U-Net of Diffuser (Janner et al. 2022, "Planning with diffusion for flexible behavior synthesis").

A plan ``x[h, d]`` is treated as a picture of one spatial axis, time. With `Conv` (equation (1) of `convolution`), group
normalisation and Mish, and an embedding e of the noise level, a residual block of width k maps

    u = mish(norm(conv_k(x))) + linear(mish(e))
    y = mish(norm(conv_k(u))) + skip(x),        skip = conv_1 if the channels change, else the identity    (1)

and the network is, for channels c_1 .. c_m (``dim`` times each of ``mults``),

    down_i   two blocks to c_i, kept for the way up; then, but at the last, conv_3 of stride 2
    middle   two blocks of c_m
    up_i     [x, kept_(i+1)]: two blocks to c_i, then the transposed convolution of stride 2; i = m - 1 .. 1
    last     mish(norm(conv_k(x))), conv_1 to d                                                            (2)

The embedding is e = linear(mish(linear(sinusoidal(c_noise)))) with ``dim`` numbers. As in the original, the finest
level's output is not joined on the way up. ``dim=32, mults=(1, 4, 8)`` is its configuration for navigation.
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffplan.models.blocks import GroupNorm, mish, sinusoidal
from diffplan.models.convolution import Conv, ConvTranspose


class ConvBlock(nnx.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, c_in: int, c_out: int, width: int, groups: int, *, rngs: nnx.Rngs):
        self.conv = Conv(c_in, c_out, width, rngs=rngs)
        self.norm = GroupNorm(c_out, groups)

    def __call__(self, x: Float[Array, "h c_in"]) -> Float[Array, "h c_out"]:
        return mish(self.norm(self.conv(x)))


class ResidualBlock(nnx.Module):
    """Equation (1)."""

    def __init__(self, c_in: int, c_out: int, c_embed: int, width: int, groups: int, *, rngs: nnx.Rngs):
        self.first = ConvBlock(c_in, c_out, width, groups, rngs=rngs)
        self.embed = nnx.Linear(c_embed, c_out, rngs=rngs)
        self.second = ConvBlock(c_out, c_out, width, groups, rngs=rngs)
        self.skip = Conv(c_in, c_out, 1, rngs=rngs) if c_in != c_out else None

    def __call__(self, x: Float[Array, "h c_in"], e: Float[Array, "e"]) -> Float[Array, "h c_out"]:
        y = self.second(self.first(x) + self.embed(mish(e))[None, :])
        return y + (x if self.skip is None else self.skip(x))


class Level(nnx.Module):
    """Two residual blocks at one resolution, and what changes the resolution afterwards, if anything does."""

    def __init__(self, c_in: int, c_out: int, resample: nnx.Module | None, *args: int, rngs: nnx.Rngs):
        self.first = ResidualBlock(c_in, c_out, *args, rngs=rngs)
        self.second = ResidualBlock(c_out, c_out, *args, rngs=rngs)
        self.resample = resample

    def __call__(
        self, x: Float[Array, "h c_in"], e: Float[Array, "e"]
    ) -> tuple[Float[Array, "out c_out"], Float[Array, "h c_out"]]:
        """The array to carry on, and the array before its resolution was changed."""
        kept = self.second(self.first(x, e), e)
        return (kept if self.resample is None else self.resample(kept)), kept


class TemporalUNet(nnx.Module):
    """Equation (2): ``(x[h, d], c_noise) -> [h, d]``. The horizon must be divisible by ``2 ** (len(mults) - 1)``."""

    def __init__(
        self,
        d: int,
        *,
        dim: int = 32,
        mults: tuple[int, ...] = (1, 4, 8),
        width: int = 5,
        groups: int = 8,
        rngs: nnx.Rngs,
    ):
        channels = [dim * mult for mult in mults]
        rest = (dim, width, groups)
        self.dim, self.factor = dim, 2 ** (len(mults) - 1)
        self.embed = nnx.List([nnx.Linear(dim, 4 * dim, rngs=rngs), nnx.Linear(4 * dim, dim, rngs=rngs)])
        self.down = nnx.List()
        for i, (c_in, c_out) in enumerate(pairwise([d, *channels])):
            halve = Conv(c_out, c_out, 3, stride=2, rngs=rngs) if i + 1 < len(channels) else None
            self.down.append(Level(c_in, c_out, halve, *rest, rngs=rngs))
        self.middle = Level(channels[-1], channels[-1], None, *rest, rngs=rngs)
        self.up = nnx.List()
        for c_out, c_in in reversed(list(pairwise(channels))):
            double = ConvTranspose(c_out, c_out, rngs=rngs)
            self.up.append(Level(2 * c_in, c_out, double, *rest, rngs=rngs))
        self.last = ConvBlock(dim * mults[0], dim, width, groups, rngs=rngs)
        self.out = Conv(dim, d, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, "h d"]:
        if x.shape[0] % self.factor:
            raise ValueError(f"the horizon must be divisible by {self.factor} for this U-Net, got {x.shape[0]}")
        first, second = self.embed
        e = second(mish(first(sinusoidal(c_noise, self.dim).astype(x.dtype))))
        skips = []
        for level in self.down:
            x, kept = level(x, e)
            skips.append(kept)
        x, _ = self.middle(x, e)
        for level in self.up:
            x, _ = level(jnp.concatenate([x, skips.pop()], axis=1), e)
        return self.out(self.last(x))
