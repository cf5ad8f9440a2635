"""Methods that learn before they plan: their two parts, where they learn, and what more training is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffplan.count import count
from diffplan.methods import Guided
from diffplan.methods.base import LearningMethod
from diffplan.methods.finetuning import ExpertIteration
from diffplan.methods.finetuning import PolicyGradient as TunedGradient
from diffplan.methods.policy_gradient import PolicyGradient
from diffplan.noise import karras
from tests import problems

HERE = problems.grid(horizon=4, count=8)
PROBLEM = replace(HERE.problem, sampler=replace(HERE.problem.sampler, sigmas=karras(4, 0.05, 10.0)))
KEY = jax.random.key(2)
METHODS = (
    PolicyGradient("reinforce", (0.0, 3.0), updates=3),
    PolicyGradient("ppo", (0.0, 3.0), epochs=2, gae_lambda=0.95, updates=3),
    PolicyGradient("ppo_occupancy", (0.0, 3.0), epochs=2, gae_lambda=0.95, regulariser="occupancy", updates=3),
    TunedGradient((0.0, 3.0), updates=3, learning_rate=0.1),
    ExpertIteration((0.0, 2.0), plans=4, steps=5, batch=8, learning_rate=0.1),
)
each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def grid_of(method) -> jax.Array:
    return jnp.asarray(method.strengths)


@each
def test_a_method_is_both_its_parts_and_learns_for_each_strength(method):
    assert isinstance(method, LearningMethod)
    assert not isinstance(Guided("guided", (0.0, 1.0)), LearningMethod)
    key_fit, key_draw = jax.random.split(KEY)
    learned = method.fit(key_fit, PROBLEM, grid_of(method))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(learned)} == {2}
    assert any(bool((leaf[0] != leaf[1]).any()) for leaf in jax.tree.leaves(learned))
    parts = method.draw(key_draw, PROBLEM, learned, HERE.starts, grid_of(method))
    whole = method(KEY, PROBLEM, HERE.starts, grid_of(method))
    np.testing.assert_array_equal(parts.x, whole.x)
    np.testing.assert_array_equal(parts.path_kl, whole.path_kl)


@each
def test_a_plan_does_not_depend_on_the_starts_of_other_plans(method):
    """Nothing is learned from the starts that plans are scored from."""
    run = jax.jit(method)
    beside = [run(KEY, PROBLEM, HERE.starts[jnp.asarray(rows)], grid_of(method)).x for rows in ([0, 1, 2], [0, 6, 7])]
    np.testing.assert_array_equal(beside[0][:, 0], beside[1][:, 0])
    assert (beside[0][:, 1:] != beside[1][:, 1:]).any()


@struct.dataclass
class Noting:
    """A reward model that notes in which cell each plan begins that it scores."""

    denoise: Any
    note: Callable[[np.ndarray], None] = struct.field(pytree_node=False)

    def __call__(self, x, sigma):
        return jnp.zeros(())

    def reward(self, x):
        return jnp.zeros(())

    def score(self, x):
        jax.debug.callback(self.note, jnp.argmax(x[0]))
        return jnp.sum(x[:, 0])


@each
def test_training_starts_where_behaviour_does(method):
    """Windows that begin in cells 2 and 5, among eight."""
    begin = jnp.argmax(PROBLEM.data[:, 0], axis=1)
    seen: list[int] = []
    proxy = Noting(PROBLEM.denoise, lambda cell: seen.append(int(cell)))
    problem = replace(PROBLEM, data=PROBLEM.data[(begin == 2) | (begin == 5)], regression=proxy)
    jax.block_until_ready(jax.jit(method.fit)(KEY, problem, grid_of(method)))
    jax.effects_barrier()
    assert set(seen) == {2, 5}
    with pytest.raises(ValueError, match=f"method {method.name}: the problem has no data"):
        method.fit(KEY, replace(PROBLEM, data=None), grid_of(method))


@each
def test_training_that_is_three_times_as_long_evaluates_as_much_more_and_plans_as_before(method):
    fit = lambda method: count(method.fit, KEY, PROBLEM, grid_of(method))
    once, thrice = fit(method), fit(method.longer(3))
    drawn = 2 * 4 * 32 * 4 if isinstance(method, ExpertIteration) else 0  # rounds, plans, starts, levels: as before
    assert thrice["network_evals"] - drawn == 3 * (once["network_evals"] - drawn)
    learned = jax.eval_shape(method.fit, KEY, PROBLEM, grid_of(method))
    draw = lambda method: count(method.draw, KEY, PROBLEM, learned, HERE.starts, grid_of(method))
    assert draw(method) == draw(method.longer(3))
