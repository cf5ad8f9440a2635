"""Direct labels: each line's name beside it, where it covers least."""

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox, BboxBase

GAPS = (7.0, 16.0, 30.0, 48.0, 66.0, 84.0, 102.0, 120.0, 138.0)
"""Pixels between a label and the point that it names, the nearer the better."""

AROUND = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))


class Named(NamedTuple):
    """A line to name. points: its markers, data coordinates; prefer: index of the one that the name should be at."""

    text: str
    colour: str
    bold: bool
    points: Float[np.ndarray, "n 2"]
    prefer: int


def place(axes: Axes, lines: list[Named], blocked: list[Bbox]) -> None:
    """Writes every name, greedily in the order given; limits must be final. blocked: boxes in pixels to keep free."""
    paths = [_dense(axes.transData.transform(line.points)) for line in lines]
    taken = list(blocked)
    for i, line in enumerate(lines):
        weight = "bold" if line.bold else "normal"
        text = axes.text(0, 0, line.text, color=line.colour, fontsize=9, fontweight=weight, zorder=20)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white", alpha=0.85)])
        size = np.asarray(text.get_window_extent().size)
        others = np.concatenate([path for j, path in enumerate(paths) if j != i] or [np.empty((0, 2))])
        spots = list(_candidates(axes.transData.transform(line.points), size, line.prefer))
        costs = [cost + _cost(box, taken, others, paths[i], axes.bbox) for cost, box in spots]
        box = spots[int(np.argmin(costs))][1]
        taken.append(box)
        x, y = axes.transData.inverted().transform((box.x0, box.y0))
        text.set_position((float(x), float(y)))
        text.set_verticalalignment("bottom")


def stack(values: Float[np.ndarray, "n"], distance: float) -> Float[np.ndarray, "n"]:
    """The ascending values moved as little as a forward pass can so that neighbours are at least `distance` apart."""
    least = distance * np.arange(len(values))
    return np.maximum.accumulate(values - least) + least


def _dense(points: np.ndarray) -> np.ndarray:
    """The polyline through the points, at most a few pixels between neighbours."""
    if len(points) < 2:
        return points
    fraction = np.linspace(0, 1, 40)[:, None]
    return np.concatenate([a + fraction * (b - a) for a, b in pairwise(points)])


def _candidates(points: np.ndarray, size: np.ndarray, prefer: int):
    for k, (x, y) in enumerate(points):
        for gap, (dx, dy) in product(GAPS, AROUND):
            far = gap * (1.0 if dx == 0 or dy == 0 else 0.6)
            left = x + dx * far - (size[0] if dx < 0 else size[0] / 2 if dx == 0 else 0)
            base = y + dy * far - (size[1] if dy < 0 else size[1] / 2 if dy == 0 else 0)
            yield 3.0 * abs(k - prefer) + 0.1 * gap, Bbox.from_bounds(left, base, *size)


def _cost(box: Bbox, taken: list[Bbox], others: np.ndarray, own: np.ndarray, limits: BboxBase) -> float:
    hits = sum(box.overlaps(other) for other in taken)
    inside = limits.padded(-4)
    outside = not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1))
    grown = box.padded(2)
    return 100 * hits + 150 * outside + 0.3 * grown.count_contains(others) + 0.2 * grown.count_contains(own)
