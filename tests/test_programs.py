"""The programs of methods: few are compiled, and one strength run by itself has the plans of the whole grid."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.experiment.programs import Programs
from diffplan.methods import Plans, catalogue
from diffplan.methods.base import fit_and_draw
from diffplan.methods.finetuning import ExpertIteration
from diffplan.methods.strengths import StrengthSettings
from diffplan.settings import ConfigError
from tests.problems import linear

KEY = jax.random.key(4)


def compiled(programs: Programs) -> int:
    return programs.compile.cache_info().currsize


def test_where_a_strength_is_an_argument_one_program_serves_all_of_them():
    """The grid, strengths between its points, and the best alone."""
    one = linear()
    method = replace(catalogue(StrengthSettings(points=2))["guided"].method, strengths=(0.0, 1.0, 10.0))
    programs = Programs(method, one.problem, one.starts)
    parts = [programs.run(KEY, one.starts, group) for group in programs.groups((0.0, 1.0, 10.0))]
    together = jax.jit(lambda: method(KEY, one.problem, one.starts, jnp.asarray([0.0, 1.0, 10.0])))()
    for i, part in enumerate(parts):
        np.testing.assert_allclose(part.x[0], together.x[i], atol=2e-4)
        np.testing.assert_allclose(part.path_kl[0], together.path_kl[i], rtol=1e-3, atol=1e-4)
    between = programs.run(KEY, one.starts, (3.0,))
    assert np.isfinite(between.x).all() and compiled(programs) == 1


@dataclass(frozen=True)
class Filled:
    """Structure that is no whole number: the fraction of a plan's rows that are 1."""

    strengths: tuple[float, ...]
    name: str = "filled"
    strength_name: str = "fraction"
    shared: bool = False
    proxy: Any = None

    def __call__(self, key, problem, starts, strengths):
        counts = [int(fraction * problem.horizon) for fraction in self.strengths]
        x = jnp.stack([jnp.zeros(problem.shape).at[:count].set(1.0) for count in counts])
        return Plans.of(jnp.broadcast_to(x[:, None], (len(counts), len(starts), *problem.shape)))


@pytest.mark.parametrize("strengths", [(0.0, 0.5), (0.5, 1.0)])
def test_where_a_strength_is_structure_each_has_its_own_program(strengths):
    one = linear()
    programs = Programs(Filled(strengths), one.problem, one.starts)
    for strength in strengths:
        assert float(programs.run(KEY, one.starts, (strength,)).x.mean()) == pytest.approx(strength, abs=0.1)
    assert compiled(programs) == 2


def test_a_method_that_gives_plans_for_other_strengths_is_refused():
    class Twice(Filled):
        def __call__(self, key, problem, starts, strengths):
            return Plans.of(jnp.zeros((2, len(starts), *problem.shape)))

    one = linear()
    programs = Programs(Twice((0.0, 1.0)), one.problem, one.starts)
    with pytest.raises(ConfigError, match="method filled: strengths of its plans=2: must be 1, all it was given"):
        programs.run(KEY, one.starts, (0.0,))


def test_a_method_that_learns_has_a_program_for_each_part():
    """Its rounds are structure of the fit, and are not part of what plans cost."""
    one = linear()
    method = ExpertIteration((0.0, 1.0, 3.0), plans=2, train_starts=4, steps=3, batch=5)
    programs = Programs(method, one.problem, one.starts)
    (together,) = programs.groups(method.strengths)
    levels = len(one.problem.sampler.sigmas)
    np.testing.assert_array_equal(programs.costs(together)["network_evals"], [levels] * 3)
    rounds = np.array([0, 1, 3])
    np.testing.assert_array_equal(
        programs.costs(together, "fit")["network_evals"], rounds * (2 * 4 * levels + 2 * 3 * 5)
    )
    key_fit, key_draw = programs.keys(KEY)
    plans = programs.run(key_draw, one.starts, together, programs.fit(key_fit, together))
    whole = jax.jit(lambda key: fit_and_draw(method, key, one.problem, one.starts, jnp.asarray(together)))(KEY)
    np.testing.assert_allclose(plans.x[0], whole.x[0], atol=2e-4)  # the prior's, whatever rounding does to training
    assert compiled(programs) == 2 and programs.learns
    alone = Programs(catalogue(StrengthSettings(points=2))["guided"].method, one.problem, one.starts)
    assert alone.fit(KEY, (1.0,)) is None and alone.keys(KEY) == (KEY, KEY)
