"""``summary.csv``: the interquartile mean of each method, with its stratified bootstrap interval over seeds.

A row for each strength, whose one stratum is its seeds, and a last row for each method with an empty strength: the
whole strength_name, a stratum for each strength (Agarwal et al. 2021, rliable). Robust against one lucky seed, but
with few seeds the bootstrap's interval is too narrow: figure and table show Student's (`diffplan.metrics.statistics`
says by how much).
"""

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffplan.metrics.statistics import drop_missing, interquartile_mean, stratified_bootstrap
from diffplan.report.load import Results, read_results

MEASURES = ("proxy", "promised", "tracked")
RESAMPLES = 500
PARTS = ("iqm", "low", "high")


def record(run_dir: Path | str) -> Path:
    """Write summary.csv into a run directory, from its results.csv; returns its path."""
    results = read_results(run_dir)
    path = results.path / "summary.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["method", "strength", *(f"{name}_{part}" for name in MEASURES for part in ("iqm", "low", "high"))]
        )
        for method in results.methods:
            cells = [cells_of(results, method, name) for name in MEASURES]
            for strength in cells[0]:
                estimates = [estimate(drop_missing(cell[strength])[0][None]) for cell in cells]
                writer.writerow([method, f"{strength:g}", *(f"{x:.6g}" for result in estimates for x in result)])
            whole = [estimate(complete(list(cell.values()))) for cell in cells]
            writer.writerow([method, "", *(f"{x:.6g}" for result in whole for x in result)])
    return path


def cells_of(results: Results, method: str, name: str) -> dict[float, Float[np.ndarray, "seeds"]]:
    """A column of one method, by strength."""
    table, mine = results.table, results.table["method"] == method
    return {s: table[name][mine & (table["strength"] == s)] for s in np.unique(table["strength"][mine]).tolist()}


def complete(cells: list[Float[np.ndarray, "seeds"]]) -> Float[np.ndarray, "strengths seeds"]:
    """The strengths of which every seed has a value, as strata."""
    most = max(len(cell) for cell in cells)
    return np.array([cell for cell in cells if len(cell) == most and np.isfinite(cell).all()]).reshape(-1, most)


def estimate(strata: Float[np.ndarray, "strata runs"]) -> tuple[float, float, float]:
    """(interquartile mean, low, high); NaN where there is nothing to average."""
    if strata.size == 0:
        return np.nan, np.nan, np.nan
    return interquartile_mean(strata), *stratified_bootstrap(strata, resamples=RESAMPLES)
