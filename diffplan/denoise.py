"""The denoiser ``D(x, sigma) = E[x0 | x_sigma = x]``: how a network becomes one, is conditioned, and is trained.

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)                                    (4)
    c_skip = s^2 / (sigma^2 + s^2)      c_out = sigma s / sqrt(sigma^2 + s^2)
    c_in   = 1 / sqrt(sigma^2 + s^2)    c_noise = log(sigma) / 4

with s the standard deviation of the data (Karras et al. 2022, table 1). The loss weighs the squared error of D by
1 / c_out^2, which makes the network's target have unit variance at every level.

A network may begin as the exact denoiser M of a Markov chain (140), and add what plans have beyond it:

    D(x, sigma) = share M + (1 - share) c_skip x + c_out F(c_in x, M, gamma, c_noise)                          (4c)
    share = sigma^2 / (sigma^2 + v / 5)

with v the variance within the chain's states. Far below it the chain knows nothing that x does not say better.

Where every step of a plan is one of k known points, as the cells of a gridworld, a network can say which:

    D(x, sigma) = softmax(l + F(sqrt softmax l)) @ points,    l[t, s] = -|x_t - points[s]|^2 / (2 sigma^2)         (4b)

l is what a step's noisy value says by itself; the network adds what the others say. It is trained by the cross-entropy
of the true points (Dieleman et al. 2022, arXiv 2211.15089), and needs no noise level: l shows how noisy it is. The root
of a distribution has length 1, and tells unlikely points apart.
"""

from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from diffplan.chain import Chain
from diffplan.count import counted
from diffplan.types import Apply, Denoise, Level, Params, Pins, PRNGKey, Scalar

CLEAN = 0.02
"""The level at which networks read a clean plan, in standard deviations of the data: the floor of training levels."""

SOONER = 5.0
"""By how much the variance within states is divided in `share` of (4c)."""

FAINT = -10.0
"""Nats below the likeliest point at which a step's own evidence stops counting against what the network says."""


@struct.dataclass
class Edm:
    """A network with EDM preconditioning (4): a `Denoise` that is a pytree, so parameters are traced by jit."""

    params: Params
    apply: Apply = struct.field(pytree_node=False)
    sigma_data: float = struct.field(pytree_node=False, default=1.0)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x], shape ``[h, d]``; entries at level 0 come back as they are."""
        variance = sigma**2 + self.sigma_data**2
        skip, out = self.sigma_data**2 / variance, sigma * self.sigma_data / jnp.sqrt(variance)
        return counted("network_evals", skip * x + out * scaled(self.apply, self.params, x, sigma, self.sigma_data))


@struct.dataclass
class ChainDenoiser:
    """A network beyond a Markov chain (4c); a pytree, as `Edm`. The chain is fixed; `params` are trained.

    The network is ``apply(params, c_in x[h, d], M[h, d], gamma[h, k], c_noise[]) -> [h, d]``.
    """

    params: Params
    chain: Chain
    apply: Apply = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x], shape ``[h, d]``; entries at level 0 come back as they are."""
        first, beyond = self.terms(x, sigma)
        return counted("network_evals", first + sigma / jnp.sqrt(sigma**2 + 1) * beyond)

    def terms(self, x: Float[Array, "h d"], sigma: Level) -> tuple[Float[Array, "h d"], Float[Array, "h d"]]:
        """(what the chain and x say, what the network says), as they stand in (4c)."""
        gamma = self.chain.posterior(x, sigma)
        mean, level = self.chain.mean(gamma, x, sigma), sigma**2
        share = level / (level + self.chain.variance[None] / SOONER)
        network = partial(self.apply, self.params)
        beyond = network(x / jnp.sqrt(level + 1), mean, gamma, jnp.log(jnp.max(sigma)) / 4)
        return share * mean + (1 - share) * x / (level + 1), beyond


@struct.dataclass
class CategoricalDenoiser:
    """A network over k points as a denoiser (4b); a pytree, as `Edm`. The network maps ``[h, k]`` to ``[h, k]``."""

    params: Params
    points: Float[Array, "k d"]
    apply: Apply = struct.field(pytree_node=False)

    def logits(self, log_likelihood: Float[Array, "h k"]) -> Float[Array, "h k"]:
        """Of the posterior of every step's point, from any evidence about each step alone, up to constants."""
        own = log_likelihood - jnp.max(log_likelihood, axis=1, keepdims=True)
        return jnp.maximum(own, FAINT) + self.apply(self.params, amplitudes(own), jnp.zeros(()))

    def log_likelihood(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h k"]:
        """l of (4b). With a level for every entry a row is as noisy as its noisiest; a known row is at `CLEAN`."""
        level = jnp.broadcast_to(sigma, x.shape).max(axis=1, keepdims=True)
        level = jnp.where(level > 0, level, CLEAN)
        return -jnp.sum((x[:, None] - self.points[None]) ** 2, axis=-1) / (2 * level**2)

    def posterior(self, log_likelihood: Float[Array, "h k"]) -> Float[Array, "h k"]:
        """The learned distribution of every step's point, given evidence."""
        return jax.nn.softmax(self.logits(log_likelihood))

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x]: a mean of points, ``[h, d]``."""
        return counted("network_evals", self.posterior(self.log_likelihood(x, sigma)) @ self.points)


def amplitudes(logits: Float[Array, "h k"]) -> Float[Array, "h k"]:
    """The root of each step's distribution, at unit mean square: what networks read. From logits, so that 0 has a
    gradient.
    """
    return jnp.exp(jax.nn.log_softmax(logits) / 2) * jnp.sqrt(float(logits.shape[1]))


def scaled(apply: Apply, params: Params, x: Float[Array, "h d"], sigma: Level, sigma_data: float = 1.0) -> Array:
    """F(c_in x, c_noise): a network's output at level sigma, every entry of its input scaled to unit variance (4).

    With a level for every entry, c_noise is that of the noisiest: known entries keep their full strength.
    """
    return apply(params, x / jnp.sqrt(sigma**2 + sigma_data**2), jnp.log(jnp.max(sigma)) / 4)


@runtime_checkable
class NoiseLevels(Protocol):
    """A distribution of training noise levels, see `diffplan.noise`."""

    def draw(self, key: PRNGKey) -> Scalar:
        """One sigma."""
        ...


def noised(key: PRNGKey, x0: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "h d"]:
    """Equation (1)."""
    return x0 + sigma * jax.random.normal(key, x0.shape)


def pinned(denoise: Denoise, pins: Pins) -> Denoise:
    """Condition on known entries: they enter clean, at level 0, and leave as they are. Wrap it around everything
    else.
    """

    def wrapped(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        known = jnp.where(pins.mask, pins.value, x)
        return jnp.where(pins.mask, pins.value, denoise(known, jnp.where(pins.mask, 0.0, sigma)))

    return wrapped


def loss(
    key: PRNGKey, denoise: Denoise, x0: Float[Array, "h d"], mask: Bool[Array, "h d"], levels: NoiseLevels
) -> tuple[Scalar, dict[str, Scalar]]:
    """Denoising loss of one window, at one random noise level, with data of unit standard deviation.

    Entries under `mask` stay clean and cost nothing, through the very wrapper that pins them in sampling: what will be
    conditioned in sampling is conditioned in training. Returns (loss, {"sigma", "error"}).
    """
    key_sigma, key_noise = jax.random.split(key)
    sigma = levels.draw(key_sigma)
    estimate = pinned(denoise, Pins(mask, x0))(noised(key_noise, x0, sigma), sigma)
    error = jnp.mean((estimate - x0) ** 2)
    return error * (1 + sigma**2) / sigma**2, {"sigma": sigma, "error": error}


def categorical_loss(
    key: PRNGKey,
    model: CategoricalDenoiser,
    path: Int[Array, "h"],
    levels: NoiseLevels,
    mask: Bool[Array, "h d"] | None = None,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Cross-entropy of the points of one path, noised to one random level, under the model's posterior (4b).

    Entries under `mask`, if there is one, stay clean.
    """
    key_sigma, key_noise = jax.random.split(key)
    sigma = levels.draw(key_sigma)
    x0 = model.points[path]
    x, level = noised(key_noise, x0, sigma), sigma
    if mask is not None:
        x, level = jnp.where(mask, x0, x), jnp.where(mask, 0.0, sigma)
    log_p = jax.nn.log_softmax(model.logits(model.log_likelihood(x, level)))
    return -jnp.mean(jnp.take_along_axis(log_p, path[:, None], axis=1)), {"sigma": sigma}
