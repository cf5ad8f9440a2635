"""Plans in chunks: the same plans as all at once, counted and held a chunk at a time."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffplan import samplers
from diffplan.count import count, counted
from diffplan.methods.guidance import selected
from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.planner.planner import Planner
from diffplan.samplers import chunked, even_chunks


@pytest.fixture
def small(monkeypatch):
    """Chunks of 4 plans."""
    monkeypatch.setattr(samplers, "CHUNK", {})
    monkeypatch.setattr(samplers, "MANY", 4)


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, (1, 1)), (4, (4, 1)), (5, (5, 1)), (6, (3, 2)), (8, (4, 2)), (9, (3, 3)), (11, (4, 3))]
)
def test_chunks_are_even(small, rows, expected):
    assert even_chunks(rows) == expected


@pytest.mark.parametrize("rows", [1, 5, 8, 11])
def test_rows_are_what_they_are_all_at_once(small, rows):
    keys, pairs = jax.random.split(jax.random.key(0), rows), (jnp.arange(rows), jnp.arange(2.0 * rows).reshape(rows, 2))
    one = lambda key, pair: {"draw": jax.random.normal(key, (2,)) + pair[1], "number": pair[0]}
    result, expected = chunked(one, keys, pairs), jax.vmap(one)(keys, pairs)
    assert jax.tree.map(jnp.shape, result) == jax.tree.map(jnp.shape, expected)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_evaluations_are_counted_through_chunks(small):
    evaluations = lambda rows: count(lambda x: chunked(lambda v: counted("network_evals", v), x), jnp.ones((rows, 3)))
    assert [evaluations(rows)["network_evals"] for rows in (5, 8, 11)] == [5, 8, 12]  # one row of 11 is drawn again


def largest(model: PlanModel, rows: int, candidates: int) -> int:
    """The largest array of the program that selects plans, in numbers."""
    starts = jnp.zeros((rows, model.rows.observation_dim))
    best = lambda key: model.best(key, starts, None, None, PlanOptions(candidates=candidates))
    inner = lambda jaxpr: [
        *(variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars),
        *(
            size
            for equation in jaxpr.eqns
            for value in equation.params.values()
            for sub in (value if isinstance(value, tuple | list) else (value,))
            if hasattr(sub, "jaxpr") or hasattr(sub, "eqns")
            for size in inner(getattr(sub, "jaxpr", sub))
        ),
    ]
    return max(inner(jax.make_jaxpr(best)(jax.random.key(0)).jaxpr))


def test_what_is_held_does_not_grow_with_candidates():
    model = Planner.pretrained("maze2d-umaze").model
    assert largest(model, 1, 4096) <= 1.5 * largest(model, 1, 64)


@pytest.mark.parametrize(("rows", "candidates"), [(1, 3), (1, 7), (3, 5), (6, 2)])
def test_the_best_of_many_is_the_best_of_all_of_them(small, rows, candidates):
    """Against every candidate by itself, with the keys that each start and candidate has."""
    model = Planner.pretrained("gridworld-fourrooms").model
    model = replace(model, sampler=replace(model.sampler, sigmas=model.sampler.sigmas[::8]))
    cells = model.codec.places
    starts, key = cells[5 * jnp.arange(rows)], jax.random.key(3)
    x, score = jax.jit(lambda key: model.best(key, starts, None, None, PlanOptions(candidates=candidates)))(key)
    for row in range(rows):
        keys = [jax.random.split(each, rows)[row] for each in jax.random.split(key, candidates)]
        every = [jax.jit(model.draw)(each, starts[row]) for each in keys]
        chosen = int(np.argmax([float(value) for _, value in every]))
        np.testing.assert_allclose(score[row], every[chosen][1], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(x[row], every[chosen][0], atol=1e-3)


def test_a_score_that_is_not_a_number_is_never_the_best(small):
    """Every second draw has none; where all have none, some plan comes back all the same."""
    model = Planner.pretrained("gridworld-fourrooms").model
    model = replace(model, sampler=replace(model.sampler, sigmas=model.sampler.sigmas[::8]))
    starts, options = model.codec.places[:2], PlanOptions(candidates=6)
    half = replace(model, critic=Fussy(jnp.asarray(0.5)))
    x, score = jax.jit(lambda key: half.best(key, starts, None, None, options))(jax.random.key(0))
    assert np.isfinite(score).all() and np.isfinite(x).all()
    none = replace(model, critic=Fussy(jnp.asarray(2.0)))
    x, score = jax.jit(lambda key: none.best(key, starts, None, None, options))(jax.random.key(0))
    assert (score == -np.inf).all() and (np.asarray(x).sum(axis=2) > 0.99).all()
    first = Fussy(jnp.asarray(0.5))
    plans = jnp.stack([jnp.zeros((2, 1)), jnp.full((2, 1), 0.9), jnp.full((2, 1), 0.7)])[None]
    np.testing.assert_array_equal(selected(plans, first, 3).x[0, 0], plans[0, 1])


@struct.dataclass
class Fussy:
    """A score of any kind, where it is at least so much."""

    least: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        return self.score(x)

    def reward(self, x: jax.Array) -> jax.Array:
        return self.score(x)

    def score(self, x: jax.Array) -> jax.Array:
        value = x[-1, 0] + (x.shape[1] > 1) * jnp.abs(jnp.sin((x[1:] @ jnp.arange(x.shape[1])).sum()))
        return jnp.where(value >= self.least, value, jnp.nan)
