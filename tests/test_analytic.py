"""Samplers and guidance against a Gaussian prior with a linear reward, where every answer is known in closed form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.denoise import pinned
from diffplan.guide import guided, raw
from diffplan.noise import karras, log_linear
from diffplan.oracle.gaussian import Gaussian
from diffplan.samplers import Sampler, ancestral, ddim, dpmpp_2m, halved, heun, sample, sample_until, sde_2m
from diffplan.types import Pins, Strengths

SHAPE = (3, 2)
RULES = {"ancestral": ancestral, "sde_2m": sde_2m, "ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}
DIRECTION = jnp.asarray([[1.0, 0.5], [0.0, -0.5], [1.0, 1.0]])


def correlated() -> Gaussian:
    """A correlated prior away from the origin."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) / 5
    covariance = root @ root.T + 0.15 * np.eye(6)
    return Gaussian.of(jnp.asarray(rng.normal(size=6)), jnp.asarray(covariance), SHAPE)


def draws(prior, rule, weights, count, steps, sigma_max=80.0):
    """Plans `[w, n, h, d]` and path KLs `[w, n]` of the guided sampler at each weight, as numpy arrays."""
    sigmas = karras(steps, 0.002, sigma_max)

    def one(weight, key):
        denoise = guided(prior.denoise, prior.energy(DIRECTION), Strengths(weight, jnp.ones(())))
        x, info = sample(key, denoise, Sampler(sigmas, SHAPE, rule), reference=prior.denoise)
        return x, info.path_kl

    keys = jax.random.split(jax.random.key(1), count)
    batched = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    return tuple(np.asarray(leaf) for leaf in batched(jnp.asarray(weights), keys))


@pytest.mark.parametrize("rule", RULES)
def test_every_sampler_draws_the_exact_tilt(rule):
    prior = correlated()
    weights = (0.0, 1.0, 4.0)
    plans, _ = draws(prior, RULES[rule], weights, count=16_000, steps=400 if rule in ("ancestral", "ddim") else 128)
    c = np.asarray(DIRECTION).ravel()
    for weight, x in zip(weights, plans.reshape(3, -1, 6), strict=True):
        exact = prior.tilt(DIRECTION, weight)
        mean, covariance = np.asarray(exact.mean), np.asarray(exact.covariance)
        # along the reward, where the tilt acts: within 2 % of the tilt's displacement (of a standard deviation, at 0)
        sd = np.sqrt(c @ covariance @ c)
        displacement = max(abs(c @ (mean - np.asarray(prior.mean))), sd)
        assert abs((x @ c).mean() - c @ mean) <= 0.02 * displacement
        assert abs((x @ c).std() / sd - 1) <= 0.03
        # and the whole plan: the mean in the size of the mean, every standard deviation
        assert np.linalg.norm(x.mean(0) - mean) <= 0.02 * max(np.linalg.norm(mean), displacement)
        np.testing.assert_allclose(x.std(0) / np.sqrt(np.diag(covariance)), 1, atol=0.03)


def test_finer_levels_go_through_the_same_noise():
    """For a prior that is a single plan every step is exact, however long: finer chains pass the same iterates."""
    sigmas, plan = karras(6, 0.05, 20.0), jnp.linspace(-1.0, 2.0, 6).reshape(SHAPE)
    chain = lambda halvings: sample(jax.random.key(4), lambda x, sigma: plan, Sampler(sigmas, SHAPE, halvings=halvings))
    coarse = chain(0)[1].iterates
    for halvings in (1, 3):
        fine = chain(halvings)[1].iterates
        assert len(fine) == Sampler(sigmas, SHAPE, halvings=halvings).levels == 5 * 2**halvings + 1
        chex.assert_trees_all_close(fine[:: 2**halvings], coarse, rtol=2e-5, atol=2e-5)
        assert np.abs(np.asarray(fine[1] - coarse[1])).max() > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_a_plan_that_has_settled_is_done(rule):
    """It passes fewer levels the larger the tolerance, and is near the plan of all levels with the same noise."""
    prior, sampler = correlated(), Sampler(karras(24, 0.002, 80.0), SHAPE, RULES[rule])
    keys = jax.random.split(jax.random.key(2), 512)
    plan, _ = jax.jit(jax.vmap(lambda key: sample(key, prior.denoise, sampler)))(keys)
    until = jax.jit(jax.vmap(lambda key, tolerance: sample_until(key, prior.denoise, sampler, tolerance), (0, None)))
    whole, levels = until(keys, 0.0)
    chex.assert_trees_all_close(whole, plan, rtol=1e-4, atol=1e-5)
    assert (levels == 24).all()
    passed = []
    for tolerance in (0.01, 0.03):
        early, levels = until(keys, tolerance)
        off = np.sqrt(np.mean((early - plan) ** 2, axis=(1, 2)))
        assert np.median(off) < 2 * tolerance
        np.testing.assert_allclose(early.std(axis=0), plan.std(axis=0), rtol=0.03)
        passed.append(float(levels.mean()))
    assert int((sampler.sigmas > 1).sum()) < passed[1] < passed[0] < 24


def test_a_single_level_is_denoised_once():
    plan, levels = sample_until(
        jax.random.key(0), lambda x, sigma: 0 * x + sigma, Sampler(jnp.ones(1), SHAPE), jnp.asarray(0.1)
    )
    assert (plan == 1).all() and levels == 1


def test_finer_noise_is_white():
    noise = jax.random.normal(jax.random.key(0), (4, 200, 100))
    sigmas, finer = halved(jax.random.key(1), karras(5, 0.05, 20.0), noise)
    assert bool((jnp.diff(sigmas) < 0).all())
    steps = np.asarray(finer).reshape(8, -1)
    np.testing.assert_allclose(np.cov(steps), np.eye(8), atol=4 / np.sqrt(steps.shape[1]))


def test_plans_of_one_key_converge_as_levels_are_halved():
    prior, sigmas = correlated(), karras(12, 0.01, 20.0)
    denoise = guided(prior.denoise, prior.energy(DIRECTION), Strengths(jnp.asarray(4.0), jnp.ones(())))
    keys = jax.random.split(jax.random.key(5), 256)

    def plans(halvings):
        sampler = Sampler(sigmas, SHAPE, halvings=halvings)
        return jax.jit(jax.vmap(lambda key: sample(key, denoise, sampler)[0]))(keys)

    changes = [float(jnp.sqrt(jnp.mean((plans(i + 1) - plans(i)) ** 2))) for i in (0, 2, 4)]
    assert changes[1] < 0.4 * changes[0]
    assert changes[2] < 0.4 * changes[1]


@pytest.mark.parametrize("rule", ["ddim", "heun", "dpmpp_2m"])
def test_deterministic_samplers_follow_the_closed_form_flow_from_80(rule):
    prior = correlated()
    sigmas = karras(200, 0.002, 80.0)
    x, info = sample(jax.random.key(3), prior.denoise, Sampler(sigmas, SHAPE, RULES[rule]))
    expected = prior.flow(info.iterates[0], sigmas[0], jnp.zeros(()))
    chex.assert_trees_all_close(x, expected, atol={"ddim": 0.03, "heun": 1e-3, "dpmpp_2m": 2e-3}[rule])


def flow_error(rule, steps):
    """Distance to the exact flow, from level 3 to level 0.3, in float64."""
    with jax.enable_x64(True):
        prior = correlated()
        sigmas = log_linear(steps + 1, 0.3, 3.0)
        _, info = sample(jax.random.key(3), prior.denoise, Sampler(sigmas, SHAPE, rule))
        return float(jnp.linalg.norm(info.iterates[-1] - prior.flow(info.iterates[0], sigmas[0], sigmas[-1])))


@pytest.mark.parametrize(("rule", "order"), [("ddim", 0.9), ("heun", 1.8), ("dpmpp_2m", 1.7)])
def test_order_of_convergence(rule, order):
    coarse, fine = flow_error(RULES[rule], 32), flow_error(RULES[rule], 128)
    assert np.log2(coarse / fine) / 2 >= order


def test_path_kl_of_the_exact_guide_is_the_kl_of_the_tilt():
    """Girsanov: for the exact energy the path KL equals the KL of the tilt, as the steps get fine."""
    prior = correlated()
    _, path_kl = draws(prior, ancestral, (1.0,), count=4000, steps=400)
    assert float(path_kl.mean()) == pytest.approx(float(prior.tilt_kl(DIRECTION, 1.0)), rel=0.04)


def test_path_kl_is_undefined_without_noise_or_reference():
    prior = correlated()
    sigmas = karras(8, 0.01, 10.0)
    _, info = sample(jax.random.key(0), prior.denoise, Sampler(sigmas, SHAPE, heun), reference=prior.denoise)
    assert np.isnan(info.path_kl)
    _, info = sample(jax.random.key(0), prior.denoise, Sampler(sigmas, SHAPE, ancestral))
    assert np.isnan(info.path_kl)
    _, info = sample(jax.random.key(0), prior.denoise, Sampler(sigmas, SHAPE, ancestral), reference=prior.denoise)
    assert float(info.path_kl) == 0.0


def test_twenty_scales_are_one_program():
    prior = correlated()
    sigmas = karras(16, 0.01, 10.0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, guide):
        denoise = guided(prior.denoise, prior.energy(DIRECTION), Strengths(guide, jnp.ones(())))
        return sample(key, denoise, Sampler(sigmas, SHAPE))[0]

    plans = [run(jax.random.key(0), jnp.asarray(scale)) for scale in np.linspace(0, 10, 20)]
    rewards = [float(jnp.sum(plan * DIRECTION)) for plan in plans]
    assert rewards == sorted(rewards)
    assert rewards[-1] > rewards[0] + 1


def test_raw_energy_overshoots_the_tilt():
    """The clean reward of the noisy plan is not the exact energy; its name exists because the error is large."""
    prior = correlated()
    sigmas = karras(64, 0.01, 10.0)
    reward = lambda x: jnp.sum(x * DIRECTION)
    denoise = guided(prior.denoise, raw(reward), Strengths(jnp.ones(()), jnp.ones(())))
    x, _ = jax.vmap(lambda key: sample(key, denoise, Sampler(sigmas, SHAPE)))(jax.random.split(jax.random.key(0), 2000))
    gain = jnp.sum(x.mean(0) * DIRECTION) - jnp.sum(prior.mean * DIRECTION.ravel())
    exact = DIRECTION.ravel() @ prior.covariance @ DIRECTION.ravel()
    assert float(gain / exact) > 2


def test_prior_zero_follows_the_reward_alone():
    prior = correlated()
    x, sigma = jnp.ones(SHAPE), jnp.asarray(0.5)
    energy = lambda x, sigma: jnp.sum(DIRECTION * x)
    moved = guided(prior.denoise, energy, Strengths(jnp.asarray(2.0), jnp.zeros(())))(x, sigma)
    chex.assert_trees_all_close(moved, x + 2.0 * 0.25 * DIRECTION, rtol=1e-6)


def test_pinned_entries_are_conditioned_on():
    """Denoising with the first step pinned, against the conditional Gaussian computed by brute force."""
    prior = correlated()
    mask = jnp.zeros(SHAPE, bool).at[0].set(True)
    value = jnp.zeros(SHAPE).at[0].set(jnp.asarray([0.7, -1.2]))
    sigmas = karras(160, 0.002, 20.0)
    denoise = pinned(conditional_denoiser(prior), Pins(mask, value))
    x, _ = jax.vmap(lambda key: sample(key, denoise, Sampler(sigmas, SHAPE)))(jax.random.split(jax.random.key(0), 8000))
    x = np.asarray(x)
    assert (x[:, 0] == np.asarray(value[0])).all()
    s, m = np.asarray(prior.covariance, float), np.asarray(prior.mean, float)
    gain = s[2:, :2] @ np.linalg.inv(s[:2, :2])
    mean = m[2:] + gain @ (np.asarray([0.7, -1.2]) - m[:2])
    covariance = s[2:, 2:] - gain @ s[:2, 2:]
    rest = x[:, 1:].reshape(len(x), -1)
    np.testing.assert_allclose(rest.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(rest.T), covariance, atol=0.05)


def conditional_denoiser(prior):
    """E[x0 | x] when every entry has a level of its own: one Gaussian conditioning, by brute force."""

    def denoise(x, sigma):
        noise = jnp.diag(jnp.broadcast_to(sigma, SHAPE).ravel() ** 2)
        gain = jnp.linalg.solve(prior.covariance + noise, x.ravel() - prior.mean)
        return (prior.mean + prior.covariance @ gain).reshape(SHAPE)

    return denoise
