"""The table and the figure of scores: ours beside published ones, from ``scores.csv`` alone."""

import re
from pathlib import Path

import numpy as np
import rich.table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from rich.box import SIMPLE_HEAD
from rich.console import Console

from diffplan.benchmarks.rows import MEASURED
from diffplan.metrics.table import read_rows
from diffplan.report import style
from diffplan.report.save import save

Row = dict[str, str]

ACCENT = "#e2571e"

SUITES = {
    "maze2d": ("Maze2D", "mujoco", "D4RL's normalised score"),
    "multi2d": ("Multi2D", "mujoco", "D4RL's normalised score"),
    "ogbench": ("pointmaze", "ogbench", "% of episodes that reach their goal"),
    "gridworld": ("gridworld", "jax", "steps on the goal"),
}
"""What a suite's tasks are called, the simulator that its figure shows, and what a score is."""


def number(row: Row, name: str) -> float:
    """A cell, NaN where it is empty."""
    return float(row[name]) if row[name] else float("nan")


def ours(row: Row) -> bool:
    """Whether a row was measured here."""
    return row["source"] == MEASURED


def lines(rows: list[Row]) -> list[tuple[str, str, str, dict[str, Row]]]:
    """(method, controller, simulator, row by task), tasks side by side.

    Settings that were tuned for each task, as in ``guided 9.8, best of 4``, are left out of the method's name.
    """
    table: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        table.setdefault((plain(row["method"]), row["controller"], row["simulator"]), {})[row["task"]] = row
    return [(*names, by_task) for names, by_task in table.items()]


def plain(method: str) -> str:
    """A method's name without the settings that were tuned for each task."""
    return re.sub(r"best of \d+", "best of n", re.sub(r"guided [\d.e+]+", "guided", method))


def show(path: Path, console: Console | None = None) -> None:
    """Prints the table, best last."""
    rows = read_rows(path)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    header = ("method", "controller", "simulator", *tasks, "of the bound")
    table = rich.table.Table(*header, box=SIMPLE_HEAD, show_edge=False)
    average = lambda by_task: np.mean([number(row, "mean") for row in by_task.values()])
    for method, controller, simulator, by_task in sorted(lines(rows), key=lambda line: average(line[3])):
        cells = [cell(by_task[task]) if task in by_task else "" for task in tasks]
        fractions = [number(row, "bound_fraction") for row in by_task.values()]
        fraction = "" if np.isnan(fractions).any() else f"{100 * np.mean(fractions):.0f} %"
        table.add_row(method, controller, simulator, *cells, fraction)
    (console or Console()).print(table)


def cell(row: Row) -> str:
    """A mean with its standard error."""
    error = number(row, "sem")
    return f"{number(row, 'mean'):.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def markdown(paths: list[Path]) -> str:
    """One line a maze: published scores, ours by each of `METHODS`, and the bound.

    Each of ours has two numbers: by the learned inverse dynamics, and by tracking.
    """
    lines = [f"| maze | Diffuser | best published | {' | '.join(METHODS)} | bound |", "|---" + "|--:" * 7 + "|"]
    for rows in map(read_rows, paths):
        for task in dict.fromkeys(row["task"] for row in rows):
            cells = maze_cells([row for row in rows if row["task"] == task])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


EASIER = " (easier protocol)"
"""What published rows are marked with that are no match for the others."""

METHODS = ("prior", "guided", "best of n", "guided best of n")


def maze_cells(rows: list[Row]) -> list[str]:
    """One maze's line of `markdown`."""
    suite, task = rows[0]["suite"], rows[0]["task"]
    others = [row for row in rows if not ours(row)]
    alike = [row for row in others if EASIER not in row["method"]]
    best = max(alike, key=lambda row: number(row, "mean"), default=None)
    diffuser = [row for row in others if row["method"].startswith("Diffuser")]
    scores = {(kind(row), row["controller"]): number(row, "mean") for row in rows if ours(row) and shown(row)}
    bounds = [number(row, "mean") for row in rows if row["controller"] == "optimal"]
    pair = lambda method: f"{scores[method, 'inverse']:.0f} / {scores[method, 'tracking']:.0f}"
    return [
        f"{SUITES[suite][0]} {task}",
        f"{number(diffuser[0], 'mean'):.0f}{EASIER * (EASIER in diffuser[0]['method'])}" if diffuser else "–",
        f"{number(best, 'mean'):.0f}, {best['method']}" if best else "–",
        *map(pair, METHODS),
        f"{bounds[0]:.0f}" if bounds else "100",
    ]


def kind(row: Row) -> str:
    """Which of METHODS a row of ours is, or its method where it is none."""
    name = row["method"].removeprefix("diffplan ")
    if "warm" in name or knows_maze(row):
        return name
    return METHODS[("guided" in name) + 2 * ("best of" in name)]


def figure(path: Path) -> Path:
    """Write a figure beside the table: a panel a task, best on top, of one simulator; single plans are left out."""
    rows = [row for row in read_rows(path) if shown(row)]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    most = max(sum(row["task"] == task for row in rows) for task in tasks)

    def compose() -> Figure:
        figure = Figure(figsize=(5.6 * len(tasks), 0.26 * most + 1.2), layout="constrained")
        for axes, task in zip(np.ravel(figure.subplots(1, len(tasks))), tasks, strict=True):
            panel(axes, task, [row for row in rows if row["task"] == task])
        return figure

    return save(path.with_suffix(".png"), compose)[0]


def knows_maze(row: Row) -> bool:
    """Whether the controller of a row knows the maze."""
    return row["controller"] in ("optimal", "waypoints")


def shown(row: Row) -> bool:
    """Whether a row is in the figure."""
    return knows_maze(row) or (row["simulator"] == SUITES[row["suite"]][1] and not row["method"].endswith("one plan"))


def panel(axes: Axes, task: str, rows: list[Row]) -> None:
    """One task's bars."""
    rows = sorted(rows, key=lambda row: number(row, "mean"))
    means = [number(row, "mean") for row in rows]
    errors = [np.nan_to_num(number(row, "sem")) for row in rows]
    colours = [style.INK if knows_maze(row) else ACCENT if ours(row) else "#b9c2cb" for row in rows]
    axes.barh(range(len(rows)), means, xerr=errors, color=colours, height=0.72, error_kw={"elinewidth": 1})
    names = [f"{row['method'].removeprefix('diffplan ').split(', every')[0]} · {row['controller']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7.5)
    for i, row in enumerate(rows):
        axes.text(means[i] + errors[i] + 2, i, f"{means[i]:.0f}", va="center", fontsize=7.5, color=style.INK)
        if ours(row):
            axes.get_yticklabels()[i].set_color(style.INK if knows_maze(row) else ACCENT)
    axes.set_xlim(0, 1.1 * max(means))
    name, _, unit = SUITES[rows[0]["suite"]]
    axes.set_xlabel(unit)
    axes.set_title(f"{name} {task}", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def kept(path: Path, tasks: tuple[str, ...]) -> list[Path]:
    """The files of episodes that belong to rows of a table, of these tasks; those of other settings are left out."""
    rows = {(row["method"], row["controller"], row["simulator"]) for row in read_rows(path)}

    def belongs(file: Path) -> bool:
        with np.load(file) as arrays:
            return tuple(arrays["about"].tolist()) in rows

    files = (file for task in tasks for file in sorted((path.parent / "rollouts" / task).glob("*.npz")))
    return list(filter(belongs, files))


def rollouts(episodes: Path) -> Path:
    """Write a figure beside the kept episodes of one row: plans as thin lines, and the paths that were executed."""
    with np.load(episodes) as file:
        arrays = dict(file)
    about = [episodes.parent.name, *arrays["about"].tolist()]

    def compose() -> Figure:
        height, width = arrays["walls"].shape
        figure = Figure(figsize=(12, 6.2 * height / width + 0.5), layout="constrained")
        parts = zip(figure.subplots(2, 4).flat, arrays["paths"], arrays["plans"], arrays["goals"], strict=False)
        for axes, path, plans, goal in parts:
            episode(axes, arrays, path, plans, goal)
        figure.suptitle(" · ".join(about), x=0.01, ha="left", fontsize=11)
        return figure

    return save(episodes.with_suffix(".png"), compose)[0]


def episode(axes: Axes, maze: dict[str, np.ndarray], path: np.ndarray, plans: np.ndarray, goal: np.ndarray) -> None:
    """Draw one episode in its maze, whose arrays are those of `rows.Drawing`."""
    across, down = (0, 1) if maze["turned"] else (1, 0)
    (height, width), (top, left), unit = maze["walls"].shape, maze["low"], maze["unit"]
    extent = (left, left + width * unit, top + height * unit, top)  # row index downwards
    axes.imshow(maze["walls"], cmap="Greys", vmin=0, vmax=3, extent=extent)
    place = (float(goal[across]), float(goal[down]))
    axes.add_patch(Circle(place, float(maze["near"]), color="#3a8f6a", alpha=0.35, linewidth=0))
    for points in plans:
        axes.plot(points[:, across], points[:, down], color=style.SOFT, linewidth=0.6, alpha=0.6)
    axes.plot(path[:, across], path[:, down], color=ACCENT, linewidth=1.4)
    axes.plot(path[0, across], path[0, down], "o", color=style.INK, markersize=4)
    axes.axis("off")
