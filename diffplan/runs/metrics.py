"""The metrics of one training: ``metrics.jsonl``, and the sinks of others."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Sink = Callable[[int, Mapping[str, float]], Any]
"""``sink(step, values)``: somewhere else that metrics go."""


class Metrics:
    """One JSON object a line, appended and flushed; the record that plots read.

    Lines beyond the step that training goes on from are dropped first, so that each step stands there once.
    """

    def __init__(self, path: Path, step: int, *sinks: Sink):
        self.path, self.sinks, self.began = path, sinks, time.time()
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if 0 < _step(line) <= step]
            part = path.with_name(path.name + ".part")
            part.write_text("".join(f"{line}\n" for line in kept))
            part.replace(path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, and pass it on to every sink."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(time.time() - self.began, 2), **values}) + "\n")
        for sink in self.sinks:
            sink(step, values)


def _step(line: str) -> int:
    """The step of a line; 0 for a line that a kill has cut."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def sinks(track: str, directory: Path) -> list[Sink]:
    """The sinks that a setting asks for, from the `track` extra: "none", "wandb" or "tensorboard"."""
    match track:
        case "wandb":
            import wandb

            run = wandb.init(project="diffplan", name=str(directory), dir=directory)
            return [lambda step, values: run.log(dict(values), step=step)]
        case "tensorboard":
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(directory / "tensorboard"))
            return [lambda step, values: [writer.add_scalar(name, value, step) for name, value in values.items()]]
    return []
