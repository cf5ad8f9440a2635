"""Particles against a Gaussian prior with a linear reward: the chain is affine in its noise, so its Z is known exactly.

Estimates of Z are compared with the Z of the discretised chain, which they are unbiased for at any number of steps.
"""

from functools import cache
from statistics import NormalDist

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.denoise import pinned
from diffplan.guide import guided
from diffplan.noise import karras
from diffplan.oracle.gaussian import Gaussian
from diffplan.samplers import Past, Sampler, ancestral, ddim, dpmpp_2m, heun, sde_2m
from diffplan.smc import (
    Cloud,
    Info,
    Memory,
    annealed,
    difference,
    draw,
    fk_steering,
    interval,
    maximum,
    particles,
    pinned_energy,
    require_valid,
    summed,
    svdd,
    systematic,
    tds,
)
from diffplan.types import Pins, Strengths

SHAPE = (3, 2)
LEVELS = 12
SIGMAS = karras(LEVELS, 0.02, 10.0)
DIRECTION = jnp.asarray([[1.0, 0.5], [0.0, -0.5], [1.0, 1.0]])
ELSEWHERE = jnp.asarray([[0.7, 1.05], [0.3, 0.55], [1.3, 0.5]])  # what a wrong energy believes the direction to be


def correlated() -> Gaussian:
    """A correlated prior away from the origin."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) / 5
    covariance = root @ root.T + 0.15 * np.eye(6)
    return Gaussian.of(jnp.asarray(rng.normal(size=6)), jnp.asarray(covariance), SHAPE)


PRIOR = correlated()
EXACT, WRONG = PRIOR.energy(DIRECTION), PRIOR.energy(ELSEWHERE)
METHODS = {
    "exact energy": tds(EXACT),
    "wrong energy": tds(WRONG, threshold=1.0),
    "annealed": annealed(WRONG, LEVELS, threshold=0.8),
    "fk_steering by differences": fk_steering(EXACT),
    "fk_steering by maxima": fk_steering(EXACT, maximum, every=3),
    "fk_steering by sums": fk_steering(EXACT, summed, every=4),
    "svdd": svdd(EXACT, candidates=4),
    "picked, resampled": svdd(WRONG, candidates=3, threshold=0.9),
    "picked from guided candidates": tds(WRONG, threshold=0.8)._replace(candidates=2),
}


def reward(x):
    return jnp.sum(DIRECTION * x)


def chain_distribution(step, sigmas, denoise=PRIOR.denoise):
    """Mean and variance of the reward under the unguided chain: affine in the noise, so its gradient tells all."""

    def outcome(noise):
        x, past = sigmas[0] * noise[0], Past.none(SHAPE)
        for i in range(len(sigmas) - 1):
            (mean, std), past = step(denoise, x, sigmas[i], sigmas[i + 1], past)
            x = mean + std * noise[i + 1]
        return reward(denoise(x, sigmas[-1]))

    mean, slope = jax.jit(jax.value_and_grad(outcome))(jnp.zeros((len(sigmas), *SHAPE)))
    return float(mean), float(jnp.sum(slope**2))


LAW = chain_distribution(sde_2m, SIGMAS)


def runs(method, count, repeats, seed=0, step=sde_2m, sigmas=SIGMAS, reward=reward, denoise=PRIOR.denoise):
    """Clouds and infos of independent runs, as numpy arrays."""
    run = jax.jit(jax.vmap(lambda key: particles(key, denoise, reward, Sampler(sigmas, SHAPE, step), method, count)))
    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(seed), repeats)))


@cache
def results(name):
    """400 runs of a method of the table above, with 96 particles."""
    return runs(METHODS[name], count=96, repeats=400)


def rewards(cloud):
    return np.einsum("...hd,hd", cloud.x, np.asarray(DIRECTION))


def assert_mean(samples, expected, deviations=4.0):
    error = samples.std(ddof=1) / len(samples) ** 0.5
    assert abs(samples.mean() - expected) < deviations * error, (samples.mean(), expected, error)


@pytest.mark.parametrize("name", METHODS)
def test_z_is_unbiased_and_plans_are_the_tilts(name):
    mean, variance = LAW
    log_z = mean + variance / 2
    cloud, info = results(name)
    assert_mean(np.exp(info.log_z - log_z), 1.0)
    # of N(mean, variance) tilted by its own exponential, within the O(1 / K) bias of self-normalised weights
    weights, r = np.exp(cloud.log_weights), rewards(cloud)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-4)
    assert (weights * r).sum(1).mean() == pytest.approx(mean + variance, abs=0.05 * variance**0.5)
    std = (weights * (r - mean - variance) ** 2).sum(1).mean() ** 0.5
    assert std == pytest.approx(variance**0.5, rel=0.05)
    # what one run says of its own error, against that of many
    low, high = interval(info)
    assert 0.88 <= ((low <= log_z) & (log_z <= high)).mean() <= 0.98
    assert (info.log_z_std**2).mean() == pytest.approx(info.log_z.var(), rel=0.25)
    require_valid(info)


def test_log_z_of_the_continuous_process():
    """On a fine grid, that of the closed form: log E exp(c.x0) = c.m + c'Sc / 2."""
    c = np.asarray(DIRECTION).ravel()
    exact = float(c @ np.asarray(PRIOR.mean) + c @ np.asarray(PRIOR.covariance) @ c / 2)
    _, info = runs(tds(EXACT), count=16, repeats=50, sigmas=karras(160, 0.005, 40.0))
    assert info.log_z.mean() == pytest.approx(exact, abs=0.01)
    assert info.ess.min() > 0.95


def test_exact_energy_keeps_the_weights_even():
    exact, wrong, blind = (results(name)[1] for name in ("exact energy", "wrong energy", "fk_steering by differences"))
    assert exact.ess.mean(0).min() > 0.85 > 0.6 > wrong.ess.mean(0).min()
    assert not exact.resampled.any()
    assert exact.log_z.std() < 0.4 * min(wrong.log_z.std(), blind.log_z.std())


def test_never_resampling_is_importance_sampling():
    cloud, info = runs(fk_steering(EXACT, maximum, every=2, threshold=0.0), count=32, repeats=5)
    r = rewards(cloud)
    np.testing.assert_allclose(info.log_z, np.log(np.exp(r).mean(1)), rtol=1e-4)
    np.testing.assert_allclose(np.exp(cloud.log_weights), np.exp(r) / np.exp(r).sum(1, keepdims=True), rtol=1e-3)
    # and the one-run variance is the textbook's: the sample variance of the weights over K, relative to their mean
    w = np.exp(r)
    np.testing.assert_allclose(info.log_z_std**2, w.var(1, ddof=1) / 32 / w.mean(1) ** 2, rtol=1e-3)


def test_how_often_one_resamples_does_not_change_the_distribution():
    mean, variance = chain_distribution(ancestral, SIGMAS)
    distribution = NormalDist(mean + variance, variance**0.5)
    for threshold, (least, most) in {0.8: (0.9, 3), 1.0: (LEVELS - 1, LEVELS)}.items():
        cloud, info = runs(fk_steering(EXACT, threshold=threshold), count=96, repeats=400, step=ancestral)
        assert least <= info.resampled.sum(1).mean() <= most
        assert_mean(np.exp(info.log_z - mean - variance / 2), 1.0)
        for quantile in (0.25, 0.5, 0.75):
            below = (np.exp(cloud.log_weights) * (rewards(cloud) < distribution.inv_cdf(quantile))).sum(1)
            assert below.mean() == pytest.approx(quantile, abs=0.02)


def test_systematic_resampling_is_unbiased():
    weights = np.asarray([0.0, 0.31, 0.02, 0.0, 0.5, 0.17, 0.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    chosen = np.asarray(jax.vmap(lambda key: systematic(key, jnp.asarray(weights), 5))(keys))
    copies = (chosen[..., None] == np.arange(7)).sum(1)
    np.testing.assert_allclose(copies.mean(0), 5 * weights, atol=0.02)
    assert (copies >= np.floor(5 * weights)).all()
    assert (copies <= np.ceil(5 * weights)).all()


def test_one_particle_without_a_twist_is_the_sampler():
    mean, variance = LAW
    zero = lambda x, sigma: jnp.zeros(())
    cloud, info = runs(tds(zero), count=1, repeats=4000)
    r = rewards(cloud)[:, 0]
    assert_mean(r, mean)
    assert r.var() == pytest.approx(variance, rel=0.1)
    np.testing.assert_allclose(info.log_z, r, rtol=1e-4, atol=1e-5)
    assert (cloud.log_weights == 0).all()
    assert np.isnan(info.log_z_std).all()


def test_potentials_multiply_to_what_the_paper_says():
    read = [0.5, -1.0, 2.0, 1.5]
    products = {
        difference: [0.5, -1.0, 2.0, 1.5],
        maximum: list(np.cumsum([0.5, 0.5, 2.0, 2.0])),
        summed: list(np.cumsum([0.5, -0.5, 1.5, 3.0])),
    }
    for potential, expected in products.items():
        method = fk_steering(lambda x, sigma: x[0, 0], potential, every=2)
        memory = Memory(jnp.zeros(()), jnp.full((), -jnp.inf), jnp.zeros(()))
        for number in range(8):  # on odd levels nothing is read
            x = jnp.full((1, 1), read[number // 2] if number % 2 == 0 else 99.0)
            memory = method.twist(memory, jnp.asarray(number), x, jnp.ones(()))
            assert float(memory.log_psi) == pytest.approx(expected[number // 2])


def test_annealing_reaches_full_strength_after_two_thirds():
    one = lambda x, sigma: jnp.ones(())
    memory, x = Memory(*jnp.zeros(3)), jnp.zeros(SHAPE)
    strength = [annealed(one, 31).twist(memory, jnp.asarray(i), x, jnp.ones(())).log_psi for i in range(31)]
    assert strength[0] == 0
    assert strength == sorted(strength)
    assert next(i for i, value in enumerate(strength) if value >= 1 - 1e-5) == 20
    slow = annealed(one, 31, gamma=0.01).twist(memory, jnp.asarray(3), x, jnp.ones(())).log_psi
    assert float(slow) == pytest.approx(1.01**3 - 1, rel=1e-4)


def test_known_entries_stay_and_z_is_that_of_the_pinned_chain():
    mask = jnp.zeros(SHAPE, bool).at[0].set(True)
    pins = Pins(mask, jnp.asarray([[0.7, -1.2], [0.0, 0.0], [0.0, 0.0]]))

    def conditional(x, sigma):  # E[x0 | x] when every entry has a level of its own
        noise = jnp.diag(jnp.broadcast_to(sigma, SHAPE).ravel() ** 2)
        gain = jnp.linalg.solve(PRIOR.covariance + noise, x.ravel() - PRIOR.mean)
        return (PRIOR.mean + PRIOR.covariance @ gain).reshape(SHAPE)

    energy = lambda x, sigma: jnp.sum(DIRECTION * conditional(x, sigma))
    denoise = pinned(conditional, pins)
    inside = guided(denoise, pinned_energy(energy, pins), Strengths(jnp.ones(()), jnp.ones(())))
    outside = pinned(guided(conditional, energy, Strengths(jnp.ones(()), jnp.ones(()))), pins)
    x, sigma = jax.random.normal(jax.random.key(0), SHAPE), jnp.asarray(0.7)
    chex.assert_trees_all_close(inside(x, sigma), outside(x, sigma), rtol=1e-4)

    cloud, info = runs(tds(pinned_energy(energy, pins)), count=16, repeats=300, denoise=denoise)
    assert (cloud.x[..., 0, :] == np.asarray([0.7, -1.2], np.float32)).all()
    mean, variance = chain_distribution(sde_2m, SIGMAS, denoise)
    assert_mean(np.exp(info.log_z - mean - variance / 2), 1.0)
    assert info.ess.mean() > 0.8


def test_strengths_are_one_program():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, strength):
        energy = lambda x, sigma: strength * EXACT(x, sigma)
        plans = lambda x: strength * reward(x)
        return particles(key, PRIOR.denoise, plans, Sampler(SIGMAS, SHAPE), tds(energy), 64)[1].log_z

    mean, variance = chain_distribution(ancestral, SIGMAS)
    for strength in (0.0, 0.3, 1.0):
        expected = strength * mean + strength**2 * variance / 2
        assert float(run(jax.random.key(0), jnp.asarray(strength))) == pytest.approx(expected, abs=0.15)


def test_drawn_plans_follow_the_weights():
    x = jnp.arange(4.0)[:, None, None] * jnp.ones((4, *SHAPE))
    cloud = Cloud(x, jnp.log(jnp.asarray([0.5, 0.0, 0.3, 0.2])))
    draws = np.asarray(draw(jax.random.key(0), cloud, 10))[:, 0, 0]
    assert np.bincount(draws.astype(int), minlength=4).tolist() == [5, 0, 3, 2]
    dead = np.asarray(draw(jax.random.key(0), cloud._replace(log_weights=jnp.full(4, -jnp.inf)), 4))[:, 0, 0]
    assert dead.tolist() == [0, 1, 2, 3]


def test_interval_is_that_of_a_lognormal():
    _, info = results("fk_steering by differences")
    low, high = interval(info, 0.9)
    np.testing.assert_allclose(high - low, 2 * NormalDist().inv_cdf(0.95) * info.log_z_std, rtol=1e-4)
    np.testing.assert_allclose((high + low) / 2, info.log_z + info.log_z_std**2 / 2, rtol=1e-4)


def test_forbidden_plans_have_zero_weight():
    """A reward of 0 or -inf makes Z a probability, here a half; a twist of the same kind resamples the dead away."""
    mean, _ = LAW
    allowed = lambda x: jnp.where(reward(x) > mean, 0.0, -jnp.inf)
    hopeful = lambda x, sigma: jnp.where(EXACT(x, sigma) > mean - 4.0 * sigma, 0.0, -jnp.inf)
    cloud, info = runs(svdd(hopeful, candidates=3, threshold=0.5), count=64, repeats=300, reward=allowed)
    assert (rewards(cloud)[cloud.log_weights > -np.inf] > mean - 1e-4).all()
    assert_mean(np.exp(info.log_z), 0.5)
    require_valid(info)


def test_degenerate_weights_are_said():
    step = int(np.argmax(np.asarray(SIGMAS) < 1.0))

    @jax.jit
    @jax.vmap
    def run(flaw):
        energy = lambda x, sigma: jnp.where((flaw == 0) & (sigma < 1.0), jnp.nan, EXACT(x, sigma))
        plans = lambda x: jnp.where(flaw == 1, -jnp.inf, jnp.where((flaw == 2) & (reward(x) > -1), jnp.inf, reward(x)))
        return particles(jax.random.key(0), PRIOR.denoise, plans, Sampler(SIGMAS, SHAPE), fk_steering(energy), 64)

    both = jax.tree.map(np.asarray, run(jnp.arange(4)))
    energy_nan, none_allowed, some_infinite, sound = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in range(4))
    for cloud, info in (energy_nan, none_allowed):
        assert np.isfinite(cloud.x).all()
        assert (cloud.log_weights == -np.inf).all()
        assert info.log_z == -np.inf
        assert np.isnan(info.log_z_std)
    _, info = energy_nan
    assert (info.ess[:step] > 0).all()
    assert (info.ess[step:] == 0).all()
    assert not info.resampled[step:].any()
    assert info.lost.tolist() == [i == step for i in range(LEVELS)]
    with pytest.raises(ValueError, match=rf"degenerate weights at step {step}: 100.0% became NaN or infinite"):
        require_valid(info)
    with pytest.raises(ValueError, match=f"degenerate weights at step {LEVELS - 1}: all are zero"):
        require_valid(none_allowed[1])
    _, info = some_infinite
    assert np.isfinite(info.log_z)
    assert 0 < info.lost[-1] < 1
    with pytest.raises(ValueError, match=rf"degenerate weights at step {LEVELS - 1}: \d+.\d% became"):
        require_valid(info)
    with pytest.raises(ValueError, match=f"degenerate weights at step {step}: "):
        require_valid(both[1])  # of a batch, the first step of any run
    require_valid(sound[1])


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"count=0: must be at least 1 particle, and 2 for an interval", lambda run: run(count=0)),
        (r"candidates=0: must be at least 1", lambda run: run(method=svdd(EXACT, candidates=0))),
        (r"every=0: must be at least 1", lambda run: run(method=fk_steering(EXACT, every=0))),
        (r"threshold=1.5: must be a fraction .* from 0 to 1", lambda run: run(method=tds(EXACT, threshold=1.5))),
        (r"threshold=-0.1: must be a fraction", lambda run: run(method=tds(EXACT, threshold=-0.1))),
        (r"step=ddim: must be a rule that adds noise", lambda run: run(step=ddim)),
        (r"step=heun: must be", lambda run: run(step=heun)),
        (r"step=dpmpp_2m: must be", lambda run: run(step=dpmpp_2m)),
        (r"gamma=0.0: must be above 0", lambda run: run(method=annealed(EXACT, LEVELS, gamma=0.0))),
        (r"levels=1: must be at least 2", lambda run: run(method=annealed(EXACT, 1))),
        (r"level=1.0: must be above 0 and below 1", lambda run: interval(Info(*jnp.zeros((5, 1))), 1.0)),
        (
            r"count=0: must be at least 1",
            lambda run: draw(jax.random.key(0), Cloud(jnp.zeros((2, *SHAPE)), jnp.zeros(2)), 0),
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(message, call):
    def run(method=None, count=2, step=sde_2m):
        method = tds(EXACT) if method is None else method
        return particles(jax.random.key(0), PRIOR.denoise, reward, Sampler(SIGMAS[-2:], SHAPE, step), method, count)

    with pytest.raises(ValueError, match=message) as error:
        call(run)
    assert "\n" not in str(error.value)
