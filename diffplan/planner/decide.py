"""Settings that follow from the episodes, where nobody chose them; each with its reason.

With x_i an entry of the observations in standard deviations of the data, the time in which behaviour forgets where it
was is the least lag k with

    min_i E (x_i,t+k - x_i,t)^2 / 2 >= 1/2                                                           (134)

over the entries that change within episodes at all, or the first where none does: the slowest of them decides. A plan
has `ROWS` rows, as far as episodes are that long, and spans two such times or more: where `ROWS` steps are too few,
rows are a stride apart. But a stride is at most half the time in which the fastest entry changes as much, with a
maximum over entries in (134): else a plan would not show how the world moves between its rows.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffplan.episodes import Episodes
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.prior import PriorSettings
from diffplan.noise import NoiseSettings
from diffplan.planner.settings import PlannerSettings
from diffplan.samplers import SamplerSettings
from diffplan.settings import ConfigError
from diffplan.task import Task

ROWS = 32
"""Rows of a plan."""

TIMES = 2
"""Times (134) that a plan spans at least."""

MANY = 200_000
"""Rows of behaviour that are looked at."""

ADAM = {"one-hot plans": 2e-3, "unet": 2e-4}
"""Priors that are trained by Adam, and its rate, where nobody chose how."""

CELL_LEVELS = 24
"""Noise levels of one-hot plans, where nobody chose them: with 12, guided plans make twice as many illegal moves."""

CLONES, MOST = 8, 512
"""States of the chain that a cell of a gridworld has at most, and that all have, where nobody chose."""

PATCHED = ("proxy", "value", "conditional", "contrastive")


class Decided(NamedTuple):
    """Settings of which every one is known. reasons: of each setting that followed from the episodes."""

    config: PlannerSettings
    levels: NoiseSettings
    horizon: int
    stride: int
    reasons: dict[str, str]


class Scales(NamedTuple):
    """What episodes say of time and size. memory, fastest: the lag of (134), of the slowest and of the fastest entry,
    or the longest that could be looked at.

    step: the median length of a step; largest: the 99.9 % quantile of absolute entries. Both in standard deviations.
    """

    memory: int
    fastest: int
    usable: int
    step: float
    largest: float

    @classmethod
    def of(cls, data: Episodes) -> "Scales":
        """Measure episodes, as many as hold `MANY` rows."""
        enough = np.cumsum(data.lengths) - data.lengths < MANY
        some = data.select(enough)
        std = some.observations.std(axis=0, dtype=np.float64)
        x = (some.observations - some.observations.mean(axis=0)) / np.where(std > 1e-5, std, np.inf)
        parts = np.split(x, some.begins[1:])
        usable = int(data.lengths.min())
        if usable < 0.5 * np.median(data.lengths):
            usable = int(np.quantile(data.lengths, 0.1, method="lower"))
        moving = [i for i in range(x.shape[1]) if any(part[:, i].std() > 1e-3 for part in parts)] or [0]
        parts, x = [part[:, moving] for part in parts], x[:, moving]
        lags: list[int] = np.unique(np.geomspace(1, max(1, some.lengths.max() - 1), 60).astype(int)).tolist()
        memory, fastest = (
            next((lag for lag in lags if which(moved(parts, lag)) >= 0.5), lags[-1]) for which in (np.min, np.max)
        )
        steps = np.concatenate([np.sqrt(np.mean(np.diff(part, axis=0) ** 2, axis=1)) for part in parts])
        step = float(np.median(steps)) if steps.size else 0.0
        return cls(memory, fastest, usable, step, float(np.quantile(np.abs(x), 0.999)))


def moved(parts: list[Float[np.ndarray, "_ o"]], lag: int) -> Float[np.ndarray, "o"]:
    """How far each entry moves in `lag` steps (134), over the rows that have another one so much later."""
    squares = [(part[lag:] - part[:-lag]) ** 2 for part in parts if len(part) > lag]
    return np.concatenate(squares).mean(axis=0) / 2 if squares else np.ones(parts[0].shape[1])


def decide(config: PlannerSettings, task: Task, data: Episodes) -> Decided:
    """Fill in what nobody chose: horizon, stride, patches, noise levels and the number of training steps.

    Raises:
        ConfigError: naming the field, if no window of the horizon asked for fits into an episode.
    """
    scales, reasons = Scales.of(data), {}
    longest, which = int(data.lengths.max()), f"the longest of {data.count} episodes"
    if data.count == 1:  # it is cut in two, and each part must hold a plan
        longest = min(int(part.lengths.min()) for part in data.split(config.prior.held_out))
        scales, which = scales._replace(usable=longest), "the shorter part of the one episode, which is cut in two,"
    horizon, stride = shape(config, task, scales, reasons)
    if horizon * stride > longest:
        allowed = f"at most {longest // stride}: {which} has {longest} steps"
        raise ConfigError(f"prior.horizon={horizon} with prior.stride={stride}: must be {allowed}")
    config = replace(config, prior=replace(config.prior, horizon=None))
    for name in ("prior", *PATCHED):
        section = getattr(config, name)
        if horizon % section.patch:
            patch = max(k for k in range(1, section.patch + 1) if horizon % k == 0)
            reasons[f"{name}.patch"] = f"{patch}, the largest up to {section.patch} that divides the horizon"
            config = replace(config, **{name: replace(section, patch=patch)})
    levels = noise(config, scales, reasons)
    train, windows = config.prior.train, max(1, len(data.actions) // (horizon * stride))
    most = max(100, int(config.prior.passes * windows / train.batch))
    if most < train.steps:
        passes = f"{config.prior.passes:g} passes over {windows} windows that do not overlap"
        reasons["prior.train.steps"] = f"{most}, for {passes} (prior.passes)"
        train = replace(train, steps=most)
    what = "one-hot plans" if task.cells is not None else str(config.prior.network)
    if what in ADAM and train == replace(PriorSettings().train, steps=train.steps):
        reasons["prior.train"] = f"Adam at a rate of {ADAM[what]:g}: {what}"
        train = replace(train, optimiser="adam", learning_rate=ADAM[what])
    sampler = config.sampler
    if task.cells is not None and sampler == SamplerSettings():
        reasons["sampler.steps"] = f"{CELL_LEVELS}: one-hot plans"
        sampler = replace(sampler, steps=CELL_LEVELS)
    conditional = config.conditional
    if what != "chain" and conditional.train == ConditionalSettings().train:
        reasons["conditional.train"] = f"Adam at a rate of {ADAM['one-hot plans']:g}: a mixer"
        slower = replace(conditional.train, optimiser="adam", learning_rate=ADAM["one-hot plans"])
        conditional = replace(conditional, train=slower)
    states = config.prior.states
    if task.cells is not None and states is None:
        states = MOST
    if states is not None and (most := max(2, len(data.actions) // 8)) < states:
        states = most
        reasons["prior.states"] = f"{most}: at most one for every eight of {len(data.actions)} rows"
    if task.cells is not None and states is not None:
        clones = min(max(1, states // task.cells.width), CLONES)
        states = clones * task.cells.width
        few = f"; {reasons['prior.states']}" if "prior.states" in reasons else ""
        reasons["prior.states"] = f"{states}: {clones} for each of {task.cells.width} cells{few}"
    prior = replace(config.prior, horizon=horizon, stride=stride, states=states, train=train)
    config = replace(config, prior=prior, conditional=conditional, sampler=sampler)
    return Decided(config, levels, horizon, stride, reasons)


def shape(config: PlannerSettings, task: Task, scales: Scales, reasons: dict[str, str]) -> tuple[int, int]:
    """(horizon, stride): the settings', else the task's, else from the episodes."""
    horizon, stride = config.prior.horizon or task.horizon, config.prior.stride or task.stride
    why = f"behaviour forgets where it was in {scales.memory} steps, and episodes have {scales.usable} or more"
    if stride is None:
        longest = max(1, scales.usable // (horizon or ROWS))
        wanted, most = -(-TIMES * scales.memory // ROWS), max(1, scales.fastest // 2)
        stride = min(longest, wanted, most) if horizon is None else 1
        quick = f"; its fastest entry changes in {scales.fastest}" if stride == most < min(longest, wanted) else ""
        reasons["prior.stride"] = f"{stride}: {why}{quick}"
    if horizon is None:
        rows = min(ROWS, max(2, scales.usable // stride))
        unit = next(unit for unit in (8, 4, 2, 1) if rows >= 2 * unit)
        horizon = rows // unit * unit
        reasons["prior.horizon"] = f"{horizon}: {why}"
    return horizon, stride


def noise(config: PlannerSettings, scales: Scales, reasons: dict[str, str]) -> NoiseSettings:
    """The noise levels: from below half a step of behaviour to beyond every entry of the data."""
    low, high = config.noise.low, config.noise.high
    if low is None:
        low = float(f"{np.clip(scales.step / 2, 0.002, 0.02):.2g}")
        reasons["noise.low"] = f"{low:g}: a step of behaviour is {scales.step:.2g} standard deviations long"
    if high is None:
        high = float(f"{np.clip(2 * scales.largest, 10.0, 80.0):.2g}")
        reasons["noise.high"] = f"{high:g}: 99.9 % of entries are within {scales.largest:.2g} standard deviations"
    return NoiseSettings(low, high)
