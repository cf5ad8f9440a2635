"""Tuning by a fixed number of evaluations: the same for every method, whatever its range was at first.

A method has a strength s and some variants: ways of spending what it has, such as more noise levels or shorter steps.
The search spends its evaluations in this order:

1. every strength of the first grid, with the first variant;
2. the best of them with every other variant;
3. with the best variant so far, strengths around the best: beyond an end of what was tried by the grid's own ratio, as
   long as the best is at that end, and else halfway, in the logarithm, into the wider gap beside it.

So a range is extended until the best is inside, or until evaluations or what is allowed end it. Settings that are not
allowed cost no evaluation. This is coordinate search with an expanding step (Hooke and Jeeves 1961), for two
coordinates.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np


class NothingAllowed(ValueError):
    """No setting may be tried."""


CLOSE = 0.05
"""Strengths that differ by less than this fraction are not both tried."""


class Setting(NamedTuple):
    """One way to run a method: its strength, and the number of its variant."""

    strength: float
    variant: int = 0


class Axes(NamedTuple):
    """Where a search begins.

    grid: strengths, ascending, above 0. variants: how many. whole: whether strengths are whole numbers.
    """

    grid: tuple[float, ...]
    variants: int = 1
    whole: bool = False

    @property
    def ratio(self) -> float:
        """Of neighbouring strengths of the grid, in the mean; 2 for a single one."""
        grid = self.grid
        return 2.0 if len(grid) < 2 else float((grid[-1] / grid[0]) ** (1 / (len(grid) - 1)))

    def rounded(self, strength: float) -> float:
        """The strength, with three digits, or as a whole number of at least 1."""
        return float(max(1, round(strength))) if self.whole else float(f"{strength:.3g}")


class Outcome(NamedTuple):
    """values: of every setting that was tried, in order. best: the first of the highest value. inside: whether
    strengths on both sides of the best were tried with its variant, or are not allowed, or do not exist.
    """

    values: dict[Setting, float]
    best: Setting
    inside: bool


def beside(axes: Axes, tried: list[float], best: float) -> Iterator[float]:
    """Strengths to try next around the best, the most wanted first."""
    larger, smaller = [s for s in tried if s > best], [s for s in tried if s < best]
    for power in (1.0, 0.5, 0.25):  # less far where farther is not allowed
        if not larger:
            yield axes.rounded(best * axes.ratio**power)
        if not smaller:
            yield axes.rounded(best / axes.ratio**power)
    sides = [other for other in (min(larger, default=None), max(smaller, default=None)) if other is not None]
    for other in sorted(sides, key=lambda other: -abs(np.log(other / best))):
        yield axes.rounded(float(np.sqrt(best * other)))


def search(
    evaluate: Callable[[Setting], float],
    axes: Axes,
    evaluations: int,
    allowed: Callable[[Setting], bool] = lambda _: True,
) -> Outcome:
    """The best setting that so many evaluations find; a value that is not a number is the lowest.

    Args:
        evaluate: the value of a setting; called at most `evaluations` times, never twice with the same.
        axes: where the search begins.
        evaluations: how many values are computed.
        allowed: whether a setting may be tried, such as one that keeps a budget.

    Raises:
        NothingAllowed: if no setting of the first grid and no variant of its weakest strength is allowed.
    """
    values: dict[Setting, float] = {}

    def best() -> Setting:
        return max(values, key=lambda setting: np.nan_to_num(values[setting], nan=-np.inf))

    def wanted() -> Iterator[Setting]:
        """Every setting that the search asks for, in order."""
        yield from (Setting(strength) for strength in axes.grid)
        middle = best().strength if values else axes.grid[0]
        yield from (Setting(middle, variant) for variant in range(1, axes.variants))
        while values:
            now = best()
            tried = [each.strength for each in values if each.variant == now.variant]
            apart = [s for s in beside(axes, tried, now.strength) if min(abs(np.log(s / t)) for t in tried) > CLOSE]
            new = [option for option in (now._replace(strength=s) for s in apart) if allowed(option)]
            if not new:
                return
            yield new[0]

    new = (setting for setting in wanted() if setting not in values and allowed(setting))
    for setting in islice(new, evaluations):
        values[setting] = evaluate(setting)
    if not values:
        raise NothingAllowed(f"no setting is allowed, of strengths {axes.grid} and {axes.variants} variants")
    return Outcome(values, best(), is_inside(axes, values, best(), allowed))


def is_inside(axes: Axes, values: dict[Setting, float], best: Setting, allowed: Callable[[Setting], bool]) -> bool:
    """Whether the best is no end of what could be tried with its variant."""
    tried = [setting.strength for setting in values if setting.variant == best.variant]
    beyond = best._replace(strength=axes.rounded(best.strength * axes.ratio**0.25))
    if axes.whole:
        beyond = beyond._replace(strength=max(beyond.strength, best.strength + 1))
    least = axes.whole and best.strength <= 1
    return (max(tried) > best.strength or not allowed(beyond)) and (min(tried) < best.strength or least)
