"""Grids of strengths: even in the logarithm, or from 0 to 1."""

import numpy as np


def log_grid(low: float, high: float, points: int, weakest: tuple[float, ...] = (0.0,)) -> tuple[float, ...]:
    """Strengths evenly spaced in their logarithm, to two digits, after the weakest."""
    return (*weakest, *(float(f"{value:.2g}") for value in np.geomspace(low, high, points)))


def whole_grid(high: int, points: int, first: int = 0) -> tuple[int, ...]:
    """Whole strengths from the first to the largest, spaced evenly in their logarithm as far as they can be."""
    grid = {round(value) for value in np.geomspace(1, max(high, 1), points)}
    return tuple(sorted({first, high, *grid}))


def even_grid(points: int) -> tuple[float, ...]:
    """So many strengths above 0, evenly spaced up to 1, and 0."""
    return tuple(float(f"{value:.2g}") for value in np.linspace(0, 1, points + 1))
