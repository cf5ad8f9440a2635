"""Control with a receding horizon: plan a little way ahead, let a learned value judge the rest, act, and plan again.

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
from diffplan.methods.base import Plans, Problem, need
from diffplan.methods.guidance import regression
from diffplan.methods.shooting import Elite, Weigh, learned, moments
from diffplan.policy import times
from diffplan.types import PRNGKey, Scalar, Trajectory

CROSS_ENTROPY = Elite()


class Stand(NamedTuple):
    """Where control stands: the observation, and the plan so far in normalised units, rows to come all 0."""

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
    """Steps carried out before planning again; the horizon must be a multiple."""
    keep: float = 0.5
    disagreement_penalty: float = 0.0
    strength_name: str = "iterations"
    shared: bool = False

    def __call__(
        self, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
    ) -> Plans:
        """Iterations are structure: the numbers are those of self.strengths, whatever `strengths` says."""
        if problem.horizon % self.every:
            raise ValueError(f"every={self.every}: must divide the horizon ({problem.horizon})")
        keys = jax.random.split(key, len(starts))
        run = lambda iterations: jax.vmap(partial(self.control, problem, iterations))(keys, starts)
        return Plans.of(jnp.stack([run(int(iterations)) for iterations in self.strengths]))

    def control(self, problem: Problem, iterations: int, key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "h d"]:
        """One run from a start."""
        truth = need(problem, "dynamics", self.name)

        def block(stand: Stand, step: tuple[Array, Array]) -> tuple[Stand, None]:
            key, row = step
            key_plan, key_act = jax.random.split(key)
            actions = self.ahead(key_plan, problem, stand, row, iterations)[: self.every]
            done, _ = imagine(truth, key_act, stand.observation, actions)
            rows = problem.codec.encode(done)
            x = jax.lax.dynamic_update_slice(stand.x, rows, (row, 0))
            return Stand(truth(key_act, done.observations[-1], done.actions[-1])[0], x), None

        rows = jnp.arange(0, problem.horizon, self.every)
        first = Stand(start, jnp.zeros(problem.shape))
        return jax.lax.scan(block, first, (jax.random.split(key, len(rows)), rows))[0].x

    def ahead(
        self, key: PRNGKey, problem: Problem, stand: Stand, row: Int[Array, ""], iterations: int
    ) -> Float[Array, "l a"]:
        """The next L actions."""
        dynamics = self.dynamics(problem)
        behaviour, value = need(problem, "behaviour", self.name), need(problem, "value", self.name)
        clock = times(problem.horizon)
        at = clock[jnp.minimum(row + jnp.arange(self.lookahead), problem.horizon - 1)]

        def wander(key: PRNGKey) -> Trajectory:
            """A run of behaviour from here, in the model."""

            def body(observation: Array, step: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
                key_draw, key_step = jax.random.split(step[0])
                action = behaviour.draw(key_draw, behaviour.distribution(observation, step[1]))
                return dynamics(key_step, observation, action)[0], (observation, action)

            keys = jax.random.split(key, self.lookahead)
            return Trajectory(*jax.lax.scan(body, stand.observation, (keys, at))[1])

        def judged(key: PRNGKey, actions: Float[Array, "l a"]) -> Scalar:
            dreamt, disagreements = imagine(dynamics, key, stand.observation, actions)
            whole = jnp.concatenate([stand.x, jnp.zeros((self.lookahead, problem.shape[1]))])
            whole = jax.lax.dynamic_update_slice(whole, problem.codec.encode(dreamt), (row, 0))
            known = jnp.minimum(row + self.lookahead, problem.horizon)
            return value(whole[: problem.horizon], known) - self.disagreement_penalty * jnp.mean(disagreements)

        def iteration(carry: tuple, key: PRNGKey) -> tuple[tuple, None]:
            distribution, actions, scores, champion = carry
            new = moments(actions, self.weigh(scores))
            distribution = jax.tree.map(lambda old, now: self.keep * old + (1 - self.keep) * now, distribution, new)
            key_draw, key_judge = jax.random.split(key)
            draws = jax.vmap(distribution.draw, (0, None))(jax.random.split(key_draw, self.population), dynamics)
            scores = jax.vmap(judged)(jax.random.split(key_judge, self.population), draws)
            return (distribution, draws, scores, best(champion, draws, scores)), None

        key_first, key_judge, key_rest = jax.random.split(key, 3)
        keys = jax.random.split(key_first, self.population)
        if iterations == 0:
            return wander(keys[0]).actions
        actions = jax.vmap(wander)(keys).actions
        scores = jax.vmap(judged)(jax.random.split(key_judge, self.population), actions)
        distribution = moments(actions, jnp.full(self.population, 1 / self.population))
        first = (distribution, actions, scores, best((actions[0], jnp.asarray(-jnp.inf)), actions, scores))
        return jax.lax.scan(iteration, first, jax.random.split(key_rest, iterations - 1))[0][3][0]


def best(champion: tuple[Array, Scalar], actions: Array, scores: Array) -> tuple[Array, Scalar]:
    """The champion, or the candidate that scores more; what is not finite never does."""
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    index = jnp.argmax(scores)
    return jax.tree.map(
        lambda a, b: jnp.where(scores[index] > champion[1], b, a), champion, (actions[index], scores[index])
    )
