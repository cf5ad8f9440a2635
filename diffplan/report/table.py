"""The results as a table: each method at its best strength and at its largest; data, nulls and bound at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffplan.metrics.table import FEASIBLE
from diffplan.report import style
from diffplan.report.load import Results, read_results
from diffplan.report.summary import Curve, curves, delivery, dropped, headline, known, name_of, split, unconverged


class Column(NamedTuple):
    """A column of the table. short: its name in a terminal of 80 characters."""

    name: str
    title: str
    short: str
    form: Callable[[float], str]


MEASURES = (
    Column("proxy", "proxy", "proxy", style.plain),
    Column("promised", "promised return", "prom-\nised", style.plain),
    Column("delivered", "delivered return", "deliv-\nered", style.plain),
    Column("replanned", "replanned", "re-\nplanned", style.plain),
    Column("feasible", "feasible plans", "feas-\nible", style.percent),
    Column("path_kl", "path KL", "path\nKL", style.short),
    Column("data_distance", "distance to data", "off\ndata", style.short),
    Column("seconds", "seconds a plan", "s per\nplan", style.short),
)


def show(run_dir: Path | str, console: Console | None = None) -> None:
    """Prints the table in the terminal."""
    results = read_results(run_dir)
    by_method = curves(results)
    methods, controls = split(by_method)
    columns, measure = columns_of(by_method), headline(by_method)
    table = Table("", "at", *(column.short for column in columns), box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for curve in (*methods.values(), *controls.values()):
        if curve.method in list(controls)[:1]:
            table.add_section()
        for line in rows(curve, columns, measure):
            table.add_row(*line)
    strengths: dict[str, str] = {}
    for curve in methods.values():
        if len(curve.strengths) > 1:
            strengths.setdefault(curve.strength_name, style.look(curve.method).label)
    console = console or Console()
    console.print(table)
    words = "; ".join(f"{strength_name} ({label}, …)" for strength_name, label in strengths.items())
    lines = [f"at: {words}." if words else "", *notes(results, by_method)]
    console.print("\n" + "\n".join(line for line in lines if line), style="dim", highlight=False)


def markdown(run_dir: Path | str) -> str:
    """The same table for a README."""
    results = read_results(run_dir)
    by_method = curves(results)
    columns, measure = columns_of(by_method), headline(by_method)
    named = lambda curve, strength: strength if strength[0] == "–" else f"{curve.strength_name} {strength}"
    ordered = [curve for group in split(by_method) for curve in group.values()]
    lines = [(a, named(curve, b), *rest) for curve in ordered for a, b, *rest in rows(curve, columns, measure)]
    header = ("method", "strength", *(column.title for column in columns))
    rule = ("---", *("--:" for _ in header[1:]))
    return "\n".join([*(f"| {' | '.join(line)} |" for line in (header, rule, *lines)), "", *notes(results, by_method)])


def columns_of(by_method: dict[str, Curve]) -> list[Column]:
    """The columns in which there is any value."""
    return [column for column in MEASURES if known(by_method.values(), column.name).size]


def notes(results: Results, by_method: dict[str, Curve]) -> list[str]:
    """What the numbers are: seeds and plans, units, the quality of learned rewards, what was left out."""
    methods, words, measure = split(by_method)[0].values(), results.words, headline(by_method)
    seeds = _span({int(n) for curve in methods for n in curve.seeds + curve.dropped})
    plans = _span({int(n) for curve in methods for n in curve.plans})
    text = f"{words.name}: means over {seeds} {'seed' if seeds == '1' else 'seeds'}, {plans} plans a strength"
    text += "." if seeds == "1" else "; ± the 95 % interval over seeds."
    if any(len(curve.strengths) > 1 for curve in methods):
        text += (
            f" Each method at its best strength and at its largest. The best has the highest {name_of(measure)} among "
            f"feasible strengths, which are those with {FEASIBLE}. † marks a strength that is not feasible."
        )
    units = {"proxy": "Proxy in standard deviations of the data.", "promised": f"Returns in {words.unit}."}
    units["path_kl"] = "Path KL in nats."
    not_yet = unconverged(by_method.values(), "‡ marks a strength that has not converged")
    shown = (unit for name, unit in units.items() if known(by_method.values(), name).size)
    text = " ".join(part for part in (text, not_yet, *shown) if part)
    left_out = f"Left out: {'; '.join(results.left_out)}." if results.left_out else ""
    return [line for line in (text, delivery(results), quality(results), dropped(by_method), left_out) if line]


def quality(results: Results) -> str:
    """A sentence on the learned rewards, judged on held-out windows; empty where config.json says nothing."""
    number = lambda value: style.short(float("nan") if value is None else float(value))
    models = [
        f"{kind} {number(about.get('rank_correlation'))}, {number(about.get('calibration'))}"
        for kind, about in (results.config.get("reward_models") or {}).items()
    ]
    words = "Learned rewards on held-out windows (rank correlation with the return, slope of the calibration)"
    return f"{words}: {'; '.join(models)}." if models else ""


def rows(curve: Curve, columns: list[Column], measure: str) -> list[tuple[str, ...]]:
    """The lines of one method; its name stands in the first alone. measure: the one that is shown with its interval."""
    scored = known([curve], measure).size
    chosen = sorted({curve.best, len(curve.strengths) - 1}) if scored else [0]
    names = [style.look(curve.method).label if k == chosen[0] else "" for k in chosen]
    return [(name, *_line(curve, columns, measure, k)) for name, k in zip(names, chosen, strict=True)]


def _line(curve: Curve, columns: list[Column], measure: str, k: int) -> tuple[str, ...]:
    cells = [column.form(curve.value(column.name)[k]) for column in columns]
    half = (curve.bands[measure].high[k] - curve.bands[measure].low[k]) / 2
    if np.isfinite(half):
        cells[[column.name for column in columns].index(measure)] += f" ± {style.plain(half)}"
    strength = f"{curve.strengths[k]:g}" if len(curve.strengths) > 1 else "–"
    marks = " †" * (not curve.feasible[k]) + " ‡" * bool(curve.unconverged[k])
    return strength + marks, *cells


def _span(numbers: set[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else f"{min(numbers, default=0)}"
