"""The metrics of one training: ``metrics.jsonl``, and where else they go."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Sink = Callable[[int, Mapping[str, float]], Any]
"""``sink(step, values)``: somewhere else that metrics go."""


class Metrics:
    """``metrics.jsonl`` in a directory: one JSON object a line, appended and flushed; the record that plots read.

    Lines beyond the step that training goes on from are dropped first, so that each step stands there once.
    """

    def __init__(self, directory: Path, step: int, track: str = "none"):
        self.path, self.began = directory / "metrics.jsonl", time.time()
        if self.path.exists():
            kept = [line for line in self.path.read_text(errors="replace").splitlines() if 0 < _step(line) <= step]
            part = self.path.with_name(self.path.name + ".part")
            part.write_text("".join(f"{line}\n" for line in kept))
            part.replace(self.path)
        self.sink, self.close = sink(track, directory)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, and pass it on."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(time.time() - self.began, 2), **values}) + "\n")
        self.sink(step, values)


def _step(line: str) -> int:
    """The step of a line; 0 for a line that a kill has cut."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def sink(track: str, directory: Path) -> tuple[Sink, Callable[[], Any]]:
    """Where else metrics go, from the `track` extra, "wandb" or "tensorboard"; and how that is closed.

    Each training is a run of its own; those of one run directory are a group.
    """
    match track:
        case "wandb":
            import wandb

            run = wandb.init(project="diffplan", group=str(directory.parent), name=str(directory), dir=directory)
            return lambda step, values: run.log(dict(values), step=step), run.finish
        case "tensorboard":
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(directory / "tensorboard"))
            return lambda step, values: [
                writer.add_scalar(name, value, step) for name, value in values.items()
            ], writer.close
    return lambda step, values: None, lambda: None
