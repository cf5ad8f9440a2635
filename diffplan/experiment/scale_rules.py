"""Which guidance scale to use, from a sweep over scales ``[s]`` and seeds ``[m]``, in numpy.

With R[s, i] the return at scale s with seed i, whose starts and noise are the same at every scale, and t(q) the Student
quantile of m - 1 degrees of freedom, guidance helps if at some feasible scale (135) above 0

    mean_i (R[s, i] - R[0, i])  >=  t(1 - LEVEL / scales) * its standard error                                     (136)

a Bonferroni test, so that the best of many scales is not believed for its luck. If guidance helps, the scale is the
weakest feasible one with

    mean_i (R[b, i] - R[s, i])  <=  t(0.841) * its standard error,      b the feasible scale of the highest mean   (137)

which is one standard error where seeds are many, and more where they are few. If guidance does not help, it is 0. So
fewer data never ask for more push: they can tell less from 0, and less from the best.

The grid is part of every answer: the interval of a rule that finds the same scale on all seeds is that scale alone, and
the truth may lie anywhere up to the next.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from diffplan.metrics import table

LEVEL = 0.1
"""The level of the test (136): how often guidance that does not help may be said to help."""

ONE_ERROR = float(stats.norm.cdf(1.0))
"""The quantile that one standard error is of many seeds."""


class Choice(NamedTuple):
    """A scale, the interval that holds it in 95 % of resamples of the seeds, and why it was chosen. NaN: none.

    A resample in which no scale satisfies the rule counts as scale 0.
    """

    scale: float
    low: float
    high: float
    reason: str


Rule = Callable[..., int]
"""``rule(*sweeps[s, m]) -> index of the scale``, or -1 for none."""


def _choose(scales: Float[np.ndarray, "s"], rule: Rule, reason: str, none: str, *sweeps: np.ndarray) -> Choice:
    """What the rule says of all seeds, and its 2.5 % and 97.5 % quantiles over 1000 resamples of them."""
    for sweep in sweeps:
        if sweep.shape != sweeps[0].shape or sweep.ndim != 2 or sweep.shape[0] != len(scales) or sweep.size == 0:
            raise ValueError(f"a sweep has shape {sweep.shape}: must be [{len(scales)} scales, at least one seed]")
    if not (np.diff(scales) > 0).all():
        raise ValueError(f"scales={scales.tolist()}: must be strictly increasing")
    index = rule(*sweeps)
    if index < 0:
        return Choice(np.nan, np.nan, np.nan, none)
    rng, seeds = np.random.default_rng(0), sweeps[0].shape[1]
    draws = (rng.integers(seeds, size=seeds) for _ in range(1000))
    replicates = np.asarray([rule(*(sweep[:, draw] for sweep in sweeps)) for draw in draws])
    result = np.where(replicates < 0, 0.0, scales[np.maximum(replicates, 0)])
    low, high = np.quantile(result, (0.025, 0.975), method="nearest")
    return Choice(float(scales[index]), float(low), float(high), reason)


def _means(returns: Float[np.ndarray, "s m"]) -> Float[np.ndarray, "s"]:
    """The means over seeds, minus infinity where a batch is missing."""
    return np.where(np.isfinite(returns).all(axis=1), returns.mean(axis=1), -np.inf)


def best(scales: Float[np.ndarray, "s"], returns: Float[np.ndarray, "s m"]) -> Choice:
    """The scale with the highest mean return, the weakest of equals; a missing batch counts against its scale.

    It leans to neither side, as a comparison of strengths must; what it chooses among scales that are alike is luck.
    """

    def rule(returns: np.ndarray) -> int:
        mean = _means(returns)
        return int(np.argmax(mean)) if np.isfinite(mean).any() else -1

    return _choose(scales, rule, "the highest mean return", "no scale has returns in every seed", returns)


@cache
def _student(quantile: float, freedom: int) -> float:
    """A quantile of Student's t. Kept: a bootstrap asks for it often."""
    return float(stats.t.ppf(quantile, freedom))


def _error(values: Float[np.ndarray, "s m"]) -> Float[np.ndarray, "s"]:
    """The standard errors of means over seeds."""
    return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])


def recommend(
    scales: Float[np.ndarray, "s"],
    returns: Float[np.ndarray, "s m"],
    fraction: Float[np.ndarray, "s m"],
    plans: int,
    behaviour: float = 1.0,
) -> Choice:
    """The weakest feasible scale within one standard error of the best (137); 0 where guidance does not help (136).

    Args:
        scales: from 0 up.
        returns: of every scale and seed; a scale with a missing return is not chosen.
        fraction: of the plans that are feasible.
        plans: of each scale and seed.
        behaviour: the fraction of behaviour's windows that are feasible.

    Raises:
        ValueError: if scale 0 is not the first, or if there are fewer than two seeds, which tell nothing apart.
    """
    if scales[0] != 0:
        raise ValueError(f"scales={scales.tolist()}: must begin with 0, with which others are compared")
    if returns.shape[1] < 2:
        raise ValueError(f"returns of {returns.shape[1]} seeds: must be of at least 2, to tell scales apart")
    allow = partial(allowed_scales, plans=plans, behaviour=behaviour)
    rule = lambda returns, fraction: _recommended(returns, allow(returns, fraction))
    allowed = allow(returns, fraction)
    if not allowed.any():
        reason = "no scale is feasible; 0 means no guidance"
    elif not allowed[1:].any():
        reason = "no scale above 0 is feasible"
    elif not _helps(returns, allowed):
        reason = "no feasible scale surely has a higher return than scale 0"
    else:
        reason = (
            f"the weakest feasible scale within one standard error of the best, {scales[_best(returns, allowed)]:g}"
        )
    return _choose(scales, rule, reason, "scale 0 has no return in some seed", returns, fraction)


def allowed_scales(
    returns: Float[np.ndarray, "s m"], fraction: Float[np.ndarray, "s m"], plans: int, behaviour: float
) -> Bool[np.ndarray, "s"]:
    """Whether scales are feasible (135), and have a return in every seed."""
    counts = np.full(len(returns), plans * returns.shape[1])
    return table.feasible(fraction.mean(axis=1), counts, behaviour) & np.isfinite(returns).all(axis=1)


def _helps(returns: Float[np.ndarray, "s m"], allowed: Bool[np.ndarray, "s"]) -> bool:
    """(136)."""
    gain = (returns - returns[:1])[1:][allowed[1:]]
    level = _student(1 - LEVEL / (len(returns) - 1), returns.shape[1] - 1)
    return bool((gain.mean(axis=1) >= np.maximum(level * _error(gain), np.finfo(float).tiny)).any())


def _recommended(returns: Float[np.ndarray, "s m"], allowed: Bool[np.ndarray, "s"]) -> int:
    """The index of the recommended scale; -1 where scale 0 has no return."""
    if not np.isfinite(returns[0]).all():
        return -1
    if not (allowed[1:].any() and _helps(returns, allowed)):
        return 0
    behind = returns[_best(returns, allowed)][None] - returns[allowed]
    near = behind.mean(axis=1) <= _student(ONE_ERROR, returns.shape[1] - 1) * _error(behind)
    return int(np.flatnonzero(allowed)[np.argmax(near)])


def _best(returns: Float[np.ndarray, "s m"], allowed: Bool[np.ndarray, "s"]) -> int:
    """The index of the highest mean return among allowed scales."""
    return int(np.argmax(_means(np.where(allowed[:, None], returns, np.nan))))


Measure = Callable[[Float[np.ndarray, "s"]], Float[np.ndarray, "s n"]]


class Calibrated(NamedTuple):
    """The scale at which a quantity reaches its target, the mean measured there, and that mean's standard error."""

    scale: float
    value: float
    error: float


def calibrate(measure: Measure, target: float, low: float, high: float, points: int = 9, rounds: int = 3) -> Calibrated:
    """The scale at which the mean of a quantity that is monotone in the scale reaches `target`.

    measure: maps any `points` scales (and at last one) to n values each, with the same noise for all, so that the means
    are as monotone as the quantity; a mean that is not finite counts as infinity. Each round lays a
    log-spaced grid over the last one's bracket; at the end the scale is interpolated in its logarithm, and measured.

    Raises:
        ValueError: if the bracket or the grid cannot work, or if the target is not between the means at the two ends.
    """
    if not (0 < low < high and points >= 3 and rounds >= 1):
        raise ValueError(f"{low=}, {high=}, {points=}, {rounds=}: must be 0 < low < high, points >= 3, rounds >= 1")

    def means(scales: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s"]:
        values = np.asarray(measure(scales), float).mean(axis=1)
        return np.where(np.isfinite(values), values, np.inf)

    sign = 0.0
    for _ in range(rounds):
        scales = np.geomspace(low, high, points)
        values = means(scales)
        if not sign:
            if not min(values[0], values[-1]) <= target <= max(values[0], values[-1]):
                ends = f"{values[0]:.4g} at scale {low:.4g} and {values[-1]:.4g} at scale {high:.4g}"
                raise ValueError(f"target={target:.4g}: must be between what the bracket reaches, {ends}")
            sign = 1.0 if values[-1] >= values[0] else -1.0
        above = max(1, int(np.argmax(sign * values[1:] >= sign * target)) + 1)
        low, high = float(scales[above - 1]), float(scales[above])
        ends = values[above - 1], values[above]
    part = (target - ends[0]) / (ends[1] - ends[0]) if np.isfinite(ends).all() and ends[0] != ends[1] else 0.0
    scale = float(low * (high / low) ** np.clip(part, 0, 1))
    result = np.asarray(measure(np.asarray([scale])), float)[0]
    return Calibrated(scale, float(result.mean()), float(result.std(ddof=1) / np.sqrt(result.size)))


class Units(NamedTuple):
    """What a scale was found with, and so what it means.

    return_std: standard deviation of the return over the labels, in raw units of reward. steps, high, low: the
    sampler's number of noise levels, the largest and the smallest. std: the normaliser's standard deviations, ``[d]``.
    """

    return_std: float
    steps: int
    high: float
    low: float
    std: tuple[float, ...]
