"""Control with a receding horizon: near the best that is known, made of steps that can be made, and behaviour at 0."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.experiment.programs import Programs
from diffplan.methods import Method
from diffplan.methods.receding import Receding
from diffplan.methods.shooting import true
from diffplan.methods.weighting import Elite, Softmax
from diffplan.validation import known
from tests import problems

HORIZON, COPIES = 6, 48
MAKE = {"grid": problems.grid, "linear": problems.linear}


@cache
def problem_of(name: str) -> problems.Known:
    """With the exact value of behaviour: the mean score of the prior given the first rows."""
    one = MAKE[name](horizon=HORIZON)
    prior, score = one.problem.denoise, one.problem.regression.score

    def value(x, rows):
        observed = (jnp.arange(HORIZON) < rows)[:, None]
        level = jnp.where(observed, 0.0, 30.0) * jnp.ones_like(x)
        return score(jnp.where(observed, x, prior(jnp.where(observed, x, 0.0), level)))

    return one._replace(problem=replace(one.problem, value=jax.tree_util.Partial(value)))


KINDS = [("grid", 4, Elite()), ("linear", 6, Elite()), ("linear", 6, Softmax())]


def plans(name: str, method: Receding, copies: int = COPIES) -> tuple[problems.Known, np.ndarray]:
    one = problem_of(name)
    many = lambda value: jnp.repeat(value, copies, axis=0)
    call = jax.jit(lambda key, starts: method(key, one.problem, starts, jnp.asarray(method.strengths, jnp.float32)).x)
    many_of = one._replace(starts=many(one.starts), ordinary=many(one.ordinary), best=many(one.best))
    return many_of, call(jax.random.key(0), many_of.starts)


@pytest.mark.parametrize(("name", "lookahead", "weigh"), KINDS)
def test_it_comes_near_the_best_from_behaviour(name, lookahead, weigh):
    method = Receding("control", (0, 10), weigh, true, lookahead=lookahead, every=2, population=48)
    assert isinstance(method, Method)
    one, x = plans(name, method)
    std = float(jnp.std(jax.vmap(one.gold)(x[0]))) / np.sqrt(len(x[0])) / float((one.best - one.ordinary).mean())
    assert abs(problems.reached(one, x[0])) < 4 * std
    assert problems.reached(one, x[1]) >= 0.95


@pytest.mark.parametrize("name", MAKE)
def test_what_comes_back_can_be_carried_out(name):
    one, x = plans(name, Receding("control", (3,), dynamics=true, lookahead=4, every=3, population=8), 2)
    decoded = one.problem.codec.decode(x[0])
    np.testing.assert_allclose(decoded.observations[:, 0], one.starts, atol=1e-5)
    step = jax.vmap(jax.vmap(lambda o, a: one.problem.dynamics(jax.random.key(0), o, a)[0]))
    after = step(decoded.observations[:, :-1], decoded.actions[:, :-1])
    np.testing.assert_allclose(after, decoded.observations[:, 1:], atol=1e-4)


def test_it_acts_in_the_truth_and_dreams_in_the_model():
    """Planning in a world that stands still, all sequences look alike; what happens is still what really happens."""

    class Still:
        action_low, action_high, discrete = known.Truth(problems.point()).action_low, jnp.ones(1), False

        def __call__(self, key, observation, action):
            return observation, jnp.zeros(())

    one = problem_of("linear")
    still = replace(one.problem, model=Still())
    method = Receding("control", (4,), lookahead=4, every=2, population=8)
    x = jax.jit(lambda key: method(key, still, one.starts, jnp.asarray([4.0])).x)(jax.random.key(0))[0]
    decoded = one.problem.codec.decode(x)
    assert float(jnp.abs(jnp.diff(decoded.observations, axis=1)).max()) > 0.05


def test_costs_grow_with_iterations_and_are_those_of_the_search():
    one = problem_of("linear")
    method = Receding("control", (0, 1, 3), dynamics=true, lookahead=4, every=2, population=8)
    result = Programs(method, one.problem, one.starts).costs((0, 1, 3))
    blocks, candidates = HORIZON // 2, 8
    acted = blocks * (2 + 1)  # every block's two steps, and the one that leads out of it
    assert result["env_steps"].tolist() == [
        acted + blocks * 4,
        acted + blocks * candidates * (4 + 4),
        acted + blocks * candidates * (4 + 3 * 4),
    ]


def test_steps_between_plans_divide_the_horizon():
    """Of 6 rows no more than 3 at a time, where 4 or 5 are allowed; all 6 where there may be more."""
    one = problem_of("linear")

    def run(every):
        method = Receding("control", (1,), dynamics=true, lookahead=6, every=every, population=4)
        return jax.jit(lambda key: method(key, one.problem, one.starts, jnp.ones(1)).x)(jax.random.key(0))

    for every, same in ((4, 3), (5, 3), (100, 6)):
        np.testing.assert_array_equal(run(every), run(same))
    assert float(jnp.abs(run(3) - run(6)).max()) > 1e-3
