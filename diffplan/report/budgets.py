"""The best return of every method within equal budgets: in seconds and in evaluations per plan.

A row of ``budgets.csv`` is a method within one budget: the strength, among those that cost no more, with the highest
promised return whose plans are feasible (at most `VALID` through walls), and that return with its interval over
seeds.
An evaluation is one of a network, of the proxy, or a step in an environment or its model. What a policy or a fine-tuned
prior costs to train counts in full, shared by the plans of its batch.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffplan.metrics.table import VALID
from diffplan.metrics.table import write as write_table
from diffplan.report import style
from diffplan.report.load import read_results
from diffplan.report.summary import Curve, curves

UNITS = {"seconds": "s", "evaluations": "evals"}
"""What budgets are counted in, and what a table calls that."""


class Within(NamedTuple):
    """The best strength of a method within a budget; NaN where no feasible strength is that cheap.

    pressure: nats, of that strength; NaN where the method reports none.
    """

    method: str
    unit: str
    budget: float
    strength: float
    promised: float
    low: float
    high: float
    open_loop: float
    tracked: float
    pressure: float


def pressure(curve: Curve) -> Float[np.ndarray, "s"]:
    """The exact KL of a method where it is known, else its path KL; NaN for a method that reports neither."""
    exact = curve.bands["exact_kl"].value
    return np.where(np.isfinite(exact), exact, curve.bands["path_kl"].value)


def reports_pressure(curve: Curve) -> bool:
    """Whether a method says how far it pushed: nats, at any strength beyond its weakest."""
    return bool(np.isfinite(pressure(curve)[-max(1, len(curve.strengths) - 1) :]).any())


def cost(curve: Curve, unit: str) -> Float[np.ndarray, "s"]:
    """What a plan of each strength costs."""
    if unit == "seconds":
        return curve.bands["seconds"].value
    return np.sum([curve.bands[name].value for name in ("network_evals", "proxy_evals", "env_steps")], axis=0)


def budgets_of(by_method: dict[str, Curve], unit: str) -> Float[np.ndarray, "b"]:
    """Powers of ten: from the first that pays for the prior's plans to the first that pays for everything."""
    least = float(cost(by_method["prior"], unit).max()) if "prior" in by_method else 0.0
    most = max(float(np.nanmax(cost(curve, unit))) for curve in by_method.values())
    least = max(least, most / 1e6, 1e-6)
    return 10.0 ** np.arange(np.ceil(np.log10(least)), np.ceil(np.log10(max(most, least))) + 1)


def within(curve: Curve, unit: str, budget: float) -> Within:
    """The best valid strength of a method that costs no more than the budget."""
    bands, band = curve.bands, curve.bands["promised"]
    allowed = (cost(curve, unit) <= budget) & (bands["violations.walls"].value <= VALID)
    promised = np.where(allowed, band.value, np.nan)
    if not np.isfinite(promised).any():
        return Within(curve.method, unit, budget, *(np.nan,) * 7)
    k = int(np.nanargmax(promised))
    executed = bands["open_loop"].value, bands["tracked"].value
    numbers = (curve.strengths, promised, band.low, band.high, *executed, pressure(curve))
    return Within(curve.method, unit, budget, *(values[k] for values in numbers))


def rows(run_dir: Path | str) -> list[Within]:
    """Every method within every budget of both units."""
    by_method = curves(read_results(run_dir))
    return [
        within(curve, unit, float(budget))
        for unit in UNITS
        for budget in budgets_of(by_method, unit)
        for curve in by_method.values()
    ]


def write(run_dir: Path | str) -> Path:
    """Writes ``budgets.csv`` into the run directory."""
    return write_table(Path(run_dir) / "budgets.csv", (row._asdict() for row in rows(run_dir)), Within._fields)


def table(run_dir: Path | str) -> tuple[list[str], list[list[str]]]:
    """(header, lines): a method a line, a budget a column, the best promised return in the cells.

    Methods are in the order of their last cell.
    """
    by_method, every = curves(read_results(run_dir)), rows(run_dir)
    columns = list(dict.fromkeys((row.unit, row.budget) for row in every))
    cells = {(row.method, row.unit, row.budget): row for row in every}
    header = ["method", "nats", *(f"{style.short(budget)} {UNITS[unit]}" for unit, budget in columns)]
    last = lambda method: np.nan_to_num(cells[(method, *columns[-1])].promised, nan=-np.inf)
    lines = []
    for method in sorted(by_method, key=last, reverse=True):
        mine = [cells[(method, *column)] for column in columns]
        nats = style.short(mine[-1].pressure) if reports_pressure(by_method[method]) or method == "prior" else "none"
        lines.append([style.look(method).label, nats, *(style.plain(row.promised) for row in mine)])
    return header, lines


def show(run_dir: Path | str, console: Console | None = None) -> None:
    """Prints the table in the terminal."""
    header, lines = table(run_dir)
    shown = Table(*header, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.columns[0].no_wrap = True
    for column in shown.columns[1:]:
        column.justify = "right"
    for line in lines:
        shown.add_row(*line)
    console = console or Console()
    console.print(shown)
    words = f"Best promised return at equal budgets per plan, with at most {100 * VALID:g} % of plans through walls."
    console.print(words, style="dim", highlight=False)
