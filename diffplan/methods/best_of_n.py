"""Methods that draw a pool of plans from the prior and pick one by its score: best of n, and softer kinds.

Each start has a pool of N plans x_i with scores s_i in standard deviations, of rank 1 (lowest) to N. It is drawn and
scored once; all strengths pick from it, by the same random numbers, so that only the strength tells their plans apart.

    best of n      P(rank <= k) = C(k, n) / C(N, n)                                                      (72)
    soft           P(i)  ~  exp(beta s_i)                                                                (73)
    regularised    i = argmax_j  beta s_j - |x_j - x'|,   x' a plan of the pool, drawn evenly            (74)
    quantiliser    the rank is even among the highest N q                                                (75)

(72) is the rank of the best of n that are drawn from the pool without replacement: rank k has probability
C(k - 1, n - 1) / C(N, n), and averaged over pools the plan is the best of n from the prior, whatever N >= n (Nakano et
al. 2021, arXiv 2112.09332, appendix I). (73) is soft best of n (Verdun et al. 2025, arXiv 2505.03156): the tilt of the
pool. (75) is the quantiliser of Taylor 2016, whose distribution is nowhere above 1 / q times the prior's.

(74) weighs score against distance, as regularised best of n does (Jinnai et al. 2024, arXiv 2404.01054), in root mean
square over a plan's entries. Theirs measures a plan by its mean distance to the pool; it has one winner a pool, and
without a score that is the pool's middle. (74) moves each plan of the pool on its own, and without a score nowhere, for
x' is nearest to itself. As a maximum over distributions q and over couplings of q with the pool is one over x given
each x', its winners solve

    max over q on the pool of   beta E_q[s] - W(q, pool),    W the transport cost at that distance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled
from diffplan.methods.guidance import from_prior, regression
from diffplan.metrics.kl import best_of_n_cdf, best_of_n_kl, weight_ess
from diffplan.samplers import chunked
from diffplan.types import PRNGKey, Scalar


class Pool(NamedTuple):
    """Plans of the prior for every start, and their scores."""

    x: Float[Array, "k n h d"]
    score: Float[Array, "k n"]

    def ranked(self, rank: Int[Array, "s n"]) -> Float[Array, "s n h d"]:
        """For every start the plans of these ranks, 1 to k. Ties stand in the order in which they were drawn."""
        return self.at(jnp.take_along_axis(jnp.argsort(self.score, axis=0), rank - 1, axis=0))

    def at(self, index: Int[Array, "s n"]) -> Float[Array, "s n h d"]:
        """For every start the plans of these numbers, from 0."""
        return self.x[index, jnp.arange(index.shape[1])[None]]


def draw_pool(
    key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], proxy: Proxy, size: int
) -> tuple[PRNGKey, Pool]:
    """`size` plans of the prior a start, and a new key to pick from them with.

    A score that is not finite counts as the worst of its pool, or 0 if that is lower.
    """
    key, key_pick = jax.random.split(key)
    keys = jax.vmap(lambda key: jax.random.split(key, len(starts)))(jax.random.split(key, size)).reshape(-1)

    def scored(key: PRNGKey, start: Float[Array, "o"]) -> tuple[Float[Array, "h d"], Scalar]:
        x = from_prior(key, problem, start)
        return x, proxy.score(x)

    x, score = chunked(scored, keys, jnp.tile(starts, (size, 1)))
    x, score = x.reshape(size, len(starts), *problem.shape), score.reshape(size, len(starts))
    finite = jnp.isfinite(score)
    worst = jnp.min(score, axis=0, initial=0.0, where=finite)
    return key_pick, Pool(x, jnp.where(finite, score, worst[None]))


def uniforms(key: PRNGKey, count: int) -> Float[Array, "count"]:
    """Even in (0, 1]."""
    return 1 - jax.random.uniform(key, (count,))


@dataclass(frozen=True)
class BestOfN:
    """The plan with the highest score among n from the prior (72); n = 1 is the prior.

    Monte Carlo selection by a critic of clean plans is ``BestOfN(strengths, "critic", proxy=guidance.clean)``.
    """

    strengths: tuple[float, ...]
    name: str = "best_of_n"
    strength_name: str = "n"
    shared: bool = True
    proxy: Callable[[Problem], Proxy] = regression

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """The pool holds max(self.strengths) plans a start; `strengths` may be any numbers up to that."""
        size = int(max(self.strengths))
        key_pick, pool = draw_pool(key, problem, starts, self.proxy(problem), size)
        u, n = uniforms(key_pick, len(starts)), jnp.maximum(strengths, 1.0)
        rank = jax.vmap(lambda n: jnp.searchsorted(best_of_n_cdf(n, size), u))(n)  # the least with P(rank <= k) >= u
        return Plans.of(pool.ranked(rank), exact_kl=best_of_n_kl(n))


@dataclass(frozen=True)
class SoftBestOfN:
    """A plan of the pool with probability as exp(beta * score) (73); beta = 0 is the prior, infinity its best."""

    strengths: tuple[float, ...]
    name: str = "soft_best_of_n"
    pool: int = 64
    strength_name: str = "1 / temperature"
    shared: bool = True
    proxy: Callable[[Problem], Proxy] = regression

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """By the largest of log weight + Gumbel noise: a rising strength changes the plan only for a higher score."""
        key_pick, pool = draw_pool(key, problem, starts, self.proxy(problem), self.pool)
        log_weights = strengths[:, None, None] * pool.score[None]
        x = pool.at(jnp.argmax(log_weights + jax.random.gumbel(key_pick, pool.score.shape)[None], axis=1))
        ess = jax.vmap(jax.vmap(weight_ess, 1))(log_weights) / self.pool
        return Plans.of(x, ess=ess.mean(axis=1))


@dataclass(frozen=True)
class RegularisedBestOfN:
    """The plan of the pool with the highest beta * score less its distance to one that is drawn (74).

    beta = 0 is the prior: the drawn plan itself. beta has the unit of distance, standard deviations of a plan's entry,
    for one standard deviation of the score.
    """

    strengths: tuple[float, ...]
    name: str = "regularised_best_of_n"
    pool: int = 64
    strength_name: str = "1 / regularisation"
    shared: bool = True
    proxy: Callable[[Problem], Proxy] = regression

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """All strengths measure from the same drawn plan."""
        key_pick, pool = draw_pool(key, problem, starts, self.proxy(problem), self.pool)
        reference = pool.at(jax.random.randint(key_pick, (1, len(starts)), 0, self.pool))
        distance = jnp.sqrt(jnp.mean((pool.x - reference) ** 2, axis=(2, 3)))
        distance = jnp.where(jnp.isnan(distance), jnp.inf, distance)  # of a plan that is not finite
        return Plans.of(pool.at(jnp.argmax(strengths[:, None, None] * pool.score[None] - distance[None], axis=1)))


@dataclass(frozen=True)
class Quantiliser:
    """Any plan among the fraction q of the pool that scores highest (75); q = 1 is the prior.

    exact_kl is an upper bound: log(1 / q), and no more than that of the pool's best.
    """

    strengths: tuple[float, ...]
    name: str = "quantiliser"
    pool: int = 64
    strength_name: str = "1 / q"
    shared: bool = True
    proxy: Callable[[Problem], Proxy] = regression

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Where N q is no whole number the lowest rank takes what is left over; q < 1 / N is the pool's best."""
        key_pick, pool = draw_pool(key, problem, starts, self.proxy(problem), self.pool)
        u, n = uniforms(key_pick, len(starts)), jnp.maximum(strengths, 1.0)
        below_top = jnp.ceil(self.pool * u[None] / n[:, None]).astype(int)  # 1 for the highest
        kl = jnp.minimum(jnp.log(n), best_of_n_kl(jnp.asarray(float(self.pool))))
        return Plans.of(pool.ranked(self.pool + 1 - below_top), exact_kl=kl)
