"""The figure of the study of equal proxy: who leads the tilt, by reward model, and what takes the lead away."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import Table, matching
from diffplan.report import style
from diffplan.studies.drawing import band
from diffplan.studies.matched_proxy import study

LOOKS = {
    "short sight": ("short sight (4 steps)", "#e2571e", "o"),
    "prior's values": ("prior's values (regression)", "#c69214", "s"),
    "lazy walk": ("tilt of a lazy walk", "#3a8f6a", "^"),
    "restless walk": ("tilt of a restless walk", "#9b6bb3", "v"),
    "prior and optimum": ("prior and optimum, mixed", "#5b6470", "D"),
}
PANELS = {
    "weak penalty": "Weak penalty: 1/4000 of the right one",
    "weak, labels everywhere": "Weak penalty, labels from everywhere",
    "posterior mean": "Posterior mean (the right penalty)",
    "held out": "Penalty chosen by held-out labels",
}
MENDED = {
    "weak penalty": "weak penalty",
    "weak, ensemble": "mean of 8 bootstrapped models",
    "weak, other cells mended": "well-known cells mended",
    "weak, uncertain cells mended": "uncertain cells mended",
    "weak, labels everywhere": "labels from everywhere",
    "held out": "penalty by held-out labels",
    "posterior mean": "posterior mean",
}
WEAK, RIGHT = "#e2571e", "#16537e"
LEAD = "lead over the exact tilt\nat equal proxy (sd of gold)"


def compose(table: Table) -> Figure:
    """The whole figure: the lead by number of labels on four reward models; below, what makes and mends it."""
    figure = Figure(figsize=(13, 8.2))
    top = figure.add_gridspec(1, 4, left=0.075, right=0.985, top=0.945, bottom=0.60, wspace=0.08)
    axes = [figure.add_subplot(top[k]) for k in range(4)]
    for one, (name, title) in zip(axes, PANELS.items(), strict=True):
        by_labels(one, table, name)
        one.set_title(title, loc="left", fontsize=10)
    limits = min(one.get_ylim()[0] for one in axes), max(one.get_ylim()[1] for one in axes)
    for k, one in enumerate(axes):
        one.set_ylim(limits)
        if k:
            one.set_yticklabels([])
    axes[0].set_ylabel(LEAD)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="center", bbox_to_anchor=(0.5, 0.515), ncols=5, frameon=False
    )
    low = {"top": 0.44, "bottom": 0.075}
    by_penalty(figure.add_subplot(figure.add_gridspec(1, 1, left=0.075, right=0.30, **low)[0]), table)
    by_mending(figure.add_subplot(figure.add_gridspec(1, 1, left=0.475, right=0.66, **low)[0]), table)
    by_method(figure.add_subplot(figure.add_gridspec(1, 1, left=0.80, right=0.985, **low)[0]), table)
    return figure


def leads(table: Table, by: str, **where: object) -> np.ndarray:
    """(entry, mean lead, low, high) for each entry of a column."""
    rows, lead = matching(table, **where), table["gold"] - table["tilt_gold"]
    entries = np.unique(table[by][rows])
    return np.array([(entry, *mean_interval(lead[rows & (table[by] == entry)])[:3]) for entry in entries])


def by_labels(axes: Axes, table: Table, reward_model: str) -> None:
    """The lead of every stand-in against the number of labels."""
    axes.axhline(0, color=style.INK, linewidth=1)
    for method, (label, colour, marker) in LOOKS.items():
        points = leads(table, "labels", reward_model=reward_model, method=method)
        band(axes, points[:, 0], points[:, 1:], colour, label=label, marker=marker, markersize=4, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xticks(study.LABELS, [f"{labels:,}" for labels in study.LABELS])
    axes.minorticks_off()
    axes.set_xlabel("labels, on paths " + ("from everywhere" if "everywhere" in reward_model else "of the prior"))
    axes.grid(axis="y", alpha=0.25)


def by_penalty(axes: Axes, table: Table) -> None:
    """The lead of every stand-in against the penalty, in units of the right one."""
    axes.axhline(0, color=style.INK, linewidth=1)
    axes.axvline(1, color=RIGHT, linewidth=1, linestyle=":")
    names = np.unique(table["reward_model"])
    swept = [name for name in names if name in ("weak penalty", "posterior mean") or name.startswith("penalty ")]
    for method, (_, colour, marker) in LOOKS.items():
        parts = [leads(table, "penalty", reward_model=name, method=method, labels=study.FEW) for name in swept]
        points = np.concatenate(parts)
        points = points[np.argsort(points[:, 0])]
        band(axes, points[:, 0], points[:, 1:], colour, marker=marker, markersize=4, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xlabel("penalty, in units of the posterior mean's")
    axes.set_ylabel(LEAD)
    axes.set_title("300 labels, by penalty", loc="left", fontsize=10)
    axes.grid(axis="y", alpha=0.25)


def by_mending(axes: Axes, table: Table) -> None:
    """The lead of short sight at 300 labels on every reward model, as dots with intervals."""
    points = [leads(table, "labels", reward_model=name, method="short sight", labels=study.FEW)[0] for name in MENDED]
    dots(axes, np.array(points), RIGHT, 0.0, None)
    labels_on(axes, list(MENDED.values()))
    axes.set_title("300 labels: what takes away the lead of short sight", loc="right", fontsize=10)


def by_method(axes: Axes, table: Table) -> None:
    """The leads of methods at 300 labels on two reward models."""
    names = (*study.REAL, study.CONTROL)
    for name, colour, shift, label in (
        ("weak penalty", WEAK, -0.14, "weak penalty"),
        ("posterior mean", RIGHT, 0.14, "posterior mean"),
    ):
        points = [leads(table, "labels", reward_model=name, method=method)[0] for method in names]
        dots(axes, np.array(points), colour, shift, label)
    labels_on(axes, [name if name != study.CONTROL else "guided, exact\n(samples the tilt)" for name in names])
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set_title("300 labels: methods", loc="left", fontsize=10)


def dots(axes: Axes, points: np.ndarray, colour: str, shift: float, label: str | None) -> None:
    """Means with their intervals, one below the other."""
    y = np.arange(len(points)) + shift
    error = np.abs(points[:, 2:].T - points[:, 1])
    axes.errorbar(points[:, 1], y, xerr=error, fmt="o", color=colour, markersize=5, linewidth=1.6, label=label)


def labels_on(axes: Axes, names: list[str]) -> None:
    """Names on the vertical axis, the first on top."""
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0, color=style.INK, linewidth=1)
    axes.set_xlabel("lead over the exact tilt (sd of gold)")
    axes.grid(axis="x", alpha=0.25)
