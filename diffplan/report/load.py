"""Reads a run directory. What is wrong with it is said in one line that names the file and the field.

The files, as a study writes them:

    results.csv  one row for a batch of plans; an empty cell where a quantity is not defined
    config.json  at least {"environment": ..., "methods": {name: {"strength_name": ..., "strengths": [...]}}}
    plans.npz    `{method}.positions` [s, p, h, 2] cells and `{method}.strengths` [s]; `walls` [i, j]; `region` [3] and
                 `starts` [p, 2], cells
    data.npz     `proxy` [n] standard deviations of the data, `gold` [n] steps, `positions` [m, h, 2] cells
"""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffplan.metrics.table import COLUMNS, Table, TableError, read


class Plans(NamedTuple):
    """Some plans of every method, for drawing.

    positions, strengths: per method ``[s, p, h, 2]`` in cells, and ``[s]``. walls: cell (i, j) spans
    [i - 0.7, i + 0.3] x [j - 0.7, j + 0.3]. region: centre and radius of the target, cells. starts: ``[p, 2]``, cells.
    """

    positions: dict[str, Float[np.ndarray, "_ _ _ 2"]]
    strengths: dict[str, Float[np.ndarray, "_"]]
    walls: Bool[np.ndarray, "i j"]
    region: Float[np.ndarray, "3"]
    starts: Float[np.ndarray, "p 2"]


class Data(NamedTuple):
    """Windows of behaviour, scored as plans are. proxy: their standard deviations; gold: steps; positions: cells."""

    proxy: Float[np.ndarray, "n"]
    gold: Float[np.ndarray, "n"]
    positions: Float[np.ndarray, "m h 2"]


class Results(NamedTuple):
    """The numbers of a run: results.csv and config.json."""

    path: Path
    config: dict[str, Any]
    table: Table

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of results.csv."""
        return list(dict.fromkeys(self.table["method"].tolist()))

    def strength_name(self, method: str) -> str:
        """What the strength of the method is, from config.json."""
        return self.config["methods"][method]["strength_name"]


class Run(NamedTuple):
    """All files of a run directory: its numbers, and what pictures are drawn from."""

    results: Results
    plans: Plans
    data: Data


def read_results(path: Path | str) -> Results:
    """The numbers of a run, checked against each other; its pictures' files need not be there."""
    path = Path(path)
    if not path.is_dir():
        raise TableError(f"{path}: no such run directory")
    table = read(path / "results.csv", COLUMNS[1:])
    return Results(path, read_config(path / "config.json", list(dict.fromkeys(table["method"].tolist()))), table)


def read_run(path: Path | str) -> Run:
    """All files of a run directory, checked against each other."""
    results = read_results(path)
    plans = read_plans(results.path / "plans.npz", results.methods)
    return Run(results, plans, read_data(results.path / "data.npz"))


def read_config(path: Path, methods: list[str]) -> dict[str, Any]:
    """config.json, with a strength_name for every method."""
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise TableError(f"{path}: not JSON, {error}") from None
    for method in methods:
        try:
            config["methods"][method]["strength_name"]
        except (KeyError, TypeError):
            raise TableError(f"{path}: methods.{method}.strength_name is missing") from None
    return config


def read_plans(path: Path, methods: list[str]) -> Plans:
    """plans.npz, with positions of every method."""
    names = [f"{method}.{field}" for method in methods for field in ("positions", "strengths")]
    arrays = _read_arrays(path, [*names, "walls", "region", "starts"])
    positions = {method: arrays[f"{method}.positions"] for method in methods}
    strengths = {method: np.atleast_1d(arrays[f"{method}.strengths"]).astype(float) for method in methods}
    for method in methods:
        expected = (len(strengths[method]), len(arrays["starts"]), positions[method].shape[-2], 2)
        if positions[method].shape != expected:
            shape = positions[method].shape
            raise TableError(f"{path}: '{method}.positions' is {shape}, expected {expected} [s, p, h, 2]")
    return Plans(positions, strengths, arrays["walls"].astype(bool), arrays["region"].astype(float), arrays["starts"])


def read_data(path: Path) -> Data:
    """data.npz, with finite scores."""
    arrays = _read_arrays(path, list(Data._fields))
    data = Data(arrays["proxy"].astype(float), arrays["gold"].astype(float), arrays["positions"])
    for name in ("proxy", "gold"):
        if not np.isfinite(getattr(data, name)).all() or getattr(data, name).size == 0:
            raise TableError(f"{path}: '{name}' is empty or has values that are not finite")
    return data


def _read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise TableError(f"{path}: no such file")
    name = "the archive"
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            arrays = {}
            for name in names:
                if name not in file.files:
                    raise TableError(f"{path}: '{name}' is missing")
                arrays[name] = file[name]
            return arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TableError(f"{path}: {name} cannot be read ({str(error).splitlines()[0]})") from None
