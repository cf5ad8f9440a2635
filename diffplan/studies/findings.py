"""What a verdict is made of: findings, checks, and claims about several conditions at once.

A *finding* may turn out either way. It is about the mean of n numbers, one a seed, and its 95 % interval:

    supported       the interval lies wholly on the claimed side of the threshold
    falsified       it lies wholly on the other side
    inconclusive    it holds the threshold, or too few seeds have a number

A *check* is a theorem, or follows from how the study is built. It passes if every number is on the claimed side, and
fails otherwise. A check that fails is a mistake of the program, or of the sampling, and no discovery.

A claim about several conditions is a finding of m *cells*, each with an interval of its own. With p_k the two-sided
p-value of Student's test of cell k against the threshold, in rising order, Holm's rule (1979) decides

    cell k    if and only if    p_j (m + 1 - j) <= 0.05    for every j <= k                                  (165)

so that the chance of deciding any cell wrongly is at most 5 %. The claim is supported if it holds in every cell, and
falsified if it is in one. The interval of a cell is its own 95 % interval.

No number is left out in silence. A number that is not finite is refused. A seed that cannot have a number, as where a
curve does not reach, is `missing`: it is counted, and where most seeds are missing the finding is inconclusive.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from diffplan.metrics.statistics import holm, mean_interval, two_sided_p
from diffplan.metrics.table import Table, TableError, matching

Verdict = Literal["supported", "falsified", "inconclusive", "passes", "fails"]
PerSeed = Float[np.ndarray, "seeds"]
NOTHING: Mapping[str, Any] = MappingProxyType({})
ERROR_RATE = 0.05
"""Of one interval, and of all the cells of a claim together (165)."""
OPPOSITE: dict[str, Verdict] = {"supported": "falsified", "falsified": "supported"}


class Finding(NamedTuple):
    """One sentence, the number that decides it, and its verdict.

    estimate, low, high: the mean over seeds and its 95 % interval; of a check, the mean, the least and the largest
    number; NaN for a claim about cells. n: the seeds that have a number; of a claim about cells, the fewest of a cell
    that has any. missing: the seeds that have none. p: of Student's test against the threshold. where: the condition,
    for a cell. beside: other numbers to read it by.
    """

    statement: str
    estimate: float
    low: float
    high: float
    threshold: float
    verdict: Verdict
    n: int
    kind: Literal["finding", "check"] = "finding"
    missing: int = 0
    p: float = np.nan
    where: Mapping[str, Any] = NOTHING
    beside: Mapping[str, Any] = NOTHING
    cells: tuple["Finding", ...] = ()

    def counts(self) -> dict[str, int]:
        """In how many cells the claim holds, is falsified, and is open."""
        verdicts = [cell.verdict for cell in self.cells]
        names = {"holds": "supported", "falsified": "falsified", "open": "inconclusive"}
        return {name: verdicts.count(verdict) for name, verdict in names.items()}


class Sample(NamedTuple):
    """What a cell is judged by: its condition, a number a seed, and the number of seeds that have none."""

    where: Mapping[str, Any]
    values: PerSeed
    missing: int = 0
    beside: Mapping[str, Any] = NOTHING


Judge = Callable[..., Finding]


def over(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the values of several columns."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def collect(
    where: Mapping[str, Any],
    seeds: Iterable[float],
    value: Callable[[float], float | None],
    beside: Mapping[str, Any] = NOTHING,
) -> Sample:
    """A cell from the number of each seed; None is a seed that cannot have one."""
    numbers = [value(seed) for seed in seeds]
    known = [number for number in numbers if number is not None]
    return Sample(where, np.array(known, float), len(numbers) - len(known), beside)


def above(
    statement: str, values: PerSeed, threshold: float, missing: int = 0, beside: Mapping[str, Any] = NOTHING
) -> Finding:
    """A claim that a mean over seeds is above a threshold.

    Raises:
        TableError: if a number is not finite.
    """
    refuse(statement, values)
    estimate = mean_interval(values)
    verdict: Verdict = "inconclusive"
    if len(values) < max(2, missing):
        pass
    elif estimate.low > threshold:
        verdict = "supported"
    elif estimate.high < threshold:
        verdict = "falsified"
    p = two_sided_p(values, threshold)
    return Finding(statement, *estimate[:3], threshold, verdict, len(values), missing=missing, p=p, beside=beside)


def below(
    statement: str, values: PerSeed, threshold: float, missing: int = 0, beside: Mapping[str, Any] = NOTHING
) -> Finding:
    """A claim that a mean over seeds is below a threshold; as `above`."""
    finding = above(statement, values, threshold, missing, beside)
    return finding._replace(verdict=OPPOSITE.get(finding.verdict, finding.verdict))


def check(statement: str, values: Float[np.ndarray, "n"], least: float = -np.inf, most: float = np.inf) -> Finding:
    """A statement that is true by construction: every number is at least `least` and at most `most`.

    Raises:
        TableError: if a number is not finite.
    """
    refuse(statement, values)
    threshold = least if np.isfinite(least) else most
    if not len(values):
        return Finding(statement, np.nan, np.nan, np.nan, threshold, "fails", 0, "check")
    low, high = float(values.min()), float(values.max())
    verdict: Verdict = "passes" if least <= low and high <= most else "fails"
    return Finding(statement, float(values.mean()), low, high, threshold, verdict, len(values), "check")


def all_finite(table: Table) -> Finding:
    """The check that every plan is finite. A table that does not say so does not pass."""
    fractions = table.get("finite", np.array([]))
    return check("fraction of plans that are finite, in every row of plans", fractions[np.isfinite(fractions)], least=1)


def mapped(judge: Judge, statement: str, samples: Iterable[Sample], threshold: float) -> Finding:
    """A claim for every one of several conditions, by Holm's rule (165).

    Args:
        judge: `above` or `below`.
        statement: the claim.
        samples: the cells.
        threshold: of every cell.
    """
    cells = [judge(statement, s.values, threshold, s.missing, s.beside)._replace(where=s.where) for s in samples]
    decided = holm(np.array([cell.p for cell in cells])) <= ERROR_RATE
    cells = [cell if yes else cell._replace(verdict="inconclusive") for cell, yes in zip(cells, decided, strict=True)]
    verdicts = {cell.verdict for cell in cells}
    verdict: Verdict = "inconclusive"
    if "falsified" in verdicts:
        verdict = "falsified"
    elif verdicts == {"supported"}:
        verdict = "supported"
    n = min((cell.n for cell in cells if cell.n), default=0)
    return Finding(statement, np.nan, np.nan, np.nan, threshold, verdict, n, cells=tuple(cells))


def refuse(what: str, values: np.ndarray, where: str = "") -> None:
    """Raise TableError if a number is not finite."""
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise TableError(f"{what}: {bad} of {len(values)} numbers are missing or not finite{where and f', {where}'}")


def seeds_of(table: Table, **where: Any) -> PerSeed:
    """The seeds that have rows which match."""
    return np.unique(table["seed"][matching(table, **where)])


def by_seed(table: Table, name: str, seeds: PerSeed | None = None, /, **where: Any) -> PerSeed:
    """A column of the rows that match, averaged within each seed.

    Args:
        table: of the study.
        name: the column.
        seeds: which, in order; by default all that have such rows.
        where: the value of each other column.

    Raises:
        TableError: if a seed has no such row, or a row no number in this column.
    """
    words = ", ".join(f"{column}={value}" for column, value in where.items())
    rows = matching(table, **where)
    of, values = table["seed"][rows], table[name][rows]
    seeds = np.unique(of) if seeds is None else seeds
    lacking = [seed for seed in seeds if seed not in of]
    if lacking:
        raise TableError(f"seed {lacking[0]:g} has no row where {words}")
    refuse(f"column '{name}'", values[np.isin(of, seeds)], f"where {words}")
    return np.array([values[of == seed].mean() for seed in seeds])


def summary(values: PerSeed) -> dict[str, float]:
    """A mean over seeds with its interval, to stand beside a finding."""
    refuse("numbers to stand beside a finding", values)
    estimate = mean_interval(values)
    return {"estimate": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.used}
