"""Any suite, from nothing to ``scores.csv``."""

import csv
from pathlib import Path

from diffplan.benchmarks import gridworld, maze2d, ogbench, published
from diffplan.benchmarks.rows import COLUMNS, MEASURED, Row, ScoresSettings
from diffplan.experiment.harness import write_csv


def run(config: ScoresSettings) -> Path:
    """Writes the table anew after every maze; returns its path, ``RUN/SUITE/scores.csv``.

    Where mazes are named, the rows of those that are not stay in the table.
    """
    match config.suite:
        case "maze2d" | "multi2d":
            rows_of = maze2d.rows_of
        case "ogbench":
            rows_of = ogbench.rows_of
        case "gridworld":
            rows_of = gridworld.rows_of
    path = config.run / config.suite / "scores.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = before(path) if config.tasks else {}
    for task in config.named:
        result[task] = list(rows_of(config, task))
        done = tuple(name for name in published.TASKS[config.suite] if name in result)
        ours = [row for name in done for row in result[name]]
        write_csv(path, [*ours, *published.rows(config.suite, done)], COLUMNS)
    return path


def before(path: Path) -> dict[str, list[Row]]:
    """The rows of ours that a table holds already, by maze."""
    result: dict[str, list[Row]] = {}
    if path.exists():
        with path.open() as file:
            for row in csv.DictReader(file):
                if row["source"] == MEASURED:
                    result.setdefault(row["task"], []).append(row)
    return result
