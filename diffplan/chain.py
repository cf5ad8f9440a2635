"""A hidden Markov chain of rows, and its exact denoiser.

Row t of a plan belongs to one of k states z_t. The states are a Markov chain, and within a state rows are Gaussian:

    p(z) = start(z_1) prod_t kernel(z_t, z_t+1),        x0_t | z_t = i  ~  N(c_i, diag v)                    (138)

Noise of level sigma adds sigma^2 to v. So with l_t(i) = N(x_t; c_i, diag (v + sigma^2)) the posterior of the states is
that of forward and backward messages (Rabiner 1989, section III), and the posterior mean of a row follows:

    a_t+1 = kernel^T (a_t l_t),     b_t = kernel (b_t+1 l_t+1),     gamma_t ~ a_t l_t b_t                   (139)
    M(x, sigma)_t = (v x_t + sigma^2 sum_i gamma_t(i) c_i) / (v + sigma^2) = E[x0_t | x_sigma = x]          (140)

products by entries, each message rescaled to sum to 1. What the chain holds of the world is which state may follow
which: a step that behaviour never takes, as through a wall, has next to no weight at any noise level.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.types import Level

LEAST = -40.0
"""Nats below the likeliest state at which a row's own evidence against another ends: products stay above 0."""

UNROLL = 8
"""Rows that are compiled one after another: with 512 states a third faster on a CPU than a loop."""

TINY = 1e-37
"""The least sum that weights are divided by."""


@struct.dataclass
class Chain:
    """The chain (138), in normalised units. kernel: row i holds the probabilities of what follows state i."""

    start: Float[Array, "k"]
    kernel: Float[Array, "k k"]
    centres: Float[Array, "k d"]
    variance: Float[Array, "d"]

    def posterior(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h k"]:
        """The distribution of every row's state (139), given the noisy plan. Entries at level 0 are known."""
        likelihood = self.likelihood(x, sigma)

        def step(messages: tuple[Array, Array], own: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
            (a, b), (first, last) = messages, own
            return (distribution(a * first) @ self.kernel, self.kernel @ distribution(b * last)), messages

        ends = self.start, jnp.ones_like(self.start)
        earlier, later = jax.lax.scan(step, ends, (likelihood, likelihood[::-1]), unroll=UNROLL)[1]
        return jax.vmap(distribution)(earlier * likelihood * later[::-1])

    def likelihood(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h k"]:
        """l of (139), each row's over its largest."""
        precision = 1 / (self.variance[None] + jnp.broadcast_to(sigma, x.shape) ** 2)
        # The squares, times a number that changes with the noise: XLA would hoist them out of a sampling loop once per
        # call, and then no longer see that a guided and an unguided evaluation are the same (1.4 times the cost).
        most = precision.max()
        squares = (most * self.centres) * self.centres
        log = (precision * x) @ self.centres.T - (precision / most) @ squares.T / 2
        return jnp.exp(jnp.maximum(log - log.max(axis=1, keepdims=True), LEAST))

    def mean(self, posterior: Float[Array, "h k"], x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """M of (140), from the posterior of the states."""
        variance, level = self.variance[None], sigma**2
        return (variance * x + level * (posterior @ self.centres)) / (variance + level)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """The chain by itself as a denoiser: E[x0 | x_sigma = x], exact for plans of (138)."""
        return self.mean(self.posterior(x, sigma), x, sigma)


def distribution(weights: Float[Array, "k"]) -> Float[Array, "k"]:
    """Weights over their sum; 0 where all are 0."""
    return weights / jnp.maximum(weights.sum(), TINY)
