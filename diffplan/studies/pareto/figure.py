"""The figure of the study of two rewards: fronts in gold and in proxy, with perfect and with learned raters."""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.report import figure as frontier
from diffplan.report import style

LOOKS = {
    "sum": ("summed energies (exact)", "#16537e", "o"),
    "mixture": ("mixture of the two tilts (exact)", "#5b6470", "s"),
    "guided": ("guided by the summed energies", "#e2571e", "D"),
}


def figure(directory: Path) -> Path:
    """Writes figure.png beside study.csv."""
    with (directory / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    with mpl.rc_context(frontier.RC):
        draws = Figure(figsize=(11, 4.7))
        grid = draws.add_gridspec(1, 3, left=0.06, right=0.985, top=0.9, bottom=0.23, wspace=0.2)
        panels = (("perfect", "gold"), ("learned", "gold"), ("learned", "proxy"))
        titles = ("Perfect raters: gold", "Raters of 300 labels: gold", "Raters of 300 labels: proxy")
        axes = [draws.add_subplot(grid[k]) for k in range(3)]
        for one, (reward_model, what), title in zip(axes, panels, titles, strict=True):
            panel(one, rows, reward_model, what)
            one.set_title(title, loc="left", fontsize=11)
        limits = [max(one.get_xlim()[1] for one in axes), max(one.get_ylim()[1] for one in axes)]
        for one in axes:
            one.set(xlim=(-0.2, limits[0]), ylim=(-0.2, limits[1]))
        draws.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=9, frameon=False)
        frontier.save_png(draws, directory / "figure.png")
    return directory / "figure.png"


def panel(axes: Axes, rows: list[dict[str, str]], reward_model: str, what: str) -> None:
    """Mean fronts over seeds, thick; single seeds' thin."""
    for method, (label, colour, marker) in LOOKS.items():
        mine = [row for row in rows if (row["reward_model"], row["method"]) == (reward_model, method)]
        seeds = sorted({row["seed"] for row in mine})
        points = np.array(
            [[[float(row[f"{what}_{i}"]) for i in (1, 2)] for row in mine if row["seed"] == seed] for seed in seeds]
        )
        if method == "sum":
            for one in points:
                axes.plot(*one.T, color=colour, linewidth=0.6, alpha=0.35)
        mean = points.mean(axis=0).T
        axes.plot(*mean, color=colour, linewidth=2, marker=marker, markersize=4.5, label=label)
    axes.plot(0, 0, "*", color=style.INK, markersize=11)
    axes.annotate("prior", (0, 0), (5, 5), textcoords="offset points", fontsize=9)
    axes.set_xlabel(f"{what} of the first reward (sd)")
    axes.set_ylabel(f"{what} of the second reward (sd)")
