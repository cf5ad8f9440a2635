"""A planner's speed, with what its plans deliver: batches, energies, few evaluations, longer plans, training.

Every row of plans has ``delivered`` and ``feasible`` of another batch of the same call, where the planner's task has a
simulator that carries plans out.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.benchmarks.speed.timing import Timing, row, timed
from diffplan.data.windows import Windows
from diffplan.denoise import ChainDenoiser
from diffplan.experiment.programs import Programs
from diffplan.learn import prior, reward
from diffplan.methods import catalogue
from diffplan.methods.base import Problem, Starts
from diffplan.methods.strengths import StrengthSettings
from diffplan.noise import NoiseSettings
from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.planner.planner import Planner
from diffplan.samplers import chunked
from diffplan.settings import ConfigError

BATCH = 64
"""Plans of one batch where nothing else is said."""

SCALES = 20
"""Guidance scales of a sweep, from 0.1 to 1000."""

ENERGIES = (
    *("guided", "guided_classifier", "guided_dps", "guided_raw"),
    *("guided_smoothed", "guided_lgd", "guided_contrastive"),
)
"""Methods that differ in their energy alone."""


def starts_of(planner: Planner, count: int) -> Starts:
    """Observations, spread over the episodes of the planner's task; where there are fewer, some are taken again."""
    observations = planner.task.episodes().observations
    return jnp.asarray(observations[np.arange(count) * len(observations) // count])


def with_delivery(planner: Planner, rows: list[dict[str, Any]], plans: dict[str, Callable[[], Any]]) -> list[dict]:
    """The rows, each with what another batch of its plans delivers, and how many are feasible."""
    for each in rows:
        if each["what"] in plans:
            batch = planner.measure(planner.model, plans[each["what"]]())
            each["feasible"] = float(batch.feasible.mean())
            try:
                each["delivered"] = float(planner.deliver(jax.random.key(3), batch).mean())
            except ConfigError:
                each["delivered"] = None
    return rows


def best(model: PlanModel) -> Callable[..., Any]:
    """``draw(key, starts, options)``, compiled: the best candidate of every start."""
    compiled = jax.jit(lambda model, key, starts, options: model.best(key, starts, None, None, options)[0])
    return partial(compiled, model)


def batches(planner: Planner, scale: float, sizes: tuple[int, ...], repeats: int, part: str) -> list[dict[str, Any]]:
    """Batches of every size, unguided and, where a reward was learned, guided; a sweep of scales; the best of many."""
    draw, seeds, starts = best(planner.model), itertools.count(), starts_of(planner, max(BATCH, *sizes))
    options = options_of(planner, scale)
    key = lambda: jax.random.key(next(seeds))
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        f"{count} plans, {name}": (count, partial(lambda count, how: draw(key(), starts[:count], how), count, how))
        for name, how in options.items()
        for count in sizes
    }
    plans = {what: call for what, (count, call) in calls.items() if count > 1}
    if "guided" in options:
        calls[f"{SCALES} scales of {BATCH} plans"] = (SCALES * BATCH, sweep(planner.model, starts[:BATCH]))
    many = PlanOptions(candidates=max(sizes))
    calls[f"best of {max(sizes)} unguided plans"] = (max(sizes), lambda: draw(key(), starts[:1], many))
    return with_delivery(planner, timed(part, calls, repeats, "plans/s"), plans)


def options_of(planner: Planner, scale: float) -> dict[str, PlanOptions]:
    """How plans are made, by name: unguided, and guided where a reward was learned."""
    guided = {} if planner.model.energy is None else {"guided": PlanOptions(jnp.asarray(scale))}
    return {"unguided": PlanOptions()} | guided


def sweep(model: PlanModel, starts: Starts) -> Callable[[], Any]:
    """Plans from every start at `SCALES` scales, in one compiled call."""
    draw = lambda model, key, start, scale: model.draw(key, start, scale=scale)[0]
    call = jax.jit(lambda model, *rows: chunked(partial(draw, model), *rows))
    scales = jnp.repeat(jnp.geomspace(0.1, 1000, SCALES), len(starts))
    keys = jnp.tile(jax.random.split(jax.random.key(0), len(starts)), SCALES)
    return lambda: call(model, keys, jnp.tile(starts, (SCALES, 1)), scales)


def energies(planner: Planner, problem: Problem, scale: float, repeats: int) -> list[dict[str, Any]]:
    """One batch guided by each energy. problem: with the parts that they need."""
    entries, starts, seeds = catalogue(StrengthSettings()), starts_of(planner, BATCH), itertools.count()
    calls: dict[str, tuple[int, Callable[[], Any]]] = {}
    for name in ENERGIES:
        programs = Programs(entries[name].method, problem, starts)
        run = lambda programs: programs.run(jax.random.key(next(seeds)), starts, (scale,)).x[0]
        calls[name] = (BATCH, partial(run, programs))
    plans = {name: call for name, (_, call) in calls.items()}
    return with_delivery(planner, timed("energies", calls, repeats, "plans/s"), plans)


def longer(planner: Planner, scale: float, horizons: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Batches of plans of other lengths, by networks of those lengths that have learned nothing: speed alone."""
    model, settings, calls = planner.model, planner.settings, {}
    assert settings is not None
    if not isinstance(model.prior, ChainDenoiser):
        return []
    starts, key = starts_of(planner, BATCH), jax.random.key(0)
    width = model.sampler.shape[1]
    for horizon in horizons:
        own = settings.prior
        network = prior.beyond(key, model.prior.chain, horizon, model.codec.observation_dim, own.width, own.depth)
        energy = reward.untrained("regression", replace(settings.proxy, patch=1), horizon, width)
        sampler = replace(model.sampler, shape=(horizon, width))
        other = replace(model, prior=network, energy=energy, sampler=sampler)
        for name, how in options_of(planner, scale).items():
            calls[f"{BATCH} plans of {horizon} rows, {name}"] = (BATCH, partial(best(other), key, starts, how))
    return timed("horizons", calls, repeats, "plans/s")


class Clock:
    """A recorder of training that notes when it is told."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def restore(self, state: Any, total: int) -> Any:
        """Training begins."""
        del total
        self.note()
        return state

    def record(self, step: int, losses: np.ndarray, state: Any, due: bool) -> None:
        """Some steps are done."""
        del step, losses, due
        jax.block_until_ready(state)
        self.note()

    def note(self) -> None:
        """The time."""
        self.times.append(time.perf_counter())


def training(planner: Planner, windows: Windows, levels: NoiseSettings, repeats: int) -> list[dict[str, Any]]:
    """Training steps of the prior, a chunk of them to a call."""
    assert planner.settings is not None
    settings, model, clock = planner.settings.prior, planner.model.prior, Clock()
    chunk = settings.train.chunk
    short = replace(settings, train=replace(settings.train, steps=(repeats + 1) * chunk))
    chain = model.chain if isinstance(model, ChainDenoiser) else None
    prior.fit(windows, short, levels, chain, clock)
    first, *later = np.diff(clock.times).tolist()
    what = f"{chunk} training steps of {settings.train.batch} windows"
    return [row("training", what, Timing(first, later), chunk, "steps/s")]
