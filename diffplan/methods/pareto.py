"""Two rewards, and one strength_name between them at a fixed pressure.

    D_guided = D + scale * sigma^2 * grad ((1 - a) g_1 + a g_2)                          (104)

which is (3) along the product of experts (101): a = 0 is guidance by the first proxy alone, a = 1 by the second. With
rewards that are linear under a Gaussian prior it samples p(x) exp(scale ((1 - a) r_1 + a r_2)) / Z at every a.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from diffplan import guide
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, draw_plans
from diffplan.methods.guidance import regression
from diffplan.types import Denoise, PRNGKey, Scalar, Strengths


@dataclass(frozen=True)
class Compromise:
    """Guidance by two proxies at once (104); all shares see the same noise. Tables report the first one's score."""

    second: Callable[[Problem], Proxy]
    strengths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    name: str = "compromise"
    proxy: Callable[[Problem], Proxy] = regression
    scale: float = 10.0
    """Total guidance scale; 0 is the prior."""
    strength_name: str = "share of the second reward"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """`strengths` may be any shares in [0, 1]."""
        proxies = self.proxy(problem), self.second(problem)

        def denoiser(fraction: Scalar) -> Denoise:
            energy = guide.weighted(proxies, jnp.stack([1 - fraction, fraction]))
            return guide.guided(problem.denoise, energy, Strengths(jnp.asarray(self.scale), jnp.ones(())))

        return draw_plans(key, problem, starts, strengths, denoiser, problem.denoise)
