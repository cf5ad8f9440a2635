"""Why does the exact tilt deliver less gold than other ways of planning at equal proxy?

The world is that of the study of pressure: an open field of 81 cells, 20 steps, the exact walk as prior, a random gold
reward of cells, and a reward model fitted to N labelled paths. At equal proxy two ways of planning differ in gold by
nothing but the reward model's error on the difference of their visits, (172) of `model`. Two conditions make that error
favour one of them: the model's penalty is not that of the posterior mean, and the labels know some cells worse than
others. The study takes away each in turn, for ways of planning that are exact (`plans`), and the first for methods.

Gold and proxy are in units of the standard deviation of a plan's gold under the prior, over golds.
"""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffplan.methods.base import Method
from diffplan.metrics.table import Table, matching
from diffplan.oracle.tabular import Chain
from diffplan.studies import grids
from diffplan.studies.findings import Finding, above, below
from diffplan.studies.frame import Study, StudySettings
from diffplan.studies.matched_proxy import model, plans
from diffplan.studies.matched_proxy.model import Labels, PerCell
from diffplan.studies.pressure import study as pressure
from diffplan.types import PRNGKey
from diffplan.validation import known

LABELS = (30, 100, 300, 1000, 3000)
FEW = 300
"""Labels of the reward models that are looked at more closely."""
WEAK = 1 / 4000
"""The penalty of the study of pressure, 0.01, in units of the posterior mean's."""
PENALTIES = (0.01, 0.1, 0.3, 3.0, 10.0)
GRID = np.geomspace(WEAK, 100.0, 25)
"""Penalties among which held-out labels choose."""
PART = 0.75
"""Ways of planning are compared at this part of the largest gain in proxy that both reach."""
MEMBERS = 8
"""Of the ensemble."""
WEIGHTS = np.geomspace(1e-2, 1e2, 40)
"""Of the tilt and its stand-ins, for a proxy of one standard deviation under the prior."""

STAND_INS = ("short sight", "prior's values", "lazy walk", "restless walk", "prior and optimum")
REAL = ("guided, regression", "cross-entropy method", "MPPI", "tree search", "quantiliser", "TDS")
"""Methods ahead of the tilt in the study of pressure, at 300 labels."""
CONTROL = "guided, exact energy"
"""A sampler of the tilt itself."""

COLUMNS = (
    *("seed", "labels", "reward_model", "penalty", "method", "proxy", "gold", "expected", "uncertain"),
    *("tilt_gold", "tilt_expected", "tilt_uncertain"),
)


class World(NamedTuple):
    """What all seeds share. std: of a plan's gold under the prior, over golds."""

    walks: plans.Walks
    everywhere: Chain
    """The prior's walk from a cell drawn uniformly, for labels that cover the field."""
    prior: PerCell
    covariance: Float[np.ndarray, "k k"]
    std: float


class Model(NamedTuple):
    """A reward model, the posterior mean of the gold given its labels, and the cells that they leave uncertain."""

    name: str
    penalty: float
    weights: PerCell
    mean: PerCell
    uncertain: Bool[np.ndarray, "k"]


def visit_covariance(chain: Chain) -> Float[np.ndarray, "k k"]:
    """Cov of the visits of cells under a chain, exactly, from the two-step marginals."""
    occupancy, kernels = np.asarray(chain.occupancy(), float), np.exp(np.asarray(chain.log_kernels, float))
    second = np.zeros(kernels.shape[1:])
    for t in range(chain.horizon):
        joint = np.diag(occupancy[t])
        second += joint
        for kernel in kernels[t:]:
            joint = joint @ kernel
            second += joint + joint.T
    return second - np.outer(occupancy.sum(axis=0), occupancy.sum(axis=0))


def world() -> World:
    """The field of the study of pressure."""
    anywhere = lambda *p: known.walk(pressure.FIELD, pressure.HORIZON, *p)
    middle = jnp.asarray(pressure.SIDE**2 // 2)
    lazy, restless = ((stay, *[(1 - stay) / 4] * 4) for stay in (0.6, 0.05))
    walks = plans.Walks(*(known.from_cell(anywhere(*p), middle) for p in ((), (lazy,), (restless,))))
    covariance = visit_covariance(walks.prior)
    prior = np.asarray(plans.visits(walks.prior), float)
    return World(walks, anywhere(), prior, covariance, float(np.sqrt(np.trace(covariance))))


def models(rng: np.random.Generator, middle: Labels, everywhere: Labels) -> Iterator[Model]:
    """The reward models of so many labels: from plans of the prior, and from paths that begin everywhere."""
    names = {"weak penalty": (middle, WEAK), "posterior mean": (middle, 1.0)}
    names |= {"held out": (middle, model.held_out(middle, GRID)), "weak, labels everywhere": (everywhere, WEAK)}
    few = len(middle.returns) == FEW
    names |= {f"penalty {c:g}": (middle, c) for c in PENALTIES if few}
    for name, (labels, penalty) in names.items():
        doubt = model.uncertain(labels)
        yield Model(name, penalty, model.ridge(labels, penalty), model.ridge(labels, 1.0), doubt)
    if few:
        weak, mean, doubt = model.ridge(middle, WEAK), model.ridge(middle, 1.0), model.uncertain(middle)
        yield Model("weak, uncertain cells mended", WEAK, np.where(doubt, mean, weak), mean, doubt)
        yield Model("weak, other cells mended", WEAK, np.where(doubt, weak, mean), mean, doubt)
        yield Model("weak, ensemble", WEAK, model.ensemble(rng, middle, WEAK, MEMBERS), mean, doubt)


def compare(
    fitted: Model,
    gold: PerCell,
    std: float,
    tilt: Float[np.ndarray, "s k"],
    curve: Float[np.ndarray, "r k"],
    part: float,
) -> dict[str, float]:
    """A way of planning beside the tilt at this part of the largest gain in proxy that both reach.

    Both curves begin at the prior. Numbers are rounded to 1e-4 standard deviations.
    """
    reach = lambda visits: (visits - tilt[0]) @ fitted.weights
    curve = curve[reach(curve) <= reach(tilt).max() * (1 + 1e-6)]
    gain = part * reach(curve).max()
    result = {"proxy": gain / std}
    for name, along in (("", curve), ("tilt_", tilt)):
        visits = plans.matched(along, fitted.weights, gain)
        result[f"{name}gold"] = (visits - tilt[0]) @ gold / std
        result[f"{name}expected"] = (visits - tilt[0]) @ fitted.mean / std
        result[f"{name}uncertain"] = visits[fitted.uncertain].sum() / visits.sum()
    return {name: round(float(value), 4) for name, value in result.items()}


def executed(
    method: Method, walk: Chain, data: Float[Array, "m h k"], key: PRNGKey, case: pressure.Case, count: int
) -> Array:
    """Mean visits of cells of a method's executed plans, strength by strength: ``[s, k]``."""
    problem = pressure.problem_of(walk, case, data)
    cells = problem.codec
    start = cells.places[pressure.SIDE**2 // 2]  # pyright: ignore[reportAttributeAccessIssue]
    starts = jnp.broadcast_to(start[None], (count, 2))
    drawn = method(key, problem, starts, jnp.asarray(method.strengths, jnp.float32)).x
    paths = jax.vmap(jax.vmap(lambda x: grids.rollout(cells, x)))(drawn)  # pyright: ignore
    return jax.vmap(lambda batch: grids.visits(batch, pressure.SIDE**2).mean(axis=0))(paths)


def chosen(walk: Chain, config: StudySettings) -> list[Method]:
    """The methods of the study of pressure that are run here.

    Raises:
        ModuleNotFoundError: if mctx, which searches trees, is not installed.
    """
    if find_spec("mctx") is None:
        raise ModuleNotFoundError("study matched_proxy: tree search needs mctx: pip install -e '.[search]'")
    every = (*pressure.quick(walk, config), *pressure.slow(walk, config))
    return [method for method, _ in every if method.name in (CONTROL, *REAL)]


def run(config: StudySettings) -> Iterator[dict[str, Any]]:
    """Rows of every seed: exact ways of planning on every reward model; for the first seeds, methods on two of them."""
    here, cells = world(), pressure.SIDE**2
    draw = jax.jit(lambda key, chain: grids.visits(jax.vmap(chain.draw)(jax.random.split(key, max(LABELS))), cells))
    curves = jax.jit(partial(plans.curves, here.walks))
    paths = jax.vmap(here.walks.prior.draw)(jax.random.split(jax.random.key(config.seed), 256))
    act = partial(executed, walk=here.walks.prior, data=jax.nn.one_hot(paths, cells), count=config.scaled(32, 4))
    methods = [(method.name, jax.jit(partial(act, method))) for method in chosen(here.walks.prior, config)]
    for seed in range(config.references):
        number = 1000 * (config.seed + 1) + seed
        rng, key = np.random.default_rng(number), jax.random.key(number)
        gold, keys = rng.normal(size=cells), jax.random.split(key)
        visits = [np.asarray(draw(*one), float) for one in zip(keys, (here.walks.prior, here.everywhere), strict=True)]
        middle, everywhere = (model.label(rng, one, gold, (pressure.NOISE * here.std) ** 2) for one in visits)
        for labels in LABELS:
            real = methods if labels == FEW and seed < config.seeds else []
            for fitted in models(rng, middle.first(labels), everywhere.first(labels)):
                about = {"seed": seed, "labels": labels, "reward_model": fitted.name, "penalty": fitted.penalty}
                unit = float(np.sqrt(fitted.weights @ here.covariance @ fitted.weights))
                result = curves(reward=single(fitted.weights / unit), weights=single(WEIGHTS))
                exact = {name: np.asarray(curve, float) for name, curve in result.items()}
                measure = partial(compare, fitted, gold, here.std, exact["exact tilt"])
                for name in STAND_INS:
                    yield about | {"method": name} | measure(exact[name], PART)
                for name, call in real if fitted.name in ("weak penalty", "posterior mean") else ():
                    batches = np.asarray(call(key=key, case=case_of(here, fitted, gold, unit)), float)
                    yield about | {"method": name} | measure(np.concatenate([here.prior[None], batches]), 1.0)


def single(value: Any) -> Array:
    """In single precision."""
    return jnp.asarray(value, jnp.float32)


def case_of(here: World, fitted: Model, gold: PerCell, unit: float) -> pressure.Case:
    """The reward model as a case of the study of pressure. unit: standard deviation of its proxy under the prior."""
    weights = fitted.weights / unit
    proxy = grids.per_step(single(weights), pressure.HORIZON)
    return pressure.Case(single(gold), single(here.prior @ gold), single(here.std), proxy, single(here.prior @ weights))


def lead(table: Table, method: str, reward_model: str, **where: Any) -> Float[np.ndarray, "seeds"]:
    """Gold of a way of planning less the tilt's at equal proxy, averaged within each seed."""
    return by_seed(table, table["gold"] - table["tilt_gold"], method=method, reward_model=reward_model, **where)


def by_seed(table: Table, values: Float[np.ndarray, "rows"], **where: Any) -> Float[np.ndarray, "seeds"]:
    """The mean of the values in the rows that match, for each seed that has such rows."""
    rows = matching(table, **where)
    return np.array([values[rows & (table["seed"] == seed)].mean() for seed in np.unique(table["seed"][rows])])


def verdict(table: Table) -> list[Finding]:
    """The findings, one number a seed each."""
    sight = lambda reward_model, **where: lead(table, "short sight", reward_model, **where)
    weak = sight("weak penalty", labels=FEW)
    foretold = by_seed(
        table, table["expected"] - table["tilt_expected"], method="short sight", reward_model="weak penalty", labels=FEW
    )
    real = lambda reward_model: np.mean([lead(table, name, reward_model) for name in REAL], axis=0)
    gold = lambda name: by_seed(table, table["tilt_gold"], method="short sight", reward_model=name, labels=FEW)
    promise = by_seed(table, table["proxy"] - table["tilt_gold"], method="short sight", reward_model="posterior mean")
    restless = lead(table, "restless walk", "weak penalty", labels=FEW)
    pulled = lambda reward_model: weak - sight(reward_model, labels=FEW)
    richer = gold("posterior mean") - gold("weak penalty")
    short, posterior = "short sight's lead", sight("posterior mean")
    return [
        above(f"300 labels, weak penalty: {short}", weak, 0.25),
        above(f"1k labels, weak penalty: {short}", sight("weak penalty", labels=1000), 0.1),
        below("300 labels, weak penalty: the restless walk's lead", restless, 0.0),
        above(f"300 labels, weak penalty: {short} less the expected one, from below", weak - foretold, -0.2),
        below(f"300 labels, weak penalty: {short} less the expected one, from above", weak - foretold, 0.2),
        above(f"posterior mean, all labels: {short}, from below", posterior, -0.1),
        below(f"posterior mean, all labels: {short}, from above", posterior, 0.1),
        below("posterior mean, all labels: proxy of the tilt less its gold", promise, 0.2),
        above("300 labels: gold of the tilt, posterior mean less weak penalty", richer, 1.0),
        below(f"300 labels, penalty by held-out labels: {short}", sight("held out", labels=FEW), 0.2),
        above(f"300 labels: fall of {short} with labels from everywhere", pulled("weak, labels everywhere"), 0.5),
        above(f"300 labels: fall of {short} with uncertain cells mended", pulled("weak, uncertain cells mended"), 0.5),
        below(f"300 labels: fall of {short} with other cells mended", pulled("weak, other cells mended"), 0.5),
        below(f"300 labels: fall of {short} with an ensemble", pulled("weak, ensemble"), 0.5),
        above("300 labels, weak penalty: lead of six methods", real("weak penalty"), 0.25),
        below("300 labels, posterior mean: lead of six methods", real("posterior mean"), 0.25),
        above("300 labels: fall of six methods' lead", real("weak penalty") - real("posterior mean"), 0.25),
    ]


STUDY = Study(
    name="matched_proxy",
    claim="At equal proxy the exact tilt delivers less gold than planners that reach less far, because the reward "
    "model is penalised too little and its labels know some cells worse than others. With the posterior mean's "
    "penalty, noise variance over prior variance, or one that held-out labels choose, none leads another.",
    expected="With the weak penalty short sight leads by one standard deviation at 300 labels, less at fewer and at "
    "more; a restless walk trails. The lead goes with the right penalty at every number of labels, with labels from "
    "everywhere, and when the uncertain cells alone are mended; an ensemble of weak models keeps it. Six methods lead "
    "under the weak penalty alone.",
    falsified_by="A lead beyond 0.1 either way under the posterior mean, or of 0.2 under the penalty that held-out "
    "labels choose; a lead that labels from everywhere or mended uncertain cells leave; the restless walk in the lead; "
    "six methods that keep 0.25 under the posterior mean.",
    minutes=10,
    columns=COLUMNS,
    run=run,
    verdict=verdict,
)
