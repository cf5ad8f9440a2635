"""The comparison on a task: methods x strengths x seeds x plans, each batch of plans one row of ``results.csv``.

Every method gets the same prior, reward model, starts and noise keys (`harness`). Only what the chosen methods use is
trained.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.codec import Codec
from diffplan.experiment import build as building
from diffplan.experiment.build import Builder
from diffplan.experiment.harness import Bench, Plan, method_stage
from diffplan.experiment.settings import ExperimentSettings
from diffplan.guide import Proxy
from diffplan.methods import Entry, Problem, chosen
from diffplan.metrics import diversity, returns, table, validity
from diffplan.runs import Run
from diffplan.runs.files import plain, read_json, versions, write_json
from diffplan.runs.lock import locked
from diffplan.task import Task
from diffplan.types import PRNGKey

QUANTILES = (0.5, 0.9, 0.99, 1.0)
"""Of the data's true return and proxy, in config.json."""


def measured(
    key: PRNGKey, proxy: Proxy, task: Task, codec: Codec, windows: Float[Array, "m h d"], x: Float[Array, "n h d"]
) -> dict[str, Array]:
    """Every measure of one batch of plans, averaged over the finite ones; NaN where none is.

    The diversity is over all pairs of the batch, and NaN as soon as one plan is not finite.
    """

    def one(x: Float[Array, "h d"]) -> dict[str, Array]:
        finite = validity.is_finite(x)
        x = jnp.where(finite, x, 0.0)
        plan = codec.decode(x)
        values = {"proxy": proxy.score(x), "promised": returns.plan_return(task.reward, plan)}
        values |= {name: rollout(key, plan) for name, rollout in task.rollouts.items()}
        values |= {f"violations.{name}": violation(plan) for name, violation in task.violations.items()}
        values["longest_step"] = validity.longest_step(task.place(plan.observations))
        if task.residual is not None:
            values["residual"] = validity.dynamics_residual(task.residual, plan)
        values["data_distance"] = diversity.data_distance(x, windows)
        return {name: jnp.where(finite, value, jnp.nan) for name, value in values.items()} | {
            "finite": finite.astype(jnp.float32)
        }

    means = {name: jnp.nanmean(value) for name, value in jax.vmap(one)(x).items()}
    return means | {"diversity": diversity.pairwise_distance(x)}


def bench_of(build: Builder, problem: Problem, identity: str) -> Bench:
    """The task as the harness takes it."""
    task, codec = build.task, build.data.codec
    windows = build.data.train.draws(build.key(1), build.config.reference)
    compiled = jax.jit(lambda key, proxy, windows, x: measured(key, proxy, task, codec, windows, x))
    return Bench(
        problem,
        lambda key, count: building.starts_for(build, key, count),
        lambda key, proxy, x: compiled(key, proxy, windows, x),
        lambda x: task.place(codec.decode(x).observations),
        identity,
    )


def write_plans(build: Builder, entries: tuple[Entry, ...]) -> None:
    """``plans.npz``: the paths kept by every method, with the world they lie in."""
    task, run = build.task, build.run.directory
    arrays: dict[str, Any] = {
        "walls": np.zeros((0, 0), bool) if task.walls is None else task.walls,
        "region": np.asarray(task.target or (0.0, 0.0, 0.0), np.float32),
    }
    for entry in entries:
        with np.load(run / "methods" / entry.method.name / "plans.npz") as kept:
            arrays |= {f"{entry.method.name}.{name}": kept[name] for name in kept.files}
    arrays["starts"] = arrays["prior.positions"][0, :, 0]
    np.savez(run / "plans.npz", **arrays)


def write_config(build: Builder, problem: Problem, entries: tuple[Entry, ...]) -> None:
    """``data.npz``, and in ``config.json`` what tables and figures say of the run."""
    run, data = build.run.directory, building.reference(build, problem)
    np.savez(run / "data.npz", allow_pickle=False, **data)
    about = {
        "environment": build.task.name,
        "methods": {
            entry.method.name: {"strength_name": entry.method.strength_name, "family": entry.family}
            for entry in entries
        },
        "data_quantiles": {
            name: {f"{q:g}": float(jnp.quantile(data[name], q)) for q in QUANTILES} for name in ("gold", "proxy")
        },
        "versions": versions(),
    }
    before = read_json(run / "config.json")
    write_json(run / "config.json", (before if isinstance(before, dict) else {}) | about)


def compare(run: Run, task: Task, config: ExperimentSettings) -> Path:
    """The whole comparison; returns the path of ``results.csv``.

    Raises:
        RunError: if the run is in use, or holds what other settings made (`diffplan.runs`).
        ConfigError: naming a method that does not exist.
    """
    entries = chosen(config.strengths, config.methods)
    with locked(run.directory):
        build = building.start(run, task, config)
        problem, identity = building.assemble(build)
        needs = {part for entry in entries for part in entry.needs}
        problem, identities = building.equip(build, problem, identity, needs)
        bench = bench_of(build, problem, identity)
        plan = Plan(config.seeds, config.plans, config.strengths.refine, config.seed)
        rows = []
        for entry in entries:
            inputs = {"models": identity} | {part: identities[part] for part in entry.needs}
            rows += method_stage(entry.method, plan, bench, run, inputs, plain(config.sampler))
        write_config(build, problem, entries)
        write_plans(build, entries)
        table.write(run.directory / "results.csv", rows)
    return run.directory / "results.csv"
