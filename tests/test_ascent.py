"""Ascent from data, ascent that stops early, ascent that is projected back: where each begins, and where it ends."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.denoise import CLEAN, pinned
from diffplan.guide import Learned
from diffplan.methods import Ascent, Method, Plans, Prior, catalogue
from diffplan.methods.ascent import (
    AscentConservative,
    AscentEarly,
    AscentFrom,
    AscentRenoised,
    BestData,
    from_data,
    from_prior,
)
from diffplan.methods.guidance import clean
from diffplan.methods.strengths import StrengthSettings
from diffplan.types import Trajectory
from tests import problems

STEPS = (0, 1, 2, 5, 20, 300)
PATIENCE = (0.0, 0.5, 1.0, 2.0, 1e6)


@cache
def problem(name: str) -> problems.Known:
    return problems.grid(horizon=4) if name == "grid" else problems.linear()


FAST = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


@cache
def draws(method: Method, name: str, copies: int = 1, key: int = 0) -> Plans:
    """A method's plans from each start `copies` times, all strengths."""
    starts = jnp.repeat(problem(name).starts, copies, axis=0)
    strengths = jnp.asarray(method.strengths, jnp.float32)
    return jax.jit(method.__call__, compiler_options=FAST)(
        jax.random.key(key), problem(name).problem, starts, strengths
    )


LINEAR = {
    "data": AscentFrom(STEPS, "ascent_data", clean, rate=0.2),
    "early": AscentEarly(PATIENCE, proxy=clean, rate=0.2, steps=300),
    "renoised": AscentRenoised(STEPS, proxy=clean, rate=0.2, tau=0.05),
}
GRID = AscentRenoised((0, 1, 10, 60), proxy=clean, rate=5.0, level=1.0)


@pytest.mark.parametrize(("method", "name"), [*((method, "linear") for method in LINEAR.values()), (GRID, "grid")])
def test_plans_begin_at_their_starts_and_reach_the_optimum(method, name):
    plans, whole = draws(method, name), problem(name)
    assert isinstance(method, Method) and plans.x.shape[:2] == (len(method.strengths), len(whole.starts))
    pins = jax.vmap(whole.problem.pins)(whole.starts)
    first = np.broadcast_to(pins.value, plans.x.shape)[:, pins.mask]
    np.testing.assert_array_equal(np.asarray(plans.x)[:, pins.mask], first)
    assert problems.reached(whole, plans.x[-1]) >= 0.95
    assert abs(problems.reached(whole, plans.x[0])) < 0.95


@pytest.mark.parametrize("name", ["ascent_prior", "ascent_data"])
def test_the_default_step_from_clean_plans_reaches_the_optimum_where_the_one_from_noise_diverges(name):
    """The reward is a parabola of curvature about 1 per entry: steps above 2 squared deviations diverge on it."""
    method = catalogue(StrengthSettings())[name].method
    plans, whole = draws(method, "linear"), problem("linear")
    assert max(method.strengths) == 800
    read = lambda start, x: pinned(whole.problem.denoise, whole.problem.pins(start))(x, jnp.asarray(CLEAN))
    x = jax.jit(jax.vmap(read))(whole.starts, plans.x[-1])
    np.testing.assert_allclose(jax.vmap(whole.gold)(x), whole.best, atol=0.03)
    far = replace(method, rate=StrengthSettings().ascent_rate)
    assert not float(jnp.abs(draws(far, "linear").x[-1]).max()) < 100


def test_ascent_from_noise_finds_the_best_actions_of_a_proxy_that_carries_them_out():
    """From noise a plan is no trajectory, so gold is what its actions earn, and so is the proxy."""
    whole = problem("linear")
    codec, dynamics = whole.problem.codec, whole.problem.dynamics

    def earned(x):
        plan = codec.decode(x)
        step = lambda o, a: (dynamics(jax.random.key(0), o, a)[0], o)
        return whole.gold(
            codec.encode(Trajectory(jax.lax.scan(step, plan.observations[0], plan.actions)[1], plan.actions))
        )

    one = jnp.ones(())
    proxy = problems.Clean(lambda x, sigma: x, one, one, earned)
    method = Ascent((0, 300), proxy=lambda problem: proxy, rate=0.3, anneal=0)
    run = jax.jit(lambda key: method(key, whole.problem, whole.starts, jnp.asarray(method.strengths, jnp.float32)).x)
    gold = np.asarray(jax.vmap(jax.vmap(earned))(run(jax.random.key(0)))).mean(axis=1)
    fraction = (gold - whole.ordinary.mean()) / (whole.best.mean() - whole.ordinary.mean())
    assert fraction[0] < 0.5 and fraction[1] >= 0.95


def test_the_plans_on_the_grid_that_are_projected_back_are_paths():
    cells = problem("grid").problem.codec
    x = draws(GRID, "grid", copies=8).x
    np.testing.assert_allclose(x.max(axis=-1), 1, atol=1e-2)  # one cell a step
    np.testing.assert_array_equal(jax.vmap(jax.vmap(cells.legal))(x), 1)
    ascended = draws(
        AscentFrom(GRID.strengths, begin=from_prior, proxy=clean, rate=5.0, level=1.0), "grid", copies=8
    ).x[-1]
    assert float(ascended[:, 1:].max(axis=-1).min()) > 1.2  # what ascent alone ends at is no path


@pytest.mark.parametrize("name", ["data", "early"])
def test_ascent_of_what_the_prior_makes_possible_ends_at_the_best_of_it(name):
    """The energy reads the denoised plan, which lies on the plane of possible plans: there is its start's optimum."""
    whole = problem("linear")
    read = lambda start, x: pinned(whole.problem.denoise, whole.problem.pins(start))(x, jnp.asarray(CLEAN))
    x = jax.jit(jax.vmap(read))(whole.starts, draws(LINEAR[name], "linear").x[-1])
    np.testing.assert_allclose(jax.vmap(whole.gold)(x), whole.best, atol=0.03)


def test_without_a_step_from_the_prior_the_plans_are_those_of_the_prior():
    prior = draws(Prior(), "linear").x[0]
    for method in (LINEAR["early"], AscentFrom((0, 1), begin=from_prior)):
        np.testing.assert_allclose(draws(method, "linear").x[0], prior, atol=1e-6)


def test_renoised_draws_of_the_prior_have_its_distribution():
    """Against exact draws: means and deviations of plans on the line, shares of cells on the grid."""
    for name, method in {"linear": AscentRenoised((0,), tau=1.0), "grid": AscentRenoised((0,))}.items():
        whole, copies = problem(name), 400
        x = np.asarray(draws(method, name, copies).x[0]).reshape(len(whole.starts), copies, -1)
        draw = jax.vmap(jax.vmap(whole.draw, (0, None)), (None, 0))
        exact = np.asarray(draw(jax.random.split(jax.random.key(1), 4000), whole.starts)).reshape(len(x), 4000, -1)
        std = exact.std(axis=1)
        error = np.abs(x.mean(axis=1) - exact.mean(axis=1))
        assert (error <= 4.5 * std * np.sqrt(1 / copies + 1 / 4000) + 0.02).all()
        np.testing.assert_allclose(x.std(axis=1), std, atol=0.15)  # 32 steps lose a tenth


def test_a_window_begins_near_its_start_and_is_one_of_the_data():
    whole = problem("linear").problem
    data = np.asarray(whole.data)
    draw = jax.jit(jax.vmap(from_data, (0, None, None)))
    for start in problem("linear").starts:
        x = np.asarray(draw(jax.random.split(jax.random.key(0), 200), whole, start))
        gap = np.abs(x[:, None, 1:] - data[None, :, 1:]).max(axis=(2, 3))
        assert (gap.min(axis=1) == 0).all()  # all rows but the first
        here = np.asarray(whole.pins(start).value)[0, :2]
        far = np.linalg.norm(data[:, 0, :2] - here[None], axis=1)
        chosen = far[gap.argmin(axis=1)]
        assert (chosen <= far.min() + 0.5).all() and chosen.mean() < 0.2 + 2 * far.min()


def test_conservative_ascent_begins_at_the_best_data_near_the_start():
    """By brute force over the windows, one by one: a standard deviation of score is worth 0.14 of distance."""
    whole, scores = problem("linear"), []
    data = np.asarray(whole.problem.data, np.float64)
    for window in whole.problem.data:
        scores.append(float(whole.problem.clean.score(window)))
    for start in whole.starts:
        x = np.asarray(BestData(clean)(jax.random.key(0), whole.problem, start))
        here = np.asarray(whole.problem.pins(start).value, np.float64)[0, :2]
        worth = [score - np.sum((window[0, :2] - here) ** 2) / 0.02 for window, score in zip(data, scores, strict=True)]
        np.testing.assert_array_equal(x[1:], whole.problem.data[int(np.argmax(worth)), 1:])
        np.testing.assert_allclose(x[0, :2], here, atol=1e-6)
    steep = replace(whole.problem.clean, std=whole.problem.clean.std / 1e6)  # then the score alone decides
    best = BestData(clean)(jax.random.key(0), replace(whole.problem, clean=steep), whole.starts[0])
    np.testing.assert_array_equal(best[1:], whole.problem.data[int(np.argmax(scores)), 1:])


def test_conservative_ascent_takes_the_steps_of_the_published_training():
    """On a plane each step is 0.05 sqrt(hd) times the slope of what the network says, in entries that are free."""
    whole = problem("linear")
    slope = jax.random.normal(jax.random.key(3), whole.problem.shape)
    plane = Learned((), jnp.zeros(()), jnp.ones(()), lambda params, x, level: jnp.sum(slope * x), "regression")
    method = AscentConservative((0, 1, 7, 50))
    part = replace(whole.problem, conservative=plane)
    x = jax.jit(method.__call__)(jax.random.key(0), part, whole.starts, jnp.asarray(method.strengths, jnp.float32)).x
    free = np.ones(whole.problem.shape, bool)
    free[0, :2] = False
    step = 0.05 * np.sqrt(free.size) * np.where(free, slope, 0.0)
    for i, k in enumerate(method.strengths):
        np.testing.assert_allclose(x[i], np.asarray(x[0]) + k * step[None], rtol=1e-3, atol=1e-3)


def test_windows_in_the_grid_are_behaviour_from_the_start():
    whole = problem("grid")
    draw = jax.jit(jax.vmap(from_data, (0, None, None)))
    for start in whole.starts:
        x = draw(jax.random.split(jax.random.key(0), 400), whole.problem, start)
        here = whole.problem.codec.cell(start)
        own = np.asarray(whole.problem.data)[np.asarray(whole.problem.data[:, 0, here]) == 1]
        assert bool((x[:, 0, here] == 1).all())
        np.testing.assert_allclose(x.mean(axis=0), own.mean(axis=0), atol=4.5 * 0.5 / np.sqrt(400))


def test_ascent_stops_before_the_first_plan_that_the_prior_finds_odd():
    """Step by step, against the run that does not stop. The Gaussian's own score says how odd a plan is."""
    whole, method = problem("linear"), AscentEarly((0.0, 1.0, 1.5, 2.5), proxy=clean, rate=0.1, steps=30)
    distribution, mask = (
        whole.problem.denoise.distribution,
        np.asarray(whole.problem.pins(whole.starts[0]).mask).ravel(),
    )
    free, size = ~mask, mask.size
    covariance, mean = np.asarray(distribution.covariance, np.float64), np.asarray(distribution.mean, np.float64)

    def odd(x: np.ndarray) -> np.ndarray:
        """|score| * tau of the distribution of the free entries given the others, noised to tau."""
        gain = covariance[np.ix_(free, mask)] @ np.linalg.inv(
            covariance[np.ix_(mask, mask)] + 1e-6 * np.eye(mask.sum())
        )
        given = covariance[np.ix_(free, free)] - gain @ covariance[np.ix_(mask, free)]
        flat = x.reshape(*x.shape[:-2], -1)
        gap = flat[..., free] - mean[free] - (flat[..., mask] - mean[mask]) @ gain.T
        score = np.linalg.solve(given + method.tau**2 * np.eye(free.sum()), gap.reshape(-1, free.sum()).T).T
        return method.tau * np.sqrt((score**2).sum(axis=1) / size).reshape(flat.shape[:-1])

    path = np.asarray(draws(AscentFrom(tuple(range(31)), "all", clean, from_prior, 0.1), "linear", 4).x)  # [31 n h d]
    ratio = odd(path) / np.median(odd(np.asarray(whole.problem.data)[:256]))
    kept = np.asarray(draws(method, "linear", 4).x)
    taken = []
    for i, patience in enumerate(method.strengths):
        for n in range(path.shape[1]):
            late = ratio[1:, n] > patience
            stop = int(late.argmax()) if late.any() else 30
            taken.append(stop)
            np.testing.assert_allclose(kept[i, n], path[stop, n], atol=1e-3)
    assert len({*taken}) > 4  # plans stop at different steps
