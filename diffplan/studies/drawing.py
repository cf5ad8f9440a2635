"""What the figures of studies share: reading study.csv, means over seeds, writing figure.png."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import Table, matching, read
from diffplan.report.save import save


def draw(directory: Path | str, compose: Callable[[Table], Figure]) -> Path:
    """Write figure.png beside the study.csv of a directory."""
    table = read(Path(directory) / "study.csv")
    return save(Path(directory) / "figure.png", lambda: compose(table))[0]


def of_seeds(table: Table, **where: Any) -> Bool[np.ndarray, "rows"]:
    """The rows of the seeds that have a row which matches: curves of other seeds do not compare with theirs."""
    return np.isin(table["seed"], np.unique(table["seed"][matching(table, **where)]))


def curve(table: Table, rows: Bool[np.ndarray, "rows"], by: str, axis: str, value: str) -> Float[np.ndarray, "p 4"]:
    """Points (mean of `axis`, mean of `value`, low, high) over seeds: one for each entry of `by`, in rising order."""
    cells = [rows & (table[by] == entry) for entry in np.unique(table[by][rows])]
    points = [(table[axis][cell].mean(), *mean_interval(table[value][cell])[:3]) for cell in cells]
    return np.array(points).reshape(-1, 4)


def band(axes: Axes, x: Float[np.ndarray, "p"], points: Float[np.ndarray, "p 3"], colour: str, **look: Any) -> None:
    """Draw means (first column) as a line and their intervals (the other two) as a band."""
    alpha = look.pop("alpha", 0.13)
    axes.fill_between(x, points[:, 1], points[:, 2], color=colour, alpha=alpha, linewidth=0)
    axes.plot(x, points[:, 0], color=colour, **look)
