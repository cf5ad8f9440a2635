"""When do more candidates hurt? Best of n to 4,096 by critics of few and of many labels, in the U-maze.

Every seed has starts of its own, from each a pool of plans of one prior, and critics of its own: clean regressions of
30 to 3,000 labelled windows. Every plan of the pool is carried out. The best-scored of n plans is then known for every
n from that one pool (72), as the mean over all its subsets of n: its score, what it promises, and what it delivers.
Optimism is the promised return less the delivered one.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.guide import Proxy
from diffplan.learn.reward_models import RewardModelSettings
from diffplan.metrics.kl import best_of_n_kl, best_of_n_mean
from diffplan.metrics.table import Table, matching
from diffplan.planner import build as building
from diffplan.planner.build import Builder
from diffplan.planner.planner import Planner
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.samplers import chunked
from diffplan.studies.findings import Finding, Sample, above, below, mapped
from diffplan.studies.frame import Study, StudySettings
from diffplan.tasks import make_task

LABELS = (30, 100, 300, 1000, 3000)
POOL, STARTS = 4096, 8
"""Plans of a start, and starts of a seed."""
FEW, MANY = 64, 4096
"""Numbers of candidates that findings compare."""
VALUES = ("score", "promised", "delivered", "feasible")
COLUMNS = ("seed", "labels", "n", "kl", *VALUES, "optimism")


def numbers(pool: int) -> Float[np.ndarray, "s"]:
    """The n of the rows: powers of two up to the pool."""
    return 2.0 ** np.arange(int(np.log2(pool)) + 1)


def critic(build: Builder, labels: int, seed: int) -> Proxy:
    """A clean regression of so many labels, drawn and trained with a seed of its own."""
    config = build.config
    proxy = replace(config.proxy, train=replace(config.proxy.train, seed=1000 + seed))
    own = build._replace(decided=build.decided._replace(config=replace(config, proxy=proxy)))
    settings = RewardModelSettings(labels=labels)
    return building.fit_network(own, "clean", settings, f"critics/{labels}-{seed}").model


def best_of(
    score: Float[Array, "m"], values: dict[str, Float[Array, "m"]], n: Float[Array, "s"]
) -> dict[str, Float[Array, "s"]]:
    """The mean of every value, and of the score itself, over the best-scored of each n."""
    return {name: best_of_n_mean(score, value, n) for name, value in (values | {"score": score}).items()}


def run(config: StudySettings) -> Iterator[dict[str, Any]]:
    """Rows of every seed: the curve over n of each number of labels, averaged over starts."""
    task, where = make_task("maze2d-umaze"), Run(config.run / "planners" / "candidates")
    default = PlannerSettings()
    shorter = replace(default.prior.train, steps=config.scaled(default.prior.train.steps, 20))
    settings = replace(default, prior=replace(default.prior, train=shorter))
    planner = Planner.fit(task, where.directory, settings=settings)
    build = building.start(where, task, settings)
    pool, starts = config.scaled(POOL, 64), config.scaled(STARTS, 1)
    n = jnp.asarray(numbers(pool), jnp.float32)
    scores = jax.jit(lambda proxy, x: chunked(proxy.score, x))
    for seed in range(config.seed, config.seed + config.seeds):
        critics = {labels: critic(build, labels, seed) for labels in LABELS}
        held_out = build.data.held_out
        key_starts, key_plans = jax.random.split(jax.random.key(10_000 + seed))
        curves: dict[int, list[dict[str, Array]]] = {labels: [] for labels in LABELS}
        for number, start in enumerate(held_out.observations[held_out.places(key_starts, starts)]):
            key_plan, key_deliver = jax.random.split(jax.random.fold_in(key_plans, number))
            plans = planner.plan(key_plan, start, scale=None, n=pool)
            values = {
                "promised": plans.promised,
                "delivered": jnp.asarray(planner.deliver(key_deliver, plans)),
                "feasible": plans.feasible.astype(jnp.float32),
            }
            for labels, proxy in critics.items():
                curves[labels].append(best_of(scores(proxy, plans.x), values, n))
        for labels, each in curves.items():
            yield from rows_of(seed, labels, n, each)


def rows_of(seed: int, labels: int, n: Float[Array, "s"], curves: list[dict[str, Array]]) -> Iterator[dict[str, Any]]:
    """A row for each n: means over starts."""
    means = {name: np.mean([np.asarray(curve[name]) for curve in curves], axis=0) for name in VALUES}
    kl = np.asarray(best_of_n_kl(n))
    for i, count in enumerate(np.asarray(n).tolist()):
        row = {name: float(value[i]) for name, value in means.items()}
        about = {"seed": seed, "labels": labels, "n": count, "kl": float(kl[i])}
        yield about | row | {"optimism": row["promised"] - row["delivered"]}


def of(table: Table, labels: int, n: int, name: str) -> Float[np.ndarray, "seeds"]:
    """A column at one number of labels and of candidates, by seed."""
    rows = matching(table, labels=labels, n=n)
    return table[name][rows][np.argsort(table["seed"][rows])]


def change(table: Table, labels: int, name: str) -> Float[np.ndarray, "seeds"]:
    """What a column gains from `FEW` to the most candidates."""
    most = int(table["n"].max())
    return of(table, labels, most, name) - of(table, labels, min(FEW, most), name)


def verdict(table: Table) -> list[Finding]:
    """Whether more candidates hurt, at every number of labels."""
    samples = lambda name: [Sample({"labels": labels}, change(table, labels, name)) for labels in LABELS]
    few = [sample for sample in samples("delivered") if sample.where["labels"] <= 100]
    many = [sample for sample in samples("delivered") if sample.where["labels"] >= 1000]
    return [
        mapped(above, f"score by the critic: at {MANY} less at {FEW} candidates", samples("score"), 0.0),
        mapped(below, f"delivered return, up to 100 labels: at {MANY} less at {FEW} candidates", few, 0.0),
        mapped(above, f"delivered return, 1,000 labels or more: at {MANY} less at {FEW} candidates", many, 0.0),
        mapped(above, f"optimism: at {MANY} less at {FEW} candidates", samples("optimism"), 0.0),
    ]


STUDY = Study(
    name="candidates",
    claim="With critics of at most 100 labels, the best of 4,096 delivers less than the best of 64; with 1,000 labels "
    "or more it delivers more. The gap between promised and delivered return grows with n.",
    expected="The critic's score rises with n for every critic; with few labels the delivered return rises, turns and "
    "falls; with many it goes on rising.",
    falsified_by="A delivered return that rises from 64 to 4,096 candidates with 30 or 100 labels, or falls with 1,000 "
    "or 3,000; an optimism that falls.",
    minutes=10,
    columns=COLUMNS,
    run=run,
    verdict=verdict,
)
