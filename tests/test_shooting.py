"""Shooting on problems whose best answer is known, in their true dynamics and in others that are made to be told."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffplan.count import count
from diffplan.learn import dynamics
from diffplan.methods import Method
from diffplan.methods.shooting import Shooting, learned
from diffplan.methods.weighting import Elite, Softmax, normalised
from diffplan.validation import known
from tests import problems

MAKE = {"grid": problems.grid, "linear": problems.linear}
STRENGTHS = (0, 1, 2, 8, 24)
METHODS = {"cem": Shooting("cem", STRENGTHS), "mppi": Shooting("mppi", STRENGTHS, Softmax())}
PROGRAMS = {name: jax.jit(method.__call__) for name, method in METHODS.items()}
EACH = 64
BOTH = pytest.mark.parametrize(("name", "method"), [(name, method) for name in MAKE for method in METHODS])


@cache
def problem(name: str) -> problems.Known:
    return MAKE[name]()


@cache
def planned(name: str, method: str):
    """(starts, plans of all strengths), with many plans from every start."""
    one = problem(name)
    starts = jnp.tile(one.starts, (EACH, 1))
    strengths = jnp.asarray(STRENGTHS, jnp.float32)
    return starts, PROGRAMS[method](jax.random.key(0), one.problem, starts, strengths).x


def golds(name: str, x) -> np.ndarray:
    """Of each plan, ``[each, start]``."""
    return np.asarray(jax.vmap(problem(name).gold)(x)).reshape(EACH, -1)


@BOTH
def test_the_optimum_is_reached_and_never_left(name, method):
    x = planned(name, method)[1]
    reached = [problems.reached(problem(name), plans) for plans in x]
    assert reached[-1] >= 0.95
    gold = np.stack([golds(name, plans) for plans in x])
    assert (gold <= np.asarray(problem(name).best) + 1e-3).all()
    assert (np.diff(gold[1:], axis=0) >= -1e-4).all()  # a plan never gets worse by more iterations


@BOTH
def test_no_iterations_are_behaviour(name, method):
    starts, x = planned(name, method)
    draw = lambda key: jax.vmap(problem(name).draw)(jax.random.split(key, len(starts)), starts)
    prior = golds(name, draw(jax.random.key(7)))
    for observed, wanted in zip(golds(name, x[0]).T, prior.T, strict=True):
        noise = np.sqrt((observed.var() + wanted.var()) / EACH)
        assert abs(observed.mean() - wanted.mean()) < 4 * noise
        assert 0.6 < observed.std() / wanted.std() < 1.6


@BOTH
def test_plans_begin_at_their_start_and_can_be_carried_out(name, method):
    starts, x = planned(name, method)
    one = problem(name).problem
    pins = jax.vmap(one.pins)(starts)
    for plans in x:
        np.testing.assert_array_equal(jnp.where(pins.mask, plans, pins.value), pins.value)
    plans = one.codec.decode(x[-1])
    step = jax.vmap(jax.vmap(lambda o, a: one.dynamics(jax.random.key(0), o, a)[0]))
    after = step(plans.observations[:, :-1], plans.actions[:, :-1])
    np.testing.assert_allclose(after, plans.observations[:, 1:], atol=1e-4)


def test_every_number_of_iterations_is_read_from_one_program():
    x = planned("grid", "cem")[1]
    one, strengths = problem("grid"), jnp.asarray([8.0, 1.0, 0.0, 24.0, 2.0])
    again = PROGRAMS["cem"](jax.random.key(0), one.problem, jnp.tile(one.starts, (EACH, 1)), strengths).x
    np.testing.assert_array_equal(again, x[jnp.asarray([3, 1, 0, 4, 2])])
    assert isinstance(METHODS["cem"], Method)


@pytest.mark.parametrize(("iterations", "runs", "candidates"), [(0, 1, 0), (1, 10, 10), (3, 10, 30)])
def test_costs_are_those_of_the_candidates(iterations, runs, candidates):
    one, horizon = problem("grid"), 5
    method = Shooting("cem", (iterations,), population=10)
    result = count(method.__call__, jax.random.key(0), one.problem, one.starts[:1], jnp.asarray([float(iterations)]))
    steps = horizon * max(candidates, runs)
    assert result == {"network_evals": horizon * runs, "proxy_evals": candidates, "env_steps": steps}


def test_weights_are_of_the_best_or_of_the_exponential():
    score = jnp.asarray([1.0, 5.0, 3.0, 4.0])
    np.testing.assert_allclose(normalised(Elite(0.5)(score)), [0, 0.5, 0, 0.5])
    np.testing.assert_allclose(normalised(Elite(0.01)(score)), [0, 1, 0, 0])  # at least one
    soft = normalised(Softmax(2.0)(score))
    assert soft[1] / soft[0] == pytest.approx(np.exp(4 / 2)) and soft.sum() == pytest.approx(1)


@struct.dataclass
class Wary:
    """Dynamics that disagreement every force."""

    truth: known.Truth
    discrete: bool = struct.field(pytree_node=False, default=False)

    action_low = property(lambda self: self.truth.action_low)
    action_high = property(lambda self: self.truth.action_high)

    def __call__(self, key, observation, action):
        return self.truth(key, observation, action)[0], jnp.sum(jnp.abs(action))


def test_disagreement_is_paid_for():
    one = problem("linear")
    wary = one.problem.replace(model=Wary(one.problem.dynamics))
    method = jax.jit(Shooting("cem", (8,), dynamics=learned, disagreement_penalty=100.0).__call__)
    paid = method(jax.random.key(0), wary, one.starts, jnp.asarray([8.0])).x[0]
    force = lambda x: float(jnp.abs(wary.codec.decode(x).actions[:, :-1]).mean())
    assert force(paid) < 0.5 * force(planned("linear", "cem")[1][STRENGTHS.index(8)])


def test_plans_in_a_learned_model_are_as_good_as_it_says_and_no_better():
    """In a model where walls were never met, plans go through them; the truth stays in front of them."""
    one = problem("grid")
    cells, codec = jnp.asarray(problems.ROOM.cells, jnp.float32), one.problem.codec
    k = len(cells)
    anywhere = dynamics.Transitions(  # from every cell move m leads to cell m, wherever that is
        jnp.repeat(cells, 5, axis=0), jnp.tile(jnp.eye(5), (k, 1)), jnp.tile(cells[:5], (k, 1))
    )
    dreamt = one.problem.replace(model=dynamics.tabulate(anywhere, cells))
    method = jax.jit(Shooting("cem", (8,), dynamics=learned).__call__)
    x = method(jax.random.key(0), dreamt, one.starts, jnp.asarray([8.0])).x[0]
    best = one.problem.regression.weights[0, :5].max()  # stay on the best of the five from the second step on
    first = jnp.sum(one.problem.regression.weights[0][None] * x[:, 0], axis=1)
    np.testing.assert_allclose(jax.vmap(one.gold)(x), first + 4 * best, rtol=1e-4)
    assert jax.vmap(codec.legal)(x).min() == 0.0


def test_what_is_missing_is_named():
    one = problem("grid")
    method = Shooting("cem", (1,), dynamics=learned)
    with pytest.raises(ValueError, match="the problem has no model"):
        method(jax.random.key(0), one.problem, one.starts, jnp.ones(1))
    with pytest.raises(ValueError, match="method cem: the problem has no behaviour"):
        lacking = one.problem.replace(behaviour=None)
        replace(METHODS["cem"], strengths=(1,))(jax.random.key(0), lacking, one.starts, jnp.ones(1))
