"""The promised return of every method against three axes: pressure, proxy gain and strength.

A row for each family of methods, a column for each axis; the other families stand behind in grey. A strength whose
plans are valid is a full marker, one with more than `table.VALID` of its plans through walls a hollow one. Methods
that report no pressure are named in the first column, and are on the other two.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics import table
from diffplan.report import style
from diffplan.report.budgets import pressure, reports_pressure
from diffplan.report.load import read_results
from diffplan.report.save import save
from diffplan.report.summary import Curve, curves

COLOURS = ("#16537e", "#e2571e", "#3a8f6a", "#9b6bb3", "#c69214", "#4b9cd3", "#8c564b", "#5b6470")
TITLES = ("pressure (nats)", "proxy gain (sd of the data)", "strength (fraction of its range)")


def axes_figure(run_dir: Path | str) -> tuple[Path, ...]:
    """Writes axes.png and axes.pdf into the run directory."""
    results = read_results(run_dir)
    by_method = curves(results)
    families: dict[str, list[str]] = {}
    for method in by_method:
        families.setdefault(results.config["methods"][method].get("family", "methods"), []).append(method)
    families.pop("prior", None)
    return save(results.path / "axes.png", lambda: compose(by_method, families), pdf=True)


def compose(by_method: dict[str, Curve], families: dict[str, list[str]]) -> Figure:
    """The whole figure, 11 inches wide."""
    height = 1.2 + 2.3 * len(families)
    figure = Figure(figsize=(11, height))
    margins = {"left": 0.075, "right": 0.975, "top": 1 - 0.55 / height, "bottom": 0.62 / height}
    grid = figure.add_gridspec(len(families), 3, hspace=0.32, wspace=0.09, **margins)
    top = max(float(np.nanmax(curve.bands["promised"].value)) for curve in by_method.values())
    for r, (family, methods) in enumerate(families.items()):
        row = [figure.add_subplot(grid[r, c]) for c in range(3)]
        for c, axes in enumerate(row):
            _panel(axes, c, by_method, methods, 1.1 * top)
            axes.tick_params(labelleft=c == 0, labelbottom=True)
            if r == len(families) - 1:
                axes.set_xlabel(TITLES[c])
            if r == 0:
                axes.set_title(f"against {TITLES[c].split(' (')[0]}", fontsize=11)
        row[0].set_ylabel(f"{family}\npromised return")
    return figure


def valid(curve: Curve) -> np.ndarray:
    """Whether few plans of a strength go through walls."""
    return curve.bands["violations.walls"].value <= table.VALID


def where(curve: Curve, column: int) -> Float[np.ndarray, "s"]:
    """The strengths of a method on one of the three axes."""
    if column == 0:
        return pressure(curve) if reports_pressure(curve) else np.full(len(curve.strengths), np.nan)
    proxy = curve.bands["proxy"].value
    return proxy - proxy[0] if column == 1 else relative(curve.strengths)


def relative(strengths: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s"]:
    """The strengths on one scale: 0 the weakest, 1 the largest, and from 0.1 on even in the logarithm."""
    if len(strengths) == 1:
        return np.zeros(1)
    logs = np.log(strengths[1:])
    return np.append(0.0, 0.1 + 0.9 * (logs - logs[0]) / max(logs[-1] - logs[0], 1e-9))


def _panel(axes: Axes, column: int, by_method: dict[str, Curve], methods: list[str], top: float) -> None:
    for method, curve in by_method.items():
        if method not in methods and method != "prior":
            axes.plot(where(curve, column), curve.bands["promised"].value, color=style.FAINT, linewidth=0.8, zorder=1)
    silent = []
    for colour, method in zip(np.resize(COLOURS, len(methods)), methods, strict=True):
        curve, label = by_method[method], style.look(method).label
        x, gold = where(curve, column), curve.bands["promised"]
        if not np.isfinite(x).any():
            silent.append(label)
            continue
        axes.fill_between(x, gold.low, gold.high, color=colour, alpha=0.15, linewidth=0, zorder=2)
        axes.plot(x, gold.value, color=colour, linewidth=1.5, zorder=3, label=label)
        axes.plot(x, gold.value, "o", color=colour, markerfacecolor="white", markersize=4, zorder=4)
        axes.plot(x[valid(curve)], gold.value[valid(curve)], "o", color=colour, markersize=4.5, zorder=5)
    prior = by_method["prior"].bands["promised"].value[0]
    axes.axhline(prior, color=style.SOFT, linewidth=0.7, linestyle=(0, (1, 1.6)), zorder=1)
    axes.set_ylim(-0.03 * top, top)
    if column < 2:
        axes.set_xscale("symlog", linthresh=1.0 if column == 0 else 3.0)
        axes.set_xlim(left=-0.1 if column == 0 else -1.5)
    else:
        axes.set_xticks([0, 0.1, 1], ["weakest", "", "largest"])
        axes.legend(loc="upper left", fontsize=7.5, edgecolor="none", borderaxespad=0, labelspacing=0.15)
    if silent and column == 0:
        words = "no pressure reported:\n" + "\n".join(silent)
        axes.text(0.98, 0.97, words, fontsize=7.5, color=style.SOFT, ha="right", va="top", transform=axes.transAxes)
