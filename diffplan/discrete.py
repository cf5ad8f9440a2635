"""Discrete diffusion: plans that are paths of tokens, their corruption, its reversal, and guidance that is exact.

A path s[h] of tokens out of k states is noised position by position: a token is kept with probability alpha, else lost,
and something drawn from the distribution `blank` stands in its place. With alpha falling from 1 to 0 as time goes from
0 to 1,

    q(z | s) = alpha [z = s] + (1 - alpha) blank(z)                                                    (60)

Masked noise puts a symbol k there that is no state, uniform noise a random state. The one noun is the `Posterior`
p(s_t = s | z) of every position given the whole noisy path, the discrete denoiser. It gives the distribution of a less
noisy z', alpha' > alpha, at each position alone, where q(z | z') is (60) that keeps alpha / alpha' (Austin et al.
2021):

    p(z' | z) = sum_s p(s | z) q(z | z') q(z' | s) / q(z | s)                                          (61)

At alpha' = 1 it is the posterior itself. Guidance wraps such a distribution, and samplers know nothing of it. With
h(z, alpha) = E[exp r(s) | z], and z[i: v] the path z with v at position i (Nisonoff et al. 2024, arXiv 2406.01572),

    p_g(z'_i = v | z)  ~  p(z'_i = v | z) (h(z[i: v], alpha) / h(z, alpha))^g                          (62)

which at g = 1 draws from p(s) exp r(s) / Z, with two provisos. *Steps*: positions move independently of one another, so
sampling is exact only as steps grow fine; two that move at once may not fit together. With masked noise `reveal` moves
one at a time, and is exact in h steps. *Ratios*: exact ones ask for log h at all h * m neighbours of z;
`first_order` (ibid., "TAG") takes them from one gradient in the one-hot form e of z, and is not exact:

    log h(z[i: v]) - log h(z)  ~  (d / d e[i, v] - d / d e[i, z_i]) log h(e)                           (63)

A network learns the posterior by cross-entropy, (65), from logits to which what z itself says is added, so that they
need only say what the other positions do:

    p(s_t = s | z) = softmax over s of logits_t(s) + log q(z_t | s)                                    (64)
    min E -log p(s_t | z),   alpha even in [0, 1), z from (60), every t                                (65)

**Path KL**: the sum over steps and positions of KL(distribution || reference distribution). Its mean is no less than
the KL between the plans, and for the exact tilt equal to it. **Legality**: nothing is repaired. A path that no plan
could have led to has no posterior: its positions stay as they are, and a mask that is left over at the end is no legal
state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.nn import log_softmax, one_hot, softmax
from jaxtyping import Array, Bool, Float, Int

from diffplan.types import Apply, Params, PRNGKey, Scalar

Tokens = Int[Array, "h"]
"""A path: at every step one of m symbols, the k states, and k for a mask where there is one."""

Keep = Float[Array, ""] | Float[Array, "h"]
"""A probability alpha: one for the whole path, or one for every position, 1 where a token is known."""

Levels = Float[Array, "n"]

Posterior = Callable[[Tokens, Keep], Float[Array, "h k"]]
"""The one noun: ``(z, alpha) -> p(s_t = s | z)``."""

Reverse = Callable[[Tokens, Keep, Keep], Float[Array, "h m"]]
"""``(z, alpha, alpha_next) -> log p(z'_t = v | z)``, -inf where impossible, nan where z itself is (61)."""

Logits = Callable[[Tokens, Keep], Float[Array, "h k"]]
"""What a network says about every position, beside what the token there says (64)."""

LogH = Callable[[Float[Array, "h m"], Keep], Scalar]
"""``(e, alpha) -> log h`` of a path in one-hot form; for `first_order`, differentiable there."""

Ratio = Callable[[Tokens, Keep], Float[Array, "h m"]]
"""``(z, alpha) -> log h(z[i: v]) - log h(z)`` for every position i and symbol v."""


@dataclass(frozen=True)
class Noise:
    """Equation (60), by the distribution of what stands in a lost token's place: over the k states, or those and a
    mask.

    Hashable, hence static under jit. A `blank` between the two kinds makes a masked noise that revises its tokens.

    Raises:
        ValueError: if there are fewer than 2 states, or `blank` is no distribution over them.
    """

    states: int
    blank: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.states < 2:
            raise ValueError(f"states={self.states}: must be 2 or more")
        if self.symbols - self.states not in (0, 1) or not (min(self.blank) >= 0 and abs(sum(self.blank) - 1) < 1e-5):
            raise ValueError(f"blank: must be a distribution over {self.states} states, or over those and a mask")

    @classmethod
    def masked(cls, states: int) -> "Noise":
        """A lost token becomes the mask, symbol k. Once a token is there, it stays."""
        return cls(states, (0.0,) * states + (1.0,))

    @classmethod
    def uniform(cls, states: int) -> "Noise":
        """A lost token becomes a random state. Sampling revises its tokens until the end."""
        return cls(states, (1 / states,) * states)

    @property
    def symbols(self) -> int:
        """m."""
        return len(self.blank)

    def likelihood(self, z: Tokens, alpha: Keep, size: int) -> Float[Array, "h size"]:
        """q(z_t | v) of (60), for the symbols v = 0, ..., size - 1."""
        keep = jnp.broadcast_to(alpha, z.shape)[:, None]
        return keep * one_hot(z, size) + (1 - keep) * jnp.asarray(self.blank)[z][:, None]

    def start(self, key: PRNGKey, horizon: int) -> Tokens:
        """A draw of (60) at alpha = 0, where nothing is left of any path."""
        if horizon < 1:
            raise ValueError(f"horizon={horizon}: must be 1 or more")
        return self.corrupted(key, jnp.zeros(horizon, int), jnp.zeros(()))

    def corrupted(self, key: PRNGKey, s0: Tokens, alpha: Keep) -> Tokens:
        """A draw of (60)."""
        key_keep, key_blank = jax.random.split(key)
        lost = jax.random.categorical(key_blank, log(jnp.asarray(self.blank)), shape=s0.shape)
        return jnp.where(jax.random.bernoulli(key_keep, alpha, s0.shape), s0, lost)

    def log_likelihood(self, z: Tokens, alpha: Keep) -> Float[Array, "h k"]:
        """l_t(s) = log q(z_t | s), the evidence from which `oracle.tabular.Chain.posterior` has the exact posterior."""
        return log(self.likelihood(z, alpha, self.states))

    def relaxed(self, e: Float[Array, "h m"], alpha: Keep) -> Float[Array, "h k"]:
        """`log_likelihood` of a path in one-hot form, up to a constant in s, for log h to be differentiated in `e`.

        What is finite of it goes linearly from symbol to symbol, as far as it depends on s; what is impossible through
        its probability, for a gradient through -inf would be infinite.
        """

        def row(e: Float[Array, "m"], alpha: Scalar) -> Float[Array, "k"]:
            table = self.likelihood(jnp.arange(self.symbols), alpha, self.states)
            peak = jnp.max(table, axis=1, keepdims=True)
            table = table / jnp.where(peak > 0, peak, 1.0)
            return e @ jnp.where(table > 0, log(table), 0.0) + log(e @ (table > 0))

        return jax.vmap(row)(e, jnp.broadcast_to(alpha, e.shape[:1]))


def log(p: Array) -> Array:
    """The logarithm, -inf at 0, with gradient 0 there."""
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)


def reverse(posterior: Posterior, noise: Noise) -> Reverse:
    """Equation (61). A symbol that s could not have become says that s is not there, whatever the posterior says."""

    def distribution(z: Tokens, alpha: Keep, alpha_next: Keep) -> Float[Array, "h m"]:
        likelihood, blank = noise.likelihood(z, alpha, noise.states), jnp.asarray(noise.blank)
        weight = jnp.where(likelihood > 0, posterior(z, alpha) / jnp.where(likelihood > 0, likelihood, 1.0), 0.0)
        back = noise.likelihood(z, alpha / alpha_next, noise.symbols)
        keep = jnp.broadcast_to(alpha_next, z.shape)[:, None]
        ahead = keep * (weight @ jnp.eye(noise.states, noise.symbols)) + (1 - keep) * jnp.outer(weight.sum(1), blank)
        return log_softmax(log(back) + log(ahead), axis=1)

    return distribution


def guided(distribution: Reverse, ratio: Ratio, scale: Scalar | float) -> Reverse:
    """Equation (62), for a traced g = `scale`; 0 gives back `distribution`. What `distribution` forbids stays
    forbidden at any scale.

    h is asked halfway between the levels, where z and all that it may become are possible. Of a path that never is, h
    is undefined, and such a neighbour is forbidden: the posterior gives it 0, but for rounding.

    Raises:
        ValueError: for a negative scale; negate the reward.
    """
    if not isinstance(scale, Tracer) and not float(scale) >= 0:
        raise ValueError(f"scale={float(scale):g}: must be 0 or more")

    def wrapped(z: Tokens, alpha: Keep, alpha_next: Keep) -> Float[Array, "h m"]:
        log_distribution, gain = distribution(z, alpha, alpha_next), ratio(z, (alpha + alpha_next) / 2)
        gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
        possible = log_distribution > -jnp.inf
        return log_softmax(log_distribution + jnp.where(possible & (scale > 0), scale * gain, 0.0), axis=1)

    return wrapped


def first_order(log_h: LogH, noise: Noise) -> Ratio:
    """The ratios of (63): one gradient of log h. How far off they are depends on how log h goes on between paths."""

    def ratios(z: Tokens, alpha: Keep) -> Float[Array, "h m"]:
        e = one_hot(z, noise.symbols)
        slope = jax.grad(log_h)(e, alpha)
        return slope - jnp.sum(slope * e, axis=1, keepdims=True)

    return ratios


def pinned(distribution: Reverse, known: Bool[Array, "h"], value: Tokens) -> Reverse:
    """Condition on known tokens: they enter at alpha = 1, and leave as they are. Wrap it around everything else."""

    def wrapped(z: Tokens, alpha: Keep, alpha_next: Keep) -> Float[Array, "h m"]:
        clean = lambda alpha: jnp.where(known, 1.0, alpha)
        log_distribution = distribution(jnp.where(known, value, z), clean(alpha), clean(alpha_next))
        return jnp.where(known[:, None], log(one_hot(value, log_distribution.shape[1])), log_distribution)

    return wrapped


class Info(NamedTuple):
    """What may be looked at after sampling.

    path_kl: nats, nan without a reference. finite: whether every distribution was defined. iterates: all of them,
    ``[n, h]``.
    """

    path_kl: Scalar
    finite: Bool[Array, ""]
    iterates: Int[Array, "n h"]


def even(steps: int) -> Float[Array, "steps"]:
    """Levels 0, 1 / steps, ..., at which masked noise loses as many tokens in every step."""
    return jnp.arange(steps) / steps


def sample(
    key: PRNGKey, distribution: Reverse, noise: Noise, alphas: Levels, horizon: int, reference: Reverse | None = None
) -> tuple[Tokens, Info]:
    """Draw one path from noise, all positions at once in every step.

    Args:
        key: consumed.
        distribution: `reverse` of a posterior, however wrapped; n evaluations.
        noise: with which the posterior was trained.
        alphas: increasing levels from 0 or little more, below 1 (`even`); the last step goes to 1.
        horizon: h.
        reference: the unguided distribution, pinned as `distribution` is, from which the path KL is measured.

    Returns:
        The path ``[h]`` and `Info`.

    Raises:
        ValueError: if levels are not increasing within [0, 1), or the horizon is not positive.
    """
    if not isinstance(alphas, Tracer):
        grid = np.asarray(alphas)
        if not (len(grid) and grid[0] >= 0 and grid[-1] < 1 and (np.diff(grid) > 0).all()):
            raise ValueError(f"alphas={grid}: must increase, from 0 or more to less than 1; the last step goes to 1")
    key_start, key_steps = jax.random.split(key)
    start = noise.start(key_start, horizon)
    steps = (alphas, jnp.append(alphas[1:], 1.0), jnp.ones((len(alphas), horizon), bool))
    return walk(key_steps, distribution, start, steps, reference)


def reveal(
    key: PRNGKey, distribution: Reverse, noise: Noise, horizon: int, reference: Reverse | None = None
) -> tuple[Tokens, Info]:
    """Draw one path from masks, one position in every step, in random order: `sample` in the limit of fine steps.

    With masked noise a position that moves is drawn from the posterior, and the order in which they move tells nothing.
    Arguments and results as of `sample`; h evaluations.

    Raises:
        ValueError: if the noise is not masked, or the horizon is not positive.
    """
    if noise != Noise.masked(noise.states):
        raise ValueError("reveal needs masked noise: with other noise, a token moves more than once")
    key_start, key_order, key_steps = jax.random.split(key, 3)
    start = noise.start(key_start, horizon)
    one = jnp.eye(horizon, dtype=bool)[jax.random.permutation(key_order, horizon)]
    return walk(key_steps, distribution, start, (even(horizon), jnp.ones(horizon), one), reference)


def walk(
    key: PRNGKey, distribution: Reverse, z: Tokens, steps: tuple[Array, Array, Array], reference: Reverse | None
) -> tuple[Tokens, Info]:
    """The loop. A step is (alpha, alpha', which positions move); they move where their distribution is defined."""

    def body(z: Tokens, step: tuple) -> tuple[Tokens, tuple]:
        key, (alpha, alpha_next, moves) = step
        log_distribution = distribution(z, alpha, alpha_next)
        defined = ~jnp.isnan(log_distribution).any(axis=1)
        nats = jnp.full(len(z), jnp.nan)
        if reference is not None:
            gap = log_distribution - reference(z, alpha, alpha_next)
            nats = jnp.where(log_distribution == -jnp.inf, 0.0, jnp.exp(log_distribution) * gap).sum(axis=1)
        z_next = jnp.where(moves & defined, jax.random.categorical(key, log_distribution, axis=1), z)
        return z_next, (jnp.where(moves, nats, 0.0).sum(), (defined | ~moves).all(), z)

    z, (nats, finite, iterates) = jax.lax.scan(body, z, (jax.random.split(key, len(steps[0])), steps))
    return z, Info(nats.sum(), finite.all(), iterates)


def network(apply: Apply, params: Params, noise: Noise) -> Logits:
    """A network that maps ``[h, m]`` to ``[h, m]``, such as a `Mixer` of dim m, read as logits of the k states.

    Of several levels it is told that of the noisiest position, as `denoise.scaled` does.
    """
    return lambda z, alpha: apply(params, one_hot(z, noise.symbols), jnp.min(alpha))[:, : noise.states]


def learned(logits: Logits, noise: Noise) -> Posterior:
    """The posterior (64) of a network's logits."""
    return lambda z, alpha: softmax(logits(z, alpha) + noise.log_likelihood(z, alpha), axis=1)


def loss(
    key: PRNGKey, logits: Logits, s0: Tokens, noise: Noise, known: Bool[Array, "h"] | None = None
) -> tuple[Scalar, dict[str, Scalar]]:
    """Equation (65), of one path at one level.

    Positions under `known` stay clean, as `pinned` has them in sampling, and so cost nothing. A training task of paths:
    ``Task(lambda params, key, s0: loss(key, network(apply, params, noise), s0, noise), draw)``.
    Returns (nats per position, {"alpha"}).
    """
    key_alpha, key_noise = jax.random.split(key)
    alpha = jax.random.uniform(key_alpha)
    level = alpha if known is None else jnp.where(known, 1.0, alpha)
    z = noise.corrupted(key_noise, s0, level)
    log_p = log_softmax(logits(z, level) + noise.log_likelihood(z, level), axis=1)
    return -jnp.mean(log_p[jnp.arange(len(s0)), s0]), {"alpha": alpha}


def legal_share(path: Tokens, legal: Bool[Array, "k k"]) -> Scalar:
    """The share of a path's moves that are legal, from row to column. A mask that was left over is no legal state."""
    before, after = path[:-1], path[1:]
    state = (before < len(legal)) & (after < len(legal))
    return jnp.mean(legal[before, after] & state)
