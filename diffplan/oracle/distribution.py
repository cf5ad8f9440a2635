"""What an exact answer offers, and what follows from it alone.

A distribution p of plans, noised to level sigma, has a density p_sigma(x) and a denoiser E[x0 | x_sigma = x]. Tilted
by a reward it becomes p_w(x) = p(x) exp(w r(x)) / Z(w), a distribution of the same kind. So the exact energy of
guidance is a ratio of two noised densities, whatever the distribution:

    log E[exp(w r(x0)) | x_sigma = x] = log Z(w) + log p_w,sigma(x) - log p_sigma(x)                  (16)

and guiding p's denoiser by it, with scale 1 in (3), gives p_w's denoiser. Everything about the tilt stands in log Z:

    E_w[r] = (log Z)'      Var_w[r] = (log Z)''      KL(p_w || p) = w E_w[r] - log Z                  (17)
    chi^2(p_w || p) = Z(2w) / Z(w)^2 - 1             largest ratio p_w / p = exp(w max r - log Z)
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from diffplan.types import Energy, Scalar


@runtime_checkable
class Distribution(Protocol):
    """A distribution of plans whose noised density and denoiser are known."""

    @property
    def shape(self) -> tuple[int, int]:
        """(h, d) of a plan."""
        ...

    def log_density(self, x: Float[Array, "h d"], sigma: Scalar) -> Scalar:
        """log p_sigma(x), of the distribution noised to sigma."""
        ...

    def denoise(self, x: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x], exact."""
        ...


def exact_energy(prior: Distribution, tilted: Distribution, log_z: Scalar | float = 0.0) -> Energy:
    """Equation (16). Its weight is in it: guide with scale 1. Without `log_z` it is exact up to that constant."""
    return lambda x, sigma: log_z + tilted.log_density(x, sigma) - prior.log_density(x, sigma)


class Tilt(NamedTuple):
    """The numbers of (17) at one weight; nats where they are divergences."""

    weight: Scalar
    log_z: Scalar
    reward: Scalar
    """E_w[r]"""
    variance: Scalar
    """Var_w[r]"""
    kl: Scalar
    chi2: Scalar
    log_ratio: Scalar
    """The logarithm of the largest ratio p_w(x) / p(x); infinite where the reward is unbounded."""


def tilt_numbers(log_z: Callable[[Scalar], Scalar], weight: float | Scalar, most: float | Scalar = jnp.inf) -> Tilt:
    """Equation (17), by differentiating the exact log Z.

    Args:
        log_z: the logarithm of the partition function, of the weight.
        weight: w >= 0.
        most: the largest reward that the prior can draw.

    Raises:
        ValueError: for a negative weight; tilt by the negated reward.
    """
    nonnegative("weight", weight)
    weight = jnp.asarray(weight, float)
    value, mean = jax.value_and_grad(log_z)(weight)
    variance = jax.grad(jax.grad(log_z))(weight)
    chi2 = jnp.expm1(log_z(2 * weight) - 2 * value)
    log_ratio = jnp.where(weight > 0, weight * most - value, 0.0)
    return Tilt(weight, value, mean, variance, weight * mean - value, chi2, log_ratio)


def nonnegative(name: str, weight: float | Scalar) -> None:
    """Refuse a negative weight, or one that is not a number, by name; a traced one cannot be looked at.

    Raises:
        ValueError: naming the argument and its value.
    """
    if not isinstance(weight, Tracer) and not np.all(np.asarray(weight) >= 0):
        raise ValueError(f"{name}={np.min(np.asarray(weight)):g}: must be 0 or more")
