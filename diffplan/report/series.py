"""Plans of a task without a plane: each observation entry over time, with the data's quantiles behind."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from diffplan.report import style
from diffplan.report.load import Data
from diffplan.report.space import draw_lines

QUANTILES = (0.05, 0.95)
"""Of the windows of data: the band behind the plans."""


def band(data: Data) -> Float[np.ndarray, "2 h k"]:
    """The quantiles of the data at each step of a window."""
    return np.nanquantile(data.positions, QUANTILES, axis=0)


def draw_series(
    rows: list[Axes],
    positions: Float[np.ndarray, "p h k"],
    broken: Bool[np.ndarray, "p h-1"],
    behind: Float[np.ndarray, "2 w k"],
    limits: Float[np.ndarray, "k 2"],
) -> None:
    """Plans over time, one axis for each entry."""
    time = np.broadcast_to(np.arange(positions.shape[1]), positions.shape[:2])
    for i, axes in enumerate(rows):
        axes.fill_between(np.arange(behind.shape[1]), *behind[..., i], color=style.WALL, linewidth=0, zorder=1)
        draw_lines(axes, np.stack([time, positions[..., i]], -1), broken)
        axes.set(xlim=(0, positions.shape[1] - 1), ylim=limits[i])
        axes.tick_params(labelsize=7.5, labelbottom=axes is rows[-1])
        axes.locator_params(axis="y", nbins=3)
        axes.locator_params(axis="x", nbins=4)
