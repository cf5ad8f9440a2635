"""The figure of the study of two rewards: fronts in gold and in proxy, with perfect and with learned reward models."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.table import Table, matching
from diffplan.report import style
from diffplan.studies.drawing import curve, of_seeds

LOOKS = {
    "sum": ("summed energies (exact)", "#16537e", "o"),
    "mixture": ("mixture of the two tilts (exact)", "#5b6470", "s"),
    "guided": ("guided by the summed energies", "#e2571e", "D"),
}


def compose(table: Table) -> Figure:
    """The whole figure: three panels on one scale."""
    figure = Figure(figsize=(11, 4.7))
    grid = figure.add_gridspec(1, 3, left=0.06, right=0.985, top=0.9, bottom=0.23, wspace=0.2)
    panels = (("perfect", "gold"), ("learned", "gold"), ("learned", "proxy"))
    titles = ("Perfect reward models: gold", "Reward models of 300 labels: gold", "Reward models of 300 labels: proxy")
    axes = [figure.add_subplot(grid[k]) for k in range(3)]
    for one, (reward_model, what), title in zip(axes, panels, titles, strict=True):
        panel(one, table, reward_model, what)
        one.set_title(title, loc="left", fontsize=11)
    limits = [max(one.get_xlim()[1] for one in axes), max(one.get_ylim()[1] for one in axes)]
    for one in axes:
        one.set(xlim=(-0.2, limits[0]), ylim=(-0.2, limits[1]))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def panel(axes: Axes, table: Table, reward_model: str, what: str) -> None:
    """Mean fronts over the seeds of guidance as thick lines; the sum's front of each seed as a thin one."""
    names = f"{what}_1", f"{what}_2"
    for method, (label, colour, marker) in LOOKS.items():
        rows = of_seeds(table, method="guided") & matching(table, reward_model=reward_model, method=method)
        for seed in np.unique(table["seed"][rows]) if method == "sum" else ():
            one = rows & (table["seed"] == seed)
            axes.plot(*(table[name][one] for name in names), color=colour, linewidth=0.6, alpha=0.35)
        mean = curve(table, rows, "fraction", *names)
        axes.plot(*mean[:, :2].T, color=colour, linewidth=2, marker=marker, markersize=4.5, label=label)
    axes.plot(0, 0, "*", color=style.INK, markersize=11)
    axes.annotate("prior", (0, 0), (5, 5), textcoords="offset points", fontsize=9)
    axes.set_xlabel(f"{what} of the first reward (sd)")
    axes.set_ylabel(f"{what} of the second reward (sd)")
