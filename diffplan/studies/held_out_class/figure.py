"""The figure of the class that was left out: hits against the leak, and what the classifier says against the hits."""

import csv
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.statistics import mean_interval
from diffplan.report import figure as frontier
from diffplan.report import style

TEXT = ("geometry", "network", "guide")


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


class Table(dict[str, np.ndarray]):
    """Columns of study.csv."""

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Text columns as text, others as numbers, NaN where a cell is empty."""
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        number = lambda cell: float(cell) if cell else np.nan
        return cls(
            {name: np.array([row[name] if name in TEXT else number(row[name]) for row in rows]) for name in rows[0]}
        )

    def curve(self, axis: str, value: str, where: dict[str, str | float]) -> Float[np.ndarray, "points 4"]:
        """Rows of (axis, mean, low, high) over seeds, by rising axis."""
        mine = np.all([self[name] == wanted for name, wanted in where.items()], axis=0)
        result = [
            (at, *mean_interval(self[value][mine & (self[axis] == at)])[:3]) for at in np.unique(self[axis][mine])
        ]
        return np.array(result)


def figure(directory: Path) -> Path:
    """Writes figure.png beside study.csv."""
    table = Table.read(directory / "study.csv")
    names = list(dict.fromkeys(table["geometry"].tolist()))
    with mpl.rc_context(frontier.RC):
        draws = Figure(figsize=(11, 6.6))
        grid = draws.add_gridspec(
            2, len(names), left=0.065, right=0.985, top=0.945, bottom=0.165, hspace=0.5, wspace=0.1
        )
        for c, name in enumerate(names):
            dose, said = draws.add_subplot(grid[0, c]), draws.add_subplot(grid[1, c])
            against_leak(dose, table, name)
            against_score(said, table, name)
            for axes in (dose, said):
                axes.set_ylim(-0.04, 1.04)
                axes.tick_params(labelleft=c == 0)
            if c == 0:
                dose.set_ylabel("share of plans that hit")
                said.set_ylabel("share of plans that hit")
        draws.legend(
            *dose.get_legend_handles_labels(),
            loc="lower center",
            ncols=3,
            fontsize=8.5,
            handlelength=3.5,
            frameon=False,
        )
        frontier.save_png(draws, directory / "figure.png")
    return directory / "figure.png"


def against_leak(axes: Axes, table: Table, name: str, scale: float = 10.0) -> None:
    """Hits at one scale, a line for each prior and guide; leaks stand side by side, the first of them none at all."""
    for i, line in enumerate(LINES):
        where = {"geometry": name, "network": line.network, "guide": line.guide, "scale": scale}
        points = table.curve("leak", "hit", where)
        at = np.arange(len(points)) + 0.05 * (i - 2.5)  # side by side, where they are equal
        axes.fill_between(at, points[:, 2], points[:, 3], color=line.colour, alpha=0.15, linewidth=0)
        axes.plot(
            at,
            points[:, 1],
            color=line.colour,
            marker=line.marker,
            linestyle=line.dash,
            linewidth=1.5,
            markersize=4,
            label=line.label,
        )
    leaks = np.unique(table["leak"])
    axes.set_xticks(np.arange(len(leaks)), [f"{100 * leak:g}" for leak in leaks])
    axes.set_xlabel("leak into training (%)")
    axes.set_title(f"{name}, scale {scale:g}", loc="left", fontsize=10.5)


def against_score(axes: Axes, table: Table, name: str) -> None:
    """What the classifier says of a class never seen, and what is so: a line through the scales, the largest hollow."""
    axes.plot([0, 1], [0, 1], color=style.FAINT, linewidth=1, zorder=0)
    for line in LINES:
        where = {"geometry": name, "network": line.network, "guide": line.guide, "leak": 0.0}
        hit = table.curve("scale", "hit", where)[:, 1]
        score = table.curve("scale", "score", where)[:, 1]
        axes.plot(score, hit, color=line.colour, linestyle=line.dash, linewidth=1.2)
        axes.plot(score[:-1], hit[:-1], line.marker, color=line.colour, markersize=4)
        axes.plot(score[-1:], hit[-1:], line.marker, color=line.colour, markersize=6, markerfacecolor="white")
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("p(class | plan)")
    axes.set_title("no leak, scales 0 to 30 (hollow)", loc="left", fontsize=10.5)
