"""What the table of the study of the painted goal says, at every mass, bonus and pressure that the table has.

Two methods at equal nats, or at equal proxy gain, differ in how often their plans are hacked, over many decades. With
P_q and P the fractions of plans hacked by a method and by the tilt,

    D = (P_q - P) / (P_q + P)                                                                                (166)

is between -1, where only the tilt is hacked, and 1, where only the method is. D < 0 is the claim that P_q < P.

Three statements are true by construction, so they are checks:

    half of the plans are ever in H at the predicted weight: that is (107) itself; two recursions must agree
    an ensemble whose members are all fooled by B rates the paint B too high, by its mean, its least member or its
    mean less its variance: so it is hacked where one reward model is
    one blind member takes the paint's B off the least rating, and four fifths of it off the cautious one (`CAUTION`
    is chosen so): so neither is hacked

Were the mean ratings of (107) constant, the ratio of the weights of 90 % and of 10 % would be 2.8 at a mass of 1e-2
and 1.4 at 1e-6, whatever the bonus. They are not constant, so the ratio is a finding; but not one far from algebra.
"""

from typing import Any

import numpy as np

from diffplan.metrics.table import Table, matching
from diffplan.studies import findings
from diffplan.studies.findings import Finding, PerSeed, Sample, above, below, by_seed, check, collect, mapped, seeds_of

BONUS, MASS = 2.0, 1e-3
"""Where reward models are compared."""
GOAL = 1.0
"""What the goal pays in a step."""
METHODS = {"chi_squared": "chi-squared", "best_of_n": "best of n"} | {n: n for n in ("quantiliser", "occupancy")}
AXES = {"kl": ("nats", "equal nats"), "gain": ("gain", "equal proxy gain")}
FOOLED = {"mean": "mean of five", "least": "least of five", "cautious": "mean less variance of five"}
BLIND = {"least, one blind": "least of five, one blind", "cautious, one blind": "mean less variance of five, one blind"}

Where = dict[str, Any]


def conditions(table: Table, **where: Any) -> list[Where]:
    """Every mass and bonus that the rows which match have, in order."""
    rows = matching(table, **where)
    pairs = set(zip(table["mass"][rows].tolist(), table["bonus"][rows].tolist(), strict=True))
    return [{"mass": mass, "bonus": bonus} for mass, bonus in sorted(pairs, reverse=True)]


def weights_over(table: Table, column: str, other: str, **where: Any) -> dict[float, float | None]:
    """The ratio of two weights of a transition in every seed; None where the paint never wins."""
    where |= {"part": "transition", "reward_model": "one"}
    rows = np.flatnonzero(matching(table, **where))
    ratios = table[column][rows] / table[other][rows]
    known = [float(ratio) if np.isfinite(ratio) else None for ratio in ratios]
    return dict(zip(table["seed"][rows].tolist(), known, strict=True))


def gold_lost(table: Table, **where: Any) -> PerSeed:
    """Gold at its peak along the tilt, less gold at the largest weight; steps in the goal."""
    where |= {"part": "transition"}
    return by_seed(table, "gold_peak", **where) - by_seed(table, "gold_end", **where)


def less_often(method: PerSeed, tilt: PerSeed) -> PerSeed:
    """D of (166); 0 where neither is ever hacked."""
    both = method + tilt
    return np.where(both > 0, (method - tilt) / np.where(both > 0, both, 1.0), 0.0)


def compared(table: Table, column: str, method: str, by: str) -> list[Sample]:
    """A method beside the tilt, at every mass, bonus and pressure: D of what is hacked, or the difference in gold."""
    samples = []
    for cell in conditions(table, part="matched", method=method, by=by):
        where = {"part": "matched", "reward_model": "one", "by": by, **cell}
        rows = matching(table, method=method, **where)
        for at in np.unique(table["at"][rows]).tolist():
            mine, theirs = (seeds_of(table, method=name, at=at, **where) for name in (method, "tilt"))
            seeds = np.intersect1d(mine, theirs)
            values = [by_seed(table, column, seeds, method=name, at=at, **where) for name in (method, "tilt")]
            number = less_often(*values) if column == "p_hack" else values[0] - values[1]
            missing = len(np.unique(table["seed"][rows])) - len(seeds)
            samples.append(Sample({**cell, AXES[by][0]: at}, number, missing))
    return samples


def transitions(table: Table) -> list[Finding]:
    """Where the tilt falls, how suddenly, and how much gold is lost. Paint that pays less than the goal rarely wins."""
    every = conditions(table, part="transition", reward_model="one")
    wins, loses = [c for c in every if c["bonus"] > GOAL], [c for c in every if c["bonus"] <= GOAL]
    masses, bonuses = (sorted({cell[name] for cell in wins}) for name in ("mass", "bonus"))

    def over(column: str, other: str) -> list[Sample]:
        ratios = [weights_over(table, column, other, **cell) for cell in wins]
        return [collect(cell, ratio, ratio.get) for cell, ratio in zip(wins, ratios, strict=True)]

    def sooner(bonus: float) -> Sample:
        """The ratio of 90 % to 10 % at the least mass over that at the largest."""
        rare, common = (weights_over(table, "ninety", "ten", mass=masses[end], bonus=bonus) for end in (0, -1))

        def both(seed: float) -> float | None:
            mine, other = rare[seed], common.get(seed)
            return None if mine is None or other is None else mine / other

        return collect({"bonus": bonus}, rare, both)

    lost = lambda cells: [Sample(cell, gold_lost(table, reward_model="one", **cell)) for cell in cells]
    error = [cell._replace(values=np.abs(cell.values - 1)) for cell in over("ending", "predicted")]
    theorem = np.concatenate([np.abs(cell.values - 1) for cell in over("observed", "predicted")])
    more, less = "the paint seems to pay more than the goal", "the paint seems to pay no more than the goal"
    return [
        check(f"{more}: half of the plans are ever in it at the predicted weight: relative error", theorem, most=0.01),
        mapped(below, f"{more}: relative error of the weight predicted for half of the plans to end in it", error, 0.1),
        mapped(below, f"{more}: ratio of the weights at which 90 % and 10 % are hacked", over("ninety", "ten"), 3.0),
        mapped(below, f"{more}: that ratio at the least mass over that at the largest", map(sooner, bonuses), 1.0),
        mapped(above, f"{more}: gold lost beyond its peak", lost(wins), 0.5),
        mapped(below, f"{less}: gold lost beyond its peak", lost(loses), 0.5),
    ]


def ensembles(table: Table) -> list[Finding]:
    """Checks of what ensembles do by construction, with the gold that they lose; and one honest reward model."""
    where = {"mass": MASS, "bonus": BONUS}
    most = table["strength"][matching(table, part="tilt", **where)].max()
    hacked = lambda name: by_seed(table, "p_hack", part="tilt", reward_model=name, strength=most, **where)
    lost = lambda name: gold_lost(table, reward_model=name, **where)
    beside = lambda name: {"gold_lost": findings.summary(lost(name))}
    case = f"mass {MASS:g}, bonus {BONUS:g}"
    at = f"{case}: fraction of plans hacked at the largest weight"
    return [
        *(
            check(f"{at}, {words}, all fooled", hacked(n), least=0.5)._replace(beside=beside(n))
            for n, words in FOOLED.items()
        ),
        *(check(f"{at}, {words}", hacked(n), most=0.5)._replace(beside=beside(n)) for n, words in BLIND.items()),
        below(f"{case}: gold lost beyond its peak, one reward model that is not fooled", lost("blind"), 0.5),
    ]


def verdict(table: Table) -> list[Finding]:
    """Transitions; methods against the tilt; ensembles."""
    hacked = [
        mapped(
            below,
            f"{name} is hacked less than the tilt, at {AXES[by][1]} (166)",
            compared(table, "p_hack", method, by),
            0.0,
        )
        for by in AXES
        for method, name in METHODS.items()
    ]
    gold = compared(table, "gold", "occupancy", "gain")
    return [
        *transitions(table),
        *hacked,
        mapped(above, "gold of occupancy less the tilt's, at equal proxy gain", gold, 0.0),
        *ensembles(table),
    ]
