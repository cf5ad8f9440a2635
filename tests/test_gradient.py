"""Gradient shooting where the best actions are known: by a linear system, by signs at the bounds, of two choices."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jaxtyping import Array

from diffplan.count import count
from diffplan.methods import Method, Plans
from diffplan.methods.gradient import GradientShooting
from diffplan.validation.known import cells_of
from tests import problems

STRENGTHS = (0, 1, 3, 10, 100, 400)
METHOD = GradientShooting("gradient_model", STRENGTHS, runs=3, rate=0.05)
HORIZON = 6
TRANSITION, CONTROL = np.asarray([[1, 0.5], [0, 0.8]]), np.asarray([0, 0.5])
"""Of `problems.point`."""


@cache
def problem() -> problems.Known:
    """The point whose learned model is the truth."""
    known = problems.linear(HORIZON)
    return known._replace(problem=replace(known.problem, model=known.problem.dynamics))


def run(method: GradientShooting, known: problems.Known, starts: Array | None = None, key: int = 0) -> Plans:
    strengths = jnp.asarray(method.strengths, jnp.float32)
    starts = known.starts if starts is None else starts
    return jax.jit(method.__call__)(jax.random.key(key), known.problem, starts, strengths)


@cache
def planned() -> Plans:
    return run(METHOD, problem())


def response() -> np.ndarray:
    """Positions of all rows for a unit of force at each row, ``[h, h]``, and for a start, ``[h, 2]``."""
    forced, free = np.zeros((HORIZON, HORIZON)), np.zeros((HORIZON, 2))
    for row in range(HORIZON):
        free[row] = np.linalg.matrix_power(TRANSITION, row)[0]
        for push in range(row):
            forced[row, push] = (np.linalg.matrix_power(TRANSITION, row - 1 - push) @ CONTROL)[0]
    return np.concatenate([forced, free], axis=1)


def test_it_ends_at_the_actions_that_solve_the_linear_system():
    """The reward sum p - p^2 / 2 - 0.05 u^2 / 2 with p = F u + free is highest at (F'F + 0.05 I) u = F'(1 - free)."""
    assert isinstance(METHOD, Method)
    maps = response()
    forced, free = maps[:, :HORIZON], maps[:, HORIZON:]
    ends = problem().problem.codec.decode(planned().x[-1]).actions[..., 0]
    for start, actions in zip(np.asarray(problem().starts), np.asarray(ends), strict=True):
        best = np.linalg.solve(forced.T @ forced + 0.05 * np.eye(HORIZON), forced.T @ (1 - free @ start))
        assert np.abs(best).max() < 3  # within the bounds
        np.testing.assert_allclose(actions, best, atol=0.01)
    assert problems.reached(problem(), planned().x[-1]) >= 0.99


def test_plans_never_get_worse_by_more_iterations_and_follow_the_model():
    codec, dynamics = problem().problem.codec, problem().problem.dynamics
    gold = jax.vmap(jax.vmap(problem().gold))(planned().x)
    assert bool((jnp.diff(gold[1:], axis=0) >= -1e-5).all()) and bool((gold[-1] > gold[0] + 1).any())
    plan = codec.decode(planned().x)
    step = lambda o, a: dynamics(jax.random.key(0), o, a)[0]
    after = jax.vmap(jax.vmap(jax.vmap(step)))(plan.observations[:, :, :-1], plan.actions[:, :, :-1])
    np.testing.assert_allclose(after, plan.observations[:, :, 1:], atol=1e-4)
    np.testing.assert_allclose(plan.observations[:, :, 0], np.broadcast_to(problem().starts, (6, 4, 2)), atol=1e-5)


def test_no_iterations_are_the_run_of_behaviour():
    """Of a policy that always pushes with 4, beyond the bounds: kept as it is, and what follows is within them."""
    pushes = problem().problem.behaviour
    always = pushes.replace(params={"network": jnp.full(1, 4.0), "log_std": jnp.full(1, -20.0)})
    known = problem()._replace(problem=replace(problem().problem, behaviour=always))
    maps = response()
    x = run(replace(METHOD, strengths=(0, 1), runs=2), known).x
    plan = known.problem.codec.decode(x)
    np.testing.assert_allclose(plan.actions[0], 4.0, atol=1e-4)
    expected = np.asarray(known.starts) @ maps[:, HORIZON:].T + 4 * maps[:, :HORIZON].sum(axis=1)[None]
    np.testing.assert_allclose(plan.observations[0, :, :, 0], expected, atol=1e-3)
    assert float(jnp.abs(plan.actions[1]).max()) <= 3 + 1e-5
    np.testing.assert_array_equal(run(replace(METHOD, strengths=(0,), runs=2), known).x[0], x[0])


@struct.dataclass
class Plane:
    """A reward that is linear in the plan, as a proxy."""

    slope: Array

    def __call__(self, x, sigma):
        return jnp.sum(self.slope * x)

    def reward(self, x):
        return jnp.sum(self.slope * x)

    score = reward


def test_a_linear_score_drives_every_action_to_its_bound():
    """The best actions are 3 times the sign of what a unit of force is worth, as rows that come after it say."""
    std = np.asarray(problem().problem.codec.std)
    slope = np.random.default_rng(4).normal(size=(HORIZON, 3))
    slope[:, 1] = 0
    plane = Plane(jnp.asarray(slope, jnp.float32))
    known = problem()._replace(problem=replace(problem().problem, regression=plane))
    worth = response()[:, :HORIZON].T @ (slope[:, 0] / std[0]) + slope[:, 2] / std[2]
    assert np.abs(worth).min() > 0.05
    actions = known.problem.codec.decode(run(replace(METHOD, rate=0.2), known).x[-1]).actions[..., 0]
    np.testing.assert_allclose(actions, np.broadcast_to(3 * np.sign(worth), actions.shape), atol=1e-4)


@struct.dataclass
class Choices:
    """A place that two choices move by -1 and 1, each as much of it as its score."""

    action_low: Array
    action_high: Array
    discrete: bool = struct.field(pytree_node=False, default=True)

    def __call__(self, key, observation, action):
        return observation + (action[1] - action[0]), jnp.zeros(())


def test_choices_are_made_and_not_mixed():
    """The score is a weighted sum of places: a choice is worth what the rows after it weigh."""
    weights = np.asarray([0.3, -1.0, 2.0, 0.5, -0.8, 1.0])
    codec = problem().problem.codec.replace(mean=jnp.zeros(3), std=jnp.ones(3), observation_dim=1, discrete=True)
    behaviour = problem().problem.behaviour.replace(
        params={"network": jnp.zeros(2), "log_std": jnp.zeros(2)},
        observation_mean=jnp.zeros(1),
        observation_std=jnp.ones(1),
        action_mean=jnp.zeros(2),
        action_std=jnp.ones(2),
        discrete=True,
    )
    slope = jnp.zeros((HORIZON, 3)).at[:, 0].set(jnp.asarray(weights, jnp.float32))
    part = replace(problem().problem, codec=codec, behaviour=behaviour, regression=Plane(slope))
    part = replace(part, model=Choices(jnp.zeros(2), jnp.ones(2)))
    known = problem()._replace(problem=part, starts=jnp.zeros((2, 1)))
    plan = codec.decode(run(replace(METHOD, runs=2), known).x)
    np.testing.assert_array_equal(np.sort(plan.actions, axis=-1)[..., 0], 0)
    np.testing.assert_array_equal(np.sort(plan.actions, axis=-1)[..., 1], 1)
    later = np.cumsum(weights[::-1])[::-1][1:]
    np.testing.assert_array_equal(plan.actions[-1].argmax(axis=-1)[:, :-1], np.broadcast_to(later > 0, (2, 5)))
    np.testing.assert_allclose(
        plan.observations[:, :, 1:], plan.observations[:, :, :-1] + np.diff(plan.actions)[:, :, :-1]
    )


@pytest.mark.parametrize(("iterations", "runs", "evaluations"), [(0, 1, 0), (1, 3, 2), (5, 3, 6)])
def test_costs_are_those_of_the_runs_and_their_gradients(iterations, runs, evaluations):
    method = replace(METHOD, strengths=(iterations,))
    arguments = jax.random.key(0), problem().problem, problem().starts[:1], jnp.asarray([float(iterations)])
    result = count(method.__call__, *arguments)
    assert result["proxy_evals"] == runs * 2 * evaluations  # with its gradient each
    assert result["env_steps"] == runs * HORIZON * (1 + 2 * evaluations)


def test_cells_and_missing_parts_are_named():
    cells = replace(problem().problem, codec=cells_of(problems.ROOM))
    with pytest.raises(ValueError, match="method gradient_model: cannot plan in one-hot cells"):
        METHOD(jax.random.key(0), cells, problem().starts, jnp.ones(1))
    with pytest.raises(ValueError, match="the problem has no model"):
        METHOD(jax.random.key(0), replace(cells, model=None), problem().starts, jnp.ones(1))
