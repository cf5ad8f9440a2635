"""Tables: how results are written to a file and read back, and which strength of a method is the best.

A strength is feasible if enough of its plans surely are: with p of n plans feasible,

    lower 95 % limit of p (4)  >=  LEAST * the fraction of behaviour's own windows that are feasible               (135)

So a strength whose plans are few must be better, and one plan more or less decides nothing by itself.

A strength has converged if shorter steps of the sampler, or more training of a method that learns, change neither its
returns nor its fraction of feasible plans by much,

    |mean change|  <=  a tenth of the larger mean (of feasible: of all plans),  or half its own 95 % interval      (144)

over the seeds. All plans must be finite, and in each batch some of those that are compared with them. One seed has no
interval, and the tenth alone decides.

A table is a CSV file with a header line. A number has six significant digits; a value that does not exist is an empty
cell. No other module of the package reads or writes CSV.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from diffplan.metrics.statistics import lower_limit, mean_interval

COMPARED = ("promised", "delivered", "feasible")
"""What converges. After `levels` stand the same of shorter steps or more training, as ``finer_NAME``."""

FINER = ("finer_levels", *(f"finer_{name}" for name in COMPARED), "converged")
"""The columns of shorter steps or more training."""

OPTIONAL = (*FINER, "pretrain_evals")
"""The columns that a table may lack, for an earlier version wrote it."""

COLUMNS = (
    *("task", "method", "strength", "seed", "plans", "proxy"),
    *("promised", "open_loop", "inverse", "tracked", "delivered", "replanned", "feasible"),
    *("longest_step", "residual", "data_distance", "diversity", "finite", "path_kl", "exact_kl", "ess", "pressure"),
    *("levels", *FINER, "network_evals", "proxy_evals", "env_steps", "seconds", "pretrain_seconds", "pretrain_evals"),
)
"""The columns of results.csv, in order; a row is a batch of plans. After `feasible` stands a column for each way in
which plans of the task can be infeasible, ``violations.NAME``."""

TENTH = 0.1
"""The change that is allowed, of a return and of all plans."""

LEAST = 0.9
"""The fraction of feasible plans, over behaviour's own, that the plans of a feasible strength surely have."""

FEASIBLE = f"at least {100 * LEAST:g} % as many feasible plans as behaviour, at 95 % confidence"
"""What a feasible strength has, as words of a sentence."""

HEADLINES = ("delivered", "promised", "proxy")
"""What tells strengths apart: the first of these that is known."""

Row = dict[str, Any]
Table = dict[str, np.ndarray]
"""Column -> one entry for each row: numbers, with NaN for an empty cell, or text."""


class TableError(Exception):
    """A table that cannot be read. The message is one line that names the file, the line and the column."""


def cell(value: Any) -> str:
    """A value as a cell of a table: six significant digits, empty where there is no value."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return "" if value is None else str(value)


def columns_of(rows: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """`COLUMNS`, with the violations that occur in the rows, sorted, after `feasible`."""
    violations = sorted({name for row in rows for name in row if name.startswith("violations.")})
    after = COLUMNS.index("feasible") + 1
    return (*COLUMNS[:after], *violations, *COLUMNS[after:])


def write(path: Path, rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...] | None = None) -> Path:
    """Write a table beside its place and move it there, so that a reader never sees half of it.

    Args:
        path: the file; its directory is made if it is missing.
        rows: values by column; a missing value gives an empty cell, other keys are left out.
        columns: the columns, in order; those of results.csv if not given.

    Returns:
        The path.
    """
    rows = list(rows)
    columns = columns_of(rows) if columns is None else columns
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[cell(row.get(name)) for name in columns] for row in rows])
    part.replace(path)
    return path


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[dict[str, str]]:
    """The rows of a table as text, as they stand in the file.

    Args:
        path: the file.
        columns: columns that must be there; the file may have others.

    Raises:
        TableError: if the file or one of the columns is missing, or if a row has too few or too many cells.
    """
    try:
        with path.open(newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    for name in columns:
        if name not in header:
            raise TableError(f"{path}: column '{name}' is missing")
    for line, cells in lines:
        if len(cells) != len(header):
            raise TableError(f"{path}: line {line} has {len(cells)} cells, must have {len(header)}")
    return [dict(zip(header, cells, strict=True)) for _, cells in lines]


def read(path: Path, numbers: Iterable[str] = ()) -> Table:
    """A table as columns.

    Args:
        path: the file.
        numbers: columns that must be there and hold numbers. Any other column holds text if a cell is no number.

    Raises:
        TableError: if the file has no rows, or for a missing column or a cell that is not a number.
    """
    numbers = tuple(numbers)
    rows = read_rows(path, numbers)
    if not rows:
        raise TableError(f"{path}: no rows")

    def column(name: str) -> np.ndarray:
        cells, values = [row[name] for row in rows], []
        for line, text in enumerate(cells, 2):
            try:
                values.append(float(text) if text else np.nan)
            except ValueError:
                if name in numbers:
                    raise TableError(f"{path}: line {line}, column '{name}': '{text}' is not a number") from None
                return np.array(cells)
        return np.array(values)

    return {name: column(name) for name in rows[0]}


def matching(table: Table, **where: Any) -> Bool[np.ndarray, "rows"]:
    """Whether each row has these values in these columns."""
    return np.logical_and.reduce([table[name] == value for name, value in where.items()])


def headline(known: Callable[[str], np.ndarray | None]) -> str:
    """The first of `HEADLINES` with a finite value. known: the values of a column, None where there is no column."""
    for name in HEADLINES:
        values = known(name)
        if values is not None and np.isfinite(values).any():
            return name
    return HEADLINES[-1]


def feasible(fraction: Float[np.ndarray, "s"], plans: Num[np.ndarray, "s"], behaviour: float) -> Bool[np.ndarray, "s"]:
    """Whether strengths are feasible (135).

    Args:
        fraction: of the plans of each strength that are feasible; where it is NaN, nothing speaks against a strength.
        plans: how many plans each strength has.
        behaviour: the fraction of behaviour's windows that are feasible.
    """
    return np.isnan(fraction) | (lower_limit(fraction, plans) >= LEAST * behaviour)


def converged(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a strength has converged (144), from its rows, one for each seed. What is not known says nothing."""
    rows = list(rows)
    of = lambda name: np.array([float(row.get(name, np.nan)) for row in rows])
    if np.any(of("finite") < 1):
        return False
    for name in COMPARED:
        before, after = of(name), of(f"finer_{name}")
        if np.isfinite(before).all() and any(np.isnan(float(row.get(f"finer_{name}", 0.0))) for row in rows):
            return False  # no plan of a batch is finite that was drawn again
        if not np.isfinite(before + after).all():
            continue
        change = mean_interval(after - before)
        allowed = TENTH * (1.0 if name == "feasible" else max(abs(before.mean()), abs(after.mean())))
        if abs(change.value) > max(allowed, np.nan_to_num(change.high - change.value)):
            return False
    return True


def behaviour_feasible(rows: Iterable[Mapping[str, Any]]) -> float:
    """The fraction of behaviour's windows that are feasible, from the rows of a table; 1 where they do not say."""
    values = [float(row.get("feasible") or np.nan) for row in rows if row["method"] == "behaviour"]
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else 1.0


def best(returns: Float[np.ndarray, "s"], feasible: Bool[np.ndarray, "s"]) -> int:
    """Index of the highest return among feasible strengths, or among all if none is feasible.

    NaN stands for a missing value and never wins.
    """
    allowed = np.where(feasible, returns, np.nan)
    candidates = allowed if np.isfinite(allowed).any() else returns
    return int(np.argmax(np.where(np.isfinite(candidates), candidates, -np.inf)))


def best_strength(rows: list[Row], behaviour: float = 1.0) -> float:
    """The best strength of one method's rows, by means over seeds. behaviour: as in `feasible`."""
    strengths = np.unique([row["strength"] for row in rows])

    def of(name: str, reduce: Callable[..., Any]) -> Float[np.ndarray, "s"]:
        values = lambda strength: [float(row.get(name, np.nan)) for row in rows if row["strength"] == strength]
        return np.array([reduce(values(strength)) for strength in strengths])

    mean = lambda name: of(name, np.mean)
    allowed = feasible(mean("feasible"), of("plans", np.sum), behaviour)
    return float(strengths[best(mean(headline(mean)), allowed)])
