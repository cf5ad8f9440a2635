"""The frontier: what pushing a plan towards a learned reward does to the plan, in one picture.

Its three parts:

    A  one method against its strength: proxy, gold, fraction of plans through walls
    B  every method on the plane of gold and proxy, the data behind
    C  the plans themselves, from the prior to the breakdown
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure

from diffplan.metrics.table import TableError
from diffplan.report import maze, panels, style
from diffplan.report.load import Run, read_run
from diffplan.report.save import save
from diffplan.report.summary import Curve, curves, evenly_chosen, nearest

MARGINS: dict[str, float] = {"left": 0.15, "right": 0.87, "top": 0.88, "bottom": 0.11}
MAZE_MARGINS: dict[str, float] = {"left": 0.05, "right": 0.985, "top": 0.86, "bottom": 0.055}
MAZES = 5
"""Strengths drawn in a row of part C."""
WILD = 3
"""Plans in a picture where most of them scribble through walls: more would hide one another."""


def frontier(run_dir: Path | str, methods: tuple[str, str] = ("guided", "ascent")) -> tuple[Path, ...]:
    """Write frontier.png and frontier.pdf into the run directory. Part A shows the first method, part C draws both."""
    run = read_run(run_dir)
    for method in methods:
        if method not in run.results.methods:
            raise TableError(f"{run.results.path / 'results.csv'}: method '{method}' is missing")
    return save(run.results.path / "frontier.png", lambda: compose(run, methods), pdf=True)


def compose(run: Run, methods: tuple[str, str]) -> Figure:
    """The whole figure, 11 x 10.6 inches."""
    by_method = curves(run.results)
    figure = Figure(figsize=(11, 10.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[5.35, 5.25], squeeze=False)[:, 0]
    left, right = top.subfigures(1, 2, width_ratios=[1, 1.12], squeeze=False)[0]
    grid = left.add_gridspec(3, 1, height_ratios=[1, 1, 0.24], hspace=0.12, **MARGINS)
    proxy, gold, walls = (left.add_subplot(grid[i]) for i in range(3))
    panels.pressure(proxy, gold, walls, by_method[methods[0]], run.data)
    proxy.set_ylabel("proxy: learned reward\n(sd of the data)")
    gold.set_ylabel("gold: true reward\n(steps in the target)")
    _title(left, "A", _headline(by_method[methods[0]]))
    plane = right.add_axes((0.1, 0.11, 0.88, 0.77))
    panels.plane(plane, by_method, run.data)
    plane.set_xlabel("proxy: learned reward (sd of the data; logarithmic beyond the data)")
    plane.set_ylabel("gold: true reward (steps in the target)")
    _title(right, "B", "Every method, on one plane")
    _title(bottom, "C", "The plans: from the prior to the breakdown", height=0.97)
    _mazes(bottom, run, [by_method[method] for method in methods])
    return figure


def _headline(curve: Curve) -> str:
    """What part A shows, if it shows it."""
    best, proxy, gold = curve.best, curve.bands["proxy"].value, curve.bands["promised"].value
    if proxy[-1] > proxy[best] and gold[-1] < gold[best]:
        return "The proxy keeps rising after the truth has turned over"
    return f"Proxy and gold against the {curve.strength_name}"


def _title(figure: SubFigure, letter: str, words: str, height: float = 0.94) -> None:
    figure.text(0.02, height, letter, fontsize=14, fontweight="bold", va="center")
    figure.text(0.02 + 0.028 * 11 / figure.bbox.width * figure.dpi, height, words, fontsize=11.5, va="center")


def _mazes(figure: SubFigure, run: Run, rows: list[Curve]) -> None:
    """Part C: a row for each method, a maze for each strength."""
    grid = figure.add_gridspec(len(rows), MAZES, hspace=0.34, wspace=0.06, **MAZE_MARGINS)
    for r, curve in enumerate(rows):
        strengths = run.plans.strengths[curve.method]
        indices = [nearest(curve.strengths, s) for s in strengths]
        best = int(np.abs(strengths - curve.strengths[curve.best]).argmin())
        chosen = evenly_chosen(len(strengths), best, MAZES)
        for c, k in enumerate(chosen):
            axes = figure.add_subplot(grid[r, c])
            positions = run.plans.positions[curve.method][k]
            maze.draw_maze(axes, run.plans)
            wild = maze.crossing(positions, run.plans.walls).mean() > 0.25
            maze.draw_plans(axes, positions[:WILD] if wild else positions, run.plans.walls)
            _caption(axes, curve, indices[k], maze.leaving(positions, run.plans.walls), len(positions))
            if c == 0:
                look = style.look(curve.method)
                axes.set_ylabel(look.label, fontsize=11, fontweight="bold", color=look.colour, labelpad=6)
    _key(figure)


def _caption(axes, curve: Curve, k: int, leaving: int, plans: int) -> None:
    gold, walls = curve.bands["promised"].value[k], curve.bands["violations.walls"].value[k]
    weight = "bold" if k == curve.best else "normal"
    best = " (best)" if k == curve.best else ""
    words = f"{curve.strength_name} {curve.strengths[k]:g}{best}"
    axes.text(0.5, 1.135, words, fontweight=weight, ha="center", transform=axes.transAxes)
    words = f"gold {gold:.1f},  {style.percent(walls)} through walls"
    axes.text(0.5, 1.03, words, fontsize=8.5, color=style.SOFT, ha="center", transform=axes.transAxes)
    if leaving:
        words = f"{leaving} of {plans} leave the picture"
        axes.text(0.5, -0.02, words, fontsize=7.5, color=style.SOFT, ha="center", va="top", transform=axes.transAxes)


def _key(figure: SubFigure) -> None:
    """What the strokes of part C mean, on the line of its title."""
    axes = figure.add_axes((0.5, 0.945, 0.485, 0.05))
    axes.set(xlim=(0, 100), ylim=(0, 1))
    axes.axis("off")
    axes.plot(1, 0.5, marker="o", markersize=3, color=style.INK)
    axes.scatter(16, 0.5, s=90, facecolor="none", edgecolor=style.INK, linestyle=(0, (2.6, 1.5)))
    axes.plot([36, 41], [0.5, 0.5], color=style.SOUND, linewidth=1.6)
    axes.plot([56, 61], [0.5, 0.5], color=style.BROKEN, linewidth=1.6)
    for x, words in ((3, "start"), (18.5, "target"), (42.5, "plan"), (62.5, "part of a plan inside a wall")):
        axes.text(x, 0.46, words, fontsize=9, va="center", color=style.SOFT)
