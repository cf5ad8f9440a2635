"""Classifier-free guidance: held to exact conditional distributions, and its training to a mixture that is known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jaxtyping import Array, Float

from diffplan.count import count
from diffplan.denoise import Edm
from diffplan.learn import conditional, train
from diffplan.learn.conditional import Conditioned, dropped
from diffplan.methods import Method
from diffplan.methods.classifier_free import GOAL, RETURN, ClassifierFree, best_goal, condition, high_return, parts
from diffplan.models import Mixer, Size, build
from diffplan.noise import LogUniform, karras
from diffplan.validation import known
from tests import problems
from tests.problems import GaussianPrior

LINEAR = problems.linear()
GRID = problems.grid()
CHAIN, WEIGHTS = GRID.problem.denoise.chain, GRID.problem.regression.weights


@struct.dataclass
class Seen:
    """The exact prior given a noisy sight y ~ N(statistic . x, spread^2), or given nothing: condition (flag, y)."""

    statistic: Float[Array, "h d"]
    std: float

    def __call__(self, x, sigma, condition):
        flag, y = condition
        c = self.statistic.ravel()
        precision = 1 / self.std**2
        distribution = LINEAR.problem.denoise.distribution.tilted(
            self.statistic * y * precision, flag, jnp.outer(c, c) * precision
        )[0]
        return GaussianPrior(distribution)(x, sigma)


@struct.dataclass
class Optimal:
    """The exact prior tilted by exp(condition * gold), which is diagonal: p - p^2 / 2 - 0.05 u^2 / 2."""

    def __call__(self, x, sigma, condition):
        h, size = LINEAR.problem.horizon, LINEAR.problem.codec.std
        slope = jnp.tile(size * jnp.asarray([1.0, 0.0, 0.0]), (h, 1))
        curve = jnp.diag(jnp.tile(size**2 * jnp.asarray([1.0, 0.0, 0.05]), h))
        return GaussianPrior(LINEAR.problem.denoise.distribution.tilted(slope, condition[0], curve)[0])(x, sigma)


WALK = known.TabularConditional(CHAIN, WEIGHTS)


def run(method, known, conditional, copies=64, steps=32):
    levels = known.problem.sampler.sigmas
    sampler = replace(known.problem.sampler, sigmas=karras(steps, float(levels[-1]), float(levels[0])))
    problem = known.problem.replace(conditional=conditional, sampler=sampler)
    starts = jnp.tile(known.starts, (copies, 1))
    return jax.jit(method)(jax.random.key(0), problem, starts, jnp.asarray(method.strengths))


# -- the method --


def test_weight_0_is_the_prior_and_weight_1_the_conditional_distribution():
    """Of a Gaussian seen through a noisy sum of its later positions: both are conditioning, by numpy."""
    h, d = LINEAR.problem.shape
    statistic, std, y = jnp.zeros((h, d)).at[2:, 0].set(0.5), 0.3, 2.0
    ask = lambda problem, proxy: jnp.asarray([1.0, y])
    plans = run(ClassifierFree((0.0, 1.0), ask), LINEAR._replace(starts=LINEAR.starts[:1]), Seen(statistic, std), 600)
    distribution, c = LINEAR.problem.denoise.distribution, np.asarray(statistic, np.float64).ravel()
    s, start = (
        np.asarray(distribution.covariance, np.float64),
        np.asarray(LINEAR.starts[0] / LINEAR.problem.codec.std[:2]),
    )
    gain = s[:, :2] @ np.linalg.inv(s[:2, :2])
    mean, s = distribution.mean + gain @ (start - distribution.mean[:2]), s - gain @ s[:2]  # given the start
    m, v = c @ np.asarray(mean), c @ s @ c
    kept = std**2 / (v + std**2)
    observed = np.asarray(jnp.sum(plans.x * statistic[None, None], axis=(2, 3)))
    np.testing.assert_allclose(observed.mean(axis=1), [m, m + (1 - kept) * (y - m)], atol=0.1)
    np.testing.assert_allclose(observed.std(axis=1), [np.sqrt(v), np.sqrt(v * kept)], rtol=0.12)
    np.testing.assert_allclose(plans.x[:, :, 0, :2], jnp.broadcast_to(jnp.asarray(start), (2, 600, 2)), atol=1e-5)
    np.testing.assert_array_less(plans.path_kl[0], 1e-6)
    assert 0.1 < float(plans.path_kl[1].mean())


def test_weight_1_of_the_best_that_can_be_asked_gives_the_best_forces():
    plans = run(ClassifierFree((0.0, 1.0, 3.0), lambda problem, proxy: jnp.full(1, 30.0)), LINEAR, Optimal())
    reached = [problems.reached(LINEAR, x) for x in plans.x]
    assert reached[0] == pytest.approx(0, abs=0.15)
    assert min(reached[1:]) > 0.95


def test_a_return_asked_for_draws_its_tilt_and_a_high_one_the_best_paths():
    def ask(value):
        return lambda problem, proxy: jnp.zeros(3 + 8).at[:2].set(jnp.asarray([1.0, value]))

    plans = run(ClassifierFree((0.0, 1.0, 3.0, 10.0), ask(0.5)), GRID, WALK)
    starts = [known.from_cell(CHAIN, GRID.problem.codec.cell(start)) for start in GRID.starts]
    tilted = np.mean([float(chain.tilted(WEIGHTS, 0.5)[0].expected(WEIGHTS)) for chain in starts])
    gold = np.asarray(jax.vmap(jax.vmap(GRID.gold))(plans.x))
    error = gold[1].std() / np.sqrt(gold[1].size)
    assert gold[1].mean() == pytest.approx(tilted, abs=4 * error)
    reached = [problems.reached(GRID, x) for x in plans.x]
    assert reached[0] == pytest.approx(0, abs=0.1)
    assert reached[0] < reached[1] < reached[2] < reached[3]
    high = run(ClassifierFree((1.0,), ask(15.0)), GRID, WALK).x[0]
    assert problems.reached(GRID, high) > 0.95


def test_a_goal_asked_for_is_reached():
    goal = run(ClassifierFree((1.0,), best_goal), GRID, WALK, copies=16)
    data = np.asarray(GRID.problem.data)
    best = data[np.argmax((data * np.asarray(WEIGHTS)[None]).sum(axis=(1, 2)))]
    np.testing.assert_array_equal(goal.x[0, :, -1].argmax(axis=1), best[-1].argmax())
    np.testing.assert_array_equal(jax.vmap(GRID.problem.codec.legal)(goal.x[0]), 1.0)


def test_what_is_asked():
    problem = LINEAR.problem
    score = np.asarray(jax.vmap(problem.regression.score)(problem.data))
    asked = np.asarray(high_return(problem, problem.regression))
    np.testing.assert_allclose(asked, [1, np.quantile(score, 0.99), 0, 0, 0, 0], rtol=1e-5)
    best = problem.data[score.argmax()]
    goal = np.asarray(best_goal(problem, problem.regression))
    np.testing.assert_allclose(goal, [0, 0, 1, *best[-1, :2], 0], rtol=1e-6)  # an action is no goal
    both = condition(problem.codec, best, jnp.asarray(2.0))
    np.testing.assert_allclose(both, [1, 2, 1, *best[-1, :2], 0], rtol=1e-6)
    np.testing.assert_array_equal(parts(3), [RETURN, RETURN, GOAL, GOAL, GOAL, GOAL])


def test_it_is_an_method_that_needs_a_conditional_and_pays_for_two_networks():
    method = ClassifierFree((0.0, 1.0))
    assert isinstance(method, Method)
    arguments = jax.random.key(0), GRID.problem.replace(conditional=WALK), GRID.starts, jnp.ones(2)
    evals = count(method, *arguments)
    assert evals["network_evals"] == 2 * 2 * 4 * len(GRID.problem.sampler.sigmas)
    assert evals["proxy_evals"] == len(GRID.problem.data)
    with pytest.raises(ValueError, match="method classifier_free: the problem has no conditional"):
        method(jax.random.key(0), GRID.problem, GRID.starts, jnp.ones(1))


# -- the network and its training --


def test_parts_are_dropped_whole_and_each_on_its_own():
    c = jnp.arange(1.0, 7.0)
    kept = np.asarray(jax.vmap(lambda key: dropped(key, c, parts(3), 0.3))(jax.random.split(jax.random.key(0), 4000)))
    present = kept[:, [0, 2]] > 0
    np.testing.assert_array_equal(kept, np.asarray(c)[None] * present[:, parts(3)])
    np.testing.assert_allclose(present.mean(axis=0), 0.7, atol=0.03)
    assert present.all(axis=1).mean() == pytest.approx(0.49, abs=0.03)


def test_a_mixer_without_a_condition_is_as_it_was():
    make = lambda condition: build(
        jax.random.key(3), lambda rngs: Mixer(8, 2, Size(patch=4, width=16, depth=2), condition=condition, rngs=rngs)
    )
    (apply, params), (apply_given, more) = make(0), make(5)
    trunk = more["trunk"]
    extra = {name for name in trunk if name not in params["trunk"]}
    assert extra == {"condition_in", "condition_out"}
    same = more | {"trunk": {name: trunk[name] for name in params["trunk"]}}
    jax.tree.map(np.testing.assert_array_equal, params, same)
    moved = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), more)
    x, c_noise = jax.random.normal(jax.random.key(0), (8, 2)), jnp.zeros(())
    given = [apply_given(moved, x, c_noise, jnp.full(5, value)) for value in (0.0, 1.0)]
    assert float(jnp.abs(given[0] - given[1]).max()) > 1e-3
    assert apply(params, x, c_noise).shape == (8, 2)


def test_a_network_learns_the_two_halves_of_a_mixture_and_the_whole():
    """x0 = 0.9 y + 0.436 n with y = +-1: given y a Gaussian, without it their mixture; both denoisers are known."""
    h, centre, std = 2, 0.9, np.sqrt(1 - 0.9**2)
    apply, params = build(
        jax.random.key(0), lambda rngs: Mixer(h, 1, Size(patch=2, width=32, depth=1), condition=2, rngs=rngs)
    )

    def draw(key, data):
        key_half, key_noise = jax.random.split(key)
        y = jax.random.rademacher(key_half, (), float)
        x = centre * y + std * jax.random.normal(key_noise, (h, 1))
        return x, jnp.zeros((h, 1), bool), jnp.stack([jnp.ones(()), y])

    setting = train.TrainSettings(steps=600, batch=128, learning_rate=5e-3, ema=0.99)
    task = conditional.task(Edm(params, apply), draw, np.asarray([0, 0]), LogUniform(0.1, 5.0), 0.3)
    state = train.start(jax.random.key(1), params, setting)
    state = jax.jit(lambda state: train.chunk(task, setting, state, None, 600)[0])(state)
    learned = Conditioned(Edm(state.ema, apply))
    for sigma in (0.5, 1.0, 3.0):
        x = jnp.asarray([[-0.5], [0.3]])
        shrink = std**2 / (std**2 + sigma**2)
        half = {y: y * centre + shrink * (np.asarray(x) - y * centre) for y in (-1.0, 1.0)}
        for y, exact in half.items():
            np.testing.assert_allclose(learned(x, jnp.asarray(sigma), jnp.asarray([1.0, y])), exact, atol=0.15)
        odds = np.exp(2 * centre * float(x.sum()) / (std**2 + sigma**2))  # of y = 1 against -1
        whole = (odds * half[1.0] + half[-1.0]) / (1 + odds)
        np.testing.assert_allclose(learned(x, jnp.asarray(sigma), jnp.zeros(2)), whole, atol=0.15)
