"""What behaviour is like, in numbers: the data made again here beside what is known of the published files.

Maze2D's published statistics are those that planners ship to normalise with (Chen et al. 2024, Diffusion Forcing) and
the mean rewards of the files; of OGBench's files nothing is printed that could be compared, so its rows stand alone.
"""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from diffplan.learn import data as files
from diffplan.learn import readers
from diffplan.learn.data import Rows
from diffplan.studies.scores.published import TASKS
from diffplan.studies.scores.rows import Row
from envs import maze2d, pointmaze

COLUMNS = ("data", "source", "rows", "observation_mean", "observation_std", "action_mean", "action_std", "reward_mean")

NAN = float("nan")
PUBLISHED = {
    "umaze": ([1.9328, 2.3745, 0.0002, -0.0010], [0.8997, 0.7093, 2.2129, 2.4682], [0.7043, 0.7506], 0.0813),
    "medium": ([3.5093, 3.4766, NAN, NAN], [1.3371, 1.5210, 2.3408, 2.3694], [0.7398, 0.7459], 0.0237),
    "large": ([3.7296, 5.3047, NAN, NAN], [1.8070, 2.5688, 2.4368, 2.6494], [0.7249, 0.7395], 0.0089),
}
"""Of maze2d-NAME-v1: observation mean and std, action std, mean reward; NaN where not known."""


def text(values: np.ndarray | list[float]) -> str:
    """A vector in a cell of the table."""
    return " ".join("?" if np.isnan(value) else f"{value:.4f}" for value in values)


def described(name: str, source: str, rows: Rows) -> Row:
    """A row of the table, of data at hand."""
    found: Row = {"data": name, "source": source, "rows": rows.actions.shape[0] * rows.actions.shape[1]}
    for what, values in (("observation", rows.observations), ("action", rows.actions)):
        found[f"{what}_mean"] = text(values.mean((0, 1), dtype=np.float64))
        found[f"{what}_std"] = text(values.std((0, 1), dtype=np.float64))
    return found


def table(run: Path) -> Iterator[Row]:
    """All data that a run's suites have made."""
    for task, (mean, std, action_std, reward) in PUBLISHED.items():
        path = run / task / "data" / "rows.npz"
        if path.exists():
            rows, goal = files.load(path)[0], jnp.asarray(maze2d.named(task).goal)
            paid = np.linalg.norm(rows.observations[..., :2] - np.asarray(goal), axis=-1) <= 0.5
            yield described(f"maze2d-{task}", "regenerated", rows) | {"reward_mean": f"{paid.mean():.4f}"}
            vectors = {"observation_mean": text(mean), "observation_std": text(std), "action_std": text(action_std)}
            yield {"data": f"maze2d-{task}", "source": "published", "reward_mean": reward} | vectors
    for task in TASKS["ogbench"]:
        for path in sorted((run / "ogbench").glob(f"pointmaze-{task}-*-v0.npz")):
            runs, _ = readers.from_ogbench(path, pointmaze.named(task))
            rows, _ = readers.lanes(runs, min(len(run.actions) for run in runs))
            yield described(path.stem, "regenerated", rows)
