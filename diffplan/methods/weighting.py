"""Two rules that weigh candidates by their scores.

Each gives the logarithms of weights, up to a constant, and -inf where a score is not finite:

    Elite(fraction)        w = 1 on the fraction of candidates with the highest scores, else 0
    Softmax(temperature)   w = exp(score / temperature)                                                        (94)
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Weigh = Callable[[Float[Array, "p"]], Float[Array, "p"]]
"""From the scores of candidates to the logarithms of their weights."""


@dataclass(frozen=True)
class Elite:
    """Equal weights on the best fraction of candidates, at least one."""

    fraction: float = 0.1

    def __call__(self, score: Float[Array, "p"]) -> Float[Array, "p"]:
        """0 or -inf."""
        finite = jnp.isfinite(score)
        rank = jnp.argsort(jnp.argsort(-jnp.where(finite, score, -jnp.inf)))
        return jnp.where((rank < max(1, round(self.fraction * len(score)))) & finite, 0.0, -jnp.inf)


@dataclass(frozen=True)
class Softmax:
    """Weights that grow with the score, by e for every `temperature` standard deviations of it."""

    temperature: float = 0.5

    def __call__(self, score: Float[Array, "p"]) -> Float[Array, "p"]:
        """score / temperature."""
        return jnp.where(jnp.isfinite(score), score / self.temperature, -jnp.inf)


CROSS_ENTROPY = Elite(0.1)
"""The weights of the cross-entropy method."""


def normalised(log_weights: Float[Array, "p"]) -> Float[Array, "p"]:
    """Weights that sum to 1; equal where no candidate has any."""
    return jax.nn.softmax(jnp.where(jnp.any(log_weights > -jnp.inf), log_weights, 0.0))
