"""A Gaussian prior with a linear or quadratic reward: everything is known.

With the flattened plan x0 ~ N(m, S), the reward r(x) = c.x and x_sigma = x0 + sigma eps:

    D(x, sigma) = m + S (S + sigma^2 I)^-1 (x - m)                                       (9)
    log E[exp(w r(x0)) | x] = w c.D(x, sigma) + w^2 c'V c / 2,  V = S - S (S + sigma^2 I)^-1 S          (10)
    p(x) exp(w r(x)) / Z = N(m + w S c, S),   KL to the prior w^2 c'S c / 2              (11)

The gradient of (10) is w times that of c.D: so ``guided(D, energy, guide=w)`` with the energy c.D is exact at every w.

With a quadratic reward r(x) = c.x - x'Qx / 2, as of a linear-Gaussian control problem, write x0 = m + L z, S = L L':

    p(z) exp(w r) is proportional to exp(-z'A z / 2 + b.z),   A = I + w L'Q L,   b = w L'(c - Q m)       (22)
    p_w = N(m + L A^-1 b, L A^-1 L'),   log Z = w (c.m - m'Qm / 2) + b'A^-1 b / 2 - log det A / 2

which holds for a singular S too: noiseless dynamics, where plans fill a plane. Its mean is the LQG plan.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffplan.oracle.distribution import nonnegative
from diffplan.types import Energy, PRNGKey, Scalar


@struct.dataclass
class Gaussian:
    """The distribution N(mean, covariance) of a flattened plan, k = h * d, with the shape it unflattens to.

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

    def log_density(self, x: Float[Array, "h d"], sigma: Scalar) -> Scalar:
        """log N(x; m, S + sigma^2 I)."""
        variances = self.eigenvalues + sigma**2
        square = (self.eigenvectors.T @ (x.ravel() - self.mean)) ** 2 / variances
        return -jnp.sum(square + jnp.log(2 * np.pi * variances)) / 2

    def draw(self, key: PRNGKey) -> Float[Array, "h d"]:
        """One plan, exactly."""
        normal = jax.random.normal(key, self.mean.shape)
        return (self.mean + self.root @ normal).reshape(self.shape)

    @property
    def root(self) -> Float[Array, "k k"]:
        """L with L L' = S; eigenvalues that rounding made negative count as 0."""
        return self.eigenvectors * jnp.sqrt(jnp.maximum(self.eigenvalues, 0.0))[None]

    def energy(self, direction: Float[Array, "h d"]) -> Energy:
        """The exact energy of r(x) = sum(direction * x), up to a constant in x: E[r(x0) | x]."""
        return lambda x, sigma: jnp.sum(direction * self.denoise(x, sigma))

    def tilt(self, direction: Float[Array, "h d"], weight: float) -> "Gaussian":
        """Equation (11): the distribution p(x) exp(weight * r(x)) / Z."""
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

    def tilted(
        self, slope: Float[Array, "h d"], weight: float | Scalar = 1.0, curvature: Float[Array, "k k"] | None = None
    ) -> tuple["Gaussian", Scalar]:
        """Equation (22): the distribution p(x) exp(weight * (slope . x - x'curvature x / 2)) / Z, and log Z.

        Raises:
            ValueError: if the weight is negative: there may be no such distribution.
        """
        nonnegative("weight", weight)
        c, m, root = slope.ravel(), self.mean, self.root
        q = jnp.zeros((m.size, m.size)) if curvature is None else curvature
        a = jnp.eye(m.size) + weight * root.T @ q @ root
        b = weight * root.T @ (c - q @ m)
        shift = jnp.linalg.solve(a, b)
        log_z = weight * (c @ m - m @ q @ m / 2) + b @ shift / 2 - jnp.linalg.slogdet(a)[1] / 2
        distribution = Gaussian.of(m + root @ shift, root @ jnp.linalg.solve(a, root.T), self.shape)
        return distribution, log_z
