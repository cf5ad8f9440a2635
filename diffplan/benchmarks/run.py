"""Any suite, from nothing to ``scores.csv``."""

from importlib.util import find_spec
from pathlib import Path

from diffplan.benchmarks import gridworld, maze2d, ogbench, published
from diffplan.benchmarks.rows import COLUMNS, MEASURED, Row, ScoresSettings
from diffplan.metrics.table import read_rows, write

NEEDS = {
    "maze2d": ("mujoco", "gymnasium_robotics"),
    "multi2d": ("mujoco", "gymnasium_robotics"),
    "ogbench": ("ogbench",),
}
"""The modules of a suite's simulators."""


def run(config: ScoresSettings) -> Path:
    """Writes the table anew after every maze; returns its path, ``RUN/SUITE/scores.csv``.

    Where mazes are named, the rows of those that are not stay in the table.

    Raises:
        ModuleNotFoundError: before anything is trained, if a simulator is not installed.
    """
    for module in NEEDS.get(config.suite, ()):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"{module} is missing: pip install 'diffplan[simulators]'", name=module)
    match config.suite:
        case "maze2d" | "multi2d":
            rows_of = maze2d.rows_of
        case "ogbench":
            rows_of = ogbench.rows_of
        case "gridworld":
            rows_of = gridworld.rows_of
    path = config.run / config.suite / "scores.csv"
    rows = before(path) if config.tasks else {}
    for task in config.named:
        rows[task] = list(rows_of(config, task))
        done = tuple(name for name in published.TASKS[config.suite] if name in rows)
        ours = [row for name in done for row in rows[name]]
        write(path, [*ours, *published.rows(config.suite, done)], COLUMNS)
    return path


def before(path: Path) -> dict[str, list[Row]]:
    """The rows of ours that a table holds already, by maze."""
    by_task: dict[str, list[Row]] = {}
    for row in read_rows(path, COLUMNS) if path.exists() else ():
        if row["source"] == MEASURED:
            by_task.setdefault(row["task"], []).append(row)
    return by_task
