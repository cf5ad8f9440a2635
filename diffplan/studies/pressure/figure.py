"""The figure of the study of pressure: gold against sqrt(KL) for every number of labels, and for every method."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.table import Table, matching
from diffplan.report import style
from diffplan.studies.drawing import band, curve, of_seeds

SHADES = ("#c9ddec", "#98bfdc", "#5f9cc9", "#2f78ad", "#16537e", "#0a2f4a")
COLOURS = ("#e2571e", "#3a8f6a", "#9b6bb3", "#c69214", "#4b9cd3", "#8c564b", "#d1618f", "#5b6470", "#7f9f3f")
FAR = 12.0
"""Nats shown."""


def compose(table: Table) -> Figure:
    """The whole figure: gold by labels along two exact curves; gold of every method on two axes."""
    figure = Figure(figsize=(11, 8.8))
    grid = figure.add_gridspec(2, 2, left=0.07, right=0.985, top=0.95, bottom=0.15, hspace=0.32, wspace=0.17)
    for column, method in enumerate(("exact tilt", "best of n")):
        by_labels(figure.add_subplot(grid[0, column]), table, method)
    for column, axis in enumerate(("kl", "proxy_gain")):
        by_method(figure.add_subplot(grid[1, column]), table, axis)
    names = figure.axes[3].get_legend_handles_labels()
    figure.legend(*names, loc="lower center", ncols=6, fontsize=8.5, frameon=False)
    return figure


def by_labels(axes: Axes, table: Table, method: str) -> None:
    """Gold against sqrt(KL), a line for each number of labels."""
    for k, labels in enumerate(np.unique(table["labels"])):
        points = curve(table, matching(table, labels=labels, method=method), "strength", "kl", "gold_gain")
        points = points[points[:, 0] <= FAR]
        look = {"linewidth": 1.8, "marker": "o", "markersize": 3, "alpha": 0.25}
        shade = SHADES[k % len(SHADES)]
        band(axes, np.sqrt(points[:, 0]), points[:, 1:], shade, label=f"{labels:,.0f}", **look)
    axes.legend(title="labels", fontsize=8, frameon=False, loc="upper left", labelspacing=0.2)
    axes.set_xlabel("d = sqrt(KL), nats")
    axes.set_ylabel("gain in gold (sd under the prior)")
    axes.set_title(f"{method[0].upper()}{method[1:]}, by the labels of its reward model", loc="left", fontsize=11)


def by_method(axes: Axes, table: Table, axis: str, labels: float = 300) -> None:
    """Delivered gold against pressure or proxy gain, a line for each method, over the seeds that all of them have."""
    shared = of_seeds(table, method="prior")
    methods = [method for method in dict.fromkeys(table["method"].tolist()) if method != "prior"]
    silent = []
    for k, method in enumerate(methods):
        again, which = divmod(k, len(COLOURS))
        points = curve(
            table, shared & matching(table, labels=labels, method=method), "strength", axis, "gold_delivered"
        )
        points = points[np.argsort(points[:, 0])]
        x = np.sqrt(np.maximum(points[:, 0], 0)) if axis == "kl" else points[:, 0]
        if not np.isfinite(x).any():
            silent.append(method)
            continue
        main = method == "exact tilt"
        look = {"color": style.INK if main else COLOURS[which], "linewidth": 2.4 if main else 1.4}
        axes.plot(x, points[:, 1], **look, linestyle="--" if again else "-", label=method)
        axes.plot(x, points[:, 1], "s" if again else "o", color=look["color"], markersize=3.5)
    axes.set_ylabel("gain in delivered gold (sd)")
    if axis == "kl":
        axes.set_xlim(-0.1, np.sqrt(2 * FAR))
        axes.set_xlabel("sqrt(path KL, or exact where known), nats")
        axes.set_title(f"Every method, {labels:.0f} labels, against pressure", loc="left", fontsize=11)
        words = "no pressure reported:\n" + "\n".join(silent)
        axes.text(0.02, 0.98, words, fontsize=7, color=style.SOFT, va="top", transform=axes.transAxes)
    else:
        axes.set_xscale("symlog", linthresh=6)
        axes.set_xlabel("gain in proxy (sd under the prior)")
        axes.set_title(f"Every method, {labels:.0f} labels, against proxy gain", loc="left", fontsize=11)
