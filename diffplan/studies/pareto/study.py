"""Two rewards at once: which compromises are possible, and how much of them do learned reward models cost?

At one pressure, K nats from the prior, a fraction a goes to the second reward:

    sum        p(x) exp(w ((1 - a) r1 + a r2)) / Z,  w such that KL = K        product of experts        (119)
    mixture    (1 - a) p1(x) + a p2(x),  the tilts by each alone at K nats     one or the other          (120)

(120) lies on the line between its ends, and no further from the prior than they. The front of (119) is exact, by
messages, so it has more seeds than guidance by the weighted energies (`methods.pareto.Compromise`), which is held
against it at the same fractions and weights.

Of all distributions within K nats, (119) has the largest weighted sum of the rewards that it is made from. So it never
has less of it than (120), and its front lies outside: that is a theorem, and here a check; by how much the areas differ
stands beside the check. Nor can a front in gold lie outside that of perfect reward models; by how much it falls short
is a finding. An area is that below the points of a front, one for each fraction, in steps.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import noise
from diffplan.methods.pareto import Compromise
from diffplan.metrics.pareto import hypervolume
from diffplan.metrics.table import Table, matching
from diffplan.oracle.tabular import Chain
from diffplan.studies import grids
from diffplan.studies.findings import (
    Finding,
    Sample,
    above,
    all_finite,
    below,
    check,
    collect,
    mapped,
    refuse,
    seeds_of,
    summary,
)
from diffplan.studies.frame import Study, StudySettings, entries
from diffplan.studies.pressure.study import FIELD, HORIZON, LEVELS, NOISE, SIDE, chain, weight_for
from diffplan.types import PRNGKey, Scalar
from diffplan.validation import known

NATS = 4.0
FRACTIONS = tuple(np.linspace(0, 1, 9).round(3).tolist())
GUIDED = FRACTIONS[::2]
LABELS = 300
VALUES = ("proxy_1", "proxy_2", "gold_1", "gold_2")
COLUMNS = ("seed", "reward_model", "method", "fraction", "kl", *VALUES, "finite")


class Pair(NamedTuple):
    """Two golds and two reward models of them, as centred tables in standard deviations of the prior."""

    gold: Float[Array, "2 h k"]
    proxy: Float[Array, "2 h k"]


def unit(walk: Chain, per_cell: Float[Array, "k"]) -> Float[Array, "h k"]:
    """A reward of cells as a table whose plans have mean 0 and deviation 1 under the prior."""
    table = grids.per_step(per_cell, HORIZON)
    mean, std = grids.moments(walk, table)
    return (table - mean / HORIZON) / std


def make_pair(key: PRNGKey, walk: Chain, labels: int | None) -> Pair:
    """Two random golds; with labels, ridge reward models of them, else the golds themselves."""
    keys = jax.random.split(key, 4)
    golds = [jax.random.normal(each, (SIDE * SIDE,)) for each in keys[:2]]
    gold = jnp.stack([unit(walk, each) for each in golds])
    if labels is None:
        return Pair(gold, gold)
    proxies = [grids.ridge(each, walk, one, labels, NOISE) for each, one in zip(keys[2:], golds, strict=True)]
    return Pair(gold, jnp.stack([unit(walk, each) for each in proxies]))


def values(expected: Callable[[Float[Array, "h k"]], Scalar], pair: Pair) -> dict[str, Array]:
    """Both golds and both proxies, given what the mean of a table of rewards is."""
    return dict(zip(VALUES, map(expected, (*pair.proxy, *pair.gold)), strict=True))


def fronts(walk: Chain, pair: Pair, fractions: Float[Array, "s"]) -> dict[str, dict[str, Float[Array, "s"]]]:
    """(119) and (120), exactly."""

    def summed(fraction: Array) -> dict[str, Array]:
        reward = (1 - fraction) * pair.proxy[0] + fraction * pair.proxy[1]
        distribution, _ = walk.tilted(reward, weight_for(walk, reward, jnp.asarray(NATS)))
        return values(distribution.expected, pair) | {"kl": distribution.kl(walk)}

    along = jax.lax.map(summed, fractions)
    line = lambda front: (1 - fractions) * front[0] + fractions * front[-1]
    return {"sum": along, "mixture": jax.tree.map(line, along)}


def guided(walk: Chain, key: PRNGKey, pair: Pair, plans: int) -> dict[str, Float[Array, "s"]]:
    """Guidance by the weighted energies at every fraction, with the weight of (119) for its scale.

    The values are means over the plans that are finite.
    """
    prior, one, zero = known.TabularPrior(walk), jnp.ones(()), jnp.zeros(())
    starts = jnp.broadcast_to(known.cells_of(FIELD).places[SIDE * SIDE // 2][None], (plans, 2))

    def draws(fraction: Array) -> dict[str, Array]:
        reward = (1 - fraction) * pair.proxy[0] + fraction * pair.proxy[1]
        weight = weight_for(walk, reward, jnp.asarray(NATS))
        first, other = (known.Additive(weight * table, prior, zero, one) for table in pair.proxy)
        problem = known.grid_problem(FIELD, walk, first, noise.log_linear(24, *LEVELS))
        compromise = Compromise(lambda problem: other, (0.0,), scale=1.0)
        result = compromise(key, problem, starts, fraction[None])
        finite = jnp.all(jnp.isfinite(result.x[0]), axis=(1, 2))
        mean = lambda of_plans: jnp.mean(of_plans, axis=0, where=finite.reshape(-1, *(1,) * (of_plans.ndim - 1)))
        plan = mean(jax.nn.one_hot(jnp.argmax(result.x[0], axis=-1), SIDE * SIDE))
        measures = {"kl": mean(result.path_kl[0]), "finite": finite.mean()}
        return values(lambda table: jnp.sum(plan * table), pair) | measures

    return jax.lax.map(draws, jnp.asarray(GUIDED, jnp.float32))


def run(config: StudySettings) -> Iterator[dict[str, Any]]:
    """Rows of every seed."""
    walk, plans = chain(), config.scaled(128, 4)
    fractions = jnp.asarray(FRACTIONS, jnp.float32)
    exact = jax.jit(lambda pair: fronts(walk, pair, fractions))
    draws = jax.jit(partial(guided, walk), static_argnames="plans")
    pairs = jax.jit(partial(make_pair, walk=walk), static_argnames="labels")
    for seed in range(config.references):
        key, key_plans = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed))
        for reward_model, labels in (("perfect", None), ("learned", LABELS)):
            pair = pairs(key, labels=labels)
            sampled = {"guided": draws(key_plans, pair, plans=plans)} if seed < config.seeds else {}
            for method, front in (exact(pair) | sampled).items():
                columns = jax.device_get(front)
                about = {"seed": seed, "reward_model": reward_model, "method": method}
                for i, fraction in enumerate(GUIDED if method == "guided" else FRACTIONS):
                    yield about | {"fraction": fraction} | entries(columns, i)


def front_of(table: Table, seed: float, reward_model: str, method: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(fractions, values [fractions, 2]) of a front, by rising fraction.

    Raises:
        TableError: if a value is missing.
    """
    mine = matching(table, seed=seed, reward_model=reward_model, method=method)
    order = np.argsort(table["fraction"][mine])
    values = np.stack([table[f"{what}_{i}"][mine][order] for i in (1, 2)], axis=1)
    for column, name in zip(values.T, ("1", "2"), strict=True):
        refuse(f"column '{what}_{name}'", column, f"where method={method}, reward_model={reward_model}, seed={seed:g}")
    return table["fraction"][mine][order], values


def area(front: tuple[np.ndarray, np.ndarray], fractions: np.ndarray | None = None) -> float:
    """The hypervolume of a front above the prior's plans, which score (0, 0). fractions: its points, all by default."""
    kept = front[1] if fractions is None else front[1][np.isin(front[0], fractions)]
    return float(hypervolume(jnp.asarray(kept, jnp.float32), jnp.zeros(2)))


def weighted_lead(table: Table, seed: float, reward_model: str) -> np.ndarray:
    """The weighted sum of both proxies along (119) less that along (120), a number for each fraction."""
    (a, summed), (_, mixed) = (front_of(table, seed, reward_model, name, "proxy") for name in ("sum", "mixture"))
    return (1 - a) * (summed - mixed)[:, 0] + a * (summed - mixed)[:, 1]


def guided_over_exact(table: Table, reward_model: str, what: str) -> Sample:
    """The area of guidance over that of the exact sum, at the fractions of guidance; none where the sum has no area."""

    def ratio(seed: float) -> float | None:
        guided, exact = (front_of(table, seed, reward_model, method, what) for method in ("guided", "sum"))
        whole = area(exact, guided[0])
        return area(guided) / whole if whole > 0 else None

    seeds = seeds_of(table, method="guided", reward_model=reward_model)
    return collect({"reward_model": reward_model, "what": what}, seeds.tolist(), ratio)


def verdict(table: Table) -> list[Finding]:
    """Two checks of the theorem; what learned reward models cost; what guidance reaches of the exact front."""
    seeds = seeds_of(table, method="sum")
    of = lambda reward_model, method, what: np.array(
        [area(front_of(table, seed, reward_model, method, what)) for seed in seeds]
    )
    exact, mixed, learned = of("perfect", "sum", "gold"), of("perfect", "mixture", "gold"), of("learned", "sum", "gold")
    leads = [weighted_lead(table, seed, name) for seed in seeds for name in ("perfect", "learned")]
    guidance = [guided_over_exact(table, *which) for which in (("perfect", "gold"), ("learned", "gold"))]
    theorem = check("weighted sum of the rewards pushed: the sum less the mixture", np.concatenate(leads), least=-1e-3)
    return [
        theorem._replace(beside={"area_over_mixture": summary(exact / mixed)}),
        below("area in gold, learned reward models over perfect ones", learned / exact, 0.9),
        above("area in proxy, learned reward models over perfect ones", of("learned", "sum", "proxy") / exact, 1.0),
        mapped(above, "area in gold, guidance over the exact sum at the same fractions", guidance, 0.8),
        all_finite(table),
    ]


STUDY = Study(
    name="pareto",
    claim="At 4 nats in a gridworld: reward models of 300 noisy labels promise a wider front of two rewards than "
    "perfect ones and deliver a narrower one; guidance by summed energies reaches 0.8 of the exact front's area. That "
    "summed energies trade two rewards no worse than mixing their tilts is a theorem.",
    expected="The sum's front bulges outward from the line between its ends; with 300 noisy labels the front in proxy "
    "lies outside the perfect reward models', the front in gold inside.",
    falsified_by="A front in gold as large with 300 labels, or one in proxy that is no larger; guidance below 0.8 of "
    "the exact front with perfect or with learned reward models.",
    minutes=4,
    columns=COLUMNS,
    run=run,
    verdict=verdict,
)
