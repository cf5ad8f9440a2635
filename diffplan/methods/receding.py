"""Control with a receding horizon: plan a little way ahead, let a learned value score the rest, act, and plan again.

From where it stands after t rows, a sequence of the next L actions is searched for as in (81), by the value of the plan
that it would make,

    score(a) = V(x_1 ... x_t, x_t+1(a) ... x_t+L(a)) - penalty * mean disagreement,    V(x, k) = E[score | first k
    rows]  (82b)

and its first `every` actions are carried out in the true dynamics (Chua et al. 2018; the terminal value as in Lowrey et
al. 2019, arXiv 1811.01848). What comes back is what happened, so it can be carried out again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.dynamics import Dynamics, imagine
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, need
from diffplan.methods.guidance import regression
from diffplan.methods.sequences import Candidates, Refinement
from diffplan.methods.shooting import learned
from diffplan.methods.weighting import CROSS_ENTROPY, Weigh
from diffplan.policy import act, times
from diffplan.types import PRNGKey, Scalar


class ControlState(NamedTuple):
    """Where control has come to: the observation, and the plan so far in normalised units, rows to come all 0."""

    observation: Float[Array, "o"]
    x: Float[Array, "h d"]


@dataclass(frozen=True)
class Receding:
    """Equation (82b); 0 iterations is a run of behaviour in the true dynamics."""

    name: str
    strengths: tuple[float, ...]
    weigh: Weigh = CROSS_ENTROPY
    dynamics: Callable[[Problem], Dynamics] = learned
    """What is planned in. Actions are carried out in `problem.dynamics`."""
    proxy: Callable[[Problem], Proxy] = regression
    """What `problem.value` was learned from; plans are reported by its score."""
    population: int = 32
    lookahead: int = 16
    """L."""
    every: int = 8
    """The most steps that are carried out before planning again: the largest number up to this that divides the horizon
    is taken."""
    keep: float = 0.5
    disagreement_penalty: float = 0.0
    strength_name: str = "iterations"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Iterations are structure: the numbers are those of self.strengths, whatever `strengths` says."""
        keys = jax.random.split(key, len(starts))
        run = lambda iterations: jax.vmap(partial(self.control, problem, iterations))(keys, starts)
        return Plans.of(jnp.stack([run(int(iterations)) for iterations in self.strengths]))

    def control(self, problem: Problem, iterations: int, key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "h d"]:
        """One run from a start."""
        truth = need(problem, "dynamics", self.name)
        every = max(steps for steps in range(1, self.every + 1) if problem.horizon % steps == 0)

        def block(state: ControlState, step: tuple[Array, Array]) -> tuple[ControlState, None]:
            key, row = step
            key_plan, key_act = jax.random.split(key)
            actions = self.ahead(key_plan, problem, state, row, iterations)[:every]
            part, _ = imagine(truth, key_act, state.observation, actions)
            x = jax.lax.dynamic_update_slice(state.x, problem.codec.encode(part), (row, 0))
            return ControlState(truth(key_act, part.observations[-1], part.actions[-1])[0], x), None

        rows = jnp.arange(0, problem.horizon, every)
        first = ControlState(start, jnp.zeros(problem.shape))
        return jax.lax.scan(block, first, (jax.random.split(key, len(rows)), rows))[0].x

    def ahead(
        self, key: PRNGKey, problem: Problem, state: ControlState, row: Int[Array, ""], iterations: int
    ) -> Float[Array, "l a"]:
        """The next L actions."""
        dynamics = self.dynamics(problem)
        behaviour, value = need(problem, "behaviour", self.name), need(problem, "value", self.name)
        clock = times(problem.horizon)[jnp.minimum(row + jnp.arange(self.lookahead), problem.horizon - 1)]

        def evaluate(key: PRNGKey, actions: Float[Array, "l a"]) -> tuple[Array, Scalar]:
            imagined, disagreements = imagine(dynamics, key, state.observation, actions)
            whole = jnp.concatenate([state.x, jnp.zeros((self.lookahead, problem.shape[1]))])
            whole = jax.lax.dynamic_update_slice(whole, problem.codec.encode(imagined), (row, 0))
            known = jnp.minimum(row + self.lookahead, problem.horizon)
            return actions, value(whole[: problem.horizon], known) - self.disagreement_penalty * jnp.mean(disagreements)

        key_first, key_evaluate, key_rest = jax.random.split(key, 3)
        keys = jax.random.split(key_first, self.population)
        run = lambda key: act(behaviour, dynamics, key, state.observation, clock)[0].actions
        if iterations == 0:
            return run(keys[0])
        actions = jax.vmap(run)(keys)
        first = Candidates(actions, *jax.vmap(evaluate)(jax.random.split(key_evaluate, self.population), actions))
        refine = Refinement(self.weigh, self.population, self.keep, includes_mean=False)
        return refine(key_rest, dynamics, first, evaluate, iterations)[-1]
