"""What plans ways to goals: six networks, each a stage of its own, with the minutes that training took.

A plan is 32 observations, 15 steps apart, from where the ball is to the goal, at which it stays. Two values are learned
of its windows (`examples`), both of how soon they arrive: one noise-conditioned, to guide, one of clean windows, to
select. A leap through a wall is the shortest way, and guidance and selection would find it. So it is learned, too, what
places behaviour reaches within a stride (`learn.reach`).

The actions between two points are drawn by a second, low-level prior of 16 rows in sequence, pinned at both ends: the
hierarchy of Chen et al. (2024, arXiv 2401.02644), with the levels trained apart.
"""

from collections.abc import Callable
from dataclasses import field, replace
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from diffplan import noise
from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.denoise import Edm
from diffplan.episodes import Episodes
from diffplan.guide import Learned
from diffplan.learn import inverse, prior, reach, reward
from diffplan.learn.train import SILENT, TrainSettings, train
from diffplan.models import Mixer, Size, Value, build
from diffplan.noise import LogNormal
from diffplan.planner.examples import Reaching, clean
from diffplan.planner.model import Gate, PlanModel
from diffplan.runs import Made, Recorder, Run, stage
from diffplan.runs.files import plain
from diffplan.samplers import Sampler, dpmpp_2m
from diffplan.settings import SIZE, more_than, require, settings
from diffplan.types import PRNGKey, Scalar


@settings("planner")
class GoalSettings:
    """What is learned of reaching goals: one configuration for all worlds."""

    horizon: Annotated[int, SIZE] = 32
    """Points of a plan."""
    stride: Annotated[int, SIZE] = 15
    """Steps from one point to the next."""
    low: Annotated[float, more_than(0)] = 0.02
    """Smallest noise level in sampling, in standard deviations of the data."""
    high: Annotated[float, more_than(0)] = 5.0
    """Largest noise level in sampling."""
    warm: Annotated[float, more_than(0)] = 1.0
    """Noise level of warm starts."""
    levels: Annotated[int, SIZE] = 8
    """Steps of the sampler, DPM-Solver++ (2M)."""
    noise: LogNormal = field(default_factory=lambda: LogNormal(-0.7, 1.0))
    """Noise levels in training: the middle ones, at which it is decided on which side of a wall a point is."""
    prior: TrainSettings = field(default_factory=lambda: TrainSettings(3000, 128, "muon", 5e-2))
    """Training of the prior."""
    low_level: TrainSettings = field(default_factory=lambda: TrainSettings(1500, 128, "muon", 2e-2))
    """Training of the low-level prior."""
    value: TrainSettings = field(default_factory=lambda: TrainSettings(steps=1500, batch=128, learning_rate=1e-3))
    """Training of each value."""
    inverse: TrainSettings = field(default_factory=lambda: TrainSettings(steps=8000, batch=512, learning_rate=2e-3))
    """Training of the inverse dynamics."""
    reach: TrainSettings = field(default_factory=lambda: TrainSettings(steps=6000, batch=512, learning_rate=2e-3))
    """Training of what can be reached."""
    width: Annotated[int, SIZE] = 128
    """Width of the networks."""
    depth: Annotated[int, SIZE] = 3
    """Blocks of the prior; the other networks have one less."""
    features: Annotated[int, SIZE] = 64
    """Random Fourier features of a place, in the prior."""
    patch: Annotated[int, SIZE] = 4
    """Points to a token in the values, rows to a token in the low-level prior; the prior's tokens are points."""

    def check(self) -> None:
        """Raise ConfigError unless the networks can be built and the levels fall."""
        require(self.horizon % self.patch == 0, "planner.horizon", self.horizon, f"a multiple of patch ({self.patch})")
        allowed = f"1 less than a multiple of patch ({self.patch})"
        require((self.stride + 1) % self.patch == 0, "planner.stride", self.stride, allowed)
        require(self.depth >= 2, "planner.depth", self.depth, "at least 2")
        require(self.low < self.high, "planner.low", self.low, f"below planner.high ({self.high})")
        allowed = f"above planner.low ({self.low}), at most planner.high ({self.high})"
        require(self.low < self.warm <= self.high, "planner.warm", self.warm, allowed)


SHAPE = ("horizon", "stride", "noise", "width", "depth", "features", "patch")
"""The settings that decide every network of a planner."""


class Bench(NamedTuple):
    """Where and how things are trained: a run, the configuration, the data's identity and its normaliser."""

    run: Run
    config: GoalSettings
    data: str
    codec: Codec

    def stage(self, name: str, fit: Any, setting: TrainSettings) -> Made:
        """A network in ``RUN/NAME``. fit: ``fit(setting, recorder) -> model``."""
        shape = {field: plain(getattr(self.config, field)) for field in SHAPE}
        return stage(self.run, name, partial(fit, setting), shape | {"train": setting}, {"data": self.data})


def fit(run: Run, config: GoalSettings, episodes: Episodes, identity: str) -> tuple[PlanModel, float]:
    """Train what reaches goals in a run, or read it back.

    Args:
        run: where the networks are kept.
        config: what is trained.
        episodes: behaviour, of any lengths.
        identity: of the behaviour.

    Returns:
        (model, minutes that its training took).

    Raises:
        DataError: if all episodes are shorter than a plan.
    """
    codec = Codec.fit(episodes.observations, episodes.actions)
    bench = Bench(run, config, identity, codec)
    examples = Reaching(Windows.of(episodes, codec, config.horizon, config.stride))
    near = Windows.of(episodes, codec, config.stride + 1)
    far = Windows.of(episodes, codec, reach.span(config.stride))
    o, stride = codec.observation_dim, config.stride
    size = config.width, config.features
    steering = partial(inverse.fit, near, codec, 2 * config.width)
    models = {
        "reach": bench.stage("reach", partial(reach.fit, far, o, stride, size), config.reach),
        "inverse": bench.stage("inverse", steering, config.inverse),
        "prior": fit_points(bench, examples),
        "low_level": fit_low_level(bench, near),
        "value": fit_value(bench, examples, "value_noisy", config.noise),
        "critic": fit_value(bench, examples, "value_clean", None),
    }
    held = jax.vmap(lambda key: examples.draw(key)[0])(jax.random.split(jax.random.key(3), 2048))
    weakest = jnp.quantile(jax.jit(jax.vmap(models["reach"].model.weakest))(held), 0.01)
    model = whole(config, codec, {name: made.model for name, made in models.items()}, weakest)
    return model, sum(made.seconds for made in models.values()) / 60


def fit_points(bench: Bench, examples: Reaching) -> Made:
    """The prior over points."""
    config, network = bench.config, points_network(bench.config, bench.codec.observation_dim)

    def draw(key: PRNGKey, data: Reaching) -> tuple:
        x, _, mask = data.draw(key)
        return x, mask

    return bench.stage("prior", partial(prior.fit_denoiser, network, draw, examples, config.noise), config.prior)


def fit_low_level(bench: Bench, windows: Windows) -> Made:
    """The prior over rows in sequence, whose first and last observations stay clean."""
    config, d, o = bench.config, bench.codec.width, bench.codec.observation_dim
    network = low_level_network(config, d)
    mask = clean(windows.horizon, d) & (jnp.arange(d) < o)[None]
    draw = lambda key, windows: (windows.draw(key), mask)
    return bench.stage("low_level", partial(prior.fit_denoiser, network, draw, windows, config.noise), config.low_level)


def fit_value(bench: Bench, examples: Reaching, name: str, levels: LogNormal | None) -> Made:
    """A value, clean where there are no levels, whose score has mean 0 and deviation 1 over examples."""
    start = value_model(bench.config, bench.codec.observation_dim)
    task = reward.task(start.apply, reward.regression_error, levels)

    def fit(setting: TrainSettings, recorder: Recorder = SILENT) -> Learned:
        return replace(start, params=train(task, start.params, examples, setting, recorder))

    value = bench.stage(name, fit, bench.config.value)
    score = lambda key: value.model.score(examples.draw(key)[0])
    scores = jax.jit(jax.vmap(score))(jax.random.split(jax.random.key(2), 2048))
    return value._replace(model=replace(value.model, centre=scores.mean(), std=scores.std()))


def key_of(config: GoalSettings) -> PRNGKey:
    """Of first parameters."""
    return jax.random.key(config.prior.seed)


def points_network(config: GoalSettings, o: int) -> Edm:
    """The denoiser of points, as it is initialised."""
    size = Size(1, config.width, config.depth, expand=3, features=config.features)
    return edm(config, lambda rngs: Mixer(config.horizon, o, size, rngs=rngs))


def low_level_network(config: GoalSettings, d: int) -> Edm:
    """The denoiser of rows in sequence, as it is initialised."""
    size = Size(config.patch, config.width, config.depth - 1)
    return edm(config, lambda rngs: Mixer(config.stride + 1, d, size, rngs=rngs))


def edm(config: GoalSettings, make: Callable[[Any], Mixer]) -> Edm:
    """A network as a denoiser, as it is initialised."""
    apply, params = build(key_of(config), make)
    return Edm(params, apply)


def value_model(config: GoalSettings, o: int) -> Learned:
    """A value, as it is initialised."""
    size = Size(config.patch, config.width, config.depth - 1)
    apply, params = build(key_of(config), lambda rngs: Value(config.horizon, o, size, rngs=rngs))
    return Learned(params, jnp.zeros(()), jnp.ones(()), apply, "regression")


def untrained(config: GoalSettings, rows: Codec) -> PlanModel:
    """The model that `fit` trains, as it is initialised."""
    o, size = rows.observation_dim, (config.width, config.features)
    models = {
        "prior": points_network(config, o),
        "low_level": low_level_network(config, rows.width),
        "value": value_model(config, o),
        "critic": value_model(config, o),
        "reach": reach.untrained(o, config.stride, size),
        "inverse": inverse.untrained(rows, config.stride, 2 * config.width),
    }
    return whole(config, rows, models, jnp.zeros(()))


def whole(config: GoalSettings, rows: Codec, models: dict[str, Any], weakest: Scalar) -> PlanModel:
    """The networks as one model. weakest: of `Gate`."""
    o = rows.observation_dim
    with jax.ensure_compile_time_eval():  # also where shapes alone are asked for
        grid = noise.karras(config.levels, config.low, config.high)
        warmed = int((grid > config.warm).sum())
    return PlanModel(
        rows=rows,
        codec=rows.of_observations(),
        prior=models["prior"],
        sampler=Sampler(grid, (config.horizon, o), dpmpp_2m),
        inverse=models["inverse"],
        energy=models["value"],
        critic=models["critic"],
        gate=Gate(models["reach"], weakest),
        low_level=models["low_level"],
        stride=config.stride,
        warmed=warmed,
    )
