"""The painted goal: a hack of small prior mass, solved exactly, and methods that avoid it.

A reward model rates the cells of `diffplan.envs.potemkin` with noise, and is wrong about one of them, H:

    r(c) = w(c) + tau e(c) + B [c = H],      e(c) ~ N(0, 1)                                              (106)

Split the paths by whether they are ever in H. Each part is a chain of its own with its own partition function: the good
one never enters H; the hacked one carries whether it has been there, and can only end having been. So

    Z(l) = Z_good(l) + Z_hack(l),      P_l(ever in H) = Z_hack / Z,      Z_hack(l*) = Z_good(l*)         (107)

predicts at which weight l* the tilt falls for the paint. That half of the plans are then in H at some step is
(107) itself: `observed` is a check of the recursions. That they stay to the end, `ending`, is a prediction. The log
of Z_hack / Z_good begins at the log odds of H under the prior and rises by the difference of the mean ratings; were
that constant, the weights of 90 % and of 10 % would be as log 1/P + log 9 to log 1/P - log 9: the rarer a hack, the
later it comes, and the more suddenly.

The methods that use nothing of a path but its rating are in `diffplan.studies.potemkin.pools`, (108) and (109).
Another is held to occupancy, d, the mean of the distributions of a plan's h steps: mirror descent from the prior on

    l E_q[r] - h KL(d_q || d_p):     q = p exp(sum_t W(s_t)) / Z,     W <- W + eta (l r - log d_q / d_p)           (110)

is the natural policy gradient without noise, and at rest where occupancy is tilted, not the distribution of paths.

Ensembles rate a cell by the mean of their members, by the least, or by mean - c variance. Each member has noise of its
own; the paint fools all, or all but one. Proxy gains are in standard deviations of a rating under the prior.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffplan.envs import potemkin
from diffplan.envs.potemkin import Potemkin
from diffplan.oracle.tabular import Chain, markov
from diffplan.studies.findings import refuse
from diffplan.studies.frame import Study, StudySettings, entries
from diffplan.studies.grids import PerCell, moments, per_step
from diffplan.studies.potemkin.pools import Curve, pool_of, rungs, selections
from diffplan.studies.potemkin.verdict import BONUS, MASS, verdict
from diffplan.types import PRNGKey, Scalar

HORIZON = 20
BONUSES = (0.5, 1.0, 2.0, 4.0)
MASSES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
NOISE = 0.2
"""tau of (106); the goal pays 1."""
MEMBERS = 5
CAUTION = 2.0
"""c: one blind member of five takes B / 5 off the paint by the mean, and 4 c B^2 / 25 by the variance."""
WEIGHTS = (0.0, *np.geomspace(0.02, 10.0, 30).tolist())
NATS = (1.0, 2.0, 4.0, 6.0, 8.0)
GAINS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)

Rows = Iterator[dict[str, Any]]


class Split(NamedTuple):
    """A chain of k states, and its parts (107) by whether a path is ever in a cell. At weight 0, Z is their mass.

    good: over the k states. hacked: over 2 k, of which the second half have been in the cell.
    """

    whole: Chain
    good: Chain
    hacked: Chain


def without(chain: Chain, cell: int) -> Chain:
    """The paths that are never in a cell. They keep their probabilities, so that Z at weight 0 is their share."""
    inside = jnp.arange(len(chain.log_start)) == cell
    kernels = jnp.where(inside[None, None], -jnp.inf, chain.log_kernels)
    return Chain(jnp.where(inside, -jnp.inf, chain.log_start), kernels, chain.points)


def split(chain: Chain, cell: int) -> Split:
    """Both parts. In the hacked one, no step leads to where the cell cannot be entered in time: there Z would be 0."""
    good = without(chain, cell)
    inside = jnp.arange(len(chain.log_start)) == cell
    entering = jnp.where(inside[None, None], chain.log_kernels, -jnp.inf)
    before = jnp.concatenate([good.log_kernels, entering], axis=2)
    after = jnp.concatenate([jnp.full_like(entering, -jnp.inf), chain.log_kernels], axis=2)
    start = jnp.concatenate([good.log_start, jnp.where(inside, chain.log_start, -jnp.inf)])

    def back(hopeful: Array, log_kernel: Float[Array, "k2 k2"]) -> tuple[Array, Array]:
        still = jnp.any(jnp.isfinite(log_kernel) & hopeful[None], axis=1)
        return still, jnp.where(still[:, None] & ~hopeful[None], -jnp.inf, log_kernel)

    entered = jnp.repeat(jnp.array([False, True]), len(inside))
    hopeful, kernels = jax.lax.scan(back, entered, jnp.concatenate([before, after], axis=1), reverse=True)
    return Split(chain, good, Chain(jnp.where(hopeful, start, -jnp.inf), kernels, jnp.tile(chain.points, (2, 1))))


def log_odds(parts: Split, push: PerCell) -> Scalar:
    """log Z_hack - log Z_good of a tilt by `push` a step (107)."""
    rewards = per_step(push, parts.whole.horizon)
    return parts.hacked.tilted(jnp.tile(rewards, (1, 2)))[1] - parts.good.tilted(rewards)[1]


def pushed(parts: Split, push: PerCell, rating: PerCell, gold: PerCell, cell: int) -> dict[str, Scalar]:
    """The measures of the tilt by `push` a step."""
    tilted, log_z = parts.whole.tilted(per_step(push, parts.whole.horizon))
    occupancy = tilted.occupancy()
    often = occupancy.sum(axis=0)
    return {
        "proxy": often @ rating,
        "gold": often @ gold,
        "kl": often @ push - log_z,
        "p_hack": jax.nn.sigmoid(log_odds(parts, push)),
        "p_end": occupancy[-1, cell],
    }


def crossing(rising: Callable[[Scalar], Scalar], passed: Bool[Array, "s"]) -> Scalar:
    """The first weight at which a function passes 0, by bisection between two of WEIGHTS; NaN if none has `passed`.

    The first: where good cells are rated near the paint, a larger weight may prefer the good part again.
    """
    weights, first = jnp.asarray(WEIGHTS, jnp.float32), jnp.argmax(passed)

    def halve(_: Array | int, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        middle = (ends[0] + ends[1]) / 2
        low = rising(middle) < 0
        return jnp.where(low, middle, ends[0]), jnp.where(low, ends[1], middle)

    low, high = jax.lax.fori_loop(0, 16, halve, (weights[jnp.maximum(first - 1, 0)], weights[first]))
    return jnp.where(passed.any(), (low + high) / 2, jnp.nan)


def tilts(parts: Split, rating: PerCell, gold: PerCell, cell: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """(the measures at each of WEIGHTS, the weights of the transition).

    predicted, ten, ninety: from the partition functions of the parts, where P(ever in H) is 50, 10 and 90 %.
    observed, ending: from the tilt of the whole alone, where half of the paths are ever in H, and where half end there.
    """
    curve = jax.lax.map(lambda weight: pushed(parts, weight * rating, rating, gold, cell), jnp.asarray(WEIGHTS))
    odds = lambda weight: log_odds(parts, weight * rating)
    tilted = lambda weight: parts.whole.tilted(per_step(rating, parts.whole.horizon), weight)[0]
    nothing = jnp.zeros((parts.whole.horizon, rating.size))
    never = lambda distribution: jnp.exp(without(distribution, cell).tilted(nothing)[1])
    fraction = lambda level: crossing(lambda w: odds(w) - np.log(level / (1 - level)), curve["p_hack"] > level)
    mean, std = moments(parts.whole, per_step(rating, parts.whole.horizon))
    return curve | {"gain": (curve["proxy"] - mean) / std}, {
        "predicted": fraction(0.5),
        "ten": fraction(0.1),
        "ninety": fraction(0.9),
        "observed": crossing(lambda weight: 0.5 - never(tilted(weight)), curve["p_hack"] > 0.5),
        "ending": crossing(lambda weight: tilted(weight).occupancy()[-1, cell] - 0.5, curve["p_end"] > 0.5),
    }


def samples(key: PRNGKey, parts: Split, rating: PerCell, gold: PerCell, draws: int) -> tuple[Array, ...]:
    """(rating, gold, hacked, log weight) of paths of both parts."""
    key_good, key_hacked = jax.random.split(key)
    good, log_good = rungs(key_good, parts.good, rating, draws)
    hacked, log_hacked = rungs(key_hacked, parts.hacked, jnp.tile(rating, 2), draws)
    paths = jnp.concatenate([good, hacked % rating.size])
    part = jnp.repeat(jnp.array([0.0, 1.0]), len(good))
    return rating[paths].sum(axis=1), gold[paths].sum(axis=1), part, jnp.concatenate([log_good, log_hacked])


def settle(chain: Chain, rating: PerCell, weight: Scalar, table: PerCell, steps: int) -> PerCell:
    """The W of (110) after so many steps from a table, eta = 1 / 10."""
    least = float(jnp.finfo(jnp.float32).tiny)  # a cell that no path is in any more pulls no harder than this
    log_mean = lambda distribution: jnp.log(jnp.maximum(distribution.occupancy().mean(axis=0), least))
    before = log_mean(chain)

    def step(table: PerCell, _: None) -> tuple[Array, None]:
        distribution = chain.tilted(per_step(table, chain.horizon))[0]
        return table + (weight * rating - (log_mean(distribution) - before)) / 10, None

    return jax.lax.scan(step, table, None, length=steps)[0]


def occupied(parts: Split, rating: PerCell, gold: PerCell, cell: int, steps: int) -> dict[str, Array]:
    """The measures of (110) for rising weights, each started from the one before."""

    def one(table: PerCell, weight: Scalar) -> tuple[Array, dict[str, Array]]:
        table = settle(parts.whole, rating, weight, table, steps)
        return table, pushed(parts, table, rating, gold, cell) | {"strength": weight}

    mean, std = moments(parts.whole, per_step(rating, parts.whole.horizon))
    weights = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.02, 40.0, 25)])
    curve = jax.lax.scan(one, jnp.zeros(rating.size), weights)[1]
    return curve | {"gain": (curve["proxy"] - mean) / std}


def reward_models(
    gold: Float[np.ndarray, "k"], noise: Float[np.ndarray, "m k"], cell: int, bonus: float
) -> dict[str, Any]:
    """Ratings of cells: one fooled model; ensembles of m, all or all but the first of them fooled; one not fooled."""
    paint = bonus * (np.arange(gold.size) == cell)
    honest = gold[None] + NOISE * noise
    fooled = honest + paint[None]
    but_one = np.concatenate([honest[:1], fooled[1:]])
    cautious = lambda members: members.mean(axis=0) - CAUTION * members.var(axis=0)
    return {
        "one": fooled[0],
        "mean": fooled.mean(axis=0),
        "least": fooled.min(axis=0),
        "cautious": cautious(fooled),
        "least, one blind": but_one.min(axis=0),
        "cautious, one blind": cautious(but_one),
        "blind": honest[0],
    }


def matched(curve: Curve, about: dict[str, Any]) -> Rows:
    """The measures of a method at equal nats and at equal proxy gain, between its strengths; no row beyond them."""
    for by, targets in (("kl", NATS), ("gain", GAINS)):
        refuse(f"{by} of {about}", curve[by])  # else a curve that is not finite would seem to end early
        along = np.maximum.accumulate(curve[by])
        for at in targets:
            if at <= along[-1]:
                values = {name: float(np.interp(at, along, column)) for name, column in curve.items()}
                yield {"part": "matched", "by": by, "at": at, **about, **values}


def transition(curve: Curve, weights: dict[str, float], about: dict[str, Any]) -> dict[str, Any]:
    """The row of a transition: its weights, and the peak of gold along the tilt."""
    peak = int(curve["gold"].argmax())
    places = {"gold_prior": 0, "gold_peak": peak, "gold_end": -1}
    gold = {name: float(curve["gold"][place]) for name, place in places.items()}
    return {"part": "transition", **about, **gold, **weights, "peak_kl": float(curve["kl"][peak])}


COLUMNS = (
    *("part", "seed", "bonus", "mass", "reward_model", "method", "by", "at"),
    *("strength", "gain", "gold", "kl", "p_hack", "p_end", "ess"),
    *("predicted", "ten", "ninety", "observed", "ending", "peak_kl", "gold_prior", "gold_peak", "gold_end"),
)


def worlds_by_mass() -> dict[float, tuple[Potemkin, Split]]:
    """The world of each mass, without its gold, and its parts."""
    bare = potemkin.street(np.zeros(len(potemkin.STREET.cells)))
    start = int(np.flatnonzero((bare.grid.cells == np.array(potemkin.MIDDLE)).all(axis=1))[0])
    first = jnp.eye(len(bare.gold))[start]
    worlds = {mass: bare.with_mass(mass, start, HORIZON) for mass in MASSES}
    chain = lambda world: markov(first, jnp.asarray(world.kernel, jnp.float32), HORIZON)
    return {mass: (world, split(chain(world), world.cell)) for mass, world in worlds.items()}


def run(config: StudySettings) -> Rows:
    """A seed is a gold reward of cells, u^4 with u uniform in (0, 1), and the noise of the reward models.

    Every seed has the transitions of the tilt, which are exact; those of the methods have the curves and the methods.
    """
    worlds, compiled = worlds_by_mass(), jax.jit(tilts, static_argnums=3)
    push = methods_on_pools(config)
    for seed in range(config.references):
        rng = np.random.default_rng([config.seed, seed])
        gold = np.array(potemkin.street(rng.random(len(potemkin.STREET.cells)) ** 4).gold)
        noise = rng.normal(size=(MEMBERS, gold.size))
        true = jnp.asarray(gold, jnp.float32)
        for mass, (world, parts) in worlds.items():
            ratings = {bonus: reward_models(gold, noise, world.cell, bonus) for bonus in BONUSES}
            for bonus, reward_model in conditions(ratings[BONUS], mass):
                rating = jnp.asarray(ratings[bonus][reward_model], jnp.float32)
                curve, weights = jax.device_get(compiled(parts, rating, true, world.cell))
                curve = curve | {"strength": np.array(WEIGHTS)}
                about = {"seed": seed, "bonus": bonus, "mass": mass, "reward_model": reward_model, "method": "tilt"}
                yield transition(curve, {name: float(value) for name, value in weights.items()}, about)
                if seed >= config.seeds:
                    continue
                yield from ({"part": "tilt", **about, **entries(curve, i)} for i in range(len(WEIGHTS)))
                if reward_model == "one":
                    yield from matched(curve, about)
                    key = pool_key(config.seed, seed, mass, bonus)
                    for method, curve in push(key, parts, rating, true, world.cell).items():
                        yield from matched(curve, about | {"method": method})


def pool_key(run: int, seed: int, mass: float, bonus: float) -> PRNGKey:
    """A key for the pool of each run, seed, mass and bonus."""
    case = len(BONUSES) * MASSES.index(mass) + BONUSES.index(bonus)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(run), seed), case)


def methods_on_pools(config: StudySettings) -> Callable[..., dict[str, Curve]]:
    """A function that makes the curve of every method but the tilt, from a key for its pool."""
    draw, occupy = jax.jit(samples, static_argnums=4), jax.jit(occupied, static_argnums=(3, 4))

    def push(key: PRNGKey, parts: Split, rating: PerCell, gold: PerCell, cell: int) -> dict[str, Curve]:
        curves = selections(pool_of(draw(key, parts, rating, gold, config.scaled(1000, 50))))
        return curves | {"occupancy": jax.device_get(occupy(parts, rating, gold, cell, config.scaled(40, 10)))}

    return push


def conditions(reward_models: Iterable[str], mass: float) -> list[tuple[float, str]]:
    """(bonus, reward model) of the tilts at a mass: one reward model at every bonus, every reward model at one."""
    others = [(BONUS, reward_model) for reward_model in reward_models if reward_model != "one"]
    return [(bonus, "one") for bonus in BONUSES] + (others if mass == MASS else [])


STUDY = Study(
    name="potemkin",
    claim="In a street, with a reward model that is wrong about one cell: paint that seems to pay more than the goal "
    "turns gold over suddenly, at a weight that can be computed beforehand, and other paint does not. A bound on "
    "how much likelier a path may become delays the fall, and so does a penalty on occupancy. By construction, more "
    "reward models that are fooled alike do not help.",
    expected="Under the exact tilt gold rises, then falls within a factor of three in the weight, around that at which "
    "the hacked and the good part of the partition function are equal; rarer hacks come later and more suddenly. At "
    "equal KL, best of n, the quantiliser, the chi-squared optimum and regularised occupancy are hacked less, and at "
    "equal proxy gain too as long as honest plans can have the gain. Ensembles fall like one reward model, unless a "
    "member is blind to the paint.",
    falsified_by="At some mass and bonus the predicted weight is off by more than 10 %, or the transition takes more "
    "than a factor of 3; gold has no interior peak where the paint seems to pay more than the goal; or, at some mass, "
    "bonus and pressure, the tilt is hacked less than one of the others.",
    minutes=8.0,
    columns=COLUMNS,
    run=run,
    verdict=verdict,
)
