"""One line of the table of exact answers: what was measured, what is true, and whether the two agree."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffplan.metrics import table

COLUMNS = ("part", "quantity", "measured", "error", "exact", "tolerance", "passed")


Kind = Literal["share", "most", "least", "shown"]


class Row(NamedTuple):
    """part: the section that made it, as in ``--only``. error: the standard error of `measured`, 0 where it is exact.

    kind says how it is judged: "share", |measured - exact| <= tolerance * |exact|; "most", measured <= tolerance;
    "least", measured >= tolerance; "shown", not at all.
    """

    part: str
    quantity: str
    measured: float
    error: float
    exact: float
    tolerance: float
    kind: Kind

    @property
    def passed(self) -> bool | None:
        """None for what is only shown; a measurement that is not finite never passes."""
        if self.kind == "shown":
            return None
        holds = {
            "share": abs(self.measured - self.exact) <= self.tolerance * abs(self.exact),
            "most": self.measured <= self.tolerance,
            "least": self.measured >= self.tolerance,
        }
        return math.isfinite(self.measured) and holds[self.kind]

    @property
    def allowed(self) -> str:
        """The tolerance in words."""
        words = {"share": "{:.3g} of it", "most": "<= {:.3g}", "least": ">= {:.3g}", "shown": ""}
        return words[self.kind].format(self.tolerance)

    def cells(self) -> list[str]:
        """The row as text; a number that does not exist is an empty cell."""
        verdict = {True: "yes", False: "NO", None: ""}[self.passed]
        return [self.part, self.quantity, *map(table.cell, self[2:5]), self.allowed, verdict]


def mean(values: ArrayLike) -> tuple[float, float]:
    """(mean, standard error) of independent values."""
    values = np.asarray(values, float).ravel()
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write the table of exact answers."""
    table.write(path, (dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows), COLUMNS)
