"""How does gold bend under pressure? Every method, on reward models of more and more labels, in an exact gridworld.

With d = sqrt(KL) the distance from the prior and R the gain in gold, in standard deviations under the prior, two forms
are fitted to every curve (Gao, Schulman & Hilton 2022, arXiv 2210.10760):

    R(d) = d (a - b d)          best of n                                                                (116)
    R(d) = d (a - b log d)      reinforcement learning                                                   (117)

on the first 4 nats, and judged by their error on the rest, up to 10. The first has an advance prediction. With z the
proxy, standardised under the prior, and V the gold, were z Gaussian the tilt exp(lambda z) would have KL lambda^2 / 2
and E He_k(z) = lambda^k, so that R = c1 sqrt(2) d + c2 2 d^2 + ... with c_k = E[V He_k(z)] / k!:

    a = sqrt(2) E[V z],      b = -E[V (z^2 - 1)]            from draws of the prior alone                (118)

Every seed has its own gold, its own labels and its own draws of the prior. The references are the exact tilt, by
messages along the chain, and best of n, from 20,000 draws of the prior. They have more seeds than the methods have
(`StudySettings.references`). The table is judged in `diffplan.studies.pressure.verdict`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import noise
from diffplan.envs.gridworld import Gridworld
from diffplan.guide import Proxy, guided
from diffplan.methods import ascent, best_of_n, finetuning, guidance, particles, policy_gradient, shooting, tree
from diffplan.methods.base import Grid, Method, Plans, Problem, Starts, draw_plans
from diffplan.methods.classifier_free import ClassifierFree, best_goal
from diffplan.methods.grids import log_grid, whole_grid
from diffplan.methods.weighting import Softmax
from diffplan.metrics.kl import best_of_n_kl, best_of_n_mean
from diffplan.oracle.tabular import Chain
from diffplan.studies import grids
from diffplan.studies.frame import Study, StudySettings, entries
from diffplan.studies.pressure.verdict import MATCHED, verdict
from diffplan.types import Denoise, PRNGKey, Scalar, Strengths
from diffplan.validation import known

LABELS = (30, 100, 300, 1000, 3000, 30_000)
NOISE = 1.0
"""Standard deviation of a label's error, in those of the returns."""
HORIZON, SIDE = 20, 9
LEVELS = 0.15, 3.0
"""Where one-hot plans of this prior tell anything: the noisiest level leaves under two nats of a plan."""

NATS = (*(np.linspace(0, 3.3, 18) ** 2).tolist(), 14.0, 18.0, 22.0, 26.0)
"""Of the exact tilt. Those past 11 are there so that methods of a large proxy gain have a tilt of the same gain."""

COLUMNS = (
    *("seed", "labels", "method", "strength", "kl", "kl_is", "proxy_gain", "gold_gain", "gold_delivered", "illegal"),
    *("finite", "a", "b"),
)

ROWS = ["#" * (SIDE + 2), *["#" + "O" * SIDE + "#"] * (SIDE - 1), "#" + "O" * (SIDE - 1) + "G#", "#" * (SIDE + 2)]
FIELD = Gridworld.from_text("\n".join(ROWS))
"""An open field."""


class Case(NamedTuple):
    """One seed's gold and one reward model of it, in standard deviations under the prior and centred there.

    All are arrays, so that they are traced.
    """

    gold: Float[Array, "k"]
    gold_mean: Float[Array, ""]
    gold_std: Float[Array, ""]
    proxy: Float[Array, "h k"]
    proxy_mean: Float[Array, ""]

    def gains(self, features: Float[Array, "m k"]) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
        """(gain in proxy, gain in gold) of paths, from how often each visits each cell."""
        gold = (features @ self.gold - self.gold_mean) / self.gold_std
        return features @ self.proxy[0] - self.proxy_mean, gold


def chain() -> Chain:
    """The walk from the middle of the field."""
    return known.from_cell(known.walk(FIELD, HORIZON), jnp.asarray(SIDE * SIDE // 2))


def make_case(key: PRNGKey, walk: Chain, labels: int) -> Case:
    """A random gold reward of cells, and a reward model of so many labels; the gold depends on the key alone."""
    key_gold, key_labels = jax.random.split(key)
    gold = jax.random.normal(key_gold, (SIDE * SIDE,))
    proxy = grids.per_step(grids.ridge(key_labels, walk, gold, labels, NOISE), HORIZON)
    mean, std = grids.moments(walk, proxy)
    return Case(gold, *grids.moments(walk, grids.per_step(gold, HORIZON)), proxy / std, mean / std)


def problem_of(walk: Chain, case: Case, data: Float[Array, "m h k"]) -> Problem:
    """The case as a problem: its proxy's unit is a standard deviation under the prior."""
    proxy = known.Additive(case.proxy, known.TabularPrior(walk), case.proxy_mean, jnp.ones(()))
    problem = known.grid_problem(FIELD, walk, proxy, noise.log_linear(24, *LEVELS), data)
    value, conditional = known.TabularValue(walk, proxy), known.TabularConditional(walk, case.proxy)
    return replace(problem, value=value, conditional=conditional)


class ExactlyGuided(NamedTuple):
    """Guided by the exact energy log E[exp(lambda r) | x]: what guidance would be if nothing were approximated."""

    strengths: tuple[float, ...]
    walk: Chain
    name: str = "guided, exact energy"
    strength_name: str = "weight"
    shared: bool = False
    proxy: Any = staticmethod(guidance.regression)

    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """As `Guided`, with an energy for each weight."""
        prior, rewards = known.TabularPrior(self.walk), problem.regression.weights  # pyright: ignore

        def denoiser(weight: Scalar) -> Denoise:
            energy = known.TabularEnergy(prior, rewards, weight)
            return guided(problem.denoise, energy, Strengths(jnp.ones(()), jnp.ones(())))

        return draw_plans(key, problem, starts, strengths, denoiser, problem.denoise)


def undenoised(problem: Problem) -> Proxy:
    """The proxy read from the plan as it is, which ascent can raise: read from the denoised plan it is level there."""
    return replace(problem.regression, denoise=ascent.flat)  # pyright: ignore[reportArgumentType]


def quick(walk: Chain, config: StudySettings) -> tuple[tuple[Method, str], ...]:
    """Methods for every reward model, each with what its KL is: exact, a bound from above, or none."""
    weights, steps = log_grid(0.3, 10.0, 4), whole_grid(100, 4)
    climb = whole_grid(1000, 7)  # of steps so short that the tilt has the proxy gain of some of them
    planner = partial(shooting.Shooting, strengths=whole_grid(8, 4), population=config.scaled(64, 8))
    return (
        (guidance.Prior(), "exact"),
        (ExactlyGuided(weights, walk), "bound"),
        (guidance.Guided("guided, regression", weights), "bound"),
        (ClassifierFree(weights, best_goal, "classifier-free, goal"), "bound"),
        (ascent.Ascent(climb, "ascent", undenoised, rate=0.003, anneal=0), "none"),
        (ascent.AscentRenoised(steps, "ascent, renoised", proxy=undenoised, rate=0.3, tau=0.4), "none"),
        (planner("cross-entropy method"), "none"),
        (planner("MPPI", weigh=Softmax()), "none"),
        (tree.Tree(whole_grid(config.scaled(16, 2), 3), "tree search"), "none"),
    )


def slow(walk: Chain, config: StudySettings) -> tuple[tuple[Method, str], ...]:
    """Methods that learn, or that draw many plans for one: for the reward models of `MATCHED` labels alone."""
    weights, pool = log_grid(0.3, 10.0, 4), config.scaled(64, 8)
    policy = partial(policy_gradient.PolicyGradient, strengths=weights, updates=config.scaled(100, 4), rate=0.1)
    rounds, steps = whole_grid(config.scaled(8, 1), 3), config.scaled(50, 2)
    return (
        (best_of_n.SoftBestOfN(weights, "soft best of n", pool), "none"),
        (best_of_n.Quantiliser(whole_grid(pool, 5, 1), "quantiliser", pool), "bound"),
        (particles.Particles("TDS", weights, count=config.scaled(8, 2)), "none"),
        (policy("REINFORCE with KL"), "bound"),
        (policy("PPO with KL", epochs=4, gae_lambda=0.95, critic_steps=4), "bound"),
        (finetuning.ExpertIteration(rounds, steps=steps, learning_rate=0.1, name="expert iteration"), "bound"),
    )


def weight_for(walk: Chain, reward: Float[Array, "h k"], nats: Scalar) -> Scalar:
    """The weight of a reward whose tilt has this KL, by bisection of its logarithm: KL rises with the weight."""

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        under = walk.tilted(reward, jnp.exp(middle))[0].kl(walk) < nats
        return jnp.where(under, middle, low), jnp.where(under, high, middle)

    low, high = jax.lax.fori_loop(0, 24, halve, (jnp.log(jnp.asarray(1e-2)), jnp.log(jnp.asarray(1e3))))
    return jnp.exp((low + high) / 2)


def tilted(walk: Chain, case: Case, nats: Float[Array, "s"]) -> dict[str, Float[Array, "s"]]:
    """The exact tilt at every KL: everything by messages along the chain."""

    def one(target: Array) -> dict[str, Array]:
        distribution, _ = walk.tilted(case.proxy, weight_for(walk, case.proxy, target))
        delivered = distribution.expected(grids.per_step(case.gold, HORIZON))
        gold = (delivered - case.gold_mean) / case.gold_std
        gain = distribution.expected(case.proxy) - case.proxy_mean
        return {"kl": distribution.kl(walk), "proxy_gain": gain, "gold_gain": gold, "gold_delivered": gold}

    return jax.lax.map(one, nats)


def best_of(case: Case, features: Float[Array, "m k"], n: Float[Array, "s"]) -> dict[str, Float[Array, "s"]]:
    """Best of every n from one pool of the prior's paths, given as visits of cells."""
    score, gold = case.gains(features)
    gain = best_of_n_mean(score, gold, n)
    proxy_gain = best_of_n_mean(score, score, n)
    return {"kl": best_of_n_kl(n), "proxy_gain": proxy_gain, "gold_gain": gain, "gold_delivered": gain}


def slope_and_bend(case: Case, features: Float[Array, "m k"]) -> tuple[Array, Array]:
    """a and b of (118), from draws of the prior."""
    z, gold = case.gains(features)
    return jnp.sqrt(2.0) * jnp.mean(gold * z), -jnp.mean(gold * (z**2 - 1))


def performance(
    method: Method, walk: Chain, key: PRNGKey, case: Case, data: Float[Array, "m h k"], count: int
) -> dict[str, Float[Array, "s"]]:
    """Pressure, proxy and gold of a method's plans, strength by strength: means over the plans that are finite."""
    problem = problem_of(walk, case, data)
    cells = problem.codec
    start = cells.places[SIDE * SIDE // 2]  # pyright: ignore[reportAttributeAccessIssue]
    starts = jnp.broadcast_to(start[None], (count, 2))
    plans = method(key, problem, starts, jnp.asarray(method.strengths, jnp.float32))
    measure = lambda x: grids.measures(key, problem.regression, cells, case.gold, x)  # pyright: ignore
    means = jax.vmap(measure)(plans.x)
    gold = {name: (means[name] - case.gold_mean) / case.gold_std for name in ("promised", "open_loop")}
    exact = jnp.isfinite(plans.exact_kl)
    return {
        "kl": jnp.where(exact, plans.exact_kl, plans.path_kl.mean(axis=1)),
        "proxy_gain": means["proxy"],
        "gold_gain": gold["promised"],
        "gold_delivered": gold["open_loop"],
        "illegal": means["violations.walls"],
        "finite": means["finite"],
    }


def run(config: StudySettings) -> Iterator[dict[str, Any]]:
    """Rows of every seed: the exact curves of every reward model, and of every method on every reward model.

    Raises:
        ModuleNotFoundError: if mctx, which searches trees, is not installed.
    """
    if find_spec("mctx") is None:
        raise ModuleNotFoundError("study pressure: tree search needs mctx: pip install -e '.[search]'")
    walk = chain()
    pool, count = config.scaled(20_000, 500), config.scaled(32, 4)
    n = jnp.asarray([value for value in np.geomspace(1, 8192, 14).round() if value <= pool], jnp.float32)
    nats = jnp.asarray(NATS, jnp.float32)
    draws = jax.jit(lambda key: jax.vmap(walk.draw)(jax.random.split(key, pool)))
    exact = jax.jit(
        lambda case, features: (tilted(walk, case, nats), best_of(case, features, n), slope_and_bend(case, features))
    )
    call_of = lambda method: jax.jit(partial(performance, method, walk), static_argnames="count")
    compiled = lambda methods: [(method, what, call_of(method)) for method, what in methods(walk, config)]
    always, sometimes = compiled(quick), compiled(slow)
    fit = jax.jit(partial(make_case, walk=walk), static_argnames="labels")
    for seed in range(config.references):
        key, key_pool = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed))
        paths = draws(key_pool)
        features, data = grids.visits(paths, SIDE * SIDE), jax.nn.one_hot(paths[:256], SIDE * SIDE)
        for labels in LABELS:
            case = fit(key, labels=labels)
            tilt, best, (a, b) = exact(case, features)
            about = {"seed": seed, "labels": labels, "a": float(a), "b": float(b)}
            yield from rows_of(tilt, {**about, "method": "exact tilt", "kl_is": "exact"}, nats)
            yield from rows_of(best, {**about, "method": "best of n", "kl_is": "bound"}, n)
            methods = always + (sometimes if labels in MATCHED else [])
            for method, what, call in methods if seed < config.seeds else ():
                result = call(jax.random.fold_in(key, labels), case, data, count=count)
                yield from rows_of(result, {**about, "method": method.name, "kl_is": what}, method.strengths)


def rows_of(result: dict[str, Array], about: dict[str, Any], strengths: Any) -> Iterator[dict[str, Any]]:
    """A row for each strength."""
    columns = jax.device_get(result) | {"strength": np.asarray(strengths)}
    for i in range(len(strengths)):
        yield about | entries(columns, i)


STUDY = Study(
    name="pressure",
    claim="In a gridworld, with noisy labels: a reward model of at most 1,000 labels turns gold over within 10 nats, "
    "one of 3,000 or more does not; a curve's first 4 nats predict the next 6 better by d (a - b d) than by "
    "d (a - b log d), and draws of the prior predict a and b; best of n has 0.9 of the tilt's gold at equal nats; at "
    "equal proxy, plans near the prior deliver more.",
    expected="Gold rises as sqrt(KL) and bends the earlier the fewer the labels, worst near as many labels as cells; "
    "best of n and REINFORCE follow the exact tilt; ascent leaves it at once.",
    falsified_by="No turn at some number of labels up to 1,000, or one at 3,000 or more; a smaller held-out error of "
    "d (a - b log d); a predicted a that is off by 15 %, or b by 25 %; best of n below 0.9 of the tilt; a method whose "
    "gold is above the tilt's at equal proxy.",
    minutes=12,
    columns=COLUMNS,
    run=run,
    verdict=verdict,
)
