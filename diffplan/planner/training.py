"""The training of a planner: six networks, each a stage of its own, with the minutes that it took."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffplan import noise
from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.guide import Learned
from diffplan.learn import inverse, prior, reach, reward
from diffplan.learn.train import SILENT, TrainSettings, train
from diffplan.models import Mixer, Size, Value, build
from diffplan.planner.examples import Reaching, clean
from diffplan.planner.planner import Planner, PlannerSettings
from diffplan.runs import Made, Recorder, Run, stage
from diffplan.runs.files import plain
from diffplan.types import PRNGKey

SHAPE = ("horizon", "stride", "noise", "width", "depth", "features", "patch")
"""The settings that decide every network of a planner."""


class Bench(NamedTuple):
    """Where and how things are trained: a run, the configuration, the data's identity and its normaliser."""

    run: Run
    config: PlannerSettings
    data: str
    codec: Codec

    @property
    def key(self) -> PRNGKey:
        """Of first parameters."""
        return jax.random.key(self.config.prior.seed)

    def stage(self, name: str, fit: Any, setting: TrainSettings) -> Made:
        """A network in ``RUN/NAME``. fit: ``fit(setting, recorder) -> model``."""
        shape = {field: plain(getattr(self.config, field)) for field in SHAPE}
        return stage(self.run, name, partial(fit, setting), shape | {"train": setting}, {"data": self.data})


def fit(run: Run, config: PlannerSettings, episodes: Episodes, identity: str) -> tuple[Planner, float]:
    """Train a planner in a run, or read it back.

    Args:
        run: where the networks are kept.
        config: what is trained.
        episodes: behaviour, of any lengths.
        identity: of the behaviour.

    Returns:
        (planner, minutes that its training took).

    Raises:
        DataError: if all episodes are shorter than a plan.
    """
    codec = Codec.fit(episodes.observations, episodes.actions)
    bench = Bench(run, config, identity, codec)
    examples = Reaching(Windows.of(episodes, codec, config.horizon, config.stride))
    near = Windows.of(episodes, codec, config.stride + 1)
    far = Windows.of(episodes, codec, reach.span(config.stride))
    grid = noise.karras(config.levels, config.low, config.high)
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
    planner = Planner(
        rows=codec,
        **{name: made.model for name, made in models.items()},
        weakest=jnp.quantile(jax.jit(jax.vmap(models["reach"].model.weakest))(held), 0.01),
        sigmas=grid,
        horizon=config.horizon,
        warmed=int((np.asarray(grid) > config.warm).sum()),
    )
    return planner, sum(made.seconds for made in models.values()) / 60


def fit_points(bench: Bench, examples: Reaching) -> Made:
    """The prior over points."""
    config = bench.config
    size = Size(1, config.width, config.depth, expand=3, features=config.features)
    o = bench.codec.observation_dim
    network = build(bench.key, lambda rngs: Mixer(config.horizon, o, size, rngs=rngs))

    def draw(key: PRNGKey, data: Reaching) -> tuple:
        x, _, mask = data.draw(key)
        return x, mask

    return bench.stage("prior", partial(prior.fit_denoiser, network, draw, examples, config.noise), config.prior)


def fit_low_level(bench: Bench, windows: Windows) -> Made:
    """The prior over rows in sequence, whose first and last observations stay clean."""
    config, d, o = bench.config, bench.codec.width, bench.codec.observation_dim
    size = Size(config.patch, config.width, config.depth - 1)
    network = build(bench.key, lambda rngs: Mixer(windows.horizon, d, size, rngs=rngs))
    mask = clean(windows.horizon, d) & (jnp.arange(d) < o)[None]
    draw = lambda key, windows: (windows.draw(key), mask)
    return bench.stage("low_level", partial(prior.fit_denoiser, network, draw, windows, config.noise), config.low_level)


def fit_value(bench: Bench, examples: Reaching, name: str, levels: noise.LogNormal | None) -> Made:
    """A value, clean where there are no levels, whose score has mean 0 and deviation 1 over examples."""
    config, o = bench.config, bench.codec.observation_dim
    size = Size(config.patch, config.width, config.depth - 1)
    apply, params = build(bench.key, lambda rngs: Value(config.horizon, o, size, rngs=rngs))
    task = reward.task(apply, reward.regression_error, levels)

    def fit(setting: TrainSettings, recorder: Recorder = SILENT) -> Learned:
        trained = train(task, params, examples, setting, recorder)
        return Learned(trained, jnp.zeros(()), jnp.ones(()), apply, "regression")

    value = bench.stage(name, fit, config.value)
    score = lambda key: value.model.score(examples.draw(key)[0])
    scores = jax.jit(jax.vmap(score))(jax.random.split(jax.random.key(2), 2048))
    return value._replace(model=value.model.replace(centre=scores.mean(), std=scores.std()))
