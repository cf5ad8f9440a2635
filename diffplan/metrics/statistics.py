"""Statistics over seeds and against the data.

One batch of plans gives one number per measure; the batches of one (method, strength) differ by their seed alone.

    IQM(v)        = mean of v without its lowest and highest quarter, floor(n / 4) values each                      (1)
    mean interval = mean +- t_{n-1} s / sqrt(n)                                                                      (2)
    bootstrap     = quantiles of a statistic of v with the runs of every stratum drawn again, with replacement       (3)
    lower limit   = (p + z^2 / 2n - z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n),      of a fraction p of n  (4)

(1) and (3) follow Agarwal et al. 2021 (rliable), where a stratum is a task. (2) is exact for Gaussian values. (3) takes
any statistic, but is too narrow for few runs: for the mean of n Gaussian values its 95 % interval covers about
P(|t_{n-1}| < 1.96 sqrt((n - 1) / n)), which is 81 % at n = 4, 90 % at n = 10. The report uses (2). (4) is Wilson's
(1927), one-sided, with z the normal quantile: n of n give n / (n + z^2).

One run has no interval: its ends are NaN. A batch without one finite plan has no score. `mean_interval` leaves such
values out and says how many; the others refuse them: call `drop_missing` first and report its count.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy import stats


class Estimate(NamedTuple):
    """A mean over runs with its interval, in the unit of the values.

    value, low, high: NaN where unknown (no value at all; for the interval, fewer than two).
    used, dropped: how many values went in, and how many were missing.
    """

    value: float
    low: float
    high: float
    used: int
    dropped: int


def drop_missing(values: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "m"], int]:
    """The finite values, and how many were not."""
    finite = np.isfinite(values)
    return values[finite], int((~finite).sum())


def interquartile_mean(values: Float[np.ndarray, "*n"], axis: int | None = None) -> Any:
    """Mean of the middle half (1), of all values or along an axis. Raises ValueError for missing values."""
    return stats.trim_mean(_complete(values), 0.25, axis=axis)  # pyright: ignore[reportArgumentType]


def mean_interval(values: Float[np.ndarray, "n"], confidence: float = 0.95) -> Estimate:
    """Mean and Student interval (2). Missing values are left out and counted in `dropped`."""
    kept, dropped = drop_missing(values)
    mean = float(kept.mean()) if kept.size else np.nan
    if kept.size < 2:
        return Estimate(mean, np.nan, np.nan, kept.size, dropped)
    half = float(stats.t.ppf((1 + confidence) / 2, kept.size - 1) * stats.sem(kept))
    return Estimate(mean, mean - half, mean + half, kept.size, dropped)


def two_sided_p(values: Float[np.ndarray, "n"], centre: float = 0.0) -> float:
    """The p value of Student's test that the mean is `centre`: 1 for fewer than two values. Raises for missing ones."""
    if values.size < 2:
        return 1.0
    gap, error = abs(float(_complete(values).mean()) - centre), float(stats.sem(values))
    if error == 0:
        return 0.0 if gap else 1.0
    return float(2 * stats.t.sf(gap / error, values.size - 1))


def holm(p: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """p values adjusted for being m at once (Holm 1979): those below a level err together no more often than it says.

    The k-th smallest of m becomes the largest of (m - i + 1) p_i over i <= k, at most 1.
    """
    order = np.argsort(p)
    stepped = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return stepped[np.argsort(order)]


def lower_limit(
    fraction: Float[np.ndarray, "*k"], count: Num[np.ndarray, "*k"], confidence: float = 0.95
) -> Float[np.ndarray, "*k"]:
    """The lower limit (4) of fractions of `count` things each; NaN where the fraction is."""
    z = float(stats.norm.ppf(confidence))
    count = np.maximum(count, 1)
    half = z * np.sqrt(fraction * (1 - fraction) / count + (z / count) ** 2 / 4)
    return (fraction + z**2 / (2 * count) - half) / (1 + z**2 / count)


def stratified_bootstrap(
    values: Float[np.ndarray, "*strata runs"],
    statistic: Callable[..., Any] = interquartile_mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (3), by `scipy.stats.bootstrap`.

    Args:
        values: leading axes are strata (tasks, methods), the last holds the runs (seeds) of one; ``[runs]`` is one
            stratum.
        statistic: ``(values, axis) -> numbers`` of the values of all strata along an axis.
        confidence: of the interval.
        resamples: how often runs are drawn again.
        seed: of the resampling.

    Returns:
        (low, high); NaN if there is one run.

    Raises:
        ValueError: for missing values.
    """
    strata = _complete(values).reshape(-1, values.shape[-1])
    if values.shape[-1] < 2:
        return np.nan, np.nan
    result = stats.bootstrap(
        tuple(strata),
        lambda *strata, axis: statistic(np.concatenate(strata, axis), axis=axis),
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def data_quantiles(data: Float[np.ndarray, "n"], levels: tuple[float, ...]) -> Float[np.ndarray, "q"]:
    """The data's values at the levels (fractions in [0, 1]; 1 is the best of the data). Raises for missing values."""
    return np.quantile(_complete(data), np.asarray(levels))


def rank_in_data(values: Float[np.ndarray, "*m"], data: Float[np.ndarray, "n"]) -> Float[np.ndarray, "*m"]:
    """Fraction of the data at or below each value, in [0, 1]; NaN for a missing value. Raises for missing data."""
    return np.asarray(stats.percentileofscore(_complete(data), values, kind="weak")) / 100


def _complete(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The values, or an error if there are none or some are missing."""
    missing = int((~np.isfinite(values)).sum())
    if values.size == 0 or missing:
        raise ValueError(f"{missing} of {values.size} values are missing; see `drop_missing`")
    return values
