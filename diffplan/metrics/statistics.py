"""Statistics over seeds and against the data, in numpy.

One batch of plans gives one number per measure; the batches of one (method, strength) differ by their seed alone.

    IQM(v)        = mean of v without its lowest and highest quarter, floor(n / 4) values each                      (1)
    mean interval = mean +- t_{n-1} s / sqrt(n)                                                                      (2)
    bootstrap     = quantiles of a statistic of v with the runs of every stratum drawn again, with replacement       (3)

(1) and (3) follow Agarwal et al. 2021 (rliable), where a stratum is a task. (2) is exact for Gaussian values. (3) takes
any statistic, but is too narrow for few runs: for the mean of n Gaussian values its 95 % interval covers about
P(|t_{n-1}| < 1.96 sqrt((n - 1) / n)), which is 81 % at n = 4, 90 % at n = 10. The report uses (2).

Missing values. A batch without one finite plan has no score. `mean_interval` leaves such values out and says how many;
the others refuse them, so that leaving out is always someone's decision: call `drop_missing` and keep its count.
"""

from collections.abc import Callable
from math import atan, cos, pi, sin, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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


def interquartile_mean(values: Float[np.ndarray, "*n"]) -> float:
    """Mean of the middle half of all values (1). Raises on missing values."""
    ordered = np.sort(_complete(values).ravel())
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def mean_interval(values: Float[np.ndarray, "n"], confidence: float = 0.95) -> Estimate:
    """Mean and Student interval (2). Missing values are left out and counted in `dropped`."""
    kept, dropped = drop_missing(values)
    if kept.size == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, dropped)
    mean = float(kept.mean())
    if kept.size == 1:
        return Estimate(mean, np.nan, np.nan, 1, dropped)
    half = student_quantile(confidence, kept.size - 1) * float(kept.std(ddof=1)) / sqrt(kept.size)
    return Estimate(mean, mean - half, mean + half, kept.size, dropped)


def stratified_bootstrap(
    values: Float[np.ndarray, "*strata runs"],
    statistic: Callable[[Float[np.ndarray, "*strata runs"]], float] = interquartile_mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of a statistic (3). Raises on missing values.

    values: leading axes are strata (tasks, methods), the last holds the runs (seeds) of one; ``[runs]`` is one stratum.
    """
    values = _complete(values)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(values.shape[-1], size=values.shape) for _ in range(resamples))
    replicates = [statistic(np.take_along_axis(values, draw, axis=-1)) for draw in draws]
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def data_quantiles(data: Float[np.ndarray, "n"], levels: tuple[float, ...]) -> Float[np.ndarray, "q"]:
    """The data's values at the levels (shares in [0, 1]; 1 is the best of the data). Raises on missing values."""
    return np.quantile(_complete(data), np.asarray(levels))


def rank_in_data(values: Float[np.ndarray, "*m"], data: Float[np.ndarray, "n"]) -> Float[np.ndarray, "*m"]:
    """Share of the data at or below each value, in [0, 1]; NaN for a missing value. Raises on missing data."""
    rank = np.searchsorted(np.sort(_complete(data)), values, side="right") / data.size
    return np.where(np.isnan(values), np.nan, rank)


def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| < t) = confidence, T Student with `freedom` degrees of freedom, by bisection."""
    low, high = 0.0, 1.0
    while _student_share(high, freedom) < confidence:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _student_share(t: float, freedom: int) -> float:
    """P(|T| < t): the finite sums of Abramowitz & Stegun 26.7.3 (odd) and 26.7.4 (even degrees of freedom)."""
    theta = atan(t / sqrt(freedom))
    odd = freedom % 2
    term, total = (cos(theta) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cos(theta) ** 2 * k / (k + 1)
    return 2 / pi * (theta + sin(theta) * total) if odd else sin(theta) * total


def _complete(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The values, or an error if there are none or some are missing."""
    missing = int((~np.isfinite(values)).sum())
    if values.size == 0 or missing:
        raise ValueError(f"{missing} of {values.size} values are missing; see `drop_missing`")
    return values
