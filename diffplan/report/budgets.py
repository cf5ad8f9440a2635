"""The best return of every method within equal budgets: in seconds and in evaluations per plan.

A row of ``budgets.csv`` is a method within one budget: among the feasible strengths (135) that cost no more, the one
with the highest delivered return. Where no return is delivered, the promised return takes its place, and then the
proxy. An evaluation is one of a network, of the proxy, or a step in an environment or its model. What a method costs is
the cost of its plans: no budget holds any training, neither of the prior nor of a policy (``pretrain_seconds``).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffplan.metrics.table import FEASIBLE
from diffplan.metrics.table import write as write_table
from diffplan.report import style
from diffplan.report.load import read_results
from diffplan.report.save import directory
from diffplan.report.summary import Curve, curves, headline, known, name_of, split

UNITS = {"seconds": "s", "evaluations": "evals"}
"""What budgets are counted in, and what a table calls that."""


class Within(NamedTuple):
    """The best strength of a method within a budget; NaN where no feasible strength is that cheap.

    low, high: the interval over seeds of the delivered return (or of what takes its place). pressure: nats; NaN where
    the method reports none.
    """

    method: str
    unit: str
    budget: float
    strength: float
    proxy: float
    promised: float
    delivered: float
    low: float
    high: float
    pressure: float


def pressure(curve: Curve) -> Float[np.ndarray, "s"]:
    """The exact KL of a method where it is known, else its path KL; NaN for a method that reports neither."""
    exact = curve.value("exact_kl")
    return np.where(np.isfinite(exact), exact, curve.value("path_kl"))


def reports_pressure(curve: Curve) -> bool:
    """Whether a method says how far it pushed: nats, at any strength beyond its weakest."""
    return bool(np.isfinite(pressure(curve)[-max(1, len(curve.strengths) - 1) :]).any())


def cost(curve: Curve, unit: str) -> Float[np.ndarray, "s"]:
    """What a plan of each strength costs; NaN where that is unknown."""
    if unit == "seconds":
        return curve.value("seconds")
    counts = np.stack([curve.value(name) for name in ("network_evals", "proxy_evals", "env_steps")])
    return np.where(np.isfinite(counts).any(0), np.nansum(counts, axis=0), np.nan)


def budgets_of(by_method: dict[str, Curve], unit: str) -> Float[np.ndarray, "b"]:
    """Powers of ten: from the first that pays for the prior's plans to the first that pays for everything."""
    costs = {method: cost(curve, unit) for method, curve in by_method.items()}
    every = np.concatenate([np.empty(0), *costs.values()])
    if not np.isfinite(every).any():
        return np.empty(0)
    least, most = float(np.nan_to_num(costs.get("prior", np.zeros(1))).max()), float(np.nanmax(every))
    least = max(least, most / 1e6, 1e-6)
    return 10.0 ** np.arange(np.ceil(np.log10(least)), np.ceil(np.log10(max(most, least))) + 1)


def within(curve: Curve, unit: str, budget: float, measure: str) -> Within:
    """The best feasible strength of a method that costs no more than the budget."""
    allowed = (cost(curve, unit) <= budget) & curve.feasible
    scores = np.where(allowed, curve.value(measure), np.nan)
    if not np.isfinite(scores).any():
        return Within(curve.method, unit, budget, *(np.nan,) * 7)
    k, band = int(np.nanargmax(scores)), curve.bands[measure]
    returns = (curve.value(name) for name in ("proxy", "promised", "delivered"))
    numbers = (curve.strengths, *returns, band.low, band.high, pressure(curve))
    return Within(curve.method, unit, budget, *(values[k] for values in numbers))


def rows(by_method: dict[str, Curve]) -> list[Within]:
    """Every method within every budget of both units."""
    methods, measure = split(by_method)[0], headline(by_method)
    return [
        within(curve, unit, float(budget), measure)
        for unit in UNITS
        for budget in budgets_of(methods, unit)
        for curve in methods.values()
    ]


def write(run_dir: Path | str, out: Path | str | None = None) -> Path:
    """Writes ``budgets.csv`` into the run directory, or into `out`; returns its path."""
    lines = rows(curves(read_results(run_dir)))
    return write_table(directory(run_dir, out) / "budgets.csv", (row._asdict() for row in lines), Within._fields)


def table(by_method: dict[str, Curve]) -> tuple[list[str], list[list[str]]]:
    """(header, lines): a method a line, a budget a column, the best return in the cells.

    Methods are in the order of their last cell.
    """
    every, measure = rows(by_method), headline(by_method)
    columns = list(dict.fromkeys((row.unit, row.budget) for row in every))
    cells = {(row.method, row.unit, row.budget): row for row in every}
    header = ["method", "nats", *(f"{style.short(budget)} {UNITS[unit]}" for unit, budget in columns)]
    score = lambda row: getattr(row, measure)
    methods = list(dict.fromkeys(row.method for row in every))
    lines = []
    for method in sorted(methods, key=lambda m: -np.nan_to_num(score(cells[(m, *columns[-1])]), nan=-np.inf)):
        mine = [cells[(method, *column)] for column in columns]
        nats = style.short(mine[-1].pressure) if reports_pressure(by_method[method]) or method == "prior" else "none"
        lines.append([style.look(method).label, nats, *(style.plain(score(row)) for row in mine)])
    return header, lines


def show(run_dir: Path | str, console: Console | None = None) -> None:
    """Prints the table in the terminal; nothing where no method has a score."""
    results = read_results(run_dir)
    by_method = curves(results)
    if not known(by_method.values(), headline(by_method)).size:
        return
    header, lines = table(by_method)
    shown = Table(*header, box=SIMPLE_HEAD, show_edge=False, padding=0)
    shown.columns[0].no_wrap = True
    for column in shown.columns[1:]:
        column.justify = "right"
    for line in lines:
        shown.add_row(*line)
    console = console or Console()
    console.print(shown)
    best = f"Best {name_of(headline(by_method))} at equal budgets per plan"
    words = f"{best}, with {FEASIBLE}."
    console.print(words, style="dim", highlight=False)
