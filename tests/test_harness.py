"""The harness: which strengths it tries, and that it finds the peak of a curve that is known."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Cells
from diffplan.experiment.harness import Bench, Plan, between, method_rows
from diffplan.methods import FAMILIES, Plans, Problem, catalogue, chosen, guidance
from diffplan.methods.grids import log_grid, whole_grid
from diffplan.methods.strengths import StrengthSettings
from diffplan.metrics.table import best_strength
from diffplan.settings import ConfigError
from diffplan.studies import grids
from tests import problems


def test_grids_are_even_in_the_logarithm():
    assert log_grid(1, 1000, 4) == (0, 1, 10, 100, 1000)
    assert log_grid(1, 1000, 7)[1:4] == (1, 3.2, 10)
    assert whole_grid(800, 6) == (0, 1, 4, 14, 55, 210, 800)
    assert whole_grid(3, 10, 1) == (1, 2, 3)


def test_new_strengths_lie_on_both_sides_of_the_best():
    grid = (0.0, 1.0, 10.0, 100.0)
    assert between(grid, 10, 1) == (3.2, 32)
    assert between(grid, 10, 2) == (2.2, 4.6, 22, 46)
    assert between(grid, 100, 1) == (32,)  # nothing lies beyond the largest
    assert between(grid, 1, 1) == (0.32, 3.2)  # down to a tenth
    assert between(grid, 0, 1) == (0.32,)
    assert between((0, 1, 10, 100), 10, 1) == (3, 32)  # iterations are whole
    assert between((0, 1, 2), 1, 3) == ()


def rows(gold: dict[float, float], invalid: dict[float, float]) -> list[dict[str, Any]]:
    return [{"strength": s, "promised": g, "violations.walls": invalid[s]} for s, g in gold.items()]


def test_the_best_strength_keeps_out_of_walls_where_it_can():
    gold = {0.0: 1.0, 1.0: 3.0, 2.0: 9.0}
    assert best_strength(rows(gold, {0.0: 0.0, 1.0: 0.01, 2.0: 0.5})) == 1.0
    assert best_strength(rows(gold, {0.0: 0.3, 1.0: 0.3, 2.0: 0.5})) == 2.0
    assert best_strength(rows(gold | {2.0: np.nan}, {0.0: 1.0, 1.0: 1.0, 2.0: np.nan})) == 1.0


@dataclass(frozen=True)
class Peaked:
    """Plans whose every step is in cell 0 with a share that is largest at strength 3, for it alone."""

    strengths: tuple[float, ...] = (0.0, 1.0, 10.0, 100.0)
    name: str = "peaked"
    strength_name: str = "none"
    shared: bool = False
    proxy: Any = guidance.regression

    def __call__(self, key, problem, starts, strengths):
        fraction = jnp.exp(-(jnp.log(strengths / 3 + 1e-3) ** 2))
        count = jnp.round(fraction * problem.horizon)
        stays = jnp.arange(problem.horizon)[None] < count[:, None]
        x = jnp.where(stays[:, :, None], jax.nn.one_hot(0, problem.codec.width), jax.nn.one_hot(3, problem.codec.width))
        return Plans.of(jnp.broadcast_to(x[:, None], (len(strengths), len(starts), *problem.shape)))


def grid_bench(problem: Problem, start: jax.Array, gold: jax.Array) -> Bench:
    """A gridworld problem as the harness takes it: every plan begins at one place."""
    cells = problem.codec
    assert isinstance(cells, Cells)
    compiled = jax.jit(grids.measures)
    return Bench(
        problem,
        lambda key, count: jnp.broadcast_to(start[None], (count, *start.shape)),
        lambda key, proxy, x: compiled(key, proxy, cells, gold, x),
        lambda x: cells.decode(x).observations,
        "grid",
    )


@pytest.mark.slow
def test_a_peak_between_grid_points_is_found():
    problem = problems.grid(horizon=40).problem
    gold = jnp.zeros(8).at[0].set(1.0)
    bench = grid_bench(problem, problem.codec.places[0], gold)
    coarse, _ = method_rows(Peaked(), Plan(seeds=1, plans=2, refine=0, seed=0), bench, "coarse")
    fine, pictures = method_rows(Peaked(), Plan(seeds=1, plans=2, refine=3, seed=0), bench, "fine")
    assert best_strength(coarse) == 1.0
    assert best_strength(fine) == pytest.approx(3, abs=1.5)
    strengths = [row["strength"] for row in fine]
    assert strengths == sorted(strengths) and len(strengths) == 4 + 6
    np.testing.assert_allclose(pictures["strengths"], strengths, rtol=1e-6)
    assert pictures["positions"].shape == (10, 2, 40, 2)


def test_the_catalogue_names_methods_once_and_every_family():
    entries = catalogue(StrengthSettings())
    assert {entry.family for entry in entries.values()} == set(FAMILIES)
    assert all(name == entry.method.name for name, entry in entries.items())
    assert [entry.method.name for entry in chosen(StrengthSettings(), ("critic",))] == ["prior", "critic"]
    assert len(chosen(StrengthSettings(), ("all",))) == len(entries)
    with pytest.raises(ConfigError, match="methods='nothing': must be one of all, prior, guided"):
        chosen(StrengthSettings(), ("guided", "nothing"))
