"""What the table of the study of pressure says, at every number of labels and at every pressure.

Gold is compared at equal proxy along the whole curve of a method. At strength s it has proxy gain g_s and delivered
gold v_s; with V(g) the gold of the exact tilt where the tilt's proxy gain is g, between the tilt's points,

    lead = mean of V(g_s) - v_s    over the strengths s > 0 whose g_s the tilt has                           (167)

within a seed. At strength 0 nothing is pushed, so it says nothing. Best of n and the quantiliser push nothing at 1.

That draws of the prior give the slope of the tilt at the prior is a theorem. The fit of (116) is to the first `NEAR`
nats, whose slope may differ, so the error of the predicted a is a finding. So is that of b, and no theorem has it.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from diffplan.metrics.table import Table, TableError, matching
from diffplan.studies.findings import Finding, Sample, above, all_finite, below, collect, mapped, over, refuse, seeds_of

NEAR, FAR = 4.0, 10.0
"""Nats on which the forms are fitted, and up to which they are judged."""
FEW = 1000
"""The most labels that are few; the next number is 3,000."""
MATCHED = (300, 30_000)
"""Labels of the reward models that every method is run on."""
NATS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
"""Where best of n is held against the tilt; best of 8,192 is at 8.01."""
REFERENCES = ("exact tilt", "best of n")
UNPUSHED = {"best of n": 1.0, "quantiliser": 1.0}
"""The strength at which a method is the prior, where that is not 0."""

FEWER, MORE = "tilt, at most 1,000 labels", "tilt, 3,000 labels or more"

Curve = dict[str, np.ndarray]
Read = Callable[[float, float, str], Curve]
"""The curve of a seed, a number of labels and a method."""
Points = dict[float, Float[np.ndarray, "points"]]
"""Of every seed."""


def curve(table: Table, seed: float, labels: float, method: str) -> Curve:
    """One method's rows on one reward model, by rising strength. The references have nats, too.

    Raises:
        TableError: if one of the numbers is missing, or all rows.
    """
    mine = matching(table, seed=seed, labels=labels, method=method)
    where = f"where method={method}, labels={labels:g}, seed={seed:g}"
    if not mine.any():
        raise TableError(f"there is no row {where}")
    order = np.argsort(table["strength"][mine])
    nats = ("kl", "a", "b") if method in REFERENCES else ()
    result = {name: table[name][mine][order] for name in ("strength", "proxy_gain", "gold_gain", "gold_delivered")}
    result |= {name: table[name][mine][order] for name in nats}
    for name, values in result.items():
        refuse(f"column '{name}'", values, where)
    return result


def fits(
    kl: Float[np.ndarray, "s"], gain: Float[np.ndarray, "s"]
) -> dict[str, tuple[float, float, Float[np.ndarray, "far"]]]:
    """(a, b, errors on held-out KL) of both forms, by least squares on the first `NEAR` nats."""
    d = np.sqrt(kl)
    near, far = (kl > 1e-3) & (kl <= NEAR), (kl > NEAR) & (kl <= FAR)
    designs = {"best of n": np.stack([d, -(d**2)], 1), "RL": np.stack([d, -d * np.log(np.maximum(d, 1e-9))], 1)}
    result = {}
    for name, design in designs.items():
        (a, b), *_ = np.linalg.lstsq(design[near], gain[near], rcond=None)
        result[name] = float(a), float(b), design[far] @ (a, b) - gain[far]
    return result


def form_gap(result: Curve) -> float | None:
    """Held-out error of (116) less that of (117); None for a curve that ends before the held-out nats."""
    both = fits(result["kl"], result["gold_gain"])
    errors = [np.sqrt(np.mean(both[name][2] ** 2)) if both[name][2].size else None for name in ("best of n", "RL")]
    return None if errors[0] is None else float(errors[0] - errors[1])


def prediction_error(result: Curve, which: int) -> float:
    """How far a or b of (118) is from the fit of (116) to the tilt, as a fraction of the fit."""
    fitted, predicted = fits(result["kl"], result["gold_gain"])["best of n"][which], result["ab"[which]][0]
    return float(abs(predicted - fitted) / abs(fitted))


def turn(result: Curve) -> float:
    """How far gold has fallen from its highest by `FAR` nats, in standard deviations."""
    gold = result["gold_gain"][result["kl"] <= FAR]
    return float(gold.max() - gold[-1])


def at_equal(result: Curve, axis: str, value: float) -> float | None:
    """Delivered gold of a curve where its axis reaches a value, between its points; None beyond its ends."""
    order = np.argsort(result[axis])
    x, gold = result[axis][order], result["gold_delivered"][order]
    return float(np.interp(value, x, gold)) if x[0] <= value <= x[-1] else None


def leads(tilt: Curve, mine: Curve, unpushed: float = 0.0) -> Float[np.ndarray, "points"]:
    """V(g_s) - v_s of (167), one for every strength that is compared."""
    pairs = zip(mine["strength"], mine["proxy_gain"], mine["gold_delivered"], strict=True)
    pushed = [(gain, gold) for strength, gain, gold in pairs if strength > unpushed]
    reference = [at_equal(tilt, "proxy_gain", gain) for gain, _ in pushed]
    return np.array([at - gold for at, (_, gold) in zip(reference, pushed, strict=True) if at is not None])


def leads_of(read: Read, seeds: Iterable[float], labels: float, method: str) -> Points:
    """V(g_s) - v_s of a method in every seed that it has."""
    at = UNPUSHED.get(method, 0.0)
    return {seed: leads(read(seed, labels, "exact tilt"), read(seed, labels, method), at) for seed in seeds}


def mean_of(values: Float[np.ndarray, "k"]) -> float | None:
    """The mean, or None of nothing."""
    return float(values.mean()) if values.size else None


def matched(table: Table, read: Read, labels: int) -> tuple[list[Sample], Sample]:
    """Every method beside the tilt at equal proxy, with the number of points; and the mean over methods."""
    methods = dict.fromkeys(table["method"][matching(table, labels=labels)].tolist())
    seeds = {name: seeds_of(table, labels=labels, method=name).tolist() for name in methods}
    points = {
        name: leads_of(read, seeds[name], labels, name) for name in methods if name not in ("exact tilt", "prior")
    }

    def cell(name: str) -> Sample:
        count = {"points": sum(values.size for values in points[name].values())}
        where = {"labels": labels, "method": name}
        return collect(where, points[name], lambda seed: mean_of(points[name][seed]), count)

    def over_methods(seed: float) -> float | None:
        means = [mean_of(of_method[seed]) for of_method in points.values()]
        return mean_of(np.array([mean for mean in means if mean is not None]))

    shared = sorted(set.intersection(*map(set, points.values()))) if points else []
    return [cell(name) for name in points], collect({"labels": labels}, shared, over_methods)


def frontier(read: Read, seed: float, labels: float, nats: float) -> float | None:
    """Gold of best of n less 0.9 of the tilt's, at equal nats."""
    best, tilt = (at_equal(read(seed, labels, method), "kl", nats) for method in ("best of n", "exact tilt"))
    return None if best is None or tilt is None else best - 0.9 * tilt


def verdict(table: Table) -> list[Finding]:
    """Claims about the exact curves at every number of labels; then every method at equal proxy; then the check."""
    read = cache(partial(curve, table))
    counts = [int(labels) for labels in np.unique(table["labels"])]
    few, many = [n for n in counts if n <= FEW], [n for n in counts if n > FEW]

    def cells(value: Callable[..., float | None], **axes: Iterable[Any]) -> list[Sample]:
        """A cell for every combination of conditions. value: of a seed and a condition."""
        seeds = lambda labels: seeds_of(table, labels=labels, method="exact tilt").tolist()
        return [collect(where, seeds(where["labels"]), partial(value, **where)) for where in over(**axes)]

    fallen = lambda seed, labels: turn(read(seed, labels, "exact tilt"))
    gap = lambda seed, labels, method: form_gap(read(seed, labels, method))
    error = lambda which, seed, labels: prediction_error(read(seed, labels, "exact tilt"), which)
    forms, frontiers = (
        cells(gap, labels=counts, method=REFERENCES),
        cells(partial(frontier, read), labels=counts, nats=NATS),
    )
    by_labels = [matched(table, read, labels) for labels in MATCHED if labels in counts]
    equal = "delivered gold of the tilt less the method's, at equal proxy gain"
    return [
        mapped(above, f"{FEWER}: gold falls by 0.1 sd from its peak by 10 nats", cells(fallen, labels=few), 0.1),
        mapped(below, f"{MORE}: gold falls by less than 0.05 sd by 10 nats", cells(fallen, labels=many), 0.05),
        mapped(below, "tilt and best of n: held-out error of (116) less that of (117)", forms, 0.0),
        mapped(below, "tilt: relative error of the predicted a", cells(partial(error, 0), labels=counts), 0.15),
        mapped(below, "tilt: relative error of the predicted b", cells(partial(error, 1), labels=counts), 0.25),
        mapped(above, "gold of best of n less 0.9 of the tilt's, at equal nats", frontiers, 0.0),
        mapped(above, f"{equal} (167)", [cell for cells, _ in by_labels for cell in cells], 0.0),
        mapped(above, f"{equal}: mean over the methods of a seed", [mean for _, mean in by_labels], 0.0),
        all_finite(table),
    ]
