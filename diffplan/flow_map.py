"""A flow map: one evaluation of a network takes a plan from any noise level to any lower one.

Along the probability-flow ODE of a denoiser D a plan x_s of level s becomes x_t of level t < s. A flow map g says where
that is (Kim et al. 2024, arXiv 2310.02279, CTM):

    x_t = (t / s) x_s + (1 - t / s) g(x_s, s, t)                                                          (146)

g(x_s, s, t) is the mean of D(x_u, u) over the course from s to t, even in 1 / u. So g(x, s, s) = D(x, s), and
g(x, s, 0) is the plan at which the ODE ends.

**A few steps.** Between two jumps a fraction c of the noise may be renewed: the jump goes to the level t below the next
one s', and new noise takes it back.

    t = sqrt(1 - c) s',      x_s' = x_t + sqrt(c) s' e                                                    (147)

**Guidance** pushes a plan before it jumps. So each push is carried on by the map, which ends on plans that it knows:

    x <- x + w (1 + s^2) (sqrt((1 + s^2) / (1 + t^2)) - 1) grad E(x, s)                                   (148)

with E the energy. For data of unit variance and the exact energy of a linear reward the jump carries the push to where
the guided ODE is at t, however far apart the levels are.

**Draws of the posterior.** Noise e_k around the denoised plan, and a jump to 0, give plans y_k that x may come from.
They give an energy of a weight w that sees more of the posterior than its mean:

    y_k = the jump of sqrt(1 + s^2) D(x, s) + s e_k from s to 0,      E(x, s) = log mean_k exp(w r(y_k))  (149)

For Gaussian data of unit variance and mean 0 the y_k are exact draws of p(x0 | x). For others they are plans at least,
as draws of a Gaussian around D are not.

**Looking ahead** (FMRG, arXiv 2604.27147) takes the reward of the plan at which the ODE ends, with no draws. It is no
energy of the tilt at any level above 0:

    E(x, s) = r(the jump of x from s to 0)                                                                (151)
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.denoise import CLEAN, ChainDenoiser, Edm
from diffplan.noise import karras
from diffplan.types import Energy, Level, Pins, PRNGKey, Scalar

Reward = Callable[[Float[Array, "h d"]], Scalar]

TwoTime = Callable[[Float[Array, "h d"], Level, Scalar], Float[Array, "h d"]]
"""``g(x [h, d], level s of every entry or of all, level t)`` of (146). Entries at level 0 come back as they are."""


@struct.dataclass
class FlowMap:
    """A denoiser whose network is given a level to go to, as a `TwoTime`; without that level, a denoiser. A pytree.

    base: `Edm` or `ChainDenoiser`, with ``apply(params, ..., c_noise[], c_target[]) -> [h, d]``.
    """

    base: Edm | ChainDenoiser

    def __call__(self, x: Float[Array, "h d"], sigma: Level, to: Scalar | None = None) -> Float[Array, "h d"]:
        """g(x, sigma, to); D(x, sigma) if `to` is left out."""
        level = jnp.maximum(jnp.max(sigma) if to is None else to, CLEAN / 4)  # 0 has no logarithm
        network = lambda params, *inputs: self.base.apply(params, *inputs, jnp.log(level) / 4)
        return replace(self.base, apply=network)(x, sigma)


@struct.dataclass
class FewSteps:
    """How plans are drawn by a flow map, with one evaluation a level."""

    sigmas: Float[Array, "n"]
    """Decreasing positive noise levels, at which the jumps begin; the last jump goes to 0."""
    shape: tuple[int, int] = struct.field(pytree_node=False)
    """``(h, d)`` of the plan."""
    renewed: float = struct.field(pytree_node=False, default=0.3)
    """c of (147), from 0 to 1: 0 follows the ODE, 1 jumps to 0 every time."""

    @classmethod
    def between(cls, sigmas: Float[Array, "m"], shape: tuple[int, int], count: int) -> "FewSteps":
        """So many levels, from the highest to the lowest of a sampler's."""
        return cls(karras(count, sigmas[-1], sigmas[0]), shape)


def jump(flow: TwoTime, x: Float[Array, "h d"], sigma: Level, ratio: Scalar) -> Float[Array, "h d"]:
    """(146), to a level that is `ratio` times sigma; at the noisiest entry's level the map is told where to."""
    return ratio * x + (1 - ratio) * flow(x, sigma, ratio * jnp.max(sigma))


def push(scale: Scalar, energy: Energy, x: Float[Array, "h d"], sigma: Level, to: Scalar) -> Float[Array, "h d"]:
    """(148). to: the level of the noisiest entry after the jump; entries at level 0 stay."""
    variance = 1 + jnp.max(sigma) ** 2
    size = variance * (jnp.sqrt(variance / (1 + to**2)) - 1)
    return x + jnp.where(sigma > 0, scale * size * jax.grad(energy)(x, sigma), 0.0)


def few_steps(
    key: PRNGKey,
    flow: TwoTime,
    how: FewSteps,
    pins: Pins,
    scale: Scalar | None = None,
    energy: Energy | None = None,
    warm: Float[Array, "h d"] | None = None,
) -> Float[Array, "h d"]:
    """Draw one plan with as many evaluations of the map as there are levels, beside those of the energy.

    Args:
        key: consumed.
        flow: the map, not pinned.
        how: the levels.
        pins: entries that are known.
        scale: the guidance scale w of (148); None: unguided.
        energy: guides.
        warm: a clean plan to start from, noised to the first level; without it the start is noise alone.

    Returns:
        The plan ``[h, d]``.
    """
    sigmas = how.sigmas
    noises = jax.vmap(lambda key: jax.random.normal(key, how.shape))(jax.random.split(key, len(sigmas)))

    def body(x: Array, level: tuple[Array, Scalar, Scalar]) -> tuple[Array, None]:
        noise, sigma, following = level
        to = jnp.sqrt(1 - how.renewed) * following
        own = jnp.where(pins.mask, 0.0, sigma)
        x = jnp.where(pins.mask, pins.value, x)
        if scale is not None and energy is not None:
            x = push(scale, energy, x, own, to)
        x = jump(flow, x, own, to / sigma)
        return jnp.where(pins.mask, pins.value, x + jnp.sqrt(how.renewed) * following * noise), None

    start = sigmas[0] * noises[0] + (0.0 if warm is None else warm)
    later = jnp.concatenate([noises[1:], jnp.zeros((1, *how.shape))])
    return jax.lax.scan(body, start, (later, sigmas, jnp.append(sigmas[1:], 0.0)))[0]


def look_ahead(flow: TwoTime, reward: Reward) -> Energy:
    """(151): the clean reward of the plan at which the ODE ends."""
    return lambda x, sigma: reward(jump(flow, x, sigma, jnp.zeros(())))


def posterior(flow: TwoTime, reward: Reward, noise: Float[Array, "k h d"], weight: Scalar) -> Energy:
    """(149): the energy of the weight w, to be used at scale 1. noise: the e_k, of unit variance."""

    def energy(x: Float[Array, "h d"], sigma: Level) -> Scalar:
        level = jnp.broadcast_to(sigma, x.shape)
        around = (jnp.sqrt(1 + level**2) * flow(x, sigma, jnp.max(sigma)))[None] + level[None] * noise
        plans = jax.vmap(lambda y: jump(flow, y, sigma, jnp.zeros(())))(around)
        return jax.nn.logsumexp(weight * jax.vmap(reward)(plans)) - jnp.log(float(len(noise)))

    return energy
