"""The figure of the study of the painted goal, from its study.csv alone.

    A  gold against nats along the exact tilt, a line for what the paint seems to pay
    B  how sudden it is: the fraction of plans hacked, against the weight in units of the predicted one
    C  gold against nats for ensembles of reward models
    D  other ways of pushing: the fraction of plans hacked at equal nats, gold at equal proxy gain
    E  the same comparison at every mass and pressure: D of (166), and whether it is decided

A, C and D are at mass 1e-3, and D and E at bonus 2. Lines are means over seeds with their 95 % intervals.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import Table, matching
from diffplan.report import style
from diffplan.studies.drawing import band
from diffplan.studies.findings import below, mapped
from diffplan.studies.potemkin.verdict import BONUS, MASS, compared

SHADES = ("#9fc3de", "#5b9bc8", "#16537e", "#0b2a40")
"""From little to much."""
METHODS = {
    "tilt": ("tilt, exact", style.BROKEN, "o"),
    "chi_squared": ("chi-squared", "#c69214", "^"),
    "best_of_n": ("best of n", style.INK, "s"),
    "quantiliser": ("quantiliser", "#9b6bb3", "D"),
    "occupancy": ("occupancy", "#3a8f6a", "v"),
}
LEGEND = {"title_fontsize": 8, "fontsize": 8, "frameon": False}
GOLD_BY_NATS = {
    **{"xlabel": "pressure (nats)", "ylabel": "gold (steps in the goal)"},
    **{"xlim": (0, 16), "ylim": (0, 16), "xticks": range(0, 17, 4)},
}
REWARD_MODELS = {
    "one": ("one reward model, fooled", style.BROKEN, "-"),
    "mean": ("mean of five, all fooled", "#c69214", (0, (4, 1.5))),
    "least": ("least of five, all fooled", "#8c564b", (0, (1, 1.2))),
    "least, one blind": ("least of five, one blind", "#3a8f6a", "-"),
    "cautious, one blind": ("mean $-$ 2 variance, one blind", "#4b9cd3", (0, (4, 1.5))),
    "blind": ("one reward model, blind to the paint", style.INK, (0, (1, 1.2))),
}


def along(table: Table, x: str, y: str, grid: Float[np.ndarray, "g"], **where: Any) -> Float[np.ndarray, "g 3"]:
    """(mean, low, high) of y over seeds, between rows, at points of x; NaN beyond what every seed reaches.

    Seeds without a finite x have no line: where there is no transition, there is no weight to predict.
    """
    lines = []
    for seed in np.unique(table["seed"]):
        rows = matching(table, seed=seed, **where) & np.isfinite(table[x])
        order = np.argsort(table[x][rows])
        if rows.any():
            lines.append(np.interp(grid, table[x][rows][order], table[y][rows][order], right=np.nan))
    missing = (np.nan, np.nan, np.nan)
    return np.array([mean_interval(at)[:3] if np.isfinite(at).all() else missing for at in np.array(lines).T])


def compose(table: Table) -> Figure:
    """The whole figure, 11 x 10.2 inches."""
    figure = Figure(figsize=(11, 10.2))
    top = figure.add_gridspec(1, 3, left=0.06, right=0.985, top=0.935, bottom=0.692, wspace=0.24)
    bottom = figure.add_gridspec(1, 2, left=0.06, right=0.985, top=0.572, bottom=0.329, wspace=0.14)
    last = figure.add_gridspec(1, len(METHODS) - 1, left=0.06, right=0.985, top=0.205, bottom=0.055, wspace=0.1)
    bonuses, collapse, ensembles = (figure.add_subplot(top[i]) for i in range(3))
    hacked, gold = (figure.add_subplot(bottom[i]) for i in range(2))
    draw_bonuses(bonuses, table)
    draw_collapse(collapse, table)
    draw_ensembles(ensembles, table)
    draw_methods(hacked, gold, table)
    maps = [figure.add_subplot(last[i]) for i in range(len(METHODS) - 1)]
    draw_maps(maps, table)
    for axes, left, letter, words in (
        (bonuses, -0.13, "A", "Gold along the exact tilt"),
        (collapse, -0.13, "B", "The fall, against its prediction"),
        (ensembles, -0.13, "C", "Several reward models"),
        (hacked, -0.085, "D", "Other ways of pushing, at equal nats"),
        (gold, 0.0, "", "and at equal proxy gain"),
        (maps[0], -0.19, "E", "Hacked less than the tilt (\u2212) or more (+) at equal nats, or open (?)"),
    ):
        up = 1.26 if axes is maps[0] else 1.08
        axes.text(left, up, letter, fontsize=14, fontweight="bold", transform=axes.transAxes)
        axes.text(0, up, words, fontsize=11.5, transform=axes.transAxes)
    return figure


def draw_bonuses(axes: Axes, table: Table) -> None:
    """Part A, with the peak of the mean marked."""
    grid = np.linspace(0, 16, 161)
    for colour, bonus in zip(SHADES, (0.5, 1.0, 2.0, 4.0), strict=True):
        result = along(table, "kl", "gold", grid, part="tilt", reward_model="one", mass=MASS, bonus=bonus)
        band(axes, grid, result, colour, linewidth=1.8, label=f"{bonus:g}")
        peak = int(np.nanargmax(result[:, 0]))
        if peak < np.flatnonzero(np.isfinite(result[:, 0]))[-1]:
            axes.plot(grid[peak], result[peak, 0], "o", color=colour, markersize=5)
    axes.legend(title="paint seems to pay\n(the goal pays 1)", **LEGEND, loc="upper left")
    axes.set(**GOLD_BY_NATS)


def draw_collapse(axes: Axes, table: Table) -> None:
    """Part B: weights over the predicted weight, seed by seed."""
    ratio, where = np.full(len(table["seed"]), np.nan), {"part": "tilt", "reward_model": "one", "bonus": BONUS}
    for row in np.flatnonzero(matching(table, part="transition", reward_model="one", bonus=BONUS)):
        same = matching(table, **where, mass=table["mass"][row], seed=table["seed"][row])
        ratio[same] = table["strength"][same] / table["predicted"][row]
    table = table | {"ratio": ratio}
    grid = np.geomspace(0.25, 4, 121)
    masses = np.unique(table["mass"])[::2]
    for colour, mass in zip(SHADES[::-1], masses, strict=False):
        result = along(table, "ratio", "p_hack", grid, **where, mass=mass)
        band(axes, grid, result, colour, linewidth=1.8, label=f"$10^{{{round(np.log10(mass))}}}$")
    axes.axvline(1, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.axhline(0.5, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    axes.legend(title="prior mass\nof the paint", **LEGEND, loc="upper left")
    axes.set(xlabel="weight / predicted weight", ylabel="fraction of plans hacked", xlim=(0.25, 4), ylim=(-0.02, 1.02))


def draw_ensembles(axes: Axes, table: Table) -> None:
    """Part C."""
    grid = np.linspace(0, 16, 161)
    for reward_model, (label, colour, dash) in REWARD_MODELS.items():
        result = along(table, "kl", "gold", grid, part="tilt", reward_model=reward_model, mass=MASS, bonus=BONUS)
        axes.plot(grid, result[:, 0], color=colour, linestyle=dash, linewidth=1.8, label=label)
    axes.legend(fontsize=7, frameon=False, labelspacing=0.2, loc="center right", bbox_to_anchor=(1.02, 0.47))
    axes.set(**GOLD_BY_NATS)


def draw_methods(hacked: Axes, gold: Axes, table: Table) -> None:
    """Part D. Means of shares that span decades are of their logarithms."""
    logs = np.log(np.maximum(table["p_hack"], 1e-12))
    for method, (label, colour, marker) in METHODS.items():
        for axes, by, column in ((hacked, "kl", "p_hack"), (gold, "gain", "gold")):
            where = {"part": "matched", "reward_model": "one", "mass": MASS, "bonus": BONUS, "method": method, "by": by}
            grid = np.unique(table["at"][matching(table, **where)])
            result = along(table | {"p_hack": logs}, "at", column, grid, **where)
            result = np.exp(result) if column == "p_hack" else result
            band(axes, grid, result, colour, linewidth=1.5, marker=marker, markersize=5, label=label)
    hacked.set_yscale("log")
    hacked.axhline(MASS, color=style.SOFT, linewidth=0.7, linestyle=(0, (1, 1.6)))
    hacked.text(8, MASS * 1.1, "prior", fontsize=8, color=style.SOFT, ha="right", va="bottom")
    hacked.set(xlabel="pressure (nats)", ylabel="fraction of plans hacked")
    gold.set(xlabel="proxy gain (sd of the prior)", ylabel="gold (steps in the goal)", ylim=(0, None))
    hacked.legend(fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.08))


def draw_maps(panels: list[Axes], table: Table) -> None:
    """Part E: D of (166) as a colour, and the verdict of each cell as a sign."""
    signs = {"supported": "\u2212", "falsified": "+", "inconclusive": "?"}
    names = [name for name in METHODS if name != "tilt"]
    for axes, name in zip(panels, names, strict=True):
        every = mapped(below, name, compared(table, "p_hack", name, "kl"), 0.0).cells
        cells = [cell for cell in every if cell.where["bonus"] == BONUS]
        masses, nats = (sorted({cell.where[axis] for cell in cells}) for axis in ("mass", "nats"))
        image = np.full((len(masses), len(nats)), np.nan)
        for cell in cells:
            row, column = masses.index(cell.where["mass"]), nats.index(cell.where["nats"])
            image[row, column] = cell.estimate
            axes.text(column, row, signs[cell.verdict], ha="center", va="center", fontsize=10)
        axes.imshow(image, cmap="RdBu_r", vmin=-1.5, vmax=1.5, aspect="auto", origin="lower")
        axes.set_xticks(range(len(nats)), [f"{at:g}" for at in nats])
        axes.set_yticks(range(len(masses)), [f"$10^{{{round(np.log10(mass))}}}$" for mass in masses])
        axes.tick_params(labelleft=axes is panels[0])
        axes.set_title(METHODS[name][0], fontsize=9.5, loc="left")
        axes.set_xlabel("pressure (nats)")
    panels[0].set_ylabel("prior mass")
