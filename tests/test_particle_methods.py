"""Plans drawn from clouds of particles: against the exact tilt, the prior at weight 0, and known optima."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Cells
from diffplan.dynamics import imagine
from diffplan.guide import Learned
from diffplan.methods import Method, Plans, particles
from diffplan.methods.guidance import clean, dps
from diffplan.methods.particles import Particles
from diffplan.validation import known
from tests import problems

WEIGHTS, COPIES = (0.0, 1.0, 20.0), 16
METHODS: dict[str, Method] = {
    "tds": Particles("tds", WEIGHTS, count=32),
    "annealed": Particles("annealed", WEIGHTS, particles.annealed, count=32),
    "fk_steering": Particles("fk_steering", WEIGHTS, particles.fk_steering, dps, clean, count=64),
    "svdd": Particles("svdd", WEIGHTS, particles.svdd, dps, clean, count=8),
}
RUNS = [("grid", "tds"), ("grid", "annealed"), ("grid", "fk_steering"), ("grid", "svdd"), ("linear", "fk_steering")]
BIAS = {"grid": 0.0, "linear": 0.35}
"""Of the gold of 32 steps without any weights: first order in the step, 0.2 with a deviation of 0.04 on the line."""
FAST = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


@cache
def problem_of(name: str) -> problems.Known:
    return getattr(problems, name)()


@cache
def plans(name: str, method: str) -> Plans:
    """At every weight, from copies of the starts."""
    problem = problem_of(name)
    arguments = problem.problem, jnp.tile(problem.starts, (COPIES, 1)), jnp.asarray(WEIGHTS)
    return jax.jit(METHODS[method].__call__, compiler_options=FAST)(jax.random.key(0), *arguments)


@cache
def gold(name: str, method: str) -> np.ndarray:
    """Of every plan, ``[s, copies, starts]``."""
    values = jax.jit(jax.vmap(jax.vmap(problem_of(name).gold)))(plans(name, method).x)
    return np.asarray(values).reshape(len(WEIGHTS), COPIES, -1)


@cache
def tilts(name: str) -> np.ndarray:
    """The mean gold of the exact tilt by 0, 1 and 300 from each start, ``[3, starts]``."""
    problem, parts = problem_of(name), problem_of(name).problem

    def on_grid(weight, start):
        alone = known.from_cell(parts.denoise.chain, parts.codec.cell(start))
        return alone.tilted(parts.regression.weights, weight)[0].expected(parts.regression.weights)

    def on_line(weight, start):
        """gold is f(u) = f(0) + b u + u H u / 2 of forces u ~ N(0, I), so the tilt has precision I - weight H."""
        carried = lambda u: imagine(parts.dynamics, jax.random.key(0), start, u[:, None])[0]
        f, zero = lambda u: problem.gold(parts.codec.encode(carried(u))), jnp.zeros(parts.horizon)
        slope, curve = jax.grad(f)(zero), jax.hessian(f)(zero)
        covariance = jnp.linalg.inv(jnp.eye(parts.horizon) - weight * curve)
        centre = weight * covariance @ slope
        return f(centre) + jnp.trace(curve @ covariance) / 2

    mean = on_grid if isinstance(parts.codec, Cells) else on_line
    over_starts = jax.vmap(mean, (None, 0))
    return np.asarray(jax.jit(jax.vmap(over_starts, (0, None)))(jnp.asarray([0.0, 1.0, 300.0]), problem.starts))


@pytest.mark.parametrize("name", ["grid", "linear"])
def test_the_exact_tilts_begin_at_the_prior_and_end_at_the_best(name):
    np.testing.assert_allclose(tilts(name)[0], problem_of(name).ordinary, atol=1e-3)
    np.testing.assert_allclose(tilts(name)[2], problem_of(name).best, atol=2e-2)


@pytest.mark.parametrize(("name", "method"), RUNS)
def test_weight_0_is_the_prior_and_weight_1_the_tilt(name, method):
    assert isinstance(METHODS[method], Method)
    for weight in (0, 1):
        gap = gold(name, method)[weight] - tilts(name)[weight][None]
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(gap.size) + BIAS[name]
    gained = gold(name, method)[1] - gold(name, method)[0]
    assert gained.mean() > 3 * gained.std() / np.sqrt(gained.size)


@pytest.mark.parametrize(("name", "method"), RUNS)
def test_a_large_weight_reaches_the_optimum(name, method):
    problem = problem_of(name)
    way = (gold(name, method)[-1].mean() - problem.ordinary.mean()) / (problem.best.mean() - problem.ordinary.mean())
    assert way >= 0.95
    ess = np.asarray(plans(name, method).ess)
    assert ess[0] == pytest.approx(1, abs=1e-6) and (0 < ess[1:]).all() and (ess[1:] < 0.99).all()


@pytest.mark.parametrize(("name", "method"), RUNS)
def test_plans_begin_at_their_starts_and_can_be_carried_out(name, method):
    """At every weight: the last step of the sampler is the prior's, which knows what is possible."""
    problem, x = problem_of(name), plans(name, method).x
    pins = jax.vmap(problem.problem.pins)(jnp.tile(problem.starts, (COPIES, 1)))
    np.testing.assert_array_equal(jnp.where(pins.mask[None], x, 0.0), np.broadcast_to(pins.value, x.shape))
    plan, step = problem.problem.codec.decode(x), lambda o, a: problem.problem.dynamics(jax.random.key(0), o, a)[0]
    after = jax.vmap(jax.vmap(jax.vmap(step)))(plan.observations[:, :, :-1], plan.actions[:, :, :-1])
    np.testing.assert_allclose(after, plan.observations[:, :, 1:], atol=5e-3)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_clouds_whose_weights_all_vanish_still_give_plans(weight):
    problem = problem_of("linear")
    nothing = Learned((), jnp.zeros(()), jnp.ones(()), lambda params, x, c_noise: jnp.full((), -jnp.inf), "regression")
    method = Particles("fk_steering", (weight,), particles.fk_steering, dps, clean, count=2)
    sampler = problem.problem.sampler
    lost = replace(problem.problem, clean=nothing, sampler=replace(sampler, sigmas=sampler.sigmas[::8]))
    result = jax.jit(method.__call__, compiler_options=FAST)(
        jax.random.key(0), lost, problem.starts, jnp.asarray([weight])
    )
    assert bool(jnp.isfinite(result.x).all()) and float(result.ess[0]) == 0
