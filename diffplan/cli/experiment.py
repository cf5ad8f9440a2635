"""The settings that every command on an experiment shares: a task, a preset, a run."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffplan.cli import command
from diffplan.experiment import presets as experiments
from diffplan.experiment.settings import ExperimentSettings
from diffplan.planner import presets as planners
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.runs.config import recorded, settle
from diffplan.runs.files import RunError, read_json
from diffplan.settings import ConfigError, settings
from diffplan.task import Task
from diffplan.tasks import TASKS, source

SMALL = {"episodes": 40, "steps": 500}
"""Of the settings of tasks that simulate, under the preset debug: at most so many."""


@settings("")
class Experiment:
    """An experiment on a task, and the directory of its run. A task with settings adds them (`experiment_class`)."""

    name: tyro.conf.Suppress[str] = ""
    """The task, as the command names it."""
    preset: Literal["demo", "debug", "full", "accelerator"] = "demo"
    """Where settings start from: demo, minutes on two cores; debug, as small as it gets; full, every method;
    accelerator, larger networks."""
    run: Path = Path()
    """Directory of the run, runs/TASK by default. What is finished in it is used again."""
    new_settings: bool = False
    """Go on in a run that was made with other settings: what they made is kept aside, and made anew."""
    track: Literal["none", "wandb", "tensorboard"] = "none"
    """Where training metrics go beside metrics.jsonl; wandb and tensorboard need the `track` extra."""
    planner: Annotated[PlannerSettings, tyro.conf.arg(name="")] = field(default_factory=PlannerSettings)
    """What is learned."""
    experiment: Annotated[ExperimentSettings, tyro.conf.arg(name="")] = field(default_factory=ExperimentSettings)
    """What is compared."""

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is made."""
        return "preset", "run", "new_settings", "track"

    def make(self) -> Task:
        """The task.

        Raises:
            ConfigError: if there is no such task, or if its settings cannot work.
        """
        return source(self.name).make(getattr(self, "task", None))

    def open(self) -> tuple[Run, Task]:
        """The run, whose settings are recorded, and the task.

        Raises:
            RunError: if the run was made with other settings.
            ConfigError: if the task cannot be made.
        """
        task = self.make()
        opened = Run(self.run, self.new_settings, self.track)
        settle(opened, self)
        return opened, task


@cache
def extended(cls: type, name: str, kind: Any) -> type:
    """A settings class with one more field."""
    fields = {"__doc__": cls.__doc__, "__annotations__": {name: kind}, "__module__": cls.__module__}
    return settings("")(type(cls.__name__, (cls,), fields | {name: field(default=None)}))


def experiment_class(task: Any) -> type[Experiment]:
    """The class of an experiment on a task with these settings, None if it has none."""
    return Experiment if task is None else extended(Experiment, "task", type(task))


def experiment(name: str, preset: str = "demo", run: Path | None = None) -> Experiment:
    """An experiment on a task, as a preset has it.

    Raises:
        ConfigError: if there is no such task or preset.
    """
    planner = planners.settings_of(preset)
    task = source(name).settings
    if preset == "debug" and task is not None:
        names = {each.name for each in dataclasses.fields(task)}
        smaller = {key: min(getattr(task, key) or most, most) for key, most in SMALL.items() if key in names}
        task = replace(task, **smaller)
    more = {} if task is None else {"task": task}
    run = run or default_run(name)
    values: dict[str, Any] = {"name": name, "preset": preset, "run": run, "planner": planner}
    return experiment_class(task)(**values, experiment=experiments.PRESETS[preset], **more)


def default_run(name: str) -> Path:
    """``runs/`` and a short form of a task's name: of ``folder/world.py:task``, world."""
    origin, _, last = name.rpartition(":")
    stem = Path(origin).stem if origin.endswith(".py") else Path(last or name).name
    return Path("runs") / (Path(stem).stem if Path(stem).suffix in (".npz", ".hdf5", ".h5", ".hdf") else stem)


def load(path: Path) -> Experiment:
    """The settings of a run's config.json; `run` is the directory that the file stands in.

    Raises:
        RunError: if the file is missing, or holds no settings of a run, or of one whose task only a program can make.
    """
    there = read_json(path)
    name = there.get("settings", {}).get("name") if isinstance(there, dict) else None
    if not isinstance(name, str) or not name:
        why = "holds no settings of a run; move it away, or name another --run" if path.exists() else "no such file"
        raise RunError(f"{path}: {why}")
    try:
        kind = experiment_class(source(name).settings)
    except ConfigError as error:
        why = "was made in a program: go on with it there (dp.compare, dp.tune, dp.load), or name another --run"
        if ":" in name:
            why = f"cannot be loaded here: go on in the folder in which the run was made ({error})"
        raise RunError(f"{path}: its task {name!r} {why}") from error
    before = recorded(path, kind, beside=("goals",))
    return replace(before, run=path.parent, new_settings=False)


def begin(arguments: Sequence[str]) -> tuple[Experiment, list[str]]:
    """What flags change, and the flags: a task's preset, the settings of `--config`, or those of a run.

    A task that is named, without a preset, goes on with the settings of its run where there is one.

    Raises:
        ConfigError: if no task is named and no run is given, or if `--config` is given beside another task or preset.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    rest = list(arguments[1:] if named else arguments)
    file, preset = command.value_of("--config", rest), command.value_of("--preset", rest)
    directory = command.value_of("--run", rest)
    if file:
        before = load(Path(file).expanduser())
        if named and before.name != arguments[0]:
            raise ConfigError(f"task={arguments[0]!r}: must be {before.name}, as in {file}, or be left out")
        if preset:
            raise ConfigError(f"preset={preset!r}: must be left out where --config is given")
        return before, command.without("--config", rest)
    where = Path(directory).expanduser() if directory else default_run(arguments[0]) if named else None
    if where is not None and not preset and (where / "config.json").exists():
        before = load(where / "config.json")
        if not named or before.name == arguments[0]:
            return before, rest
    if named:
        return experiment(arguments[0], preset or "demo", where), rest
    if {"-h", "--help"} & set(arguments):
        return experiment(next(iter(TASKS))), rest
    known = f"{', '.join(TASKS)}; a data file, a gymnasium id, or my_world.py:NAME"
    raise ConfigError(f"task: none is named: name one of {known}; or give --run of a run, or --config")


def read(arguments: Sequence[str], prog: str, text: str | None) -> Experiment:
    """An experiment from flags: a task first, or `--config FILE`, or `--run` of a run that exists."""
    default, rest = begin(arguments)
    return command.parse(type(default), rest, prog, text, default)


def main(action: Callable[[Experiment], Any], prog: str, text: str | None, arguments: Sequence[str]) -> None:
    """Run an action on an experiment, with a command's manners."""
    command.run(lambda: action(read(arguments, prog, text)))
