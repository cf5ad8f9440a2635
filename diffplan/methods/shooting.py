"""Shooting: search over sequences of actions (81), each scored by the plan that it gives in the dynamics.

    score_i = score(x_i) - penalty * mean disagreement_i                                                       (81b)

The first candidates are runs of the behaviour policy. The mean of the distribution is among all later ones. A plan is
the best candidate so far, as it was imagined: it can be carried out in the dynamics that were planned in, and is as
good as they are. Where they are random, the plan is lucky as well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.dynamics import Dynamics, imagine
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, need
from diffplan.methods.guidance import regression
from diffplan.methods.sequences import Candidates, Refinement
from diffplan.methods.weighting import CROSS_ENTROPY, Weigh
from diffplan.policy import Policy, act, times
from diffplan.types import PRNGKey, Scalar, Trajectory


def true(problem: Problem) -> Dynamics:
    """What an action really does."""
    return need(problem, "dynamics", "planning in the true dynamics")


def learned(problem: Problem) -> Dynamics:
    """What the learned model says that it does."""
    return need(problem, "model", "planning in a learned model")


@dataclass(frozen=True)
class Shooting:
    """Equation (81); every number of iterations is read from one run, 0 of them is a run of behaviour."""

    name: str
    strengths: tuple[float, ...]
    weigh: Weigh = CROSS_ENTROPY
    dynamics: Callable[[Problem], Dynamics] = true
    proxy: Callable[[Problem], Proxy] = regression
    population: int = 64
    """p, candidates of an iteration; those of the first are runs of behaviour."""
    keep: float = 0.5
    disagreement_penalty: float = 0.0
    """In standard deviations of the score, per standard deviation of the step."""
    strength_name: str = "iterations"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs max(self.strengths) iterations; `strengths` may be any whole numbers up to that."""
        dynamics, behaviour = self.dynamics(problem), need(problem, "behaviour", self.name)

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            return self.search(key, problem, dynamics, behaviour, start)[strengths.astype(int)]

        return Plans.of(jax.vmap(one, out_axes=1)(jax.random.split(key, len(starts)), starts))

    def search(
        self, key: PRNGKey, problem: Problem, dynamics: Dynamics, behaviour: Policy, start: Float[Array, "o"]
    ) -> Float[Array, "i h d"]:
        """The plan after every number of iterations, from 0 to max(self.strengths)."""
        iterations, score = int(max(self.strengths)), self.proxy(problem).score

        def evaluate(trajectory: Trajectory, disagreements: Float[Array, "h"]) -> tuple[Array, Scalar]:
            x = problem.codec.encode(trajectory)
            return x, score(x) - self.disagreement_penalty * jnp.mean(disagreements)

        key_first, key_rest = jax.random.split(key)
        keys = jax.random.split(key_first, self.population)
        run = lambda key: act(behaviour, dynamics, key, start, times(problem.horizon))
        if iterations == 0:
            return problem.codec.encode(run(keys[0])[0])[None]
        runs = jax.vmap(run)(keys)
        first = Candidates(runs[0].actions, *jax.vmap(evaluate)(*runs))
        refine = Refinement(self.weigh, self.population, self.keep, includes_mean=True)
        imagined = lambda key, actions: evaluate(*imagine(dynamics, key, start, actions))
        return jnp.concatenate([first.plan[:1], refine(key_rest, dynamics, first, imagined, iterations)])
