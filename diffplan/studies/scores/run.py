"""Any suite, from nothing to ``scores.csv``."""

from pathlib import Path

from diffplan.studies.harness import write_csv
from diffplan.studies.scores import gridworld, ogbench, published, suite
from diffplan.studies.scores.rows import COLUMNS, Row, ScoresConfig


def run(config: ScoresConfig) -> Path:
    """Writes the table anew after every maze; returns its path, ``RUN/SUITE/scores.csv``."""
    match config.suite:
        case "maze2d" | "multi2d":
            rows_of = suite.rows_of
        case "ogbench":
            rows_of = ogbench.rows_of
        case "gridworld":
            rows_of = gridworld.rows_of
    directory = config.run / config.suite
    directory.mkdir(parents=True, exist_ok=True)
    found: list[Row] = []
    for task in config.named:
        found += rows_of(config, task)
        done = tuple(name for name in config.named if any(row["task"] == name for row in found))
        write_csv(directory / "scores.csv", [*found, *published.rows(config.suite, done)], COLUMNS)
    return directory / "scores.csv"
