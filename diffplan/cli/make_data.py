"""Behaviour to learn from: the data of a run by themselves, or the data of OGBench's point mazes, made again.

    diffplan make-data demo --run runs/mine --data.maze medium --data.rows 2000000    # 1 M rows in about 10 s
    diffplan make-data ogbench --maze giant --kind stitch                             # 1.1 M rows in 2 minutes

A preset of `diffplan compare` writes RUN/data/rows.npz (observations and actions of D4RL's noisy waypoint controller,
trajectories first) and rows.json (configuration, versions, digest). `diffplan compare` goes on from here.

`ogbench` needs the `simulators` extra. It writes FOLDER/pointmaze-MAZE-KIND-v0.npz and the same with -val, as OGBench's
own: `ogbench.make_env_and_datasets("pointmaze-giant-stitch-v0", dataset_dir=FOLDER)` loads them. The sizes are those of
the published files; the numbers are not, for they were drawn anew.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from diffplan.cli import command, experiment
from diffplan.cli.experiment import Experiment
from diffplan.settings import SEED, at_least, settings


@settings("")
class PointMazeSettings:
    """Data of a point maze, by the rules of OGBench's generator."""

    maze: Literal["medium", "large", "giant"] = "medium"
    """Which maze."""
    kind: Literal["navigate", "stitch"] = "navigate"
    """navigate: to one random goal after another; stitch: to one goal, four cells from the start."""
    episodes: Annotated[int | None, at_least(1)] = None
    """Episodes to train on; a tenth as many are made to validate. As many as were published, if not given."""
    steps: Annotated[int | None, at_least(2)] = None
    """Rows an episode. As many as in the published data, if not given."""
    noise: Annotated[float, at_least(0)] = 0.5
    """Standard deviation of the noise on actions, in units of the largest action."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""
    folder: Path = Path("runs/ogbench")
    """Where the two files go."""


def make_pointmaze(config: PointMazeSettings) -> None:
    """Generate, write both files, and print the statistics of each.

    Raises:
        RunError: if one of the files is there already.
    """
    from diffplan.benchmarks import ogbench
    from diffplan.runs import say

    episodes, steps = ogbench.pointmaze.published(config.maze, config.kind)
    size = (config.episodes or episodes, config.steps or steps)
    written = ogbench.write(config.folder, config.maze, config.kind, *size, config.noise, config.seed)
    maze, statistics = ogbench.pointmaze.named(config.maze), {}
    for path, part in written.items():
        statistics[path.stem.removeprefix("pointmaze-")] = ogbench.pointmaze.statistics(maze, part)
        say(str(path))
    say(ogbench.pointmaze.table(statistics))


def action(config: Experiment) -> None:
    """Make or check the data, and print their statistics."""
    import numpy as np

    from diffplan.experiment.build import make_data
    from diffplan.runs import say

    run, task = config.open()
    rows, _ = make_data(run, task)
    for name, value in rows._asdict().items():
        mean, std = value.mean((0, 1), dtype=np.float64), value.std((0, 1), dtype=np.float64)
        say(f"{name:<13}{list(value.shape)}  mean {np.round(mean, 4)}  std {np.round(std, 4)}")
    say(str(config.run / "data" / "rows.npz"))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    if arguments[:1] == ["ogbench"]:
        read = lambda: command.parse(PointMazeSettings, arguments[1:], "diffplan make-data ogbench", __doc__)
        return command.run(lambda: make_pointmaze(read()))
    experiment.main(action, "diffplan make-data", __doc__, arguments)
