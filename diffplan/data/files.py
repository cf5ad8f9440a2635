"""The project's own data sets: two files.

``NAME.npz`` has float32 `observations` [rows, o], `actions` [rows, a] and, where they were recorded, `rewards` [rows],
and int64 `lengths` [episodes]. ``NAME.json`` has a description, the shapes and a sha256. A file that is not what its
description says is refused by name; nothing is trained on it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from diffplan.data.errors import DataError, reading
from diffplan.data.fields import gather, judge
from diffplan.data.npz import KIND, Archive
from diffplan.episodes import Episodes, EpisodesError

TYPES = {"observations": "float32", "actions": "float32", "lengths": "int64", "rewards": "float32"}


def save(path: Path, episodes: Episodes, description: dict[str, Any]) -> str:
    """Write a data set, the data first, each file in one move.

    Args:
        path: of the data, ``NAME.npz``; the description is written to ``NAME.json`` beside them.
        episodes: the data.
        description: what JSON can hold; read back by `load`.

    Returns:
        The sha256 of the data file.
    """
    fields = {name: value for name, value in episodes._asdict().items() if value is not None}
    arrays = {name: np.asarray(value, TYPES[name]) for name, value in fields.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part, sidecar = path.with_name(path.name + ".part"), path.with_suffix(".json")
    with part.open("w+b") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    part.replace(path)
    shapes = {name: list(value.shape) for name, value in arrays.items()}
    part = sidecar.with_name(sidecar.name + ".part")
    part.write_text(json.dumps(description | {"shapes": shapes, "sha256": digest}, indent=2))
    part.replace(sidecar)
    return digest


def load(path: Path) -> tuple[Episodes, dict[str, Any]]:
    """Read and check a data set.

    Returns:
        (episodes, description).

    Raises:
        DataError: naming the file and the field, if either file is missing, truncated or altered, or if a field is
            missing, of another shape or type than described, or holds NaN or infinity.
    """
    sidecar = path.with_suffix(".json")
    with reading(sidecar, "a description of a data set"):
        description = json.loads(sidecar.read_text())
        shapes = {name: tuple(shape) for name, shape in description["shapes"].items()}
        digest = description["sha256"]
    with reading(path, KIND), path.open("rb") as file:
        archive = Archive(file)
        for name, shape in shapes.items():
            check_described(archive, name, shape)
        recording, _ = gather(archive)
        episodes = judge(recording).episodes
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise DataError(f"{path}: altered since it was written: its sha256 differs from that in {sidecar.name}")
    return episodes, description


def check_described(archive: Archive, name: str, shape: tuple[int, ...]) -> None:
    """Raise EpisodesError unless a field is what its description says, before it is read."""
    if name not in TYPES or name not in archive.names():
        raise EpisodesError(f"field {name!r} is described, but the file has {sorted(archive.names())}")
    header = archive.header(name)
    if header.dtype != TYPES[name]:
        raise EpisodesError(f"field {name!r} is of type {header.dtype}: must be {TYPES[name]}")
    if header.shape != shape:
        raise EpisodesError(f"field {name!r} has shape {list(header.shape)}, described as {list(shape)}")
