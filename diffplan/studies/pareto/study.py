"""Two rewards at once: which compromises are possible, and how much of them do learned reward models cost?

At one pressure, K nats from the prior, a fraction a goes to the second reward:

    sum        p(x) exp(w ((1 - a) r1 + a r2)) / Z,  w such that KL = K        product of experts        (119)
    mixture    (1 - a) p1(x) + a p2(x),  the tilts by each alone at K nats     one or the other          (120)

(120) lies on the line between its ends, and no further from the prior than they. The front of (119) is exact, by
messages; guidance by the weighted energies (`methods.pareto.Compromise`) is held against it.
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
from diffplan.studies.frame import Finding, Study, StudySettings, above, below, entries
from diffplan.studies.pressure.study import FIELD, HORIZON, LEVELS, NOISE, SIDE, chain, weight_for
from diffplan.types import PRNGKey, Scalar
from diffplan.validation import known

NATS = 4.0
FRACTIONS = tuple(np.linspace(0, 1, 9).round(3).tolist())
GUIDED = FRACTIONS[::2]
LABELS = 300
COLUMNS = ("seed", "reward_model", "method", "fraction", "kl", "proxy_1", "proxy_2", "gold_1", "gold_2")


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
    return dict(zip(COLUMNS[-4:], map(expected, (*pair.proxy, *pair.gold)), strict=True))


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
    """The plans of guidance by the weighted energies at every fraction, with the weight of (119) for its scale."""
    prior, one, zero = known.TabularPrior(walk), jnp.ones(()), jnp.zeros(())
    starts = jnp.broadcast_to(known.cells_of(FIELD).places[SIDE * SIDE // 2][None], (plans, 2))

    def draws(fraction: Array) -> dict[str, Array]:
        reward = (1 - fraction) * pair.proxy[0] + fraction * pair.proxy[1]
        weight = weight_for(walk, reward, jnp.asarray(NATS))
        first, other = (known.Additive(weight * table, prior, zero, one) for table in pair.proxy)
        problem = known.grid_problem(FIELD, walk, first, noise.log_linear(24, *LEVELS))
        compromise = Compromise(lambda problem: other, (0.0,), scale=1.0)
        result = compromise(key, problem, starts, fraction[None])
        plan = jax.nn.one_hot(jnp.argmax(result.x[0], axis=-1), SIDE * SIDE).mean(axis=0)
        return values(lambda table: jnp.sum(plan * table), pair) | {"kl": result.path_kl.mean()}

    return jax.lax.map(draws, jnp.asarray(GUIDED, jnp.float32))


def run(config: StudySettings) -> Iterator[dict[str, Any]]:
    """Rows of every seed."""
    walk, plans = chain(), config.scaled(128, 4)
    fractions = jnp.asarray(FRACTIONS, jnp.float32)
    exact = jax.jit(lambda pair: fronts(walk, pair, fractions))
    draws = jax.jit(partial(guided, walk), static_argnames="plans")
    for seed in range(config.seeds):
        key = jax.random.key(7000 + 1000 * config.seed + seed)
        for reward_model, labels in (("perfect", None), ("learned", LABELS)):
            pair = make_pair(key, walk, labels)
            by_method = exact(pair) | {"guided": draws(key, pair, plans=plans)}
            for method, front in by_method.items():
                columns = jax.device_get(front)
                about = {"seed": seed, "reward_model": reward_model, "method": method}
                for i, fraction in enumerate(GUIDED if method == "guided" else FRACTIONS):
                    yield about | {"fraction": fraction} | entries(columns, i)


def area(table: Table, seed: float, reward_model: str, method: str, what: str) -> float:
    """The hypervolume of a front above the prior's plans, which score (0, 0)."""
    mine = matching(table, seed=seed, reward_model=reward_model, method=method)
    values = jnp.stack([jnp.asarray(table[f"{what}_{i}"][mine], jnp.float32) for i in (1, 2)], axis=1)
    return float(hypervolume(values, jnp.zeros(2)))


def verdict(table: Table) -> list[Finding]:
    """The findings, one number a seed each."""
    seeds = np.unique(table["seed"])
    over = lambda first, other: np.array([area(table, s, *first) / area(table, s, *other) for s in seeds])
    exact, mixed, learned = ("perfect", "sum", "gold"), ("perfect", "mixture", "gold"), ("learned", "sum", "gold")
    steered, proxies = ("perfect", "guided", "gold"), (("learned", "sum", "proxy"), ("perfect", "sum", "proxy"))
    return [
        above("area under the front of the sum over that of the mixture", over(exact, mixed), 1.0),
        below("area in gold, learned reward models over perfect ones", over(learned, exact), 0.9),
        above("area in proxy, learned reward models over perfect ones", over(*proxies), 1.0),
        above("area in gold, guidance over the exact sum", over(steered, exact), 0.8),
    ]


STUDY = Study(
    name="pareto",
    claim="Summed energies trade two rewards better than mixing their tilts; learned reward models promise a wider "
    "front and deliver a narrower one.",
    expected="The sum's front bulges outward from the line between its ends; with 300 noisy labels the front in proxy "
    "lies outside the perfect reward models', the front in gold inside.",
    falsified_by="A front of the sum that is no larger than the mixture's; a front in gold as large with 300 labels.",
    minutes=4,
    columns=COLUMNS,
    run=run,
    verdict=verdict,
)
