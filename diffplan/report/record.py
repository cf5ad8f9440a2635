"""``summary.csv``: the interquartile mean of each method, with its stratified bootstrap interval over seeds.

A row for each strength, whose one stratum is its seeds. The last row of a method has an empty strength: all strengths,
a stratum each (Agarwal et al. 2021, rliable). The mean is robust against one lucky seed, but with few seeds the
bootstrap's interval is too narrow (`diffplan.metrics.statistics` says by how much): figure and table show Student's.
One seed has no interval.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffplan.metrics.statistics import drop_missing, interquartile_mean, stratified_bootstrap
from diffplan.metrics.table import matching, write
from diffplan.report.load import Results, read_results
from diffplan.report.save import directory

MEASURES = ("proxy", "promised", "delivered", "replanned", "feasible")
RESAMPLES = 500
PARTS = ("iqm", "low", "high")
COLUMNS = ("method", "strength", *(f"{name}_{part}" for name in MEASURES for part in PARTS))


def record(run_dir: Path | str, out: Path | str | None = None) -> Path:
    """Writes ``summary.csv`` into the run directory, or into `out`; returns its path."""
    results = read_results(run_dir)
    lines = []
    for method in results.methods:
        measures = {name: cells_of(results, method, name) for name in MEASURES}
        for strength in next(iter(measures.values())):
            strata = {name: drop_missing(cells[strength])[0][None] for name, cells in measures.items()}
            lines.append(line(method, strength, strata))
        lines.append(line(method, np.nan, {name: complete(list(cells.values())) for name, cells in measures.items()}))
    return write(directory(run_dir, out) / "summary.csv", lines, COLUMNS)


def line(method: str, strength: float, strata: dict[str, Float[np.ndarray, "strata runs"]]) -> dict[str, float | str]:
    """A row of summary.csv."""
    numbers = (number for values in strata.values() for number in estimate(values))
    return dict(zip(COLUMNS, (method, strength, *numbers), strict=True))


def cells_of(results: Results, method: str, name: str) -> dict[float, Float[np.ndarray, "seeds"]]:
    """A column of one method, by strength."""
    strengths = np.unique(results.table["strength"][matching(results.table, method=method)]).tolist()
    return {s: results.table[name][matching(results.table, method=method, strength=s)] for s in strengths}


def complete(cells: list[Float[np.ndarray, "seeds"]]) -> Float[np.ndarray, "strengths seeds"]:
    """The strengths of which every seed has a value, as strata."""
    most = max(len(cell) for cell in cells)
    return np.array([cell for cell in cells if len(cell) == most and np.isfinite(cell).all()]).reshape(-1, most)


def estimate(strata: Float[np.ndarray, "strata runs"]) -> tuple[float, float, float]:
    """(interquartile mean, low, high); NaN where there is nothing to average."""
    if strata.size == 0:
        return np.nan, np.nan, np.nan
    return interquartile_mean(strata), *stratified_bootstrap(strata, resamples=RESAMPLES)
