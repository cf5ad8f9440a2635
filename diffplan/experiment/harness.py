"""Running methods: same problem, same starts, same noise keys; strengths on a log grid, refined around the best.

A method has few compiled programs, which all seeds share (`programs`). What a call evaluates is counted from its
program (`diffplan.count`), what it takes is timed, without compilation. The rows of a method are kept as soon as it is
done, so that a run that is stopped goes on with the next method. Where strengths are read from one run of the largest,
the grid is fine from the start and each strength's cost is that of its run alone; other methods get a coarse grid, and
then strengths on both sides of the best. At the best strength plans are made anew on the way as well.

Plans from the sampler are drawn once more, with shorter steps and the same noise (143): where returns or the fraction
of feasible plans change by much (144), they are what the sampler's steps made, and not what guidance asks for.

A method that learns before it plans is timed and counted in two parts. ``seconds`` and the evaluations are those of its
plans; ``pretrain_seconds`` and ``pretrain_evals`` are those of what it learns, for each seed anew. It learns once more,
with more updates, and draws plans by what it learned then, with the same noise:

    theta(U), U updates    ->    theta(2^n U),    n = `Plan.finer`                                           (164)

It has converged where the plans of theta(2^n U) differ little from those of theta(U), by the same rule (144).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.experiment.programs import Programs
from diffplan.experiment.settings import ExperimentSettings
from diffplan.guide import Proxy
from diffplan.methods import Entry, Method, Problem
from diffplan.methods.base import LearningMethod
from diffplan.metrics import table
from diffplan.runs import Progress, Run, keep
from diffplan.runs.files import digest
from diffplan.types import PRNGKey

DRAWN = 12
"""Plans a strength that are kept for pictures, of the first seed."""

Rows = list[dict[str, Any]]
Result = TypeVar("Result")


class Begin(NamedTuple):
    """Where plans begin. states: of the simulator, None where there is none. windows: first rows of held-out windows
    of behaviour that begin there, or as behaviour begins.
    """

    states: Any
    observations: Float[Array, "n o"]
    windows: Array


Measure = Callable[[PRNGKey, Proxy | None, Begin, Float[Array, "n h d"]], dict[str, Any]]
"""``measure(key, proxy, begin, x) -> numbers`` by column: means over plans, also of carrying them out."""

Draw = Callable[[PRNGKey, Float[Array, "n o"]], Float[Array, "n h d"]]
"""``draw(key, observations) -> plans``."""


class Bench(NamedTuple):
    """What methods are compared on: a problem, its starts, and what is measured of plans.

    task: its name. starts: ``(key, n) -> Begin``. measure: compiled once for all. program: ``program(proxy)``, a
    digest of what is measured.
    replanned: ``(key, draw, begin, column) -> return``, of plans that are made anew on the way; None where nothing is
    carried out. pictures: plans ``[n, h, d]`` by field, for pictures. identity: a digest of all that this is made from.
    behaviour: the fraction of behaviour's windows that are feasible.
    """

    task: str
    problem: Problem
    starts: Callable[[PRNGKey, int], Begin]
    measure: Measure
    program: Callable[[Proxy | None], str]
    replanned: Callable[[PRNGKey, Draw, Begin, str], float] | None
    pictures: Callable[[Float[Array, "n h d"]], dict[str, Array]]
    identity: str
    behaviour: float = 1.0


class Plan(NamedTuple):
    """How much is run: seeds, each with its own starts and noise; plans a batch; strengths added around the best.

    replans: times that a plan is made on the way (`Bench.replanned` knows it; here it is recorded). everywhere: whether
    plans are made anew at every strength, not at the best alone. finer: how often the steps of the sampler are halved
    for plans that are drawn again, or updates doubled of what is learned again (164); 0: nothing is.
    """

    seeds: int
    plans: int
    refine: int
    seed: int
    replans: int = 1
    everywhere: bool = False
    finer: int = 0


def keys_of(plan: Plan, seed: int) -> tuple[PRNGKey, PRNGKey, PRNGKey]:
    """The keys of a seed: of the starts, of the method, of what is measured."""
    return tuple(jax.random.split(jax.random.fold_in(jax.random.key(plan.seed), seed), 3))


def data_key(settings: ExperimentSettings, number: int) -> PRNGKey:
    """A key for draws of reference data, which no seed of the comparison has."""
    return jax.random.fold_in(jax.random.key(settings.seed), settings.seeds + number)


PARTS = {field.name for field in fields(Problem) if field.default is None} - {"data"}
"""The parts of a problem that only some methods use."""


def problem_for(entry: Entry, problem: Problem) -> Problem:
    """The problem with those optional parts alone that a method needs: its program is the same among any others."""
    return replace(problem, **dict.fromkeys(PARTS - {*entry.needs}))


def proxy_of(method: Method, problem: Problem) -> Proxy | None:
    """The learned reward that a method pushes; None where nothing was learned."""
    return None if problem.regression is None and method.name == "prior" else method.proxy(problem)


def run_method(entry: Entry, plan: Plan, bench: Bench, programs: Programs) -> Iterator[tuple[Rows, Array]]:
    """Run a method for every seed; yields (rows, plans ``[s, n, h, d]``) a seed. Compilation is not timed."""
    method, strengths = entry.method, entry.method.strengths
    cost, groups = programs.costs(strengths), programs.groups(strengths)
    work = np.sum(list(cost.values()), axis=0)
    for group in groups:
        programs.ready(group)
    for seed in range(plan.seeds):
        key_starts, key_method, key_measure = keys_of(plan, seed)
        begin = bench.starts(key_starts, plan.plans)
        training, learned = train(key_method, programs, strengths)
        draw = partial(programs.run, programs.keys(key_method)[1], begin.observations)
        parts, times = timed(partial(draw, group, of) for group, of in zip(groups, learned, strict=True))
        plans = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        seconds = shared_out(times, work, method.shared and not programs.learns)
        path_kl, exact_kl = np.asarray(plans.path_kl.mean(axis=1)), np.asarray(plans.exact_kl)
        known = {
            "strength": np.asarray(strengths, np.float32),
            "path_kl": path_kl,
            "exact_kl": exact_kl,
            "ess": plans.ess,
            "pressure": np.where(np.isfinite(exact_kl), exact_kl, path_kl),
            "seconds": seconds / plan.plans,
            **cost,
            **training,
        }
        rows = []
        for i, x in enumerate(plans.x):
            values = measured(entry, bench, key_measure, begin, x) | {name: value[i] for name, value in known.items()}
            about = {"task": bench.task, "method": method.name, "seed": seed, "plans": len(x)}
            levels = {"levels": bench.problem.sampler.levels} if entry.acts_on == "plans" else {}
            rows.append({name: float(value) for name, value in values.items()} | about | levels)
        yield rows, plans.x


def train(key: PRNGKey, programs: Programs, strengths: tuple[float, ...]) -> tuple[dict[str, np.ndarray], list[Any]]:
    """What a method learns at some strengths, group by group, and the columns of its training by strength.

    None in each group, and no columns, where it learns nothing. key: the method's.
    """
    groups = programs.groups(strengths)
    learned, times = timed(partial(programs.fit, programs.keys(key)[0], group) for group in groups)
    if not programs.learns:
        return {}, learned
    work = np.sum(list(programs.costs(strengths, "fit").values()), axis=0)
    seconds = shared_out(times, work, programs.method.shared)
    return {"pretrain_seconds": seconds, "pretrain_evals": work}, learned


def timed(calls: Iterable[Callable[[], Result]]) -> tuple[list[Result], list[float]]:
    """What each call returns, and the seconds until it is there."""
    results, times = [], []
    for call in calls:
        began = perf_counter()
        results.append(jax.block_until_ready(call()))
        times.append(perf_counter() - began)
    return results, times


def shared_out(times: list[float], work: Float[np.ndarray, "s"], shared: bool) -> Float[np.ndarray, "s"]:
    """Seconds of each strength: its own, or by its evaluations where one call served all.

    work: evaluations of each strength, had it been run alone. shared: whether the call did the largest alone.
    """
    if len(times) > 1:
        return np.array(times)
    return times[0] * work / max(work.max() if shared else work.sum(), 1e-9)


def measured(entry: Entry, bench: Bench, key: PRNGKey, begin: Begin, x: Float[Array, "n h d"]) -> dict[str, Any]:
    """What is measured of a batch of a method's plans; `delivered` is the column in which the method delivers."""
    values = bench.measure(key, proxy_of(entry.method, bench.problem), begin, x)
    return values | {"delivered": values.get(DELIVERED.get(entry.delivered_by, entry.delivered_by), np.nan)}


DELIVERED = {"itself": "promised"}
"""What plans deliver that are runs already: what they promise."""


def between(strengths: tuple[float, ...], best: float, count: int) -> tuple[float, ...]:
    """`count` new strengths on each side of the best, evenly spaced in the logarithm up to its neighbours.

    Below the smallest strength above 0 the neighbour is a tenth of it; beyond the largest there is nothing. Between
    whole numbers, as of iterations, there are only whole ones.
    """
    grid = np.array(sorted(strengths))
    at = int(np.abs(grid - best).argmin())
    middle = grid[at] if grid[at] > 0 else grid[min(at + 1, len(grid) - 1)] / 10
    below = grid[at - 1] if at > 0 and grid[at - 1] > 0 else middle / 10
    sides = [(below, middle)] if grid[at] > 0 else []
    sides += [(middle, grid[at + 1])] if at + 1 < len(grid) else []
    inside = lambda low, high: np.geomspace(low, high, count + 2)[1:-1]
    whole = all(isinstance(strength, int) for strength in strengths)
    shown = (lambda value: max(1, round(value))) if whole else (lambda value: float(f"{value:.2g}"))
    new = {shown(value) for low, high in sides for value in inside(low, high)}
    return tuple(sorted(new - set(grid.tolist())))


def method_rows(
    entry: Entry, plan: Plan, bench: Bench, programs: Programs, name: str
) -> tuple[Rows, dict[str, np.ndarray]]:
    """All rows of a method, strengths ascending, and pictures of some of its plans: grid, refinement, replanning."""
    rows: Rows = []
    method = entry.method
    draws: dict[float, dict[str, np.ndarray]] = {}
    refined = plan.refine > 0 and not method.shared and len(method.strengths) > 1
    with Progress(name, total=plan.seeds * (1 + refined), unit="seeds") as progress:
        for again in range(1 + refined):
            extra = method.strengths
            if again:
                extra = between(method.strengths, table.best_strength(rows, bench.behaviour), plan.refine)
            if not extra:
                break
            part = entry._replace(method=replace(method, strengths=extra))  # pyright: ignore[reportArgumentType]
            for seed, (batch, x) in enumerate(run_method(part, plan, bench, programs)):
                if seed == 0:
                    for strength, plans in zip(map(float, extra), x, strict=True):
                        pictures = bench.pictures(plans[:DRAWN])
                        draws[strength] = {field: np.asarray(value) for field, value in pictures.items()}
                rows += batch
                best = table.headline(lambda name, rows=batch: np.array([row.get(name, np.nan) for row in rows]))
                progress.advance(1, **{best: max(row.get(best, np.nan) for row in batch)})
        if entry.replans and bench.replanned is not None:
            replan(entry, plan, bench, rows, programs)
        if plan.finer and (entry.sampled or programs.learns):
            draw_finer(entry, plan, bench, rows)
    rows.sort(key=lambda row: (row["seed"], row["strength"]))
    strengths = sorted(draws)
    fields = {field: np.stack([draws[s][field] for s in strengths]) for field in draws[strengths[0]]}
    return rows, {"strengths": np.array(strengths)} | fields


def programs_of(entry: Entry, plan: Plan, bench: Bench) -> Programs:
    """The programs of a method for the batches of a seed."""
    starts = bench.starts(jax.random.key(0), plan.plans).observations
    return Programs(entry.method, problem_for(entry, bench.problem), starts)


def replan(entry: Entry, plan: Plan, bench: Bench, rows: Rows, programs: Programs) -> None:
    """Fill in `replanned` in the rows of the best strength, or of all."""
    assert bench.replanned is not None
    best = table.best_strength(rows, bench.behaviour)
    for row in rows:
        if plan.everywhere or row["strength"] == best:
            at = (row["strength"],)
            key_starts, key_method, _ = keys_of(plan, row["seed"])
            learned = programs.fit(programs.keys(key_method)[0], at)
            draw = lambda key, observations, at=at, learned=learned: programs.run(key, observations, at, learned).x[0]
            begin = bench.starts(key_starts, plan.plans)
            row["replanned"] = bench.replanned(jax.random.fold_in(key_method, 1), draw, begin, entry.delivered_by)


def draw_finer(entry: Entry, plan: Plan, bench: Bench, rows: Rows) -> None:
    """Fill in ``finer_*`` and ``converged`` (144): what shorter steps or more updates (164) change."""
    at = {(row["seed"], row["strength"]): row for row in rows}
    strengths = tuple(sorted({strength for _, strength in at}))
    part = entry._replace(method=replace(entry.method, strengths=strengths))  # pyright: ignore[reportArgumentType]
    part, finer, compared = finer_of(part, plan, bench)
    for batch, _ in run_method(part, plan, finer, programs_of(part, plan, finer)):
        for new in batch:
            row = at[new["seed"], new["strength"]]
            row |= {f"finer_{name}": float(new.get(name, np.nan)) for name in compared}
    for strength in strengths:
        same = [row for (_, each), row in at.items() if each == strength]
        answer = float(table.converged(same))
        for row in same:
            row["converged"] = answer


def finer_of(entry: Entry, plan: Plan, bench: Bench) -> tuple[Entry, Bench, tuple[str, ...]]:
    """The method with more updates (164), or else the problem with shorter steps, and the columns to compare."""
    if isinstance(entry.method, LearningMethod):
        return entry._replace(method=entry.method.longer(2**plan.finer)), bench, table.COMPARED
    sampler = bench.problem.sampler
    sampler = replace(sampler, halvings=sampler.halvings + plan.finer)
    return entry, bench._replace(problem=replace(bench.problem, sampler=sampler)), ("levels", *table.COMPARED)


def program_of(entry: Entry, bench: Bench, programs: Programs) -> str:
    """A digest of what the rows of a method are computed by: its own programs, and the measures'."""
    proxy = proxy_of(entry.method, bench.problem)
    scored_by = "" if entry.needs or proxy is None else digest(proxy)  # a method of no needs is scored all the same
    return f"{programs.identity}-{bench.program(proxy)}{scored_by}"


def method_stage(
    entry: Entry, plan: Plan, bench: Bench, run: Run, inputs: dict[str, str], sampler: Any
) -> list[dict[str, str]]:
    """A method's stage, ``RUN/methods/NAME``: its rows as read from ``rows.csv``, and ``plans.npz``.

    The rows are made anew where the method's program has changed, though all settings are the same.
    """
    method, programs = entry.method, programs_of(entry, plan, bench)

    def make(directory: Path) -> None:
        rows, pictures = method_rows(entry, plan, bench, programs, str(run.directory / "methods" / method.name))
        np.savez(directory / "plans.npz", allow_pickle=False, **pictures)
        table.write(directory / "rows.csv", rows)

    recorded = plan if entry.replans else plan._replace(replans=1)
    about = {name: value for name, value in recorded._asdict().items() if value is not False}
    about = {name: value for name, value in about.items() if value or name != "finer"}
    settings = {"strengths": list(method.strengths), "plan": about, "sampler": sampler}
    files, code = ("rows.csv", "plans.npz"), program_of(entry, bench, programs)
    kept = keep(run, f"methods/{method.name}", make, settings, {"models": bench.identity, **inputs}, files, code)
    return table.read_rows(kept.directory / "rows.csv")
