"""Guidance as denoiser -> denoiser wrappers, and the energies that guide.

    D_guided = x + prior * (D(x, sigma) - x) + guide * sigma^2 * grad g(x, sigma)        (3)

With ``prior = 1, guide = w`` and the exact energy ``g = log E[exp(w r(x0)) | x_sigma = x] / w``, a sampler run on
D_guided draws from p(x) exp(w r(x)) / Z. With ``prior = 0`` it follows the reward alone, in the same code path.

How far an energy is from exact decides what guidance really samples; the energy's name says which it is:

    regression   E[r(x0) | x]            noise-conditioned; misses the spread of r given x (Jensen)
    classifier   log p(y | x)            noise-conditioned; exact at guide = 1 alone
    dps          r(D(x, sigma))          clean reward of the denoised plan; ignores the posterior's spread
    straight     r(D(x, sigma))          the same, without the derivative of the denoiser
    smoothed     mean_k r(D + s e_k)     clean reward of draws around the denoised plan; a Gaussian for the posterior
    lgd          log mean_k exp w r(D + s e_k)      the same for a weight w; exact if the posterior is that Gaussian
    raw          r(x)                    clean reward of the noisy plan; adversarial far from the data

Regression and classifier are networks (`diffplan.learn.reward`); the others turn a clean reward into an energy. The
draws of smoothed and lgd have the deviation s = sigma / sqrt(1 + sigma^2), the posterior's for data of unit variance.
A `Proxy` is what an optimiser pushes: an energy, the clean reward that it stands for, and the score that tables report.

An `Ensemble` of k networks with outputs f_i is read as (Coste et al. 2023, arXiv 2310.02743, section 3.2)

    mean = sum_i f_i / k,     min = min_i f_i,     uwo = mean - c sum_i (f_i - mean)^2 / k                (100)

Energies of several rewards compose as (Du et al. 2023, arXiv 2302.11552)

    product    g = sum_i w_i g_i              tilts by exp(sum_i w_i r_i): all of them at once            (101)
    mixture    g = log sum_i w_i exp g_i      tilts by sum_i w_i exp r_i: any one of them                 (102)

With exact g_i, E[sum_i w_i exp r_i | x_sigma] is linear in the parts: (102) is exact at every level. (101) is exact
only where the r_i are independent given x_sigma, up to a constant; else at the level of clean plans alone.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float

from diffplan.count import counted
from diffplan.denoise import CLEAN, scaled
from diffplan.types import Apply, Denoise, Energy, Level, Params, Scalar, Strengths

Reward = Callable[[Float[Array, "h d"]], Scalar]


@runtime_checkable
class Proxy(Protocol):
    """What is pushed in place of the gold reward. A pytree, so that whatever was learned is traced."""

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The energy g(x, sigma) that guides."""
        ...

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The reward of a clean plan, which the energy stands for."""
        ...

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """The same in standard deviations of the data from its mean: what tables call the proxy."""
        ...


@struct.dataclass
class Learned:
    """A network as a `Proxy`.

    kind: "regression", whose output estimates E[r | x_sigma], or "classifier", whose output is a logit.
    centre, spread: mean and standard deviation of the output over clean data, so that the score of data is (0, 1).
    """

    params: Params
    centre: Scalar
    std: Scalar
    apply: Apply = struct.field(pytree_node=False)
    kind: Literal["regression", "classifier"] = struct.field(pytree_node=False)

    def output(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The network's output at level sigma."""
        return counted("proxy_evals", scaled(self.apply, self.params, x, sigma))

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The energy g(x, sigma): E[r | x] for a regression, log p(y | x) for a classifier."""
        output = self.output(x, sigma)
        return output if self.kind == "regression" else jax.nn.log_sigmoid(output)

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The learned reward of a clean plan: the energy at the level of clean plans."""
        return self(x, jnp.asarray(CLEAN))

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """The output on a clean plan, in standard deviations of the data from its mean: what tables call the proxy."""
        return (self.output(x, jnp.asarray(CLEAN)) - self.centre) / self.std


@struct.dataclass
class Ensemble:
    """Networks that learned the same from other seeds, as one `Proxy` (100).

    params: with a leading axis over members. kind: as in `Learned`. centre, spread: of what (100) makes of the outputs
    over clean data. caution: c, which only "uwo" reads.
    """

    params: Params
    centre: Scalar
    std: Scalar
    caution: Scalar
    apply: Apply = struct.field(pytree_node=False)
    kind: Literal["regression", "classifier"] = struct.field(pytree_node=False)
    combine: Literal["mean", "min", "uwo"] = struct.field(pytree_node=False)

    def combined(self, value: Callable[[Learned], Scalar]) -> Scalar:
        """(100), of one value of every member."""
        member = lambda params: Learned(params, jnp.zeros(()), jnp.ones(()), self.apply, self.kind)
        values = jax.vmap(lambda params: value(member(params)))(self.params)
        match self.combine:
            case "mean":
                return jnp.mean(values)
            case "min":
                return jnp.min(values)
            case "uwo":
                return jnp.mean(values) - self.caution * jnp.var(values)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The members' energies, combined."""
        return self.combined(lambda member: member(x, sigma))

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The members' rewards, combined."""
        return self.combined(lambda member: member.reward(x))

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """The members' outputs, combined, in standard deviations of the data from its mean."""
        return (self.combined(lambda member: member.score(x)) - self.centre) / self.std


@struct.dataclass
class Sum:
    """Several proxies as one (101), each with its own traced weight; the score is the weighted sum of scores."""

    parts: tuple[Proxy, ...]
    weights: Float[Array, "k"]

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The weighted sum of energies."""
        return weighted(self.parts, self.weights)(x, sigma)

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The weighted sum of rewards."""
        return jnp.stack([part.reward(x) for part in self.parts]) @ self.weights

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """The weighted sum of scores."""
        return jnp.stack([part.score(x) for part in self.parts]) @ self.weights


def guided(denoise: Denoise, energy: Energy, strengths: Strengths) -> Denoise:
    """Equation (3): the denoiser of the guided process, for traced scalars `strengths.prior` and `strengths.guide`."""

    def wrapped(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        return x + strengths.prior * (denoise(x, sigma) - x) + strengths.guide * sigma**2 * jax.grad(energy)(x, sigma)

    return wrapped


def budget(denoise: Denoise, energy: Energy, nats: Scalar | float) -> Denoise:
    """Guide along an energy's gradient, at whatever scale spends `nats` of path KL: pressure as the strength_name.

    In continuous time a guide that moves the denoiser by d spends |d|^2 / sigma^2 per unit of log sigma. So the shift's
    direction is the energy's and its size is set,

        |d|^2 = sigma^2 * 2 nats sigma^2 / (1 + sigma^2)^2                                               (14b)

    by the course of the exact guide of a linear reward under a prior of unit variance: above level sigma, nats /
    (1 + sigma^2) has been spent. There the plans draw the tilt of KL `nats`. Elsewhere every plan still spends that
    much, for any energy and number of steps, and `nats` bounds the KL of the plans to the prior from above.

    Raises:
        ValueError: if the budget is negative.
    """
    if not isinstance(nats, Tracer) and float(nats) < 0:
        raise ValueError(f"nats={float(nats):g}: must be 0 or more")

    def wrapped(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        gradient = jax.grad(energy)(x, sigma)
        size = jnp.sqrt(jnp.sum(gradient**2))
        level = jnp.max(sigma)
        shift = jnp.sqrt(2 * nats) * level**2 / (1 + level**2)
        return denoise(x, sigma) + shift * gradient / jnp.maximum(size, jnp.finfo(size.dtype).tiny)

    return wrapped


def dps(denoise: Denoise, reward: Reward) -> Energy:
    """g(x, sigma) = r(D(x, sigma)), differentiated through the denoiser (Chung et al. 2023, DPS)."""
    return lambda x, sigma: reward(denoise(x, sigma))


def straight(denoise: Denoise, reward: Reward) -> Energy:
    """r(D(x, sigma)), whose gradient takes D for x plus a constant (He et al. 2024, MPGD, arXiv 2311.16424).

    One evaluation of the denoiser, and no derivative of it.
    """

    def energy(x: Float[Array, "h d"], sigma: Level) -> Scalar:
        fixed = jax.lax.stop_gradient
        return reward(fixed(denoise(x, sigma)) + (x - fixed(x)))  # D exactly, however large x is

    return energy


def around(
    denoise: Denoise, reward: Reward, noise: Float[Array, "k h d"]
) -> Callable[[Float[Array, "h d"], Level], Float[Array, "k"]]:
    """The clean rewards of draws around the denoised plan, r(D + s e_k)."""

    def rewards(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "k"]:
        level = jnp.broadcast_to(sigma, x.shape)
        deviation = level / jnp.sqrt(1 + level**2)
        return jax.vmap(reward)(denoise(x, sigma)[None] + deviation[None] * noise)

    return rewards


def smoothed(denoise: Denoise, reward: Reward, noise: Float[Array, "k h d"]) -> Energy:
    """The mean clean reward of draws around the denoised plan. noise: the e_k, of unit variance."""
    rewards = around(denoise, reward, noise)
    return lambda x, sigma: jnp.mean(rewards(x, sigma))


def lgd(denoise: Denoise, reward: Reward, noise: Float[Array, "k h d"], weight: Scalar) -> Energy:
    """log mean_k exp(w r(D + s e_k)): the energy of the weight w, to be used at scale 1 (Song et al. 2023, LGD-MC)."""
    rewards = around(denoise, reward, noise)
    return lambda x, sigma: jax.nn.logsumexp(weight * rewards(x, sigma)) - jnp.log(float(len(noise)))


def in_interval(energy: Energy, low: float, high: float) -> Energy:
    """An energy that acts at noise levels from `low` to `high` alone (Kynkäänniemi et al. 2024, arXiv 2404.07724)."""

    def wrapped(x: Float[Array, "h d"], sigma: Level) -> Scalar:
        level = jnp.max(sigma)
        return jnp.where((level >= low) & (level <= high), energy(x, sigma), 0.0)

    return wrapped


def scheduled(energy: Energy, low: Level, high: Level) -> Energy:
    """An energy that acts the more the less noise there is (Wang et al. 2024, arXiv 2404.13040, the linear schedule).

    Its factor rises from 0 at the noise level `high` to 2 at `low`, evenly in log sigma; its mean over them is 1.
    """

    def wrapped(x: Float[Array, "h d"], sigma: Level) -> Scalar:
        done = jnp.log(high / jnp.maximum(jnp.max(sigma), low)) / jnp.log(high / low)
        return 2 * jnp.clip(done, 0.0, 1.0) * energy(x, sigma)

    return wrapped


def raw(reward: Reward) -> Energy:
    """g(x, sigma) = r(x): the clean reward read off the noisy plan, as if it were clean."""
    return lambda x, sigma: reward(x)


def weighted(energies: Sequence[Energy], weights: Float[Array, "k"]) -> Energy:
    """The product of experts (101): energies of all rewards at once, with traced weights."""
    return lambda x, sigma: jnp.stack([energy(x, sigma) for energy in energies]) @ weights


def mixture(energies: Sequence[Energy], weights: Float[Array, "k"]) -> Energy:
    """The mixture (102): an energy of any one of the rewards, with traced weights of 0 or more."""
    return lambda x, sigma: jax.nn.logsumexp(jnp.stack([energy(x, sigma) for energy in energies]), b=weights)
