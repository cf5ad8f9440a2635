"""The worlds that ship, one file a family: each makes a `diffplan.task.Task` of its settings."""

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from diffplan.resolve import resolve
from diffplan.settings import ConfigError, perhaps
from diffplan.task import Task


class Shipped(NamedTuple):
    """A world that ships: the module of its family, the class of its settings there, and what they are for it."""

    module: str
    settings: str
    values: dict[str, Any]
    about: str


def _family(module: str, settings: str, field: str, names: dict[str, str]) -> dict[str, Shipped]:
    return {f"{module}-{name}": Shipped(module, settings, {field: name}, about) for name, about in names.items()}


MAZES = {
    "open": "an open room with D4RL's physics",
    "umaze": "a U with D4RL's physics: the first figure",
    "medium": "D4RL's medium maze",
    "large": "D4RL's large maze",
}
GRIDS = {
    "fourrooms": "four rooms of cells",
    "corridors": "narrow corridors of cells",
    "street": "a long street of cells",
}
POINT_MAZES = {
    f"{size}-{kind}": f"OGBench's {size} maze, {kind} data; needs the `simulators` extra"
    for size in ("medium", "large", "giant")
    for kind in ("navigate", "stitch")
}

TASKS: dict[str, Shipped] = {
    **_family("maze2d", "Maze2dSettings", "maze", MAZES),
    **_family("gridworld", "GridworldSettings", "layout", GRIDS),
    "linear-point": Shipped("linear", "LinearSettings", {}, "a point on a line, with a known optimum"),
    **_family("pointmaze", "PointMazeSettings", "maze", POINT_MAZES),
    "pendulum": Shipped("pendulum", "PendulumSettings", {}, "a pendulum to swing up"),
}
"""Every world that ships, by name."""

DRAWINGS = {
    "maze2d": Shipped("maze2d", "Maze2dSettings", {}, "a drawing with D4RL's physics: --task.maze FILE"),
    "gridworld": Shipped("gridworld", "GridworldSettings", {}, "a drawing of cells: --task.layout FILE"),
}
"""Families whose world is drawn by the user."""


OTHERS = {
    "maze.txt": "a drawing: `maze2d --task.maze FILE` or `gridworld --task.layout FILE`",
    "data.npz": "a data file: the project's, OGBench's (.npz) or D4RL's (.hdf5, .h5)",
    "namespace/name-v0": "a Minari data set on this machine",
    "Name-v0": "a gymnasium environment; needs the `gym` extra",
    "my_world.py:NAME": "a Task in a file of your own, or a function that makes one",
    "package.module:NAME": "the same in a package",
}
"""What else names a task."""


class Source(NamedTuple):
    """What a name stands for: how a task is made of settings, and their defaults; None where there are none."""

    make: Callable[[Any], Task]
    settings: Any


def source(name: str) -> Source:
    """What a name stands for.

    Args:
        name: a world that ships (`TASKS`), a data file, a Minari id, a gymnasium id, ``file.py:NAME`` or
            ``package.module:NAME`` of a `Task` or of a function that makes one.

    Raises:
        ConfigError: if it is none of these.
    """
    shipped = (TASKS | DRAWINGS).get(name)
    if shipped is not None:
        return _shipped(shipped)
    path = Path(name).expanduser()
    if path.suffix in (".npz", ".hdf5", ".h5", ".hdf"):
        return _shipped(Shipped("files", "FileSettings", {"path": name}, ""))
    _, colon, last = name.rpartition(":")
    versioned = last.rpartition("-v")[2].isdigit()
    if colon and not versioned:
        return _own(resolve(name, {}, "task"), name)
    if versioned:
        minari = not colon and (name.count("/") > 1 or ("/" in name and _has_minari(name)))  # gymnasium has one slash
        shipped = Shipped("files", "FileSettings", {"path": name}, "")
        return _shipped(shipped if minari else Shipped("gymnasium", "GymnasiumSettings", {"id": name}, ""))
    if path.is_dir():
        return _shipped(Shipped("files", "FileSettings", {"path": name}, ""))
    if path.suffix == ".py":
        raise ConfigError(f"task={name!r}: must name the task in the file: {name}:NAME")
    others = "a data file (.npz, .hdf5), a Minari or gymnasium id, my_world.py:NAME, or package.module:NAME"
    raise ConfigError(f"task={name!r}: {perhaps(name, TASKS)}must be one of {', '.join(TASKS)}; or {others}")


def make_task(name: str, **settings: Any) -> Task:
    """A task by name (`source`), with some of its settings changed.

    Raises:
        ConfigError: if there is no such task, or no such setting, or if a value is not allowed.
    """
    make, defaults = source(name)
    if defaults is None and settings:
        raise ConfigError(f"task={name!r}: has no settings, got {', '.join(settings)}")
    if defaults is None:
        return dataclasses.replace(make(None), origin=(name, None))
    known = {field.name for field in dataclasses.fields(defaults)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"task.{key}: unknown; {name} has {', '.join(sorted(known))}")
    chosen = dataclasses.replace(defaults, **settings)
    return dataclasses.replace(make(chosen), origin=(name, chosen))


def _shipped(shipped: Shipped) -> Source:
    module = import_module(f"diffplan.tasks.{shipped.module}")
    return Source(module.make, getattr(module, shipped.settings)(**shipped.values))


def _own(value: Any, name: str) -> Source:
    """A task, or a function of no argument, or of one with a default, that makes one."""
    if isinstance(value, Task):
        return Source(lambda _: value, None)
    if not callable(value):
        raise ConfigError(f"task={name!r}: is of type {type(value).__name__}: must be a Task or a function of one")
    default = getattr(value, "__defaults__", None) or (None,)

    def make(settings: Any) -> Task:
        try:
            made = value() if settings is None else value(settings)
        except ConfigError:
            raise
        except Exception as error:  # whatever the function does
            reason = " ".join(str(error).split())
            raise ConfigError(f"task={name!r}: failed: {type(error).__name__}: {reason}") from error
        if not isinstance(made, Task):
            raise ConfigError(f"task={name!r}: makes a value of type {type(made).__name__}: must make a Task")
        return made

    return Source(make, default[0] if dataclasses.is_dataclass(default[0]) else None)


def _has_minari(name: str) -> bool:
    """Whether there is a local Minari data set of this id."""
    try:
        minari = import_module("minari")
        return name in minari.list_local_datasets()
    except Exception:  # Minari is an extra, and fails in its own ways
        return False
