"""The value of the beginning of a plan: the score to be expected of one that goes on as behaviour does.

On windows x0 of behaviour, with k uniform among 1 .. h and later rows blanked,

    min  E (V(x0[:k], k) - score(x0))^2,        V -> E[score(x0) | x0[:k]]                           (80)

The score is the proxy's own, so the value knows of the gold reward what the proxy knows. At k = h it is the score.
"""

from dataclasses import field
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.count import counted
from diffplan.data.stream import Data
from diffplan.data.windows import Windows
from diffplan.guide import Proxy
from diffplan.learn.train import SILENT, Task, TrainSettings, mapped, train
from diffplan.models import Size, Value, build
from diffplan.runs import Recorder
from diffplan.settings import SIZE, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar


@settings("value")
class ValueSettings:
    """The score to be expected of the beginning of a plan, fitted on windows of behaviour and the proxy's scores."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000, batch=64))
    width: Annotated[int, SIZE] = 64
    """Width of a token."""
    depth: Annotated[int, SIZE] = 2
    """Number of blocks."""
    patch: Annotated[int, SIZE] = 2
    """Steps to a token; the horizon must be a multiple of it."""


def fit(windows: Data, proxy: Proxy, config: ValueSettings, recorder: Recorder = SILENT) -> "LearnedValue":
    """Fit (80) on windows of behaviour, scored by a proxy as they are drawn."""
    size = Size(config.patch, config.width, config.depth)
    width = windows.width + 1  # an entry more says whether a row is known
    network = lambda rngs: Value(windows.horizon, width, size, rngs=rngs)
    apply, params = build(jax.random.key(config.train.seed), network)
    scored = mapped(windows, lambda windows: Scored(windows, proxy))
    return LearnedValue(train(task(apply), params, scored, config.train, recorder), apply)


@struct.dataclass
class LearnedValue:
    """A network as a `PlanValue`. apply: ``apply(params, read[h, d + 1], c_noise[]) -> []``."""

    params: Params
    apply: Apply = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "h d"], known: Int[Array, ""]) -> Scalar:
        """V(x, known); rows from `known` on are not looked at."""
        observed = (jnp.arange(len(x)) < known).astype(x.dtype)[:, None]
        # the last entry of a row says whether it is known, for a blank row is a row like any other
        read = jnp.concatenate([jnp.where(observed > 0, x, 0.0), observed], axis=1)
        return counted("network_evals", self.apply(self.params, read, jnp.zeros(())))


class Scored(NamedTuple):
    """Behaviour and the proxy that scores it, as it is drawn."""

    windows: Windows
    proxy: Proxy

    def draw(self, key: PRNGKey) -> tuple[Float[Array, "h d"], Int[Array, ""], Scalar]:
        """A window, how many of its rows are known, and its score."""
        key_window, key_known = jax.random.split(key)
        x = self.windows.draw(key_window)
        return x, jax.random.randint(key_known, (), 1, self.windows.horizon + 1), self.proxy.score(x)


def task(apply: Apply) -> Task:
    """(80) as a training task on `Scored` behaviour."""

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        x, known, score = example
        return (LearnedValue(params, apply)(x, known) - score) ** 2, {}

    return Task(loss, lambda key, data: data.draw(key))
