"""The table and the figure of scores: ours beside those that others publish, from ``scores.csv`` alone."""

import csv
import re
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

SUITES = {
    "maze2d": ("Maze2D", "mujoco", "D4RL's normalised score"),
    "multi2d": ("Multi2D", "mujoco", "D4RL's normalised score"),
    "ogbench": ("pointmaze", "ogbench", "% of episodes that reach their goal"),
    "gridworld": ("gridworld", "jax", "steps on the goal"),
}
"""What a suite's tasks are called, the simulator that its figure shows, and what a score is."""


def read(path: Path) -> list[Row]:
    """The rows as text."""
    with path.open() as file:
        return list(csv.DictReader(file))


def number(row: Row, name: str) -> float:
    """A cell, NaN where it is empty."""
    return float(row[name]) if row[name] else float("nan")


def ours(row: Row) -> bool:
    """Whether a row was measured here."""
    return row["method"].startswith("diffplan")


def lines(rows: list[Row]) -> list[tuple[str, str, str, dict[str, Row]]]:
    """(method, controller, simulator, row by task), tasks side by side.

    A setting that differs from task to task, as in ``selection of 16``, does not keep a method's rows apart.
    """
    table: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        table.setdefault((plain(row["method"]), row["controller"], row["simulator"]), {})[row["task"]] = row
    return [(*names, by_task) for names, by_task in table.items()]


def plain(method: str) -> str:
    """A method's name without the settings that were tuned for each task."""
    return re.sub(r"(guidance|selection of) [\d.e+]+", lambda result: result[1].removesuffix(" of"), method)


def show(path: Path, console: Console | None = None) -> None:
    """Prints the table, best last."""
    rows = read(path)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    table = rich.table.Table(
        "method", "controller", "simulator", *tasks, "of the limit", box=SIMPLE_HEAD, show_edge=False
    )
    average = lambda by_task: np.mean([number(row, "mean") for row in by_task.values()])
    for method, controller, simulator, by_task in sorted(lines(rows), key=lambda line: average(line[3])):
        cells = [cell(by_task[task]) if task in by_task else "" for task in tasks]
        shares = [number(row, "bound_fraction") for row in by_task.values()]
        fraction = "" if np.isnan(shares).any() else f"{100 * np.mean(shares):.0f} %"
        table.add_row(method, controller, simulator, *cells, fraction)
    console = console or Console()
    console.print(table)


def cell(row: Row) -> str:
    """A mean with its standard error."""
    error = number(row, "sem")
    return f"{number(row, 'mean'):.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def markdown(paths: list[Path]) -> str:
    """One line a maze: what others publish, and ours by prior, guidance, selection and both, each by the learned
    inverse dynamics and by tracking; with the limit.
    """
    lines = [
        "| maze | Diffuser | best published | " + " | ".join(METHODS) + " | limit |",
        "|---|--:|--:" + "|--:" * 5 + "|",
    ]
    for rows in map(read, paths):
        for task in dict.fromkeys(row["task"] for row in rows):
            cells = maze_cells([row for row in rows if row["task"] == task])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


EASIER = " (easier protocol)"
"""What published rows are marked with that are no match for the others."""

METHODS = ("prior", "guidance", "selection", "both")


def maze_cells(rows: list[Row]) -> list[str]:
    """One maze's line of `markdown`."""
    suite, task = rows[0]["suite"], rows[0]["task"]
    others = [row for row in rows if not ours(row)]
    alike = [row for row in others if EASIER not in row["method"]]
    best = max(alike, key=lambda row: number(row, "mean"), default=None)
    diffuser = [row for row in others if row["method"].startswith("Diffuser")]
    played = {(kind(row), row["controller"]): number(row, "mean") for row in rows if ours(row) and shown(row)}
    limits = [number(row, "mean") for row in rows if row["controller"] == "optimal"]
    pair = lambda method: f"{played[method, 'inverse']:.0f} / {played[method, 'tracking']:.0f}"
    return [
        f"{SUITES[suite][0]} {task}",
        f"{number(diffuser[0], 'mean'):.0f}{EASIER * (EASIER in diffuser[0]['method'])}" if diffuser else "–",
        f"{number(best, 'mean'):.0f}, {best['method']}" if best else "–",
        *map(pair, METHODS),
        f"{limits[0]:.0f}" if limits else "100",
    ]


def kind(row: Row) -> str:
    """Which of METHODS a row of ours is, or its method where it is none."""
    name = row["method"].removeprefix("diffplan ")
    if "warm" in name or "limit" in name or "controller" in name:
        return name
    guided, selected = "guidance" in name, "selection" in name
    return METHODS[guided + 2 * selected]


def figure(path: Path) -> Path:
    """Writes a picture beside the table: a panel a task, best on top; one simulator, and ours where planned anew."""
    rows = [row for row in read(path) if shown(row)]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    most = max(sum(row["task"] == task for row in rows) for task in tasks)
    with mpl.rc_context(frontier.RC):
        draws = Figure(figsize=(5.6 * len(tasks), 0.26 * most + 1.2), layout="constrained")
        axes = np.atleast_1d(np.asarray(draws.subplots(1, len(tasks))))
        for one, task in zip(axes, tasks, strict=True):
            panel(one, task, [row for row in rows if row["task"] == task])
        frontier.save_png(draws, path.with_suffix(".png"))
    return path.with_suffix(".png")


def told(row: Row) -> bool:
    """Whether a row is of a player who knows the maze."""
    return row["controller"] in ("optimal", "waypoints")


def shown(row: Row) -> bool:
    """Whether a row is in the figure."""
    return told(row) or (row["simulator"] == SUITES[row["suite"]][1] and not row["method"].endswith("one plan"))


def panel(axes: Axes, task: str, rows: list[Row]) -> None:
    """One task's bars."""
    rows = sorted(rows, key=lambda row: number(row, "mean"))
    means = [number(row, "mean") for row in rows]
    errors = [np.nan_to_num(number(row, "sem")) for row in rows]
    colours = [style.INK if told(row) else ACCENT if ours(row) else "#b9c2cb" for row in rows]
    axes.barh(range(len(rows)), means, xerr=errors, color=colours, height=0.72, error_kw={"elinewidth": 1})
    names = [f"{row['method'].removeprefix('diffplan ').split(', every')[0]} · {row['controller']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7.5)
    for i, row in enumerate(rows):
        axes.text(means[i] + errors[i] + 2, i, f"{means[i]:.0f}", va="center", fontsize=7.5, color=style.INK)
        if ours(row):
            axes.get_yticklabels()[i].set_color(style.INK if told(row) else ACCENT)
    axes.set_xlim(0, 1.1 * max(means))
    name, _, unit = SUITES[rows[0]["suite"]]
    axes.set_xlabel(unit)
    axes.set_title(f"{name} {task}", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def kept(path: Path, tasks: tuple[str, ...]) -> list[Path]:
    """The files of episodes that belong to rows of a table, of these tasks; those of other settings are left out."""
    rows = {(row["method"], row["controller"], row["simulator"]) for row in read(path)}

    def belongs(file: Path) -> bool:
        with np.load(file) as result:
            return tuple(result["about"].tolist()) in rows

    files = (file for task in tasks for file in sorted((path.parent / "rollouts" / task).glob("*.npz")))
    return list(filter(belongs, files))


def rollouts(episodes: Path) -> Path:
    """Writes a picture of the kept episodes of one row beside them: plans (thin) and what became of them."""
    with np.load(episodes) as file:
        paths, plans, goals, about = (file[name] for name in ("paths", "plans", "goals", "about"))
        walls, low, unit, near, turned = (file[name] for name in ("walls", "low", "unit", "near", "turned"))
    across, down = (0, 1) if turned else (1, 0)
    (height, width), (top, left) = walls.shape, low
    with mpl.rc_context(frontier.RC):
        draws = Figure(figsize=(12, 6.2 * height / width + 0.5), layout="constrained")
        for axes, path, made, goal in zip(draws.subplots(2, 4).flat, paths, plans, goals, strict=False):
            extent = (left, left + width * unit, top + height * unit, top)  # row index downwards
            axes.imshow(walls, cmap="Greys", vmin=0, vmax=3, extent=extent)
            place = (float(goal[across]), float(goal[down]))
            axes.add_patch(Circle(place, float(near), color="#3a8f6a", alpha=0.35, linewidth=0))
            for points in made:
                axes.plot(points[:, across], points[:, down], color=style.SOFT, linewidth=0.6, alpha=0.6)
            axes.plot(path[:, across], path[:, down], color=ACCENT, linewidth=1.4)
            axes.plot(path[0, across], path[0, down], "o", color=style.INK, markersize=4)
            axes.axis("off")
        draws.suptitle(" · ".join([episodes.parent.name, *about]), x=0.01, ha="left", fontsize=11)
        picture = episodes.with_suffix(".png")
        frontier.save_png(draws, picture)
    return picture
