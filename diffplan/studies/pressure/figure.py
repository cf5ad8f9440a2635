"""The figure of the study of pressure: gold against sqrt(KL) for every number of labels, and for every method."""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.statistics import mean_interval
from diffplan.report import figure as frontier
from diffplan.report import style

SHADES = ("#c9ddec", "#98bfdc", "#5f9cc9", "#2f78ad", "#16537e", "#0a2f4a")
COLOURS = ("#e2571e", "#3a8f6a", "#9b6bb3", "#c69214", "#4b9cd3", "#8c564b", "#d1618f", "#5b6470", "#7f9f3f")
FAR = 12.0
"""Nats shown."""


class Table(dict[str, np.ndarray]):
    """Columns of study.csv."""

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Text columns as text, others as numbers."""
        with path.open() as file:
            rows = list(csv.DictReader(file))
        text = ("method", "kl_is")
        number = lambda cell: float(cell) if cell else np.nan
        return cls(
            {name: np.array([row[name] if name in text else number(row[name]) for row in rows]) for name in rows[0]}
        )

    def curve(self, labels: float, method: str, axis: str, value: str) -> np.ndarray:
        """Rows of (axis, mean, low, high) over seeds, by rising strength."""
        mine = (self["labels"] == labels) & (self["method"] == method)
        points = []
        for strength in np.unique(self["strength"][mine]):
            cell = mine & (self["strength"] == strength)
            result = mean_interval(self[value][cell])
            points.append((self[axis][cell].mean(), result.value, result.low, result.high))
        return np.array(points)


def figure(directory: Path) -> Path:
    """Writes figure.png beside study.csv."""
    table = Table.read(directory / "study.csv")
    with mpl.rc_context(frontier.RC):
        draws = Figure(figsize=(11, 8.8))
        grid = draws.add_gridspec(2, 2, left=0.07, right=0.985, top=0.95, bottom=0.15, hspace=0.32, wspace=0.17)
        axes = [draws.add_subplot(grid[k // 2, k % 2]) for k in range(4)]
        by_labels(axes[0], table, "exact tilt")
        by_labels(axes[1], table, "best of n")
        by_method(axes[2], table, "kl")
        by_method(axes[3], table, "proxy_gain")
        handles, names = axes[3].get_legend_handles_labels()
        draws.legend(handles, names, loc="lower center", ncols=6, fontsize=8.5, frameon=False)
        frontier.save_png(draws, directory / "figure.png")
    return directory / "figure.png"


def by_labels(axes: Axes, table: Table, method: str) -> None:
    """Gold against sqrt(KL), a line for each number of labels."""
    counts = np.unique(table["labels"])
    for labels, colour in zip(counts, np.resize(SHADES, len(counts)), strict=True):
        points = table.curve(labels, method, "kl", "gold_gain")
        points = points[points[:, 0] <= FAR]
        d = np.sqrt(points[:, 0])
        axes.fill_between(d, points[:, 2], points[:, 3], color=colour, alpha=0.25, linewidth=0)
        axes.plot(d, points[:, 1], color=colour, linewidth=1.8, marker="o", markersize=3, label=f"{labels:,.0f}")
    axes.legend(title="labels", fontsize=8, frameon=False, loc="upper left", labelspacing=0.2)
    axes.set_xlabel("d = sqrt(KL), nats")
    axes.set_ylabel("gain in gold (sd under the prior)")
    axes.set_title(f"{method[0].upper()}{method[1:]}, by the labels its rater saw", loc="left", fontsize=11)


def by_method(axes: Axes, table: Table, axis: str, labels: float = 300) -> None:
    """Gold when carried out, against pressure or proxy gain, a line for each method."""
    methods = [method for method in dict.fromkeys(table["method"].tolist()) if method != "prior"]
    silent = []
    looks = zip(
        methods, np.resize(COLOURS, len(methods)), (k // len(COLOURS) for k in range(len(methods))), strict=True
    )
    for method, colour, again in looks:
        points = table.curve(labels, method, axis, "gold_acted")
        points = points[np.argsort(points[:, 0])]
        x = np.sqrt(np.maximum(points[:, 0], 0)) if axis == "kl" else points[:, 0]
        if not np.isfinite(x).any():
            silent.append(method)
            continue
        main = method == "exact tilt"
        look = {"color": style.INK if main else colour, "linewidth": 2.4 if main else 1.4}
        axes.plot(x, points[:, 1], **look, linestyle="--" if again else "-", label=method)
        axes.plot(x, points[:, 1], "s" if again else "o", color=look["color"], markersize=3.5)
    axes.set_ylabel("gain in gold, carried out (sd)")
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
