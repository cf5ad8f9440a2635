"""Temporal convolutions of one plan ``x[h, c]`` (steps, channels), as matrix products.

A convolution of odd width k and stride s, with k // 2 zeros on either side, is

    y[i] = b + sum_j x[s i + j - k // 2] W[j],        j = 0 .. k - 1                            (1)

and its transpose of width 4 and stride 2, which doubles the number of steps, is

    y[2i]     = b + x[i - 1] W[3] + x[i] W[1]
    y[2i + 1] = b + x[i] W[2] + x[i + 1] W[0]                                                   (2)

Both are one matrix product, of shifted inputs side by side (`unfold`) or, where that moves fewer numbers, with shifted
outputs to be added up (`fold`). Under `jax.vmap` it becomes a single product over ``batch * h`` rows. `lax.conv` is not
used: XLA's CPU backend is slow at its derivative inside a `lax.scan`.

**In fewer products.** m neighbouring outputs of (1) at stride 1 are linear in n = m + k - 1 inputs x. They need n
products, not m k (Winograd 1980, "Arithmetic complexity of computations"; Lavin and Gray 2016, arXiv 1509.09308):

    y = V_m^T ((V_k W) * (V_n^-T x)),     V_c[i, j] = p_i^j,  and its last row is 0 .. 0 1               (154)

with p_i any n - 1 different numbers and * by entries, each a matrix product of channels. It is the transpose of
multiplying polynomials by their values at the p_i and at infinity. With m = 4 and k = 5 there are 8 products for 20.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)
"""p of (154)."""

TILE = 4
"""m of (154)."""

WIDE = 32
"""Channels from which fewer products are worth the additions that they take."""


def vandermonde(points: tuple[float, ...], count: int) -> Float[np.ndarray, "n count"]:
    """V of (154)."""
    return np.concatenate([np.power.outer(points, np.arange(count)), np.eye(count)[-1:]])


def in_fewer_products(x: Float[Array, "h c_in"], kernel: Float[Array, "k c_in c_out"]) -> Float[Array, "h c_out"]:
    """(1) at stride 1 and without b, by (154). The number of steps must be divisible by `TILE`."""
    (steps, c_in), width = x.shape, len(kernel)
    reach, tiles = width // 2, steps // TILE
    points = POINTS[: TILE + width - 2]
    over_inputs = np.linalg.inv(vandermonde(points, len(points) + 1)).T
    over_kernel, over_products = vandermonde(points, width).astype(np.float32), vandermonde(points, TILE).T
    # Phases first, so that a derivative is one concatenation and not a sum of paddings.
    rows = jnp.pad(x, ((reach, TILE - reach), (0, 0))).reshape(tiles + 1, TILE, c_in)
    phases = [phase[:, 0] for phase in jnp.split(rows, TILE, axis=1)]
    inputs = [phases[j % TILE][j // TILE :][:tiles] for j in range(len(points) + 1)]
    mixed = jnp.stack([weighted_sum(weights, inputs) for weights in over_inputs])
    products = jnp.einsum("nti,nio->nto", mixed, jnp.tensordot(over_kernel, kernel, 1))
    parts = [part[0] for part in jnp.split(products, len(products))]
    return jnp.stack([weighted_sum(weights, parts) for weights in over_products], axis=1).reshape(steps, -1)


def weighted_sum(weights: Float[np.ndarray, "n"], arrays: list[Float[Array, "t c"]]) -> Float[Array, "t c"]:
    """The weighted sum of arrays; those of weight 0 are left out."""
    terms = [float(weight) * array for weight, array in zip(weights, arrays, strict=True) if abs(weight) > 1e-9]
    return sum(terms[1:], start=terms[0])


def use_fewer(x: Float[Array, "h c_in"], kernel: Float[Array, "k c_in c_out"], stride: int) -> bool:
    """Whether (154) is the faster way, and exact to rounding: on a CPU, in float32, between wide layers."""
    width, c_in, c_out = kernel.shape
    fits = stride == 1 and 1 < width <= len(POINTS) + 2 - TILE and len(x) % TILE == 0
    return fits and min(c_in, c_out) >= WIDE and x.dtype == jnp.float32 and jax.default_backend() == "cpu"


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
        elif use_fewer(x, kernel, self.stride):
            y = in_fewer_products(x, kernel)
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
