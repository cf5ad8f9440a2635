"""Guided plans in a few evaluations of a flow map."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan import guide
from diffplan.flow_map import FewSteps, TwoTime, few_steps, posterior
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, need, sweep
from diffplan.methods.guidance import clean, draws_around, regression, shuffled
from diffplan.types import Energy, PRNGKey, Scalar

Push = Callable[[Problem, TwoTime, Scalar], Energy]
"""(problem, map, guidance scale) -> the energy of (148), to be used at scale 1."""


def scaled(scale: Scalar, energy: Energy) -> Energy:
    """An energy times a guidance scale."""
    return lambda x, sigma: scale * energy(x, sigma)


def by_regression(problem: Problem, flow: TwoTime, scale: Scalar) -> Energy:
    """The noise-conditioned regression."""
    return scaled(scale, regression(problem))


def by_shuffled(problem: Problem, flow: TwoTime, scale: Scalar) -> Energy:
    """The regression of shuffled labels: a null control."""
    return scaled(scale, shuffled(problem))


def by_contrast(problem: Problem, flow: TwoTime, scale: Scalar) -> Energy:
    """The exact energy of a weight, as it was learned by contrasting plans."""
    return need(problem, "contrastive", "by a contrastive energy").energy(scale)


def by_dps(problem: Problem, flow: TwoTime, scale: Scalar) -> Energy:
    """The clean reward of the plan that the map denoises."""
    return scaled(scale, guide.dps(lambda x, sigma: flow(x, sigma, jnp.max(sigma)), clean(problem).reward))


def by_draws(problem: Problem, flow: TwoTime, scale: Scalar) -> Energy:
    """The energy of a weight by draws of the posterior that the map takes to plans (149)."""
    return posterior(flow, clean(problem).reward, draws_around(problem), scale)


@dataclass(frozen=True)
class FewStepGuided:
    """Plans by a flow map, pushed along an energy before every jump (148). Scale 0 is the map alone.

    evaluations: of the map, one a noise level. push: what guides. proxy: what tables report.
    """

    name: str
    strengths: tuple[float, ...]
    evaluations: int = 4
    push: Push = by_regression
    proxy: Callable[[Problem], Proxy] = regression
    strength_name: str = "guidance scale"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Every scale sees the same noise."""
        flow = need(problem, "flow_map", self.name)
        how = FewSteps.between(problem.sampler.sigmas, problem.shape, self.evaluations)

        def one(key: PRNGKey, start: Float[Array, "o"], scale: Scalar) -> Float[Array, "h d"]:
            return few_steps(key, flow, how, problem.pins(start), jnp.ones(()), self.push(problem, flow, scale))

        return Plans.of(sweep(one, key, starts, strengths))
