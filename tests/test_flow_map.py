"""Flow maps against Gaussians, whose ODE is solved in closed form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffplan.denoise import pinned
from diffplan.flow_map import FewSteps, few_steps, jump, posterior
from diffplan.learn import flow_map
from diffplan.learn.chain import fit as fit_chain
from diffplan.learn.flow_map import FlowMapSettings
from diffplan.learn.train import TrainSettings
from diffplan.noise import NoiseSettings, karras
from diffplan.samplers import Sampler, ddim, sample
from diffplan.settings import ConfigError
from diffplan.types import Pins
from tests.test_build import builder

SHAPE = (2, 2)
NONE = Pins(jnp.zeros(SHAPE, bool), jnp.zeros(SHAPE))
MEAN = jnp.array([[1.0, -2.0], [0.5, 0.0]])


def gaussian(std):
    """The map of N(MEAN, std^2): deviations from the mean shrink as the whole distribution does."""

    def flow(x, sigma, to):
        top = jnp.max(sigma)
        there = MEAN + (x - MEAN) * jnp.sqrt((std**2 + to**2) / (std**2 + top**2))
        mean = (there - to / top * x) / jnp.where(to < top, 1 - to / top, 1.0)
        return jnp.where(sigma > 0, jnp.where(to < top, mean, denoise(std)(x, sigma)), x)

    return flow


def denoise(std):
    """The denoiser of the same."""
    return lambda x, sigma: (std**2 * x + sigma**2 * MEAN) / (std**2 + sigma**2)


def plans(how, flow, count=4096, **guide):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.jit(jax.vmap(lambda key: few_steps(key, flow, how, NONE, **guide)))(keys)


def test_a_jump_is_the_course_of_the_ode():
    """The closed form and ten thousand small steps of another rule end at the same plan, at every level below."""
    x = 3.0 * jax.random.normal(jax.random.key(1), SHAPE) + MEAN
    sigmas = jnp.geomspace(3.0, 0.5, 10_000)

    def step(x, level):
        sigma, below = level
        return x + (below - sigma) * (x - denoise(0.7)(x, sigma)) / sigma, None

    expected = jax.lax.scan(step, x, (sigmas[:-1], sigmas[1:]))[0]
    np.testing.assert_allclose(jump(gaussian(0.7), x, sigmas[0], sigmas[-1] / sigmas[0]), expected, atol=2e-3)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("renewed", [0.0, 0.3, 1.0])
def test_the_exact_map_draws_the_prior_in_any_number_of_steps(levels, renewed):
    x = plans(FewSteps(karras(levels, 0.05, 50.0), SHAPE, renewed), gaussian(0.7))
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(x.std(axis=0), 0.7, rtol=0.05)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("renewed", [0.0, 0.5])
def test_pushes_tilt_a_unit_gaussian_by_as_much_as_the_reward_asks(levels, renewed):
    """The tilt of N(m, 1) by exp(w c x) is N(m + w c, 1); the part above the first level is missing: 1 / 100."""
    slope, how = jnp.array([[1.0, 0.0], [-0.5, 0.0]]), FewSteps(karras(levels, 0.02, 100.0), SHAPE, renewed)
    energy = lambda x, sigma: jnp.sum(slope * x / (1 + sigma**2))  # log E exp(w c x0) / w, up to constants
    x = plans(how, gaussian(1.0), scale=jnp.asarray(3.0), energy=energy)
    np.testing.assert_allclose(x.mean(axis=0), MEAN + 3 * slope, atol=0.08)
    np.testing.assert_allclose(x.std(axis=0), 1.0, rtol=0.05)


def test_a_warm_start_from_the_prior_draws_the_prior():
    """A draw of N(m, s^2), noised, has the distribution of the level; started at its mean, plans would be narrower."""
    clean = MEAN[None] + 0.7 * jax.random.normal(jax.random.key(4), (4096, *SHAPE))
    how, keys = FewSteps(karras(2, 0.05, 0.7), SHAPE), jax.random.split(jax.random.key(5), 4096)
    draw = jax.jit(jax.vmap(lambda key, warm: few_steps(key, gaussian(0.7), how, NONE, warm=warm)))
    x, narrow = draw(keys, clean), draw(keys, jnp.broadcast_to(MEAN, clean.shape))
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=0.05)
    np.testing.assert_allclose(x.std(axis=0), 0.7, rtol=0.05)
    assert (narrow.std(axis=0) < 0.6).all()


def test_known_entries_stay_and_scale_0_is_the_map_alone():
    pins = Pins(jnp.array([[True, True], [False, False]]), jnp.full(SHAPE, 7.0))
    energy = lambda x, sigma: jnp.sum(x**2)
    one = lambda **guide: few_steps(
        jax.random.key(0), gaussian(1.0), FewSteps(karras(3, 0.1, 10.0), SHAPE), pins, **guide
    )
    alone, none, pushed = (
        one(),
        one(scale=jnp.asarray(0.0), energy=energy),
        one(scale=jnp.asarray(1.0), energy=energy),
    )
    np.testing.assert_array_equal(alone, none)
    assert (np.asarray(pushed)[0] == 7).all() and np.abs(pushed - alone)[1].min() > 1e-3


@pytest.mark.parametrize("known", [False, True])
def test_draws_of_the_posterior_give_the_exact_energy_of_a_unit_gaussian(monkeypatch, known):
    """log E exp(w r) of a linear reward is linear in x plus half the variance of w r: its value and its gradient."""
    monkeypatch.setattr("tests.test_flow_map.MEAN", jnp.zeros(SHAPE))
    level, weight = jnp.full(SHAPE, 1.5).at[0].set(0.0 if known else 1.5), 1.2
    slope, x = jnp.array([[1.0, 0.0], [0.5, -0.5]]), jnp.array([[0.3, -1.0], [2.0, 0.1]])
    noise = jax.random.normal(jax.random.key(2), (50_000, *SHAPE))
    energy = posterior(gaussian(1.0), lambda x: jnp.sum(slope * x), noise, jnp.asarray(weight))
    value, gradient = jax.value_and_grad(energy)(x, level)
    variance = level**2 / (1 + level**2)
    exact = weight * jnp.sum(slope * x / (1 + level**2)) + weight**2 * jnp.sum(slope**2 * variance) / 2
    assert value == pytest.approx(float(exact), abs=0.02)
    np.testing.assert_allclose(gradient, weight * slope / (1 + level**2), atol=0.02)


def test_levels_are_moved_within_their_neighbours():
    grids = np.stack([karras(9, 0.02, 10.0, shift=shift) for shift in (-0.5, 0.0, 0.49)])
    places = grids ** (1 / 7)  # even, and moved by half a step between the ends
    step = (places[1, -1] - places[1, 0]) / 8
    np.testing.assert_allclose(np.diff(places[1]), step, rtol=1e-3)
    np.testing.assert_allclose((places[0] - places[1])[1:-1], -step / 2, rtol=1e-2)
    np.testing.assert_allclose(grids[:, [0, -1]], [[10.0, 0.02]] * 3, rtol=1e-4)
    assert (np.diff(grids, axis=1) < 0).all() and (np.diff(grids[:, 1:-1], axis=0) < 0).all()


def test_answers_are_where_the_ode_of_the_prior_goes(tmp_path):
    """Of a Gaussian prior, by its closed form; neighbours ask for the denoiser itself."""
    windows = builder(tmp_path).data.train
    shape = windows.horizon, windows.codec.width
    teacher = Partial(lambda x, sigma: x / (1 + sigma**2))
    config = FlowMapSettings(courses=8, levels=400, goal_fraction=0.0)
    data = flow_map.courses(jax.random.key(0), teacher, windows, NoiseSettings(0.02, 10.0), config)
    assert data.x.shape == (8, 401, *shape) and data.sigmas.shape == (8, 401)
    keys = jax.random.split(jax.random.key(1), 300)
    x, level, sigma, to, answer = jax.vmap(lambda key: flow_map.example(key, data))(keys)
    at = sigma[:, None, None]
    np.testing.assert_array_equal((level == 0).all(axis=0), data.mask[0])
    ratio = np.where(to < sigma, to / sigma, 0)[:, None, None]
    there = x * jnp.sqrt((1 + to**2) / (1 + sigma**2))[:, None, None]
    exact = np.where((to < sigma)[:, None, None], (there - ratio * x) / (1 - ratio), x / (1 + at**2))
    wrong = np.abs(exact - answer) * (np.asarray(level) > 0)
    assert wrong.max() < 0.02
    own = np.asarray(to == sigma)
    assert 0.15 < own.mean() < 0.35 and 0.2 < np.mean(to == 0) < 0.4


def test_memory_bounds_the_plans_of_the_prior(tmp_path, monkeypatch):
    windows = builder(tmp_path).data.train
    monkeypatch.setattr(flow_map, "MOST", 3 * 5 * windows.horizon * windows.codec.width)
    config = FlowMapSettings(courses=1000, levels=4)
    data = flow_map.courses(jax.random.key(0), Partial(lambda x, sigma: x), windows, NoiseSettings(0.1, 1.0), config)
    assert len(data.x) == 3


@pytest.mark.slow
def test_a_distilled_map_draws_what_the_prior_draws(tmp_path):
    """A prior of a known Gaussian: in one, two and four evaluations, spread and mean of all entries not pinned."""
    windows = builder(tmp_path).data.train
    shape, noise = (windows.horizon, windows.codec.width), NoiseSettings(0.05, 10.0)
    teacher = Partial(lambda x, sigma: (0.25 * x + 0.5 * sigma**2) / (0.25 + sigma**2))
    config = FlowMapSettings(TrainSettings(600, 64, "muon", 2e-2), courses=2048, levels=16, width=32, depth=1)
    model = flow_map.fit(windows, teacher, config, noise)
    x0 = windows.at(windows.first[0])
    pins = Pins(flow_map.pin_mask(windows, jnp.asarray(False)), x0)
    free = ~np.asarray(pins.mask)
    for levels in (1, 2, 4):
        how = FewSteps(karras(levels, noise.low, noise.high), shape)
        draw = jax.jit(jax.vmap(lambda key, how=how: few_steps(key, model, how, pins)))
        x = np.asarray(draw(jax.random.split(jax.random.key(3), 1024)))[:, free]
        assert abs(x.mean() - 0.5) < 0.05 and x.std() == pytest.approx(0.5, rel=0.15)
    sampler = Sampler(karras(16, noise.low, noise.high), shape, ddim)
    key = jax.random.key(4)
    one, own = (sample(key, pinned(each, pins), sampler)[0] for each in (teacher, model))
    assert np.abs(one - own)[free].mean() < 0.1


@pytest.mark.parametrize("chained", [False, True])
def test_a_map_without_a_level_is_a_denoiser(tmp_path, chained):
    windows = builder(tmp_path).data.train
    config, chain = FlowMapSettings(width=8, depth=1), fit_chain(windows, 12, 4) if chained else None
    model = flow_map.untrained(config, (windows.horizon, windows.codec.width), windows.codec.observation_dim, chain)
    other = jax.tree.map(lambda a: a + 0.1 * np.random.default_rng(0).normal(size=a.shape), model.base.params)
    model = replace(model, base=replace(model.base, params=other))
    x = windows.at(windows.first[0])
    np.testing.assert_allclose(model(x, jnp.ones(())), model(x, jnp.ones(()), jnp.ones(())), rtol=1e-6)
    assert np.abs(model(x, jnp.ones(())) - model(x, jnp.ones(()), jnp.zeros(()))).max() > 1e-4
    pinned_rows = jnp.where(jnp.arange(len(x))[:, None] == 0, 0.0, jnp.ones_like(x))
    np.testing.assert_allclose(model(x, pinned_rows)[0], x[0], rtol=1e-6)


def test_a_map_that_is_read_back_draws_no_plans_and_one_without_a_chain_says_so(tmp_path):
    windows, noise, short = builder(tmp_path).data.train, NoiseSettings(0.1, 1.0), TrainSettings(2, 4, chunk=2)

    def teacher(x, sigma):
        raise AssertionError("drawn")

    class Finished:
        def restore(self, state, total):
            return state._replace(step=jnp.asarray(total))

        def record(self, step, losses, state, due):
            raise AssertionError("trained")

    model = flow_map.fit(windows, teacher, FlowMapSettings(short, width=8, depth=1), noise, Finished())
    assert model(windows.at(windows.first[0]), jnp.ones(())).shape == (windows.horizon, windows.codec.width)
    with pytest.raises(ConfigError, match=r"flow_map\.network='chain': must be rows: the prior has no Markov chain"):
        flow_map.fit(windows, teacher, FlowMapSettings(short, "chain"), noise)
