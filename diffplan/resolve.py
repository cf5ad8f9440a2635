"""Things that a user names: an object, a name from a list, or ``file.py:NAME`` and ``package.module:NAME``."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffplan.settings import ConfigError

T = TypeVar("T")


def resolve(value: str | T, known: Mapping[str, T], what: str) -> T:
    """The thing that `value` names.

    Args:
        value: the thing itself; one of the names in `known`; or where it stands, ``file.py:NAME`` or
            ``package.module:NAME``.
        known: things by name.
        what: the field, for errors.

    Raises:
        ConfigError: if there is no such name, file, module or attribute.
    """
    if not isinstance(value, str):
        return value
    if value in known:
        return known[value]
    place, colon, name = value.rpartition(":")
    if not colon:
        raise ConfigError(f"{what}={value!r}: must be one of {', '.join(known)}, or file.py:NAME")
    try:
        module = _from_file(Path(place).expanduser()) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:  # whatever a user's file does
        reason = " ".join(str(error).split())
        raise ConfigError(f"{what}={value!r}: {place} cannot be imported ({type(error).__name__}: {reason})") from error
    if not hasattr(module, name):
        raise ConfigError(f"{what}={value!r}: {place} has no {name}")
    return getattr(module, name)


def _from_file(path: Path) -> Any:
    """The module that a file holds. It is known to `sys.modules`, where dataclasses look for it, by its whole path."""
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(str(path.resolve()), path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
