"""The settings of a whole run, in ``config.json``: enough to go on with the run, or to repeat it anywhere."""

import dataclasses
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from diffplan.runs import Run
from diffplan.runs.files import RunError, content, difference, plain, read_json, versions, write_json
from diffplan.runs.lock import locked

Config = TypeVar("Config")

FILE = "config.json"


def settle(run: Run, config: Any) -> None:
    """Record the settings of a run, before anything is made.

    Raises:
        RunError: if the run was made with other settings, naming the first that differs, unless `run.new_settings`; or
            if config.json is of something else.
    """
    path, about = run.directory / FILE, {"settings": plain(config), "decided": content(config)}
    with locked(run.directory):
        before = read_json(path) if path.exists() else {"decided": about["decided"]}
        if not isinstance(before, dict) or "decided" not in before:
            raise RunError(f"{path}: holds no settings of a run; move it away, or name another --run")
        words = difference(*common(about["decided"], before["decided"]))
        if words and not run.new_settings:
            raise RunError(
                f"{run.directory}: {words}; --new-settings makes what depends on it anew and keeps what is there, "
                "or name another directory with --run"
            )
        whole = {part: {**(before.get(part) or {}), **about[part]} for part in about}
        if whole["settings"] != before.get("settings"):
            write_json(path, before | whole | {"versions": versions()})


def common(now: dict[str, Any], before: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(before, now), with those settings alone that both have.

    A planner's run holds nothing of a comparison yet, and a run of an earlier version no setting that came later. The
    stages themselves say whether such a setting matters to them.
    """
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in sorted(now.keys() & before.keys()):
        nested = isinstance(now[name], dict) and isinstance(before[name], dict)
        pairs[name] = common(now[name], before[name]) if nested else (before[name], now[name])
    return {name: old for name, (old, _) in pairs.items()}, {name: new for name, (_, new) in pairs.items()}


def recorded(path: Path, cls: type[Config], beside: tuple[str, ...] = ()) -> Config:
    """The settings that a config.json holds. beside: settings in it that are of something else.

    Raises:
        RunError: if the file cannot be read, or holds something else.
    """
    there = read_json(path)
    if not isinstance(there, dict) or "settings" not in there:
        raise RunError(f"{path}: no such file, or it holds no settings of a run")
    own = {name: value for name, value in there["settings"].items() if name not in beside}
    return _load(cls, own, path, "")


def settings_from(cls: type[Config], values: Any, path: Path) -> Config:
    """The settings of a class, from what JSON has kept of them.

    Raises:
        RunError: naming the file and the field, if they are no settings of this class.
    """
    return _load(cls, values, path, "")


def _load(hint: Any, value: Any, path: Path, name: str) -> Any:
    """A value of a type, from what JSON has kept of it."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
        return None if value is None else _load(hint, value, path, name)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise RunError(f"{path}: {name or 'settings'} holds no settings")
        hints = get_type_hints(hint, include_extras=True)
        for key in value.keys() - hints.keys():
            raise RunError(f"{path}: {f'{name}.{key}'.lstrip('.')} is not a setting of this version")
        values = {key: _load(hints[key], entry, path, f"{name}.{key}".lstrip(".")) for key, entry in value.items()}
        return hint(**values)  # pyright: ignore[reportCallIssue]
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if hint is Path and isinstance(value, str) else value
