"""Settings: frozen dataclasses whose every field has a bound, and the one line that refuses a value.

    @settings("train")
    class TrainSettings:
        steps: Annotated[int, at_least(1)] = 1000

A number must be finite and within its bound; a whole number must also fit into 64 bits. A path's `~` is expanded. A
class may add `check`, for what concerns several fields, and `undecided`, for the fields that do not decide what is made
(`diffplan.runs`).
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, dataclass_transform, get_args, get_origin
from typing import get_type_hints as hints_of

import tyro

Class = TypeVar("Class", bound=type)

WHOLE = 2**63
"""No whole number reaches this."""


class ConfigError(Exception):
    """A value that cannot work. Not a ValueError: tyro would catch it, and wrap its line up in a box of its own."""


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise the one line that names a field, its value and what is allowed.

    Raises:
        ConfigError: unless the condition holds.
    """
    if not condition:
        raise ConfigError(f"{name}={value!r}: must be {allowed}")


def perhaps(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one is nearest to, as a message begins; or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"perhaps {near[0]}; " if near else ""


class Bound(NamedTuple):
    """The numbers from low to high. An end that is `open` does not belong to them."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a number belongs to them."""
        return bool(self.low < value < self.high if self.open else self.low <= value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'more than' if self.open else 'at least'} {self.low:g}"
        low, high = (f"{end:.0f}" if float(end).is_integer() else f"{end:g}" for end in (self.low, self.high))
        return f"between {low} and {high}" + (", neither of them" if self.open else "")


def at_least(low: float, most: float = math.inf) -> Bound:
    """From low on, up to `most`."""
    return Bound(low, most)


def more_than(low: float, below: float = math.inf) -> Bound:
    """Above low, and below `below`."""
    return Bound(low, below, open=True)


SIZE = at_least(1, 16_384)
"""Widths, depths, patches and the like: what a network can be built with."""
COUNT = at_least(1)
"""Steps, rows and the like."""
SEED = at_least(0, 2**32 - 1)
"""What jax takes as a seed on every platform."""
Named = Annotated[Any, tyro.conf.arg(constructor=str)]
"""Something that `diffplan.resolve` takes: the thing itself in Python, a name or file.py:NAME as a flag."""
FRACTION = at_least(0, 1)
INSIDE = more_than(0, 1)
"""A fraction that is neither none nor all."""


@dataclass_transform(frozen_default=True)
def settings(section: str):
    """A class decorator: a frozen dataclass that checks its fields. Errors call a field ``section.field``."""

    def decorate(cls: Class) -> Class:
        def __post_init__(self: Any) -> None:
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                if isinstance(value, Path):
                    object.__setattr__(self, field.name, _expanded(named(field.name), value))
                _check(named(field.name), value, _hints(cls)[field.name])
            if extra := getattr(self, "check", None):
                extra()

        named = lambda name: f"{section}.{name}" if section else name
        cls.__post_init__ = __post_init__  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.dataclass(frozen=True)(cls)

    return decorate


def _hints(cls: type) -> dict[str, Any]:
    return hints_of(cls, include_extras=True)


def _expanded(name: str, path: Path) -> Path:
    """A path whose ``~`` is the user's directory."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{name}={str(path)!r}: must be a path ({error})") from None


KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a text"),
    Path: (Path, "a path"),
    tuple: (tuple, "several values"),
}
"""What stands for a type, and its name in errors."""


def _of(value: Any, kind: Any) -> bool:
    """Whether a value stands for a type. True and False are no numbers."""
    return isinstance(value, KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))


def _check(name: str, value: Any, hint: Any, bounds: tuple[Bound, ...] = ()) -> None:
    """One field against its annotation: types, members of literals, bounds of numbers, entries of tuples."""
    while get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds += tuple(extra for extra in extras if isinstance(extra, Bound))
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Literal:
        return require(value in get_args(hint), name, value, f"one of {', '.join(map(str, get_args(hint)))}")
    kind = get_origin(hint) or hint
    if kind is Any:
        allowed = "a name, file.py:NAME, or the thing itself"
        return require(isinstance(value, str) or callable(value), name, value, allowed)
    if kind in KINDS:
        require(_of(value, kind), name, value, KINDS[kind][1])
    if kind is tuple:
        hints = get_args(hint)
        hints = hints[:1] * len(value) if Ellipsis in hints else hints
        require(len(value) == len(hints), name, value, f"{len(hints)} values")
        for entry, each in zip(value, hints, strict=True):
            _check(name, entry, each, bounds)
    elif kind in (int, float):
        fits = not isinstance(value, Integral) or -WHOLE <= int(value) < WHOLE
        require(fits, name, value, "a whole number of at most 64 bits")
        require(math.isfinite(value), name, value, "finite")
        for bound in bounds:
            require(bound.allows(value), name, value, str(bound))
