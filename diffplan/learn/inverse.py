"""Inverse dynamics: the action with which behaviour sets out from one observation for another, some steps away.

On pairs of rows of behaviour, k steps apart with k uniform among 1 .. K,

    min  E |f(o_t, o_t+k, k) - a_t|^2,        f -> E[a_t | o_t, o_t+k, k]                (121)

The network reads o_t, the rate of change (o_t+k - o_t) K / k, which is of one size for all k, and k / K, all in
normalised units. What the noise on behaviour's actions adds is averaged away.
"""

from dataclasses import field, replace
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.codec import Codec
from diffplan.data.stream import Data
from diffplan.data.windows import Windows
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import MLP, build
from diffplan.runs import Recorder
from diffplan.settings import SIZE, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar


@settings("inverse")
class InverseSettings:
    """The learned controller: the action from where one is to where a plan goes on."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=3000, batch=256, learning_rate=3e-3))
    width: Annotated[int, SIZE] = 128
    """Width of each of three hidden layers."""


@struct.dataclass
class Inverse:
    """The learned f of (121). apply: ``apply(params, z[o], rate[o], left[]) -> z_a[a]``."""

    params: Params
    codec: Codec
    apply: Apply = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)
    """K."""

    def normalised(self, z: Float[Array, "o"], target: Float[Array, "o"], left: Int[Array, ""]) -> Float[Array, "a"]:
        """f in normalised units."""
        fraction = left / self.steps
        return self.apply(self.params, z, (target - z) / fraction, fraction)

    def __call__(
        self, observation: Float[Array, "o"], target: Float[Array, "o"], left: Int[Array, ""]
    ) -> Float[Array, "a"]:
        """The action from an observation for one that is `left` steps away, 1 to K; the environment's units."""
        o = self.codec.observation_dim
        mean, std = self.codec.mean, self.codec.std
        z = lambda row: (row - mean[:o]) / std[:o]
        return self.normalised(z(observation), z(target), left) * std[o:] + mean[o:]


def fit(windows: Data, codec: Codec, width: int, config: TrainSettings, recorder: Recorder = SILENT) -> Inverse:
    """Fit (121) by a network of three hidden layers of `width`.

    Args:
        windows: of K + 1 rows of behaviour, K the most steps ahead, normalised by `codec`.
        codec: the normaliser of rows, observation and action.
        width: of a hidden layer.
        config: the training.
        recorder: hears of the training.
    """
    model = untrained(codec, windows.horizon - 1, width, config.seed)
    return replace(model, params=train(task(model), model.params, windows, config, recorder))


def untrained(codec: Codec, steps: int, width: int, seed: int = 0) -> Inverse:
    """The network of `fit`, as it is initialised; steps: the most steps ahead."""
    o = codec.observation_dim
    network = lambda rngs: MLP(2 * o + 1, codec.width - o, width=width, depth=3, rngs=rngs)
    apply, params = build(jax.random.key(seed), network)
    return Inverse(params, codec, apply, steps)


def task(inverse: Inverse) -> Task:
    """(121) as a training task on windows; trains `inverse.params`."""
    o = inverse.codec.observation_dim

    def draw(key: PRNGKey, windows: Windows) -> tuple[Array, Array, Array]:
        key_place, key_left = jax.random.split(key)
        first = windows.place(key_place)
        left = jax.random.randint(key_left, (), 1, inverse.steps + 1)
        return windows.row(first), windows.row(first + left)[:o], left

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        row, target, left = example
        guess = replace(inverse, params=params).normalised(row[:o], target, left)
        return jnp.mean((guess - row[o:]) ** 2), {}

    return Task(loss, draw)
