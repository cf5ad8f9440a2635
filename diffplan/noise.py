"""Noise levels: grids for sampling, distributions for training.

A plan at noise level sigma is ``x_sigma = x0 + sigma * eps`` (1), with sigma in standard deviations of the data.
Samplers walk a grid sigma_1 > ... > sigma_n > 0; the last step, from sigma_n to 0, is always ``x0 = D(x, sigma_n)``.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.settings import more_than, require, settings
from diffplan.types import PRNGKey, Scalar


@settings("noise")
class NoiseSettings:
    """Noise levels, in standard deviations of the data."""

    low: Annotated[float, more_than(0)] = 0.02
    """Smallest level, in training and in sampling."""
    high: Annotated[float, more_than(0)] = 10.0
    """Largest level: where sampling starts."""

    def check(self) -> None:
        """Raise ConfigError unless low is below high."""
        require(self.low < self.high, "noise.low", self.low, f"below noise.high ({self.high})")


def karras(
    steps: int,
    sigma_min: float | Scalar,
    sigma_max: float | Scalar,
    rho: float = 7.0,
    shift: float | Scalar = 0.0,
) -> Float[Array, "steps"]:
    """Grid of `steps` levels from sigma_max down to sigma_min, even in sigma^(1/rho) (Karras et al. 2022, eq. 5).

    shift: by how much of a step the levels between the two ends are moved down, from -1 to 1.
    """
    ramp = jnp.linspace(0.0, 1.0, steps)
    ramp += jnp.where((ramp > 0) & (ramp < 1), shift / max(1, steps - 1), 0.0)
    return (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def log_linear(steps: int, sigma_min: float, sigma_max: float) -> Float[Array, "steps"]:
    """Grid of `steps` levels from sigma_max down to sigma_min, even in log sigma."""
    return jnp.exp(jnp.linspace(jnp.log(sigma_max), jnp.log(sigma_min), steps))


@struct.dataclass
class LogNormal:
    """Training levels log sigma ~ N(mean, std^2) (Karras et al. 2022, section 5)."""

    mean: float = -0.4
    std: float = 1.4

    def draw(self, key: PRNGKey) -> Scalar:
        """One sigma."""
        return jnp.exp(self.mean + self.std * jax.random.normal(key))


@struct.dataclass
class LogUniform:
    """Training levels even in log sigma between low and high: every level of a sampling grid counts the same."""

    low: float = 0.02
    high: float = 20.0

    def draw(self, key: PRNGKey) -> Scalar:
        """One sigma."""
        return jnp.exp(jax.random.uniform(key, minval=jnp.log(self.low), maxval=jnp.log(self.high)))
