"""From batches to curves: for each method, every measure against strength, with its interval over seeds."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffplan.metrics import table
from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import COLUMNS, Table, TableError
from diffplan.report import style
from diffplan.report.load import CONTROLS, Results

MEASURES = (*COLUMNS[COLUMNS.index("proxy") :], "infeasible")
"""The columns that are averaged over seeds, beside the violations of the task."""

LEVELS = {0.5: "median", 0.9: "90 %", 0.99: "99 %", 1.0: "best"}
"""Quantiles of the data that the axes show."""

DELIVERY = {
    "inverse": "by learned inverse dynamics",
    "open_loop": "by the actions of the plan",
    "itself": "by the policy",
}
"""How a plan is carried out where its delivered return is measured."""


class Band(NamedTuple):
    """A measure against strength: mean over seeds and its 95 % Student interval. NaN where undefined or unknown."""

    value: Float[np.ndarray, "s"]
    low: Float[np.ndarray, "s"]
    high: Float[np.ndarray, "s"]


class Curve(NamedTuple):
    """One method, strengths ascending.

    seeds, plans: how many went into each strength. dropped: how many of its batches have no finite plan. feasible:
    whether a strength is (135).
    """

    method: str
    strength_name: str
    family: str
    strengths: Float[np.ndarray, "s"]
    bands: dict[str, Band]
    seeds: Int[np.ndarray, "s"]
    plans: Int[np.ndarray, "s"]
    dropped: Int[np.ndarray, "s"]
    feasible: Bool[np.ndarray, "s"]

    def value(self, name: str) -> Float[np.ndarray, "s"]:
        """The means of a measure; NaN where the run has no such column."""
        return self.bands[name].value if name in self.bands else np.full(len(self.strengths), np.nan)

    @property
    def headline(self) -> str:
        """The measure that tells its strengths apart: delivered, else promised, else proxy."""
        return table.headline(self.value)

    @property
    def best(self) -> int:
        """Index of the highest headline among feasible strengths; among all where none is feasible."""
        return table.best(self.value(self.headline), self.feasible)

    @property
    def unconverged(self) -> Bool[np.ndarray, "s"]:
        """Whether steps half as long, or twice as much training, change a strength (144)."""
        return self.value("converged") < 1

    @property
    def learns(self) -> bool:
        """Whether the method learns before it plans."""
        return bool(np.isfinite(self.value("pretrain_evals")).any())

    def is_best(self, k: int) -> bool:
        """Whether a strength is the best, and feasible."""
        return bool(k == self.best and self.feasible[k])


def curves(results: Results) -> dict[str, Curve]:
    """Every method and control of the run, in the order of results.csv."""
    behaviour = table.behaviour_feasible(
        {"method": m, "feasible": f} for m, f in zip(results.table["method"], results.table["feasible"], strict=True)
    )
    return {method: curve(results, method, behaviour) for method in results.methods}


def curve(results: Results, method: str, behaviour: float) -> Curve:
    """One method of the table. A batch with no finite plan is in no mean but in `dropped`. behaviour: of (135)."""
    rows: Table = {name: column[results.table["method"] == method] for name, column in results.table.items()}
    strengths = np.unique(rows["strength"])
    if not np.isfinite(strengths).all():
        raise TableError(f"{results.path / 'results.csv'}: method '{method}' has a row without strength")
    cells = [rows["strength"] == strength for strength in strengths]
    names = [name for name in rows if name in MEASURES or name.startswith("violations.")]
    estimates = {name: [mean_interval(rows[name][cell])[:3] for cell in cells] for name in names}
    bands = {name: Band(*np.array(column).T) for name, column in estimates.items()}
    plans = np.array([int(np.nansum(rows["plans"][cell])) for cell in cells])
    dropped = np.array([int((rows["finite"][cell] == 0).sum()) for cell in cells])
    seeds = np.array([int(cell.sum()) for cell in cells]) - dropped
    about = results.about(method, "strength_name", "guidance scale"), results.about(method, "family", "methods")
    fraction = bands["feasible"].value if "feasible" in bands else np.full(len(strengths), np.nan)
    return Curve(method, *about, strengths, bands, seeds, plans, dropped, table.feasible(fraction, plans, behaviour))


def split(by_method: dict[str, Curve]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """(methods, controls); controls in the order of `CONTROLS`."""
    methods = {name: curve for name, curve in by_method.items() if name not in CONTROLS}
    return methods, {name: by_method[name] for name in CONTROLS if name in by_method}


def known(by_method: Iterable[Curve], name: str) -> Float[np.ndarray, "n"]:
    """All finite means of a measure; none where it is unknown."""
    values = [curve.value(name) for curve in by_method]
    every = np.concatenate([np.empty(0), *values])
    return every[np.isfinite(every)]


def headline(by_method: dict[str, Curve]) -> str:
    """The measure that a run's methods are compared by; controls do not decide it."""
    methods = split(by_method)[0].values()
    return table.headline(lambda name: known(methods, name))


def level(control: Curve | None, measure: str) -> float:
    """The return of a control of one strength: the measure, else what it promised; NaN where neither is known."""
    values = [] if control is None else [control.value(name)[0] for name in (measure, "promised")]
    return float(next((value for value in values if np.isfinite(value)), np.nan))


def name_of(measure: str) -> str:
    """What a headline is called in a sentence."""
    return "proxy" if measure == "proxy" else f"{measure} return"


def subject(methods: dict[str, Curve]) -> Curve | None:
    """The method that is shown by itself: guided, else one of guidance, else one with several strengths, else any."""
    scored = [curve for curve in methods.values() if np.isfinite(curve.value(curve.headline)).any()]
    ranks = lambda curve: (curve.method != "guided", curve.family != "guidance", len(curve.strengths) < 2)
    return min(scored or methods.values(), key=ranks, default=None)


def unconverged(by_method: Iterable[Curve], words: str) -> str:
    """A sentence that says what strengths have not converged; empty where all have. words: its beginning."""
    kinds = frozenset(curve.learns for curve in by_method if curve.unconverged.any())
    more = {frozenset({False}): "more noise levels change", frozenset({True}): "more training changes"}
    what = more.get(kinds, "more noise levels, or more training of a method that learns, change")
    return f"{words}: {what} a return by a tenth, or a tenth of the plans." if kinds else ""


def dropped(by_method: dict[str, Curve]) -> str:
    """A sentence that says how many batches of which method have no finite plan; empty if all have some."""
    counts = {method: int(curve.dropped.sum()) for method, curve in by_method.items()}
    words = ", ".join(f"{count} of {style.look(method).label}" for method, count in counts.items() if count)
    return f"Batches without one finite plan, left out of the means: {words}." if words else ""


def delivery(results: Results) -> str:
    """A sentence that says how the methods are carried out; empty where no return is delivered."""
    methods = ~np.isin(results.table["method"], CONTROLS)  # behaviour is its own delivery
    if not np.isfinite(results.table["delivered"][methods]).any():
        return ""
    ways: dict[str, list[str]] = {}
    for method in results.methods:
        if method not in CONTROLS and results.about(method, "delivered_by"):
            ways.setdefault(results.about(method, "delivered_by"), []).append(style.look(method).label)
    usual, *others = sorted(ways, key=lambda way: -len(ways[way])) or [""]
    words = [DELIVERY.get(usual, usual), *(f"{DELIVERY.get(way, way)} for {', '.join(ways[way])}" for way in others)]
    return f"Delivered: {'; '.join(words)}." if usual else ""


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
