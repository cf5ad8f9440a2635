"""Contrastive energy prediction: guidance that is exact, learned from rewards of clean plans (Lu et al. 2023, CEP).

K plans x0_i noised to one level sigma, with rewards r_i of the clean ones, and a network f:

    min  E [ - sum_i softmax_i(w r_i + c_i) log softmax_i(f(x_i, sigma, w) + c_i) ]                     (15)

Its minimum is f = log E[exp(w r(x0)) | x_sigma = x] + a constant: the exact energy, where a regression (13) learns
w E[r | x] and misses the spread of r given x. The constant may depend on sigma and w; guidance, which takes a gradient,
never sees it.

Drawn from the data alone, few of a group say anything about a large weight. So half of every group is drawn from the
tilt itself, in proportion to exp(w r) over the data, and weighed back by c_i = log p / q = -log(1/2 + exp(w r_i) / 2Z).

One network learns all weights: w is drawn too, from a grid even in log w, and read as a further entry of every step.
What it reads of the plan is a `Reader`'s business, who may also bring an energy that is good already: f = w (base +
network).
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffplan.denoise import NoiseLevels, noised
from diffplan.learn.train import Task
from diffplan.types import Apply, Energy, Params, PRNGKey, Scalar


@runtime_checkable
class Reader(Protocol):
    """A pytree that turns a noisy plan into what the network reads, ``[h, f]``, and an energy to start from."""

    def __call__(self, x: Float[Array, "h d"], sigma: Scalar) -> tuple[Float[Array, "h f"], Scalar]:
        """(features, base energy at weight 1)."""
        ...


@struct.dataclass
class Plain:
    """The plan itself, scaled to unit variance; no base energy."""

    def __call__(self, x: Float[Array, "h d"], sigma: Scalar) -> tuple[Float[Array, "h f"], Scalar]:
        return x / jnp.sqrt(1 + sigma**2), jnp.zeros(())


@struct.dataclass
class ContrastiveEnergy:
    """The learned energy of every weight between `low` and `high`: ``energy(weight)`` guides with scale 1."""

    params: Params
    reader: Reader
    apply: Apply = struct.field(pytree_node=False)
    low: float = struct.field(pytree_node=False)
    high: float = struct.field(pytree_node=False)

    def value(self, x: Float[Array, "h d"], sigma: Scalar, weight: Scalar) -> Scalar:
        """f(x, sigma, w)."""
        features, base = self.reader(x, sigma)
        where = 2 * jnp.log(weight / self.low) / jnp.log(self.high / self.low) - 1
        read = jnp.concatenate([features, jnp.broadcast_to(where, (len(x), 1))], axis=1)
        return weight * (base + self.apply(self.params, read, jnp.log(sigma) / 4))

    def energy(self, weight: Scalar) -> Energy:
        """log E[exp(w r(x0)) | x], up to a constant of the level."""
        return lambda x, sigma: self.value(x, sigma, weight)


class Group(NamedTuple):
    """K plans to tell apart: clean, with their rewards, the logarithms c of (15), and the weight w."""

    x: Float[Array, "k h d"]
    reward: Float[Array, "k"]
    correction: Float[Array, "k"]
    weight: Scalar


class Contrast(NamedTuple):
    """Plans with their rewards, and their tilts at a grid of weights; build it with `contrast`.

    x: ``[n, h, d]``; rewards: ``[n]``; weights: ``[g]``; cumulative: ``[g, n]``, of the tilts' probabilities;
    log_z: ``[g]``, the logarithm of the mean of exp(w r).
    """

    x: Float[Array, "n h d"]
    rewards: Float[Array, "n"]
    weights: Float[Array, "g"]
    cumulative: Float[Array, "g n"]
    log_z: Float[Array, "g"]


def contrast(x: Float[Array, "n h d"], rewards: Float[Array, "n"], low: float, high: float, grid: int = 24) -> Contrast:
    """Training data from clean plans and their rewards. The largest weight needs some exp(KL) times 100 of them.

    Raises:
        ValueError: if the weights are no interval of positive numbers, or a reward is not finite.
    """
    if not 0 < low < high:
        raise ValueError(f"low={low:g}, high={high:g}: must be 0 < low < high")
    r = np.asarray(rewards, np.float64)
    if not np.isfinite(r).all():
        raise ValueError(f"rewards: {int((~np.isfinite(r)).sum())} of {len(r)} are not finite")
    weights = np.geomspace(low, high, grid)
    cumulative = np.stack([np.cumsum(np.exp(w * (r - r.max()))) for w in weights])
    log_z = np.log(cumulative[:, -1] / len(r)) + weights * r.max()
    single = lambda values: jnp.asarray(values, jnp.float32)
    return Contrast(x, rewards, single(weights), single(cumulative / cumulative[:, -1:]), single(log_z))


def balanced(key: PRNGKey, data: Contrast, count: int) -> Group:
    """Half of the plans from the data, half from its tilt at a random weight, evenly spread along the tilt."""
    key_weight, key_data, key_tilt = jax.random.split(key, 3)
    g = jax.random.randint(key_weight, (), 0, len(data.weights))
    half, n = count // 2, len(data.rewards)
    marks = (jnp.arange(half) + jax.random.uniform(key_tilt, (half,))) / half
    tilted = jnp.minimum(jnp.searchsorted(data.cumulative[g], marks), n - 1)
    index = jnp.concatenate([jax.random.randint(key_data, (count - half,), 0, n), tilted])
    log_ratio = data.weights[g] * data.rewards[index] - data.log_z[g]
    correction = -jnp.logaddexp(jnp.log(0.5), jnp.log(0.5) + log_ratio)
    return Group(data.x[index], data.rewards[index], correction, data.weights[g])


def task(apply: Apply, reader: Reader, levels: NoiseLevels, low: float, high: float, group: int = 64) -> Task:
    """(15) as a training task on `Contrast` data; one example is a group of K = `group` plans.

    Raises:
        ValueError: if a group has nothing to contrast.
    """
    if group < 2:
        raise ValueError(f"group={group}: must be at least 2")

    def loss(params: Params, key: PRNGKey, example: Group) -> tuple[Scalar, dict[str, Scalar]]:
        key_sigma, key_noise = jax.random.split(key)
        sigma = levels.draw(key_sigma)
        x = jax.vmap(noised, (0, 0, None))(jax.random.split(key_noise, group), example.x, sigma)
        model = ContrastiveEnergy(params, reader, apply, low, high)
        f = jax.vmap(model.value, (0, None, None))(x, sigma, example.weight)
        wanted = jax.nn.softmax(example.weight * example.reward + example.correction)
        return -jnp.sum(wanted * jax.nn.log_softmax(f + example.correction)), {"sigma": sigma}

    return Task(loss, lambda key, data: balanced(key, data, group))
