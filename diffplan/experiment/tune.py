"""The guidance scale of one method on one run: four rules on a sweep, or the scale that meets a budget.

A sweep is scale 0 and a log-spaced grid, by seeds, through the comparison's own harness; it is kept as a stage of the
run, ``RUN/methods/tune_METHOD``. What was chosen, and the units that the scale is in, go to ``RUN/scale.json``.

A budget of nats is of path KL, an upper bound of the marginal KL, and looser the fewer the steps: for an exact guide
1.8 times its KL in 16 ancestral steps, 1.1 times in 64 (tests/test_tune.py).

A scale of the regression methods is per standard deviation of the return: ``scale / return_std`` is what multiplies a
raw unit of reward, so that scale * standard deviation carries over to another problem. The classifier's multiplies log
p(y | x), and has no unit of reward.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.table
from jaxtyping import Array, Float
from rich.box import SIMPLE_HEAD

from diffplan.experiment import compare, scale_rules
from diffplan.experiment.harness import Plan, data_key, method_stage
from diffplan.experiment.scale_rules import Calibrated, Choice, Units
from diffplan.experiment.settings import ExperimentSettings
from diffplan.methods import Entry, Guided, Plans, Problem, catalogue
from diffplan.metrics import diversity, table
from diffplan.planner import build as building
from diffplan.planner.build import Builder
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Made, Progress, Run, console, say
from diffplan.runs.files import plain, versions, write_json
from diffplan.runs.lock import locked
from diffplan.settings import INSIDE, ConfigError, at_least, more_than, require, settings
from diffplan.task import Task

NOISY = ("ancestral", "sde_2m")
"""Step rules that have a path KL."""

NATS = "path KL, an upper bound of the marginal KL, in nats"
DISTANCE = "distance to the data beyond the prior's own, root mean square per entry"
Measure = Callable[[Float[np.ndarray, "s"]], Float[np.ndarray, "s n"]]
"""Scales -> a number for every plan drawn at each."""


@settings("")
class TuneSettings:
    """Which method to tune, over which scales, and by what."""

    method: Literal["guided", "guided_classifier", "guided_dps", "guided_raw"] = "guided"
    """The method whose scale is wanted."""
    low: Annotated[float, more_than(0)] = 0.3
    """Smallest scale of the grid above 0."""
    high: Annotated[float, more_than(0)] = 300.0
    """Largest scale of the grid."""
    points: Annotated[int, at_least(3, 10_000)] = 13
    """Scales of the sweep from low to high, evenly spaced in their logarithm."""
    allowed: Annotated[float, at_least(0, 1 - 1e-9)] = 0.02
    """Fraction of plans that may be infeasible, or not finite."""
    nats: Annotated[float | None, more_than(0)] = None
    """Instead of the rules: the scale whose path KL (an upper bound of the marginal KL) is this."""
    typicality: Annotated[float | None, INSIDE] = None
    """Instead of the rules: the scale at which plans are as far from the data as this quantile of held-out data (the
    prior's own distance taken off)."""

    def check(self) -> None:
        """Raise ConfigError unless the grid is one and at most one budget is given."""
        require(self.low < self.high, "low", self.low, f"below high ({self.high})")
        both = self.nats is not None and self.typicality is not None
        require(not both, "typicality", self.typicality, "left out where nats is given")


def fits(config: TuneSettings, planner: PlannerSettings, experiment: ExperimentSettings) -> None:
    """Raise ConfigError unless these settings can tune this experiment."""
    rule = planner.sampler.rule
    require(config.nats is None or rule in NOISY, "sampler.rule", rule, f"one of {NOISY} for nats")
    budget = config.nats is not None or config.typicality is not None
    require(budget or experiment.seeds >= 2, "seeds", experiment.seeds, "at least 2, to tell scales apart")


class Sweep(NamedTuple):
    """Batch means of the method, scales by seeds; NaN where a batch has none.

    returns: what plans deliver, or promise where nothing is carried out; `known_by` says which.
    """

    scales: Float[np.ndarray, "s"]
    proxy: Float[np.ndarray, "s m"]
    returns: Float[np.ndarray, "s m"]
    known_by: str
    path_kl: Float[np.ndarray, "s m"]
    invalid: Float[np.ndarray, "s m"]
    distance: Float[np.ndarray, "s m"]


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
    """One tuning: what is asked, of which experiment, with which models."""

    config: TuneSettings
    setting: ExperimentSettings
    build: Builder
    problem: Problem
    parts: dict[str, Made]

    @property
    def entry(self) -> Entry:
        """The method, by its name in the comparison."""
        return catalogue(self.setting.strengths)[self.config.method]

    @property
    def method(self) -> Guided:
        """The same, as it is called."""
        assert isinstance(self.entry.method, Guided), self.config.method
        return self.entry.method


def sweep(tuning: Tuning) -> Sweep:
    """Run the method over the grid and all seeds, or read back the rows of an earlier sweep."""
    config, setting = tuning.config, tuning.setting
    scales = np.concatenate([[0.0], np.geomspace(config.low, config.high, config.points)])
    grid = tuple(float(f"{scale:.4g}") for scale in scales)
    method = replace(tuning.method, name=f"tune_{config.method}", strengths=grid)
    plan = Plan(setting.seeds, setting.plans, 0, setting.seed)
    bench, _ = compare.bench_of(tuning.build, tuning.problem, setting, tuning.parts["prior"].identity)
    entry = tuning.entry._replace(method=method, family="controls")  # nothing is planned anew
    inputs = {part: tuning.parts[part].identity for part in entry.needs}
    rows = method_stage(
        entry, plan, bench, tuning.build.run, inputs, plain(tuning.build.config.sampler)
    )  # seeds by scales
    shape = setting.seeds, len(scales)

    def column(name: str) -> Float[np.ndarray, "s m"]:
        return np.asarray([float(row.get(name) or "nan") for row in rows]).reshape(shape).T

    known = table.headline(column)
    path_kl, feasible, distance = (column(name) for name in ("path_kl", "feasible", "data_distance"))
    scales, proxy = np.asarray(method.strengths), column("proxy")
    return Sweep(scales, proxy, column(known), known, path_kl, 1 - feasible, distance)


def choices(result: Sweep, further: float, allowed: float) -> dict[str, Choice]:
    """What each rule says of a sweep from scale 0 up; `further` from the data than the prior is still typical."""
    scales = result.scales
    return {
        "knee": scale_rules.knee(scales, result.path_kl, result.proxy - result.proxy[:1]),
        "best": scale_rules.best(scales, result.returns),
        "not_below_best": scale_rules.largest_not_below_best(scales, result.returns),
        "valid": scale_rules.largest_valid(scales, result.invalid, allowed),
        "label_free": scale_rules.label_free(scales, result.distance - result.distance[:1], further),
    }


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
) -> dict[str, Any]:
    """Choose a scale, or meet a budget; prints the choices, writes ``scale.json``, and returns what it wrote.

    Raises:
        ConfigError: if these settings cannot tune this experiment, or if no scale meets the budget.
        RunError: if the run is in use, or holds what other settings made (`diffplan.runs`).
    """
    fits(config, planner, experiment)
    with locked(run.directory):
        build = building.start(run, task, planner)
        needs = {"regression", *catalogue(experiment.strengths)[config.method].needs}
        if building.lacks(task, build.rewarded) & needs:
            raise ConfigError(f"method={config.method!r}: cannot be tuned: task {task.name} has no reward")
        tuning = Tuning(config, experiment, build, *building.assemble(data_key(experiment, 2), build, needs))
        units = units_of(build)
        result = budget(tuning) if config.nats is not None or config.typicality is not None else recommend(tuning)
        per_unit = None if config.method == "guided_classifier" else result["scale"] / units.return_std
        content = {"method": config.method, **result, "scale_per_unit_of_reward": per_unit, "units": units._asdict()}
        about = {"settings": plain(config), "planner": plain(planner), "experiment": plain(experiment)}
        about |= {"versions": versions()}
        content = without_nan(content | about)
        write_json(run.directory / "scale.json", content)
    scale = "none" if content["scale"] is None else f"{content['scale']:.4g}"
    say(f"{config.method}: scale {scale} ({result['rule']}: {result['reason']})")
    return content


def budget(tuning: Tuning) -> dict[str, Any]:
    """The scale that meets a budget, as scale.json has it."""
    quantity, met = meet(tuning)
    rule = "typicality" if tuning.config.nats is None else "nats"
    reason = f"{quantity}: {met.value:.4g} +- {met.error:.2g}"
    return {"rule": rule, "reason": reason, "scale": met.scale, "measured": met._asdict()}


def recommend(tuning: Tuning) -> dict[str, Any]:
    """The scale that the rules recommend, and every rule's choice, as scale.json has them."""
    result = sweep(tuning)
    rules = choices(result, Distances.of(tuning.build, tuning.setting).allowance(0.95), tuning.config.allowed)
    show(rules)
    rule, reason = scale_rules.recommend(rules)
    choice = {name: choice._asdict() for name, choice in rules.items()}
    about = {"rule": rule, "reason": reason, "returns": result.known_by}
    return about | {"scale": rules[rule].scale, "choices": choice}


def show(rules: dict[str, Choice]) -> None:
    """The choices as a table."""
    shown = rich.table.Table("rule", "scale", "95 % of seeds", "why", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, (scale, low, high, reason) in rules.items():
        numbers = ("none", "") if np.isnan(scale) else (f"{scale:.4g}", f"{low:.4g} to {high:.4g}")
        shown.add_row(name, *numbers, reason)
    console.print(shown)


def without_nan(content: Any) -> Any:
    """The content as JSON has it: null for what is not a number."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and not np.isfinite(content) else content
