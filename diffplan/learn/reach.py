"""Reach: whether behaviour could come from an observation to a place within K steps, learned as a classifier.

Of two rows of one trajectory, the first in full and of the second only its place p, j steps apart,

    min  E BCE(f(o_t, p_t+j), [j <= K]),     j uniform in 0 .. K, or in K + 1 .. 8 K, half each              (126)

the second half being what is near, but behind a corner or a wall. The network reads o, p - p_t, and random Fourier
features of both places, in normalised units. It knows of walls what behaviour says of them.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan.data.stream import Data
from diffplan.data.windows import Windows
from diffplan.learn.reward import classifier_error
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import MLP, build
from diffplan.models.mixer import with_features
from diffplan.runs import Recorder
from diffplan.types import Apply, Params, PRNGKey, Scalar

FARTHEST = 8
"""Negatives are at most this many times K steps away."""


@struct.dataclass
class Reach:
    """The learned f of (126). apply: ``apply(params, z[o], place[2]) -> logit[1]``, all normalised."""

    params: Params
    apply: Apply = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)
    """K."""

    def weakest(self, x: Float[Array, "h o"]) -> Scalar:
        """The lowest logit of a plan's steps, from each point to the next one's place."""
        return jax.vmap(lambda point, place: self.apply(self.params, point, place)[0])(x[:-1], x[1:, :2]).min()


def span(steps: int) -> int:
    """Rows of the windows that the classifier of K steps learns from."""
    return FARTHEST * steps + 1


def fit(
    windows: Data, o: int, steps: int, size: tuple[int, int], config: TrainSettings, recorder: Recorder = SILENT
) -> Reach:
    """Fit (126), within `steps` steps, on windows of `span(steps)` rows.

    size: width of three hidden layers, Fourier features.
    """
    model = untrained(o, steps, size, config.seed)
    return replace(model, params=train(task(model, o), model.params, windows, config, recorder))


def untrained(o: int, steps: int, size: tuple[int, int], seed: int = 0) -> Reach:
    """The network of `fit`, as it is initialised."""
    width, features = size
    inputs = o + 2 + 2 * (2 + 2 * features)
    network = lambda rngs: MLP(inputs, 1, width=width, depth=3, rngs=rngs)
    mlp, params = build(jax.random.key(seed), network)

    def apply(params: Params, z: Float[Array, "o"], place: Float[Array, "2"]) -> Float[Array, "1"]:
        here, there = with_features(jnp.stack([z[:2], place]), features)
        return mlp(params, z, place - z[:2], here, there)

    return Reach(params, apply, steps)


def task(reach: Reach, o: int) -> Task:
    """(126) as a training task on windows; trains `reach.params`."""
    most = FARTHEST * reach.steps

    def draw(key: PRNGKey, windows: Windows) -> tuple[Array, Array, Bool[Array, ""]]:
        key_place, key_near, key_far, key_which = jax.random.split(key, 4)
        first = windows.place(key_place)
        near = jax.random.randint(key_near, (), 0, reach.steps + 1)
        far = jax.random.randint(key_far, (), reach.steps + 1, most + 1)
        which = jax.random.bernoulli(key_which)
        return windows.row(first)[:o], windows.row(first + jnp.where(which, near, far))[:2], which

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        z, place, which = example
        return classifier_error(replace(reach, params=params).apply(params, z, place)[0], which.astype(jnp.float32)), {}

    return Task(loss, draw)
