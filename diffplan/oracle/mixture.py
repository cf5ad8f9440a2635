"""A mixture of Gaussians: a prior with modes, of which everything is known that is known of its components.

With weights v_k and components N(m_k, S_k) (`diffplan.oracle.gaussian`), noised to sigma, r_k(x) the posterior of k:

    log p_sigma(x) = log sum_k v_k N(x; m_k, S_k + sigma^2 I),    D(x, sigma) = sum_k r_k(x) D_k(x, sigma)    (23)

The tilt by a linear or quadratic reward is again a mixture: every component tilts by itself (22), and its weight
becomes v_k Z_k / Z. For any other reward, expectations over the posterior of x0 are sums over components and
Gauss-Hermite nodes z_j with weights a_j, exact up to the number of nodes:

    E[f(x0) | x_sigma = x] = sum_k r_k(x) sum_j a_j f(D_k(x, sigma) + V_k^1/2 z_j),  V_k as in (10)         (24)

With (24) every energy in use is known for every reward, for plans of one or two entries.
"""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jaxtyping import Array, Float

from diffplan.oracle.gaussian import Gaussian
from diffplan.types import Energy, PRNGKey, Scalar

Reward = Callable[[Float[Array, "h d"]], Scalar]


class Mixture(NamedTuple):
    """m components over flattened plans of k = h * d entries; build it with `mixture`.

    log_weights: ``[m]``; means, eigenvalues: ``[m, k]``; eigenvectors: ``[m, k, k]``, see `Gaussian`; shape: (h, d).
    """

    log_weights: Float[Array, "m"]
    means: Float[Array, "m k"]
    eigenvalues: Float[Array, "m k"]
    eigenvectors: Float[Array, "m k k"]
    shape: tuple[int, int]

    def each(self, function: Callable[[Gaussian], Any]) -> Any:
        """`function` of every component, stacked."""
        build = lambda mean, values, vectors: function(Gaussian(mean, values, vectors, self.shape))
        return jax.vmap(build)(self.means, self.eigenvalues, self.eigenvectors)

    def _joint(self, x: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "m"]:
        """log of v_k N(x; m_k, S_k + sigma^2 I)."""
        return self.log_weights + self.each(lambda part: part.log_density(x, sigma))

    def log_density(self, x: Float[Array, "h d"], sigma: Scalar) -> Scalar:
        """log p_sigma(x) (23)."""
        return logsumexp(self._joint(x, sigma))

    def denoise(self, x: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "h d"]:
        """The exact denoiser (23)."""
        return jnp.tensordot(jax.nn.softmax(self._joint(x, sigma)), self.each(lambda part: part.denoise(x, sigma)), 1)

    def draw(self, key: PRNGKey) -> Float[Array, "h d"]:
        """One plan, exactly."""
        key_part, key_plan = jax.random.split(key)
        return self.each(lambda part: part.draw(key_plan))[jax.random.categorical(key_part, self.log_weights)]

    def tilted(
        self, slope: Float[Array, "h d"], weight: float | Scalar = 1.0, curvature: Float[Array, "k k"] | None = None
    ) -> tuple["Mixture", Scalar]:
        """The distribution p(x) exp(weight * (slope . x - x'curvature x / 2)) / Z, and log Z; errors as in
        `Gaussian.tilted`.
        """

        def part(part: Gaussian) -> tuple[Array, Array, Array, Array]:
            distribution, log_z = part.tilted(slope, weight, curvature)
            return log_z, distribution.mean, distribution.eigenvalues, distribution.eigenvectors

        log_zs, means, eigenvalues, eigenvectors = self.each(part)
        joint = self.log_weights + log_zs
        return Mixture(joint - logsumexp(joint), means, eigenvalues, eigenvectors, self.shape), logsumexp(joint)

    def mean(self) -> Float[Array, "h d"]:
        """E[x0]."""
        return jnp.tensordot(jnp.exp(self.log_weights), self.means, 1).reshape(self.shape)

    def log_posterior(self, reward: Reward, x: Float[Array, "h d"], sigma: Scalar, nodes: int) -> tuple[Array, Array]:
        """The quadrature of (24): (values of `reward` ``[m, nodes^k]``, log of their posterior weights)."""
        z, log_a = hermite(nodes, self.means.shape[1])

        def values(part: Gaussian) -> Float[Array, "j"]:
            std = jnp.sqrt(part.eigenvalues * sigma**2 / (part.eigenvalues + sigma**2))
            at = part.denoise(x, sigma).ravel()[None] + (z * std[None]) @ part.eigenvectors.T
            return jax.vmap(lambda x0: reward(x0.reshape(self.shape)))(at)

        return self.each(values), jax.nn.log_softmax(self._joint(x, sigma))[:, None] + log_a[None]

    def energy(
        self, reward: Reward, weight: float | Scalar, kind: Literal["exact", "regression", "classifier"], nodes: int = 9
    ) -> Energy:
        """An energy of science's five rules that needs the posterior of x0, by (24); the weight is in it.

        exact: log E[exp(w r(x0)) | x]. regression: w E[r(x0) | x]. classifier: w log E[exp(r(x0)) | x], the log
        probability of a class that a clean plan has with probability exp(r), scaled. The other two, DPS and raw,
        are `diffplan.guide`'s.
        """

        def energy(x: Float[Array, "h d"], sigma: Scalar) -> Scalar:
            values, log_p = self.log_posterior(reward, x, sigma, nodes)
            match kind:
                case "exact":
                    return logsumexp(log_p + weight * values)
                case "regression":
                    return weight * jnp.sum(jnp.exp(log_p) * values)
                case "classifier":
                    return weight * logsumexp(log_p + values)

        return energy


def mixture(
    weights: Float[Array, "m"], means: Float[Array, "m k"], covariances: Float[Array, "m k k"], shape: tuple[int, int]
) -> Mixture:
    """A mixture from probabilities, means and covariances of the flattened plan.

    Raises:
        ValueError: if the weights are not positive or do not sum to one.
    """
    if not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
        raise ValueError(f"weights={weights.tolist()}: must be positive and sum to 1")
    eigenvalues, eigenvectors = jnp.linalg.eigh(covariances)
    return Mixture(jnp.log(weights), means, eigenvalues, eigenvectors, shape)


def hermite(nodes: int, dimension: int) -> tuple[Float[np.ndarray, "j k"], Float[np.ndarray, "j"]]:
    """Nodes of N(0, I) and the logarithms of their weights: the product of one-dimensional Gauss-Hermite rules."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    z = np.array(list(product(points, repeat=dimension)), np.float32)
    log_a = np.array([sum(row) for row in product(np.log(weights / weights.sum()), repeat=dimension)], np.float32)
    return z, log_a
