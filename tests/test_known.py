"""The problems whose best answer is known: their answers, held to brute force and to draws; and the methods, to
them.
"""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Cells
from diffplan.methods import catalogue
from diffplan.methods.strengths import StrengthSettings
from diffplan.noise import karras
from diffplan.types import Trajectory
from diffplan.validation import known
from tests import problems


def test_the_grid_s_answers_are_those_of_all_paths():
    problem = problems.grid(horizon=4)
    cells = problem.problem.codec
    assert isinstance(cells, Cells)
    for start, ordinary, best in zip(problem.starts, problem.ordinary, problem.best, strict=True):
        gold = []
        for moves in itertools.product(range(5), repeat=3):
            path = [int(cells.cell(start))]
            for move in moves:
                path.append(int(cells.next_cell[path[-1], move]))
            gold.append(float(problem.gold(jax.nn.one_hot(jnp.asarray(path), cells.width))))
        assert max(gold) == pytest.approx(float(best), abs=1e-5)
        assert np.mean(gold) == pytest.approx(float(ordinary), abs=1e-5)  # all moves are equally likely


@pytest.mark.parametrize("make", [problems.grid, problems.linear])
def test_draws_are_no_better_than_the_best_and_ordinary_on_average(make):
    problem = make()
    for start, ordinary, best in zip(problem.starts, problem.ordinary, problem.best, strict=True):
        keys = jax.random.split(jax.random.key(0), 4000)
        gold = np.asarray(jax.vmap(lambda key, start=start: problem.gold(problem.draw(key, start)))(keys))
        assert gold.max() <= best + 1e-4
        assert gold.mean() == pytest.approx(float(ordinary), abs=4 * gold.std() / np.sqrt(len(gold)))


@pytest.mark.parametrize("make", [problems.grid, problems.linear])
def test_plans_of_the_prior_can_be_carried_out(make):
    problem = make()
    plan = problem.draw(jax.random.key(1), problem.starts[1])
    decoded = problem.problem.codec.decode(plan)
    np.testing.assert_allclose(decoded.observations[0], problem.starts[1], atol=1e-5)
    step = lambda o, a: problem.problem.dynamics(jax.random.key(0), o, a)[0]
    after = jax.vmap(step)(decoded.observations[:-1], decoded.actions[:-1])
    np.testing.assert_allclose(after, decoded.observations[1:], atol=1e-4)
    np.testing.assert_allclose(problem.problem.codec.encode(decoded), plan, atol=1e-5)


def test_cells_name_illegal_steps_and_pin_both_ends():
    cells = known.cells_of(problems.ROOM)
    path = jnp.asarray([[1.0, 1.0], [1.0, 2.0], [3.0, 1.0]])  # the last step is a jump
    x = cells.encode(Trajectory(path, jnp.zeros((3, 5))))
    np.testing.assert_array_equal(cells.legal(x), [1.0, 0.0])
    np.testing.assert_array_equal(cells.decode(x).actions[:2].argmax(axis=1), [4, 0])  # right; none leads there
    pins = cells.pin(3, path[0], path[2])
    np.testing.assert_array_equal(pins.mask.any(axis=1), [True, False, True])
    np.testing.assert_array_equal(pins.value, x.at[1].set(0.0))


COPIES = 32


def reached(problem: problems.Known, method) -> list[float]:
    """The share of the way to the best at every strength, many plans from every start."""
    many = lambda values: jnp.repeat(values, COPIES, axis=0)
    problem = problem._replace(starts=many(problem.starts), ordinary=many(problem.ordinary), best=many(problem.best))
    strengths = jnp.asarray(method.strengths, jnp.float32)
    x = jax.jit(lambda key: method(key, problem.problem, problem.starts, strengths).x)(jax.random.key(0))
    return [problems.reached(problem, one) for one in x]


GUIDED = ("guided", "guided_classifier", "guided_dps", "guided_raw")
SCALES = {"grid": (400.0, GUIDED), "linear": (25.0, GUIDED[:3])}
"""Where methods of the catalogue are held to the best plan. The raw energy of a quadratic diverges at large levels."""


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name, (_, methods) in SCALES.items() for method in methods]
)
def test_guidance_with_gold_as_proxy_comes_near_the_best_and_is_the_prior_at_zero(name, method):
    problem = problems.grid() if name == "grid" else problems.linear()
    if name == "linear":
        problem = problem._replace(
            problem=replace(problem.problem, sampler=replace(problem.problem.sampler, sigmas=karras(96, 0.02, 10.0)))
        )
    guided = replace(catalogue(StrengthSettings())[method].method, strengths=(0.0, SCALES[name][0]))
    none, full = reached(problem, guided)
    assert abs(none) < 0.15 and full >= 0.95
