"""The small pieces that temporal networks are built from, on one plan ``x[h, c]`` (steps, channels).

A temporal convolution of odd width k and stride s, with k // 2 zeros on either side, is

    y[i] = b + sum_j x[s i + j - k // 2] W[j],        j = 0 .. k - 1                            (1)

and its transpose of width 4 and stride 2, which doubles the number of steps, is

    y[2i]     = b + x[i - 1] W[3] + x[i] W[1]
    y[2i + 1] = b + x[i] W[2] + x[i + 1] W[0]                                                   (2)

Both are one matrix product, of shifted inputs side by side (`unfold`) or, where that moves fewer numbers, with shifted
outputs to be added up (`fold`). Under `jax.vmap` it becomes a single product over ``batch * h`` rows. `lax.conv` is not
used: XLA's CPU backend is slow at its derivative inside a `lax.scan`.

The noise level enters as ``c_noise``, one number, through

    sinusoidal(c)[j] = sin(1000 c f_j), cos(1000 c f_j),    f_j from 1 down to 1 / 10000        (3)

in equal ratios. EDM's ``c_noise = log(sigma) / 4`` lies within about [-1.6, 1.1]; times 1000 it spans the range for
which the frequencies of transformers were chosen, the slowest turning by a quarter radian over all noise levels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


def sinusoidal(c_noise: Float[Array, ""], width: int) -> Float[Array, "width"]:
    """The embedding (3) of a noise level; `width` is even and at least 4."""
    if width < 4 or width % 2:
        raise ValueError(f"a sinusoidal embedding needs an even width of at least 4, got {width}")
    # A constant, not a computation: XLA would hoist one out of a sampling loop once per call of the network and then no
    # longer see that a guided and an unguided evaluation of the same plan are the same (measured: 1.5 times the cost).
    frequencies = np.float32(10_000.0) ** -np.linspace(0.0, 1.0, width // 2, dtype=np.float32)
    angles = 1000.0 * c_noise * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def mish(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x tanh(log(1 + e^x)) (Misra 2019, arXiv 1908.08681), from one exponential: the tangent is u / (u + 2) with
    u = e^x (e^x + 2). Half of the time of a U-Net's block goes into what is not a product.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))
    u = e * (e + 2)
    return x * u / (u + 2)


class GroupNorm(nnx.Module):
    """Group normalisation (Wu and He 2018, arXiv 1803.08494) over the steps and a group's channels, ``x[h, c]``.

    Sums go over steps first and over a group's channels then, which keeps them along the rows of memory.
    """

    def __init__(self, channels: int, groups: int):
        if channels % groups:
            raise ValueError(f"channels must be divisible by groups, got {channels} and {groups}")
        self.groups = groups
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "h c"]) -> Float[Array, "h c"]:
        mean = self.of_group(x.mean(axis=0))
        variance = self.of_group(jnp.mean((x - mean[None]) ** 2, axis=0))
        factor = self.scale[...] * jax.lax.rsqrt(variance + 1e-5)
        return x * factor[None] + (self.bias[...] - mean * factor)[None]

    def of_group(self, values: Float[Array, "c"]) -> Float[Array, "c"]:
        """Each channel's value replaced by the mean over its group."""
        means = values.reshape(self.groups, -1).mean(axis=1)
        return jnp.repeat(means, len(values) // self.groups)


def unfold(x: Float[Array, "h c"], width: int, stride: int = 1) -> Float[Array, "out kc"]:
    """Row i holds ``x[stride * i + j - width // 2]``, j = 0 .. width - 1, side by side; beyond the ends stand zeros."""
    steps = x.shape[0]
    padded = jnp.pad(x, ((width // 2, width // 2), (0, 0)))
    return jnp.concatenate([padded[j : j + steps : stride] for j in range(width)], axis=1)


def fold(y: Float[Array, "h kc"], width: int) -> Float[Array, "h c"]:
    """With the columns cut into `width` blocks ``y_j[h, c]``, row i is the sum of ``y_j[i + j - width // 2]``."""
    steps, around = y.shape[0], ((width // 2, width // 2), (0, 0))
    blocks = jnp.split(y, width, axis=1)  # whose derivative is one concatenation; that of slices is a sum of paddings
    shifted = [jnp.pad(block, around)[j : j + steps] for j, block in enumerate(blocks)]
    return sum(shifted[1:], start=shifted[0])


class Conv(nnx.Module):
    """The temporal convolution (1); ``kernel[k, c_in, c_out]``."""

    def __init__(self, c_in: int, c_out: int, width: int, *, stride: int = 1, rngs: nnx.Rngs):
        if width % 2 == 0:
            raise ValueError(f"a temporal convolution needs an odd width, got {width}")
        self.stride = stride
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (width, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros((c_out,)))

    def __call__(self, x: Float[Array, "h c_in"]) -> Float[Array, "out c_out"]:
        kernel = self.kernel[...]
        width, c_in, c_out = kernel.shape
        if width == 1:
            y = x[:: self.stride] @ kernel[0]
        elif c_out < c_in and self.stride == 1:
            y = fold(x @ kernel.transpose(1, 0, 2).reshape(c_in, width * c_out), width)
        else:
            y = unfold(x, width, self.stride) @ kernel.reshape(width * c_in, c_out)
        return y + self.bias[...][None, :]


class ConvTranspose(nnx.Module):
    """The transposed convolution (2), of width 4 and stride 2; ``kernel[4, c_in, c_out]``."""

    def __init__(self, c_in: int, c_out: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (4, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros((c_out,)))

    def __call__(self, x: Float[Array, "h c_in"]) -> Float[Array, "2*h c_out"]:
        kernel, steps = self.kernel[...], x.shape[0]
        padded = jnp.pad(x, ((1, 1), (0, 0)))
        before, after = padded[:steps], padded[2:]
        even = jnp.concatenate([before, x], axis=1) @ jnp.concatenate([kernel[3], kernel[1]])
        odd = jnp.concatenate([x, after], axis=1) @ jnp.concatenate([kernel[2], kernel[0]])
        return jnp.stack([even, odd], axis=1).reshape(2 * steps, -1) + self.bias[...][None, :]
