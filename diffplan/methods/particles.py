"""Methods that draw from the tilt of the prior by weighted particles (`diffplan.smc`): guidance that corrects itself.

Each start has a cloud of K particles x_k on the sampler's noisy chain, with weights W_k that sum to 1. The plan is one
of them, drawn by its weight, so that as K grows

    P(x_k) = W_k    ->    x ~ p(x) exp(lambda r(x)) / Z                                                  (76)

with r the proxy's reward of clean plans. lambda times the energy only steers the cloud there, as its twist and guide:
one that says less of r than it could costs effective particles, and leaves the target as it is. Of few particles the
distribution lies between that of the steps themselves and the tilt.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from diffplan import smc
from diffplan.denoise import pinned
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, sweep
from diffplan.methods.guidance import regression
from diffplan.types import Energy, PRNGKey

Method = Callable[[Energy, int], smc.Method]
"""``method(energy, levels)``: what particles do, given an energy that includes the weight and how long the grid is."""


def tds(energy: Energy, levels: int) -> smc.Method:
    """The twisted diffusion sampler: guided by the energy, weighted for what guidance gets wrong."""
    return smc.tds(energy)


def annealed(energy: Energy, levels: int) -> smc.Method:
    """The same with a weight that grows along the chain."""
    return smc.annealed(energy, levels)


def fk_steering(energy: Energy, levels: int) -> smc.Method:
    """Feynman-Kac steering: resampled by how the energy rises. It needs no gradient; its energy is `dps`."""
    return smc.fk_steering(energy)


def svdd(energy: Energy, levels: int) -> smc.Method:
    """SVDD: every particle picks its steps among ten candidates. It needs no gradient; its energy is `dps`."""
    return smc.svdd(energy)


@dataclass(frozen=True)
class Particles:
    """One plan from a cloud of weighted particles (76); weight 0 is the prior.

    For `fk_steering` and `svdd` give ``energy=guidance.dps, proxy=guidance.clean``, the reward that it reads.
    """

    name: str
    strengths: tuple[float, ...]
    method: Method = tds
    energy: Callable[[Problem], Energy] = regression
    proxy: Callable[[Problem], Proxy] = regression
    count: int = 16
    """K."""
    strength_name: str = "weight"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Every weight uses the same noise, and the step rule must add some. ess is the clouds' mean final fraction."""
        energy, reward, levels = self.energy(problem), self.proxy(problem).reward, len(problem.sampler.sigmas)

        def one(key: PRNGKey, start: Float[Array, "o"], weight: Float[Array, ""]) -> tuple[Array, Array]:
            key_cloud, key_draw = jax.random.split(key)
            pins = problem.pins(start)
            method = self.method(smc.pinned_energy(lambda x, sigma: weight * energy(x, sigma), pins), levels)
            denoise, tilt = pinned(problem.denoise, pins), lambda x: weight * reward(x)
            cloud, info = smc.particles(key_cloud, denoise, tilt, problem.sampler, method, self.count)
            return smc.draw(key_draw, cloud, 1)[0], info.ess[-1]

        x, ess = sweep(one, key, starts, strengths)
        return Plans.of(x, ess=ess.mean(axis=1))
