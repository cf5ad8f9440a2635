"""What a program or a notebook calls: the commands as functions, on tasks made in Python.

    task = dp.make_task("maze2d-umaze")
    table = dp.compare(task, methods=("guided", "best_of_n", "ascent"), run="runs/umaze")
    scale = dp.tune(task, run="runs/umaze").recommended
    paths = dp.plot("runs/umaze")

A run is the same as that of a command, and either goes on with what the other made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from diffplan.experiment import compare as comparing
from diffplan.experiment import tune as tuning
from diffplan.experiment.presets import PRESETS
from diffplan.experiment.settings import ExperimentSettings
from diffplan.experiment.tune import TuneSettings
from diffplan.planner.presets import run_of, settings_for
from diffplan.planner.settings import PlannerSettings
from diffplan.report import draw, sweep
from diffplan.report import table as tables
from diffplan.report.load import read_results
from diffplan.report.summary import curves
from diffplan.runs import Run
from diffplan.runs.config import settings_from, settle
from diffplan.runs.files import read_json
from diffplan.task import Task

COLUMNS = (
    "proxy",
    "promised",
    "delivered",
    "replanned",
    "feasible",
    "path_kl",
    "data_distance",
    "converged",
    "seconds",
)


@dataclass(frozen=True)
class Comparison:
    """A comparison that was run: its directory, and the means over seeds of each method at each strength."""

    run: Path
    rows: tuple[Mapping[str, Any], ...]
    """By method and strength: the columns of docs/demo.md, ``best`` for the best strength of a method, and the 95 %
    interval of the delivered return as ``low`` and ``high``. What is not known is NaN."""

    @classmethod
    def of(cls, run: Path) -> "Comparison":
        """Read the results of a run."""
        rows = []
        for method, curve in curves(read_results(run)).items():
            band = curve.bands["delivered"]
            for i, strength in enumerate(curve.strengths):
                row: dict[str, Any] = {"method": method, "strength": float(strength), "best": i == curve.best}
                row |= {name: float(curve.value(name)[i]) for name in COLUMNS if name in curve.bands}
                rows.append(row | {"low": float(band.low[i]), "high": float(band.high[i])})
        return cls(run, tuple(rows))

    @property
    def best(self) -> dict[str, Mapping[str, Any]]:
        """The row of each method at its best strength."""
        return {row["method"]: row for row in self.rows if row["best"]}

    def __str__(self) -> str:
        """The table, as the command prints it."""
        return tables.markdown(self.run)

    _repr_markdown_ = __str__


class Tuned(NamedTuple):
    """A guidance scale; None where none can be. run: where the call is kept. content: as in ``scale.json``, with
    ``candidates`` and ``prior`` where they were tuned.
    """

    recommended: float | None
    reason: str
    run: Path
    content: dict[str, Any]


def compare(
    task: Task,
    methods: Sequence[Any] | None = None,
    run: Path | str | None = None,
    preset: str | None = None,
    planner: PlannerSettings | None = None,
    settings: ExperimentSettings | None = None,
    new_settings: bool = False,
) -> Comparison:
    """Run methods at all their strengths on a task, carry their plans out, and draw the figures.

    Args:
        task: the world and its question.
        methods: names of methods (``diffplan methods``), or methods of your own; the preset's by default.
        run: where everything is kept; ``runs/NAME`` by default. What is there is used again.
        preset: demo, debug, full or accelerator; by default the settings of the run, or demo.
        planner: what is learned, in place of a preset.
        settings: what is compared, in place of a preset.
        new_settings: whether what was made with other settings is set aside and made anew.

    Returns:
        Promised and delivered returns by method and strength; ``print`` shows the table.

    Raises:
        ConfigError: naming what cannot work.
        RunError: if the run is in use, or holds what other settings made.
    """
    where, learned, compared = open_run(task, run, preset, planner, settings, new_settings)
    compared = compared if methods is None else replace(compared, methods=tuple(methods))
    settle(where, about(task, learned, compared))
    comparing.compare(where, task, learned, compared)
    draw.draw(where.directory)
    return Comparison.of(where.directory)


def tune(
    task: Task,
    run: Path | str | None = None,
    preset: str | None = None,
    planner: PlannerSettings | None = None,
    settings: ExperimentSettings | None = None,
    new_settings: bool = False,
    **how: Any,
) -> Tuned:
    """Choose the guidance scale of a method on a task.

    Args:
        task: the world and its question.
        run: where everything is kept; what is there is used again.
        preset: as in `compare`.
        planner: what is learned, in place of a preset.
        settings: of the comparison whose starts and seeds are used.
        new_settings: whether what was made with other settings is set aside and made anew.
        how: fields of `TuneSettings`: method, low, high, points, candidates, prior, objective,
                repeats, nats, typicality.

    Returns:
        The recommended scale, its reason, and where the sweep is kept, with a table and a figure.

    Raises:
        ConfigError: naming what cannot work, or if no scale meets a budget.
        RunError: if the run is in use, or holds what other settings made.
    """
    where, learned, compared = open_run(task, run, preset, planner, settings, new_settings)
    config = TuneSettings(**how)
    tuning.fits(config, learned)
    settle(where, about(task, learned, compared))
    content, directory = tuning.tune(where, task, learned, compared, config)
    if (directory / "sweep.csv").exists():
        sweep.draw(directory)
    return Tuned(content["scale"], content["reason"], directory, content)


def plot(run: Path | str, out: Path | str | None = None) -> tuple[Path, ...]:
    """Draw the figures and the page of a run again.

    Args:
        run: a directory that `compare` filled.
        out: where to write; by default into the run.

    Returns:
        The files that were written.

    Raises:
        TableError: naming the file and the field that is missing or damaged.
    """
    return tuple(draw.draw(Path(run).expanduser(), None if out is None else Path(out).expanduser()))


def open_run(
    task: Task,
    run: Path | str | None,
    preset: str | None,
    planner: PlannerSettings | None,
    settings: ExperimentSettings | None,
    new_settings: bool,
) -> tuple[Run, PlannerSettings, ExperimentSettings]:
    """The run, what is learned and what is compared: as given, of a preset, or as the run has them."""
    where = run_of(task, run, new_settings)
    learned = settings_for(where, preset, planner)
    before = read_json(where.directory / "config.json")
    kept = before.get("settings", {}).get("experiment") if isinstance(before, dict) else None
    if settings is None and preset is None and kept is not None:
        settings = settings_from(ExperimentSettings, kept, where.directory / "config.json")
    return where, learned, settings or PRESETS[preset or "demo"]


def about(task: Task, planner: PlannerSettings, settings: ExperimentSettings) -> dict[str, Any]:
    """What config.json records of a run."""
    name, of = task.origin or (task.name, None)
    return {"name": name, "planner": planner, "experiment": settings} | ({} if of is None else {"task": of})
