"""The figure of the study of candidates: score, delivered return and optimism against n, for each number of labels."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.table import Table, matching
from diffplan.report import style
from diffplan.studies.candidates.study import LABELS
from diffplan.studies.drawing import band, curve

COLOURS = dict(zip(LABELS, ("#e2571e", "#efa03b", "#9b6bb3", "#4b9cd3", "#16537e"), strict=True))
PANELS = {
    "score": ("What the critic says", "score, sd of the data"),
    "delivered": ("What plans deliver", "delivered return, steps in the target"),
    "optimism": ("What they promise beyond it", "promised less delivered return, steps"),
}


def compose(table: Table) -> Figure:
    """The whole figure: three panels over n."""
    figure = Figure(figsize=(12, 4.4))
    grid = figure.add_gridspec(1, 3, left=0.055, right=0.985, top=0.9, bottom=0.25, wspace=0.22)
    for number, (name, (title, words)) in enumerate(PANELS.items()):
        axes = figure.add_subplot(grid[number])
        panel(axes, table, name)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set(xscale="log", xlabel="candidates n", ylabel=words)
        axes.set_xticks(10.0 ** np.arange(4), [f"{10**k:,}" for k in range(4)])
        axes.minorticks_off()
        if number == 0:
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(LABELS), fontsize=9, frameon=False)
    return figure


def panel(axes: Axes, table: Table, name: str) -> None:
    """One column against n, with its interval over seeds, for each number of labels."""
    for labels, colour in COLOURS.items():
        points = curve(table, matching(table, labels=labels), "n", "n", name)
        band(axes, points[:, 0], points[:, 1:], colour, linewidth=2, label=f"critic of {labels:,} labels")
    if name == "optimism":
        axes.axhline(0, color=style.FAINT, linewidth=1, zorder=0)
