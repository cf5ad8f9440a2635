"""Learned rewards, fitted on N labelled windows: the proxies that every optimiser pushes.

With r the label (a return, standardised over the labelled windows) and x_sigma = x0 + sigma eps:

    regression   min E (f(x_sigma, sigma) - r)^2                         f -> E[r | x_sigma]                (13)
    classifier   min E BCE(f(x_sigma, sigma), r in the top quantile)     sigmoid(f) -> p(y | x_sigma)       (14)

Noise-conditioned, sigma is drawn as in training the denoiser; without noise conditioning sigma is 0, and the network is
a reward of clean plans that has never seen a noisy one. Entries that sampling will pin stay clean here too.
"""

from collections.abc import Callable
from dataclasses import field, replace
from typing import Annotated, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan.data.stream import Data
from diffplan.denoise import CLEAN, NoiseLevels, noised, scaled
from diffplan.guide import Ensemble, Learned
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import Size, Value, build
from diffplan.noise import LogUniform, NoiseSettings
from diffplan.runs import Recorder
from diffplan.settings import INSIDE, SIZE, at_least, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar

PROXIES = ("regression", "classifier", "clean")
"""The learned rewards: noise-conditioned regression and classifier, and a regression that never sees noise."""

Standardised = TypeVar("Standardised", Learned, Ensemble)


@settings("proxy")
class ProxySettings:
    """The learned rewards: regression, classifier and clean regression, fitted on the same labels."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=600, batch=64))
    labels: Annotated[int, at_least(2, 2**24)] = 1000
    """N, the number of labelled windows."""
    quantile: Annotated[float, INSIDE] = 0.9
    """The classifier's class is a return at or above this quantile of the labels."""
    width: Annotated[int, SIZE] = 64
    """Width of a token."""
    depth: Annotated[int, SIZE] = 2
    """Number of blocks."""
    patch: Annotated[int, SIZE] = 2
    """Steps to a token."""


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


def top_class(returns: Float[Array, "n"], quantile: float) -> Float[Array, "n"]:
    """1 where a return reaches the quantile, else 0: the target of (14).

    Where the quantile is the lowest return, the class is all returns above the lowest.

    Raises:
        ValueError: if all returns are the same, so that there is nothing to learn.
    """
    above = jnp.min(jnp.where(returns > returns.min(), returns, jnp.inf))
    if not bool(jnp.isfinite(above)):
        raise ValueError(f"labels: all {len(returns)} windows have the same return; use more, or another reward")
    return (returns >= jnp.maximum(jnp.quantile(returns, quantile), above)).astype(jnp.float32)


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


def network(config: ProxySettings, horizon: int, dim: int) -> tuple[Apply, Params]:
    """The network of every proxy, as (apply, params)."""
    size = Size(config.patch, config.width, config.depth)
    return build(jax.random.key(config.train.seed), lambda rngs: Value(horizon, dim, size, rngs=rngs))


def fit(
    kind: str,
    labelled: Labelled,
    config: ProxySettings,
    levels: NoiseSettings,
    recorder: Recorder = SILENT,
    make: Callable[..., Task] = task,
) -> Learned:
    """Fit a proxy of one of the `PROXIES` on labelled windows; its score has no unit yet (`standardised`).

    make: ``(apply, error, levels) -> task``, how it learns.
    """
    model = untrained(kind, config, *labelled.x.shape[1:])
    error = classifier_error if kind == "classifier" else regression_error
    learning = make(model.apply, error, None if kind == "clean" else LogUniform(levels.low, levels.high))
    return replace(model, params=train(learning, model.params, labelled, config.train, recorder))


def untrained(kind: str, config: ProxySettings, horizon: int, dim: int) -> Learned:
    """The network of `fit`, as it is initialised."""
    apply, params = network(config, horizon, dim)
    return Learned(params, jnp.zeros(()), jnp.ones(()), apply, "classifier" if kind == "classifier" else "regression")


def standardised(proxy: Standardised, windows: Data) -> Standardised:
    """A proxy whose centre is 0 and std 1, so that its score is standardised over windows of the data."""
    scores = jax.jit(jax.vmap(proxy.score))(windows.draws(jax.random.key(2), 2048))
    return replace(proxy, centre=scores.mean(), std=scores.std())
