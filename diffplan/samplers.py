"""One loop, several step rules.

A rule looks at the plan x at level sigma and gives the mean and standard deviation of the plan at the next level
sigma' < sigma; the loop adds the noise. Every rule's last step, to level 0, is the same and noiseless:
``x0 = D(x, sigma_n)``. With the denoised plan D = D(x, sigma) and the noise direction e = (x - D) / sigma:

    ancestral    x' ~ N(x + (1 - sigma'^2 / sigma^2) (D - x), sigma'^2 (sigma^2 - sigma'^2) / sigma^2)    (5)
    ddim         x' = D + sigma' e                                                                        (6)
    heun         x' = x + (sigma' - sigma) (e + e') / 2, e' the direction at the point of (6)             (7)
    dpmpp_2m     x' = (sigma' / sigma) x + (1 - sigma' / sigma) ((1 + 1/2q) D - D_past / 2q)              (8)
                 with q = log(sigma_past / sigma) / log(sigma / sigma')
    sde_2m       (5) with D + (D - D_past) / 2q in place of D                                             (8b)

(5) is the exact posterior of the corruption process given x0 = D (Ho et al. 2020, eq. 7, in this parameterisation);
(6) Song et al. 2021; (7) Karras et al. 2022, algorithm 1; (8) Lu et al. 2022, algorithm 2, with log-SNR -log sigma, and
(8b) its stochastic form, SDE-DPM-Solver++ (ibid.). (5) and (8b) add noise. In the step of log sigma (5) and (6) are of
first order, the others of second.

**Path KL.** Given a `reference` denoiser, the loop adds up what guidance cost, as the shift of the mean that really
happened: sum over steps of ||mean - mean_ref||^2 / (2 std^2), an upper bound on KL(guided plans || reference plans). It
needs noise in the steps: deterministic rules give NaN. The noiseless last step is left out. A multistep rule's
reference remembers its own denoised plans, of the same iterates.

**Finer levels, the same noise.** In the time s = 1 / sigma^2 the noise of (5) is a Brownian motion B of the plan x /
sigma^2, and z = (B(s') - B(s)) / sqrt(s' - s) is the noise of one step. A level in the middle of the step cuts it into
two, whose noise is drawn given z (Levy's construction): with a^2 and b^2 their fractions of s' - s, and e new noise,

    z_1 = a z + b e,      z_2 = b z - a e                                                                 (143)

So the same key gives nearly the same plan at twice as many levels, and the difference is the error of the steps.

**Early exit.** As levels fall the denoised plan D_i settles. Below the first level where it has, the rest is left out:

    sigma_i <= 1  and  sqrt(mean (D_i - D_i-1)^2) < tolerance        then   x0 = D(x_i+1, sigma_i+1)      (155)

Above the standard deviation of the data, 1, the denoised plan hardly moves because nothing is known of it yet.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.count import uncounted
from diffplan.settings import Named, at_least, settings
from diffplan.types import Denoise, PRNGKey, Scalar


class Past(NamedTuple):
    """What a multistep rule remembers: the last denoised plan and its level (infinite before the first step)."""

    denoised: Float[Array, "h d"]
    sigma: Scalar

    @classmethod
    def none(cls, shape: tuple[int, int]) -> "Past":
        """Before the first step."""
        return cls(jnp.zeros(shape), jnp.full((), jnp.inf))


class Proposal(NamedTuple):
    """The distribution of the next iterate: N(mean, std^2)."""

    mean: Float[Array, "h d"]
    std: Scalar


Step = Callable[[Denoise, Float[Array, "h d"], Scalar, Scalar, Past], tuple[Proposal, Past]]
"""A rule ``step(denoise, x, sigma, sigma_next, past)``, 0 < sigma_next < sigma -> (proposal, what the next
remembers)."""


class Info(NamedTuple):
    """What may be looked at after sampling.

    path_kl: nats, NaN without a reference or noise. log_ratio: the logarithm of the density of this very chain under
    the guided process over that under the reference's, NaN as the path KL, which is its mean; for the exact guide it is
    log of the tilt, w r(x0) - log Z, chain by chain. iterates: all of them, noisiest first, ``[n, h, d]``.
    """

    path_kl: Scalar
    log_ratio: Scalar
    iterates: Float[Array, "n h d"]


def ancestral(denoise: Denoise, x, sigma, sigma_next, past: Past) -> tuple[Proposal, Past]:
    """Equation (5)."""
    denoised = denoise(x, sigma)
    mean = x + (1 - (sigma_next / sigma) ** 2) * (denoised - x)
    std = sigma_next * jnp.sqrt(1 - (sigma_next / sigma) ** 2)
    return Proposal(mean, std), Past(denoised, sigma)


def ddim(denoise: Denoise, x, sigma, sigma_next, past: Past) -> tuple[Proposal, Past]:
    """Equation (6)."""
    denoised = denoise(x, sigma)
    return Proposal(denoised + sigma_next / sigma * (x - denoised), jnp.zeros(())), Past(denoised, sigma)


def heun(denoise: Denoise, x, sigma, sigma_next, past: Past) -> tuple[Proposal, Past]:
    """Equation (7): two evaluations a step."""
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    euler = x + (sigma_next - sigma) * slope
    slope_next = (euler - denoise(euler, sigma_next)) / sigma_next
    return Proposal(x + (sigma_next - sigma) * (slope + slope_next) / 2, jnp.zeros(())), Past(denoised, sigma)


def dpmpp_2m(denoise: Denoise, x, sigma, sigma_next, past: Past) -> tuple[Proposal, Past]:
    """Equation (8); its first step, with an infinitely noisy past, is (6)."""
    denoised = denoise(x, sigma)
    half = jnp.log(sigma / sigma_next) / jnp.log(past.sigma / sigma) / 2
    extrapolated = (1 + half) * denoised - half * past.denoised
    mean = sigma_next / sigma * x + (1 - sigma_next / sigma) * extrapolated
    return Proposal(mean, jnp.zeros(())), Past(denoised, sigma)


def sde_2m(denoise: Denoise, x, sigma, sigma_next, past: Past) -> tuple[Proposal, Past]:
    """Equation (8b); its first step, with an infinitely noisy past, is (5)."""
    denoised = denoise(x, sigma)
    half = jnp.log(sigma / sigma_next) / jnp.log(past.sigma / sigma) / 2
    extrapolated = denoised + half * (denoised - past.denoised)
    kept = (sigma_next / sigma) ** 2
    return Proposal(x + (1 - kept) * (extrapolated - x), sigma_next * jnp.sqrt(1 - kept)), Past(denoised, sigma)


STEPS: dict[str, Step] = {step.__name__: step for step in (ancestral, sde_2m, ddim, heun, dpmpp_2m)}
"""Every step rule by its name."""


@struct.dataclass
class Sampler:
    """How a plan is drawn. The levels are traced; the shape and the rule are static."""

    sigmas: Float[Array, "n"]
    """n decreasing positive noise levels (`diffplan.noise`). All rules evaluate the denoiser n times, heun 2n - 1."""
    shape: tuple[int, int] = struct.field(pytree_node=False)
    """``(h, d)`` of the plan."""
    step: Step = struct.field(pytree_node=False, default=ancestral)
    """One of `STEPS`, or your own."""
    halvings: int = struct.field(pytree_node=False, default=0)
    """How often every interval between levels is cut into two; the noise stays that of `sigmas` (143)."""

    @property
    def levels(self) -> int:
        """How many noise levels a plan passes."""
        return (len(self.sigmas) - 1) * 2**self.halvings + 1


def halved(
    key: PRNGKey, sigmas: Float[Array, "n"], noise: Float[Array, "n-1 h d"]
) -> tuple[Float[Array, "m"], Float[Array, "m-1 h d"]]:
    """Twice as many steps, with noise that adds up to that of each (143).

    Args:
        key: of what is new; consumed.
        sigmas: decreasing noise levels.
        noise: of the steps between them, of unit variance.

    Returns:
        m = 2n - 1 levels, the new ones geometric means of their neighbours, and the noise of their steps.
    """
    middle = jnp.sqrt(sigmas[:-1] * sigmas[1:])
    first, second = middle**-2 - sigmas[:-1] ** -2, sigmas[1:] ** -2 - middle**-2
    a, b = (jnp.sqrt(part / (first + second))[:, None, None] for part in (first, second))
    new = jax.random.normal(key, noise.shape)
    pairs = lambda left, right: jnp.stack([left, right], axis=1).reshape(-1, *left.shape[1:])
    finer = jnp.append(pairs(sigmas[:-1], middle), sigmas[-1])
    return finer, pairs(a * noise + b * new, b * noise - a * new)


def sample(
    key: PRNGKey,
    denoise: Denoise,
    sampler: Sampler,
    reference: Denoise | None = None,
    warm: Float[Array, "h d"] | None = None,
) -> tuple[Float[Array, "h d"], Info]:
    """Draw one plan from noise.

    Args:
        key: consumed.
        denoise: any denoiser, however wrapped; the loop knows nothing of guidance.
        sampler: the noise levels, the plan's shape and the step rule.
        reference: the unguided denoiser, pinned as `denoise` is, from which the path KL is measured.
        warm: a clean plan to start from, noised to the first level; without it the start is noise alone.

    Returns:
        The plan ``[h, d]`` and `Info`.
    """
    (x, sigmas, noises), shape, step = noised_start(key, sampler, warm), sampler.shape, sampler.step

    def body(carry, level):
        x, past, past_ref = carry
        noise, sigma, sigma_next = level
        proposal, past = step(denoise, x, sigma, sigma_next, past)
        nats = log_ratio = jnp.full((), jnp.nan)
        if reference is not None:
            with uncounted():
                expected, past_ref = step(reference, x, sigma, sigma_next, past_ref)
            shift = (proposal.mean - expected.mean) / proposal.std
            nats = jnp.where(proposal.std > 0, jnp.sum(shift**2) / 2, jnp.nan)
            log_ratio = nats + jnp.sum(shift * noise)
        x_next = proposal.mean + proposal.std * noise
        return (x_next, past, past_ref), (nats, log_ratio, x)

    start = (x, Past.none(shape), Past.none(shape))
    (x, *_), (nats, log_ratio, iterates) = jax.lax.scan(body, start, (noises, sigmas[:-1], sigmas[1:]))
    return denoise(x, sigmas[-1]), Info(jnp.sum(nats), jnp.sum(log_ratio), jnp.concatenate([iterates, x[None]]))


def sample_until(
    key: PRNGKey, denoise: Denoise, sampler: Sampler, tolerance: Scalar, warm: Float[Array, "h d"] | None = None
) -> tuple[Float[Array, "h d"], Int[Array, ""]]:
    """Draw one plan as `sample` does, and leave out the levels below which it has settled (155).

    Batched, the loop goes on until the last plan has settled: it saves time for one plan, or for few.

    Args:
        key: consumed.
        denoise: any denoiser.
        sampler: the noise levels, the plan's shape and the step rule.
        tolerance: in units of a normalised plan. 0: the plan of `sample` with the same key.
        warm: as of `sample`.

    The loop has no reverse-mode derivative, and `diffplan.count` refuses it: its trips are not known before it runs.

    Returns:
        The plan ``[h, d]``, and how many levels it passed.
    """
    x, sigmas, noises = noised_start(key, sampler, warm)
    if len(noises) == 0:
        return denoise(x, sigmas[0]), jnp.ones((), int)

    def moving(state):
        _, _, change, level = state
        return (level < len(noises)) & (change >= tolerance)

    def body(state):
        x, before, _, level = state
        proposal, past = sampler.step(denoise, x, sigmas[level], sigmas[level + 1], before)
        change = jnp.sqrt(jnp.mean((past.denoised - before.denoised) ** 2))
        change = jnp.where(jnp.isinf(before.sigma) | (sigmas[level] > 1), jnp.inf, change)
        return proposal.mean + proposal.std * noises[level], past, change, level + 1

    start = x, Past.none(sampler.shape), jnp.full((), jnp.inf), jnp.zeros((), int)
    x, _, _, level = jax.lax.while_loop(moving, body, start)
    return denoise(x, sigmas[level]), level + 1


def noised_start(
    key: PRNGKey, sampler: Sampler, warm: Float[Array, "h d"] | None
) -> tuple[Float[Array, "h d"], Float[Array, "n"], Float[Array, "n-1 h d"]]:
    """(the plan at the first level, all levels, the noise of the steps between them)."""
    sigmas, shape = sampler.sigmas, sampler.shape
    key_start, key_steps = jax.random.split(key)
    x = sigmas[0] * jax.random.normal(key_start, shape) + (0.0 if warm is None else warm)
    noises = jax.vmap(lambda key: jax.random.normal(key, shape))(jax.random.split(key_steps, len(sigmas) - 1))
    for halving in range(sampler.halvings):
        sigmas, noises = halved(jax.random.fold_in(key_steps, halving), sigmas, noises)
    return x, sigmas, noises


CHUNK = {"cpu": 64}
"""Plans that are drawn at once, by backend. The activations of 64 plans fit the caches of a CPU."""

MANY = 4096
"""Plans that an accelerator draws at once: enough to keep it busy, and few enough for its memory."""

Batched = TypeVar("Batched")


def chunked(draw: Callable[..., Batched], *rows: Any) -> Batched:
    """``jax.vmap(draw)(*rows)``, one chunk of rows after another: more rows do not make a single plan dearer.

    Args:
        draw: of one row, such as one key and one start.
        rows: arrays, or pytrees of them, with the same leading axis.

    Returns:
        The results, with a leading axis. Chunks have the same size: the last one may draw some of the first rows again,
        which `diffplan.count` counts.
    """
    count = len(jax.tree.leaves(rows)[0])
    size, chunks = even_chunks(count)
    if chunks == 1:
        return jax.vmap(draw)(*rows)
    filled = lambda a: jnp.concatenate([a, a[: size * chunks - count]]).reshape(chunks, size, *a.shape[1:])
    result = jax.lax.map(lambda part: jax.vmap(draw)(*part), jax.tree.map(filled, rows))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], result)


def even_chunks(count: int) -> tuple[int, int]:
    """(size, number) of the chunks of so many rows. A single chunk may have a quarter more rows than `CHUNK`."""
    most = CHUNK.get(jax.default_backend(), MANY)
    chunks = 1 if 4 * count <= 5 * most else -(-count // most)
    return -(-count // chunks), chunks


@settings("sampler")
class SamplerSettings:
    """How plans are drawn from the prior, guided or not."""

    rule: Named = "ancestral"
    """Step rule: ancestral, sde_2m, ddim, heun, dpmpp_2m, or file.py:NAME. Path KL is defined for ancestral and sde_2m,
    which add noise."""
    steps: Annotated[int, at_least(2, 1_000_000)] = 12
    """Noise levels, and evaluations of the denoiser (heun: twice that). Of one-hot plans 24, if nothing was chosen."""
