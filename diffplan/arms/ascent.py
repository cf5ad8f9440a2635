"""Direct reward maximisation: gradient ascent on the learned reward, from noise, with no prior.

With prior = 0, one application of the guided denoiser (3) is one ascent step, x + guide * sigma^2 * grad g(x, sigma).
So ascent iterates the very denoiser that guided sampling integrates, with guide = rate / sigma^2:

    x <- x + rate * grad g(x, sigma_k)                                                   (15)

On a noise-conditioned proxy sigma_k falls from 1 (the noise it starts from) to the level of clean plans over the first
`anneal` steps and stays there. On the clean proxy it is the plain "deep dream" form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.arms.base import Plans, Problem
from diffplan.arms.diffusion import regression
from diffplan.denoise import CLEAN, pinned
from diffplan.guide import Proxy, guided
from diffplan.types import Knobs, Level, PRNGKey


def flat(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
    """The denoiser of a flat prior. With prior = 0 equation (3) never looks at the network, so none is evaluated."""
    return x


@dataclass(frozen=True)
class Ascent:
    """Gradient ascent (15) from unit noise; every number of steps is read from one run."""

    strengths: tuple[float, ...]
    name: str = "ascent"
    proxy: Callable[[Problem], Proxy] = regression
    rate: float = 1.0
    """Step length, in squared standard deviations of the data."""
    anneal: int = 30
    """Steps over which the noise level falls to that of clean plans; 0 for a proxy without noise conditioning."""
    dial: str = "ascent steps"
    shared: bool = True

    def __call__(
        self, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
    ) -> Plans:
        """Runs max(self.strengths) steps; `strengths` may be any whole numbers up to that."""
        energy, total = self.proxy(problem), int(max(self.strengths))
        levels = (
            jnp.maximum(CLEAN, CLEAN ** (jnp.arange(total) / max(self.anneal, 1)))
            if self.anneal
            else jnp.full(total, CLEAN)
        )

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            pins = problem.pins(start)

            def body(carry: tuple[Array, Array], step: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
                (x, kept), (number, sigma) = carry, step
                knobs = Knobs(self.rate / sigma**2, jnp.zeros(()))
                x = pinned(guided(flat, energy, knobs), pins)(x, sigma)
                return (x, jnp.where((strengths == number)[:, None, None], x[None], kept)), None

            noise = jnp.where(pins.mask, pins.value, jax.random.normal(key, problem.shape))
            kept = jnp.broadcast_to(noise[None], (len(strengths), *noise.shape))
            return jax.lax.scan(body, (noise, kept), (jnp.arange(1, total + 1), levels))[0][1]

        x = jax.vmap(one, out_axes=1)(jax.random.split(key, len(starts)), starts)
        return Plans.of(x)
