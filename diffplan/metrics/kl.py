"""Pressure: how far a method moved the distribution of its plans, q, from the prior p, in nats.

**Path KL** is measured by the sampler itself (`diffplan.samplers`): the shift of the mean that really happened at each
noisy step, in units of that step's noise, so that clipping and damping count. The noiseless last step is left out, and
deterministic samplers have none. It compares whole chains, and by data processing is an upper bound of the marginal KL,
KL(q || p) of the plans alone as they stand before that last step. The two are equal, as the steps get fine, for the
exact h-transform (`oracle.gaussian`); a guide that pushes and later corrects itself pays on the path for what the plans
do not show. What else can be known:

    best_of_n_kl      exact                                  any n, any score without ties
    knn_kl            estimate, biased in high dimension     any samples, where log p is known
    particle_kl       estimate, biased up                    the tilt, from particles
    least_kl          lower bound                            any q, from its mean reward alone

Tilting. Among all q with E_q[r] = R the tilt p_w with E_w[r] = R is the nearest to the prior, and

    KL(q || p) = KL(p_w || p) + KL(q || p_w),     KL(p_w || p) = max over w of  w R - log Z(w)               (2)

so that its last term is what q wasted (Csiszar 1975).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float

from diffplan.types import Scalar

LogZ = Callable[[Scalar], Scalar]
"""``log_z(w) = log E_p[exp(w r)]``: convex, with E_w[r] as its derivative."""


def best_of_n_kl(n: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """KL(best of n || prior) = log n - (n - 1) / n.

    Exact where the score has no ties, as for a continuous plan; an upper bound otherwise (Beirami et al., 2401.01879).
    """
    return jnp.log(n) - (n - 1) / n


def best_of_n_cdf(n: Scalar, size: int) -> Float[Array, "ranks"]:
    """P(rank <= k), k = 0, ..., size, for the best of n drawn from `size` without replacement; rank 1 is the lowest.

    C(k, n) / C(size, n), written as the product over j = k + 1, ..., size of 1 - n / j: nothing is large in it.
    """
    log_miss = jnp.log1p(-jnp.minimum(n / jnp.arange(1.0, size + 1), 1.0))
    return jnp.exp(jnp.append(jax.lax.cumsum(log_miss, reverse=True), 0.0))


def best_of_n_mean(scores: Float[Array, "m"], values: Float[Array, "k"], n: Float[Array, "s"]) -> Float[Array, "s"]:
    """The mean value of the best-scored of n, over all subsets of n of the m candidates: every n from one pool.

    Unbiased for the best of n from the distribution that the pool was drawn from (Nakano et al. 2021, 2112.09332,
    appendix I).
    Equal scores win equally often; a score that is not finite is the worst. NaN for n outside 1, ..., m.

    Raises:
        ValueError: if there are no values, another number of scores, or a value is not finite.
    """
    values = _finite("values", values, like=scores)
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    cdf = jax.vmap(lambda n: best_of_n_cdf(n, len(scores)))(n)
    below, upto = (jnp.searchsorted(jnp.sort(scores), scores, side=side) for side in ("left", "right"))
    fraction = (cdf[:, upto] - cdf[:, below]) / (upto - below)[None]
    return jnp.where((n >= 1) & (n <= len(scores)), fraction @ values, jnp.nan)


# -- from samples --


def knn_kl(x: Float[Array, "n k"], log_density: Float[Array, "n"], neighbours: int = 5) -> Scalar:
    """KL(q || p) of n samples x of q from log p at them: -H(q) - E_q[log p], H by Kozachenko and Leonenko (1987).

    An estimate: consistent, but in k dimensions its bias falls as n^(-1/k), so that it is for k of about 5 at most; it
    tends to read low where q has finer structure than its samples show. Samples that coincide with `neighbours` others
    have no density, and give infinity.

    Raises:
        ValueError: if there are not more samples than neighbours.
    """
    n, k = x.shape
    if not 1 <= neighbours < n:
        raise ValueError(f"neighbours={neighbours}: must be between 1 and {n - 1}, one less than the samples")
    squared = lambda one: jnp.sum((x - one[None]) ** 2, axis=1)
    nearest = lambda one: -jax.lax.top_k(-squared(one), neighbours + 1)[0][-1]  # the first is the sample itself
    log_radius = jnp.log(jax.lax.map(nearest, x, batch_size=256)) / 2
    log_ball = k / 2 * jnp.log(jnp.pi) - gammaln(k / 2 + 1)
    entropy = digamma(n) - digamma(neighbours) + log_ball + k * jnp.mean(log_radius)
    return -entropy - jnp.mean(log_density)


def weight_ess(log_weights: Float[Array, "n"]) -> Scalar:
    """The effective sample size (sum w)^2 / sum w^2, between 1 and n; NaN where every weight is 0.

    Exact for the weights given; of the distribution behind them an estimate, too high where no sample met the largest
    weights.
    """
    weights = jnp.exp(log_weights - log_weights.max())
    return jnp.sum(weights) ** 2 / jnp.sum(weights**2)


def particle_kl(reward: Scalar | float, log_z: Scalar | float) -> Scalar | float:
    """KL(p_w || p) = E_w[w r] - log Z, from particles: `reward` is the mean of w r, its weight included.

    Biased up: particles give log Z too small on average, E[log Z_hat] <= log E[Z_hat] = log Z, by that gap.
    """
    return reward - log_z


# -- bounds --


class Least(NamedTuple):
    """The tilt nearest to the prior at a mean reward: its weight, and its KL to the prior in nats."""

    weight: Scalar
    kl: Scalar


def least_kl(log_z: LogZ, reward: Scalar | float, low: float, high: float) -> Least:
    """A lower bound on KL(q || p) for every q with E_q[r] = reward, attained by the tilt (2).

    The weight, at which the derivative of the convex log_z is the reward, is found by bisection in [low, high]. NaN and
    infinity for a reward that no weight in the bracket reaches: nothing is known then, unless the bracket was all
    weights.

    Raises:
        ValueError: if the bracket is empty.
    """
    if not low < high:
        raise ValueError(f"low={low}: must be less than high ({high})")
    slope = jax.grad(log_z)

    def halve(_: Array | int, bracket: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        middle = (bracket[0] + bracket[1]) / 2
        below = slope(middle) < reward
        return jnp.where(below, middle, bracket[0]), jnp.where(below, bracket[1], middle)

    ends = jnp.asarray(low, float), jnp.asarray(high, float)
    below, above = jax.lax.fori_loop(0, 60, halve, ends)  # 60 halvings: beyond the last bit
    weight = (below + above) / 2
    inside = (slope(ends[0]) <= reward) & (reward <= slope(ends[1]))
    kl = jnp.maximum(weight * reward - log_z(weight), 0.0)
    return Least(jnp.where(inside, weight, jnp.nan), jnp.where(inside, kl, jnp.inf))


def _finite(name: str, values: Array, like: Array | None = None) -> Array:
    """The values, or an error that names them, if they are none, not as many as `like`, or not finite."""
    if values.size == 0 or (like is not None and values.shape != like.shape):
        expected = "at least one" if like is None else f"as many as the others, {like.size}"
        raise ValueError(f"{name}: {values.size} values, must be {expected}")
    if not isinstance(values, Tracer) and not bool(jnp.all(jnp.isfinite(values))):
        raise ValueError(f"{name}: {int((~jnp.isfinite(values)).sum())} of {values.size} values are not finite")
    return values
