"""The U-Net against XLA's own convolutions, flax's group norm, and the published parameter count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffplan.models import TemporalUNet, count, to_pure
from diffplan.models.blocks import sin_cos, sinusoidal
from diffplan.models.convolution import Conv, ConvTranspose, in_fewer_products

AXES = ("NHC", "HIO", "NHC")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def small(key: jax.Array, d: int = 3):
    return to_pure(TemporalUNet(d, dim=8, mults=(1, 2), groups=4, rngs=nnx.Rngs(key)))


@pytest.mark.parametrize(("c_in", "c_out"), [(3, 7), (7, 3), (5, 5), (33, 40), (40, 33)])
@pytest.mark.parametrize(("width", "stride"), [(1, 1), (5, 1), (3, 2), (5, 2)])
def test_convolution_is_lax_convolution(key, c_in, c_out, width, stride):
    conv = Conv(c_in, c_out, width, stride=stride, rngs=nnx.Rngs(key))
    conv.bias[...] = jnp.arange(float(c_out))
    x = jax.random.normal(jax.random.fold_in(key, 1), (12, c_in))
    pad = [(width // 2, width // 2)]
    want = jax.lax.conv_general_dilated(x[None], conv.kernel[...], (stride,), pad, dimension_numbers=AXES)[0]
    np.testing.assert_allclose(conv(x), want + conv.bias[...][None], **TOLERANCE)


def test_convolution_has_the_derivative_of_lax_convolution(key):
    conv = Conv(4, 3, 5, rngs=nnx.Rngs(key))
    x = jax.random.normal(jax.random.fold_in(key, 1), (8, 4))

    def want(x):
        return jax.lax.conv_general_dilated(x[None], conv.kernel[...], (1,), "SAME", dimension_numbers=AXES)[0]

    np.testing.assert_allclose(jax.jacobian(conv)(x), jax.jacobian(want)(x), **TOLERANCE)


@pytest.mark.parametrize("width", [3, 5])
def test_fewer_products_give_the_same_convolution_and_derivatives(key, width):
    """Against XLA's convolution and its derivatives by plan and by kernel, in a weighted sum of outputs."""
    x, weights = jax.random.normal(key, (2, 12, 6))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (width, 6, 6))

    def want(x, kernel):
        return jax.lax.conv_general_dilated(x[None], kernel, (1,), "SAME", dimension_numbers=AXES)[0]

    np.testing.assert_allclose(in_fewer_products(x, kernel), want(x, kernel), rtol=1e-4, atol=1e-4)
    slopes = [jax.grad(lambda *a, f=f: jnp.sum(weights * f(*a)), (0, 1))(x, kernel) for f in (in_fewer_products, want)]
    for ours, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_sines_and_cosines_are_those_of_numpy():
    x = np.linspace(-60, 60, 10_001, dtype=np.float32)
    sine, cosine = sin_cos(jnp.asarray(x))
    np.testing.assert_allclose(sine, np.sin(x.astype(np.float64)), atol=8e-6)  # x / 2 pi is rounded
    np.testing.assert_allclose(cosine, np.cos(x.astype(np.float64)), atol=8e-6)
    near = x[np.abs(x) < np.pi]
    np.testing.assert_allclose(sin_cos(jnp.asarray(near))[0], np.sin(near.astype(np.float64)), atol=1.5e-6)
    slope = jax.vmap(jax.grad(lambda x: 2 * sin_cos(x)[0] - sin_cos(x)[1]))(jnp.asarray(near))
    np.testing.assert_allclose(slope, 2 * np.cos(near) + np.sin(near), atol=5e-6)


def test_transposed_convolution_is_lax_transposed_convolution(key):
    conv = ConvTranspose(3, 5, rngs=nnx.Rngs(key))
    conv.bias[...] = jnp.arange(5.0)
    x = jax.random.normal(jax.random.fold_in(key, 1), (6, 3))
    # transpose_kernel: the gradient of a convolution, which flips the kernel and swaps its channel axes
    kernel = conv.kernel[...].transpose(0, 2, 1)
    want = jax.lax.conv_transpose(x[None], kernel, (2,), [(2, 2)], dimension_numbers=AXES, transpose_kernel=True)[0]
    np.testing.assert_allclose(conv(x), want + conv.bias[...][None], **TOLERANCE)


def test_embedding_tells_noise_levels_apart():
    levels = jnp.log(jnp.geomspace(0.002, 80.0, 64)) / 4
    e = jax.vmap(sinusoidal, (0, None))(levels, 32)
    np.testing.assert_allclose(jnp.sum(e**2, axis=1), 16.0, rtol=1e-5)  # sine and cosine of each frequency
    distances = jnp.linalg.norm(e[:, None] - e[None], axis=-1) + 100.0 * jnp.eye(64)
    assert float(distances.min()) > 0.5


def test_parameter_count_of_diffuser_maze2d(key):
    params = jax.eval_shape(lambda: to_pure(TemporalUNet(6, rngs=nnx.Rngs(key)))[1])
    assert count(params) == 3_682_118  # Diffuser's 3.682 M; that of diffplan/benchmarks/speed/torch_unet.py has as many


def test_shape_and_gradients(key):
    apply, params = small(key)
    x = jax.random.normal(key, (16, 3))

    def loss(params, x):
        return jnp.sum(apply(params, x, jnp.float32(0.3)) ** 2)

    gradients, grad_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    assert grad_x.shape == jax.eval_shape(apply, params, x, jnp.float32(0.3)).shape == x.shape
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients) if leaf.ndim == 3)
    assert float(jnp.abs(grad_x).min(axis=1).max()) > 0


def test_vmap_equals_loop(key):
    apply, params = small(key)
    x = jax.random.normal(key, (3, 8, 3))
    c_noise = jnp.array([-1.0, 0.0, 0.7])
    batched = jax.jit(jax.vmap(apply, (None, 0, 0)))(params, x, c_noise)
    single = jax.jit(apply)
    alone = jnp.stack([single(params, *row) for row in zip(x, c_noise, strict=True)])
    np.testing.assert_allclose(batched, alone, **TOLERANCE)


def test_output_depends_on_the_noise_level(key):
    apply, params = small(key)
    x = jax.random.normal(key, (8, 3))
    quiet, loud = jax.jit(jax.vmap(apply, (None, None, 0)))(params, x, jnp.array([0.0, 0.5]))
    assert float(jnp.abs(quiet - loud).max()) > 1e-3


def test_horizon_must_be_divisible(key):
    network = TemporalUNet(3, dim=8, mults=(1, 1, 1), groups=4, rngs=nnx.Rngs(key))
    with pytest.raises(ValueError, match="horizon must be divisible by 4 for this U-Net, got 10"):
        network(jnp.zeros((10, 3)), jnp.float32(0.0))


def test_an_even_width_is_refused(key):
    with pytest.raises(ValueError, match="odd width"):
        Conv(2, 2, 4, rngs=nnx.Rngs(key))


@pytest.mark.parametrize("width", [2, 7])
def test_impossible_embeddings_are_refused(width):
    with pytest.raises(ValueError, match="even width"):
        sinusoidal(jnp.float32(0.0), width)
