"""Methods at equal budgets: each is tuned by as many evaluations, and spends all of its seconds.

A plan may take T seconds. What a plan of a setting takes is measured as a ratio to a plan of the prior, call by call in
turn, so that a busy machine slows both; the prior's own seconds c are measured once, on an idle one:

    seconds(setting) = c * median over calls of (time of the setting's batch / time of the prior's batch)    (175)
    candidates(setting) = floor(T / seconds(setting)),  at least 1

Candidates are plans from the same start, of which the one with the highest learned reward is kept. A setting of which
one plan takes more than T is not allowed. What a method learns before it plans has a column of its own, and no limit.
The variants of a method are other ways to spend, as factors on what it has: noise levels, particles, the length of a
step, the number of candidates.
"""

from collections.abc import Callable, Mapping
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


Batch = Callable[[list[PRNGKey]], Any]
"""Draws the plans of a batch, as many from each start as there are keys."""


class Drawing(NamedTuple):
    """A setting that is ready to draw from some starts: programs are compiled, and what it learns is learned."""

    programs: Programs
    at: tuple[float, ...]
    learned: Any
    proxy: Proxy
    starts: Float[Array, "n o"]

    def __call__(self, keys: list[PRNGKey]) -> tuple[Array, Array, Array]:
        """(plans, path KL, scores): the best-scored of one plan a key, from each start. Nothing is compiled."""
        best = self.none()
        for key in keys:
            plans = self.programs.run(key, self.starts, self.at, self.learned)
            best = better(self.proxy, best, plans.x[0], plans.path_kl[0])
        return jax.block_until_ready(best)

    def none(self) -> tuple[Array, Array, Array]:
        """No plans yet."""
        unknown = jnp.full(len(self.starts), -jnp.inf)
        return jnp.zeros((len(self.starts), *self.programs.problem.shape)), unknown, unknown


def ready(
    key: PRNGKey, spending: Spending, rival: Rival, setting: Setting, problem: Problem, starts: Float[Array, "n o"]
) -> tuple[Drawing, tuple[float, float]]:
    """A setting ready to draw, and its training: seconds and evaluations. The key is consumed."""
    programs, at = spending.programs(rival, setting, problem), rival.strengths(setting)
    programs.ready(at)
    began = perf_counter()
    learned = jax.block_until_ready(programs.fit(key, at))
    seconds = perf_counter() - began
    proxy = proxy_of(rival.entry.method, problem)
    assert proxy is not None, rival.name
    drawing = Drawing(programs, at, learned, proxy, starts)
    none = drawing.none()
    jax.block_until_ready(better(drawing.proxy, none, *none[:2]))  # compiles
    if not programs.learns:
        return drawing, (0.0, 0.0)
    return drawing, (seconds, float(sum(cost[0] for cost in programs.costs(at, "fit").values())))


def spend(
    key: PRNGKey,
    spending: Spending,
    rival: Rival,
    setting: Setting,
    problem: Problem,
    starts: Float[Array, "n o"],
    candidates: int,
) -> Spent:
    """Plans of a setting, the best of some candidates from each start; the key is consumed."""
    key_fit, key_draw = jax.random.split(key)
    drawing, training = ready(key_fit, spending, rival, setting, problem, starts)
    keys = list(jax.random.split(key_draw, candidates))
    began = perf_counter()
    x, path_kl, score = drawing(keys)
    seconds = (perf_counter() - began) / len(starts)
    evaluations = candidates * spending.evaluations(rival, setting, problem)
    return Spent(x, path_kl, score, seconds, evaluations, training)


def ratio(one: Batch, other: Batch) -> float:
    """How many times as long a batch of one setting takes as a batch of another: calls in turn, the median (175)."""
    keys = [jax.random.key(number) for number in range(CALLS + 1)]
    jax.block_until_ready(keys)

    def timed(batch: Batch, key: PRNGKey) -> float:
        began = perf_counter()
        batch([key])
        return perf_counter() - began

    times = [(timed(one, key), timed(other, key)) for key in keys][1:]  # the first calls load the programs
    return float(np.median([ours / theirs for ours, theirs in times]))


def seconds_of(batch: Batch) -> float:
    """Seconds of a batch: the median of some calls, on an idle machine."""
    times = []
    for key in list(jax.random.split(jax.random.key(0), CALLS + 1)):
        began = perf_counter()
        batch([key])
        times.append(perf_counter() - began)
    return float(np.median(times[1:]))


def candidates_of(rival: Rival, setting: Setting, taken: float, budget: float) -> int:
    """Candidates within a budget, times the variant's factor; 0 where one plan takes more. taken: seconds a plan."""
    most = floor(budget / taken)
    return most and max(1, round(most * rival.variants[setting.variant].get("candidates", 1.0)))
