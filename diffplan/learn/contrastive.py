"""Contrastive energy prediction: guidance that is exact, learned from rewards of clean plans (Lu et al. 2023, CEP).

K plans drawn from the data and noised to one level sigma, with rewards r_i of the clean ones, and a network f:

    min  E [ - sum_i softmax_i(w r_i) log softmax_i f(x_i, sigma, w) ]                                  (15)

Whatever K, its minimum is f = log E[exp(w r(x0)) | x_sigma = x] + a constant: the exact energy, where a regression (13)
learns w E[r | x] and misses the spread of r given x. One network learns all weights: w is drawn too, even in log w, and
read as a further entry of every step. The constant may depend on sigma and w, and guidance, which takes a
gradient, never sees it.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.denoise import NoiseLevels, noised
from diffplan.learn.reward import Labelled
from diffplan.learn.train import Task
from diffplan.types import Apply, Energy, Level, Params, PRNGKey, Scalar


@struct.dataclass
class ContrastiveEnergy:
    """The learned energy of every weight between `low` and `high`: ``energy(weight)`` guides with scale 1.

    Reads ``[h, d + 1]``: the plan, and a channel that is constant in log weight.
    """

    params: Params
    apply: Apply = struct.field(pytree_node=False)
    low: float = struct.field(pytree_node=False)
    high: float = struct.field(pytree_node=False)

    def value(self, x: Float[Array, "h d"], sigma: Level, weight: Scalar) -> Scalar:
        """f(x, sigma, w), proportional to w where the network is not."""
        scale = jnp.sqrt(1 + sigma**2)
        where = 2 * jnp.log(weight / self.low) / jnp.log(self.high / self.low) - 1
        channel = jnp.broadcast_to(where, (len(x), 1))
        return weight * self.apply(self.params, jnp.concatenate([x / scale, channel], 1), jnp.log(jnp.max(sigma)) / 4)

    def energy(self, weight: Scalar) -> Energy:
        """log E[exp(w r(x0)) | x], up to a constant of the level."""
        return lambda x, sigma: self.value(x, sigma, weight)


def log_uniform(key: PRNGKey, low: float, high: float) -> Scalar:
    """One number, even in its logarithm."""
    return jnp.exp(jax.random.uniform(key, minval=jnp.log(low), maxval=jnp.log(high)))


def task(apply: Apply, levels: NoiseLevels, low: float, high: float, group: int = 64) -> Task:
    """(15) as a training task on `Labelled` data; one example is a group of K = `group` plans.

    Raises:
        ValueError: if a group has nothing to contrast, or the weights are no interval of positive numbers.
    """
    if group < 2:
        raise ValueError(f"group={group}: must be at least 2")
    if not 0 < low < high:
        raise ValueError(f"low={low:g}, high={high:g}: must be 0 < low < high")

    def draw(key: PRNGKey, data: Labelled) -> tuple:
        return jax.vmap(data.draw)(jax.random.split(key, group))

    def loss(params: Params, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        x0, reward, mask = example
        key_sigma, key_weight, key_noise = jax.random.split(key, 3)
        sigma, weight = levels.draw(key_sigma), log_uniform(key_weight, low, high)
        noisy = jax.vmap(noised, (0, 0, None))(jax.random.split(key_noise, group), x0, sigma)
        x = jnp.where(mask, x0, noisy)
        model = ContrastiveEnergy(params, apply, low, high)
        predicted = jax.vmap(model.value, (0, 0, None))(x, jnp.where(mask, 0.0, sigma), weight)
        wanted = jax.nn.softmax(weight * reward)
        return -jnp.sum(wanted * jax.nn.log_softmax(predicted)), {"sigma": sigma, "weight": weight}

    return Task(loss, draw)
