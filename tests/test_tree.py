"""Tree search and the value it reads: held to the exact value of behaviour, to behaviour itself, to the best path."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.count import count
from diffplan.data.windows import Windows
from diffplan.episodes import from_stacked
from diffplan.learn import train, value
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import LearnedValue
from diffplan.methods import Method
from diffplan.methods.tree import Tree
from diffplan.models import Size, Value, build
from diffplan.validation import known
from tests import problems

HORIZON, EACH = 5, 100
STRENGTHS = (0, 1, 4, 24)
MOVES = (0.4, 0.05, 0.3, 0.2, 0.05)


@cache
def room() -> problems.Known:
    """The room with the exact value of its walk."""
    one = problems.grid(HORIZON)
    exact = known.TabularValue(known.walk(problems.ROOM, HORIZON), one.problem.regression)
    return one._replace(problem=one.problem.replace(value=exact))


@cache
def learned() -> LearnedValue:
    """A value trained on behaviour."""
    problem = room().problem
    size = Size(patch=1, width=32, depth=1)
    width = problem.codec.width + 1
    apply, params = build(jax.random.key(1), lambda rngs: Value(HORIZON, width, size, rngs=rngs))
    config = TrainSettings(steps=500, batch=64, learning_rate=3e-3, ema=0.98)
    plans = problem.codec.decode(problem.data)
    episodes = from_stacked(np.asarray(plans.observations), np.asarray(plans.actions))
    data = value.Scored(Windows.of(episodes, problem.codec, HORIZON), problem.regression)
    run = jax.jit(lambda state, data: train.chunk(value.task(apply), config, state, data, config.steps)[0].ema)
    return LearnedValue(run(train.start(jax.random.key(2), params, config), data), apply)


@pytest.mark.slow
def test_a_learned_value_is_the_exact_one_nearly_and_sees_no_later_row():
    one = room()
    keys, starts = jax.random.split(jax.random.key(5), 400), jnp.tile(one.starts, (EACH, 1))
    x = jax.vmap(one.draw)(keys, starts)
    rows = jnp.arange(400) % HORIZON + 1
    guess, exact = (jax.vmap(v)(x, rows) for v in (learned(), one.problem.value))
    assert np.corrcoef(guess, exact)[0, 1] > 0.95
    assert float(jnp.mean((guess - exact) ** 2)) < 0.15 * float(jnp.var(exact))
    other = jnp.where((jnp.arange(HORIZON)[None] < rows[:, None])[:, :, None], x, 7.0)
    np.testing.assert_array_equal(jax.vmap(learned())(other, rows), guess)
    whole = jax.vmap(one.problem.regression.score)(x[rows == HORIZON])
    assert np.corrcoef(guess[rows == HORIZON], whole)[0, 1] > 0.95  # with all rows known it is the score
    assert count(learned(), x[0], rows[0]) == {"network_evals": 1, "proxy_evals": 0, "env_steps": 0}


@cache
def planned(of: str):
    """(starts, plans of all strengths), many from every start, with an exact or a learned value."""
    one = room()
    problem = one.problem if of == "exact" else one.problem.replace(value=learned())
    starts = jnp.tile(one.starts, (EACH, 1))
    method = Tree(STRENGTHS)
    return starts, jax.jit(method.__call__)(jax.random.key(0), problem, starts, jnp.asarray(STRENGTHS, jnp.float32)).x


@pytest.mark.parametrize(("of", "least"), [("exact", 0.95), pytest.param("learned", 0.75, marks=pytest.mark.slow)])
def test_more_simulations_come_near_the_optimum(of, least):
    reached = [problems.reached(room(), x) for x in planned(of)[1]]
    assert reached[-1] >= least
    assert reached[0] < 0.2 < reached[2] < reached[3]


def test_plans_begin_at_their_start_and_every_move_is_one():
    starts, x = planned("exact")
    codec = room().problem.codec
    np.testing.assert_array_equal(x.sum(axis=-1), 1.0)
    for plans in x:
        np.testing.assert_array_equal(codec.decode(plans).observations[:, 0], starts)
        np.testing.assert_array_equal(jax.vmap(codec.legal)(plans), 1.0)


def test_without_simulations_and_with_one_plans_are_behaviour_s():
    """Of a walk that prefers some moves: which cells are visited when, against the chain's occupancy."""
    one = room()
    problem = one.problem.replace(behaviour=known.grid_behaviour(one.problem.codec, MOVES))
    number = 1500
    starts = jnp.broadcast_to(one.starts[1][None], (number, 2))
    method = Tree((0, 1))
    x = jax.jit(method.__call__)(jax.random.key(3), problem, starts, jnp.asarray([0.0, 1.0])).x
    distribution = np.asarray(known.from_cell(known.walk(problems.ROOM, HORIZON, MOVES), jnp.asarray(1)).occupancy())
    for plans in np.asarray(x):
        assert (
            np.abs(plans.mean(axis=0) - distribution) <= 5 * np.sqrt(distribution * (1 - distribution) / number) + 1e-6
        ).all()


def test_costs_are_those_of_the_simulations():
    one, n = room(), 3
    method = Tree((8,))
    result = count(method.__call__, jax.random.key(0), one.problem, one.starts[:n], jnp.asarray([8.0]))
    moves = HORIZON - 1  # of each: the root and 8 nodes read policy and value, 8 are scored, 8 and the move itself step
    assert result == {"network_evals": n * moves * 18, "proxy_evals": n * moves * 8, "env_steps": n * moves * 9}


def test_what_cannot_be_searched_is_named():
    rows = room().problem.replace(codec=Codec(jnp.zeros(3), jnp.ones(3), 2))
    with pytest.raises(ValueError, match="method tree: codec=Codec: must be Cells"):
        Tree((1,))(jax.random.key(0), rows, room().starts, jnp.ones(1))
    lacking = room().problem.replace(value=None)
    with pytest.raises(ValueError, match="method tree: the problem has no value"):
        Tree((1,))(jax.random.key(0), lacking, room().starts, jnp.ones(1))
    assert isinstance(Tree((1,)), Method)
