"""The delivered return of every method against three axes: pressure, proxy gain and strength.

A row for each family of methods, a column for each axis; the other families stand behind in grey. A feasible strength
(135) is a full marker, another a hollow one. Thin dotted lines are what the same plans promised. Methods that report no
pressure are named in the first column, and are on the other two.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.table import FEASIBLE
from diffplan.report import style
from diffplan.report.budgets import pressure, reports_pressure
from diffplan.report.load import Words, read_results
from diffplan.report.save import directory, save
from diffplan.report.scale import reach
from diffplan.report.summary import Curve, curves, headline, known, name_of, split

COLOURS = ("#16537e", "#e2571e", "#3a8f6a", "#9b6bb3", "#c69214", "#4b9cd3", "#8c564b", "#5b6470")
TITLES = ("pressure (nats)", "proxy gain (sd of the data)", "strength (fraction of its range)")


def axes_figure(run_dir: Path | str, out: Path | str | None = None) -> tuple[Path, ...]:
    """Writes axes.png and axes.pdf into the run directory, or into `out`; nothing if there is no method but the prior.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
    """
    results = read_results(run_dir)
    by_method = curves(results)
    families: dict[str, list[Curve]] = {}
    for curve in split(by_method)[0].values():
        if curve.family != "prior" and known([curve], curve.headline).size:
            families.setdefault(curve.family, []).append(curve)
    if not families:
        return ()
    return save(directory(run_dir, out) / "axes.png", lambda: compose(results.words, by_method, families), pdf=True)


def compose(words: Words, by_method: dict[str, Curve], families: dict[str, list[Curve]]) -> Figure:
    """The whole figure, 11 inches wide."""
    height = 1.2 + 2.3 * len(families)
    figure = Figure(figsize=(11, height))
    margins = {"left": 0.085, "right": 0.785, "top": 1 - 0.55 / height, "bottom": 0.62 / height}
    grid = figure.add_gridspec(len(families), 3, hspace=0.32, wspace=0.09, **margins)
    measure = headline(by_method)
    for r, (family, mine) in enumerate(families.items()):
        row = [figure.add_subplot(grid[r, c]) for c in range(3)]
        for c, axes in enumerate(row):
            _panel(axes, c, by_method, mine, measure)
            axes.tick_params(labelleft=c == 0, labelbottom=True)
            if r == len(families) - 1:
                axes.set_xlabel(TITLES[c])
            if r == 0:
                axes.set_title(f"against {TITLES[c].split(' (')[0]}", fontsize=11)
        row[0].set_ylabel(f"{family}\n{name_of(measure)}")
    unit = "sd of the data" if measure == "proxy" else words.unit
    note = f"{words.name}: {name_of(measure)} in {unit}. Full: {FEASIBLE}."
    note += " Dashed: prior." + " Dotted: promised." * (measure == "delivered")
    figure.text(0.005, 1 - 0.12 / height, note, fontsize=9, color=style.SOFT, va="center")
    return figure


def where(curve: Curve, column: int) -> Float[np.ndarray, "s"]:
    """The strengths of a method on one of the three axes."""
    if column == 0:
        return pressure(curve) if reports_pressure(curve) else np.full(len(curve.strengths), np.nan)
    proxy = curve.value("proxy")
    return proxy - proxy[0] if column == 1 else relative(curve.strengths)


def relative(strengths: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s"]:
    """The strengths on one scale: 0 the weakest, 1 the largest, and from 0.1 on even in the logarithm."""
    if len(strengths) == 1:
        return np.zeros(1)
    logs = np.log(strengths[1:])
    return np.append(0.0, 0.1 + 0.9 * (logs - logs[0]) / max(logs[-1] - logs[0], 1e-9))


def _panel(axes: Axes, column: int, by_method: dict[str, Curve], mine: list[Curve], measure: str) -> None:
    methods = split(by_method)[0]
    for method, curve in methods.items():
        if method not in [each.method for each in mine] and method != "prior":
            axes.plot(where(curve, column), curve.value(measure), color=style.FAINT, linewidth=0.8, zorder=1)
    silent = []
    for colour, curve in zip(np.resize(COLOURS, len(mine)), mine, strict=True):
        x, band, label = where(curve, column), curve.bands[measure], style.look(curve.method).label
        if not np.isfinite(x).any():
            silent.append(label)
            continue
        axes.fill_between(x, band.low, band.high, color=colour, alpha=0.15, linewidth=0, zorder=2)
        axes.plot(x, band.value, color=colour, linewidth=1.5, zorder=3, label=label)
        axes.plot(x, band.value, "o", color=colour, markerfacecolor="white", markersize=4, zorder=4)
        good = curve.feasible
        axes.plot(x[good], band.value[good], "o", color=colour, markersize=4.5, zorder=5)
        if measure == "delivered":
            axes.plot(x, curve.value("promised"), color=colour, linewidth=0.9, linestyle=(0, (1, 1.4)), zorder=2)
    if "prior" in methods:
        axes.axhline(methods["prior"].value(measure)[0], color=style.SOFT, linewidth=0.7, linestyle="--", zorder=1)
    beyond = "promised" if measure == "delivered" else measure
    reach(axes, "y", known(methods.values(), measure), known(methods.values(), beyond))
    if column < 2:
        every = np.concatenate([where(curve, column) for curve in methods.values()])
        _logarithmic(axes, (1.0, 3.0)[column], every[np.isfinite(every)])
    else:
        axes.set_xticks([0, 0.1, 1], ["weakest", "", "largest"])
        place = {
            "loc": "upper left",
            "bbox_to_anchor": (1.02, 1.0),
            "handlelength": 1.4,
        }  # beside the panel: curves fill the panel
        axes.legend(**place, fontsize=7.5, edgecolor="none", borderaxespad=0, labelspacing=0.25)
    if silent and column == 0:
        words = "no pressure reported:\n" + "\n".join(silent)
        axes.text(0.98, 0.97, words, fontsize=7.5, color=style.SOFT, ha="right", va="top", transform=axes.transAxes)


def _logarithmic(axes: Axes, linear: float, values: Float[np.ndarray, "n"]) -> None:
    """A horizontal axis with zero and all values: linear at first, then logarithmic."""
    least, largest = float(values.min(initial=0)), float(values.max(initial=0))
    if largest > linear:
        axes.set_xscale("symlog", linthresh=linear)
        tens = 10.0 ** np.arange(0, np.log10(largest) + 0.2)
        ticks = [0, *tens[:: -(-len(tens) // 4)]]
        axes.set_xticks(ticks, [f"{tick:g}" if tick < 1e4 else f"{tick:.0e}".replace("e+0", "e") for tick in ticks])
        axes.minorticks_off()
    axes.set_xlim(1.1 * least - 0.1 * min(linear, largest or 1), 1.6 * (largest or 1))
