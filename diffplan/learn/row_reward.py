"""The reward of a single row, learned from recorded rewards: what promises where the true reward is not known.

    min  E (f(o_t, a_t) - r_t)^2                                                                     (133)

over the rows of episodes that no other reward model learns from. No optimiser sees f. Of plans it gives an estimate of
the promised return, and its error on held-out rows stands beside it.
"""

from dataclasses import field, replace
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import MLP, build
from diffplan.runs import Recorder
from diffplan.settings import SIZE, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar


@settings("row_reward")
class RowRewardSettings:
    """The reward of a single row, learned where rewards are recorded and no true reward is known."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=3000, batch=256, learning_rate=3e-3))
    width: Annotated[int, SIZE] = 128
    """Width of a hidden layer."""
    depth: Annotated[int, SIZE] = 2
    """Number of hidden layers."""


@struct.dataclass
class RowReward:
    """The learned f of (133), in the environment's units. apply: ``apply(params, z[o + a]) -> [1]``."""

    params: Params
    codec: Codec
    mean: Scalar
    std: Scalar
    apply: Apply = struct.field(pytree_node=False)

    def __call__(self, observation: Float[Array, "o"], action: Float[Array, "a"]) -> Scalar:
        """The reward of a row."""
        z = (jnp.concatenate([observation, action]) - self.codec.mean) / self.codec.std
        return self.mean + self.std * self.apply(self.params, z)[0]


def fit(windows: Windows, codec: Codec, config: RowRewardSettings, recorder: Recorder = SILENT) -> RowReward:
    """Fit (133).

    Args:
        windows: of single rows, with rewards.
        codec: the normaliser of rows, observation and action.
        config: network and training.
        recorder: hears of the training.
    """
    assert windows.rewards is not None
    mean, std = windows.rewards.mean(), jnp.maximum(windows.rewards.std(), 1e-6)
    model = replace(untrained(codec, config), mean=mean, std=std)

    def draw(key: PRNGKey, windows: Windows) -> tuple[Array, Array, Scalar]:
        row = windows.place(key)
        assert windows.rewards is not None
        return windows.observations[row], windows.actions[row], windows.rewards[row]

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array, Scalar]) -> tuple[Scalar, dict[str, Scalar]]:
        observation, action, reward = example
        return ((replace(model, params=params)(observation, action) - reward) / std) ** 2, {}

    return replace(model, params=train(Task(loss, draw), model.params, windows, config.train, recorder))


def untrained(codec: Codec, config: RowRewardSettings) -> RowReward:
    """The network of `fit`, as it is initialised."""
    size = {"width": config.width, "depth": config.depth}
    apply, params = build(jax.random.key(config.train.seed), lambda rngs: MLP(codec.width, 1, **size, rngs=rngs))
    return RowReward(params, codec, jnp.zeros(()), jnp.ones(()), apply)


def explained(reward: RowReward, windows: Windows) -> float:
    """The fraction of the variance of recorded rewards that is explained, over up to 8,192 rows."""
    rows = windows.first[:: max(1, len(windows.first) // 8192)]
    assert windows.rewards is not None
    error = jax.vmap(reward)(windows.observations[rows], windows.actions[rows]) - windows.rewards[rows]
    return float(1 - jnp.mean(error**2) / jnp.maximum(jnp.var(windows.rewards[rows]), 1e-12))
