"""The study of equal proxy: its reward models against brute force, its ways of planning against enumeration."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.methods import Prior
from diffplan.oracle.tabular import markov
from diffplan.studies import frame
from diffplan.studies.drawing import draw
from diffplan.studies.frame import StudySettings
from diffplan.studies.matched_proxy import figure, model, plans, study
from diffplan.studies.matched_proxy.model import Labels

TWO = Labels(np.array([[3.0, 1.0], [2.0, 2.0], [4.0, 0.0]]), np.array([2.5, -1.0, 1.5]), 2.0)
"""Three labels of paths through two cells; the first cell is visited more."""


@pytest.fixture(scope="module")
def posterior():
    """(mean, covariance) of the gold of two cells given the labels, by summing over a grid of golds."""
    axis = np.linspace(-6, 6, 601)
    gold = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    fit = ((gold @ TWO.visits.T - TWO.returns) ** 2).sum(axis=1) / TWO.noise
    weight = np.exp(-(fit + (gold**2).sum(axis=1)) / 2)
    weight /= weight.sum()
    mean = weight @ gold
    return mean, np.einsum("n,ni,nj->ij", weight, gold - mean, gold - mean)


def test_the_penalty_one_gives_the_posterior_mean(posterior):
    mean, covariance = posterior
    np.testing.assert_allclose(model.ridge(TWO, 1.0), mean, atol=1e-6)
    np.testing.assert_allclose(model.covariance(TWO), covariance, atol=1e-6)
    first = TWO.first(1)  # by hand: I - ff' / (s^2 + f'f)
    np.testing.assert_allclose(model.covariance(first), [[0.25, -0.25], [-0.25, 11 / 12]])
    assert model.uncertain(first).tolist() == [False, True]


@pytest.mark.parametrize("penalty", [0.05, 0.5, 1.0, 4.0])
def test_the_expected_error_of_a_plan_is_its_covariance_with_the_proxy(penalty, posterior):
    """(171), with the posterior summed on a grid."""
    mean, covariance = posterior
    weights, change = model.ridge(TWO, penalty), np.array([-1.0, 1.0])
    predicted = -(1 - penalty) * change @ covariance @ weights
    assert change @ mean - change @ weights == pytest.approx(predicted, abs=1e-6)


def test_the_best_plan_by_the_proxy_disappoints_unless_the_penalty_is_right():
    """The plan that the proxy likes most earns its proxy, on average over golds, under the posterior mean alone."""
    rng, cells = np.random.default_rng(0), np.array([8.0, 3.0, 1.0, 0.5])
    errors = {0.02: [], 1.0: [], 10.0: []}
    for _ in range(3000):
        gold = rng.normal(size=4)
        labels = model.label(rng, rng.poisson(cells / 4, size=(12, 4)).astype(float), gold, 9.0)
        for penalty, error in errors.items():
            weights = model.ridge(labels, penalty)
            best = np.argmax(weights)
            error.append(gold[best] - weights[best])
    low, right, high = (np.mean(error) for error in errors.values())
    assert abs(right) < 4 * np.std(errors[1.0]) / np.sqrt(3000) and low < -0.3 and high > 0.1


def test_the_error_on_held_out_labels_is_that_of_fitting_without_each():
    rng = np.random.default_rng(1)
    labels = model.label(rng, rng.poisson(1.0, size=(15, 5)).astype(float), rng.normal(size=5), 1.0)
    penalties = np.array([1e-3, 0.1, 1.0, 10.0, 1e3])

    def error(penalty):
        kept = [np.delete(np.arange(15), i) for i in range(15)]
        fits = [model.ridge(Labels(labels.visits[rows], labels.returns[rows], 1.0), penalty) for rows in kept]
        return np.mean([(labels.returns[i] - labels.visits[i] @ fits[i]) ** 2 for i in range(15)])

    assert model.held_out(labels, penalties) == min(penalties, key=error)


def test_an_ensemble_of_one_label_is_its_model():
    one = TWO.first(1)
    np.testing.assert_allclose(model.ensemble(np.random.default_rng(0), one, 0.1, 3), model.ridge(one, 0.1))


KERNEL = jnp.asarray([[0.5, 0.5, 0.0], [0.3, 0.3, 0.4], [0.0, 0.6, 0.4]])
CHAIN = markov(jnp.asarray([0.0, 1.0, 0.0]), KERNEL, 5)
REWARD = jnp.asarray([0.4, -0.3, 1.1])
PATHS = [path for path in itertools.product(range(3), repeat=5) if np.isfinite(CHAIN.log_prob(jnp.asarray(path)))]


def test_the_covariance_of_visits_is_that_of_all_paths():
    p = np.exp([float(CHAIN.log_prob(jnp.asarray(path))) for path in PATHS])
    counts = np.array([[path.count(cell) for cell in range(3)] for path in PATHS], float)
    expected = np.cov(counts.T, aweights=p, ddof=0)
    np.testing.assert_allclose(study.visit_covariance(CHAIN), expected, atol=1e-5)


def test_sight_to_the_end_is_the_tilt_and_sight_of_one_step_weighs_that_step(monkeypatch):
    weight = jnp.asarray(1.5)
    monkeypatch.setattr(plans, "SIGHT", 4)
    np.testing.assert_allclose(
        plans.visits(plans.short_sighted(CHAIN, REWARD, weight)),
        plans.visits(plans.tilted(CHAIN, REWARD, weight)),
        rtol=1e-5,
    )
    monkeypatch.setattr(plans, "SIGHT", 1)
    expected = np.asarray(KERNEL) * np.exp(1.5 * np.asarray(REWARD))
    for kernel in np.exp(plans.short_sighted(CHAIN, REWARD, weight).log_kernels):
        np.testing.assert_allclose(kernel, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


def test_values_of_the_prior_are_means_over_all_paths():
    """(174) at the first step, from every path of the prior."""
    total = {cell: [0.0, 0.0] for cell in range(3)}
    for path in PATHS:
        p = float(jnp.exp(CHAIN.log_prob(jnp.asarray(path))))
        total[path[1]][0] += p * float(REWARD[jnp.asarray(path[1:])].sum())
        total[path[1]][1] += p
    value = np.array([mean / mass for mean, mass in total.values()])
    expected = np.asarray(KERNEL[1]) * np.exp(2.0 * value)
    kernel = np.exp(plans.by_values(CHAIN, REWARD, jnp.asarray(2.0)).log_kernels[0, 1])
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=1e-5)


def test_a_curve_is_matched_by_mixing_its_neighbours():
    curve = np.array([[2.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(plans.matched(curve, np.array([1.0, 0.0]), 0.5), [2.5, 1.5])
    np.testing.assert_allclose(plans.matched(curve, np.array([1.0, 0.0]), 9.0), [4.0, 0.0])
    np.testing.assert_allclose(plans.matched(curve, np.array([0.0, 1.0]), 1.0), [2.0, 2.0])


def test_two_cells_by_hand():
    """Both plans gain 2 in proxy; the tilt's gain is in the uncertain cell, of which nothing is true."""
    start = np.array([4.0, 0.0, 0.0])
    fitted = study.Model("", 0.1, np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.5]), np.array([False, False, True]))
    tilt, other = np.stack([start, [3.0, 0.0, 1.0]]), np.stack([start, [2.0, 2.0, 0.0]])
    result = study.compare(fitted, np.array([0.0, 0.8, 0.0]), 2.0, tilt, other, 1.0)
    assert result == {
        **{"proxy": 1.0, "gold": 0.8, "expected": 1.0, "uncertain": 0.0},
        **{"tilt_gold": 0.0, "tilt_expected": 0.25, "tilt_uncertain": 0.25},
    }


@pytest.fixture(scope="module")
def here():
    return study.world()


def test_every_way_begins_at_the_prior_and_the_tilt_ends_at_the_optimum(here):
    reward = study.single(np.random.default_rng(3).normal(size=81))
    result = plans.curves(here.walks, reward, study.single([1.0, 30.0]))
    assert set(result) == {"exact tilt", *study.STAND_INS}
    for curve in result.values():
        np.testing.assert_allclose(curve[0], here.prior, rtol=1e-5)
        np.testing.assert_allclose(curve.sum(axis=1), 20, rtol=1e-4)
    best = here.walks.prior.most(jnp.broadcast_to(reward, (20, 81)))
    assert float(result["exact tilt"][-1] @ reward) == pytest.approx(float(best), rel=1e-3)


def test_under_the_posterior_mean_every_way_is_expected_to_earn_its_proxy(here):
    """The columns `expected` and `proxy` of rows that no method can make differ."""
    rng = np.random.default_rng(5)
    paths = jax.vmap(here.walks.prior.draw)(jax.random.split(jax.random.key(1), 100))
    visits = np.stack([np.bincount(path, minlength=81) for path in np.asarray(paths)]).astype(float)
    labels = model.label(rng, visits, rng.normal(size=81), here.std**2)
    curves = jax.jit(partial(plans.curves, here.walks))
    for fitted in study.models(rng, labels, labels):
        exact = curves(reward=study.single(fitted.weights), weights=study.single([0.5, 2.0]))
        tilt, other = (np.asarray(exact[name], float) for name in ("exact tilt", "short sight"))
        result = study.compare(fitted, rng.normal(size=81), here.std, tilt, other, 0.75)
        same = [abs(result[name] - result["proxy"]) < 2e-4 for name in ("expected", "tilt_expected")]
        assert same == [fitted.name == "posterior mean"] * 2


@pytest.mark.slow
def test_the_study_of_equal_proxy_in_small(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "LABELS", (300, 1000))
    monkeypatch.setattr(study, "REAL", ("one", "another"))
    monkeypatch.setattr(study, "chosen", lambda walk, config: [Prior("one"), Prior("another"), Prior(study.CONTROL)])
    directory = frame.execute(study.STUDY, StudySettings(run=tmp_path, seeds=2, exact_seeds=20, size=0.1))
    result = frame.conclude(study.STUDY, directory)
    assert len(result) == 17 and all(np.isfinite(one.estimate) for one in result)
    assert draw(directory, figure.compose).stat().st_size > 20_000
