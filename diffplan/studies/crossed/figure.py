"""The figure of the crossed comparison: what every method delivers, and its paired difference to guidance."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.report import style
from diffplan.studies.crossed.analysis import BEHAVIOUR, Difference, Row, apart, clusters_of, controls_of, delivered_by
from diffplan.studies.crossed.protocol import BUDGETS, INFORMED, METHODS, REFERENCE

COLOURS = dict(zip(BUDGETS, ("#4b9cd3", "#16537e"), strict=True))
SHIFT = 0.18
"""Of the rows of the two budgets, up and down."""
NOTE = (
    "Small marks: means of the three cells of a world and a reward; bars: means over all. Right: corrected 95 % "
    "intervals, filled where a difference is shown. † acts in the true dynamics."
)
MARKERS = {"umaze": "o", "rooms": "s", "pendulum": "^"}


def compose(rows: list[Row], tests: list[Difference]) -> Figure:
    """Two panels that share their rows: methods, from the highest delivered return at the larger budget down."""
    means = {method: np.mean(list(clusters_of(delivered_by(rows, method, BUDGETS[-1])).values())) for method in METHODS}
    order = sorted(METHODS, key=lambda method: np.nan_to_num(means[method], nan=-np.inf))
    figure = Figure(figsize=(12.5, 6.2))
    grid = figure.add_gridspec(1, 2, left=0.235, right=0.985, top=0.92, bottom=0.18, wspace=0.05)
    left, right = (figure.add_subplot(grid[k]) for k in range(2))
    returns(left, rows, order)
    differences(right, tests, order)
    for axes in (left, right):
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_yticks(range(len(order)))
        axes.tick_params(axis="y", length=0)
    left.set_yticklabels([label(method) for method in order])
    right.set_yticklabels([])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=6, fontsize=9, frameon=False, bbox_to_anchor=(0.5, 0.035))
    figure.text(0.5, 0.015, NOTE, ha="center", fontsize=8.5, color=style.SOFT)
    return figure


def label(method: str) -> str:
    """A method's name; a dagger where it acts in the true dynamics."""
    return style.look(method).label + (" †" if method in INFORMED else "")


def returns(axes: Axes, rows: list[Row], order: list[str]) -> None:
    """Delivered returns above behaviour's: a dot for each world and reward, a bar for their mean."""
    base = controls_of(rows, BEHAVIOUR)
    for budget, side in zip(BUDGETS, (-SHIFT, SHIFT), strict=True):
        for row, method in enumerate(order):
            above = clusters_of(apart(delivered_by(rows, method, budget), base))
            for name, value in above.items():
                axes.plot(
                    value, row + side, MARKERS[name.split()[0]], color=COLOURS[budget], alpha=0.45, markersize=4.5
                )
            axes.plot(np.mean(list(above.values())), row + side, "|", color=COLOURS[budget], markersize=15, mew=2.5)
    for name, marker in MARKERS.items():
        axes.plot([], [], marker, color=style.SOFT, linestyle="none", label=name)
    for budget, colour in COLOURS.items():
        axes.plot(
            [], [], "|", color=colour, markersize=12, mew=2.5, linestyle="none", label=f"{1000 * budget:g} ms a plan"
        )
    axes.axvline(0, color=style.FAINT, linewidth=1, zorder=0)
    axes.set_title("What plans deliver, above behaviour", loc="left", fontsize=11)
    axes.set_xlabel("delivered return, sd of behaviour's returns")


def differences(axes: Axes, tests: list[Difference], order: list[str]) -> None:
    """Paired differences to guidance with corrected intervals; filled where one is shown."""
    for budget, side in zip(BUDGETS, (-SHIFT, SHIFT), strict=True):
        for each in tests:
            if each.budget == budget and each.name in order:
                at, shown = order.index(each.name) + side, each.verdict != "no difference shown"
                axes.plot([each.low, each.high], [at, at], color=COLOURS[budget], linewidth=1.8)
                face = COLOURS[budget] if shown else "white"
                axes.plot(each.mean, at, "o", color=COLOURS[budget], markerfacecolor=face, markersize=6)
    axes.axvline(0, color=style.INK, linewidth=1, zorder=0)
    axes.annotate("guided", (0, order.index(REFERENCE)), (4, -3), textcoords="offset points", fontsize=9)
    axes.set_title("Difference to guidance at the same budget", loc="left", fontsize=11)
    axes.set_xlabel("difference in delivered return, sd of behaviour's returns")
