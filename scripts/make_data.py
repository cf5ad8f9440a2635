"""The data stage of a run by itself: D4RL's noisy waypoint controller in a maze, 1 M steps in about 10 s.

    python scripts/make_data.py demo --run runs/mine --data.maze medium --data.rows 2000000

Writes RUN/data/rows.npz (observations and actions, lanes first) and rows.json (seed, configuration, versions, digest).
Settings are those of compare.py, which goes on from here when it is given the same ones.
"""

import numpy as np
from compare import PRESETS

from diffplan import runtime
from diffplan.config import CompareConfig


def main(config: CompareConfig) -> None:
    """Make or check the data, and print its statistics."""
    from diffplan.studies import stages

    rows, _ = stages.make_data(config.run, config.data, stages.environment(config.data, config.gold))
    for name, value in rows._asdict().items():
        mean, std = value.mean((0, 1), dtype=np.float64), value.std((0, 1), dtype=np.float64)
        runtime.say(f"{name:<13}{list(value.shape)}  mean {np.round(mean, 4)}  std {np.round(std, 4)}")
    runtime.say(str(config.run / "data" / "rows.npz"))


if __name__ == "__main__":
    runtime.command(main, CompareConfig, PRESETS)
