"""Prior guidance: the noise that plans begin as is moved, and the denoiser stays as it is.

A deterministic sampler is a map x = G(z) from noise to plans, and the prior's plans are those of z ~ N(0, I). With the
mean of the noise moved by m,

    z = m + e,   e ~ N(0, I),        KL(N(m, I) || N(0, I)) = |m|^2 / 2                                  (161)

and no map makes two distributions easier to tell apart: the KL of the plans is at most that of the noise. So K nats are
the ball |m| <= R = sqrt(2 K), in which projected gradient ascent raises the mean score of the plans:

    g_i = mean over draws of e of grad_m score(G(m_i + e)),        i = 0 .. n - 1,   m_0 = 0
    m_i+1 = P(m_i + (4 / n) (1 - i / n) R g_i / |g_i|),            P(m) = m min(1, R / |m|)              (162)

with new draws in every iteration. Steps have a set length, since gradients through a sampler vary by orders of
magnitude; it falls evenly, to average over draws, and all steps together are twice as long as R. The plan is one of new
noise, not of the draws.

Prior Guidance as published (Ki et al. 2025, arXiv 2505.10881) trains a network that gives mean and deviation of the
noise from a state, with a weight of the KL in place of a budget, and entries squashed into (-2, 2). It spares itself
the gradient through the sampler by a learned value of noise, and plans from the mean. Here every start has its own m,
by the gradient through the sampler: nothing has to generalise over starts, and no value stands in for the score. The
deviation stays 1: by a few draws its gradient is mostly noise, which would spend nats.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.denoise import pinned
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, sweep
from diffplan.methods.guidance import regression
from diffplan.samplers import Step, dpmpp_2m, sample
from diffplan.types import PRNGKey, Scalar

Objective = Callable[[PRNGKey, Float[Array, "h d"]], Scalar]
"""The mean score of plans whose noise has the mean m, by some draws; the key is consumed."""


def length(m: Float[Array, "h d"]) -> Scalar:
    """|m|, and a little more than 0 where m is 0."""
    return jnp.maximum(jnp.sqrt(jnp.sum(m**2)), 1e-30)


def learn_mean(
    key: PRNGKey, objective: Objective, shape: tuple[int, int], nats: Scalar, iterations: int
) -> Float[Array, "h d"]:
    """(162): the mean of the noise within a budget of nats."""
    radius = jnp.sqrt(2 * nats)

    def ascend(m: Float[Array, "h d"], inputs: tuple[PRNGKey, Scalar]) -> tuple[Float[Array, "h d"], None]:
        key, done = inputs
        slope = jax.grad(objective, argnums=1)(key, m)
        m = m + 4 / iterations * (1 - done) * radius * slope / length(slope)
        return m * jnp.minimum(1.0, radius / length(m)), None

    inputs = jax.random.split(key, iterations), jnp.arange(iterations) / iterations
    return jax.lax.scan(ascend, jnp.zeros(shape), inputs)[0]


@dataclass(frozen=True)
class PriorGuided:
    """Plans of noise whose mean is learned for each start (162); 0 nats give the deterministic sampler's own plans.

    path_kl: of the noise of each plan's start, which is all that is random in its chain. exact_kl: its mean over
    starts, an upper bound of the KL of the plans. Both are to the plans of the deterministic sampler.
    """

    strengths: tuple[float, ...]
    name: str = "prior_guidance"
    proxy: Callable[[Problem], Proxy] = regression
    step: Step = dpmpp_2m
    """A step rule without noise."""
    draws: int = 4
    """Draws of noise an iteration."""
    iterations: int = 8
    """n of (162)."""
    strength_name: str = "budget in nats"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Every budget sees the same noise."""
        sampler, score = replace(problem.sampler, step=self.step), self.proxy(problem).score

        def one(key: PRNGKey, start: Float[Array, "o"], nats: Scalar) -> tuple[Array, Scalar]:
            key_learn, key_plan = jax.random.split(key)
            denoise = pinned(problem.denoise, problem.pins(start))
            plan = lambda key, m: sample(key, denoise, sampler, warm=sampler.sigmas[0] * m)[0]

            def objective(key: PRNGKey, m: Float[Array, "h d"]) -> Scalar:
                return jnp.mean(jax.vmap(lambda key: score(plan(key, m)))(jax.random.split(key, self.draws)))

            m = learn_mean(key_learn, objective, problem.shape, nats, self.iterations)
            return plan(key_plan, m), jnp.sum(m**2) / 2

        x, nats = sweep(one, key, starts, strengths)
        return Plans.of(x, nats, nats.mean(axis=1))
