"""Methods that draw from the prior as it is, or guided by an energy; and the proxies and energies that methods push."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan import guide
from diffplan.denoise import pinned
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, draw_plans, need
from diffplan.samplers import chunked, sample
from diffplan.types import Denoise, Energy, PRNGKey, Scalar, Strengths

DRAWS = 8
"""Draws around a denoised plan."""


def regression(problem: Problem) -> Proxy:
    """The noise-conditioned regression."""
    return need(problem, "regression", "by the noise-conditioned regression")


def classifier(problem: Problem) -> Proxy:
    """The noise-conditioned classifier."""
    return need(problem, "classifier", "by the classifier")


def clean(problem: Problem) -> Proxy:
    """The regression of clean plans."""
    return need(problem, "clean", "by the clean regression")


def shuffled(problem: Problem) -> Proxy:
    """The regression of shuffled labels."""
    return need(problem, "shuffled", "by shuffled labels")


def untrained(problem: Problem) -> Proxy:
    """The regression that has learned nothing."""
    return need(problem, "untrained", "by an untrained network")


def dps(problem: Problem) -> Energy:
    """The clean reward of the denoised plan."""
    return guide.dps(problem.denoise, clean(problem).reward)


def raw(problem: Problem) -> Energy:
    """The clean reward of the noisy plan."""
    return guide.raw(clean(problem).reward)


def smoothed(problem: Problem) -> Energy:
    """The mean clean reward of `DRAWS` draws around the denoised plan, the same for every plan and level."""
    return guide.smoothed(problem.denoise, clean(problem).reward, draws_around(problem))


def draws_around(problem: Problem) -> Float[Array, "k h d"]:
    """Noise of unit variance, in pairs of opposite signs."""
    half = jax.random.normal(jax.random.key(0), (DRAWS // 2, *problem.sampler.shape))
    return jnp.concatenate([half, -half])


@dataclass(frozen=True)
class Interval:
    """The noise-conditioned regression, at noise levels from `low` to `high` alone."""

    low: float
    high: float

    def __call__(self, problem: Problem) -> Energy:
        """The energy."""
        return guide.in_interval(regression(problem), self.low, self.high)


def scheduled(problem: Problem) -> Energy:
    """The noise-conditioned regression, the more the less noise there is."""
    sigmas = problem.sampler.sigmas
    return guide.scheduled(regression(problem), sigmas[-1], sigmas[0])


def from_prior(key: PRNGKey, problem: Problem, start: Float[Array, "o"]) -> Float[Array, "h d"]:
    """A plan from the prior: with the same keys, that of the method `Prior`."""
    return sample(key, pinned(problem.denoise, problem.pins(start)), problem.sampler)[0]


@dataclass(frozen=True)
class Prior:
    """Plans from the prior alone: what every other method is compared with."""

    name: str = "prior"
    strength_name: str = "none"
    strengths: tuple[float, ...] = (0.0,)
    shared: bool = False
    proxy: Callable[[Problem], Proxy] = regression

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """The same plans whatever the strengths."""
        one = lambda key, start: from_prior(key, problem, start)
        x = chunked(one, jax.random.split(key, len(starts)), starts)
        x = jnp.broadcast_to(x[None], (len(strengths), *x.shape))
        zero = jnp.zeros(x.shape[:2])
        return Plans.of(x, zero, zero[:, 0])


@dataclass(frozen=True)
class Guided:
    """Guidance by an energy: equation (3). With prior = 1 scale 0 is the prior, plan by plan.

    candidates: guided plans that each plan is selected from, by the proxy's score. prior: the prior's weight.
    """

    name: str
    strengths: tuple[float, ...]
    energy: Callable[[Problem], Energy] = regression
    proxy: Callable[[Problem], Proxy] = regression
    strength_name: str = "guidance scale"
    shared: bool = False
    candidates: int = 1
    prior: float = 1.0

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Every scale sees the same noise."""
        energy, prior = self.energy(problem), jnp.asarray(self.prior, jnp.float32)
        denoiser = lambda scale: guide.guided(problem.denoise, energy, Strengths(scale, prior))
        every = jnp.repeat(starts, self.candidates, axis=0)
        plans = draw_plans(key, problem, every, strengths, denoiser, problem.denoise)
        return plans if self.candidates == 1 else selected(plans.x, self.proxy(problem), self.candidates)


def selected(x: Float[Array, "s m h d"], proxy: Proxy, count: int) -> Plans:
    """Of every `count` plans in turn the one of the highest score; a score that is not a number is the lowest."""
    groups = x.reshape(len(x), -1, count, *x.shape[2:])
    score = jax.vmap(jax.vmap(jax.vmap(proxy.score)))(groups)
    best = jnp.argmax(jnp.where(jnp.isnan(score), -jnp.inf, score), axis=2)
    return Plans.of(jnp.take_along_axis(groups, best[:, :, None, None, None], axis=2)[:, :, 0])


@dataclass(frozen=True)
class Pushed:
    """Plans from a denoiser that depends on the strength. Every strength sees the same noise."""

    name: str
    strengths: tuple[float, ...]
    denoiser: Callable[[Problem, Scalar], Denoise]
    strength_name: str
    proxy: Callable[[Problem], Proxy] = regression
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Draw the plans."""
        return draw_plans(key, problem, starts, strengths, partial(self.denoiser, problem), problem.denoise)


def lgd(problem: Problem, weight: Scalar) -> Denoise:
    """Guidance by the log-mean-exp of a weighted clean reward around the denoised plan; weight 0 is the prior."""
    energy = guide.lgd(problem.denoise, clean(problem).reward, draws_around(problem), weight)
    return guide.guided(problem.denoise, energy, Strengths(jnp.ones(()), jnp.ones(())))


def contrastive(problem: Problem, weight: Scalar) -> Denoise:
    """Guidance by the exact energy of a weight, as it was learned by contrasting plans."""
    energy = need(problem, "contrastive", "by a contrastive energy").energy(weight)
    return guide.guided(problem.denoise, energy, Strengths(jnp.ones(()), jnp.ones(())))


def budgeted(problem: Problem, nats: Scalar) -> Denoise:
    """Guidance along normalised gradients, of the size that spends so many nats of path KL (14b)."""
    return guide.budget(problem.denoise, regression(problem), nats)


@dataclass(frozen=True)
class Weakened:
    """Guidance at one scale with less and less of the prior: (3) from prior = 1 to prior = 0, in one sampler.

    The strength is the fraction of the prior that is taken off. 0 is `Guided` at this scale, plan by plan; 1 follows
    the reward alone. For a Gaussian prior and the exact energy of a linear reward, a fraction f draws plans around the
    mean of the tilt by scale / (1 - f), but wider than it (tests/test_methods.py has the closed form).
    """

    scale: float

    def __call__(self, problem: Problem, fraction: Scalar) -> Denoise:
        """The denoiser."""
        return guide.guided(problem.denoise, regression(problem), Strengths(jnp.asarray(self.scale), 1 - fraction))
