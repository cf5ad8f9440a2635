"""What the rows of the crossed comparison say, by the rules of `protocol`, which were written before them."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from diffplan.metrics.statistics import holm, mean_interval, two_sided_p
from diffplan.studies.crossed.protocol import BUDGETS, INFORMED, INSTEAD, LEVEL, METHODS, REFERENCE

Row = dict[str, Any]
CELL = ("world", "reward", "prior", "labels")
BEHAVIOUR = "behaviour"
Cells = dict[tuple[str, ...], float]
"""By cell: world, reward, prior, labels."""


class Difference(NamedTuple):
    """A mean over worlds and rewards, in standard deviations of behaviour's returns, at one budget.

    low, high: its corrected interval, which holds with those of all other tests at once. p: Holm's. cells: in how many.
    clusters: the values that it is the mean of, one for each world and reward.
    """

    name: str
    budget: float
    mean: float
    low: float
    high: float
    p: float
    cells: int
    clusters: dict[str, float]

    @property
    def verdict(self) -> str:
        """In words."""
        if self.p > LEVEL or np.isnan(self.p):
            return "no difference shown"
        return "more" if self.mean > 0 else "less"


def number(row: Row, name: str) -> float:
    """A number of a row as read from a file; NaN where the cell is empty."""
    return float(row.get(name) or "nan")


def by_cell(rows: Iterable[Row], method: str, budget: float, value: Callable[[Row], float]) -> Cells:
    """The mean of a value over the batches of each cell. `INSTEAD` counts as the method that it stands in for."""
    names = {method, INSTEAD.get(method, method)}
    there: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row["method"] in names and number(row, "budget") == budget:
            there.setdefault(tuple(str(row[name]) for name in CELL), []).append(value(row))
    return {cell: float(np.mean(values)) for cell, values in there.items()}


def delivered(row: Row) -> float:
    """The delivered return, in standard deviations of behaviour's."""
    return number(row, "delivered") / number(row, "behaviour_std")


def optimism(row: Row) -> float:
    """What the plans promise beyond what they deliver, in standard deviations of behaviour's returns."""
    return (number(row, "promised") - number(row, "delivered")) / number(row, "behaviour_std")


def clusters_of(cells: Cells) -> dict[str, float]:
    """The mean over the cells of each world and reward that have a number: they share what was tuned."""
    there: dict[str, list[float]] = {}
    for (world, reward, *_), value in cells.items():
        if not np.isfinite(value):
            continue
        there.setdefault(f"{world} {reward}", []).append(value)
    return {name: float(np.mean(values)) for name, values in there.items()}


def delivered_by(rows: list[Row], method: str, budget: float) -> Cells:
    """What a method delivers in each cell, in standard deviations of behaviour's returns."""
    return by_cell(rows, method, budget, delivered)


def controls_of(rows: list[Row], name: str) -> Cells:
    """What a control delivers in each cell; controls have no budget."""
    return by_cell(rows, name, 0.0, delivered)


def apart(ours: Cells, theirs: Cells) -> Cells:
    """The paired differences, in cells where both are known (177)."""
    both = {cell: ours[cell] - theirs[cell] for cell in ours if cell in theirs}
    return {cell: value for cell, value in both.items() if np.isfinite(value)}


def tests_of(rows: list[Row]) -> list[Difference]:
    """Every test of the protocol: each method against guidance at each budget, and what more time buys.

    A test of fewer than two worlds and rewards has a p value of 1.

    Raises:
        ValueError: if every test has fewer than two worlds and rewards.
    """
    value = {(method, budget): delivered_by(rows, method, budget) for method in METHODS for budget in BUDGETS}
    paired = {
        (method, budget): apart(value[method, budget], value[REFERENCE, budget])
        for budget in BUDGETS
        for method in METHODS
        if method != REFERENCE
    }
    low, high = BUDGETS
    gain = {method: apart(value[method, high], value[method, low]) for method in METHODS}
    paired["more time: best_of_n less guided", high] = apart(gain["best_of_n"], gain[REFERENCE])
    gaps = {name: by_cell(rows, name, high, optimism) for name in ("ascent_prior", REFERENCE)}
    paired["optimism: ascent_prior less guided", high] = apart(*gaps.values())
    values = {test: clusters_of(cells) for test, cells in paired.items()}
    if not any(len(clusters) > 1 for clusters in values.values()):
        raise ValueError("rows.csv: there are fewer than two worlds and rewards with both methods, for every test")
    arrays = {test: np.array(list(clusters.values())) for test, clusters in values.items()}
    p = holm(np.array([two_sided_p(each) for each in arrays.values()]))
    return [
        Difference(*test, *interval(arrays[test], 1 - LEVEL / len(values)), adjusted, len(paired[test]), values[test])
        for test, adjusted in zip(values, p.tolist(), strict=True)
    ]


def interval(values: Float[np.ndarray, "n"], confidence: float) -> tuple[float, float, float]:
    """(mean, low, high) of Student's interval."""
    return mean_interval(values, confidence)[:3]


def summary(rows: list[Row]) -> list[Row]:
    """A line for each method and budget: means over worlds and rewards, and what was spent."""
    names = dict.fromkeys((row["method"], number(row, "budget")) for row in rows)
    lines = []
    for method, budget in names:
        values = {
            "delivered": delivered,
            "optimism": optimism,
            **{name: lambda row, name=name: number(row, name) for name in SHOWN},
        }
        of = {name: clusters_of(by_cell(rows, method, budget, value)) for name, value in values.items()}
        means = {name: mean_known(list(clusters.values())) for name, clusters in of.items()}
        lines.append({"method": method, "budget": budget, "informed": int(method in INFORMED)} | means)
    return lines


SHOWN = ("feasible", "converged", "evaluations", "seconds", "budget_used", "pretrain_seconds", "candidates")
"""Columns of rows whose means the summary shows, beside the delivered return and optimism."""


def mean_known(values: list[float]) -> float:
    """The mean of the numbers among some values; NaN where there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
