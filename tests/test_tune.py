"""Choosing a scale: rules on curves with known answers, an exact problem solved by sampling, and the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.experiment import scale_rules
from diffplan.experiment.presets import PRESETS
from diffplan.experiment.scale_rules import Choice
from diffplan.experiment.settings import ExperimentSettings
from diffplan.experiment.tune import TuneSettings, fits, tune
from diffplan.guide import guided
from diffplan.noise import karras
from diffplan.oracle.gaussian import Gaussian
from diffplan.planner.presets import settings_of
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.samplers import Sampler, SamplerSettings, sample
from diffplan.settings import ConfigError
from diffplan.task import Task
from diffplan.types import Strengths
from tests.commands import refused, run

SCALES = np.asarray([0.0, 1, 2, 4, 8, 16])


def seeds(means, noise: float = 0.0, count: int = 6) -> np.ndarray:
    """A sweep with these means and noise that is the same at every scale, plus a tenth that is not."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(1, count)), rng.normal(size=(len(means), count))
    return np.asarray(means, float)[:, None] + noise * (shared + 0.1 * own)


# -- the rules --


def test_the_knee_of_a_bent_line_is_its_bend():
    pressure, gain = [0, 1, 2, 3, 4, 5], [0, 2, 4, 4.5, 5, 5.5]
    assert scale_rules.knee(SCALES, seeds(pressure), seeds(gain))[:3] == (2, 2, 2)
    # of gain = sqrt(pressure) on [0, 16], the tangent is parallel to the chord at a quarter of the range
    assert scale_rules.knee(SCALES, seeds(SCALES), seeds(np.sqrt(SCALES))).scale == 4
    assert scale_rules.knee(SCALES, seeds([0, 1, 2, 3, np.nan, 9]), seeds([0, 2, 2.2, 2.4, 9, 9])).scale == 1
    for gain in (SCALES**2, 0 * SCALES, -SCALES):
        result = scale_rules.knee(SCALES, seeds(SCALES), seeds(gain))
        assert np.isnan(result.scale) and "no bend" in result.reason


def test_the_best_scale_is_that_of_the_highest_mean_and_the_weakest_of_equals():
    result = scale_rules.best(SCALES, seeds([1, 2, 4, 4, 3, 1]))
    assert result[:3] == (SCALES[2],) * 3
    near = scale_rules.best(SCALES, seeds([1, 2, 4, 4.1, 3, 1], noise=2.0))
    assert near.low <= near.scale <= near.high and near.low < near.high  # these seeds cannot tell
    assert scale_rules.best(SCALES, seeds([1, 2, np.nan, 3, 9, np.nan])).scale == SCALES[4]
    assert np.isnan(scale_rules.best(SCALES, np.full((6, 2), np.nan)).scale)


def test_the_largest_scale_not_below_the_best_goes_by_paired_differences():
    means = [1, 2, 3, 3, 2.5, 2.9]
    result = scale_rules.largest_not_below_best(SCALES, seeds(means, noise=0.5))
    assert result.scale == 4 and 2 <= result.low <= 4 == result.high  # 2.5 is below, 2.9 comes back too late
    exact = seeds([1, 2, 3, 2.999, 3, 3])
    assert scale_rules.largest_not_below_best(SCALES, exact).scale == 2  # without noise nothing passes
    alone = np.random.default_rng(0).normal(size=(6, 6)) * 3 + np.asarray(means)[:, None]
    assert scale_rules.largest_not_below_best(SCALES, alone).scale >= 4  # unpaired noise hides what pairs show


def test_the_paired_test_rejects_one_time_in_twenty():
    """Of two equal scales the stronger seems below the weaker in 5 % of sweeps whose best is the weaker."""
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(3000, 2, 5))
    first = [returns for returns in draws if returns[0].mean() > returns[1].mean()]
    rejected = sum(not scale_rules._limits(returns[:1] - returns[1:])[0] <= 0 for returns in first)
    assert rejected / len(draws) == pytest.approx(0.05, abs=0.015)


def test_missing_returns_count_as_below_and_one_seed_is_refused():
    returns = seeds([1, 2, 3, 3, 3, 3], noise=0.1)
    returns[4, 2] = np.nan
    assert scale_rules.largest_not_below_best(SCALES, returns).scale < 8
    assert np.isnan(scale_rules.largest_not_below_best(SCALES, np.full((6, 2), np.nan)).scale)
    with pytest.raises(ValueError, match="returns of 1 seeds: must be of at least 2"):
        scale_rules.largest_not_below_best(SCALES, returns[:, :1])


def test_the_largest_valid_scale_is_sure_of_itself_and_forgives_disagreement_below():
    sure = lambda shares: scale_rules.largest_valid(SCALES, np.asarray(shares)).scale
    none, few, many = [0.0] * 4, [0.0, 0.06, 0.0, 0.0], [0.1, 0.12, 0.1, 0.11]
    assert sure([none, none, none, few, many, many]) == 2  # mean 0.015 <= 0.02, but its limit is 0.05
    assert sure([few, none, none, none, many, none]) == 4  # disagreement at 0 is forgiven, harm at 8 is not
    assert np.isnan(sure([many, none, none, none, none, none]))
    assert sure([none, none, [np.nan] * 4, none, none, none]) == 1
    assert scale_rules.largest_valid(SCALES, np.asarray([none] * 6), allowed=0.0).scale == 16


def test_label_free_stops_where_plans_leave_the_data():
    distance = seeds([0.5, 0.5, 0.6, 0.7, 0.9, 0.6], noise=0.01)
    assert scale_rules.label_free(SCALES, distance, 0.75)[:3] == (4, 4, 4)
    wavering = scale_rules.label_free(SCALES, seeds([0.5, 0.5, 0.6, 0.7, 0.9, 0.6], noise=0.2), 0.7)
    assert wavering.low < wavering.high
    assert np.isnan(scale_rules.label_free(SCALES, distance, 0.4).scale)
    distance[1, 0] = np.nan
    assert scale_rules.label_free(SCALES, distance, 0.75).scale == 0


def test_sweeps_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="must be strictly increasing"):
        scale_rules.label_free(SCALES[::-1].copy(), seeds(SCALES), 1.0)


def choice(scale: float) -> Choice:
    return Choice(scale, scale, scale, "")


@pytest.mark.parametrize(
    ("returns", "valid", "expected"),
    [(3.0, 8.0, "not_below_best"), (8.0, 3.0, "valid"), (np.nan, 3.0, "label_free"), (3.0, np.nan, "valid")],
)
def test_recommend(returns, valid, expected):
    result = {
        "knee": choice(50.0),
        "not_below_best": choice(returns),
        "valid": choice(valid),
        "label_free": choice(1.0),
    }
    assert scale_rules.recommend(result)[0] == expected
    assert scale_rules.recommend({"label_free": choice(1.0)})[0] == "label_free"


# -- calibration --


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_calibrate_finds_the_root_of_a_noisy_curve(sign):
    noise = np.random.default_rng(0).normal(size=200)
    noise -= noise.mean()
    result = scale_rules.calibrate(
        lambda w: sign * (w[:, None] ** 2 / 2 + noise[None] * w[:, None]), sign * 3.0, 0.01, 1e3
    )
    assert result.scale == pytest.approx(np.sqrt(6), rel=1e-3) and result.value == pytest.approx(sign * 3.0, rel=1e-3)
    assert result.error == pytest.approx(result.scale * noise.std(ddof=1) / np.sqrt(200), rel=1e-6)


def test_calibrate_survives_divergence_and_jumps():
    step = lambda w: np.where(w[:, None] > 5, np.nan, w[:, None] * np.ones(3))
    assert 4.8 < scale_rules.calibrate(step, 100.0, 0.1, 1e3).scale <= 5
    assert scale_rules.calibrate(lambda w: w[:, None] * np.ones(3), 1.0, 1.0, 1e3).scale == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("target", "low", "high"), [(5.0, 1.0, 2.0), (0.1, 1.0, 2.0), (1.0, 0.0, 2.0), (1.0, 2.0, 1.0)]
)
def test_calibrate_says_what_cannot_be_reached(target, low, high):
    ends = "0.5 at scale 1 and 2 at scale 2" if 0 < low < high else "must be 0 < low < high"
    with pytest.raises(ValueError, match=ends):
        scale_rules.calibrate(lambda w: w[:, None] ** 2 / 2 * np.ones(4), target, low, high)


# -- an exact problem --

SHAPE = (3, 2)
DIRECTION = jnp.asarray([[1.0, 0.5], [0.0, -0.5], [1.0, 1.0]])
VARIANCES = jnp.asarray([0.4, 0.6, 0.3, 0.8, 0.5, 0.7])
V = float(jnp.sum(DIRECTION.ravel() ** 2 * VARIANCES))  # of the reward c.x under the prior
GRID = 2.0 ** np.arange(-2, 2.5, 0.5)


def sweep(steps: int, unit: float = 1.0):
    """(proxy, returns, path KL), each [scale, seed], of the reward unit * c.x, guided exactly.

    return = c.x - (c.x)^2 / (2 V): at scale w of c.x the mean of c.x is w V. So the return peaks at w = 1.
    """
    prior = Gaussian.of(jnp.zeros(6), jnp.diag(VARIANCES), SHAPE)
    sigmas = karras(steps, 0.02, 20.0)

    def one(weight, key):
        denoise = guided(prior.denoise, prior.energy(unit * DIRECTION), Strengths(weight, jnp.ones(())))
        x, info = sample(key, denoise, Sampler(sigmas, SHAPE), reference=prior.denoise)
        r = jnp.sum(x * DIRECTION)
        return unit * r, r - r**2 / (2 * V), info.path_kl

    keys = jax.random.split(jax.random.key(0), (8, 100))
    plans = jax.vmap(jax.vmap(jax.vmap(one, (None, 0)), (None, 0)), (0, None))
    return tuple(np.asarray(value, float).mean(axis=2) for value in jax.jit(plans)(jnp.asarray(GRID / unit), keys))


@pytest.fixture(scope="module")
def coarse():
    return sweep(16)


@pytest.fixture(scope="module")
def fine():
    return sweep(64)


def test_a_scale_chosen_at_16_steps_holds_at_64(coarse, fine):
    (_, returns, _), (_, finer, _) = coarse, fine
    chosen = scale_rules.largest_not_below_best(GRID, returns)
    assert chosen.low <= 1.0 <= chosen.high and chosen.high / chosen.low <= 2
    at_64 = scale_rules.largest_not_below_best(GRID, finer)
    assert at_64.low <= 1.0 <= at_64.high and at_64.scale >= chosen.scale  # it passes for the best there too
    there = finer[GRID == chosen.scale][0]
    closed_form = chosen.scale * V - (1 + chosen.scale**2 * V) / 2
    assert closed_form == pytest.approx(np.max(GRID * V - (1 + GRID**2 * V) / 2))
    assert abs(there.mean() - closed_form) < 4 * there.std(ddof=1) / np.sqrt(there.size)


def test_the_path_kl_of_few_steps_is_a_loose_bound(coarse, fine):
    """Of the exact guide, whose KL is w^2 V / 2: the fewer the steps, the further above it."""
    exact = GRID**2 * V / 2
    few, more = coarse[2].mean(axis=1) / exact, fine[2].mean(axis=1) / exact
    assert (1.5 < few).all() and (few < 2).all() and (1.05 < more).all() and (more < 1.2).all()


def test_twice_the_reward_is_half_the_scale(coarse):
    """And the same plans: so scale times the standard deviation is what carries over."""
    _, returns, path_kl = coarse
    _, doubled_returns, doubled_kl = sweep(16, unit=2.0)
    np.testing.assert_allclose(doubled_kl, path_kl, rtol=1e-3)
    chosen = scale_rules.largest_not_below_best(GRID, returns).scale
    doubled = scale_rules.largest_not_below_best(GRID / 2, doubled_returns).scale
    assert doubled == chosen / 2


def test_calibrated_path_kl_of_the_exact_guide():
    """w^2 V / 2 = 2 nats at w = 2 / sqrt(V); the path KL of 64 steps is up to a tenth early."""
    prior = Gaussian.of(jnp.zeros(6), jnp.diag(VARIANCES), SHAPE)
    keys = jax.random.split(jax.random.key(1), 200)

    def path_kl(weight, key):
        denoise = guided(prior.denoise, prior.energy(DIRECTION), Strengths(weight, jnp.ones(())))
        return sample(key, denoise, Sampler(karras(64, 0.02, 20.0), SHAPE), reference=prior.denoise)[1].path_kl

    call = jax.jit(jax.vmap(jax.vmap(path_kl, (None, 0)), (0, None)))
    result = scale_rules.calibrate(lambda w: np.asarray(call(jnp.asarray(w, jnp.float32), keys)), 2.0, 0.1, 10.0)
    assert 0.9 < result.scale / (2 / np.sqrt(V)) < 1 and result.value == pytest.approx(2.0, rel=1e-3)


# -- the command --


@pytest.mark.slow
def test_the_command_chooses_and_meets_a_budget(tmp_path):
    folder = str(tmp_path / "run")
    said = run("tune", "linear-point", "--preset", "debug", "--run", folder, "--points", "4", "--high", "30")
    content = json.loads((tmp_path / "run" / "scale.json").read_text())
    assert all(name in said for name in content["choices"]) and content["returns"] == "delivered"
    assert content["scale"] == content["choices"][content["rule"]]["scale"]
    assert content["units"]["steps"] == content["planner"]["sampler"]["steps"] == 6
    assert not (tmp_path / "run" / "reward" / "classifier").exists()  # what the method does not need is not learned

    again = run("tune", "--run", folder, "--points", "4", "--high", "30", "--nats", "2")
    content = json.loads((tmp_path / "run" / "scale.json").read_text())
    assert "upper bound of the marginal KL" in again and "/prior:" not in again
    assert content["scale_per_unit_of_reward"] == pytest.approx(content["scale"] / content["units"]["return_std"])
    assert content["measured"]["value"] == pytest.approx(2.0, rel=0.1) and 0.3 < content["scale"] < 30


def test_what_cannot_be_tuned_is_refused_before_anything_is_made(tmp_path):
    place = ("--preset", "debug", "--run", str(tmp_path / "run"))
    for flags, words in (
        (("--points", "2"), "points=2: must be between 3 and"),
        (("--seeds", "1"), "seeds=1: must be at least 2, to tell scales apart"),
        (("--nats", "1", "--sampler.rule", "heun"), "sampler.rule='heun': must be one of"),
        (("--method", "ascent"), "method='ascent': must be one of guided, guided_classifier, guided_dps, guided_raw"),
    ):
        assert refused("tune", "linear-point", *place, *flags).startswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["guided", "guided_classifier", "guided_dps"])
def test_without_a_reward_there_is_nothing_to_tune(tmp_path, method):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(2, 200, 2)).astype(np.float32)
    task = Task.from_arrays(steps[0].cumsum(axis=0), steps[1], timeouts=np.arange(1, 201) % 50 == 0, name="walks")
    with pytest.raises(ConfigError, match=f"^method='{method}': cannot be tuned: task walks has no reward$"):
        tune(Run(tmp_path), task, settings_of("debug"), PRESETS["debug"], TuneSettings(method=method))
    assert not (tmp_path / "prior").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"low": 3.0, "high": 1.0}, r"low=3.0: must be below high \(1.0\)"),
        ({"points": 2}, "points=2: must be between 3 and"),
        ({"nats": 0.0}, "nats=0.0: must be more than 0"),
        ({"nats": 1.0, "typicality": 0.9}, "typicality=0.9: must be left out where nats is given"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        TuneSettings(**settings)


def test_settings_that_cannot_tune_an_experiment_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"^sampler.rule='heun': must be one of .* for nats"):
        fits(TuneSettings(nats=1.0), PlannerSettings(sampler=SamplerSettings("heun")), ExperimentSettings())
    with pytest.raises(ConfigError, match=r"^seeds=1: must be at least 2"):
        fits(TuneSettings(), PlannerSettings(), ExperimentSettings(seeds=1))
    fits(TuneSettings(nats=1.0), PlannerSettings(), ExperimentSettings(seeds=1))
