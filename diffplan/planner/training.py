"""The training of a planner: six networks, each a stage of its own, with the minutes that it took."""

import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import denoise, noise, runtime
from diffplan.codec import Codec
from diffplan.config import TrainSettings
from diffplan.data.windows import Rows, Strided, Windows
from diffplan.denoise import Edm
from diffplan.experiment import stages
from diffplan.guide import Learned
from diffplan.learn import inverse, reach, reward, train
from diffplan.learn.inverse import Inverse
from diffplan.learn.reach import Reach
from diffplan.models import MLP, Mixer, Value, build
from diffplan.models.mixer import with_features
from diffplan.planner.examples import Reaching, clean
from diffplan.planner.planner import Planner, PlannerSettings
from diffplan.types import Params, PRNGKey


class Bench(NamedTuple):
    """Where and how things are trained: a directory, the configuration, the data's name and the data's normaliser."""

    directory: Path
    config: PlannerSettings
    data: str
    codec: Codec

    @property
    def key(self) -> PRNGKey:
        """Of first parameters."""
        return jax.random.key(self.config.prior.seed)

    def train(self, name: str, task: train.Task, params: Params, data: object, setting: TrainSettings) -> Params:
        """A stage; the minutes that it took, from start to start, stand in ``minutes.json`` beside it."""
        plain = runtime.plain(self.config)
        shape = {key: plain[key] for key in ("horizon", "stride", "noise", "width", "depth", "features", "patch")}
        about = shape | {"train": runtime.plain(setting), "data": self.data}
        directory = self.directory / name
        record = directory / "minutes.json"
        done = runtime.Stage(directory, about).ready()
        before, began = json.loads(record.read_text()) if record.exists() else 0.0, perf_counter()
        try:
            return stages.train_stage(directory, about, task, jax.tree.map(jnp.copy, params), data, setting, "none")
        finally:
            if not done:
                runtime.write_json(record, before + (perf_counter() - began) / 60)

    def minutes(self) -> float:
        """Of everything that was trained here."""
        return sum(json.loads(path.read_text()) for path in self.directory.glob("*/minutes.json"))


def fit(directory: Path, config: PlannerSettings, rows: Rows, identity: str) -> tuple[Planner, float]:
    """Train a planner in a directory, or read it back; returns (planner, minutes that its training took)."""
    codec = Codec.fit(rows.observations, rows.actions)
    bench = Bench(directory, config, identity, codec)
    windows = Strided.of(rows, codec, config.horizon, config.stride)
    examples = Reaching.of(windows, codec)
    grid = noise.karras(config.levels, config.low, config.high)
    walked = fit_reach(bench, windows.rows)
    held = jax.vmap(lambda key: examples.draw(key)[0])(jax.random.split(jax.random.key(3), 2048))
    planner = Planner(
        rows=codec,
        prior=fit_prior(bench, examples),
        fine=fit_low_level(bench, Windows.of(rows, codec, config.stride + 1)),
        value=fit_value(bench, examples, "value_noisy", config.noise),
        critic=fit_value(bench, examples, "value_clean", None),
        reach=walked,
        weakest=jnp.quantile(jax.jit(jax.vmap(walked.weakest))(held), 0.01),
        inverse=fit_inverse(bench, windows.rows),
        sigmas=grid,
        horizon=config.horizon,
        warmed=int((np.asarray(grid) > config.warm).sum()),
    )
    return planner, bench.minutes()


def fit_prior(bench: Bench, examples: Reaching) -> Edm:
    """The prior over points."""
    config = bench.config
    size = {"patch": 1, "width": config.width, "depth": config.depth, "expand": 3, "features": config.features}
    o = bench.codec.observation_dim
    apply, params = build(bench.key, lambda rngs: Mixer(config.horizon, o, **size, rngs=rngs))

    def loss(params: Params, key: PRNGKey, example: tuple) -> Any:
        x, _, mask = example
        return denoise.loss(key, Edm(params, apply), x, mask, bench.config.noise)

    task = train.Task(loss, lambda key, data: data.draw(key))
    return Edm(bench.train("prior", task, params, examples, config.prior), apply)


def fit_low_level(bench: Bench, windows: Windows) -> Edm:
    """The prior over rows in sequence, whose first and last observations stay clean."""
    config, d, o = bench.config, bench.codec.width, bench.codec.observation_dim
    size = {"patch": config.patch, "width": config.width, "depth": config.depth - 1}
    apply, params = build(bench.key, lambda rngs: Mixer(windows.horizon, d, **size, rngs=rngs))
    mask = clean(windows.horizon, d) & (jnp.arange(d) < o)[None]
    loss = lambda params, key, x: denoise.loss(key, Edm(params, apply), x, mask, bench.config.noise)
    task = train.Task(loss, lambda key, windows: windows.draw(key))
    return Edm(bench.train("fine", task, params, windows, config.fine), apply)


def fit_value(bench: Bench, examples: Reaching, name: str, levels: noise.LogNormal | None) -> Learned:
    """A value, clean where there are no levels, whose score has mean 0 and deviation 1 over examples."""
    config, o = bench.config, bench.codec.observation_dim
    size = {"patch": config.patch, "width": config.width, "depth": config.depth - 1}
    apply, params = build(bench.key, lambda rngs: Value(config.horizon, o, **size, rngs=rngs))
    task = reward.task(apply, reward.regression_error, levels)
    trained = bench.train(name, task, params, examples, config.value)
    value = Learned(trained, jnp.zeros(()), jnp.ones(()), apply, "regression")
    observed = jax.jit(jax.vmap(lambda key: value.score(examples.draw(key)[0])))(
        jax.random.split(jax.random.key(2), 2048)
    )
    return replace(value, centre=observed.mean(), std=observed.std())


def fit_inverse(bench: Bench, rows: Float[Array, "trajectories steps d"]) -> Inverse:
    """Inverse dynamics over up to a stride."""
    config, o = bench.config, bench.codec.observation_dim
    actions = bench.codec.width - o
    mlp, params = build(bench.key, lambda rngs: MLP(2 * o + 1, actions, width=2 * config.width, depth=3, rngs=rngs))
    model = Inverse(params, bench.codec, mlp, config.stride)
    return replace(model, params=bench.train("inverse", inverse.task(model), params, rows, config.inverse))


def fit_reach(bench: Bench, rows: Float[Array, "trajectories steps d"]) -> Reach:
    """What places can be reached within a stride."""
    config, o, features = bench.config, bench.codec.observation_dim, bench.config.features
    inputs = o + 2 + 2 * (2 + 2 * features)
    mlp, params = build(bench.key, lambda rngs: MLP(inputs, 1, width=config.width, depth=3, rngs=rngs))

    def apply(params: Params, z: Float[Array, "o"], place: Float[Array, "2"]) -> Float[Array, "1"]:
        here, there = with_features(jnp.stack([z[:2], place]), features)
        return mlp(params, z, place - z[:2], here, there)

    model = Reach(params, apply, config.stride)
    return replace(model, params=bench.train("reach", reach.task(model, o), params, rows, config.reach))
