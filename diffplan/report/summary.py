"""From batches to curves: for each method, every measure against strength, with its interval over seeds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import COLUMNS, Table, TableError, best
from diffplan.report import style
from diffplan.report.load import Results

MEASURES = COLUMNS[4:]
"""The columns that are averaged over seeds."""

LEVELS = {0.5: "median", 0.9: "90 %", 0.99: "99 %", 1.0: "best"}
"""Quantiles of the data that the axes show."""


class Band(NamedTuple):
    """A measure against strength: mean over seeds and its 95 % Student interval. NaN where undefined or unknown."""

    value: Float[np.ndarray, "s"]
    low: Float[np.ndarray, "s"]
    high: Float[np.ndarray, "s"]


class Curve(NamedTuple):
    """One method, strengths ascending. seeds, plans: what went into each strength; dropped: its batches without
    score.
    """

    method: str
    strength_name: str
    strengths: Float[np.ndarray, "s"]
    bands: dict[str, Band]
    seeds: Int[np.ndarray, "s"]
    plans: Int[np.ndarray, "s"]
    dropped: Int[np.ndarray, "s"]

    @property
    def best(self) -> int:
        """Index of the best strength: the highest promised return among strengths whose plans are feasible."""
        return best(self.bands["promised"].value, self.bands["violations.walls"].value)


def curves(results: Results) -> dict[str, Curve]:
    """Every method of the run, in the order of results.csv."""
    return {method: curve(results.table, method, results.strength_name(method)) for method in results.methods}


def curve(table: Table, method: str, strength_name: str) -> Curve:
    """One method of the table. A batch without `promised` has no finite plan: it is in no mean but in dropped."""
    mine = table["method"] == method
    strengths = np.unique(table["strength"][mine])
    if not np.isfinite(strengths).all():
        raise TableError(f"results.csv: method '{method}' has a row without strength")
    if not np.isfinite(table["promised"][mine]).any():
        raise TableError(f"results.csv: method '{method}' has no value in column 'promised'")
    cells = [mine & (table["strength"] == strength) for strength in strengths]
    estimates = {name: [mean_interval(table[name][cell]) for cell in cells] for name in MEASURES}
    bands = {name: Band(*np.array([each[:3] for each in column]).T) for name, column in estimates.items()}
    plans = np.array([int(np.nansum(table["plans"][cell])) for cell in cells])
    seeds = np.array([e.used for e in estimates["promised"]])
    dropped = np.array([e.dropped for e in estimates["promised"]])
    return Curve(method, strength_name, strengths, bands, seeds, plans, dropped)


def dropped(by_method: dict[str, Curve]) -> str:
    """How many batches of which method have no finite plan, in words; empty if all have."""
    counts = {method: int(curve.dropped.sum()) for method, curve in by_method.items()}
    return ", ".join(f"{count} of {style.look(method).label}" for method, count in counts.items() if count)


def nearest(strengths: Float[np.ndarray, "s"], strength: float) -> int:
    """Index of the strength in the list (up to rounding); an error if it is not there."""
    index = int(np.abs(strengths - strength).argmin())
    if not np.isclose(strengths[index], strength, rtol=1e-4):
        raise TableError(f"plans.npz: strength {strength:g} is not in results.csv")
    return index


def evenly_chosen(n: int, best: int, count: int) -> list[int]:
    """`count` of n indices, ascending: first, best, last, halfway between; then what is farthest from those taken."""
    taken = sorted({0, best // 2, best, (best + n - 1) // 2, n - 1})[:count]
    while len(taken) < min(count, n):
        free = [i for i in range(n) if i not in taken]
        taken = sorted([*taken, max(free, key=lambda i: min(abs(i - j) for j in taken))])
    return taken
