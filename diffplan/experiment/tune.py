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
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.table
import tyro
from jaxtyping import Array, Float
from rich.box import SIMPLE_HEAD

from diffplan import runtime
from diffplan.config import CompareSettings, ConfigError, require
from diffplan.experiment import compare, scale_rules, stages
from diffplan.experiment.harness import Plan, method_stage
from diffplan.experiment.scale_rules import Calibrated, Choice, Units
from diffplan.experiment.stages import Behaviour
from diffplan.methods import Guided, Plans, Problem, catalogue
from diffplan.metrics import diversity

NOISY = ("ancestral", "sde_2m")
"""Step rules that have a path KL."""

NATS = "path KL, an upper bound of the marginal KL, in nats"
DISTANCE = "distance to the data beyond the prior's own, root mean square per entry"
Measure = Callable[[Float[np.ndarray, "s"]], Float[np.ndarray, "s n"]]
"""Scales -> a number for every plan drawn at each."""


@dataclass(frozen=True)
class TuneSettings:
    """Which method to tune, over which scales, and by what."""

    compare: Annotated[CompareSettings, tyro.conf.arg(name="")] = field(default_factory=CompareSettings)
    """The run: its data, prior, proxies, sampler, seeds and plans."""
    method: Literal["guided", "guided_classifier", "guided_dps", "guided_raw"] = "guided"
    """The method whose scale is wanted."""
    low: float = 0.3
    """Smallest scale of the grid above 0."""
    high: float = 300.0
    """Largest scale of the grid."""
    points: int = 13
    """Scales of the sweep from low to high, evenly spaced in their logarithm."""
    allowed: float = 0.02
    """Share of plans that may be invalid: through a wall, or not finite."""
    nats: float | None = None
    """Instead of the rules: the scale whose path KL (an upper bound of the marginal KL) is this."""
    typicality: float | None = None
    """Instead of the rules: the scale at which plans are as far from the data as this quantile of held-out data (the
    prior's own distance taken off)."""

    def __post_init__(self) -> None:
        require(0 < self.low < self.high, "low", self.low, f"between 0 and high ({self.high})")
        require(self.points >= 3, "points", self.points, "at least 3")
        require(0 <= self.allowed < 1, "allowed", self.allowed, "in [0, 1)")
        require(self.nats is None or self.nats > 0, "nats", self.nats, "more than 0")
        require(self.typicality is None or 0 < self.typicality < 1, "typicality", self.typicality, "between 0 and 1")
        require(
            self.nats is None or self.typicality is None, "typicality", self.typicality, "left out where nats is given"
        )
        rule = self.compare.sampler.rule
        require(self.nats is None or rule in NOISY, "sampler.rule", rule, f"one of {NOISY} for nats")
        budget = self.nats is not None or self.typicality is not None
        require(budget or self.compare.seeds >= 2, "seeds", self.compare.seeds, "at least 2, to tell scales apart")


class Sweep(NamedTuple):
    """Batch means of the method, scales by seeds; NaN where a batch has none."""

    scales: Float[np.ndarray, "s"]
    proxy: Float[np.ndarray, "s m"]
    gold: Float[np.ndarray, "s m"]
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
    def of(cls, config: CompareSettings, data: Behaviour) -> "Distances":
        """The comparison's own windows."""
        key, count = jax.random.key(config.seed), config.reference
        windows = data.train.draws(jax.random.fold_in(key, config.seeds + 1), count)
        held_out = data.held_out.draws(jax.random.fold_in(key, config.seeds), count)
        return cls(windows, np.asarray(jax.jit(jax.vmap(diversity.data_distance, (0, None)))(held_out, windows)))

    def allowance(self, fraction: float) -> float:
        """How far the share's quantile of held-out data is beyond their mean."""
        return float(np.quantile(self.held_out, fraction) - self.held_out.mean())


def method_of(config: TuneSettings) -> Guided:
    """The method, by its name in the comparison."""
    method = catalogue(config.compare.strengths)[config.method].method
    assert isinstance(method, Guided), config.method
    return method


def sweep(config: TuneSettings, problem: Problem, data: Behaviour, identity: str) -> Sweep:
    """Run the method over the grid and all seeds, or read back what it gave."""
    scales = np.concatenate([[0.0], np.geomspace(config.low, config.high, config.points)])
    method = replace(
        method_of(config), name=f"tune_{config.method}", strengths=tuple(float(f"{scale:.4g}") for scale in scales)
    )
    setting = config.compare
    plan = Plan(setting.seeds, setting.plans, 0, setting.seed)
    bench = compare.bench_of(setting, problem, data, identity)
    about = {"sampler": runtime.plain(setting.sampler)}
    rows = method_stage(method, plan, bench, setting.run, about)  # seeds by scales
    shape = setting.seeds, len(scales)
    column = lambda name: np.asarray([float(row[name] or "nan") for row in rows]).reshape(shape).T
    valid = column("finite") * (1 - np.nan_to_num(column("violations.walls"), nan=1.0))
    return Sweep(
        np.asarray(method.strengths),
        column("proxy"),
        column("tracked"),
        column("path_kl"),
        1 - valid,
        column("data_distance"),
    )


def choices(result: Sweep, further: float, allowed: float) -> dict[str, Choice]:
    """What each rule says of a sweep from scale 0 up; `further` from the data than the prior is still typical."""
    scales = result.scales
    return {
        "knee": scale_rules.knee(scales, result.path_kl, result.proxy - result.proxy[:1]),
        "best": scale_rules.best(scales, result.gold),
        "not_below_best": scale_rules.largest_not_below_best(scales, result.gold),
        "valid": scale_rules.largest_valid(scales, result.invalid, allowed),
        "label_free": scale_rules.label_free(scales, result.distance - result.distance[:1], further),
    }


def samples(
    config: TuneSettings, problem: Problem, data: Behaviour, statistic: Callable[[Plans], Float[Array, "s n"]]
) -> Measure:
    """A statistic of the method's plans at any scales, over the starts and noise of every seed of the comparison."""
    method, setting = method_of(config), config.compare
    root = jax.random.key(setting.seed)
    call = jax.jit(lambda key, problem, starts, scales: statistic(method(key, problem, starts, scales)))

    def measure(scales: Float[np.ndarray, "s"]) -> Float[np.ndarray, "s n"]:
        values = []
        with runtime.Progress(f"{setting.run}/{config.method}", setting.seeds, unit="seeds") as progress:
            for seed in range(setting.seeds):
                key_starts, key_method, _ = jax.random.split(jax.random.fold_in(root, seed), 3)
                starts = compare.starts_for(key_starts, data, setting.plans)
                values.append(np.asarray(call(key_method, problem, starts, jnp.asarray(scales, jnp.float32))))
                progress.advance(1, smallest=scales[0], largest=scales[-1])
        return np.concatenate(values, axis=1)

    return measure


def meet(config: TuneSettings, problem: Problem, data: Behaviour) -> tuple[str, Calibrated]:
    """The scale that spends `nats` or reaches `typicality`: (what was measured, where it is met).

    Raises:
        ConfigError: if no scale from low to high does, with what the two ends reach.
    """
    if config.nats is not None:
        name, quantity, target = f"nats={config.nats:g}", NATS, config.nats
        measure = samples(config, problem, data, lambda plans: plans.path_kl)
    else:
        fraction = config.typicality or 0.0
        near = Distances.of(config.compare, data)
        distances = jax.vmap(jax.vmap(diversity.data_distance, (0, None)), (0, None))
        plain = samples(config, problem, data, lambda plans: distances(plans.x, near.windows))
        prior = plain(np.zeros(1)).mean()
        name, quantity, target = f"typicality={fraction:g}", DISTANCE, near.allowance(fraction)
        measure = lambda scales: plain(scales) - prior
    try:
        return quantity, scale_rules.calibrate(measure, target, config.low, config.high, points=5)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def units_of(config: CompareSettings, data: Behaviour) -> Units:
    """What the scales of this run are in."""
    _, returns = stages.labelled_windows(config.proxy, data)
    std = tuple(float(f"{value:.6g}") for value in data.codec.std)
    return Units(float(returns.std()), config.sampler.steps, config.noise.high, config.noise.low, std)


def tune(config: TuneSettings) -> dict[str, Any]:
    """Choose, or meet a budget; prints what it found, writes ``scale.json``, and returns what it wrote."""
    setting = config.compare
    setting.run.mkdir(parents=True, exist_ok=True)
    problem, data, identity = compare.assemble(setting)
    units = units_of(setting, data)
    result: dict[str, Any]
    if config.nats is not None or config.typicality is not None:
        quantity, met = meet(config, problem, data)
        reason = f"{quantity}: {met.value:.4g} +- {met.error:.2g}"
        rule = "typicality" if config.nats is None else "nats"
        result = {"rule": rule, "reason": reason, "scale": met.scale, "measured": met._asdict()}
    else:
        near = Distances.of(setting, data)
        rules = choices(sweep(config, problem, data, identity), near.allowance(0.95), config.allowed)
        show(rules)
        rule, reason = scale_rules.recommend(rules)
        result = {"rule": rule, "reason": reason, "scale": rules[rule].scale}
        result["choices"] = {name: choice._asdict() for name, choice in rules.items()}
    per_unit = None if config.method == "guided_classifier" else result["scale"] / units.return_std
    content = {"method": config.method, **result, "scale_per_unit_of_reward": per_unit, "units": units._asdict()}
    content = without_nan(content | {"settings": runtime.plain(asdict(config)), "versions": runtime.versions()})
    runtime.write_json(setting.run / "scale.json", content)
    scale = "none" if content["scale"] is None else f"{content['scale']:.4g}"
    runtime.say(f"{config.method}: scale {scale} ({result['rule']}: {result['reason']})")
    return content


def show(rules: dict[str, Choice]) -> None:
    """The choices as a table."""
    table = rich.table.Table("rule", "scale", "95 % of seeds", "why", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, (scale, low, high, reason) in rules.items():
        numbers = ("none", "") if np.isnan(scale) else (f"{scale:.4g}", f"{low:.4g} to {high:.4g}")
        table.add_row(name, *numbers, reason)
    runtime.console.print(table)


def without_nan(content: Any) -> Any:
    """The content as JSON has it: null for what is not a number."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and not np.isfinite(content) else content
