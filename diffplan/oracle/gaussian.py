"""A Gaussian prior with a linear reward: everything is known.

With the flattened plan x0 ~ N(m, S), the reward r(x) = c.x and x_sigma = x0 + sigma eps:

    D(x, sigma) = m + S (S + sigma^2 I)^-1 (x - m)                                       (9)
    log E[exp(w r(x0)) | x] = w c.D(x, sigma) + w^2 c'V c / 2,  V = S - S (S + sigma^2 I)^-1 S          (10)
    p(x) exp(w r(x)) / Z = N(m + w S c, S),   KL to the prior w^2 c'S c / 2              (11)

The gradient of (10) is w times that of c.D: so ``guided(D, energy, guide=w)`` with the energy c.D is exact at every w.
"""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.types import Energy, Scalar


@struct.dataclass
class Gaussian:
    """The law N(mean, covariance) of a flattened plan, k = h * d, with the shape it unflattens to.

    The covariance is held as its eigenvalues ``[k]`` and eigenvectors ``[k, k]``: in that basis every map below is
    diagonal.
    """

    mean: Float[Array, "k"]
    eigenvalues: Float[Array, "k"]
    eigenvectors: Float[Array, "k k"]
    shape: tuple[int, int] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, mean: Float[Array, "k"], covariance: Float[Array, "k k"], shape: tuple[int, int]) -> "Gaussian":
        """From the mean and covariance of the flattened plan."""
        values, vectors = jnp.linalg.eigh(covariance)
        return cls(mean, values, vectors, shape)

    @property
    def covariance(self) -> Float[Array, "k k"]:
        """S."""
        return (self.eigenvectors * self.eigenvalues[None]) @ self.eigenvectors.T

    def _scaled(self, x: Float[Array, "h d"], scale: Float[Array, "k"]) -> Float[Array, "h d"]:
        """x with its deviation from the mean scaled along each eigenvector."""
        deviation = self.eigenvectors @ (scale * (self.eigenvectors.T @ (x.ravel() - self.mean)))
        return (self.mean + deviation).reshape(self.shape)

    def denoise(self, x: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "h d"]:
        """Equation (9): the exact denoiser."""
        return self._scaled(x, self.eigenvalues / (self.eigenvalues + sigma**2))

    def energy(self, direction: Float[Array, "h d"]) -> Energy:
        """The exact energy of r(x) = sum(direction * x), up to a constant in x: E[r(x0) | x]."""
        return lambda x, sigma: jnp.sum(direction * self.denoise(x, sigma))

    def tilt(self, direction: Float[Array, "h d"], weight: float) -> "Gaussian":
        """Equation (11): the law p(x) exp(weight * r(x)) / Z."""
        return replace(self, mean=self.mean + weight * self.covariance @ direction.ravel())

    def tilt_kl(self, direction: Float[Array, "h d"], weight: float) -> Scalar:
        """KL(tilted || prior) in nats (11)."""
        c = direction.ravel()
        return weight**2 * c @ self.covariance @ c / 2

    def flow(self, x: Float[Array, "h d"], sigma: Scalar, sigma_next: Scalar) -> Float[Array, "h d"]:
        """Where the probability-flow ODE carries x from level sigma to sigma_next, exactly.

        Along an eigenvector of S with eigenvalue l, the deviation from the mean scales as sqrt(l + sigma^2).
        """
        return self._scaled(x, jnp.sqrt((self.eigenvalues + sigma_next**2) / (self.eigenvalues + sigma**2)))
