"""Picking from a pool of the prior: estimators against all subsets, methods against order statistics and known
optima.
"""

import itertools
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.count import count
from diffplan.denoise import CLEAN
from diffplan.guide import Learned
from diffplan.methods import BestOfN, Method, Prior, Problem
from diffplan.methods.best_of_n import Pool, Quantiliser, RegularisedBestOfN, SoftBestOfN, draw_pool
from diffplan.metrics.kl import best_of_n_cdf, best_of_n_mean
from diffplan.samplers import Sampler
from tests import problems

FAST = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


# -- every n from one pool --


@pytest.mark.parametrize("seed", range(3))
def test_best_of_n_mean_is_the_mean_over_all_subsets(seed):
    """Equal scores share the win; NaN and infinite scores lose to any other, and draw among themselves."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, size=7).astype(np.float32)
    values = rng.normal(size=7).astype(np.float32)
    shown = scores.copy()
    shown[:2], scores[:2] = (np.nan, np.inf), -1.0

    def won(subset):
        best = [i for i in subset if scores[i] == max(scores[j] for j in subset)]
        return np.mean([values[i] for i in best])

    brute = [np.mean([won(s) for s in itertools.combinations(range(7), n)]) for n in range(1, 8)]
    result = best_of_n_mean(jnp.asarray(shown), jnp.asarray(values), jnp.arange(1.0, 8.0))
    np.testing.assert_allclose(result, brute, atol=1e-5)


def test_best_of_n_mean_of_many_ranks_and_beyond_the_pool():
    """The largest of n of the numbers 1, ..., m is n (m + 1) / (n + 1) on average."""
    m, n = 20_000, np.array([1, 2, 30, 1000, 19_999, 20_000])
    ranks = jnp.asarray(np.random.default_rng(0).permutation(m) + 1.0, jnp.float32)
    result = best_of_n_mean(ranks, ranks, jnp.asarray(n, jnp.float32))
    np.testing.assert_allclose(result, n * (m + 1) / (n + 1), rtol=1e-4)
    assert np.isnan(best_of_n_mean(ranks[:3], ranks[:3], jnp.asarray([0.0, 4.0]))).all()
    with pytest.raises(ValueError, match="values: 4 values, must be as many as the others, 3"):
        best_of_n_mean(ranks[:3], ranks[:4], jnp.ones(1))


def test_the_rank_of_the_best_of_n_by_counting():
    ways = lambda n: [sum(max(s) <= k for s in itertools.combinations(range(1, 7), n)) for k in range(7)]
    for n in range(1, 7):
        np.testing.assert_allclose(best_of_n_cdf(jnp.asarray(float(n)), 6), np.array(ways(n)) / ways(n)[-1], atol=1e-6)


# -- distributions that hold for any prior, on a small normal one --

POOL, STARTS = 12, 4000
BEGINS = np.linspace(-1, 1, STARTS, dtype=np.float32)
SMALL: dict[str, Method] = {
    "best_of_n": BestOfN((1, 2, 5, POOL)),
    "soft_best_of_n": SoftBestOfN((0.0, 0.5, 3.0, 1e6), pool=POOL),
    "regularised_best_of_n": RegularisedBestOfN((0.0, 0.49, 1.0, 1e6), pool=POOL),
    "quantiliser": Quantiliser((1.0, 2.0, 8.0, POOL), pool=POOL),
}


def normal(apply=lambda params, x, c_noise: x[1, 0]) -> Problem:
    """Two steps of position and force, all normal and independent; the score is the second position."""
    proxy = Learned((), jnp.zeros(()), jnp.ones(()), apply, "regression")
    codec = Codec(jnp.zeros(2), jnp.ones(2), 1)
    one_level = lambda x, sigma: x  # of which the sampler makes exactly its first noise
    return Problem(one_level, codec, Sampler(jnp.ones(1), (2, codec.width)), proxy, proxy, proxy)


def run(method: Method, problem: Problem, starts: jax.Array, seed: int = 0):
    strengths = jnp.asarray(method.strengths, jnp.float32)
    return jax.jit(lambda key: method(key, problem, starts, strengths), compiler_options=FAST)(jax.random.key(seed))


@cache
def small(name: str):
    return run(SMALL[name], normal(), jnp.asarray(BEGINS)[:, None])


@cache
def fresh() -> np.ndarray:
    """Scores of as many plans of the prior that no pool has seen."""
    return np.asarray(run(Prior(), normal(), jnp.zeros((STARTS, 1)), 1).x[0, :, 1, 0])


def wins(name: str) -> np.ndarray:
    """How often a plan scores higher than a fresh one of the prior, for each strength."""
    return (np.asarray(small(name).x[:, :, 1, 0]) > fresh()[None]).mean(axis=1)


@pytest.mark.parametrize("name", SMALL)
def test_strength_only_ever_raises_the_score_and_the_weakest_is_the_prior(name):
    plans = small(name)
    assert isinstance(SMALL[name], Method)
    assert (np.diff(plans.x[:, :, 1, 0], axis=0) >= 0).all()
    np.testing.assert_array_equal(plans.x[:, :, 0, 0], np.broadcast_to(BEGINS, (4, STARTS)))
    prior = np.asarray(plans.x[0]).reshape(STARTS, 4)[:, 1:]
    np.testing.assert_allclose(prior.mean(axis=0), 0, atol=4 / np.sqrt(STARTS))
    np.testing.assert_allclose(np.cov(prior.T), np.eye(3), atol=0.1)
    # the strongest is the best of the pool, whichever the method
    assert wins(name)[-1] == pytest.approx(POOL / (POOL + 1), abs=4 * np.sqrt(0.08 / STARTS))


def test_best_of_n_beats_a_fresh_plan_in_n_of_n_plus_one_draws():
    n = np.array(SMALL["best_of_n"].strengths)
    np.testing.assert_allclose(wins("best_of_n"), n / (n + 1), atol=4 * np.sqrt(0.25 / STARTS))
    x = np.asarray(small("best_of_n").x[1, :, 1, 0])  # of two: a skewed distribution with a known mean
    assert x.mean() == pytest.approx(1 / np.sqrt(np.pi), abs=4 / np.sqrt(STARTS))
    assert float(small("best_of_n").exact_kl[1]) == pytest.approx(np.log(2) - 0.5, abs=1e-6)


def test_the_quantiliser_s_ranks_are_even_at_the_top():
    """The plan of rank k beats a fresh one with probability k / (N + 1); of 12, 1 / 8 is one and a half ranks."""
    ranks = [np.mean(np.arange(1, 13)), np.mean(np.arange(7, 13)), (12 + 11 / 2) / 1.5, 12.0]
    np.testing.assert_allclose(wins("quantiliser"), np.array(ranks) / 13, atol=4 * np.sqrt(0.25 / STARTS))
    kl = np.asarray(small("quantiliser").exact_kl)
    assert kl[0] == 0 and kl[1] == pytest.approx(np.log(2), abs=1e-6)
    assert kl[-1] == pytest.approx(np.log(12) - 11 / 12, abs=1e-6)  # the best of the pool
    assert (kl <= np.log(SMALL["quantiliser"].strengths) + 1e-6).all()


def test_soft_best_of_a_large_pool_is_the_tilt_of_the_prior():
    """A normal score tilted by exp(beta s) moves by beta; its weights' effective share is exp(-beta^2)."""
    method, starts = SoftBestOfN((0.0, 0.5, 1.0), pool=256), jnp.zeros((600, 1))
    plans = run(method, normal(), starts)
    np.testing.assert_allclose(plans.x[:, :, 1, 0].mean(axis=1), method.strengths, atol=4 / np.sqrt(600))
    np.testing.assert_allclose(plans.x[:, :, 1, 0].std(axis=1), 1, atol=0.12)
    np.testing.assert_allclose(plans.ess, np.exp(-np.square(method.strengths)), rtol=0.1)


def test_regularised_best_of_n_prefers_its_choice_to_those_of_other_strengths():
    """All strengths choose from one pool and measure from one plan, that of strength 0.

    A score is one of four entries, so it differs by at most twice the distance: below 1 / 2 nothing pays for moving.
    """
    x, beta = np.asarray(small("regularised_best_of_n").x), SMALL["regularised_best_of_n"].strengths
    score = x[:, :, 1, 0] / np.sqrt(1 + CLEAN**2)
    distance = np.sqrt(np.square(x - x[:1]).mean(axis=(2, 3)))
    for mine, b in enumerate(beta):
        for other in range(len(beta)):
            assert (b * score[mine] - distance[mine] >= b * score[other] - distance[other] - 1e-6 * (1 + b)).all()
    moved = (distance > 0).mean(axis=1)
    assert moved[0] == moved[1] == 0 and 0.05 < moved[2] < moved[3] > 0.9


@pytest.mark.parametrize("name", SMALL)
def test_a_score_that_is_not_finite_never_wins(name):
    method = replace(SMALL[name], strengths=SMALL[name].strengths[-1:])
    broken = lambda params, x, c_noise: jnp.where(x[1, 0] > 0, jnp.where(x[1, 1] > 0, jnp.nan, jnp.inf), 9 + x[1, 0])
    x = run(method, normal(broken), jnp.zeros((200, 1))).x[0]
    assert (x[:, 1, 0] <= 0).mean() > 0.99  # but where all 12 are broken, one pool in 4096


# -- problems with known optima --

SIZES = {"grid": 400, "linear": 1000}


@cache
def problem_of(name: str) -> problems.Known:
    return getattr(problems, name)()


@cache
def pool_of(name: str) -> Pool:
    """The one pool that all methods pick from: drawing it is the same for all, and most of the work."""
    problem = problem_of(name).problem
    call = jax.jit(lambda key: draw_pool(key, problem, problem_of(name).starts, problem.regression, SIZES[name])[1])
    return call(jax.random.key(0))


def large(size: int) -> dict[str, Method]:
    return {
        "best_of_n": BestOfN((1.0, size)),
        "soft_best_of_n": SoftBestOfN((0.0, 300.0), pool=size),
        "regularised_best_of_n": RegularisedBestOfN((0.0, 300.0), pool=size),
        "quantiliser": Quantiliser((1.0, size), pool=size),
    }


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("name", SIZES)
def test_a_large_pool_holds_the_optimum(name, method, monkeypatch):
    problem, pool = problem_of(name), pool_of(name)
    monkeypatch.setattr("diffplan.methods.best_of_n.draw_pool", lambda key, *_: (key, pool))
    strong = large(SIZES[name])[method]
    x = strong(jax.random.key(1), problem.problem, problem.starts, jnp.asarray(strong.strengths)).x
    assert problems.reached(problem, x[-1]) >= 0.95


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("name", SIZES)
def test_the_weakest_earns_what_the_prior_does_where_the_strongest_earns_more(name, method, monkeypatch):
    """The pool is cut into many of eight plans each, for as many copies of the starts; it earns what the prior does."""
    problem, pool = problem_of(name), pool_of(name)
    copies = SIZES[name] // 8
    x, starts = pool.x.reshape(8, copies * 4, *pool.x.shape[2:]), jnp.tile(problem.starts, (copies, 1))
    many = Pool(x, pool.score.reshape(8, copies * 4))
    monkeypatch.setattr("diffplan.methods.best_of_n.draw_pool", lambda key, *_: (key, many))
    weak = large(8)[method]
    result = weak(jax.random.key(1), problem.problem, starts, jnp.asarray(weak.strengths)).x
    ordinary = jax.vmap(jax.vmap(problem.gold))(pool.x).mean(axis=0)
    gap = np.asarray(jax.vmap(jax.vmap(problem.gold))(result) - jnp.tile(ordinary, copies)[None])
    error = gap.std(axis=1) / np.sqrt(copies * 4)
    assert abs(gap[0].mean()) < 4 * error[0] and gap[1].mean() > 10 * error[1]


@pytest.mark.parametrize("name", SIZES)
def test_plans_of_a_pool_begin_at_their_starts_and_can_be_carried_out(name):
    problem, x = problem_of(name), pool_of(name).x[:100]
    pins = jax.vmap(problem.problem.pins)(problem.starts)
    np.testing.assert_array_equal(jnp.where(pins.mask[None], x, 0.0), np.broadcast_to(pins.value, x.shape))
    plan, step = problem.problem.codec.decode(x), lambda o, a: problem.problem.dynamics(jax.random.key(0), o, a)[0]
    before, actions = plan.observations[:, :, :-1], plan.actions[:, :, :-1]
    after = jax.vmap(jax.vmap(jax.vmap(step)))(before, actions)
    np.testing.assert_allclose(after, plan.observations[:, :, 1:], atol=2e-3)


@pytest.mark.parametrize("name", SMALL)
def test_a_pool_is_paid_for_once(name):
    problem, method = problem_of("grid"), SMALL[name]
    strengths = jnp.asarray(method.strengths, jnp.float32)
    result = count(method.__call__, jax.random.key(0), problem.problem, problem.starts, strengths)
    assert result == {
        "network_evals": 4 * POOL * len(problem.problem.sampler.sigmas),
        "proxy_evals": 4 * POOL,
        "env_steps": 0,
    }
