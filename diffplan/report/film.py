"""A film of episodes: paths that grow in a plane, or as time series."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.report import space, style
from diffplan.report.load import Data, Grid, Plans
from diffplan.report.save import RC

FRAMES = 100
"""The most pictures of a film."""


class Scene(NamedTuple):
    """What a film shows. positions: ``[n, t, k]``. labels: of the k coordinates. plane: whether they span a plane, with
    its cells and its rewarded disc ``[x, y, radius]``, if it has any.
    """

    title: str
    positions: Float[np.ndarray, "n t k"]
    labels: tuple[str, ...]
    plane: bool
    grid: Grid | None = None
    region: Float[np.ndarray, "3"] | None = None


def write(scene: Scene, path: Path, rate: int = 15) -> Path:
    """Write a GIF of so many pictures a second; returns its path."""
    with mpl.rc_context(RC):
        figure = Figure(
            figsize=(4.4, 4.8) if scene.plane else (6.4, 1.2 + 1.5 * len(scene.labels)), layout="constrained"
        )
        figure.suptitle(scene.title, fontsize=10)
        draw = (_plane if scene.plane else _series)(figure, scene)
        times = np.unique(np.linspace(0, scene.positions.shape[1] - 1, FRAMES).astype(int)).tolist()
        film = FuncAnimation(figure, draw, frames=[*times, *[times[-1]] * rate], blit=False)
        film.save(path, writer=PillowWriter(fps=rate), dpi=90)
    return path


def _plane(figure: Figure, scene: Scene):
    axes = figure.add_subplot()
    plans = Plans({}, {}, {}, scene.positions[:, 0], scene.grid, scene.region, scene.labels, True)
    points = space.turned(scene.positions, plans)
    space.draw_plane(axes, plans, space.bounds(plans, Data(np.empty(0), np.empty(0), scene.positions)))
    lines = [axes.plot([], [], color=style.SOUND, linewidth=1.1, alpha=0.7)[0] for _ in points]
    heads = axes.scatter(*points[:, 0].T, s=16, color=style.BROKEN, zorder=7)

    def draw(t: int) -> list:
        for line, path in zip(lines, points, strict=True):
            line.set_data(*path[: t + 1].T)
        heads.set_offsets(points[:, t])
        axes.set_xlabel(f"step {t}")
        return [*lines, heads]

    return draw


def _series(figure: Figure, scene: Scene):
    rows: list[Axes] = list(np.atleast_1d(figure.subplots(len(scene.labels), 1, sharex=True)))
    lines = []
    for k, (axes, label) in enumerate(zip(rows, scene.labels, strict=True)):
        values = scene.positions[..., k]
        room = max(float(np.ptp(values)), 1e-9)
        axes.set(xlim=(0, values.shape[1] - 1), ylim=(values.min() - 0.05 * room, values.max() + 0.05 * room))
        axes.set_ylabel(label)
        lines.append([axes.plot([], [], color=style.SOUND, linewidth=1, alpha=0.7)[0] for _ in values])
    rows[-1].set_xlabel("step")

    def draw(t: int) -> list:
        for k, group in enumerate(lines):
            for line, path in zip(group, scene.positions[..., k], strict=True):
                line.set_data(np.arange(t + 1), path[: t + 1])
        return [line for group in lines for line in group]

    return draw
