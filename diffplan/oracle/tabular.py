"""Plans through finitely many states: everything is known, by messages along the chain.

A chain draws states s_1, ..., s_h with p(s) = start(s_1) prod_t kernel_t(s_t, s_t+1), and the plan x0 = points[s]. An
additive reward R(s) = sum_t w_t(s_t) tilts it to another chain, by backward messages (Todorov 2007; Levine 2018):

    b_h = 0,   b_t(s) = log sum_s' kernel_t(s, s') exp(w_t+1(s') + b_t+1(s'))                         (18)
    kernel'_t(s, s') = kernel_t(s, s') exp(w_t+1(s') + b_t+1(s') - b_t(s)),   Z = sum_s start(s) exp(w_1(s) + b_1(s))

A noisy plan is evidence about every state, and the distribution of the states given it comes from a filter along the
chain:

    log p_sigma(x) = log sum_s p(s) exp(sum_t l_t(s_t)),    l_t(s) = log N(x_t; points[s], sigma^2 I)   (19)
    D(x, sigma) = sum_s p(s_t = s | x) points[s],                  p(s_t = s | x) = d log p_sigma(x) / d l_t(s)

Illegal moves have log-probability -inf, never a small number:
a large weight would buy them. (18) is done in logarithms, so that any weight is exact; (19), which samplers evaluate by
the million, in probabilities rescaled at every step, as matrix products.

A prior with memory is a chain too, on states that carry what is remembered: `conditioned` builds one whose goal, or
whatever else, is drawn once and holds for the whole plan.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.nn import logsumexp
from jaxtyping import Array, Float, Int

from diffplan.oracle.distribution import nonnegative
from diffplan.types import PRNGKey, Scalar


class Chain(NamedTuple):
    """A Markov chain of h steps over k states, embedded as plans of width d. Build it with `markov`.

    log_start: ``[k]``; log_kernels: ``[h - 1, k, k]``, from row to column; points: ``[k, d]``, model units.
    """

    log_start: Float[Array, "k"]
    log_kernels: Float[Array, "t k k"]
    points: Float[Array, "k d"]

    @property
    def horizon(self) -> int:
        """h."""
        return len(self.log_kernels) + 1

    @property
    def shape(self) -> tuple[int, int]:
        """(h, d) of a plan."""
        return self.horizon, self.points.shape[1]

    def tilted(self, rewards: Float[Array, "h k"], weight: float | Scalar = 1.0) -> tuple["Chain", Scalar]:
        """Equation (18): the chain p(s) exp(weight * sum_t rewards[t, s_t]) / Z, and log Z.

        Raises:
            ValueError: if the weight is negative, or rewards are not finite.
        """
        nonnegative("weight", weight)
        if not isinstance(rewards, Tracer) and not np.isfinite(np.asarray(rewards)).all():
            raise ValueError("rewards must be finite; forbid a state in the kernel")

        def back(message: Float[Array, "k"], step: tuple[Array, Array]) -> tuple[Array, Array]:
            log_kernel, gain = step
            towards = log_kernel + (gain + message)[None]
            total = logsumexp(towards, axis=1)
            return total, towards - total[:, None]

        gains = weight * rewards
        steps = (self.log_kernels, gains[1:])
        message, log_kernels = jax.lax.scan(back, jnp.zeros(rewards.shape[1]), steps, reverse=True)
        start = self.log_start + gains[0] + message
        return Chain(start - logsumexp(start), log_kernels, self.points), logsumexp(start)

    def log_z(self, rewards: Float[Array, "h k"]) -> Callable[[Scalar], Scalar]:
        """log Z as a function of the weight, for `diffplan.oracle.distribution.tilt_numbers`."""
        return lambda weight: self.tilted(rewards, weight)[1]

    def most(self, rewards: Float[Array, "h k"]) -> Scalar:
        """The largest reward of any path that the chain can draw: (18) with max for the sum."""
        back = lambda best, step: (jnp.max(step[0] + (step[1] + best)[None], axis=1), None)
        possible = jnp.where(jnp.isfinite(self.log_kernels), 0.0, -jnp.inf)
        best, _ = jax.lax.scan(back, jnp.zeros(rewards.shape[1]), (possible, rewards[1:]), reverse=True)
        return jnp.max(jnp.where(jnp.isfinite(self.log_start), rewards[0] + best, -jnp.inf))

    def occupancy(self) -> Float[Array, "h k"]:
        """p(s_t = s), for every step."""
        forward = lambda p, log_kernel: (p @ jnp.exp(log_kernel), p)
        last, before = jax.lax.scan(forward, jnp.exp(self.log_start), self.log_kernels)
        return jnp.concatenate([before, last[None]])

    def expected(self, values: Float[Array, "h k"]) -> Scalar:
        """E[sum_t values[t, s_t]], of the gold or of any other additive quantity."""
        return jnp.sum(self.occupancy() * values)

    def kl(self, other: "Chain") -> Scalar:
        """KL(self || other) in nats, step by step along the chain."""
        gap = lambda p, q: jnp.where(p > -jnp.inf, jnp.exp(p) * (p - q), 0.0).sum(axis=-1)
        steps = jnp.sum(self.occupancy()[:-1] * gap(self.log_kernels, other.log_kernels))
        return gap(self.log_start, other.log_start) + steps

    def draw(self, key: PRNGKey) -> Int[Array, "h"]:
        """One path, exactly."""
        first, *rest = jax.random.split(key, self.horizon)

        def move(s: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
            s = jax.random.categorical(step[0], step[1][s])
            return s, s

        s = jax.random.categorical(first, self.log_start)
        path = jax.lax.scan(move, s, (jnp.stack(rest), self.log_kernels))[1] if rest else jnp.zeros(0, s.dtype)
        return jnp.concatenate([s[None], path])

    def moves(self, states: Int[Array, "h"]) -> Float[Array, "h-1"]:
        """The log-probability of each move of a path."""
        return jax.vmap(lambda log_kernel, s, t: log_kernel[s, t])(self.log_kernels, states[:-1], states[1:])

    def log_prob(self, states: Int[Array, "h"]) -> Scalar:
        """log p(s); -inf for a path that cannot be."""
        return self.log_start[states[0]] + self.moves(states).sum()

    def decode(self, x: Float[Array, "h d"]) -> Int[Array, "h"]:
        """The state nearest to each step of a plan; the first of those that share a point."""
        return jnp.argmin(jnp.sum((x[:, None] - self.points[None]) ** 2, axis=-1), axis=1)

    def legal(self, states: Int[Array, "h"]) -> Float[Array, "h-1"]:
        """1 for each move that the chain can make, else 0."""
        return jnp.isfinite(self.moves(states)).astype(float)

    def filter(self, log_likelihood: Float[Array, "h k"]) -> "Filtered":
        """The forward pass of (19)."""

        def step(before: Float[Array, "k"], inputs: tuple[Array, Array]) -> tuple[Array, Filtered]:
            kernel, l = inputs
            now = weighed(before @ kernel, l)
            return now.distribution, now

        first = weighed(jnp.exp(self.log_start), log_likelihood[0])
        _, rest = jax.lax.scan(step, first.distribution, (jnp.exp(self.log_kernels), log_likelihood[1:]))
        return jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), first, rest)

    def evidence(self, log_likelihood: Float[Array, "h k"]) -> Scalar:
        """log sum_s p(s) exp(sum_t log_likelihood[t, s_t]); -inf where no path fits. Its gradient is the posterior."""
        return self.filter(log_likelihood).log_total.sum()

    def posterior(self, log_likelihood: Float[Array, "h k"]) -> Float[Array, "h k"]:
        """p(s_t = s | evidence), for every step: exactly 0 for what cannot be."""
        forward = self.filter(log_likelihood)

        def back(after: Float[Array, "k"], inputs: tuple[Array, ...]) -> tuple[Array, Array]:
            kernel, likelihood, total = inputs
            return kernel @ (likelihood * after) / total, after

        steps = (jnp.exp(self.log_kernels), forward.likelihood[1:], forward.total[1:])
        first, rest = jax.lax.scan(back, jnp.ones(len(self.log_start)), steps, reverse=True)
        after = jnp.concatenate([first[None], rest])
        return jnp.where(forward.distribution > 0, forward.distribution * after, 0.0)

    def neighbours(self, log_likelihood: Float[Array, "h k"], rows: Float[Array, "h m k"]) -> Float[Array, "h m"]:
        """`evidence` if step t said rows[t, v] instead, for every t and v: one pass each way for all of them.

        log sum_s ahead_t(s) exp(rows[t, v, s]) after_t(s), in logarithms throughout: no step bounds what is in reach.
        """

        def forward(ahead: Float[Array, "k"], inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            l, log_kernel = inputs
            return logsumexp((ahead + l)[:, None] + log_kernel, axis=0), ahead

        def backward(after: Float[Array, "k"], inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            l, log_kernel = inputs
            return logsumexp(log_kernel + (l + after)[None], axis=1), after

        last, ahead = jax.lax.scan(forward, self.log_start, (log_likelihood[:-1], self.log_kernels))
        ends = jnp.zeros(len(self.log_start))
        first, after = jax.lax.scan(backward, ends, (log_likelihood[1:], self.log_kernels), reverse=True)
        both = jnp.concatenate([ahead, last[None]]) + jnp.concatenate([first[None], after])
        return logsumexp(both[:, None] + rows, axis=2)

    def log_likelihood(self, x: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "h k"]:
        """l of (19)."""
        square = jnp.sum((x[:, None] - self.points[None]) ** 2, axis=-1)
        return -square / (2 * sigma**2) - self.points.shape[1] * jnp.log(sigma * np.sqrt(2 * np.pi))

    def log_density(self, x: Float[Array, "h d"], sigma: Scalar) -> Scalar:
        """log p_sigma(x) (19)."""
        return self.evidence(self.log_likelihood(x, sigma))

    def denoise(self, x: Float[Array, "h d"], sigma: Scalar) -> Float[Array, "h d"]:
        """The exact denoiser (19)."""
        return self.posterior(self.log_likelihood(x, sigma)) @ self.points


class Filtered(NamedTuple):
    """What the filter knows after a step: the distribution of the state given the evidence so far, ``[k]``, and its
    pieces.

    likelihood: of the evidence, ``[k]``, in units of its largest among states that can be reached, 0 for the others.
    total: the likelihood expected before the step, in the same units. log_total: its logarithm, in no units.
    """

    distribution: Float[Array, "*h k"]
    likelihood: Float[Array, "*h k"]
    total: Float[Array, "*h"]
    log_total: Float[Array, "*h"]


def weighed(ahead: Float[Array, "k"], log_likelihood: Float[Array, "k"]) -> Filtered:
    """A prediction weighed by evidence. Its units keep evidence for what is out of reach from underflowing the rest."""
    log_likelihood = jnp.where(ahead > 0, log_likelihood, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(log_likelihood))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    likelihood = jnp.exp(log_likelihood - top)
    total = jnp.sum(ahead * likelihood)
    return Filtered(ahead * likelihood / jnp.where(total > 0, total, 1.0), likelihood, total, top + jnp.log(total))


def logs(p: Float[Array, "..."]) -> Float[Array, "..."]:
    """log p, -inf for 0, with a gradient of 0 there."""
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)


def markov(
    start: Float[Array, "k"], kernel: Float[Array, "k k"], horizon: int, points: Float[Array, "k d"] | None = None
) -> Chain:
    """A chain with one kernel for all steps, from probabilities. Without `points` the states are one-hot.

    Raises:
        ValueError: if a distribution is negative or does not sum to one, or the horizon is below 2.
    """
    for name, p in (("start", start[None]), ("kernel", kernel)):
        if not bool((p >= 0).all() & (jnp.abs(p.sum(axis=1) - 1) < 1e-5).all()):
            raise ValueError(f"{name}: every row must be non-negative and sum to 1")
    if horizon < 2:
        raise ValueError(f"horizon={horizon}: must be at least 2")
    log_kernels = jnp.broadcast_to(logs(kernel)[None], (horizon - 1, *kernel.shape))
    return Chain(logs(start), log_kernels, jnp.eye(len(start)) if points is None else points)


def conditioned(chains: list[Chain], probabilities: Float[Array, "m"]) -> Chain:
    """A prior that draws one of m chains over the same k states and follows it: states ``[m * k]``, the mode first.

    The goal-conditioned prior of m goals; a path's points do not show the mode.

    Raises:
        ValueError: if there is not one probability for each chain.
    """
    if len(chains) != len(probabilities):
        raise ValueError(f"{len(chains)} chains need as many probabilities, got {len(probabilities)}")
    modes = range(len(chains))
    apart = jnp.full_like(chains[0].log_kernels, -jnp.inf)
    rows = [jnp.concatenate([chains[m].log_kernels if m == n else apart for n in modes], axis=2) for m in modes]
    start = jnp.concatenate([chain.log_start + jnp.log(p) for chain, p in zip(chains, probabilities, strict=True)])
    return Chain(start, jnp.concatenate(rows, axis=1), jnp.concatenate([chain.points for chain in chains]))
