"""Learning from labels in other ways than `diffplan.learn.reward`: from noisy ones, or with windows pushed off data.

With error(f, r) that of (13) or (14), and x a window at the level sigma that f sees it at:

    adversarial    min E error(f(x'), r),                                    x' of (99), u = error(f(.), r)      (99b)
    conservative   min E error(f(x), r)   with   E f(x') - f(x) <= tau,      x' of (157)                         (99c)

(99b) is adversarial training of a noise-conditioned classifier (Kawar et al. 2022, arXiv 2208.08664). Its windows are
pushed by an objective u, in k steps to a distance of at most `length` in root mean square, pins excepted:

    x_0 = x,   x_{i+1} = x_i + (length / k) grad u(x_i) / rms(grad u(x_i)),   x' = stop_gradient(x_k)               (99)

(99c) is a conservative objective model (Trabucco et al. 2021, arXiv 2107.06882): what ascent on it finds may score at
most tau more than the data that ascent begins from. Ascent takes `STEPS` steps of one length in a plan of h rows of
width d, as the optimiser does that uses the model afterwards:

    x_0 = x,   x_{i+1} = x_i + eta grad f(x_i),   eta = 0.05 sqrt(hd),   x' = stop_gradient(x_k)                 (157)

The constraint has a multiplier alpha, learned by dual ascent beside f: it grows while the gap is above tau, and falls
to 0 where the constraint does not bind,

    f           descends   E error(f(x), r) + alpha (f(x') - f(x) - tau)
    log alpha   ascends    E f(x') - f(x) - tau,      from alpha = 1                                             (158)

Both by Adam, the multiplier's logarithm `RATE` times as fast as the weights. The step, the number of steps, the first
alpha, tau = 0.5 standard deviations of the label, and 0.01 as the rate of log alpha are those of the authors' program
for continuous designs.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffplan.denoise import CLEAN, NoiseLevels, noised, scaled
from diffplan.guide import Reward
from diffplan.learn.train import Task
from diffplan.types import Apply, Params, PRNGKey, Scalar

STEP, STEPS = 0.05, 50
"""Of (157): the length of a step in plans of one entry, and the number of steps."""

RATE = 10.0
"""Of (158): the rate of log alpha, in rates of the weights: 0.01 a step where theirs is 1e-3."""

FAINT = 0.01
"""Weight of the multiplier in the loss. Adam's steps do not depend on it, but the clipped norm of all gradients does,
which is to be that of the weights."""

Error = Callable[[Scalar, Scalar], Scalar]
"""``error(output, target)``: (13) or (14)."""


def mislabelled(key: PRNGKey, target: Float[Array, "n"], fraction: float, flip: bool) -> Float[Array, "n"]:
    """Targets of which a share is wrong: classes 0 and 1 are flipped, numbers are those of other windows."""
    key_which, key_other = jax.random.split(key)
    wrong = jax.random.bernoulli(key_which, fraction, target.shape)
    return jnp.where(wrong, 1 - target if flip else jax.random.permutation(key_other, target), target)


def pushed(
    objective: Reward, x: Float[Array, "h d"], mask: Bool[Array, "h d"], steps: int, length: float
) -> Float[Array, "h d"]:
    """(99): x moved up the objective; entries under the mask stay."""

    def step(_: Array, x: Float[Array, "h d"]) -> Float[Array, "h d"]:
        slope = jnp.where(mask, 0.0, jax.grad(objective)(x))
        size = jnp.sqrt(jnp.mean(slope**2))
        return x + length / steps * slope / jnp.maximum(size, jnp.finfo(size.dtype).tiny)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, jax.lax.stop_gradient(x)))


def ascent_rate(shape: tuple[int, ...], step: float = STEP) -> float:
    """eta of (157) for plans of this shape."""
    return step * math.sqrt(math.prod(shape))


def ascended(
    objective: Reward, x: Float[Array, "h d"], mask: Bool[Array, "h d"], steps: int, step: float
) -> Float[Array, "h d"]:
    """(157): x after ascent on the objective; entries under the mask stay."""
    rate = ascent_rate(x.shape, step)
    climb = lambda _, x: x + rate * jnp.where(mask, 0.0, jax.grad(objective)(x))
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, climb, jax.lax.stop_gradient(x)))


def adversarial(apply: Apply, error: Error, levels: NoiseLevels | None, *, steps: int, length: float) -> Task:
    """(99b) as a training task on `reward.Labelled` data."""

    def loss(params: Params, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        output, x, target, mask = observed(apply, params, key, example, levels)
        wrong = lambda x: error(output(x), target)
        return wrong(pushed(wrong, x, mask, steps, length)), {}

    return Task(loss, lambda key, data: data.draw(key))


class Constrained(NamedTuple):
    """What (158) trains: a network's parameters, and log alpha / `RATE`."""

    network: Params
    dual: Scalar

    @classmethod
    def begin(cls, network: Params) -> "Constrained":
        """With alpha = 1."""
        return cls(network, jnp.zeros(()))

    @property
    def alpha(self) -> Scalar:
        """The multiplier."""
        return jnp.exp(RATE * self.dual)


def conservative(
    apply: Apply,
    error: Error,
    levels: NoiseLevels | None,
    *,
    gap: float,
    steps: int = STEPS,
    step: float = STEP,
) -> Task:
    """(99c) as a training task on `reward.Labelled` data, of `Constrained` parameters. gap: tau."""
    fixed = jax.lax.stop_gradient

    def loss(params: Constrained, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        output, x, target, mask = observed(apply, params.network, key, example, levels)
        own = output(x)
        excess = output(ascended(output, x, mask, steps, step)) - own - gap
        lagrangian = error(own, target) + fixed(params.alpha) * excess
        return lagrangian - FAINT * params.dual * fixed(excess), {"alpha": params.alpha, "excess": excess}

    return Task(loss, lambda key, data: data.draw(key), Constrained.begin, lambda params: params.network)


def observed(
    apply: Apply, params: Params, key: PRNGKey, example: tuple, levels: NoiseLevels | None
) -> tuple[Reward, Float[Array, "h d"], Scalar, Bool[Array, "h d"]]:
    """(the network's output at a level, the window at that level, its target, its mask); levels as in `reward.task`."""
    x0, target, mask = example
    key_sigma, key_noise = jax.random.split(key)
    sigma = jnp.asarray(CLEAN) if levels is None else levels.draw(key_sigma)
    x = x0 if levels is None else jnp.where(mask, x0, noised(key_noise, x0, sigma))
    return partial(scaled, apply, params, sigma=jnp.where(mask, 0.0, sigma)), x, target, mask
