"""What a comparison leaves for tables and figures beside its rows: ``plans.npz``, ``data.npz``, ``config.json``.

`diffplan.report` reads these files alone; what it draws and says of a task is in them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffplan.experiment.deliver import Delivery
from diffplan.experiment.harness import data_key
from diffplan.experiment.quality import quality
from diffplan.experiment.settings import ExperimentSettings
from diffplan.methods import Entry, Problem
from diffplan.planner import feasible
from diffplan.planner.build import Builder
from diffplan.runs.files import read_json, versions, write_json
from diffplan.task import Task
from diffplan.types import PRNGKey

QUANTILES = (0.5, 0.9, 0.99, 1.0)
"""Of the data's true return and proxy, in config.json."""

PATHS = 64
"""Held-out windows that pictures show."""

SHOWN = 12
"""Starts that pictures show."""

ENTRIES = 3
"""Observation entries that are drawn as time series."""


class Extras(NamedTuple):
    """What files say beside the models: the settings, how plans are carried out, which methods were left out and why,
    where plans of the first seed begin.
    """

    settings: ExperimentSettings

    delivery: Delivery | None
    left: dict[str, str]
    starts: Float[np.ndarray, "n o"]


def write(build: Builder, problem: Problem, entries: tuple[Entry, ...], extras: Extras) -> None:
    """Write the three files."""
    about = {"task": words_of(build, extras.delivery), "left_out": unknown(build, extras.left)}
    settings = extras.settings
    about["reward_models"] = quality(data_key(settings, 3), build, problem, settings.reference)
    write_config(build, about, entries, reference(data_key(settings, 0), build, problem, settings.reference))
    write_plans(build, entries, np.asarray(place_of(build.task)(jnp.asarray(extras.starts)))[:SHOWN])


def entries_drawn(task: Task) -> list[int]:
    """The observation entries that are drawn where there is no plane."""
    return list(range(min(ENTRIES, task.observation_dim)))


def place_of(task: Task) -> Any:
    """``observations -> what is drawn of them``, `[h, 2]` in a plane, else some entries."""
    if task.plane is not None:
        return task.plane.place
    return lambda observations: observations[..., : len(entries_drawn(task))]


def write_plans(build: Builder, entries: tuple[Entry, ...], starts: Float[np.ndarray, "p k"]) -> None:
    """``plans.npz``: the paths kept of every method, with the world they lie in."""
    plane, run = build.task.plane, build.run.directory
    arrays: dict[str, Any] = {"starts": starts}
    if plane is None:
        arrays["entries"] = np.asarray(entries_drawn(build.task))
    elif plane.solid is not None:
        arrays |= {"solid": plane.solid, "origin": np.asarray(plane.origin), "size": np.asarray(plane.size)}
    if plane is not None and plane.region is not None:
        arrays["region"] = np.asarray(plane.region, np.float32)
    for entry in entries:
        with np.load(run / "methods" / entry.name / "plans.npz") as kept:
            arrays |= {f"{entry.name}.{name}": kept[name] for name in kept.files}
    np.savez(run / "plans.npz", **arrays)


def reference(key: PRNGKey, build: Builder, problem: Problem, count: int) -> dict[str, np.ndarray]:
    """Returns, proxies and some paths of held-out windows, which pictures compare plans with; the key is consumed."""
    held_out = build.data.held_out
    first = held_out.places(key, count)
    unknown = jnp.full(len(first), jnp.nan)
    proxy = problem.regression
    paths = place_of(build.task)(jax.vmap(held_out.trajectory)(first[:PATHS]).observations)
    values = {
        "promised": build.returns(held_out, first) if build.rewarded else unknown,
        "proxy": unknown if proxy is None else jax.jit(jax.vmap(lambda row: proxy.score(held_out.at(row))))(first),
        "positions": paths,
    }
    return {name: np.asarray(value) for name, value in values.items()}


def words_of(build: Builder, delivery: Delivery | None) -> dict[str, Any]:
    """What tables and figures say of the task."""
    task, words, plane = build.task, build.task.words, build.task.plane
    named = lambda labels, kind, count: list(labels) or [f"{kind} {number}" for number in range(count)]
    violations = dict(feasible.violations_of(task, feasible.limits_of(task, build.data.train), build.stride))
    return {
        "name": task.name,
        "return": words.returns,
        "observations": named(words.observations, "observation", task.observation_dim),
        "actions": named(words.actions, "action", task.action_dim),
        "violations": {name: words.violations.get(name, feasible.WORDS.get(name, name)) for name in violations},
        "place": None if plane is None else list(plane.labels),
        "step": words.step,
        "ways": [] if delivery is None else list(delivery.controllers),
    }


def unknown(build: Builder, left: dict[str, str]) -> list[str]:
    """What cannot be known of this task, in words."""
    lines = [f"method {name}: {why}" for name, why in left.items()]
    if not build.rewarded:
        lines.append("proxy, promised: the task has no reward, and its data record none")
    elif build.task.reward is None:
        lines.append("promised: estimated by a reward of single rows that was learned from held-out episodes")
    if build.task.simulator is None:
        lines.append("open loop, inverse, tracked, delivered, replanned: the task has no simulator")
    elif build.task.tracker is None:
        lines.append("tracked: the task has no tracking controller")
    if build.task.bound is None:
        lines.append("bound: the task does not know the optimal return")
    return lines


def write_config(
    build: Builder, about: dict[str, Any], entries: tuple[Entry, ...], data: dict[str, np.ndarray]
) -> None:
    """``data.npz``, and in ``config.json`` what tables and figures say of the run."""
    run = build.run.directory
    np.savez(run / "data.npz", allow_pickle=False, **data)
    describe = lambda entry: {
        "strength_name": entry.method.strength_name,
        "family": entry.family,
        "delivered_by": entry.delivered_by,
    }
    controls = {name: {"strength_name": "none", "family": "controls"} for name in ("behaviour", "bound")}
    finite = lambda name: np.isfinite(data[name]).all()
    quantiles = lambda name: {f"{q:g}": float(np.quantile(data[name], q)) for q in QUANTILES} if finite(name) else {}
    about = about | {
        "methods": {entry.name: describe(entry) for entry in entries} | controls,
        "data_quantiles": {name: quantiles(name) for name in ("promised", "proxy")},
        "derived": build.decided.reasons,
        "versions": versions(),
    }
    before = read_json(run / "config.json")
    write_json(run / "config.json", (before if isinstance(before, dict) else {}) | about)
