"""The guidance scale together with another number: how many candidates, how much of the prior.

The cells of the grid are ordered by how hard they push: fewer candidates come first, then more of the prior, then the
weaker scale; the first is the prior alone. Along this order `scale_rules.recommend` chooses as it does among scales:
the first feasible cell within one standard error of the best, and the prior alone where nothing surely helps.
"""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffplan.experiment import scale_rules


class Cell(NamedTuple):
    """One way to plan."""

    candidates: int
    prior: float
    scale: float

    def __str__(self) -> str:
        """In words."""
        return f"scale {self.scale:g}, {self.candidates} candidates, {self.prior:g} of the prior"


def combinations(candidates: Iterable[int], priors: Iterable[float]) -> list[tuple[int, float]]:
    """Every number of candidates with every weight of the prior, in the order of the grid."""
    return list(product(sorted(set(candidates)), sorted(set(priors), reverse=True)))


def recommend(
    cells: list[Cell],
    returns: Float[np.ndarray, "c m"],
    fraction: Float[np.ndarray, "c m"],
    plans: int,
    behaviour: float,
) -> tuple[Cell, str]:
    """The recommended cell, and why.

    Args:
        cells: in the order of the grid.
        returns: of every cell and seed.
        fraction: of the plans that are feasible.
        plans: of each cell and seed.
        behaviour: the fraction of behaviour's windows that are feasible.

    Raises:
        ValueError: if the first cell is not the prior alone, or if there are fewer than two seeds.
    """
    if cells[0] != Cell(1, 1.0, 0.0):
        raise ValueError(f"cells: must begin with one candidate, the whole prior and scale 0, not with {cells[0]}")
    order = np.arange(len(cells), dtype=float)
    choice = scale_rules.recommend(order, returns, fraction, plans, behaviour)
    if not np.isfinite(choice.scale):
        return cells[0], choice.reason
    chosen = int(choice.scale)
    allowed = scale_rules.allowed_scales(returns, fraction, plans, behaviour)
    if chosen == 0:
        return cells[0], "no feasible cell of the grid surely has a higher return than the prior"
    best = cells[int(np.argmax(np.where(allowed, returns.mean(axis=1), -np.inf)))]
    return cells[chosen], f"the first feasible cell of the grid within one standard error of the best ({best})"
