"""The stage of a run that policies start from: behaviour, cloned from the data."""

from dataclasses import replace

import jax

from diffplan import runtime
from diffplan.checkpoint import digest
from diffplan.config import CloneSettings, CompareSettings
from diffplan.experiment.stages import Behaviour, train_stage
from diffplan.learn import behaviour
from diffplan.models import MLP, build
from diffplan.policy import Policy


def fit_behaviour(compare: CompareSettings, config: CloneSettings, data: Behaviour) -> tuple[Policy, str]:
    """The behaviour stage, ``RUN/behaviour``; returns (policy, digest of its parameters)."""
    inputs, outputs = data.codec.observation_dim + 1, behaviour.actions(data.codec)
    size = {"width": config.width, "depth": config.depth}
    network = build(jax.random.key(config.train.seed), lambda rngs: MLP(inputs, outputs, **size, rngs=rngs))
    policy = behaviour.untrained_policy(data.codec, *network)
    settings = runtime.plain(config) | {"horizon": data.train.horizon, "data": data.identity}
    task, directory = behaviour.task(policy, data.codec), compare.run / "behaviour"
    params = train_stage(directory, settings, task, policy.params, data.train, config.train, compare.track)
    return replace(policy, params=params), digest(params)
