"""Gradient shooting: actions are improved by the gradient of a plan's score through a learned model of the dynamics.

With x(a) the plan that the model f imagines from a start, o_1 = start, o_t+1 = f(o_t, a_t), and actions in standard
deviations of the data,

    a <- clip(a + Adam(grad score(x(a))))                                                               (160)

within the bounds of actions that the model knows (Henaff, Whitney and LeCun 2017, arXiv 1705.07177). The first actions
are those of runs of the behaviour policy. Several runs are improved side by side, since the score has many maxima. The
plan is the best iterate so far of all runs, by the score in the model. So it never gets worse by more iterations, as in
shooting (81b), while Adam's last iterate may. The plan is as good as the model is.

Where an action is one of a few choices, a holds a score of each, the model is given the choice of the highest score,
and the gradient passes to the scores as if they had been given (straight through: Bengio et al. 2013, arXiv 1308.3432).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffplan.codec import Cells
from diffplan.dynamics import Dynamics, imagine
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, each_start, need
from diffplan.methods.guidance import regression
from diffplan.methods.sequences import Candidates, better
from diffplan.methods.shooting import learned
from diffplan.policy import Policy, act, times
from diffplan.types import PRNGKey, Scalar


def straight_through(scores: Float[Array, "h m"]) -> Float[Array, "h m"]:
    """The choice of the highest score in each row, one-hot, with the derivative of the scores themselves."""
    return scores + jax.lax.stop_gradient(jax.nn.one_hot(jnp.argmax(scores, axis=1), scores.shape[1]) - scores)


@dataclass(frozen=True)
class GradientShooting:
    """Equation (160); every number of iterations is read from one run, 0 of them is a run of behaviour.

    Raises:
        ValueError: if plans are one-hot cells: a table of transitions has no gradient.
    """

    name: str
    strengths: tuple[float, ...]
    dynamics: Callable[[Problem], Dynamics] = learned
    proxy: Callable[[Problem], Proxy] = regression
    runs: int = 8
    """Runs of behaviour that are improved side by side; the plan is the best of all."""
    rate: float = 0.01
    """Adam's step, in standard deviations of the data's actions; the actions of many rows push one way, and add up."""
    strength_name: str = "iterations"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs max(self.strengths) iterations; `strengths` may be any whole numbers up to that."""
        dynamics, behaviour = self.dynamics(problem), need(problem, "behaviour", self.name)

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            return self.improve(key, problem, dynamics, behaviour, start)[strengths.astype(int)]

        return each_start(one, key, starts)

    def improve(
        self, key: PRNGKey, problem: Problem, dynamics: Dynamics, behaviour: Policy, start: Float[Array, "o"]
    ) -> Float[Array, "i h d"]:
        """The plan after every number of iterations, from 0 to max(self.strengths)."""
        codec, score = problem.codec, self.proxy(problem).score
        if isinstance(codec, Cells):
            raise ValueError(f"method {self.name}: cannot plan in one-hot cells, whose dynamics have no gradient")
        mean, std = codec.mean[codec.observation_dim :], codec.std[codec.observation_dim :]
        low, high = ((bound - mean) / std for bound in (dynamics.action_low, dynamics.action_high))
        inside = lambda scaled: jnp.clip(scaled, low[None], high[None])
        key_act, key_model = jax.random.split(key)
        run = lambda key: codec.encode(act(behaviour, dynamics, key, start, times(problem.horizon))[0])
        keys = jax.random.split(key_act, self.runs)
        if max(self.strengths) == 0:
            return run(keys[0])[None]
        runs = jax.vmap(run)(keys)
        rule = optax.adam(self.rate)

        def promised(scaled: Float[Array, "h a"]) -> tuple[Scalar, Float[Array, "h d"]]:
            actions = mean[None] + std[None] * scaled
            actions = straight_through(actions) if dynamics.discrete else actions
            x = codec.encode(imagine(dynamics, key_model, start, actions)[0])
            return score(x), x

        def iteration(carry: tuple, _: None) -> tuple[tuple, Float[Array, "h d"]]:
            scaled, state, champion = carry
            (scores, plans), slopes = jax.vmap(jax.value_and_grad(promised, has_aux=True))(scaled)
            champion = better(champion, Candidates(scaled, plans, scores).best())
            updates, state = rule.update(-slopes, state)
            return (jax.vmap(inside)(scaled + updates), state, champion), champion[0]

        first = jax.vmap(inside)(runs[..., codec.observation_dim :])
        begin = first, rule.init(first), (runs[0], jnp.full((), -jnp.inf))
        best = jax.lax.scan(iteration, begin, None, length=int(max(self.strengths)) + 1)[1]
        return jnp.concatenate([runs[:1], best[1:]])
