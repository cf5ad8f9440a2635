"""Contrastive energy prediction: guidance that is exact, learned from rewards of clean plans (Lu et al. 2023, CEP).

K plans x0_i noised to one level sigma, with rewards r_i of the clean ones, and a network f:

    min  E [ - sum_i softmax_i(w r_i) log softmax_i(f(x_i, sigma, w)) ]                                (15)

Its minimum is f = log E[exp(w r(x0)) | x_sigma = x] + a constant: the exact energy, where a regression (13) learns
w E[r | x] and misses the spread of r given x. The constant may depend on sigma and w; guidance, which takes a gradient,
never sees it.

Drawn from the data, few of a group say anything about a large weight. But any two weights v < w can be told apart:
under the tilt at v, E[exp((w - v) r(x0)) | x] is exp of f(x, sigma, w) - f(x, sigma, v). So (15) is used with that
difference for f and w - v for w, on groups of which half are drawn from the data's tilt at v, half from that at w, and
weighed back to v by c_i = log p_v / q = -log(1/2 + exp((w - v) r_i) Z_v / 2 Z_w), which is added on both sides. At
v = 0 the tilt is the data, and f is 0.

One network learns all weights: v and w are drawn too, from an even grid, and read as a further entry of every step.
What it reads of the plan is a `Reader`'s business, who may also bring an energy that is good already: f = w (base +
network).

`fit_learned` learns the exact energy of a learned reward in this way, from the regression (13) of that reward. Its
largest weight is the one whose tilt has just enough effective plans; beyond it the energy is that of the largest,
scaled.
"""

from dataclasses import field
from functools import partial
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan.denoise import NoiseLevels, noised
from diffplan.guide import Proxy
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import Size, Value, build
from diffplan.noise import LogUniform, NoiseSettings
from diffplan.runs import Recorder
from diffplan.settings import COUNT, SIZE, at_least, settings
from diffplan.types import Apply, Energy, Level, Params, PRNGKey, Scalar


@runtime_checkable
class Reader(Protocol):
    """A pytree that turns a noisy plan into what the network reads, ``[h, f]``, and an energy to start from."""

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> tuple[Float[Array, "h f"], Scalar]:
        """(features, base energy at weight 1)."""
        ...


@struct.dataclass
class ContrastiveEnergy:
    """The learned energy of every weight between 0 and `high`: ``energy(weight)`` guides with scale 1."""

    params: Params
    reader: Reader
    apply: Apply = struct.field(pytree_node=False)
    high: float = struct.field(pytree_node=False)

    def values(self, x: Float[Array, "h d"], sigma: Level, weights: Float[Array, "w"]) -> Float[Array, "w"]:
        """f(x, sigma, w) at several weights of one noisy plan, which is read once."""
        features, base = self.reader(x, sigma)

        def one(weight: Scalar) -> Scalar:
            read = jnp.concatenate([features, jnp.broadcast_to(weight / self.high, (len(x), 1))], axis=1)
            return weight * (base + self.apply(self.params, read, jnp.log(jnp.max(sigma)) / 4))

        return jax.vmap(one)(weights)

    def energy(self, weight: Scalar) -> Energy:
        """log E[exp(w r(x0)) | x], up to a constant of the level; beyond the largest weight, that of it, scaled."""
        inside = jnp.clip(weight, 0.0, self.high)
        scale = jnp.maximum(weight / self.high, 1.0)
        return lambda x, sigma: scale * self.values(x, sigma, jnp.reshape(inside, 1))[0]


class Group(NamedTuple):
    """K plans to tell apart: clean, with their rewards, the logarithms c of (15), and the weights (v, w)."""

    x: Float[Array, "k h d"]
    reward: Float[Array, "k"]
    correction: Float[Array, "k"]
    weights: Float[Array, "2"]


class Contrast(NamedTuple):
    """Plans with their rewards, and their tilts at a grid of weights, from 0; build it with `contrast`.

    x: ``[n, h, d]``; rewards: ``[n]``; weights: ``[g]``; cumulative: ``[g, n]``, of the tilts' probabilities;
    log_z: ``[g]``, the logarithm of the mean of exp(w r).
    """

    x: Float[Array, "n h d"]
    rewards: Float[Array, "n"]
    weights: Float[Array, "g"]
    cumulative: Float[Array, "g n"]
    log_z: Float[Array, "g"]


def contrast(x: Float[Array, "n h d"], rewards: Float[Array, "n"], high: float, grid: int = 24) -> Contrast:
    """Training data from clean plans and their rewards, up to the weight `high`.

    Its tilt has n Z^2 / Z(2 w) effective plans, and should have a thousand.

    Raises:
        ValueError: if the largest weight is not positive, or a reward is not finite.
    """
    if not high > 0:
        raise ValueError(f"high={high:g}: must be more than 0")
    r = np.asarray(rewards, np.float64)
    if not np.isfinite(r).all():
        raise ValueError(f"rewards: {int((~np.isfinite(r)).sum())} of {len(r)} are not finite")
    weights = np.linspace(0.0, high, grid)
    cumulative = np.stack([np.cumsum(np.exp(w * (r - r.max()))) for w in weights])
    log_z = np.log(cumulative[:, -1] / len(r)) + weights * r.max()
    single = lambda values: jnp.asarray(values, jnp.float32)
    return Contrast(x, rewards, single(weights), single(cumulative / cumulative[:, -1:]), single(log_z))


def balanced(key: PRNGKey, data: Contrast, count: int) -> Group:
    """Half of the plans from the tilt at v, half from that at w > v, each evenly spread along its tilt."""
    key_weights, key_marks = jax.random.split(key)
    upper, fraction = jax.random.uniform(key_weights, (2,))
    w = 1 + (upper * (len(data.weights) - 1)).astype(int)
    pair = jnp.stack([(fraction * w).astype(int), w])  # v < w
    half = count // 2
    marks = (jnp.arange(half)[None] + jax.random.uniform(key_marks, (2, half))) / half
    index = jnp.minimum(jax.vmap(jnp.searchsorted)(data.cumulative[pair], marks), len(data.rewards) - 1).ravel()
    apart, log_z = jnp.diff(data.weights[pair])[0], jnp.diff(data.log_z[pair])[0]
    log_ratio = apart * data.rewards[index] - log_z
    correction = -jnp.logaddexp(jnp.log(0.5), jnp.log(0.5) + log_ratio)
    return Group(data.x[index], data.rewards[index], correction, data.weights[pair])


def task(
    apply: Apply,
    reader: Reader,
    levels: NoiseLevels,
    high: float,
    group: int = 64,
    clean: Bool[Array, "h d"] | bool = False,
) -> Task:
    """(15) as a training task on `Contrast` data; one example is a group of K = `group` plans, an even number.

    clean: the entries that sampling will pin.

    Raises:
        ValueError: if a group has nothing to contrast.
    """
    if group < 2 or group % 2:
        raise ValueError(f"group={group}: must be even, at least 2")

    def loss(params: Params, key: PRNGKey, example: Group) -> tuple[Scalar, dict[str, Scalar]]:
        key_sigma, key_noise = jax.random.split(key)
        sigma = levels.draw(key_sigma)
        x = jax.vmap(noised, (0, 0, None))(jax.random.split(key_noise, group), example.x, sigma)
        x, level = jnp.where(clean, example.x, x), jnp.where(clean, 0.0, sigma)
        model = ContrastiveEnergy(params, reader, apply, high)
        f = jnp.diff(jax.vmap(model.values, (0, None, None))(x, level, example.weights), axis=1)[:, 0]
        wanted = jax.nn.softmax(jnp.diff(example.weights)[0] * example.reward + example.correction)
        return -jnp.sum(wanted * jax.nn.log_softmax(f + example.correction)), {"sigma": sigma}

    return Task(loss, lambda key, data: balanced(key, data, group))


def fit(
    network: tuple[Apply, Params],
    reader: Reader,
    data: Contrast,
    levels: NoiseLevels,
    config: TrainSettings,
    recorder: Recorder = SILENT,
    clean: Bool[Array, "h d"] | bool = False,
) -> ContrastiveEnergy:
    """Learn the energy of every weight up to the largest of the data. clean: the entries that sampling will pin."""
    apply, params = network
    high = float(data.weights[-1])
    learning = task(apply, reader, levels, high, clean=clean)
    return ContrastiveEnergy(train(learning, params, data, config, recorder), reader, apply, high)


@settings("contrastive")
class ContrastiveSettings:
    """The exact energy of the learned reward, by contrasting plans."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=600, batch=4))
    """A batch of so many groups of 64 plans."""
    windows: Annotated[int, at_least(64, 2**20)] = 16_384
    """Windows of behaviour that the learned reward scores."""
    effective: Annotated[int, COUNT] = 500
    """Effective number of plans of the largest tilt that is learned."""
    width: Annotated[int, SIZE] = 64
    """Width of a token."""
    depth: Annotated[int, SIZE] = 2
    """Number of blocks."""
    patch: Annotated[int, SIZE] = 2
    """Rows to a token."""


@struct.dataclass
class Corrected:
    """A `Reader` of plans, scaled to unit variance; it starts from a learned E[r | x]."""

    base: Proxy

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> tuple[Float[Array, "h d"], Scalar]:
        """(features, base energy at weight 1)."""
        return x / jnp.sqrt(1 + sigma**2), self.base(x, sigma)


def largest_weight(rewards: Float[Array, "n"], effective: int) -> float:
    """The largest weight, up to 1,000, whose tilt has n Z(w)^2 / Z(2 w) >= `effective` plans."""
    r = np.asarray(rewards, np.float64)
    r, weights = r - r.max(), np.geomspace(0.01, 1000, 400)
    mean = lambda w: np.exp(w[:, None] * r[None]).mean(axis=1)
    enough = len(r) * mean(weights) ** 2 / mean(2 * weights) >= effective
    return float(weights[enough][-1] if enough.any() else weights[0])


def fit_learned(
    x: Float[Array, "n h d"],
    base: Proxy,
    clean: Bool[Array, "h d"],
    config: ContrastiveSettings,
    levels: NoiseSettings,
    recorder: Recorder = SILENT,
) -> ContrastiveEnergy:
    """Learn the exact energy of a learned reward.

    Args:
        x: windows of behaviour, normalised.
        base: the noise-conditioned regression, whose clean reward scores the windows.
        clean: the entries that sampling will pin.
        config: how many windows, and the network.
        levels: of the noise.
        recorder: hears of the training.
    """
    h, d = x.shape[1:]
    rewards = jax.jit(partial(jax.lax.map, base.reward, batch_size=256))(x)
    size = Size(config.patch, config.width, config.depth)
    network = build(jax.random.key(config.train.seed), lambda rngs: Value(h, d + 1, size, rngs=rngs))
    data = contrast(x, rewards, largest_weight(rewards, config.effective))
    noise = LogUniform(levels.low, levels.high)
    return fit(network, Corrected(base), data, noise, config.train, recorder, clean)
