"""Running methods: same problem, same starts, same noise keys; strengths on a log grid, refined around gold's peak.

A method is one compiled call a seed. What a call evaluates is counted from its program (`diffplan.count`), what it
takes is timed, without compilation. The rows of a method are kept as soon as it is done, so that a run that is stopped
goes on with the next method. Where strengths are read from one run of the largest, the grid is fine from the start and
each strength's cost is that of its run alone; other methods get a coarse grid, and then strengths on both sides of the
best.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import runtime
from diffplan.count import WHATS, count
from diffplan.guide import Proxy
from diffplan.methods import Method, Problem
from diffplan.types import PRNGKey

COLUMNS = (
    *("method", "strength", "seed", "plans", "proxy", "promised", "open_loop", "tracked"),
    *("path_kl", "marginal_kl", "exact_kl", "ess"),
    *("violations.walls", "longest_step", "residual", "data_distance", "diversity", "finite"),
    *("network_evals", "proxy_evals", "env_steps", "seconds"),
)

VALID = 0.02
"""The largest share of plans through walls at which a strength can be a method's best."""

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


def best_strength(rows: Rows) -> float:
    """The strength with the highest gold of the plan among those with few plans through walls; among all if none is."""
    strengths = np.unique([row["strength"] for row in rows])
    mean = lambda name, s: np.mean([row.get(name, np.nan) for row in rows if row["strength"] == s])
    gold = np.array([mean("promised", s) for s in strengths])
    valid = np.where([mean("violations.walls", s) <= VALID for s in strengths], gold, np.nan)
    judged = valid if np.isfinite(valid).any() else np.where(np.isfinite(gold), gold, -np.inf)
    return float(strengths[np.nanargmax(judged)])


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
    with runtime.Progress(name, total=plan.seeds * (1 + refined), unit="seeds") as progress:
        for again in range(1 + refined):
            extra = between(method.strengths, best_strength(rows), plan.refine) if again else method.strengths
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


def method_stage(method: Method, plan: Plan, bench: Bench, run: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """A method's stage, ``RUN/methods/NAME``: its rows as read from ``rows.csv``, and ``plans.npz``."""
    setting = {"method": repr_of(method), "models": bench.identity, **plan._asdict(), **about}
    stage = runtime.Stage(run / "methods" / method.name, setting)
    if not stage.ready():
        rows, pictures = method_rows(method, plan, bench, f"{run}/methods/{method.name}")
        np.savez(stage.directory / "plans.npz", **pictures)  # pyright: ignore[reportArgumentType]
        write_csv(stage.directory / "rows.csv", rows)
        stage.finish("rows.csv", "plans.npz")
    with (stage.directory / "rows.csv").open() as file:
        return list(csv.DictReader(file))


def repr_of(method: Method) -> str:
    """A method's settings in words, the same in every process (functions by name, not by address)."""
    fields = {name: getattr(value, "__name__", value) for name, value in vars(method).items()}
    return f"{type(method).__name__}({', '.join(f'{name}={value}' for name, value in fields.items())})"


def write_csv(path: Path, rows: Rows, columns: tuple[str, ...] = COLUMNS) -> None:
    """Rows with the columns of the design; what is missing or NaN is an empty cell."""
    show = lambda value: (
        "" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else value
    )
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([[show(row.get(name, "")) for name in columns] for row in rows])
    part.replace(path)
