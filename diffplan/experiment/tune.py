"""The guidance scale of one method on one run: a sweep and one recommendation, or the scale that meets a budget.

A sweep is scale 0 and a log-spaced grid, by seeds, through the comparison's own harness. Its seeds are not those of the
comparison, and the recommended scale is validated on seeds that neither has. What a call makes is kept,
``RUN/tune/METHOD-OBJECTIVE-DIGEST``: rows of sweep and validation, ``sweep.csv``, and ``scale.json`` with
the choice and the units that the scale is in. ``RUN/scale.json`` is the last call's. Several numbers of candidates or
weights of the prior are swept together with the scale, and chosen as one (`tune_grid`); then ``grid.csv`` has every
cell, and ``sweep.csv`` the scales of the combination that was chosen.

A budget of nats is of path KL, an upper bound of the marginal KL, and looser the fewer the steps: for an exact guide
1.8 times its KL in 16 ancestral steps, 1.1 times in 64 (tests/test_tune.py).

A scale of the regression methods is per standard deviation of the return: ``scale / return_std`` is what multiplies a
raw unit of reward, so that scale * standard deviation carries over to another problem. The classifier's multiplies log
p(y | x), and has no unit of reward.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.experiment import compare, scale_rules
from diffplan.experiment.harness import Bench, Plan, Rows, data_key, method_stage
from diffplan.experiment.scale_rules import Calibrated, Units
from diffplan.experiment.settings import ExperimentSettings
from diffplan.experiment.tune_grid import Cell, combinations, recommend
from diffplan.methods import Entry, Guided, Plans, Problem, catalogue
from diffplan.metrics import diversity, table
from diffplan.metrics.statistics import mean_interval
from diffplan.planner import build as building
from diffplan.planner.build import Builder
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Made, Progress, Run, say
from diffplan.runs.files import plain, text_digest, versions, write_json
from diffplan.runs.lock import locked
from diffplan.settings import COUNT, INSIDE, ConfigError, at_least, more_than, require, settings
from diffplan.task import Task

NOISY = ("ancestral", "sde_2m")
"""Step rules that have a path KL."""

SEEDS = {"sweep": 1_000_003, "validation": 2_000_003}
"""What is added to the seed of the comparison, so that no seed is used twice."""

NATS = "path KL, an upper bound of the marginal KL, in nats"
DISTANCE = "distance to the data beyond the prior's own, root mean square per entry"
Measure = Callable[[Float[np.ndarray, "s"]], Float[np.ndarray, "s n"]]
"""Scales -> a number for every plan drawn at each."""


@settings("")
class TuneSettings:
    """Which method to tune, over which scales, and for what."""

    method: Literal["guided", "guided_classifier", "guided_dps", "guided_raw"] = "guided"
    """The method whose scale is wanted."""
    low: Annotated[float, more_than(0)] = 0.3
    """Smallest scale of the grid above 0."""
    high: Annotated[float, more_than(0)] = 300.0
    """Largest scale of the grid."""
    points: Annotated[int, at_least(3, 10_000)] = 13
    """Scales of the sweep from low to high, evenly spaced in their logarithm."""
    objective: Literal["delivered", "replanned", "tracked", "promised", "proxy"] | None = None
    """The return that is wanted; if not given, the first of delivered, promised and proxy that is known."""
    candidates: Annotated[tuple[int, ...], COUNT] = (1,)
    """Guided plans that each plan is selected from, by the learned reward; several, 1 among them, are tuned as well."""
    prior: Annotated[tuple[float, ...], at_least(0, 1)] = (1.0,)
    """Weights of the prior; several, 1 among them, are tuned as well."""
    repeats: Annotated[int, at_least(2, 100_000)] = 8
    """Seeds of the sweep; the recommended scale is validated on as many others."""
    nats: Annotated[float | None, more_than(0)] = None
    """Instead of a sweep: the scale whose path KL (an upper bound of the marginal KL) is this."""
    typicality: Annotated[float | None, INSIDE] = None
    """Instead of a sweep: the scale at which plans are as far from the data as this quantile of held-out data (the
    prior's own distance taken off)."""

    def check(self) -> None:
        """Raise ConfigError unless the grid is one and at most one budget is given."""
        require(self.low < self.high, "low", self.low, f"below high ({self.high})")
        both = self.nats is not None and self.typicality is not None
        require(not both, "typicality", self.typicality, "left out where nats is given")
        for name in ("candidates", "prior"):
            values = getattr(self, name)
            require(1 in values, name, values, "numbers with 1 among them")
            budget = self.nats is not None or self.typicality is not None
            require(not budget or len(values) == 1, name, values, "1 alone, where nats or typicality is given")


def fits(config: TuneSettings, planner: PlannerSettings) -> None:
    """Raise ConfigError unless these settings can tune what this planner plans with."""
    rule = planner.sampler.rule
    require(config.nats is None or rule in NOISY, "sampler.rule", rule, f"one of {NOISY} for nats")


def known(config: TuneSettings, experiment: ExperimentSettings, task: Task) -> None:
    """Raise ConfigError unless plans of this task have the return that is wanted."""
    carried_out = task.simulator is not None
    there = {"delivered": carried_out, "replanned": carried_out and experiment.replans > 1}
    there |= {"tracked": carried_out and task.tracker is not None, "promised": True, "proxy": True}
    allowed = f"one of {', '.join(name for name in there if there[name])}, which are known of {task.name}"
    require(config.objective is None or there[config.objective], "objective", config.objective, allowed)


class Sweep(NamedTuple):
    """Batch means of the method, scales by seeds; NaN where a batch has none. objective: what `returns` are."""

    scales: Float[np.ndarray, "s"]
    returns: Float[np.ndarray, "s m"]
    objective: str
    feasible: Float[np.ndarray, "s m"]
    behaviour: float


class Distances(NamedTuple):
    """Training windows that plans are compared with, and the distances of as many held-out ones to them.

    A learned prior is farther from the data than held-out data are, whatever the guide does. So what the guide adds to
    the prior's mean distance is judged by what a quantile of held-out data adds to theirs.
    """

    windows: Float[Array, "k h d"]
    held_out: Float[np.ndarray, "k"]

    @classmethod
    def of(cls, build: Builder, setting: ExperimentSettings) -> "Distances":
        """The comparison's own windows."""
        count = setting.reference
        windows = build.data.train.draws(data_key(setting, 1), count)
        held_out = build.data.held_out.draws(data_key(setting, 0), count)
        return cls(windows, np.asarray(jax.jit(jax.vmap(diversity.data_distance, (0, None)))(held_out, windows)))

    def allowance(self, fraction: float) -> float:
        """How far the fraction's quantile of held-out data is beyond their mean."""
        return float(np.quantile(self.held_out, fraction) - self.held_out.mean())


class Tuning(NamedTuple):
    """One tuning: what is asked, of which experiment, with which models, and where the call is kept."""

    config: TuneSettings
    setting: ExperimentSettings
    build: Builder
    problem: Problem
    parts: dict[str, Made]
    where: Run

    @property
    def entry(self) -> Entry:
        """The method, by its name in the comparison."""
        return catalogue(self.setting.strengths)[self.config.method]

    @property
    def method(self) -> Guided:
        """The same, as it is called."""
        assert isinstance(self.entry.method, Guided), self.config.method
        return self.entry.method


def place_of(run: Run, config: TuneSettings, experiment: ExperimentSettings) -> Run:
    """Where a call is kept: another call is kept elsewhere."""
    asked = text_digest(str((plain(config), plain(experiment))))[:6]
    name = f"{config.method}-{config.objective or 'return'}-{asked}"
    return Run(run.directory / "tune" / name, run.new_settings)


def plan_of(tuning: Tuning, seeds: int) -> Plan:
    """How much is run. seeds: what is added to the seed of the comparison."""
    config, setting = tuning.config, tuning.setting
    anew = config.objective == "replanned"
    return Plan(config.repeats, setting.plans, 0, setting.seed + seeds, setting.replans, anew)


def measured(tuning: Tuning, bench: Bench, plan: Plan, name: str, cells: list[Cell]) -> Rows:
    """The rows of the method in cells that differ in their scale, kept in ``methods/NAME`` where the call is kept."""
    family = tuning.entry.family if plan.everywhere else "controls"  # these are not planned anew
    (candidates, prior), scales = cells[0][:2], tuple(cell.scale for cell in cells)
    method = replace(tuning.method, name=name, strengths=scales, candidates=candidates, prior=prior)
    entry = tuning.entry._replace(method=method, family=family)
    inputs = {part: tuning.parts[part].identity for part in entry.needs}
    return method_stage(entry, plan, bench, tuning.where, inputs, plain(tuning.build.config.sampler))


def sweep(tuning: Tuning, bench: Bench, candidates: int, prior: float) -> tuple[Rows, Sweep]:
    """Run the method over the scales and all seeds, or read back the rows of the same call."""
    config, plan = tuning.config, plan_of(tuning, SEEDS["sweep"])
    grid = np.concatenate([[0.0], np.geomspace(config.low, config.high, config.points)])
    scales = tuple(float(f"{scale:.4g}") for scale in grid)
    name = "sweep" if (candidates, prior) == (1, 1.0) else f"sweep_{candidates}_{prior:g}"
    rows = measured(tuning, bench, plan, name, [Cell(candidates, prior, scale) for scale in scales])
    column = partial(column_of, rows, len(scales))
    objective = config.objective or table.headline(column)
    behaviour = table.behaviour_feasible(compare.control_rows(tuning.build, plan, bench))
    return rows, Sweep(np.asarray(scales), column(objective), objective, column("feasible"), behaviour)


def column_of(rows: Rows, scales: int, name: str) -> Float[np.ndarray, "s m"]:
    """A column of rows that are ordered by seed, then by scale."""
    return np.asarray([float(row.get(name) or "nan") for row in rows]).reshape(-1, scales).T


def validated(tuning: Tuning, bench: Bench, cell: Cell, objective: str) -> dict[str, Any]:
    """What the objective gains over the prior alone on seeds that chose nothing: mean and 95 % interval."""
    plan = plan_of(tuning, SEEDS["validation"])
    if cell[:2] == (1, 1.0):
        rows = measured(tuning, bench, plan, f"validation_{cell.scale:.4g}", [cell._replace(scale=0.0), cell])
        unguided, returns = column_of(rows, 2, objective)
    else:
        name = f"validation_{cell.candidates}_{cell.prior:g}_{cell.scale:.4g}"
        each = {"validation_0": Cell(1, 1.0, 0.0), name: cell}
        unguided, returns = (column_of(measured(tuning, bench, plan, n, [c]), 1, objective)[0] for n, c in each.items())
    gain = mean_interval(returns - unguided)
    values = {"unguided": float(unguided.mean()), "return": float(returns.mean()), "gain": gain.value}
    return values | {"low": gain.low, "high": gain.high, "seeds": len(returns)}


def measure_of(tuning: Tuning, statistic: Callable[[Plans], Float[Array, "s n"]]) -> Measure:
    """A statistic of the method's plans at any scales, over the starts and noise of every seed of the comparison."""
    method, build, setting = tuning.method, tuning.build, tuning.setting
    root = jax.random.key(setting.seed)
    call = jax.jit(lambda key, problem, starts, scales: statistic(method(key, problem, starts, scales)))

    def measure(scales: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s n"]:
        values = []
        with Progress(f"{build.run.directory}/{tuning.config.method}", setting.seeds, unit="seeds") as progress:
            for seed in range(setting.seeds):
                key_starts, key_method, _ = jax.random.split(jax.random.fold_in(root, seed), 3)
                starts = compare.starts_of(build, key_starts, setting.plans).observations
                strengths = jnp.asarray(scales, jnp.float32)
                values.append(np.asarray(call(key_method, tuning.problem, starts, strengths)))
                progress.advance(1, smallest=scales[0], largest=scales[-1])
        return np.concatenate(values, axis=1)

    return measure


def meet(tuning: Tuning) -> tuple[str, Calibrated]:
    """The scale that spends `nats` or reaches `typicality`: (what was measured, where it is met).

    Raises:
        ConfigError: if no scale from low to high does, with what the two ends reach.
    """
    config = tuning.config
    if config.nats is not None:
        name, quantity, target = f"nats={config.nats:g}", NATS, config.nats
        measure = measure_of(tuning, lambda plans: plans.path_kl)
    else:
        fraction = config.typicality or 0.0
        near = Distances.of(tuning.build, tuning.setting)
        distances = jax.vmap(jax.vmap(diversity.data_distance, (0, None)), (0, None))
        distance = measure_of(tuning, lambda plans: distances(plans.x, near.windows))
        prior = distance(np.zeros(1)).mean()
        name, quantity, target = f"typicality={fraction:g}", DISTANCE, near.allowance(fraction)
        measure = lambda scales: distance(scales) - prior
    try:
        return quantity, scale_rules.calibrate(measure, target, config.low, config.high, points=5)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def units_of(build: Builder) -> Units:
    """What the scales of this run are in."""
    config = build.config
    returns = build.returns(build.data.train, building.labelled_windows(build, config.proxy.labels))
    std = tuple(float(f"{value:.6g}") for value in build.data.rows.std)
    levels = build.decided.levels
    return Units(float(returns.std()), config.sampler.steps, levels.high, levels.low, std)


def tune(
    run: Run, task: Task, planner: PlannerSettings, experiment: ExperimentSettings, config: TuneSettings
) -> tuple[dict[str, Any], Path]:
    """Choose a scale, or meet a budget; returns what ``scale.json`` says, and the directory that this call filled.

    Raises:
        ConfigError: if these settings cannot tune this experiment, or if no scale meets the budget.
        RunError: if the run is in use, or holds what other settings made (`diffplan.runs`).
    """
    fits(config, planner)
    known(config, experiment, task)
    with locked(run.directory):
        build = building.start(run, task, planner)
        needs = {"regression", *catalogue(experiment.strengths)[config.method].needs}
        if building.lacks(task, build.rewarded) & needs:
            raise ConfigError(f"method={config.method!r}: cannot be tuned: task {task.name} has no reward")
        where = place_of(run, config, experiment)
        tuning = Tuning(config, experiment, build, *building.assemble(data_key(experiment, 2), build, needs), where)
        units = units_of(build)
        asked = config.nats is not None or config.typicality is not None
        result = budget(tuning) if asked else recommended(tuning)
        per_unit = None if config.method == "guided_classifier" else result["scale"] / units.return_std
        content = {"method": config.method, **result, "scale_per_unit_of_reward": per_unit, "units": units._asdict()}
        about = {"settings": plain(config), "planner": plain(planner), "experiment": plain(experiment)}
        content = without_nan(content | about | {"versions": versions()})
        for directory in (where.directory, run.directory):
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / "scale.json", content)
    scale = "none" if content["scale"] is None else f"{content['scale']:.4g}"
    say(f"{config.method}: scale {scale}: {result['reason']}")
    return content, where.directory


def budget(tuning: Tuning) -> dict[str, Any]:
    """The scale that meets a budget, as scale.json has it."""
    quantity, met = meet(tuning)
    rule = "typicality" if tuning.config.nats is None else "nats"
    reason = f"{quantity}: {met.value:.4g} +- {met.error:.2g}"
    return {"rule": rule, "reason": reason, "scale": met.scale, "measured": met._asdict()}


def recommended(tuning: Tuning) -> dict[str, Any]:
    """The scale of (137), and what it gains on other seeds, as scale.json has them."""
    identity, config, plans = tuning.parts["prior"].identity, tuning.config, tuning.setting.plans
    bench, _ = compare.bench_of(tuning.build, tuning.problem, tuning.setting, identity)
    sweeps = {pair: sweep(tuning, bench, *pair) for pair in combinations(config.candidates, config.prior)}
    first = sweeps[1, 1.0][1]
    about: dict[str, Any] = {"rule": "one_error", "objective": first.objective}
    about |= {"unit": tuning.build.task.words.returns, "behaviour_feasible": first.behaviour}
    if len(sweeps) == 1:
        choice = scale_rules.recommend(first.scales, first.returns, first.feasible, plans, first.behaviour)
        cell, chosen = Cell(1, 1.0, choice.scale), choice._asdict()
    else:
        cells = [Cell(*pair, scale) for pair, (_, each) in sweeps.items() for scale in each.scales.tolist()]
        returns, fraction = (
            np.concatenate([getattr(s, n) for _, s in sweeps.values()]) for n in ("returns", "feasible")
        )
        cell, reason = recommend(cells, returns, fraction, plans, first.behaviour)
        chosen = cell._asdict() | {"reason": reason}
        columns = (*Cell._fields, first.objective, "feasible")
        means = (returns.mean(axis=1), fraction.mean(axis=1))
        rows = [dict(zip(columns, (*each, *of), strict=True)) for each, *of in zip(cells, *means, strict=True)]
        table.write(tuning.where.directory / "grid.csv", rows, columns)
    table.write(tuning.where.directory / "sweep.csv", sweeps[cell[:2]][0])
    if cell != Cell(1, 1.0, 0.0) and np.isfinite(cell.scale):
        chosen["validation"] = validated(tuning, bench, cell, first.objective)
    return about | chosen


def without_nan(content: Any) -> Any:
    """The content as JSON has it: null for what is not a number."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and not np.isfinite(content) else content
