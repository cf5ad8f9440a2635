"""Scores that others publish, with where each was printed: rows of the same table as ours.

Maze2D and Multi2D: D4RL's normalised score, 100 (R - min) / (max - min), R the steps within 0.5 cells of the goal.
`min` is a random policy's, `max` D4RL's own controller's, both means of 100 episodes, and so known to about 10 %
(D4RL, `d4rl/infos.py`). Scores above 100 are usual: a planner that plans for each episode beats that controller.
OGBench: the percentage of episodes that reach their goal.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Reference(NamedTuple):
    """D4RL's reference returns of a task, and its time limit in steps."""

    low: float
    high: float
    steps: int

    def score(self, returns: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The normalised scores of returns."""
        return 100 * (returns - self.low) / (self.high - self.low)


REFERENCES = {
    "umaze": Reference(23.85, 161.86, 300),
    "medium": Reference(13.13, 277.39, 600),
    "large": Reference(6.70, 273.99, 800),
}
"""Of Maze2D-v1."""

TASKS = {
    "maze2d": tuple(REFERENCES),
    "multi2d": tuple(REFERENCES),
    "ogbench": ("medium", "large", "giant"),
    "gridworld": ("fourrooms", "corridors"),
}
"""The mazes of each suite, in the order of `Published`."""


class Published(NamedTuple):
    """One method's means, and what is printed behind their +-, maze by maze: a standard error in some papers, in others
    not said, and perhaps a deviation over seeds; None where nothing is printed.
    """

    method: str
    controller: str
    means: tuple[float, float, float]
    errors: tuple[float, float, float] | None
    source: str


HD = "Chen et al. 2024 (HD), Table 1"
DF = "Chen et al. 2024 (Diffusion Forcing), Table 1"
DV = "Lu et al. 2025 (Diffusion Veteran), Table 1"
OG = "Park et al. 2025 (OGBench), by a secondary table"
MCTD = "Yoon et al. 2025 (MCTD), Table 1: no noise on start and goal, velocity observed"

PUBLISHED = {
    "maze2d": (
        Published("MPPI", "true dynamics", (33.2, 10.2, 5.1), None, HD),
        Published("IQL", "policy", (47.4, 34.9, 58.6), None, HD),
        Published("Diffuser", "tracking", (113.9, 121.5, 123.0), (3.1, 2.7, 6.4), HD),
        Published("Diffuser", "plan's actions", (6.3, 13.5, 6.3), (2.1, 2.3, 2.1), DF),
        Published("HDMI", "not stated", (120.1, 121.8, 128.6), (2.5, 1.6, 2.9), HD),
        Published("AdaptDiffuser", "not stated", (135.1, 129.9, 167.9), None, DV),
        Published("Diffusion Forcing", "not stated", (116.7, 149.4, 159.0), (2.0, 7.5, 2.7), DF),
        Published("Hierarchical Diffuser", "not stated", (128.4, 135.6, 155.8), (3.6, 3.0, 2.5), HD),
        Published("DQL", "policy", (140.6, 152.0, 186.8), None, DV),
        Published("Diffusion Veteran", "inverse dynamics", (136.6, 150.7, 203.6), None, DV),
        Published("Diffusion Veteran, joint", "plan's actions", (146.3, 156.0, 202.9), None, DV.split(",")[0]),
    ),
    "multi2d": (
        Published("MPPI", "true dynamics", (41.2, 15.4, 8.0), None, HD),
        Published("IQL", "policy", (24.8, 12.1, 13.9), None, HD),
        Published("Diffuser", "tracking", (128.9, 127.2, 132.1), (1.8, 3.4, 5.8), HD),
        Published("HDMI", "not stated", (131.3, 131.6, 135.4), None, HD),
        Published("Hierarchical Diffuser", "not stated", (144.1, 140.2, 165.5), (1.2, 1.6, 0.6), HD),
        Published("Diffusion Forcing", "not stated", (119.1, 152.3, 167.1), None, DF),
    ),
    "ogbench": (
        Published("GCBC", "policy", (9, 29, 1), None, OG),
        Published("GCIVL", "policy", (63, 45, 0), None, OG),
        Published("GCIQL", "policy", (53, 34, 0), None, OG),
        Published("QRL", "policy", (82, 86, 68), None, OG),
        Published("CRL", "policy", (29, 39, 27), None, OG),
        Published("HIQL", "policy", (79, 58, 46), None, OG),
        Published("Diffuser (easier protocol)", "not stated", (58, 44, 0), (6, 8, 0), MCTD),
        Published("Diffusion Forcing (easier protocol)", "not stated", (65, 74, 50), (16, 9, 10), MCTD),
        Published("MCTD (easier protocol)", "not stated", (100, 98, 100), (0, 6, 0), MCTD),
    ),
    "gridworld": (),
}


def rows(suite: str, tasks: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rows of others on these mazes."""
    for task in tasks:
        place = TASKS[suite].index(task)
        for one in PUBLISHED[suite]:
            simulator = "ogbench" if suite == "ogbench" else "mujoco"
            about = {"suite": suite, "task": task, "simulator": simulator, "method": one.method}
            numbers = {"mean": one.means[place], "sem": one.errors[place] if one.errors else None}
            yield about | {"controller": one.controller, "source": one.source} | numbers
