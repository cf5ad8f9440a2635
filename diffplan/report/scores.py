"""The table and the figure of scores: ours beside those that others publish, from ``scores.csv`` alone."""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
import rich.table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from rich.box import SIMPLE_HEAD
from rich.console import Console

from diffplan.report import figure as frontier
from diffplan.report import style

Row = dict[str, str]

ACCENT = "#e2571e"


def read(directory: Path) -> list[Row]:
    """The rows as text."""
    with (directory / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def number(row: Row, name: str) -> float:
    """A cell, NaN where it is empty."""
    return float(row[name]) if row[name] else float("nan")


def ours(row: Row) -> bool:
    """Whether a row was measured here."""
    return row["method"].startswith("diffplan")


def lines(rows: list[Row]) -> list[tuple[str, str, str, dict[str, Row]]]:
    """(method, controller, simulator, row by task), tasks side by side.

    A setting that differs from task to task, as in ``n = 16``, does not keep a method's rows apart.
    """
    table: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        table.setdefault((plain(row["method"]), row["controller"], row["simulator"]), {})[row["task"]] = row
    return [(*names, by_task) for names, by_task in table.items()]


def plain(method: str) -> str:
    """A method's name without the settings that were tuned for each task."""
    words = [part for part in method.split(", ") if not part.startswith("n = ")]
    return ", ".join(part.split(", scale")[0] if "scale" not in part else part.split("scale")[0] for part in words)


def show(directory: Path, console: Console | None = None) -> None:
    """Prints the table, best last."""
    rows = read(directory)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    table = rich.table.Table(
        "method", "controller", "simulator", *tasks, "of the limit", box=SIMPLE_HEAD, show_edge=False
    )
    average = lambda by_task: np.mean([number(row, "mean") for row in by_task.values()])
    for method, controller, simulator, by_task in sorted(lines(rows), key=lambda line: average(line[3])):
        cells = [cell(by_task[task]) if task in by_task else "" for task in tasks]
        shares = [number(row, "limit_fraction") for row in by_task.values()]
        share = "" if np.isnan(shares).any() else f"{100 * np.mean(shares):.0f} %"
        table.add_row(method, controller, simulator, *cells, share)
    console = console or Console()
    console.print(table)


def cell(row: Row) -> str:
    """A mean with its standard error."""
    error = number(row, "sem")
    return f"{number(row, 'mean'):.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def figure(directory: Path) -> Path:
    """Writes scores.png beside scores.csv: a panel a task, best on top."""
    rows = [row for row in read(directory) if row["simulator"] == "mujoco" or "limit" in row["method"]]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    most = max(sum(row["task"] == task for row in rows) for task in tasks)
    with mpl.rc_context(frontier.RC):
        drawn = Figure(figsize=(5.6 * len(tasks), 0.26 * most + 1.2), layout="constrained")
        axes = np.atleast_1d(np.asarray(drawn.subplots(1, len(tasks))))
        for one, task in zip(axes, tasks, strict=True):
            panel(one, task, [row for row in rows if row["task"] == task])
        frontier.save_png(drawn, directory / "scores.png")
    return directory / "scores.png"


def panel(axes: Axes, task: str, rows: list[Row]) -> None:
    """One task's bars."""
    rows = sorted(rows, key=lambda row: number(row, "mean"))
    means = [number(row, "mean") for row in rows]
    errors = [np.nan_to_num(number(row, "sem")) for row in rows]
    colours = [style.INK if "limit" in row["method"] else ACCENT if ours(row) else "#b9c2cb" for row in rows]
    axes.barh(range(len(rows)), means, xerr=errors, color=colours, height=0.72, error_kw={"elinewidth": 1})
    names = [f"{row['method'].removeprefix('diffplan ')} · {row['controller']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7.5)
    for i, row in enumerate(rows):
        axes.text(means[i] + errors[i] + 2, i, f"{means[i]:.0f}", va="center", fontsize=7.5, color=style.INK)
        if ours(row):
            axes.get_yticklabels()[i].set_color(ACCENT if "limit" not in row["method"] else style.INK)
    axes.set_xlim(0, 1.1 * max(means))
    axes.set_xlabel("D4RL's normalised score")
    axes.set_title(f"Maze2D {task}", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def rollouts(directory: Path, walls: np.ndarray, goal: tuple[int, int], kept: Path) -> Path:
    """Writes a picture of the kept episodes of one row: plans (thin) and what became of them."""
    with np.load(kept) as file:
        paths, plans, about = file["paths"], file["plans"], file["about"]
    with mpl.rc_context(frontier.RC):
        drawn = Figure(figsize=(10, 10 * walls.shape[0] / walls.shape[1] + 0.6), layout="constrained")
        grid = drawn.subplots(2, 4)
        for axes, path, made in zip(grid.flat, paths, plans, strict=False):
            style_maze(axes, walls, goal)
            for points in made:
                axes.plot(points[:, 1], points[:, 0], color=style.SOFT, linewidth=0.6, alpha=0.6)
            axes.plot(path[:, 1], path[:, 0], color=ACCENT, linewidth=1.4)
            axes.plot(path[0, 1], path[0, 0], "o", color=style.INK, markersize=4)
        drawn.suptitle(" · ".join(about), x=0.01, ha="left", fontsize=11)
        path = directory / f"{kept.stem}.png"
        frontier.save_png(drawn, path)
    return path


def style_maze(axes: Axes, walls: np.ndarray, goal: tuple[int, int]) -> None:
    """Walls and the goal's disc, row index downwards; cells are [i - 0.7, i + 0.3]."""
    height, width = walls.shape
    axes.imshow(walls, cmap="Greys", vmin=0, vmax=3, extent=(-0.7, width - 0.7, height - 0.7, -0.7))
    axes.add_patch(Circle((goal[1], goal[0]), 0.5, color="#3a8f6a", alpha=0.35, linewidth=0))
    axes.set_xticks([])
    axes.set_yticks([])
