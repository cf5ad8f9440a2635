"""Experiments below the preset debug: every part in a few steps, for tests of whole commands in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffplan.cli import experiment
from diffplan.cli.main import main
from diffplan.experiment import presets as comparing
from diffplan.experiment.settings import ExperimentSettings
from diffplan.learn.train import TrainSettings
from diffplan.metrics import table
from diffplan.planner import presets as learning
from diffplan.planner.settings import PlannerSettings
from diffplan.runs.files import read_json
from tests.commands import one_line

FEW = TrainSettings(steps=2, batch=4, chunk=2, save_every=2)
PARTS = (
    *("prior", "proxy", "row_reward", "inverse", "dynamics", "value", "behaviour", "conditional", "contrastive"),
    "flow_map",
)


def smaller() -> PlannerSettings:
    """What the preset debug learns, with training of two steps and plans of 8 rows."""
    debug = learning.PRESETS["debug"]
    parts = {name: replace(getattr(debug, name), train=FEW) for name in PARTS}
    parts["prior"] = replace(parts["prior"], horizon=8, stride=1)
    return replace(debug, **parts, sampler=replace(debug.sampler, steps=3))


def fewest(**changes: Any) -> ExperimentSettings:
    """What the preset debug compares, with one method at two strengths, and changes."""
    debug = comparing.PRESETS["debug"]
    few = {"strengths": replace(debug.strengths, points=1, refine=0), "plans": 4, "reference": 64, "replans": 1}
    return replace(debug, **few | {"methods": ("guided",)} | changes)


@contextmanager
def small(compared: ExperimentSettings | None = None, **task: int) -> Iterator[None]:
    """Within it the preset debug is `smaller` and `fewest`, or these settings; tasks simulate at most so much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(learning.PRESETS, "debug", smaller())
        patch.setitem(comparing.PRESETS, "debug", compared or fewest())
        patch.setattr(experiment, "SMALL", {"episodes": 12, "steps": 60} | task)
        yield


def command(*arguments: str) -> None:
    """A command at its smallest, in this process."""
    with small():
        main([*arguments, "--preset", "debug"])


def refused(capsys: Any, *arguments: str) -> str:
    """What a command says that is refused: one line, and exit status 2."""
    with small(), pytest.raises(SystemExit) as ended:
        main([*arguments, "--preset", "debug"])
    assert ended.value.code == 2
    return one_line(capsys.readouterr().err)


def results(run: Path) -> list[dict[str, str]]:
    """The rows of ``results.csv``."""
    return table.read_rows(run / "results.csv")


def numbers(rows: list[dict[str, str]], column: str) -> np.ndarray:
    """A column of a table, NaN where a cell is empty or missing."""
    return np.array([float(row.get(column) or "nan") for row in rows])


def config(run: Path) -> dict[str, Any]:
    """``config.json``."""
    content = read_json(run / "config.json")
    assert isinstance(content, dict)
    return content
