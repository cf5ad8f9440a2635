"""Guided plans in a few evaluations of a flow map."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Float

from diffplan.flow_map import FewSteps, few_steps
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, need, sweep
from diffplan.methods.guidance import regression
from diffplan.types import PRNGKey, Scalar


@dataclass(frozen=True)
class FewStepGuided:
    """Plans by a flow map, pushed along an energy before every jump (148). Scale 0 is the map alone.

    evaluations: of the map, one a noise level.
    """

    name: str
    strengths: tuple[float, ...]
    evaluations: int = 4
    proxy: Callable[[Problem], Proxy] = regression
    strength_name: str = "guidance scale"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Every scale sees the same noise."""
        flow, energy = need(problem, "flow_map", self.name), self.proxy(problem)
        how = FewSteps.between(problem.sampler.sigmas, problem.shape, self.evaluations)

        def one(key: PRNGKey, start: Float[Array, "o"], scale: Scalar) -> Float[Array, "h d"]:
            return few_steps(key, flow, how, problem.pins(start), scale, energy)

        return Plans.of(sweep(one, key, starts, strengths))
