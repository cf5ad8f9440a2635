"""Which guidance scale to use: rules on a sweep over scales ``[s]`` and seeds ``[m]``, in numpy.

Every rule goes up the scales, weakest first, and answers with one of them:

    best              the one with the highest mean return                needs returns
    knee              the farthest from the chord of (pressure, proxy gain)      needs no label; names a bend, no more
    not_below_best    the last whose return is not below the best's       needs returns
    valid             the last at which plans are surely valid                   needs a check of plans
    label_free        the last before the plans leave the data                   needs held-out data

A `Choice` carries a bootstrap interval over seeds: what the rule would say of other seeds, as far as these can tell. A
rule that no scale satisfies, or that has nothing to go by, chooses NaN and says why.

The grid is part of every answer: the interval of a rule that finds the same scale on all seeds is that scale alone, and
the truth may lie anywhere up to the next. `knee` depends on the whole range swept, for that is what draws its chord.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats


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


def _last_in_a_row(holds: np.ndarray) -> int:
    """The last of the leading run of true entries, -1 where there is none: what breaks once does not come back."""
    return len(holds) - 1 if holds.all() else int(np.argmin(holds)) - 1


@cache
def _one_sided(freedom: int) -> float:
    """The t with P(T < t) = 95 %, and so P(|T| < t) = 90 %, T Student. Kept: a bootstrap asks for it often."""
    return float(stats.t.ppf(0.95, freedom))


def _limits(values: Float[np.ndarray, "s m"]) -> tuple[Float[np.ndarray, "s"], Float[np.ndarray, "s"]]:
    """The lower and the upper 95 % Student limit, one-sided each, of the means over seeds; of one seed, its value."""
    mean, seeds = values.mean(axis=1), values.shape[1]
    if seeds == 1:
        return mean, mean
    margin = _one_sided(seeds - 1) * values.std(axis=1, ddof=1) / np.sqrt(seeds)
    return mean - margin, mean + margin


def _means(returns: Float[np.ndarray, "s m"]) -> Float[np.ndarray, "s"]:
    """The means over seeds, minus infinity where a batch is missing."""
    return np.where(np.isfinite(returns).all(axis=1), returns.mean(axis=1), -np.inf)


def knee(scales: Float[np.ndarray, "s"], pressure: Float[np.ndarray, "s m"], gain: Float[np.ndarray, "s m"]) -> Choice:
    """The knee of the curve of proxy gain over pressure, means over seeds (Satopaa et al. 2011, "Kneedle").

    Both are scaled to [0, 1] over the range swept; the knee is where the gain is farthest above the chord. Scales from
    the first with a missing mean on are left out. It says where pushing begins to pay less, not where it harms.
    """

    def rule(pressure: np.ndarray, gain: np.ndarray) -> int:
        x, y = pressure.mean(axis=1), gain.mean(axis=1)
        last = _last_in_a_row(np.isfinite(x) & np.isfinite(y))
        if last < 2 or not (x[last] > x[0] and y[last] > y[0]):
            return -1
        x, y = ((v[: last + 1] - v[0]) / (v[last] - v[0]) for v in (x, y))
        bend = int(np.argmax(y - x))
        return bend if y[bend] > x[bend] else -1

    reason = "the proxy gain bends away from the pressure most"
    none = "no bend: under three scales, or the gain never outruns the pressure"
    return _choose(scales, rule, reason, none, pressure, gain)


def best(scales: Float[np.ndarray, "s"], returns: Float[np.ndarray, "s m"]) -> Choice:
    """The scale with the highest mean return, the weakest of equals; a missing batch counts against its scale.

    It leans to neither side, as a comparison of strengths must; what it chooses among scales that are alike is luck.
    """

    def rule(returns: np.ndarray) -> int:
        mean = _means(returns)
        return int(np.argmax(mean)) if np.isfinite(mean).any() else -1

    return _choose(scales, rule, "the highest mean return", "no scale has returns in every seed", returns)


def largest_not_below_best(scales: Float[np.ndarray, "s"], returns: Float[np.ndarray, "s m"]) -> Choice:
    """The largest scale whose return is not below the best scale's, at 95 %.

    From the scale of the best mean upwards, each is compared with it seed by seed (one-sided Student test of the paired
    differences), until the first that is below. What cannot be told apart is let pass: more seeds and plans make
    the choice smaller, and it is never below the best. A missing batch counts as below.

    Raises:
        ValueError: if there are fewer than two seeds, which no test can compare.
    """
    if returns.shape[1] < 2:
        raise ValueError(f"returns of {returns.shape[1]} seeds: must be of at least 2, to tell scales apart")

    def rule(returns: np.ndarray) -> int:
        mean = _means(returns)
        best = int(np.argmax(mean))
        if mean[best] == -np.inf:
            return -1
        known = np.isfinite(mean[best:])
        behind = returns[best][None] - np.where(known[:, None], returns[best:], 0.0)
        return best + _last_in_a_row(known & (_limits(behind)[0] <= 0))

    reason = "the return is not below the best, at 95 %"
    return _choose(scales, rule, reason, "no scale has returns in every seed", returns)


def largest_valid(scales: Float[np.ndarray, "s"], invalid: Float[np.ndarray, "s m"], allowed: float = 0.02) -> Choice:
    """The largest scale at which the share of invalid plans is surely within the allowance.

    Surely: its upper 95 % limit, one-sided and Student's over seeds, not its mean. A plan that breaks costs more than
    one that earns little, so margin counts against a scale; but at a weaker scale it does not count against a
    stronger one: the search ends at the first scale whose lower limit is beyond the allowance. A missing share counts
    as 1.
    """

    def rule(invalid: np.ndarray) -> int:
        lower, upper = _limits(np.where(np.isfinite(invalid), invalid, 1.0))
        valid = np.flatnonzero((upper <= allowed)[: _last_in_a_row(lower <= allowed) + 1])
        return int(valid[-1]) if valid.size else -1

    reason = f"the last with at most {allowed:.3g} of the plans invalid (upper 95 % limit)"
    return _choose(scales, rule, reason, f"no scale surely has at most {allowed:.3g} of its plans invalid", invalid)


def label_free(scales: Float[np.ndarray, "s"], distance: Float[np.ndarray, "s m"], typical: float) -> Choice:
    """The largest scale before the plans leave the data: it needs neither returns nor a check of plans.

    distance: any typicality statistic that grows off the data (distance to the data, denoising error), averaged over
    the plans of a batch. typical: its 95 % quantile over held-out data. A missing batch has left. A learned prior is
    off the data by itself: take its offset at scale 0 from `distance`, or no scale will do. That the average plan is
    less typical than 95 % of the data is late to notice harm that stays on the data, such as a proxy that is wrong.
    """

    def rule(distance: np.ndarray) -> int:
        return _last_in_a_row(np.where(np.isfinite(distance), distance, np.inf).mean(axis=1) <= typical)

    reason = f"up to here the plans are as typical as held-out data ({typical:.3g})"
    return _choose(scales, rule, reason, f"even the weakest scale is beyond {typical:.3g}", distance)


def recommend(choices: Mapping[str, Choice]) -> tuple[str, str]:
    """Which of the choices to follow, and why; the names are those of the module's docstring.

    With returns, the smaller of `not_below_best` and `valid`: past the first, pushing costs returns, past the second
    it breaks plans; up to both it costs nothing that was measured. Without, `label_free`: the one rule that a proxy
    cannot fool as it is not asked. `knee` is never followed: a hacked proxy has no bend where it begins to be wrong.
    """
    returns, valid = choices.get("not_below_best"), choices.get("valid")
    if returns is None or valid is None or np.isnan(returns.scale):
        return "label_free", "there is no returns to compare scales by: stay where plans look like the data"
    if np.isnan(valid.scale):
        return "valid", "no scale is surely valid: use none of them, or allow more"
    if valid.scale < returns.scale:
        return "valid", "returns would bear more, but the plans would break"
    return "not_below_best", "more would cost returns, and the plans are still valid"


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
