"""Statistics by hand, against exact enumeration and the coverage that theory predicts."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from diffplan.metrics import statistics
from diffplan.metrics.statistics import holm, two_sided_p


def middle_half(values: np.ndarray) -> float:
    """The mean without the lowest and highest quarter, by sorting."""
    ordered = sorted(values.ravel().tolist())
    cut = len(ordered) // 4
    return sum(ordered[cut : len(ordered) - cut]) / (len(ordered) - 2 * cut)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 40, 101])
def test_interquartile_mean_leaves_out_a_quarter_at_each_end(n):
    values = np.random.default_rng(n).standard_cauchy(n)
    np.testing.assert_allclose(statistics.interquartile_mean(values), middle_half(values))


def test_interquartile_mean_pools_all_axes():
    values = np.random.default_rng(0).normal(size=(3, 8))
    np.testing.assert_allclose(statistics.interquartile_mean(values), middle_half(values))
    np.testing.assert_allclose(statistics.interquartile_mean(values, axis=1), [middle_half(row) for row in values])


@pytest.mark.parametrize(("confidence", "quantile"), [(0.8, 1.6377), (0.9, 2.3534), (0.95, 3.1824), (0.99, 5.8409)])
def test_mean_interval_by_hand(confidence, quantile):
    """Quantiles of Student's t with 3 degrees of freedom, from a printed table."""
    estimate = statistics.mean_interval(np.array([3.0, 4.5, 2.5, 6.0]), confidence)
    half = quantile * np.sqrt((1 + 0.25 + 2.25 + 4) / 3) / 2
    np.testing.assert_allclose(estimate[:3], (4, 4 - half, 4 + half), rtol=1e-4)
    assert (estimate.used, estimate.dropped) == (4, 0)


def test_mean_interval_covers_gaussian_means_at_its_confidence():
    draws = np.random.default_rng(0).normal(size=(4000, 4))
    estimates = [statistics.mean_interval(draw) for draw in draws]
    coverage = np.mean([estimate.low <= 0 <= estimate.high for estimate in estimates])
    assert abs(coverage - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize("n", [10, 40])
def test_bootstrap_of_the_mean_covers_as_theory_predicts(n):
    # The bootstrap distribution of a mean is near N(mean, s^2 (n - 1) / n^2), s the sample deviation.
    expected = 2 * stats.t.cdf(stats.norm.ppf(0.975) * np.sqrt((n - 1) / n), n - 1) - 1
    repeats = 400
    draws = np.random.default_rng(n).normal(size=(repeats, n))
    intervals = [statistics.stratified_bootstrap(d, np.mean, resamples=300) for d in draws]
    coverage = np.mean([low <= 0 <= high for low, high in intervals])
    assert abs(coverage - expected) < 4 * np.sqrt(expected * (1 - expected) / repeats) + 0.01


def test_bootstrap_against_every_possible_resample():
    values = np.array([[1.0, 2.0, 4.0], [10.0, 30.0, 70.0]])
    means = [np.mean([*a, *b]) for a in product(values[0], repeat=3) for b in product(values[1], repeat=3)]
    result = statistics.stratified_bootstrap(values, np.mean, confidence=0.8, resamples=20000)
    np.testing.assert_allclose(result, np.quantile(means, [0.1, 0.9]), atol=1.0)


def test_bootstrap_stays_within_its_strata():
    values = np.array([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])  # no spread within a stratum: no spread at all
    assert statistics.stratified_bootstrap(values, np.mean, resamples=50) == (3.0, 3.0)


def test_missing_values_are_counted_or_refused():
    values = np.array([1.0, np.nan, 3.0, np.inf])
    estimate = statistics.mean_interval(values)
    assert (estimate.value, estimate.used, estimate.dropped) == (2.0, 2, 2)
    kept, dropped = statistics.drop_missing(values)
    assert (kept.tolist(), dropped) == ([1.0, 3.0], 2)
    with pytest.raises(ValueError, match="2 of 4 values are missing"):
        statistics.interquartile_mean(values)
    with pytest.raises(ValueError, match="2 of 4 values are missing"):
        statistics.stratified_bootstrap(values)


def test_an_interval_needs_two_values():
    alone, none = statistics.mean_interval(np.array([2.0])), statistics.mean_interval(np.array([np.nan]))
    assert alone.value == 2.0
    assert np.isnan(alone.low) and np.isnan(none.value)
    assert (none.used, none.dropped) == (0, 1)
    assert np.isnan(statistics.stratified_bootstrap(np.array([[2.0], [3.0]]))).all()


def test_quantiles_and_ranks_of_the_data_by_counting():
    data = np.random.default_rng(0).permutation(np.arange(101.0))
    np.testing.assert_allclose(statistics.data_quantiles(data, (0.0, 0.5, 0.99, 1.0)), [0.0, 50.0, 99.0, 100.0])
    values = np.array([-1.0, 0.0, 49.5, 100.0, 1e9, np.nan])
    expected = [np.mean([d <= v for d in data]) if np.isfinite(v) else np.nan for v in values]
    np.testing.assert_allclose(statistics.rank_in_data(values, data), expected)


def test_p_values_are_those_of_a_library():
    values = np.array([0.3, 0.1, 0.4, 0.1, 0.5])
    assert two_sided_p(values, 0.2) == pytest.approx(stats.ttest_1samp(values, 0.2).pvalue)
    assert [two_sided_p(np.ones(4), 0.5), two_sided_p(np.ones(4), 1.0), two_sided_p(np.ones(1), 0.5)] == [0, 1, 1]


def test_holm_adjusts_as_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.6])), [1.0, 1.0])


def test_holm_by_hand():
    """Holm's own rule: 0.01 <= 0.05 / 4, 0.015 <= 0.05 / 3, 0.03 > 0.05 / 2; after the first failure nothing passes."""
    assert (holm(np.array([0.03, 0.01, 0.04, 0.015])) <= 0.05).tolist() == [False, True, False, True]
    assert (holm(np.array([0.03, 0.03])) <= 0.05).tolist() == [False, False]
    assert (holm(np.array([0.04])) <= 0.05).tolist() == [True]


def test_holm_rarely_decides_a_claim_of_nothing():
    """Ten cells of mean 0: one at a time 40 % of such maps would have a decided cell, together at most 5 %."""
    rng = np.random.default_rng(0)
    decided = [
        holm(np.array([two_sided_p(rng.normal(size=8), 0.0) for _ in range(10)])).min() <= 0.05 for _ in range(400)
    ]
    assert np.mean(decided) < 0.085  # 5 % and three standard errors
