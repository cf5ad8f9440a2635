"""Running methods: same problem, same starts, same noise keys; strengths on a log grid, refined around gold's peak.

A method is one compiled call a seed. What a call evaluates is counted from its program (`diffplan.count`), what it
takes is timed, without compilation. The rows of a method are kept as soon as it is done, so that a run that is stopped
goes on with the next method. Where strengths are read from one run of the largest, the grid is fine from the start and
each strength's cost is that of its run alone; other methods get a coarse grid, and then strengths on both sides of the
best.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.count import WHATS, count
from diffplan.guide import Proxy
from diffplan.methods import Method, Problem
from diffplan.metrics import table
from diffplan.runs import Progress, Run, keep
from diffplan.runs.program import program
from diffplan.types import PRNGKey

DRAWN = 12
"""Plans a strength that are kept for pictures, of the first seed."""

Rows = list[dict[str, Any]]


class Bench(NamedTuple):
    """What methods are compared on: a problem, its starts, and what is measured of plans.

    starts: ``(key, n) -> [n, o]``. measure: ``(key, proxy, x[n, h, d]) -> numbers`` by column, compiled once for all.
    positions: ``x[..., h, d] -> [..., h, 2]``, for pictures. identity: a digest of all that this is made from.
    """

    problem: Problem
    starts: Callable[[PRNGKey, int], Float[Array, "n o"]]
    measure: Callable[[PRNGKey, Proxy, Float[Array, "n h d"]], dict[str, Array]]
    positions: Callable[[Float[Array, "*b h d"]], Float[Array, "*b h 2"]]
    identity: str


class Plan(NamedTuple):
    """How much is run: seeds, each with its own starts and noise; plans a batch; strengths added around the best."""

    seeds: int
    plans: int
    refine: int
    seed: int


def costs(
    method: Method, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
) -> dict[str, Float[np.ndarray, "s"]]:
    """Evaluations of each kind for one plan of each strength, had that strength been run alone.

    If the weakest and the largest cost the same, so do those between: one program serves them all.
    """

    def alone(strength: float) -> dict[str, float]:
        one = replace(method, strengths=(strength,))  # pyright: ignore[reportArgumentType]
        return count(one.__call__, key, problem, starts, strengths[:1])

    ends = alone(method.strengths[0]), alone(method.strengths[-1])
    result = [ends[0]] * len(strengths) if ends[0] == ends[1] else [alone(strength) for strength in method.strengths]
    return {what: np.array([one[what] for one in result]) / len(starts) for what in WHATS}


def run_method(method: Method, plan: Plan, bench: Bench) -> Iterator[tuple[Rows, Array]]:
    """Run a method for every seed; yields (rows, plans ``[s, n, h, d]``) a seed. Compilation is not timed."""
    strengths = jnp.asarray(method.strengths, jnp.float32)
    root = jax.random.key(plan.seed)
    call, cost = None, {}
    for seed in range(plan.seeds):
        key_starts, key_method, key_measure = jax.random.split(jax.random.fold_in(root, seed), 3)
        arguments = (key_method, bench.problem, bench.starts(key_starts, plan.plans), strengths)
        cost = cost or costs(method, *arguments)
        leaves, tree = jax.tree.flatten(arguments)
        call = (
            call
            or jax.jit(lambda *leaves, tree=tree: method(*jax.tree.unflatten(tree, leaves))).lower(*leaves).compile()
        )
        began = perf_counter()
        plans = jax.block_until_ready(call(*leaves))
        seconds = perf_counter() - began
        work = np.sum(list(cost.values()), axis=0)
        paid = work.max() if method.shared else work.sum()  # what this call really did
        known = {
            "strength": strengths,
            "path_kl": plans.path_kl.mean(axis=1),
            "exact_kl": plans.exact_kl,
            "ess": plans.ess,
            "seconds": seconds / plan.plans * work / max(paid, 1e-9),
            **cost,
        }
        rows = []
        for i, x in enumerate(plans.x):
            values = bench.measure(key_measure, method.proxy(bench.problem), x)
            values |= {name: value[i] for name, value in known.items()}
            about = {"method": method.name, "seed": seed, "plans": len(x)}
            rows.append({name: float(value) for name, value in values.items()} | about)
        yield rows, plans.x


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


def method_rows(method: Method, plan: Plan, bench: Bench, name: str) -> tuple[Rows, dict[str, np.ndarray]]:
    """All rows of a method, strengths ascending, and the positions of some of its plans: grid, then refinement."""
    rows: Rows = []
    draws: dict[float, np.ndarray] = {}
    refined = plan.refine > 0 and not method.shared and len(method.strengths) > 1
    with Progress(name, total=plan.seeds * (1 + refined), unit="seeds") as progress:
        for again in range(1 + refined):
            extra = between(method.strengths, table.best_strength(rows), plan.refine) if again else method.strengths
            if not extra:
                break
            part = replace(method, strengths=extra)  # pyright: ignore[reportArgumentType]
            for seed, (batch, x) in enumerate(run_method(part, plan, bench)):
                if seed == 0:
                    draws |= dict(zip(map(float, extra), np.asarray(bench.positions(x[:, :DRAWN])), strict=True))
                rows += batch
                progress.advance(1, gold=max(row["promised"] for row in batch))
    strengths = sorted(draws)
    rows.sort(key=lambda row: (row["seed"], row["strength"]))
    return rows, {"strengths": np.array(strengths), "positions": np.stack([draws[s] for s in strengths])}


def program_of(method: Method, plan: Plan, bench: Bench) -> str:
    """A digest of what the rows of a method are computed by: its own program, and the measures'."""
    key = jax.random.key(0)
    starts, strengths = bench.starts(key, plan.plans), jnp.asarray(method.strengths, jnp.float32)
    plans = program(lambda key, problem: method(key, problem, starts, strengths), key, bench.problem)
    x = jnp.zeros((plan.plans, *bench.problem.shape))
    measures = program(lambda proxy, x: bench.measure(key, proxy, x), method.proxy(bench.problem), x)
    return f"{plans}-{measures}"


def method_stage(
    method: Method, plan: Plan, bench: Bench, run: Run, inputs: dict[str, str], sampler: Any
) -> list[dict[str, str]]:
    """A method's stage, ``RUN/methods/NAME``: its rows as read from ``rows.csv``, and ``plans.npz``.

    The rows are made anew where the method's program has changed, though all settings are the same.
    """

    def make(directory: Path) -> None:
        rows, pictures = method_rows(method, plan, bench, str(run.directory / "methods" / method.name))
        np.savez(directory / "plans.npz", allow_pickle=False, **pictures)
        table.write(directory / "rows.csv", rows)

    settings = {"strengths": list(method.strengths), "plan": plan._asdict(), "sampler": sampler}
    files, code = ("rows.csv", "plans.npz"), program_of(method, plan, bench)
    kept = keep(run, f"methods/{method.name}", make, settings, {"models": bench.identity, **inputs}, files, code)
    return table.read_rows(kept.directory / "rows.csv")
