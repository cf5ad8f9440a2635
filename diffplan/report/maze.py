"""The maze: where a plan crosses a wall, and the drawing of plans in it.

Cell (i, j) spans [i - 0.7, i + 0.3] x [j - 0.7, j + 0.3] in maze coordinates (D4RL). It is drawn as its text stands:
column j, the second coordinate, to the right; row i, the first coordinate, downward.
"""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.patches import Circle, Rectangle

from diffplan.report import style
from diffplan.report.load import Plans

SAMPLES = 17
"""Points at which a segment is tested, both ends included."""


def crossing(positions: Float[np.ndarray, "*n h 2"], walls: Bool[np.ndarray, "i j"]) -> Bool[np.ndarray, "*n h-1"]:
    """Whether each segment between two steps touches a wall; outside is wall, and so is what is not finite."""
    fraction = np.linspace(0, 1, SAMPLES)[:, None]
    begin, end = positions[..., :-1, None, :], positions[..., 1:, None, :]
    return np.any(in_wall(begin + fraction * (end - begin), walls), axis=-1)


def in_wall(points: Float[np.ndarray, "*n 2"], walls: Bool[np.ndarray, "i j"]) -> Bool[np.ndarray, "*n"]:
    """Whether each point lies in a wall or outside of the maze."""
    cell = np.floor(np.nan_to_num(points, nan=-9.0, posinf=-9.0, neginf=-9.0) + 0.7)
    inside = np.asarray(np.all((cell >= 0) & (cell < walls.shape), axis=-1))
    i, j = np.where(inside[..., None], cell, 0).astype(int).transpose(-1, *range(cell.ndim - 1))
    return ~inside | walls[i, j]


def frame(walls: Bool[np.ndarray, "i j"], margin: float = -0.3) -> tuple[float, float, float, float]:
    """The box that is drawn: left, right, bottom, top, in cells. A negative margin cuts into the outer walls."""
    rows, columns = walls.shape
    return -0.7 - margin, columns - 0.7 + margin, rows - 0.7 + margin, -0.7 - margin


def leaving(positions: Float[np.ndarray, "p h 2"], walls: Bool[np.ndarray, "i j"]) -> int:
    """How many plans are not drawn whole, since they leave the frame (or are not finite)."""
    left, right, bottom, top = frame(walls)
    inside = (positions[..., 0] > top) & (positions[..., 0] < bottom)
    inside &= (positions[..., 1] > left) & (positions[..., 1] < right)
    return int((~inside.all(-1)).sum())


def draw_maze(axes: Axes, plans: Plans) -> None:
    """Walls, the target region as a dashed circle, the starts as dots."""
    cells = [Rectangle((j - 0.7, i - 0.7), 1, 1) for i, j in np.argwhere(plans.walls)]
    axes.add_collection(PatchCollection(cells, facecolor=style.WALL, edgecolor=style.WALL, linewidth=0.4, zorder=1))
    row, column, radius = plans.region
    ring = {"fill": False, "edgecolor": style.INK, "linestyle": (0, (3, 2)), "linewidth": 1.1}
    axes.add_patch(Circle((column, row), radius, zorder=5, **ring))
    axes.scatter(plans.starts[:, 1], plans.starts[:, 0], s=7, color=style.INK, linewidth=0, zorder=6)
    left, right, bottom, top = frame(plans.walls)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_plans(axes: Axes, positions: Float[np.ndarray, "p h 2"], walls: Bool[np.ndarray, "i j"]) -> None:
    """Plans as thin lines; what crosses a wall in the second colour, on top."""
    points = positions[..., ::-1]
    segments = np.stack([points[:, :-1], points[:, 1:]], axis=-2)
    finite = np.isfinite(segments).all((-1, -2))
    broken = crossing(positions, walls)
    wild = float(broken.mean())
    looks = ((finite & ~broken, style.SOUND, 0.9, 0.75, 3), (finite & broken, style.BROKEN, 0.9 - 0.45 * wild, 0.8, 4))
    for mask, colour, width, alpha, order in looks:
        lines = LineCollection(list(segments[mask]), colors=colour, linewidths=width, alpha=alpha, zorder=order)
        lines.set_capstyle("round")
        axes.add_collection(lines)
