"""The data of OGBench's point mazes, made again by the rules of its generator; needs the `simulators` extra.

    diffplan make-data ogbench --maze giant --kind stitch                             # 1.1 M rows in 2 minutes

Writes FOLDER/pointmaze-MAZE-KIND-v0.npz and the same with -val, as OGBench's own:
`ogbench.make_env_and_datasets("pointmaze-giant-stitch-v0", dataset_dir=FOLDER)` loads them. The sizes are those of the
published files; the numbers are not, for they were drawn anew.
"""

from pathlib import Path
from typing import Annotated, Literal

from diffplan.benchmarks import ogbench
from diffplan.runs import say
from diffplan.settings import SEED, at_least, settings


@settings("")
class DataSettings:
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


def make(config: DataSettings) -> None:
    """Generate, write both files, and print the statistics of each.

    Raises:
        RunError: if one of the files is there already.
    """
    episodes, steps = ogbench.pointmaze.published(config.maze, config.kind)
    size = (config.episodes or episodes, config.steps or steps)
    written = ogbench.write(config.folder, config.maze, config.kind, *size, config.noise, config.seed)
    maze, statistics = ogbench.pointmaze.named(config.maze), {}
    for path, part in written.items():
        statistics[path.stem.removeprefix("pointmaze-")] = ogbench.pointmaze.statistics(maze, part)
        say(str(path))
    say(ogbench.pointmaze.table(statistics))
