"""Learning from labels in other ways than `diffplan.learn.reward`: from noisy ones, or with windows pushed off data.

A window pushed by an objective u, in k steps to a distance of at most `length` in root mean square, pins excepted:

    x_0 = x,   x_{i+1} = x_i + (length / k) grad u(x_i) / rms(grad u(x_i)),   x' = stop_gradient(x_k)               (99)

with error(f, r) that of (13) or (14), and x a window at the level sigma that f sees it at:

    adversarial    min E error(f(x'), r),                         u = error(f(.), r)                     (99b)
    conservative   min E error(f(x), r) + alpha (f(x') - f(x)),   u = f                                  (99c)

(99b) is adversarial training of a noise-conditioned classifier (Kawar et al. 2022, arXiv 2208.08664); (99c) a
conservative objective model (Trabucco et al. 2021, arXiv 2107.06882), with a fixed alpha: it scores lower what ascent
on it finds.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffplan.denoise import CLEAN, NoiseLevels, noised, scaled
from diffplan.guide import Reward
from diffplan.learn.train import Task
from diffplan.types import Apply, Params, PRNGKey, Scalar

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


def adversarial(apply: Apply, error: Error, levels: NoiseLevels | None, *, steps: int, length: float) -> Task:
    """(99b) as a training task on `reward.Labelled` data."""

    def loss(output: Reward, x: Float[Array, "h d"], target: Scalar, mask: Bool[Array, "h d"]) -> Scalar:
        return error(output(pushed(lambda x: error(output(x), target), x, mask, steps, length)), target)

    return _task(apply, loss, levels)


def conservative(
    apply: Apply, error: Error, levels: NoiseLevels | None, *, alpha: float, steps: int, length: float
) -> Task:
    """(99c) as a training task on `reward.Labelled` data."""

    def loss(output: Reward, x: Float[Array, "h d"], target: Scalar, mask: Bool[Array, "h d"]) -> Scalar:
        own = output(x)
        return error(own, target) + alpha * (output(pushed(output, x, mask, steps, length)) - own)

    return _task(apply, loss, levels)


def _task(apply: Apply, loss: Callable[..., Scalar], levels: NoiseLevels | None) -> Task:
    """A loss of (network's output at a level, window at that level, target, mask); levels as in `reward.task`."""

    def of_example(params: Params, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        x0, target, mask = example
        key_sigma, key_noise = jax.random.split(key)
        sigma = jnp.asarray(CLEAN) if levels is None else levels.draw(key_sigma)
        x = x0 if levels is None else jnp.where(mask, x0, noised(key_noise, x0, sigma))
        output = partial(scaled, apply, params, sigma=jnp.where(mask, 0.0, sigma))
        return loss(output, x, target, mask), {"sigma": sigma}

    return Task(of_example, lambda key, data: data.draw(key))
