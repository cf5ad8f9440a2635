"""The results as a table: each method at its best strength (by promised return) and at its largest."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffplan.report import style
from diffplan.report.load import read_results
from diffplan.report.summary import Band, Curve, curves, dropped

HEADER = (
    *("method", "strength", "proxy", "promised return", "open loop", "tracked"),
    *("plans through walls", "path KL", "distance to data", "seconds a plan"),
)
SHORT = (
    *("", "at", "proxy", "promised\nreturn", "open\nloop", "tracked"),
    *("in\nwalls", "path\nKL", "off\ndata", "s per\nplan"),
)
"""The same columns for a terminal of 80 characters."""


def show(run_dir: Path | str, console: Console | None = None) -> None:
    """Prints the table in the terminal."""
    by_method = curves(read_results(run_dir))
    table = Table(*SHORT, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for column in table.columns:
        column.justify, column.no_wrap = ("left" if column is table.columns[0] else "right"), True
    for i, curve in enumerate(by_method.values()):
        if i:
            table.add_section()
        for line in rows(curve):
            table.add_row(*line)
    strengths = {
        curve.strength_name: style.look(method).label
        for method, curve in reversed(by_method.items())
        if len(curve.strengths) > 1
    }
    console = console or Console()
    console.print(table)
    words = "; ".join(f"{strength_name} ({label}, …)" for strength_name, label in reversed(strengths.items()))
    console.print(f"\nat: {words}. {notes(by_method)}", style="dim", highlight=False)


def markdown(run_dir: Path | str) -> str:
    """The same table for a README."""
    by_method = curves(read_results(run_dir))
    named = lambda curve, strength: strength if strength == "–" else f"{curve.strength_name} {strength}"
    lines = [(line[0], named(curve, line[1]), *line[2:]) for curve in by_method.values() for line in rows(curve)]
    rule = ("---", *("--:" for _ in HEADER[1:]))
    return "\n".join([*(f"| {' | '.join(line)} |" for line in (HEADER, rule, *lines)), "", notes(by_method)])


def notes(by_method: dict[str, Curve]) -> str:
    """What the numbers are: how many seeds and plans, units, intervals, and what was left out."""
    seeds = _span({int(n) for curve in by_method.values() for n in curve.seeds + curve.dropped})
    seeds += " seed" if seeds == "1" else " seeds"
    plans = _span({int(n) for curve in by_method.values() for n in curve.plans})
    text = (
        "Each method at its largest strength, and at its best: the highest promised return with at most 2 % of plans "
        f"through walls, where there is such a strength. Means over {seeds}, {plans} plans in all; ± the 95 % interval "
        "over seeds. Proxy in standard deviations of the data, returns in steps, path KL in nats."
    )
    left_out = dropped(by_method)
    return text + (f" Batches without one finite plan, left out: {left_out}." if left_out else "")


def rows(curve: Curve) -> list[tuple[str, ...]]:
    """The lines of one method; its name stands in the first alone."""
    chosen = sorted({curve.best, len(curve.strengths) - 1})
    return [_line(curve, k, style.look(curve.method).label if k == chosen[0] else "") for k in chosen]


def _line(curve: Curve, k: int, name: str) -> tuple[str, ...]:
    value = {column: float(band.value[k]) for column, band in curve.bands.items()}
    return (
        name,
        f"{curve.strengths[k]:g}" if len(curve.strengths) > 1 else "–",
        style.plain(value["proxy"]),
        f"{style.plain(value['promised'])}{_interval(curve.bands['promised'], k)}",
        style.plain(value["open_loop"]),
        style.plain(value["tracked"]),
        style.percent(value["violations.walls"]),
        style.short(value["path_kl"]),
        style.short(value["data_distance"]),
        style.short(value["seconds"]),
    )


def _interval(band: Band, k: int) -> str:
    half = (band.high[k] - band.low[k]) / 2
    return f" ± {half:.1f}" if half == half else ""


def _span(numbers: set[int]) -> str:
    return f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
