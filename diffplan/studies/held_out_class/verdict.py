"""What the table of the study of the held-out class says, at every geometry and scale, beside the exact prior.

A number of a learned prior means something beside the same number of the exact prior of the same data, because the
exact prior, too, shows a class that its data do not hold: its classes are Gaussian, and a guide that pushes hard enough
draws from their tails. So beside every number stand, with their own intervals and seeds,

    exact       the exact prior of the same data, with the same guide at the same scale
    unguided    the exact prior of the same data, without a guide

The claims are about scale `SCALE`; the same claims at the other scales have maps of their own. A hit is a plan of the
held-out class that is valid.

At scale 10 the control (114) is 10 / 11 of the class's own denoiser, whatever the prior. That its plans then show the
class is built in, so it is a check. At lesser scales it is a finding.
"""

from typing import Any

import numpy as np

from diffplan.metrics.table import Table
from diffplan.studies.findings import (
    Finding,
    Judge,
    Sample,
    above,
    all_finite,
    below,
    by_seed,
    check,
    mapped,
    over,
    seeds_of,
    summary,
)

SCALE = 10.0
"""What the claims are about."""
COMPOSED = "composition"
CLASSIFIERS = ("perfect", "learned")
CONTROL = {"guide": ("density",)}
LITTLE, MIDDLE, MOST = 0.0005, 0.01, 0.05
"""Leaks."""

Where = dict[str, Any]


def beside(table: Table, name: str, where: Where) -> dict[str, Any]:
    """The same measure of the exact prior: guided alike, and not guided."""
    guided = where | {"network": "exact"}
    unguided = guided | {"guide": "perfect", "scale": 0.0}
    return {"exact": summary(by_seed(table, name, **guided)), "unguided": summary(by_seed(table, name, **unguided))}


def cells(table: Table, name: str, wheres: list[Where], **fixed: Any) -> list[Sample]:
    """A measure in each condition, beside the exact prior's. fixed: what is the same in all of them."""
    return [
        Sample(where, by_seed(table, name, **fixed, **where), beside=beside(table, name, fixed | where))
        for where in wheres
    ]


def absent(table: Table, geometries: list[str]) -> list[Finding]:
    """A class that is not in the data: claims at scale 10 and at the other scales."""
    others = [float(scale) for scale in np.unique(table["scale"]) if scale not in (0.0, SCALE)]

    def at(
        scales: list[float], judge: Judge, words: str, name: str, threshold: float, network: str, **axes: Any
    ) -> Finding:
        claimed = f"at scale {SCALE:g}" if scales == [SCALE] else "at the other scales"
        samples = cells(table, name, over(**axes, scale=scales), network=network, leak=0.0)
        return mapped(judge, f"class not in the data, {network} prior, {words}, {claimed}", samples, threshold)

    every = {"geometry": geometries, "guide": CLASSIFIERS}
    composed = every | {"geometry": [COMPOSED]}
    rest = every | {"geometry": [name for name in geometries if name != COMPOSED]}
    hits, says = "classifiers: fraction of plans that hit", "classifiers: p(class | plan)"
    claims = [
        claim
        for scales in ([SCALE], others)
        for claim in (
            at(scales, below, hits, "hit", 0.2, "joint", **every),
            at(scales, below, hits, "hit", 0.2, "exact", **every),
            at(scales, above, says, "score", 0.8, "joint", **every),
            at(scales, above, f"composition, {hits}", "hit", 0.5, "local", **composed),
            at(scales, below, f"other geometries, {hits}", "hit", 0.2, "local", **rest),
        )
    ]
    density = at(others, above, "density of the class: fraction that hit", "hit", 0.8, "joint", **every | CONTROL)
    return [*claims, density]


def controls(table: Table, geometries: list[str]) -> list[Finding]:
    """The checks of (114) at scale 10, one for each geometry."""
    words = f"density of the class at scale {SCALE:g}, joint prior: fraction that hit"
    samples = cells(table, "hit", over(geometry=geometries, guide=["density"]), network="joint", leak=0.0, scale=SCALE)
    return [check(f"{s.where['geometry']}, {words}", s.values, least=0.8)._replace(beside=s.beside) for s in samples]


def leaks(table: Table, geometries: list[str]) -> list[Finding]:
    """What a few plans of the class in the data are worth, at scale 10 with the perfect classifier."""
    fixed = {"guide": "perfect", "scale": SCALE}
    words = f"perfect classifier at scale {SCALE:g}"
    wheres = over(geometry=geometries)

    def hits(leak: float, network: str) -> list[Sample]:
        return cells(table, "hit", wheres, network=network, leak=leak, **fixed)

    def rise(network: str, where: Where) -> Any:
        """Hits at the largest leak less those without one."""
        seeds = seeds_of(table, network=network, **where, **fixed)
        values = [by_seed(table, "hit", seeds, network=network, leak=leak, **where, **fixed) for leak in (MOST, 0.0)]
        return values[0] - values[1]

    rises = [Sample(w, rise("joint", w), beside={"exact": summary(rise("exact", w))}) for w in wheres]
    return [
        mapped(above, f"joint prior, {words}: rise in hits from a leak of 0 to one of 5 %", rises, 0.5),
        mapped(above, f"a leak of 1 %, joint prior, {words}: fraction that hit", hits(MIDDLE, "joint"), 0.5),
        mapped(below, f"a leak of 0.05 %, joint prior, {words}: fraction that hit", hits(LITTLE, "joint"), 0.5),
        mapped(above, f"a leak of 0.05 %, exact prior, {words}: fraction that hit", hits(LITTLE, "exact"), 0.8),
    ]


def verdict(table: Table) -> list[Finding]:
    """Claims about a class that is not in the data; claims about leaks; checks."""
    geometries = list(dict.fromkeys(table["geometry"].tolist()))
    return [
        *absent(table, geometries),
        *leaks(table, geometries),
        *controls(table, geometries),
        all_finite(table),
    ]
