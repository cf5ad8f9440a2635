"""The figure of the class that was left out: hits against the leak, and what the classifier says against the hits."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.table import Table, matching
from diffplan.report import style
from diffplan.studies.drawing import band, curve


class Line(NamedTuple):
    """A prior and what guides it, and how they are drawn."""

    network: str
    guide: str
    label: str
    colour: str
    marker: str
    dash: str | tuple[float, tuple[float, ...]]


LINES = (
    Line("joint", "perfect", "joint prior, perfect classifier", "#e2571e", "o", "-"),
    Line("joint", "learned", "joint prior, learned classifier", "#efa03b", "v", (0, (4, 1.5))),
    Line("joint", "density", "joint prior, density of the class", "#3a8f6a", "s", (0, (1, 1.2))),
    Line("local", "perfect", "local prior, perfect classifier", "#16537e", "D", "-"),
    Line("local", "learned", "local prior, learned classifier", "#4b9cd3", "^", (0, (4, 1.5))),
    Line("exact", "perfect", "exact prior, perfect classifier", style.INK, "P", (0, (4, 1.5, 1, 1.5))),
)


def compose(table: Table) -> Figure:
    """The whole figure: a column for each geometry."""
    names = list(dict.fromkeys(table["geometry"].tolist()))
    figure = Figure(figsize=(11, 6.6))
    grid = figure.add_gridspec(2, len(names), left=0.065, right=0.985, top=0.945, bottom=0.165, hspace=0.5, wspace=0.1)
    for row, panel in enumerate((against_leak, against_score)):
        for column, name in enumerate(names):
            axes = figure.add_subplot(grid[row, column])
            panel(axes, table, name)
            axes.set_ylim(-0.04, 1.04)
            axes.tick_params(labelleft=column == 0)
            axes.set_ylabel("" if column else "fraction of plans that hit")
    handles, labels = figure.get_axes()[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8.5, handlelength=3.5, frameon=False)
    return figure


def against_leak(axes: Axes, table: Table, name: str, scale: float = 10.0) -> None:
    """Hits at one scale, a line for each prior and guide; leaks stand side by side, the first of them none at all."""
    for i, line in enumerate(LINES):
        rows = matching(table, geometry=name, network=line.network, guide=line.guide, scale=scale)
        points = curve(table, rows, "leak", "leak", "hit")
        at = np.arange(len(points)) + 0.05 * (i - 2.5)  # side by side, where they are equal
        look = {"marker": line.marker, "linestyle": line.dash, "linewidth": 1.5, "markersize": 4, "alpha": 0.15}
        band(axes, at, points[:, 1:], line.colour, label=line.label, **look)
    leaks = np.unique(table["leak"])
    axes.set_xticks(np.arange(len(leaks)), [f"{100 * leak:g}" for leak in leaks])
    axes.set_xlabel("leak into training (%)")
    axes.set_title(f"{name}, scale {scale:g}", loc="left", fontsize=10.5)


def against_score(axes: Axes, table: Table, name: str) -> None:
    """Hits against the classifier's probability, for a class that was not in the data: a line through the scales, the
    largest hollow.
    """
    axes.plot([0, 1], [0, 1], color=style.FAINT, linewidth=1, zorder=0)
    for line in LINES:
        rows = matching(table, geometry=name, network=line.network, guide=line.guide, leak=0.0)
        score, hit = curve(table, rows, "scale", "score", "hit")[:, :2].T
        axes.plot(score, hit, color=line.colour, linestyle=line.dash, linewidth=1.2)
        axes.plot(score[:-1], hit[:-1], line.marker, color=line.colour, markersize=4)
        axes.plot(score[-1:], hit[-1:], line.marker, color=line.colour, markersize=6, markerfacecolor="white")
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("p(class | plan)")
    axes.set_title("no leak, scales 0 to 30 (hollow)", loc="left", fontsize=10.5)
