"""The comparison on a task: methods x strengths x seeds x plans, each batch of plans one row of ``results.csv``.

Every method gets the same prior, reward models, starts and noise keys (`harness`), and its plans are carried out
(`deliver`). Only what the chosen methods use is trained. Beside the methods stand controls: guidance by a reward that
means nothing, behaviour itself, and the optimal return where the task knows it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.codec import Cells, Codec
from diffplan.experiment.deliver import Delivery, delivery_of
from diffplan.experiment.harness import Begin, Bench, Plan, data_key, keys_of, method_stage
from diffplan.experiment.record import Extras, place_of, write
from diffplan.experiment.settings import ExperimentSettings
from diffplan.guide import Proxy
from diffplan.methods import NULLS, Entry, Problem, chosen, suited
from diffplan.metrics import diversity, returns, table, validity
from diffplan.planner import build as building
from diffplan.planner import feasible
from diffplan.planner.build import Builder
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run, say
from diffplan.runs.files import plain, text_digest
from diffplan.runs.lock import locked
from diffplan.runs.program import program
from diffplan.settings import ConfigError
from diffplan.simulators import is_host
from diffplan.task import Reward, Task, Violation


class Measures(NamedTuple):
    """What is measured of plans that are not carried out."""

    codec: Codec | Cells
    reward: Reward | None
    violations: Mapping[str, Violation]
    residual: Any
    place: Any
    stride: int

    def __call__(
        self, proxy: Proxy | None, windows: Float[Array, "m h d"], x: Float[Array, "n h d"]
    ) -> dict[str, Array]:
        """Means over the finite plans of one batch; NaN where none is, or where something is not known.

        The diversity is over all pairs of the batch, and NaN as soon as one plan is not finite.
        """
        values = jax.vmap(partial(self.one, proxy, windows))(x)
        means = {name: jnp.nanmean(value) for name, value in values.items()}
        return means | {"feasible": jnp.mean(values["feasible"]), "diversity": diversity.pairwise_distance(x)}

    def one(self, proxy: Proxy | None, windows: Float[Array, "m h d"], x: Float[Array, "h d"]) -> dict[str, Array]:
        """The measures of one plan."""
        finite = validity.is_finite(x)
        x = jnp.where(finite, x, 0.0)
        plan = self.codec.decode(x)
        values = {} if proxy is None else {"proxy": proxy.score(x)}
        if self.reward is not None:
            values["promised"] = self.stride * returns.plan_return(self.reward, plan)
        broken = {name: violation(plan) for name, violation in self.violations.items()}
        values |= {f"violations.{name}": value for name, value in broken.items()}
        values["longest_step"] = validity.longest_step(self.place(plan.observations))
        if self.residual is not None and self.stride == 1:
            values["residual"] = validity.dynamics_residual(self.residual, plan)
        values["data_distance"] = diversity.data_distance(x, windows)
        known = {name: jnp.where(finite, value, jnp.nan) for name, value in values.items()}
        sound = finite & (sum(broken.values(), jnp.zeros(())) == 0)
        return known | {"feasible": sound.astype(jnp.float32), "finite": finite.astype(jnp.float32)}


def starts_of(build: Builder, key: Array, count: int) -> Begin:
    """Where plans begin: as the task says, else at first observations of held-out windows.

    The windows of behaviour beside them begin at the same observations, or else where held-out episodes begin.
    """
    held_out, simulator = build.data.held_out, build.task.simulator
    if build.task.starts is not None or (simulator is not None and is_host(simulator)):
        key_starts, key_windows = jax.random.split(key)
        begins = jnp.asarray(build.data.aside.begins, jnp.int32)
        windows = jax.random.choice(key_windows, begins, (count,))
        starts = build.task.starts or partial(seeded, simulator)
        return Begin(*starts(key_starts, count), windows)
    windows = held_out.places(key, count)
    observations = held_out.observations[windows]
    states = None if simulator is None else jax.vmap(simulator.state_of)(observations)
    return Begin(states, observations, windows)


def seeded(host: Any, key: Array, count: int) -> tuple[np.ndarray, Float[Array, "n o"]]:
    """(seeds, first observations) of a host's episodes."""
    seeds = np.asarray(jax.random.randint(key, (count,), 0, 2**30))
    handles, observations = host.reset(seeds)
    host.release(handles)
    return seeds, jnp.asarray(observations, jnp.float32)


def bench_of(
    build: Builder, problem: Problem, settings: ExperimentSettings, identity: str
) -> tuple[Bench, Delivery | None]:
    """The task as the harness takes it, and how its plans are carried out."""
    task, data = build.task, build.data
    windows = data.train.draws(data_key(settings, 1), settings.reference)
    place = place_of(task)
    violations = feasible.violations_of(task, feasible.limits_of(task, data.train), build.stride)
    measures = Measures(data.codec, build.reward, violations, task.residual, place, build.stride)
    compiled = jax.jit(lambda proxy, windows, x: measures(proxy, windows, x))
    model = building.fit_inverse(build) if task.simulator is not None else None
    delivery = delivery_of(task, data.codec, model and model.model, build.span, build.stride)

    def measure(key: Array, proxy: Proxy | None, begin: Begin, x: Float[Array, "n h d"]) -> dict[str, Any]:
        carried = {} if delivery is None else delivery.returns(key, begin, x)
        means = {name: np.nanmean(value) if np.isfinite(value).any() else np.nan for name, value in carried.items()}
        return compiled(proxy, windows, x) | means

    begin, x = starts_of(build, jax.random.key(0), 2), jnp.zeros((2, *problem.shape))
    carried = "" if delivery is None or model is None else f"{delivery.program(begin, x)}-{model.identity}"

    def code(proxy: Proxy | None) -> str:
        return text_digest(program(lambda proxy: measures(proxy, windows, x), proxy) + carried)

    replan = None if delivery is None or settings.replans < 2 else partial(delivery.replanned, times=settings.replans)

    def pictures(x: Float[Array, "n h d"]) -> dict[str, Array]:
        return {"positions": place(data.codec.decode(x).observations)}

    starts = partial(starts_of, build)
    return Bench(task.name, problem, starts, measure, code, replan, pictures, identity), delivery


def control_rows(build: Builder, plan: Plan, bench: Bench) -> list[dict[str, Any]]:
    """The rows of behaviour itself, and of the optimal return, for every seed."""
    rows, task = [], build.task
    for seed in range(plan.seeds):
        key_starts, _, key_measure = keys_of(plan, seed)
        begin = bench.starts(key_starts, plan.plans)
        about = {"task": task.name, "strength": 0.0, "seed": seed, "plans": plan.plans}
        x = jax.vmap(build.data.held_out.at)(begin.windows)
        values = bench.measure(key_measure, bench.problem.regression, begin, x)
        if build.rewarded:
            earned = float(jnp.mean(build.returns(build.data.held_out, begin.windows)))
            values |= {"promised": earned, "delivered": earned}
        rows.append({name: float(value) for name, value in values.items()} | about | {"method": "behaviour"})
        if task.bound is not None:
            best = float(np.mean([task.bound(start, build.span) for start in np.asarray(begin.observations)]))
            rows.append(about | {"method": "bound", "promised": best, "delivered": best})
    return sorted(rows, key=lambda row: row["method"])


def entries_for(build: Builder, settings: ExperimentSettings) -> tuple[tuple[Entry, ...], dict[str, str]]:
    """The methods that can run on this task, and why the others cannot.

    Raises:
        ConfigError: if none of the methods that were named can run.
    """
    asked = chosen(settings.strengths, settings.methods)
    entries, left = suited(asked, building.lacks(build.task, build.rewarded), isinstance(build.data.codec, Cells))
    named = [name for name in settings.methods if isinstance(name, str) and name in left]
    if named and all(entry.name in ("prior", *NULLS) for entry in entries):
        raise ConfigError(f"methods={named[0]!r}: cannot run on {build.task.name}: {left[named[0]]}")
    for name, why in left.items():
        say(f"method {name} is left out: {why}")
    return entries, left


def compare(run: Run, task: Task, planner: PlannerSettings, settings: ExperimentSettings) -> Path:
    """The whole comparison; returns the path of ``results.csv``.

    Args:
        run: where everything is kept; what is there is used again.
        task: the world and its question.
        planner: what is learned.
        settings: what is compared.

    Raises:
        RunError: if the run is in use, or holds what other settings made (`diffplan.runs`).
        ConfigError: naming a method that does not exist, or a setting that cannot work for these episodes.
    """
    learns = any(entry.needs for entry in chosen(settings.strengths, settings.methods))
    with locked(run.directory):
        build = building.start(run, task, planner, learns)
        entries, left = entries_for(build, settings)
        needs = {part for entry in entries for part in entry.needs}
        problem, parts = building.assemble(data_key(settings, 2), build, needs)
        bench, delivery = bench_of(build, problem, settings, parts["prior"].identity)
        refine, finer = settings.strengths.refine, settings.finer
        plan = Plan(settings.seeds, settings.plans, refine, settings.seed, settings.replans, finer=finer)
        controls = control_rows(build, plan, bench)
        bench = bench._replace(behaviour=table.behaviour_feasible(controls))
        rows: list[dict[str, Any]] = []
        for entry in entries:
            inputs = {part: parts[part].identity for part in entry.needs}
            made = method_stage(entry, plan, bench, run, inputs, plain(build.config.sampler))
            cost = sum(parts[part].seconds for part in {"prior", *entry.needs} if part in parts)
            rows += [row | {"pretrain_seconds": cost + float(row.get("pretrain_seconds") or 0)} for row in made]
        rows += controls
        first = bench.starts(keys_of(plan, 0)[0], plan.plans).observations
        write(build, problem, entries, Extras(settings, delivery, left, np.asarray(first)))
        table.write(run.directory / "results.csv", rows)
    return run.directory / "results.csv"
