"""Reads a run directory. An error is one line that names the file and the field.

The files, as a comparison writes them:

    results.csv  one row for a batch of plans; an empty cell where a quantity is not defined
    config.json  `task`: the words of the task, see `Words`; `methods`: {name: {"strength_name", "family",
                 "delivered_by"}}; `reward_models` and `left_out`, where there are any
    plans.npz    `starts` [p, k]; of some methods `NAME.positions` [s, p, h, k], `NAME.strengths` [s] and perhaps
                 `NAME.broken` [s, p, h-1]; on a plane perhaps `solid` [i, j], `origin` [2], `size` and `region` [3];
                 without a plane `entries` [k]
    data.npz     windows of behaviour: `proxy` [n], `promised` [n] (either may be NaN throughout), `positions` [m, h, k]
"""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffplan.metrics.table import COLUMNS, OPTIONAL, Table, TableError, read

CONTROLS = ("behaviour", "null_noise", "null_shuffled", "null_few_steps", "bound")
"""Rows of results.csv that are no methods: held-out data, meaningless rewards, the optimal return."""


class Words(NamedTuple):
    """What a task calls its things.

    unit: one unit of return. observations: a label for each entry. violations: name -> where infeasible plans go, as
    in "through walls". place: labels of the plane that plans are drawn on; None where there is none. step: the unit of
    time.
    """

    name: str
    unit: str
    observations: tuple[str, ...]
    violations: dict[str, str]
    place: tuple[str, ...] | None
    step: str

    def returns(self, kind: str = "") -> str:
        """The label of an axis of returns. kind: delivered, promised."""
        return f"{kind} return ({self.unit})".lstrip()

    @property
    def infeasible(self) -> str:
        """What infeasible plans are: the task's words if it has one kind of violation."""
        return next(iter(self.violations.values())) if len(self.violations) == 1 else "infeasible"


class Grid(NamedTuple):
    """Cells of the plane. solid: those that cannot be entered; origin: lower corner of cell (0, 0); size: of a cell."""

    solid: Bool[np.ndarray, "i j"]
    origin: Float[np.ndarray, "2"]
    size: float


class Plans(NamedTuple):
    """Some plans of some methods, for drawing.

    positions, strengths, broken: by method ``[s, p, h, k]``, ``[s]``, and ``[s, p, h-1]`` where it is known which
    segments are infeasible. region: centre and radius of the rewarded disc. labels: of the k coordinates. plane:
    whether the two coordinates span a plane; otherwise each is drawn over time.
    """

    positions: dict[str, Float[np.ndarray, "_ _ _ k"]]
    strengths: dict[str, Float[np.ndarray, "_"]]
    broken: dict[str, Bool[np.ndarray, "_ _ _"]]
    starts: Float[np.ndarray, "p k"]
    grid: Grid | None
    region: Float[np.ndarray, "3"] | None
    labels: tuple[str, ...]
    plane: bool


class Data(NamedTuple):
    """Windows of behaviour, scored as plans are. Scores are NaN throughout where they are not known."""

    proxy: Float[np.ndarray, "n"]
    promised: Float[np.ndarray, "n"]
    positions: Float[np.ndarray, "m h k"]


class Results(NamedTuple):
    """The numbers of a run: results.csv and config.json."""

    path: Path
    config: dict[str, Any]
    words: Words
    table: Table

    @property
    def methods(self) -> list[str]:
        """The methods and controls, in the order of results.csv."""
        return list(dict.fromkeys(self.table["method"].tolist()))

    @property
    def left_out(self) -> list[str]:
        """What cannot be known of the task, in words."""
        return [str(line) for line in self.config.get("left_out") or ()]

    def about(self, method: str, field: str, default: str = "") -> str:
        """A field of a method in config.json."""
        return self.config.get("methods", {}).get(method, {}).get(field) or default


class Run(NamedTuple):
    """All files of a run directory: its numbers, and what pictures are drawn from."""

    results: Results
    plans: Plans
    data: Data


def read_results(path: Path | str) -> Results:
    """The numbers of a run, checked against each other; the files of pictures need not be there.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise TableError(f"{path}: no such run directory")
    table = read(path / "results.csv", [name for name in COLUMNS[2:] if name not in OPTIONAL])
    if "method" not in table:
        raise TableError(f"{path / 'results.csv'}: column 'method' is missing")
    table["method"] = table["method"].astype(str)
    table["infeasible"] = 1 - table["feasible"]
    config = read_config(path / "config.json", set(table["method"].tolist()) - set(CONTROLS))
    return Results(path, config, words_of(path / "config.json", config), table)


def read_run(path: Path | str) -> Run:
    """All files of a run directory, checked against each other.

    Raises:
        TableError: in one line, for a file or a field that is missing or damaged.
    """
    results = read_results(path)
    plans = read_plans(results.path / "plans.npz", results.words)
    return Run(results, plans, read_data(results.path / "data.npz", len(plans.labels)))


def read_config(path: Path, methods: set[str]) -> dict[str, Any]:
    """config.json, with a strength_name for every method."""
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except ValueError as error:
        raise TableError(f"{path}: not JSON, {error}") from None
    for method in sorted(methods):
        try:
            config["methods"][method]["strength_name"]
        except (KeyError, TypeError):
            raise TableError(f"{path}: methods.{method}.strength_name is missing") from None
    return config


def words_of(path: Path, config: dict[str, Any]) -> Words:
    """The words of the task, from config.json; a name and a list of observations must be there."""
    task = config.get("task")
    for field, kind in (("name", str), ("observations", list)):
        if not isinstance(task, dict) or not isinstance(task.get(field), kind):
            raise TableError(f"{path}: task.{field} is missing")
    unit, step = (task.get(field) or default for field, default in (("return", "true reward"), ("step", "step")))
    place = tuple(task["place"]) if task.get("place") else None
    return Words(task["name"], unit, tuple(task["observations"]), task.get("violations") or {}, place, step)


def read_plans(path: Path, words: Words) -> Plans:
    """plans.npz; labels of its coordinates are words of the task."""
    arrays = _read_arrays(path, ["starts"] if words.place else ["starts", "entries"])
    starts, of = arrays["starts"].astype(float), ".positions"
    labels = words.place or tuple(words.observations[i] for i in arrays["entries"])
    positions = {name.removesuffix(of): arrays[name].astype(float) for name in arrays if name.endswith(of)}
    broken = {method: arrays[f"{method}.broken"].astype(bool) for method in positions if f"{method}.broken" in arrays}
    strengths = {}
    for method, x in positions.items():
        if f"{method}.strengths" not in arrays:
            raise TableError(f"{path}: '{method}.strengths' is missing")
        strengths[method] = np.atleast_1d(arrays[f"{method}.strengths"]).astype(float)
        expected = (len(strengths[method]), len(starts), x.shape[-2] if x.ndim == 4 else 0, len(labels))
        _check(path, f"{method}.positions", x, expected, "[s, p, h, k]")
        if method in broken:
            _check(path, f"{method}.broken", broken[method], (*expected[:2], expected[2] - 1), "[s, p, h-1]")
    grid = None
    if words.place and "solid" in arrays:
        origin, size = arrays.get("origin", np.zeros(2)), arrays.get("size", np.ones(()))
        grid = Grid(arrays["solid"].astype(bool), origin.astype(float), float(size))
    region = arrays["region"].astype(float) if words.place and "region" in arrays else None
    return Plans(positions, strengths, broken, starts, grid, region, labels, words.place is not None)


def read_data(path: Path, k: int) -> Data:
    """data.npz. k: how many coordinates are drawn."""
    arrays = _read_arrays(path, list(Data._fields))
    data = Data(*(arrays[name].astype(float) for name in Data._fields))
    for name in ("proxy", "promised"):
        finite = np.isfinite(getattr(data, name))
        if finite.size == 0 or (finite.any() and not finite.all()):
            raise TableError(f"{path}: '{name}' is empty or has values that are not finite")
    _check(path, "positions", data.positions, (*data.positions.shape[:2], k), "[m, h, k]")
    return data


def _check(path: Path, name: str, array: np.ndarray, expected: tuple[int, ...], axes: str) -> None:
    if array.shape != expected:
        raise TableError(f"{path}: '{name}' is {array.shape}, must be {expected} {axes}")


def _read_arrays(path: Path, required: list[str]) -> dict[str, np.ndarray]:
    """All arrays of a file, by name."""
    if not path.is_file():
        raise TableError(f"{path}: no such file")
    name = "the archive"
    arrays = {}
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            for name in file.files:
                arrays[name] = file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TableError(f"{path}: {name} cannot be read ({str(error).splitlines()[0]})") from None
    for name in required:
        if name not in arrays:
            raise TableError(f"{path}: '{name}' is missing")
    return arrays
