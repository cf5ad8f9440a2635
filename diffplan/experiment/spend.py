"""Methods at equal budgets: each is tuned by as many evaluations, and spends all of its seconds.

A plan may take T seconds. A setting of a method takes E evaluations (70) a plan, gradients as two, at the method's own
price c in seconds an evaluation, measured once in that world (`price_of`). What one plan does not use buys more plans
from the same start, and the one with the highest learned reward is kept:

    candidates(setting) = floor(T / (c E(setting))),  at least 1                                             (175)

A setting that takes more than T is not allowed. What a method learns before it plans has a column of its own, and no
limit. The variants of a method are other ways to spend, as factors on what it has: more noise levels, more particles,
another step length, fewer candidates.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import fields, replace
from math import floor
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import noise
from diffplan.experiment.harness import problem_for, proxy_of
from diffplan.experiment.programs import Programs
from diffplan.experiment.search import Axes, Setting
from diffplan.guide import Proxy
from diffplan.methods import Entry, Method, Problem
from diffplan.methods.base import LearningMethod
from diffplan.types import PRNGKey

Variant = Mapping[str, float]
"""Factors on fields of a method, on ``levels`` of the sampler, on ``updates`` of what learns, on ``candidates``."""

CALLS = 5
"""Timed calls, of which the median counts."""

ONE: Variant = {"candidates": 0}
FEW: Variant = {"candidates": 0.1}
SAMPLED: tuple[Variant, ...] = ({}, ONE, FEW, {"levels": 0.5}, {"levels": 2})
STEPS: tuple[Variant, ...] = ({}, ONE, FEW, {"rate": 0.3}, {"rate": 3})
LEARNING: tuple[Variant, ...] = ({}, ONE, FEW, {"updates": 2}, {"updates": 4})
BY_FAMILY: dict[str, tuple[Variant, ...]] = {
    **dict.fromkeys(("guidance", "controls"), SAMPLED),
    "selection": (ONE, {**ONE, "levels": 0.5}, {**ONE, "levels": 2}),
    "particles": ({}, ONE, FEW, {"count": 4}, {"count": 0.25}),
    "ascent": STEPS,
    "planning": ({}, ONE, FEW, {"population": 4}, {"population": 0.25}),
    **dict.fromkeys(("policies", "fine-tuning"), LEARNING),
}
"""Of every method of a family, where it has no variants of its own. Selection chooses among candidates by itself."""
OWN: dict[str, tuple[Variant, ...]] = {
    "gradient_model": STEPS,
    "prior_guidance": ({}, ONE, FEW, {"iterations": 0.25}, {"iterations": 3}),
    "receding_model": ({}, ONE, {"population": 4}, {"population": 0.25}, {"lookahead": 2}),
    "ascent_conservative": (ONE,),
    "tree": ({},),
}
"""Conservative ascent begins at the best data and draws nothing: all its candidates would be the same."""
POINTS = 7
"""Strengths of the first grid, at most."""


class Rival(NamedTuple):
    """A method as it is tuned: its entry in the catalogue, where the search begins, and its ways to spend."""

    entry: Entry
    axes: Axes
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        """The method's."""
        return self.entry.name

    def method(self, setting: Setting) -> Any:
        """The method with the ends of the grid as its strengths, its fields multiplied as the variant says.

        Whole numbers stay so.
        """
        method: Any = self.entry.method
        factors, grid = self.variants[setting.variant], self.axes.grid
        if "updates" in factors and isinstance(method, LearningMethod):
            longer: Any = method.longer(round(factors["updates"]))
            return replace(longer, strengths=(grid[0], grid[-1]))
        own = {name: scaled(getattr(method, name), factors[name]) for name in factors if name in names_of(method)}
        return replace(method, strengths=(grid[0], grid[-1]), **own)

    def strengths(self, setting: Setting) -> tuple[float, ...]:
        """The strength of a setting, as a program takes it."""
        return (int(setting.strength) if self.axes.whole else setting.strength,)

    def problem(self, problem: Problem, setting: Setting) -> Problem:
        """What the method needs of a problem, with as many noise levels as the variant says."""
        factor = self.variants[setting.variant].get("levels", 1.0)
        sampler = problem.sampler
        if factor != 1:
            count = max(2, round(len(sampler.sigmas) * factor))
            sampler = replace(sampler, sigmas=noise.karras(count, sampler.sigmas[-1], sampler.sigmas[0]))
        return replace(problem_for(self.entry, problem), sampler=sampler)

    def words(self, setting: Setting) -> str:
        """The variant, as a table says it."""
        factors = self.variants[setting.variant]
        words = [f"{name} x{factor:g}" for name, factor in factors.items() if (name, factor) != ("candidates", 0)]
        return " ".join([*words, *(["one candidate"] if factors.get("candidates") == 0 else [])])


def names_of(method: Method) -> set[str]:
    """The fields of a method that a factor may change."""
    return {field.name for field in fields(method)} - {"strengths"}  # pyright: ignore[reportArgumentType]


def scaled(value: Any, factor: float) -> Any:
    """The value times a factor, a whole number of at least 1 where it is one."""
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def rival(entry: Entry) -> Rival:
    """A method of the catalogue: its strengths above 0, thinned, and the variants of its name or family that it has."""
    strengths = [strength for strength in entry.method.strengths if strength > 0] or [1.0]
    chosen = np.unique(np.linspace(0, len(strengths) - 1, POINTS).round().astype(int))
    whole = all(isinstance(strength, int) for strength in strengths)
    variants = OWN.get(entry.name, BY_FAMILY.get(entry.family, ({},)))
    known = {*names_of(entry.method), "candidates", "levels"}
    known |= {"updates"} if isinstance(entry.method, LearningMethod) else set()
    variants = tuple(variant for variant in variants if variant.keys() <= known)
    return Rival(entry, Axes(tuple(strengths[i] for i in chosen), len(variants), whole), variants)


class Spending:
    """The programs of methods in one world, each compiled once for all problems of its structure."""

    def __init__(self, starts: Float[Array, "n o"]):
        self.starts = starts
        self.kept: dict[Any, Programs] = {}

    def programs(self, rival: Rival, setting: Setting, problem: Problem) -> Programs:
        """Those of a setting, on a problem."""
        method, own = rival.method(setting), rival.problem(problem, setting)
        leaves, tree = jax.tree.flatten(own)
        key = method, tree, tuple(jnp.shape(leaf) for leaf in leaves)
        if key not in self.kept:
            self.kept[key] = Programs(method, own, self.starts)
        programs = copy(self.kept[key])
        programs.problem = own
        return programs

    def evaluations(self, rival: Rival, setting: Setting, problem: Problem) -> float:
        """Evaluations of one plan, and of its score."""
        costs = self.programs(rival, setting, problem).costs(rival.strengths(setting))
        return float(sum(cost[0] for cost in costs.values())) + 1


class Spent(NamedTuple):
    """Plans of a setting, and what they took. seconds, evaluations: a plan. training: seconds and evaluations."""

    x: Float[Array, "n h d"]
    path_kl: Float[Array, "n"]
    score: Float[Array, "n"]
    seconds: float
    evaluations: float
    training: tuple[float, float]


@jax.jit
def better(
    proxy: Proxy, best: tuple[Array, Array, Array], x: Float[Array, "n h d"], path_kl: Float[Array, "n"]
) -> tuple[Array, Array, Array]:
    """(plans, their path KL, their scores): of each start the plan of the higher score; one without a score loses."""
    score = jax.vmap(proxy.score)(x)
    score = jnp.where(jnp.isnan(score), -jnp.inf, score)
    wins = (score > best[2]) | (best[2] == -jnp.inf)
    return (
        jnp.where(wins[:, None, None], x, best[0]),
        jnp.where(wins, path_kl, best[1]),
        jnp.where(wins, score, best[2]),
    )


def spend(
    key: PRNGKey,
    spending: Spending,
    rival: Rival,
    setting: Setting,
    problem: Problem,
    starts: Float[Array, "n o"],
    candidates: int,
) -> Spent:
    """Plans of a setting, the best of some candidates from each start; the key is consumed. Nothing is compiled in the
    time that is measured.
    """
    programs, at = spending.programs(rival, setting, problem), rival.strengths(setting)
    programs.ready(at)
    began = perf_counter()
    learned = jax.block_until_ready(programs.fit(programs.keys(key)[0], at))
    trained = perf_counter() - began
    keys = list(jax.random.split(programs.keys(key)[1], candidates))
    draw = lambda key: programs.run(key, starts, at, learned)
    proxy = proxy_of(rival.entry.method, problem)
    unknown = jnp.full(len(starts), -jnp.inf)
    best = jnp.zeros((len(starts), *problem.shape)), unknown, unknown
    jax.block_until_ready((keys, better(proxy, best, *best[:2])))  # compiles
    began = perf_counter()
    for each in keys:
        plans = draw(each)
        best = better(proxy, best, plans.x[0], plans.path_kl[0])
    jax.block_until_ready(best)
    seconds = (perf_counter() - began) / len(starts)
    evaluations = candidates * spending.evaluations(rival, setting, problem)
    fitting = sum(cost[0] for cost in programs.costs(at, "fit").values()) if programs.learns else 0.0
    x, path_kl, score = best
    training = (trained if programs.learns else 0.0, float(fitting))
    return Spent(x, path_kl, score, seconds, evaluations, training)


def price_of(
    spending: Spending, rival: Rival, setting: Setting, problem: Problem, starts: Float[Array, "n o"]
) -> float:
    """Seconds an evaluation, of a setting's plans in batches as large as these starts: the median of some calls."""
    times = [spend(jax.random.key(0), spending, rival, setting, problem, starts, 2).seconds / 2 for _ in range(CALLS)]
    return float(np.median(times)) / spending.evaluations(rival, setting, problem)


def candidates_of(rival: Rival, setting: Setting, evaluations: float, price: float, seconds: float) -> int:
    """Equation (175), times the variant's factor; 0 where one plan takes more than the budget."""
    most = floor(seconds / (price * evaluations))
    return most and max(1, round(most * rival.variants[setting.variant].get("candidates", 1.0)))
