"""Behaviour to learn from: the data stage of a run by itself, or the data of OGBench's point mazes, made again.

    python scripts/make_data.py demo --run runs/mine --data.maze medium --data.rows 2000000    # 1 M rows in about 10 s
    python scripts/make_data.py ogbench --maze giant --kind stitch                             # 1.1 M rows in 2 minutes

A preset of compare.py's writes RUN/data/rows.npz (observations and actions of D4RL's noisy waypoint controller,
trajectories first) and rows.json (seed, configuration, versions, digest). Its settings are those of compare.py, which
goes on from here when it is given the same ones.

`ogbench` needs the `simulators` extra. It writes FOLDER/pointmaze-MAZE-KIND-v0.npz and the same with -val, as OGBench's
own: `ogbench.make_env_and_datasets("pointmaze-giant-stitch-v0", dataset_dir=FOLDER)` loads them. The sizes are those of
the published files; the numbers are not, for they were drawn anew.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from compare import PRESETS

from diffplan import runtime
from diffplan.config import CompareSettings, require


@dataclass(frozen=True)
class PointMazeConfig:
    """Data of a point maze, by the rules of OGBench's generator."""

    maze: Literal["medium", "large", "giant"] = "medium"
    """Which maze."""
    kind: Literal["navigate", "stitch"] = "navigate"
    """navigate: to one random goal after another; stitch: to one goal, four cells from the start."""
    episodes: int | None = None
    """Episodes to train on; a tenth as many are made to validate. As many as were published, if not given."""
    steps: int | None = None
    """Rows an episode. As many as in the published data, if not given."""
    noise: float = 0.5
    """Standard deviation of the noise on actions, in units of the largest action."""
    seed: int = 0
    """Seed of the data."""
    folder: Path = Path("runs/ogbench")
    """Where the two files go."""

    def __post_init__(self) -> None:
        require(self.episodes is None or self.episodes >= 1, "episodes", self.episodes, "at least 1")
        require(self.steps is None or self.steps >= 2, "steps", self.steps, "at least 2, to hold a step")
        require(self.noise >= 0, "noise", self.noise, "0 or more")


def make_pointmaze(config: PointMazeConfig) -> None:
    """Generate, write both files, and print the statistics of each."""
    from diffplan.benchmarks import ogbench
    from envs import pointmaze

    episodes, steps = pointmaze.published(config.maze, config.kind)
    size = (config.episodes or episodes, config.steps or steps)
    written = ogbench.write(config.folder, config.maze, config.kind, *size, config.noise, config.seed)
    result = {}
    for path, part in written.items():
        result[path.stem.removeprefix("pointmaze-")] = pointmaze.statistics(pointmaze.named(config.maze), part)
        runtime.say(str(path))
    runtime.say(pointmaze.table(result))


def main(config: CompareSettings | PointMazeConfig) -> None:
    """Make or check the data, and print its statistics."""
    if isinstance(config, PointMazeConfig):
        return make_pointmaze(config)
    from diffplan.experiment import stages

    rows, _ = stages.make_data(config.run, config.data, stages.environment(config.data, config.gold))
    for name, value in rows._asdict().items():
        mean, std = value.mean((0, 1), dtype=np.float64), value.std((0, 1), dtype=np.float64)
        runtime.say(f"{name:<13}{list(value.shape)}  mean {np.round(mean, 4)}  std {np.round(std, 4)}")
    runtime.say(str(config.run / "data" / "rows.npz"))


if __name__ == "__main__":
    presets = {**PRESETS, "ogbench": ("OGBench's point mazes: its data, made again.", PointMazeConfig())}
    runtime.command(main, CompareSettings | PointMazeConfig, presets)
