"""The plane that plans lie in: its cells, where a plan enters a solid one, and the drawing of plans.

With cells, the first coordinate runs down the rows and the second along the columns, as the cells stand in an array.
Without them, the first runs to the right and the second up.
"""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.patches import Circle, Rectangle

from diffplan.report import style
from diffplan.report.load import Data, Grid, Plans

SAMPLES = 17
"""Points at which a segment is tested, both ends included."""

MARGIN = 0.12
"""Drawn around the windows of data, as a fraction of their range."""


def crossing(positions: Float[np.ndarray, "*n h 2"], grid: Grid) -> Bool[np.ndarray, "*n h-1"]:
    """Whether each segment between two steps touches a solid cell; outside is solid, and so is what is not finite."""
    fraction = np.linspace(0, 1, SAMPLES)[:, None]
    begin, end = positions[..., :-1, None, :], positions[..., 1:, None, :]
    return np.any(is_solid(begin + fraction * (end - begin), grid), axis=-1)


def is_solid(points: Float[np.ndarray, "*n 2"], grid: Grid) -> Bool[np.ndarray, "*n"]:
    """Whether each point lies in a solid cell or outside of all cells."""
    cell = np.floor(np.nan_to_num((points - grid.origin) / grid.size, nan=-1.0, posinf=-1.0, neginf=-1.0))
    inside = np.asarray(np.all((cell >= 0) & (cell < grid.solid.shape), axis=-1))
    i, j = np.where(inside[..., None], cell, 0).astype(int).transpose(-1, *range(cell.ndim - 1))
    return ~inside | grid.solid[i, j]


def broken(plans: Plans, method: str) -> Bool[np.ndarray, "s p t"]:
    """Which segments of a method's plans are infeasible, as far as that is known."""
    positions = plans.positions[method]
    if method in plans.broken:
        return plans.broken[method]
    if plans.grid is not None:
        return crossing(positions, plans.grid)
    return np.zeros((*positions.shape[:2], positions.shape[2] - 1), bool)


def bounds(plans: Plans, data: Data) -> Float[np.ndarray, "k 2"]:
    """The lowest and highest value of each coordinate that is drawn.

    They are those of the cells, less a part of a solid border; without cells, those of the windows of data and the
    starts, with a margin.
    """
    if plans.grid is not None:
        solid, origin, size = plans.grid
        border = solid[0].all() and solid[-1].all() and solid[:, 0].all() and solid[:, -1].all()
        cut = 0.3 * size * border
        return np.stack([origin + cut, origin + size * np.array(solid.shape) - cut], -1)
    points = [data.positions.reshape(-1, len(plans.labels)), plans.starts]
    if plans.region is not None:
        points.append(plans.region[None, :2] + plans.region[2] * np.array([[-1], [1]]))
    every = np.concatenate(points)
    low, high = (end(np.where(np.isfinite(every), every, np.nan), axis=0) for end in (np.nanmin, np.nanmax))
    margin = MARGIN * np.maximum(high - low, 1e-9)
    return np.stack([low - margin, high + margin], -1)


def leaving(positions: Float[np.ndarray, "p h k"], limits: Float[np.ndarray, "k 2"]) -> int:
    """How many plans are not drawn whole, since they leave the picture or are not finite."""
    inside = (positions >= limits[:, 0]) & (positions <= limits[:, 1])
    return int((~inside.all((1, 2))).sum())


def draw_plane(axes: Axes, plans: Plans, limits: Float[np.ndarray, "2 2"]) -> None:
    """Solid cells, the rewarded disc as a dashed circle, the starts as dots."""
    x, y = (1, 0) if plans.grid is not None else (0, 1)
    if plans.grid is not None:
        (row, column), size = plans.grid.origin, plans.grid.size
        cells = [Rectangle((column + j * size, row + i * size), size, size) for i, j in np.argwhere(plans.grid.solid)]
        axes.add_collection(PatchCollection(cells, facecolor=style.WALL, edgecolor=style.WALL, linewidth=0.4, zorder=1))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(not plans.grid.solid[0].all())
        axes.spines[:].set_color(style.FAINT)
    if plans.region is not None:
        ring = {"fill": False, "edgecolor": style.INK, "linestyle": (0, (3, 2)), "linewidth": 1.1}
        axes.add_patch(Circle((plans.region[x], plans.region[y]), plans.region[2], zorder=5, **ring))
    axes.scatter(plans.starts[:, x], plans.starts[:, y], s=7, color=style.INK, linewidth=0, zorder=6)
    axes.set(xlim=limits[x], ylim=limits[y][::-1] if plans.grid is not None else limits[y], aspect="equal")


def draw_lines(axes: Axes, points: Float[np.ndarray, "p h 2"], broken: Bool[np.ndarray, "p h-1"]) -> None:
    """Plans as thin lines; infeasible segments in the second colour, on top. points: x and y of the picture."""
    segments = np.stack([points[:, :-1], points[:, 1:]], axis=-2)
    finite = np.isfinite(segments).all((-1, -2))
    thin = 0.45 * float(broken.mean())
    looks = ((finite & ~broken, style.SOUND, 0.9, 0.75, 3), (finite & broken, style.BROKEN, 0.9 - thin, 0.8, 4))
    for mask, colour, width, alpha, order in looks:
        lines = LineCollection(list(segments[mask]), colors=colour, linewidths=width, alpha=alpha, zorder=order)
        lines.set_capstyle("round")
        axes.add_collection(lines, autolim=False)


def turned(positions: Float[np.ndarray, "p h 2"], plans: Plans) -> Float[np.ndarray, "p h 2"]:
    """Positions as x and y of the picture."""
    return positions[..., ::-1] if plans.grid is not None else positions
