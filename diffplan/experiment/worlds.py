"""The stages of a run that methods plan with: a model of the world, and the value of the beginning of a plan."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from diffplan import runtime
from diffplan.checkpoint import digest
from diffplan.config import CompareSettings, ValueSettings, WorldSettings
from diffplan.dynamics import Ensemble
from diffplan.experiment.stages import Behaviour, train_stage
from diffplan.guide import Proxy
from diffplan.learn import dynamics, train, value
from diffplan.learn.value import LearnedValue
from diffplan.models import MLP, Value, build


def fit_world(compare: CompareSettings, config: WorldSettings, data: Behaviour) -> tuple[Ensemble, str]:
    """The world stage, ``RUN/world``; returns (model of the dynamics, digest of its parameters).

    Gridworlds have no such stage: `learn.world.tabulate` counts.
    """
    key_data, key_index, *keys = jax.random.split(jax.random.key(config.train.seed), 2 + config.members)
    low, high = jnp.asarray(data.maze.action_low), jnp.asarray(data.maze.action_high)
    observed = dynamics.transitions(key_data, data.codec.decode(data.train.rows), config.transitions)
    o, oa = data.codec.observation_dim, data.codec.width
    size = {"width": config.width, "depth": config.depth}
    applies, members = zip(*(build(key, lambda rngs: MLP(oa, o, **size, rngs=rngs)) for key in keys), strict=True)
    model = dynamics.untrained(applies[0], list(members), observed, low, high)
    settings = runtime.plain(config) | {"held_out": compare.prior.held_out, "data": data.identity}
    resampled = dynamics.bootstraps(key_index, observed, config.members)
    task, directory = dynamics.task(model), compare.run / "world"
    params = train_stage(directory, settings, task, model.params, resampled, config.train, compare.track)
    return replace(model, params=params), digest(params)


def fit_value(
    compare: CompareSettings, config: ValueSettings, data: Behaviour, proxy: Proxy, identity: str
) -> tuple[LearnedValue, str]:
    """The value stage, ``RUN/value``, of a proxy with its identity; returns (value, digest of its parameters)."""
    horizon, width = data.train.horizon, data.codec.width + 1
    size = {"patch": config.patch, "width": config.width, "depth": config.depth}
    key = jax.random.key(config.train.seed)
    apply, params = build(key, lambda rngs: Value(horizon, width, **size, rngs=rngs))
    inputs = {"horizon": horizon, "held_out": compare.prior.held_out, "data": data.identity, "proxy": identity}
    settings = runtime.plain(config) | inputs
    scored = value.Scored(data.train, proxy)
    task: train.Task = value.task(apply)
    ema = train_stage(compare.run / "value", settings, task, params, scored, config.train, compare.track)
    return LearnedValue(ema, apply), digest(ema)
