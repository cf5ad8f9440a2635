"""Files of a run: written in one move, described as plain JSON, named by their digests."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffplan import __version__

VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunError(Exception):
    """A run directory that cannot be used as asked. The message is one line: what, where, and what to do next."""


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one move, so that a reader never meets half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def plain(value: Any) -> Any:
    """A value as JSON would give it back: dicts, lists, strings, numbers."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    """What stands in JSON for a value that JSON does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "__qualname__"):  # a function or a class, by the name that `diffplan.resolve` takes
        return f"{value.__module__}:{value.__qualname__}"
    return getattr(value, "item", lambda: str(value))()


def content(value: Any) -> Any:
    """As `plain`, without the fields that do not decide what is made: those that a class names in `undecided`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        dropped = value.undecided() if hasattr(value, "undecided") else ()  # pyright: ignore[reportAttributeAccessIssue]
        names = [field.name for field in dataclasses.fields(value) if field.name not in dropped]
        return {name: content(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): content(entry) for key, entry in value.items()}
    return plain(value)


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on, and the backend."""
    packages = {"diffplan": __version__} | {name: version(name) for name in VERSIONED}
    return {"python": platform.python_version()} | packages | {"backend": jax.default_backend()}


def identity_of(decided: Mapping[str, Any]) -> str:
    """A digest of plain values, whatever the order of their names."""
    return text_digest(json.dumps(decided, sort_keys=True))


def text_digest(text: str) -> str:
    """The first 16 hexadecimal digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """sha256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def altered(directory: Path, digests: Mapping[str, Any]) -> str | None:
    """The first file that does not have its digest, in words; None if all do."""
    for name, expected in digests.items():
        if not (directory / name).is_file():
            return f"{name} is missing"
        if file_digest(directory / name) != expected:
            return f"{name} has changed since it was made"
    return None


def digest(tree: Any) -> str:
    """sha256 over the bytes of all leaves, in order; typed keys count by their data."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        leaf = jnp.asarray(leaf)
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        total.update(np.asarray(raw).tobytes())
    return total.hexdigest()


def difference(old: Any, new: Any) -> str | None:
    """The first field in which two configurations differ, in words; None if they are equal."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None if old == new else f"was {old!r} and is now {new!r}"
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            return f"{name}.{difference(before, after)}"
        decays = name == "steps" and old.get("decay") == "cosine"
        why = " (the learning rate decays to the last step: more steps are another training)" if decays else ""
        return f"{name} was {before!r} and is now {after!r}{why}"
    return None
