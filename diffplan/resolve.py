"""Things that a user names: an object itself, a known name, or ``file.py:NAME`` and ``package.module:NAME``."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from diffplan.settings import ConfigError

T = TypeVar("T")


def resolve(value: T | str, known: Mapping[str, T], what: str) -> T:
    """The object that a value stands for.

    Args:
        value: the object, its name in `known`, ``file.py:NAME``, or ``package.module:NAME``.
        known: every object that has a name of its own.
        what: the setting, as errors name it.

    Returns:
        The object. A file is executed once, and again only when it has changed. It may import what stands beside it,
        and a module is looked for in the working directory first.

    Raises:
        ConfigError: if there is no such name, file, module or attribute, or if the file or module fails.
    """
    if not isinstance(value, str):
        return value
    if value in known:
        return known[value]
    origin, colon, name = value.rpartition(":")
    if not (colon and origin and name):
        allowed = f"one of {', '.join(known)}, or file.py:NAME, or package.module:NAME"
        raise ConfigError(f"{what}={value!r}: must be {allowed}")
    try:
        module = _from_file(Path(origin).expanduser()) if origin.endswith(".py") else _imported(origin)
    except Exception as error:  # whatever the file does
        reason = " ".join(str(error).split())
        raise ConfigError(f"{what}={value!r}: cannot load {origin}: {type(error).__name__}: {reason}") from error
    if not hasattr(module, name):
        names = ", ".join(each for each in vars(module) if not each.startswith("_"))
        raise ConfigError(f"{what}={value!r}: {origin} has no {name}; it has {names}")
    return getattr(module, name)


def _imported(name: str) -> ModuleType:
    _look_in(Path.cwd())
    return import_module(name)


def _look_in(folder: Path) -> None:
    """Let imports look in a folder first, as they do in the folder of a script."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _from_file(path: Path) -> ModuleType:
    return _executed(path.resolve(), path.stat().st_mtime_ns)


@cache
def _executed(path: Path, modified: int) -> ModuleType:
    """The module of a file, registered under its own path, where dataclasses and pickles look for it."""
    spec = spec_from_file_location(str(path), path)
    assert spec and spec.loader, path
    _look_in(path.parent)
    module = sys.modules[str(path)] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[str(path)]
        raise
    return module
