"""Shooting: search over sequences of actions, each scored by the plan that it gives in the dynamics.

A distribution of sequences, independent from step to step, is drawn from, scored and drawn together, over and over. Of
p candidates u_i with plans x_i and weights w_i, at every step

    score_i = score(x_i) - penalty * mean disagreement_i
    m <- keep m + (1 - keep) u,                                 u = sum_i w_i u_i
    s <- keep s + (1 - keep) sqrt(sum_i w_i (u_i - u)^2)                                                       (81)

    cross-entropy method   w_i = 1 / e on the e best, else 0         de Boer et al. 2005, section 3; PETS
    MPPI                   w_i ~ exp(score_i / temperature)          Williams et al. 2017; s as in Hansen et al. 2022

For continuous actions the distribution is N(m, s^2) within the bounds; for moves, as scores of which one is 1, the
very same m is the probability of each. The first candidates are runs of the behaviour policy itself, and the first (m,
s) theirs.
The sequence m is among all later ones. A plan is the best candidate so far, as it was imagined: it can be carried out
in the dynamics that were planned in, and is as good as they are. Where they are random, it is lucky as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.dynamics import Dynamics, imagine
from diffplan.guide import Proxy
from diffplan.methods.base import Plans, Problem, need
from diffplan.methods.guidance import regression
from diffplan.policy import Policy, act
from diffplan.types import PRNGKey, Scalar, Trajectory

Weigh = Callable[[Float[Array, "p"]], Float[Array, "p"]]
"""From the scores of candidates to their weights in (81), which sum to 1."""


def true(problem: Problem) -> Dynamics:
    """What an action really does."""
    return need(problem, "dynamics", "planning in the true dynamics")


def learned(problem: Problem) -> Dynamics:
    """What the learned model says that it does."""
    return need(problem, "model", "planning in a learned model")


@dataclass(frozen=True)
class Elite:
    """The cross-entropy method's weights: equal among the best `share` of candidates, at least one."""

    fraction: float = 0.1

    def __call__(self, score: Float[Array, "p"]) -> Float[Array, "p"]:
        count = max(1, round(self.fraction * len(score)))
        return jnp.zeros_like(score).at[jax.lax.top_k(score, count)[1]].set(1 / count)


@dataclass(frozen=True)
class Softmax:
    """MPPI's weights. temperature: in standard deviations of the score under the data."""

    temperature: float = 0.5

    def __call__(self, score: Float[Array, "p"]) -> Float[Array, "p"]:
        return jax.nn.softmax(score / self.temperature)


class Candidates(NamedTuple):
    """Sequences of actions, the plans that they give, and their scores."""

    actions: Float[Array, "p h a"]
    x: Float[Array, "p h d"]
    score: Float[Array, "p"]

    def best(self) -> tuple[Float[Array, "h d"], Scalar]:
        """The plan of the highest score, and the score."""
        index = jnp.argmax(self.score)
        return self.x[index], self.score[index]


class Sequences(NamedTuple):
    """The distribution of (81): mean and deviation of every step's action."""

    mean: Float[Array, "h a"]
    std: Float[Array, "h a"]

    def draw(self, key: PRNGKey, dynamics: Dynamics) -> Float[Array, "h a"]:
        """One sequence."""
        if dynamics.discrete:
            moves = jax.random.categorical(key, jnp.log(self.mean), axis=1)
            return jax.nn.one_hot(moves, self.mean.shape[1])
        draws = self.mean + self.std * jax.random.normal(key, self.mean.shape)
        return jnp.clip(draws, dynamics.action_low[None], dynamics.action_high[None])


def moments(actions: Float[Array, "p h a"], weights: Float[Array, "p"]) -> Sequences:
    """Weighted mean and deviation of sequences."""
    mean = jnp.tensordot(weights, actions, 1)
    return Sequences(mean, jnp.sqrt(jnp.tensordot(weights, (actions - mean[None]) ** 2, 1)))


@dataclass(frozen=True)
class Shooting:
    """Equation (81); every number of iterations is read from one run, 0 of them is a run of behaviour."""

    name: str
    strengths: tuple[float, ...]
    weigh: Weigh = Elite()
    dynamics: Callable[[Problem], Dynamics] = true
    proxy: Callable[[Problem], Proxy] = regression
    population: int = 64
    """p, candidates of an iteration; those of the first are runs of behaviour."""
    keep: float = 0.5
    disagreement_penalty: float = 0.0
    """In standard deviations of the score, per standard deviation of the step."""
    strength_name: str = "iterations"
    shared: bool = True

    def __call__(
        self, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
    ) -> Plans:
        """Runs max(self.strengths) iterations; `strengths` may be any whole numbers up to that."""
        dynamics, behaviour = self.dynamics(problem), need(problem, "behaviour", self.name)

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            return self.search(key, problem, dynamics, behaviour, start)[strengths.astype(int)]

        return Plans.of(jax.vmap(one, out_axes=1)(jax.random.split(key, len(starts)), starts))

    def search(
        self, key: PRNGKey, problem: Problem, dynamics: Dynamics, behaviour: Policy, start: Float[Array, "o"]
    ) -> Float[Array, "i h d"]:
        """The plan after every number of iterations, from 0 to max(self.strengths)."""
        total, score = int(max(self.strengths)), self.proxy(problem).score

        def scored(trajectory: Trajectory, disagreements: Float[Array, "h"]) -> tuple[Array, Array, Array]:
            x = problem.codec.encode(trajectory)
            value = score(x) - self.disagreement_penalty * jnp.mean(disagreements)
            return trajectory.actions, x, jnp.where(jnp.isfinite(value), value, -jnp.inf)  # never the best

        def carried_out(key: PRNGKey, actions: Float[Array, "h a"]) -> tuple[Array, Array, Array]:
            return scored(*imagine(dynamics, key, start, actions))

        def iteration(carry: tuple, key: PRNGKey) -> tuple[tuple, Array]:
            distribution, candidates, champion = carry
            now = moments(candidates.actions, self.weigh(candidates.score))
            distribution = jax.tree.map(lambda old, new: self.keep * old + (1 - self.keep) * new, distribution, now)
            key_draw, key_step = jax.random.split(key)
            draws = jax.vmap(distribution.draw, (0, None))(jax.random.split(key_draw, self.population - 1), dynamics)
            actions = jnp.concatenate([distribution.mean[None], draws])
            candidates = Candidates(*jax.vmap(carried_out)(jax.random.split(key_step, self.population), actions))
            champion = better(champion, candidates.best())
            return (distribution, candidates, champion), champion[0]

        key_first, key_rest = jax.random.split(key)
        keys = jax.random.split(key_first, self.population)
        run = lambda key: act(behaviour, dynamics, key, start, problem.horizon)
        if total == 0:
            return problem.codec.encode(run(keys[0])[0])[None]
        first = Candidates(*jax.vmap(lambda key: scored(*run(key)))(keys))
        distribution = moments(first.actions, jnp.full(self.population, 1 / self.population))
        rest = jax.lax.scan(iteration, (distribution, first, first.best()), jax.random.split(key_rest, total - 1))[1]
        return jnp.concatenate([first.x[:1], first.best()[0][None], rest])


def better(old: tuple[Array, Scalar], new: tuple[Array, Scalar]) -> tuple[Array, Scalar]:
    """Of two plans with their scores, the one that scores more."""
    return jax.tree.map(lambda a, b: jnp.where(new[1] > old[1], b, a), old, new)
