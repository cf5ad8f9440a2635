"""The default networks: what they must be to serve as denoiser and reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffplan.denoise import Edm, pinned
from diffplan.guide import guided
from diffplan.models import Mixer, Size, Transformer, Value, build, count
from diffplan.models.transformer import AttentionBlock
from diffplan.noise import karras
from diffplan.samplers import Sampler, sample
from diffplan.types import Pins, Strengths

HORIZON, DIM = 32, 6


def mixer(depth=2, width=32):
    return build(jax.random.key(0), lambda rngs: Mixer(HORIZON, DIM, Size(depth=depth, width=width), rngs=rngs))


def transformer(depth=2, width=32):
    return build(jax.random.key(0), lambda rngs: Transformer(HORIZON, DIM, Size(2, width, depth), rngs=rngs))


@pytest.mark.parametrize("network", [mixer, transformer])
def test_an_untrained_denoiser_is_the_best_guess_for_white_data(network):
    """The output layer starts at 0, so D = x / (1 + sigma^2): the exact denoiser of N(0, I)."""
    apply, params = network()
    x = jax.random.normal(jax.random.key(1), (HORIZON, DIM))
    for sigma in (0.02, 1.0, 10.0):
        denoised = Edm(params, apply)(x, jnp.asarray(sigma))
        np.testing.assert_allclose(denoised, np.asarray(x) / (1 + sigma**2), rtol=1e-5, atol=1e-6)


def test_entries_at_level_zero_come_back_as_they_are():
    apply, params = mixer()
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x = jax.random.normal(jax.random.key(1), (HORIZON, DIM))
    level = jnp.ones((HORIZON, DIM)).at[0].set(0.0)
    denoised = np.asarray(Edm(params, apply)(x, level))
    np.testing.assert_array_equal(denoised[0], np.asarray(x)[0])
    assert np.abs(denoised[1:] - np.asarray(x)[1:]).min() > 0


@pytest.mark.parametrize("width", [10, 48])
def test_attention_is_that_of_jax(width):
    block = AttentionBlock(7, width, 2, False, nnx.Rngs(0))
    v = jax.random.normal(jax.random.key(1), (7, width))
    query, key, value = (block.query_key_value(v).reshape(7, 3, block.heads, -1)[:, i] for i in range(3))
    want = block.output(jax.nn.dot_product_attention(query, key, value).reshape(7, width))
    assert block.heads == {10: 1, 48: 3}[width]
    np.testing.assert_allclose(block.mixed(v), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixer", [mixer, transformer])
def test_every_patch_sees_every_other(mixer):
    apply, params = mixer()
    params = jax.tree.map(lambda leaf: leaf + 0.01 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    x = jax.random.normal(jax.random.key(1), (HORIZON, DIM))
    jacobian = jax.jacobian(lambda x: apply(params, x, jnp.zeros(())).sum(axis=1))(x)
    assert (np.abs(jacobian).max(axis=(1, 2)) > 0).all()
    assert np.abs(jacobian[0, -1]).max() > 0


def test_a_reward_is_not_bounded_by_its_architecture():
    """Far from data a learned reward must be able to grow: a norm before the readout would hide over-optimisation."""
    apply, params = build(jax.random.key(0), lambda rngs: Value(HORIZON, DIM, rngs=rngs))
    x = jax.random.normal(jax.random.key(1), (HORIZON, DIM))
    near, far = (abs(float(apply(params, scale * x, jnp.zeros(())))) for scale in (1e2, 1e4))
    assert far > 10 * near


def test_a_patch_that_does_not_divide_the_horizon_is_refused():
    with pytest.raises(ValueError, match=r"patch=5, horizon=32"):
        build(jax.random.key(0), lambda rngs: Mixer(HORIZON, DIM, Size(patch=5), rngs=rngs))


def test_depth_adds_parameters():
    assert count(mixer(depth=3)[1]) > count(mixer(depth=2)[1])


def test_the_path_kl_costs_no_evaluation():
    """The reference is evaluated where the guided denoiser already was, and XLA must see that the two are one."""
    apply, params = mixer()
    pins = Pins(jnp.zeros((HORIZON, DIM), bool).at[0].set(True), jnp.zeros((HORIZON, DIM)))
    sigmas = karras(8, 0.02, 10.0)

    def flops(with_reference: bool) -> float:
        def run(params, key):
            base = Edm(params, apply)
            denoise = guided(base, lambda x, sigma: jnp.sum(jnp.sin(x)), Strengths(jnp.ones(()), jnp.ones(())))
            reference = pinned(base, pins) if with_reference else None
            x, info = sample(key, pinned(denoise, pins), Sampler(sigmas, (HORIZON, DIM)), reference=reference)
            return x, info.path_kl

        program = jax.jit(jax.vmap(run, (None, 0))).lower(params, jax.random.split(jax.random.key(0), 8)).compile()
        return program.cost_analysis()["flops"]

    assert flops(True) < 1.1 * flops(False)
