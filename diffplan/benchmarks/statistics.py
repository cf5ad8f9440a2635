"""What behaviour is like, in numbers: the data made again here beside what is known of the published files.

Maze2D's published statistics are those that planners ship to normalise with (Chen et al. 2024, Diffusion Forcing) and
the mean rewards of the files; OGBench's stand in the docstring of a public training code that loads its files.
"""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from diffplan.benchmarks.rows import Row
from diffplan.data import files, npz
from diffplan.envs import maze2d, pointmaze
from diffplan.episodes import Episodes

NUMBERS = ("observation_mean", "observation_std", "action_mean", "action_std")
COLUMNS = ("data", "source", "rows", *NUMBERS, "reward_mean")

NAN = float("nan")
PUBLISHED = {
    "umaze": ([1.9328, 2.3745, 0.0002, -0.0010], [0.8997, 0.7093, 2.2129, 2.4682], [0.7043, 0.7506], 0.0813),
    "medium": ([3.5093, 3.4766, NAN, NAN], [1.3371, 1.5210, 2.3408, 2.3694], [0.7398, 0.7459], 0.0237),
    "large": ([3.7296, 5.3047, NAN, NAN], [1.8070, 2.5688, 2.4368, 2.6494], [0.7249, 0.7395], 0.0089),
}
"""Of maze2d-NAME-v1: observation mean and std, action std, mean reward; NaN where not known."""

OGBENCH = {
    ("medium", "navigate"): ([10.2332, 9.5702], [5.8341, 5.1943], [0.0032, -0.0026], [0.7053, 0.7002]),
    ("large", "navigate"): ([16.9036, 11.0059], [10.2778, 7.0081], [-0.0114, -0.0016], [0.7073, 0.6887]),
    ("giant", "navigate"): ([25.1892, 17.3160], [14.7253, 11.6489], [-0.0083, 0.0001], [0.7028, 0.6977]),
    ("medium", "stitch"): ([9.5561, 10.3424], [5.7913, 5.0557], [-0.0118, 0.0056], [0.7089, 0.7083]),
    ("large", "stitch"): ([18.2273, 10.9289], [11.5931, 7.2387], [0.0030, -0.0222], [0.7041, 0.7093]),
    ("giant", "stitch"): ([26.1243, 17.9341], [16.7704, 11.9460], [-0.0004, -0.0081], [0.7080, 0.7056]),
}
"""Of pointmaze-NAME-KIND-v0: mean and std of places and of actions."""


def text(values: np.ndarray | list[float]) -> str:
    """A vector in a cell of the table."""
    return " ".join("?" if np.isnan(value) else f"{value:.4f}" for value in values)


def described(name: str, source: str, episodes: Episodes) -> Row:
    """A row of the table, of data at hand."""
    result: Row = {"data": name, "source": source, "rows": len(episodes.actions)}
    for what, values in (("observation", episodes.observations), ("action", episodes.actions)):
        result[f"{what}_mean"] = text(values.mean(axis=0, dtype=np.float64))
        result[f"{what}_std"] = text(values.std(axis=0, dtype=np.float64))
    return result


def published(name: str, *numbers: list[float]) -> Row:
    """A row of the table, of a published file: the four of NUMBERS."""
    return {"data": name, "source": "published"} | dict(zip(NUMBERS, map(text, numbers), strict=True))


def table(run: Path) -> Iterator[Row]:
    """All data that a run's suites have made."""
    for task, (mean, std, action_std, reward) in PUBLISHED.items():
        path = run / task / "data" / "rows.npz"
        if path.exists():
            episodes, goal = files.load(path)[0], jnp.asarray(maze2d.named(task).goal)
            paid = np.linalg.norm(episodes.observations[:, :2] - np.asarray(goal), axis=-1) <= 0.5
            yield described(f"maze2d-{task}", "regenerated", episodes) | {"reward_mean": f"{paid.mean():.4f}"}
            yield published(f"maze2d-{task}", mean, std, [NAN, NAN], action_std) | {"reward_mean": reward}
    for (task, kind), numbers in OGBENCH.items():
        path = run / "ogbench" / f"pointmaze-{task}-{kind}-v0.npz"
        if path.exists():
            yield described(path.stem, "regenerated", npz.read(path, limits=pointmaze.named(task))[0])
            yield published(path.stem, *numbers)
