"""Learned rewards, fitted on N labelled windows: the proxies that every optimiser pushes.

With r the label (a return, standardised over the labelled windows) and x_sigma = x0 + sigma eps:

    regression   min E (f(x_sigma, sigma) - r)^2                         f -> E[r | x_sigma]                (13)
    classifier   min E BCE(f(x_sigma, sigma), r in the top quantile)     sigmoid(f) -> p(y | x_sigma)       (14)

Noise-conditioned, sigma is drawn as in training the denoiser; without noise conditioning sigma is 0, and the network is
a reward of clean plans that has never seen a noisy one. Entries that sampling will pin stay clean here too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan.denoise import CLEAN, NoiseLevels, noised, scaled
from diffplan.learn.train import Task
from diffplan.types import Apply, Params, PRNGKey, Scalar


@struct.dataclass
class Labelled:
    """Labelled windows on the device: plans ``[n, h, d]``, targets ``[n]``, entries that stay clean ``[h, d]``."""

    x: Float[Array, "n h d"]
    target: Float[Array, "n"]
    mask: Bool[Array, "h d"]

    def draw(self, key: PRNGKey) -> tuple[Float[Array, "h d"], Scalar, Bool[Array, "h d"]]:
        """One labelled window, uniformly."""
        index = jax.random.randint(key, (), 0, len(self.target))
        return self.x[index], self.target[index], self.mask


def standardised_returns(returns: Float[Array, "n"]) -> Float[Array, "n"]:
    """Returns in standard deviations from their mean: the target of (13)."""
    return (returns - returns.mean()) / jnp.maximum(returns.std(), 1e-6)


def top_quantile(returns: Float[Array, "n"], quantile: float) -> Float[Array, "n"]:
    """1 where a return reaches the quantile, else 0: the target of (14).

    Raises:
        ValueError: if the labels fall into one class, so that there is nothing to learn.
    """
    target = (returns >= jnp.quantile(returns, quantile)).astype(jnp.float32)
    if not 0 < float(target.mean()) < 1:
        raise ValueError(f"quantile={quantile}: all {len(returns)} labels fall into one class; use more labels")
    return target


def regression_error(output: Scalar, target: Scalar) -> Scalar:
    """Equation (13)."""
    return (output - target) ** 2


def classifier_error(output: Scalar, target: Scalar) -> Scalar:
    """Equation (14)."""
    return optax.sigmoid_binary_cross_entropy(output, target)


def task(apply: Apply, error: Callable[[Scalar, Scalar], Scalar], levels: NoiseLevels | None) -> Task:
    """(13) or (14) as a training task on `Labelled` data; without `levels` the network sees clean plans alone.

    A network without noise conditioning is given the constant level `CLEAN`, at which its clean plans will be read.
    """

    def loss(params: Params, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        x0, target, mask = example
        key_sigma, key_noise = jax.random.split(key)
        sigma = jnp.asarray(CLEAN) if levels is None else levels.draw(key_sigma)
        x = x0 if levels is None else jnp.where(mask, x0, noised(key_noise, x0, sigma))
        return error(scaled(apply, params, x, jnp.where(mask, 0.0, sigma)), target), {"sigma": sigma}

    return Task(loss, lambda key, data: data.draw(key))
