"""Particles on the noisy chain of a step rule: plans from the tilt, with their weights and an estimate of log Z.

The unguided sampler (`diffplan.samplers`) draws x_1, ..., x_n on the levels of its grid by steps p(x_i | x_i-1), and
the plan is x0 = D(x_n, sigma_n). With a clean reward r, already multiplied by its strength, the target is

    p(x_1, ..., x_n) exp(r(x0)) / Z,     Z = E_p[exp r(x0)]                                                     (40)

K particles walk a chain q of the same noise, guided or not. Twists psi_i say on level i what the reward will say in the
end; any twist leaves the target as it is, a good one keeps the weights even. With psi_0 = 1, a particle that comes to
level i < n, and in the end to x0, changes its weight by

    log w += log psi_i - log psi_i-1 + log p(x_i | x_i-1) / q(x_i | x_i-1)                                      (41)
    log w += r(x0)     - log psi_n-1 + log p(x_n | x_n-1) / q(x_n | x_n-1)                                      (42)

Weights accumulate. Only when the effective sample size falls below a fraction of K are the particles resampled, and
their weights set to 1. log Z^ sums log mean w over the resamplings and the end: E Z^ = Z, for the chain as discretised.
A step may also pick one of M candidates x_j ~ q with probability v_j / sum v, where v_j = psi(x_j) p(x_j) / q(x_j);
then mean v / psi(x_picked) stands for p / q in (41) and (42), and E Z^ = Z still.

Methods differ in twist, guidance and M, and in no more. Each takes an energy g that includes the strength:

    tds          psi_i = exp g(x_i, sigma_i), and g guides by (3)          Wu et al. 2023, arXiv 2306.17775
    annealed     t_i g for g, t_i = min((1 + gamma)^(i-1) - 1, 1)          Kim et al. 2025, arXiv 2501.05803
    fk_steering  psi_i = product of potentials of g(x_j, sigma_j), j <= i  Singhal et al. 2025, arXiv 2501.06848
    svdd         psi_i = exp g(x_i, sigma_i), M candidates                 Li et al. 2024, arXiv 2408.08252

One run estimates the relative variance of its own Z^ by the pairs of particles whose lineages never met (Lee & Whiteley
2018, arXiv 1509.00394), with W_e the final weight of all who descend from particle e of level 0:

    V = 1 - K/(K-1) prod_t rho_t (1 - sum_e W_e^2),   rho = (1 - sum_i W_i^2) / (1 - sum_i (N_i / K)^2)         (43)

where resampling t makes N_i copies of a particle of weight W_i. Theirs is rho = K/(K-1), right on average for
multinomial resampling; the systematic kind joins fewer lineages. Measured with K/(K-1), V was 40 % small at one
resampling in two runs and negative at fifteen a run; with (43) it was at most 12 % small there, and 95 % intervals of
96 particles held log Z in 91 to 96 % of 400 runs. Where V itself exceeds 0.05 expect less, 84 to 90 %.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffplan.count import uncounted
from diffplan.guide import Reward, guided
from diffplan.samplers import Past, Proposal, Sampler, Step, ddim, dpmpp_2m, heun
from diffplan.types import Denoise, Energy, Pins, PlanArray, PRNGKey, Scalar, Strengths

Number = Int[Array, ""]
"""Of a level, from 0: the noisiest."""


class Memory(NamedTuple):
    """What a particle remembers: its log psi, and the greatest and the sum of the energies that it has read."""

    log_psi: Scalar
    best: Scalar
    total: Scalar


class Method(NamedTuple):
    """What `particles` does on each level. Static, but for the arrays that its functions close over.

    twist: ``(memory, number, x, sigma) -> memory`` with the new log psi. guide: ``(number, denoise) -> denoise`` of the
    proposal. candidates: M. threshold: fraction of effective particles below which they are resampled; 0 is never.
    """

    twist: Callable[[Memory, Number, PlanArray, Scalar], Memory]
    guide: Callable[[Number, Denoise], Denoise]
    candidates: int
    threshold: float


class Cloud(NamedTuple):
    """Weighted plans ``x[k, h, d]``; ``exp(log_weights)`` sums to 1. Where a weight is 0 the plan may be non-finite."""

    x: Float[Array, "k h d"]
    log_weights: Float[Array, "k"]


class Info(NamedTuple):
    """What may be looked at afterwards. Of ``[n]``, entry i < n - 1 is on level i before its step, the last is at x0.

    ess: effective sample size as a fraction of the particles; 0 if all weights are. resampled: whether they were.
    lost: fraction of particles whose weight became NaN or +inf there; it counts as 0 from then on. log_z: -inf if all
    weights are 0. log_z_std: sqrt(V) of (43); NaN if all descend from one particle, for such a run cannot tell.
    """

    ess: Float[Array, "n"]
    resampled: Bool[Array, "n"]
    lost: Float[Array, "n"]
    log_z: Scalar
    log_z_std: Scalar


def tds(
    energy: Energy, threshold: float = 0.5, temper: Callable[[Number], Scalar] = lambda number: jnp.ones(())
) -> Method:
    """The twisted diffusion sampler, with ``temper(number)`` times the energy. An exact energy keeps weights equal."""

    def twist(memory: Memory, number: Number, x: PlanArray, sigma: Scalar) -> Memory:
        fraction = temper(number)
        return memory._replace(log_psi=jnp.where(fraction > 0, fraction * energy(x, sigma), 0.0))  # 0 * -inf is 0 here

    def guide(number: Number, denoise: Denoise) -> Denoise:
        return guided(denoise, energy, Strengths(temper(number), jnp.ones(())))

    return Method(twist, guide, 1, threshold)


def annealed(energy: Energy, levels: int, gamma: float | None = None, threshold: float = 0.5) -> Method:
    """`tds` at a strength that grows from 0 to 1; by default it gets there after two thirds of the `levels`."""
    _require("levels", levels, levels >= 2, "at least 2")
    rate = 2 ** (1.5 / (levels - 1)) - 1 if gamma is None else gamma
    _require("gamma", rate, rate > 0, "above 0")
    return tds(energy, threshold, lambda number: jnp.minimum((1 + rate) ** number - 1, 1.0))


def difference(memory: Memory, energy: Scalar) -> Scalar:
    """log psi_i with potentials exp(g_i - g_i-1), from the energy just read and a memory that already counts it."""
    return energy


def maximum(memory: Memory, energy: Scalar) -> Scalar:
    """log psi_i with potentials exp(max_j<=i g_j); the memory's log psi is still that of the level before."""
    return memory.log_psi + memory.best


def summed(memory: Memory, energy: Scalar) -> Scalar:
    """log psi_i with potentials exp(sum_j<=i g_j)."""
    return memory.log_psi + memory.total


def fk_steering(
    energy: Energy, potential: Callable[[Memory, Scalar], Scalar] = difference, every: int = 1, threshold: float = 0.5
) -> Method:
    """Feynman-Kac steering: the energy, there `guide.dps`, is read on every m-th level and needs no gradient."""
    _require("every", every, every >= 1, "at least 1")

    def twist(memory: Memory, number: Number, x: PlanArray, sigma: Scalar) -> Memory:
        read = energy(x, sigma)
        new = Memory(memory.log_psi, jnp.maximum(memory.best, read), memory.total + read)
        new = new._replace(log_psi=potential(new, read))
        return jax.tree.map(lambda new, old: jnp.where(number % every == 0, new, old), new, memory)

    return Method(twist, lambda number, denoise: denoise, 1, threshold)


def svdd(energy: Energy, candidates: int = 10, threshold: float = 0.0) -> Method:
    """SVDD: each particle picks its steps among M candidates; as published, particles do not compete."""
    return fk_steering(energy, threshold=threshold)._replace(candidates=candidates)


def pinned_energy(energy: Energy, pins: Pins) -> Energy:
    """The energy of a plan whose known entries are read clean: what goes with a denoiser that is `denoise.pinned`."""
    return lambda x, sigma: energy(jnp.where(pins.mask, pins.value, x), jnp.where(pins.mask, 0.0, sigma))


class _Walker(NamedTuple):
    """A particle: all that its future and its account depend on, so all that is resampled with it."""

    x: PlanArray
    past: Past
    past_unguided: Past
    memory: Memory
    log_ratio: Scalar  # log p / q of its last step
    ancestor: Number  # the particle of level 0 that it descends from


class _Account(NamedTuple):
    """The weights since the last resampling, and what is known up to it: log Z^ and the log of (43)'s product."""

    log_weights: Float[Array, "k"]
    log_z: Scalar
    log_rho: Scalar


def particles(
    key: PRNGKey, denoise: Denoise, reward: Reward, sampler: Sampler, method: Method, count: int
) -> tuple[Cloud, Info]:
    """Draw weighted plans from (40).

    Args:
        key: consumed.
        denoise: the unguided denoiser. If it is pinned, so must be the method's energy: `pinned_energy`.
        reward: of a clean plan, times its strength.
        sampler: its step rule must add noise. The denoiser is evaluated once a level for each particle.
        method: `tds`, `annealed`, `fk_steering`, `svdd`, or your own.
        count: K. An interval for log Z needs at least 2.

    Returns:
        The weighted plans, and `Info`, which `require_valid` judges outside jit.
    """
    _require("count", count, count >= 1, "at least 1 particle, and 2 for an interval of log Z")
    _require("candidates", method.candidates, method.candidates >= 1, "at least 1")
    _require("threshold", method.threshold, 0 <= method.threshold <= 1, "a fraction of the particles, from 0 to 1")
    sigmas, shape, step = sampler.sigmas, sampler.shape, sampler.step
    noisy = step not in (ddim, heun, dpmpp_2m)
    _require("step", getattr(step, "__name__", step), noisy, "a rule that adds noise, as ancestral and sde_2m do")

    def body(carry: tuple[_Walker, _Account], level: tuple[Array, ...]) -> tuple[tuple[_Walker, _Account], tuple]:
        walkers, account = carry
        number, key, sigma, sigma_next = level
        key_resample, key_leave = jax.random.split(key)
        # resampled between looking at a level and leaving it, so that one evaluation of the denoiser serves both
        looked = jax.vmap(lambda walker: _look(method, step, denoise, walker, number, sigma, sigma_next))(walkers)
        change = looked[0].memory.log_psi - walkers.memory.log_psi + walkers.log_ratio
        log_weights, ess, lost = _weigh(account.log_weights, change)
        chosen, resampled, account = _resample(key_resample, account._replace(log_weights=log_weights), ess, method)
        looked = jax.tree.map(lambda leaf: leaf[chosen], looked)
        leave = jax.vmap(partial(_leave, method), (0, 0, None, None))
        walkers = leave(jax.random.split(key_leave, count), looked, number + 1, sigma_next)
        return (walkers, account), (ess, resampled, lost)

    key_start, key_steps = jax.random.split(key)
    zeros, last = jnp.zeros(count), len(sigmas) - 1
    past = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)), Past.none(shape))
    x = sigmas[0] * jax.random.normal(key_start, (count, *shape))
    walkers = _Walker(x, past, past, Memory(zeros, zeros - jnp.inf, zeros), zeros, jnp.arange(count))
    levels = (jnp.arange(last), jax.random.split(key_steps, last), sigmas[:-1], sigmas[1:])
    start = (walkers, _Account(zeros, jnp.zeros(()), jnp.zeros(())))
    (walkers, account), records = jax.lax.scan(body, start, levels)

    x = jax.vmap(lambda x: denoise(x, sigmas[-1]))(walkers.x)
    change = jax.vmap(reward)(x) - walkers.memory.log_psi + walkers.log_ratio
    log_weights, *end = _weigh(account.log_weights, change)
    ess, resampled, lost = (jnp.append(*pair) for pair in zip(records, (end[0], False, end[1]), strict=True))
    std = jnp.sqrt(jnp.maximum(_relative_variance(log_weights, walkers.ancestor, account.log_rho), 0.0))
    info = Info(ess, resampled, lost, account.log_z + _log_mean(log_weights), std)
    return Cloud(x, jnp.where(log_weights > -jnp.inf, jax.nn.log_softmax(log_weights), -jnp.inf)), info


def _look(
    method: Method, step: Step, denoise: Denoise, walker: _Walker, number: Array, sigma: Array, sigma_next: Array
) -> tuple[_Walker, Proposal, Proposal]:
    """A particle on level `number`, with its twist there, and the distributions of its next step: guided and not."""
    proposal, past = step(method.guide(number, denoise), walker.x, sigma, sigma_next, walker.past)
    with uncounted():  # where the proposal is unguided too, this is the same evaluation; else it only measures
        unguided, past_unguided = step(denoise, walker.x, sigma, sigma_next, walker.past_unguided)
    memory = method.twist(walker.memory, number, walker.x, sigma)
    return walker._replace(past=past, past_unguided=past_unguided, memory=memory), proposal, unguided


def _leave(
    method: Method, key: Array, looked: tuple[_Walker, Proposal, Proposal], number: Array, sigma: Array
) -> _Walker:
    """The particle on the next level, `number`."""
    walker, proposal, unguided = looked
    key_noise, key_pick = jax.random.split(key)
    noise = jax.random.normal(key_noise, (method.candidates, *walker.x.shape))
    x = proposal.mean[None] + proposal.std * noise
    drift = (proposal.mean - unguided.mean) / proposal.std
    log_ratio = -jnp.sum(drift[None] * noise, (1, 2)) - jnp.sum(drift**2) / 2  # log N(x; unguided) / N(x; proposal)
    if method.candidates == 1:
        return walker._replace(x=x[0], log_ratio=log_ratio[0])
    log_psi = jax.vmap(lambda x: method.twist(walker.memory, number, x, sigma).log_psi)(x)
    log_v = log_psi + log_ratio
    pick, mean = jax.random.categorical(key_pick, log_v), _log_mean(log_v)
    return walker._replace(x=x[pick], log_ratio=jnp.where(jnp.isneginf(mean), mean, mean - log_psi[pick]))


def _weigh(log_weights: Array, change: Array) -> tuple[Array, Array, Array]:
    """The new log weights, the effective share of the particles, and the share that was lost just now."""
    total = log_weights + change
    alive, number = log_weights > -jnp.inf, total < jnp.inf  # neither holds for NaN
    total = jnp.where(alive & number, total, -jnp.inf)
    w = jnp.where(total > -jnp.inf, jnp.exp(total - jnp.max(total)), 0.0)
    ess = jnp.sum(w) ** 2 / jnp.maximum(jnp.sum(w**2), 1.0)  # the largest w is 1, if any is not 0
    return total, ess / w.size, jnp.mean(alive & ~number)


def _resample(key: Array, account: _Account, ess: Array, method: Method) -> tuple[Array, Array, _Account]:
    """Who goes on, ``[k]``, whether that is a resampling, and the account after it."""
    log_weights, log_z, log_rho = account
    count = log_weights.size
    needed = (ess > 0) & (ess < method.threshold)
    w = jax.nn.softmax(log_weights)
    chosen = jnp.where(needed, systematic(key, w, count), jnp.arange(count))
    copies = jnp.bincount(chosen, length=count)
    rho = (1 - jnp.sum(w**2)) / (1 - jnp.sum((copies / count) ** 2))
    settled = _Account(jnp.zeros(count), log_z + _log_mean(log_weights), log_rho + jnp.log(rho))
    return chosen, needed, jax.tree.map(lambda new, old: jnp.where(needed, new, old), settled, account)


def systematic(key: PRNGKey, weights: Float[Array, "k"], count: int) -> Int[Array, "count"]:
    """`count` indices in rising order, i on average count * weights[i] / sum(weights) times, from one random number."""
    cumulative = jnp.cumsum(weights)
    points = (jax.random.uniform(key) + jnp.arange(count)) / count * cumulative[-1]
    last = jnp.searchsorted(cumulative, cumulative[-1])  # of positive weight; rounding may not lead past it
    return jnp.minimum(jnp.searchsorted(cumulative, points, side="right"), last)


def _log_mean(log_weights: Array) -> Array:
    return jax.nn.logsumexp(log_weights) - np.log(log_weights.size)


def _relative_variance(log_weights: Array, ancestor: Array, log_rho: Array) -> Array:
    """Equation (43); NaN if there is one ancestor, or no weight."""
    count = ancestor.size
    w = jax.ops.segment_sum(jax.nn.softmax(log_weights), ancestor, count)
    apart = jnp.exp(log_rho) * (1 - jnp.sum(w**2)) * count / max(count - 1, 1)
    return jnp.where(jnp.all(ancestor == ancestor[0]), jnp.nan, 1 - apart)


def interval(info: Info, level: float = 0.95) -> tuple[Array, Array]:
    """Lower and upper end for log Z, if Z^ is lognormal: log Z^ + V/2 -+ z sqrt(V), as E Z^ = Z puts E log Z^ lower.

    It knows what the particles saw and no more: a twist that misleads them all yields a narrow and wrong interval.
    """
    _require("level", level, 0 < level < 1, "above 0 and below 1")
    centre = info.log_z + info.log_z_std**2 / 2
    half = jax.scipy.stats.norm.ppf((1 + level) / 2) * info.log_z_std
    return centre - half, centre + half


def draw(key: PRNGKey, cloud: Cloud, count: int) -> Float[Array, "count h d"]:
    """Equally weighted plans, by systematic resampling; if all weights are 0, as if all were the same."""
    _require("count", count, count >= 1, "at least 1")
    w = jnp.where(jnp.max(cloud.log_weights) > -jnp.inf, jnp.exp(cloud.log_weights), 1.0)
    return cloud.x[systematic(key, w, count)]


def require_valid(info: Info) -> None:
    """Raise a `ValueError` that names the first step on which weights were degenerate. For results, not under jit."""
    ess, lost = (np.asarray(leaf).reshape(-1, np.shape(leaf)[-1]) for leaf in (info.ess, info.lost))
    for i in range(ess.shape[1]):
        if (lost[:, i] > 0).any():
            raise ValueError(f"degenerate weights at step {i}: {lost[:, i].max():.1%} became NaN or infinite")
        if (ess[:, i] == 0).any():
            raise ValueError(f"degenerate weights at step {i}: all are zero")


def _require(name: str, value: object, valid: bool, allowed: str) -> None:
    """One line that names the argument, its value and what is allowed."""
    if not valid:
        raise ValueError(f"{name}={value}: must be {allowed}")
