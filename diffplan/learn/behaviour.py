"""Behaviour cloning: the policy that the data show, by maximum likelihood of their actions.

    min  - E (1 / h) sum_t log pi(a_t | o_t, t)                                          (83)

over windows of behaviour, t from 0 to 1 along a window. A discrete policy learns how often each move is made (Pomerleau
1991), a continuous one the mean of the action and, in `log_std`, what the mean leaves unexplained.
"""

from dataclasses import field, replace
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.codec import Cells, Codec
from diffplan.data.stream import Data
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import MLP, build
from diffplan.policy import Policy, times
from diffplan.runs import Recorder
from diffplan.settings import SIZE, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar


@settings("behaviour")
class BehaviourSettings:
    """The behaviour policy, cloned from the data: what learned policies start from and are held to."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000, batch=64, learning_rate=3e-3))
    width: Annotated[int, SIZE] = 64
    """Width of a hidden layer."""
    depth: Annotated[int, SIZE] = 2
    """Number of hidden layers."""


def fit(windows: Data, codec: Codec | Cells, config: BehaviourSettings, recorder: Recorder = SILENT) -> Policy:
    """Clone the policy that windows of behaviour show (83)."""
    inputs, outputs = codec.observation_dim + 1, codec.action_dim
    size = {"width": config.width, "depth": config.depth}
    network = build(jax.random.key(config.train.seed), lambda rngs: MLP(inputs, outputs, **size, rngs=rngs))
    policy = untrained_policy(codec, *network)
    return replace(policy, params=train(task(policy, codec), policy.params, windows, config.train, recorder))


def untrained_policy(codec: Codec | Cells, apply: Apply, params: Params) -> Policy:
    """An untrained policy on a codec's scale, from a network ``apply(params, z[o], t[]) -> [a]``."""
    a, o = codec.action_dim, codec.observation_dim
    params = {"network": params, "log_std": jnp.zeros(a)}
    if isinstance(codec, Cells):
        mean, std = codec.places.mean(axis=0), codec.places.std(axis=0)
        std = jnp.where(std > 0, std, 1.0)  # 0 across a corridor
        return Policy(params, mean, std, jnp.zeros(a), jnp.ones(a), apply, True)
    scale = (jnp.zeros(a), jnp.ones(a)) if codec.discrete else (codec.mean[o:], codec.std[o:])
    return Policy(params, codec.mean[:o], codec.std[:o], *scale, apply, codec.discrete)


def task(policy: Policy, codec: Codec | Cells) -> Task:
    """(83) as a training task on `data.Windows`, or on anything that draws a window; trains `policy.params`.

    A one-hot plan does not say where its last step leads, so that its last move counts for nothing.
    """

    def loss(params: Params, key: PRNGKey, window: Float[Array, "h d"]) -> tuple[Scalar, dict[str, Scalar]]:
        learner, plan = replace(policy, params=params), codec.decode(window)
        known = len(window) - isinstance(codec, Cells)

        def one(observation: Float[Array, "o"], action: Float[Array, "a"], time: Scalar) -> Scalar:
            return learner.log_prob(learner.distribution(observation, time), action)

        rows = (plan.observations, plan.actions, times(len(window)))
        return -jax.vmap(one)(*(row[:known] for row in rows)).mean(), {}

    return Task(loss, lambda key, data: data.draw(key))
