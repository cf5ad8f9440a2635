"""Pressure: how far a method moved the distribution of its plans, q, from the prior p, in nats.

**Path KL** is measured by the sampler itself (`diffplan.samplers`): the shift of the mean that really happened at each
noisy step, in units of that step's noise, so that clipping and damping count. The noiseless last step is left out, and
deterministic samplers have none. It compares whole chains, and by data processing is an upper bound of the marginal KL,
KL(q || p) of the plans alone as they stand before that last step. The two are equal, as the steps get fine, for the
exact h-transform (`oracle.gaussian`); a guide that pushes and later corrects itself pays on the path for what the plans
do not show. What else can be known:

    best_of_n_kl      exact                                  any n, any score without ties
    flow_kl           exact as the grid gets fine            deterministic samplers, guided or not
    knn_kl            estimate, biased in high dimension     any samples, where log p is known
    reweighted        estimate, NaN where it would fail      the tilt p_w = p exp(w r) / Z(w), from prior samples
    particle_kl       estimate, biased up                    the tilt, from particles
    least_kl          lower bound                            any q, from its mean reward alone
    wasted_nats       as good as the KL put in               what q spent beyond the tilt of the same reward

Probability flow. With v(x, sigma) = (x - D(x, sigma)) / sigma, plans follow dx / dsigma = v, and along it

    log p(x_min) = log N(x_max; 0, sigma_max^2 I) + integral from sigma_min to sigma_max of div v  dsigma     (1)

(Song et al. 2021, appendix D.2, in this parameterisation). It is integrated by Heun on the grid given, never down to
level 0, where plans that lie on a surface have infinite density: (1) is the density of the distribution noised to the
grid's last level, sigma_min.

Tilting. Among all q with E_q[r] = R the tilt p_w with E_w[r] = R is the nearest to the prior, and

    KL(q || p) = KL(p_w || p) + KL(q || p_w),     KL(p_w || p) = max over w of  w R - log Z(w)               (2)

so that its last term is what q wasted (Csiszar 1975).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.special import digamma, gammaln, logsumexp
from jaxtyping import Array, Float

from diffplan.types import Denoise, PlanArray, PRNGKey, Scalar

Divergence = Callable[[Callable[[PlanArray], PlanArray], PlanArray], tuple[PlanArray, Scalar]]
"""``divergence(f, x) -> (f(x), trace of the Jacobian of f at x)``."""

LogZ = Callable[[Scalar], Scalar]
"""``log_z(w) = log E_p[exp(w r)]``: convex, with E_w[r] as its derivative."""


class Estimate(NamedTuple):
    """A mean over samples, in nats, and its standard error."""

    value: Scalar
    error: Scalar


def estimate(values: Float[Array, "n"]) -> Estimate:
    """The mean of n >= 2 independent values."""
    return Estimate(jnp.mean(values), jnp.std(values, ddof=1) / jnp.sqrt(len(values)))


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


# -- the probability flow --


def exact_trace(f: Callable[[PlanArray], PlanArray], x: PlanArray) -> tuple[PlanArray, Scalar]:
    """The exact divergence, at the cost of one directional derivative for every entry of x: for some 200 entries."""
    value, push = jax.linearize(f, x)
    basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    return value, jnp.sum(jax.vmap(push)(basis) * basis)


def hutchinson(key: PRNGKey, probes: int = 1) -> Divergence:
    """A divergence for larger plans: unbiased, from `probes` random signs (Hutchinson 1990), the same at every call.

    It is unbiased over keys: plans that share a key share its error too.
    """

    def divergence(f: Callable[[PlanArray], PlanArray], x: PlanArray) -> tuple[PlanArray, Scalar]:
        value, push = jax.linearize(f, x)
        signs = jax.random.rademacher(key, (probes, *x.shape), x.dtype)
        return value, jnp.sum(jax.vmap(push)(signs) * signs) / probes

    return divergence


def _flow(
    denoise: Denoise, x: PlanArray, sigmas: Float[Array, "k"], divergence: Divergence
) -> tuple[PlanArray, Scalar]:
    """Carry x along the flow through the levels, up or down; returns (x at the last, integral of div v dsigma)."""

    def slope(x: PlanArray, sigma: Scalar) -> tuple[PlanArray, Scalar]:
        return divergence(lambda x: (x - denoise(x, sigma)) / sigma, x)

    def heun(carry: tuple, levels: tuple) -> tuple:
        (x, total), (sigma, sigma_next) = carry, levels
        step = sigma_next - sigma
        velocity, rate = slope(x, sigma)
        velocity_next, rate_next = slope(x + step * velocity, sigma_next)
        return (x + step * (velocity + velocity_next) / 2, total + step * (rate + rate_next) / 2), None

    (x, total), _ = jax.lax.scan(heun, (x, jnp.zeros(())), (sigmas[:-1], sigmas[1:]))
    return x, total


def _log_noise(x: PlanArray, sigma: Scalar) -> Scalar:
    """log N(x; 0, sigma^2 I)."""
    return -jnp.sum(x**2) / (2 * sigma**2) - x.size * jnp.log(sigma * jnp.sqrt(2 * jnp.pi))


def flow_log_density(
    denoise: Denoise, x0: PlanArray, sigmas: Float[Array, "k"], divergence: Divergence = exact_trace
) -> Scalar:
    """log p(x0) by (1): the distribution that the flow draws from noise at sigmas[0], stopped at sigmas[-1].

    For an exact denoiser that is the distribution of the data noised to sigmas[-1], up to the grid's second-order
    error and to the noise that stands for the data at sigmas[0]. A learned one is the gradient of no density: this is
    its flow's density, not that of its noisy samplers. Entries that are pinned count as noise of size sigmas[-1]
    around their value: the same constant for every denoiser pinned there, and so nothing in a difference.
    """
    x, total = _flow(denoise, x0, sigmas[::-1], divergence)
    return _log_noise(x, sigmas[0]) + total


def flow_log_ratio(
    denoise: Denoise,
    reference: Denoise,
    noise: PlanArray,
    sigmas: Float[Array, "k"],
    divergence: Divergence = exact_trace,
) -> Scalar:
    """log q(x) - log p(x) at the plan x that the flow of `denoise` draws from `noise` ~ N(0, sigmas[0]^2 I).

    The density q of that flow is known exactly along the way down, guide and all; p is that of the reference's flow.
    """
    x, total = _flow(denoise, noise, sigmas, divergence)
    return _log_noise(noise, sigmas[0]) - total - flow_log_density(reference, x, sigmas, divergence)


def flow_kl(
    denoise: Denoise,
    reference: Denoise,
    noises: Float[Array, "n h d"],
    sigmas: Float[Array, "k"],
    divergence: Divergence = exact_trace,
) -> Estimate:
    """KL(q || p), q drawn by the flow of `denoise` and p by that of `reference`, both stopped at sigmas[-1].

    Unbiased over the noises as the grid gets fine: the marginal KL of a deterministic sampler, its start included. (A
    start that has not seen the guide costs the sampler part of its tilt: of the KL about 2 s / sigmas[0], for data of
    standard deviation s.) It needs the second derivative of the energy. With `hutchinson` all noises share the probes,
    and `error` leaves theirs out: vmap `flow_log_ratio` over keys as well, and take the `estimate`.
    """
    return estimate(jax.vmap(lambda noise: flow_log_ratio(denoise, reference, noise, sigmas, divergence))(noises))


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


class Reweighted(NamedTuple):
    """The tilt p_w of the prior, seen from prior samples. All but `ess` are NaN where too few samples carry it.

    log_z: log E_p[exp(w r)]. reward, gold: their means under p_w. kl, chi2: KL(p_w || p) in nats, chi^2(p_w || p).
    largest: the largest density ratio p_w / p within the sample. ess: effective share of the samples, in (0, 1].
    """

    log_z: Scalar
    reward: Scalar
    gold: Scalar
    kl: Scalar
    chi2: Scalar
    largest: Scalar
    ess: Scalar


def reweighted(
    rewards: Float[Array, "n"],
    weight: Scalar | float,
    gold: Float[Array, "m"] | None = None,
    least: float = 100.0,
) -> Reweighted:
    """The tilt by `weight`, which may be negative, from the rewards (and gold returns) of n samples of the prior.

    Estimates, consistent and too small while few samples carry the tilt: log_z, kl, chi2 and largest are biased down,
    and within the sample kl <= log n and chi2 = 1 / ess - 1. So where the effective sample size n * ess is under
    `least` they are NaN, `ess` is not. About exp(KL) samples are needed (Chatterjee and Diaconis 2018).

    Raises:
        ValueError: if there are no rewards, or another number of gold returns, or if a value given is not finite (under
            jit that cannot be seen, and gives NaN).
    """
    gold = jnp.full(rewards.shape, jnp.nan) if gold is None else _finite("gold", gold, like=rewards)
    log_weights = _finite("weight", jnp.asarray(weight)) * _finite("rewards", rewards)
    n, log_sum = len(rewards), logsumexp(log_weights)
    log_z, fraction = log_sum - jnp.log(n), jnp.exp(log_weights - log_sum)
    ess = weight_ess(log_weights) / n
    kl = jnp.sum(fraction * log_weights) - log_z
    result = (log_z, fraction @ rewards, fraction @ gold, kl, 1 / ess - 1, n * fraction.max())
    log_z, reward, gold, kl, chi2, largest = (jnp.where(n * ess >= least, value, jnp.nan) for value in result)
    return Reweighted(log_z, reward, gold, kl, chi2, largest, ess)


def sample_log_z(rewards: Float[Array, "n"]) -> LogZ:
    """log Z of the tilt as a function of its weight, from prior samples: consistent, biased down (see `reweighted`)."""
    return lambda weight: logsumexp(weight * rewards) - jnp.log(len(rewards))


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


def wasted_nats(kl: Scalar | float, log_z: LogZ, reward: Scalar | float, low: float, high: float) -> Scalar:
    """KL(q || p_w) at matched reward (2): what q spent beyond the cheapest way to its own mean reward.

    As exact as the `kl` given, of which it is `least_kl` less: an upper bound with a path KL. Minus infinity for a
    reward outside the bracket's reach.
    """
    return kl - least_kl(log_z, reward, low, high).kl


class Certificate(NamedTuple):
    """correlation: of proxy and gold under the prior. gain: a lower bound on E_q[gold] - E_p[gold]."""

    correlation: Scalar
    gain: Scalar


def chi2_certificate(
    proxy: Float[Array, "n"], gold: Float[Array, "m"], proxy_gain: Scalar | float, chi2: Scalar | float
) -> Certificate:
    """The gold that any q must have gained, given its E_q[proxy] - E_p[proxy] and chi^2(q || p).

    With U and V the proxy and gold in standard deviations under p, r their correlation and W what U leaves of V,
    V = r U + sqrt(1 - r^2) W, Bessel's inequality E_q[U]^2 + E_q[W]^2 <= chi^2 gives

        E_q[V] >= r E_q[U] - sqrt(1 - r^2) sqrt(chi^2 - E_q[U]^2)                                            (3)

    a certified gain as long as E_q[U] > sqrt((1 - r^2) chi^2). It is attained by q / p = 1 + a U + b W, and so no lower
    than the bound of Laidlaw et al. (2403.03185), (E_q[U] - sqrt((1 - r^2) chi^2)) / r, which has the same sign.
    A lower bound for the sample as the prior; of the prior, as good as the sample's moments. NaN where proxy or gold
    are constant, and where E_q[U]^2 > chi^2, which no q can have.

    Raises:
        ValueError: if the samples are empty, of different length or not finite.
    """
    u, v = _finite("proxy", proxy), _finite("gold", gold, like=proxy)
    correlation = jnp.mean((u - u.mean()) * (v - v.mean())) / (u.std() * v.std())
    rest = jnp.sqrt(jnp.maximum(1 - correlation**2, 0.0))
    gain = proxy_gain / u.std()
    return Certificate(correlation, v.std() * (correlation * gain - rest * jnp.sqrt(chi2 - gain**2)))


def event_bound(kl: Scalar | float, mass: Scalar | float) -> Scalar:
    """An upper bound on Q(H) for an event of prior mass P(H) and KL(q || p) <= kl: (kl + log 2) / log(1 / P), or 1.

    From data processing to the event alone. Best of n stays far under it, n P at most; a tilt can come near it.
    """
    return jnp.minimum((kl + jnp.log(2.0)) / -jnp.log(jnp.asarray(mass, float)), 1.0)


def _finite(name: str, values: Array, like: Array | None = None) -> Array:
    """The values, or an error that names them, if they are none, not as many as `like`, or not finite."""
    if values.size == 0 or (like is not None and values.shape != like.shape):
        expected = "at least one" if like is None else f"as many as the others, {like.size}"
        raise ValueError(f"{name}: {values.size} values, must be {expected}")
    if not isinstance(values, Tracer) and not bool(jnp.all(jnp.isfinite(values))):
        raise ValueError(f"{name}: {int((~jnp.isfinite(values)).sum())} of {values.size} values are not finite")
    return values
