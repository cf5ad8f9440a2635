"""Search over sequences of actions: a distribution is drawn from, scored and refined, over and over.

The distribution is independent from step to step. Of p candidates u_i with weights w_i, at every step

    m <- keep m + (1 - keep) u,                                 u = sum_i w_i u_i
    s <- keep s + (1 - keep) sqrt(sum_i w_i (u_i - u)^2)                                                       (81)

    cross-entropy method   w_i = 1 / e on the e best, else 0         de Boer et al. 2005, section 3; PETS
    MPPI                   w_i ~ exp(score_i / temperature)          Williams et al. 2017; s as in Hansen et al. 2022

For continuous actions the distribution is N(m, s^2) within the bounds. For moves, as scores of which one is 1, the
same m is the probability of each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.dynamics import Dynamics
from diffplan.methods.weighting import Weigh, normalised
from diffplan.types import PRNGKey, Scalar

Evaluate = Callable[[PRNGKey, Float[Array, "l a"]], tuple[Any, Scalar]]
"""From a sequence of actions to what is kept of it if it is the best, and its score."""


class Candidates(NamedTuple):
    """Sequences of actions, what is kept of each if it is the best (a plan, or the actions), and their scores."""

    actions: Float[Array, "p l a"]
    plan: Any
    score: Float[Array, "p"]

    def best(self) -> tuple[Any, Scalar]:
        """The plan of the highest score, and the score, which is -inf if no score is finite."""
        score = jnp.where(jnp.isfinite(self.score), self.score, -jnp.inf)
        index = jnp.argmax(score)
        return jax.tree.map(lambda leaf: leaf[index], self.plan), score[index]


class ActionDistribution(NamedTuple):
    """Mean and standard deviation of every step's action."""

    mean: Float[Array, "l a"]
    std: Float[Array, "l a"]

    @classmethod
    def fit(cls, actions: Float[Array, "p l a"], weights: Float[Array, "p"]) -> "ActionDistribution":
        """The weighted moments of sequences."""
        mean = jnp.tensordot(weights, actions, 1)
        return cls(mean, jnp.sqrt(jnp.tensordot(weights, (actions - mean[None]) ** 2, 1)))

    def draw(self, key: PRNGKey, dynamics: Dynamics) -> Float[Array, "l a"]:
        """One sequence."""
        if dynamics.discrete:
            moves = jax.random.categorical(key, jnp.log(self.mean), axis=1)
            return jax.nn.one_hot(moves, self.mean.shape[1])
        actions = self.mean + self.std * jax.random.normal(key, self.mean.shape)
        return jnp.clip(actions, dynamics.action_low[None], dynamics.action_high[None])


@dataclass(frozen=True)
class Refinement:
    """Equation (81)."""

    weigh: Weigh
    population: int
    """p."""
    keep: float
    includes_mean: bool
    """Whether m itself is one of the candidates."""

    def __call__(self, key: PRNGKey, dynamics: Dynamics, first: Candidates, evaluate: Evaluate, iterations: int) -> Any:
        """The best plan so far, after each of 1 to `iterations` iterations.

        Args:
            key: consumed.
            dynamics: of which the bounds of actions are used.
            first: the candidates of the first iteration; the first (m, s) is theirs.
            evaluate: carries out a sequence.
            iterations: at least 1.

        Returns:
            The plans, with a leading axis over iterations.
        """

        def iteration(carry: tuple, key: PRNGKey) -> tuple[tuple, Any]:
            distribution, candidates, champion = carry
            now = ActionDistribution.fit(candidates.actions, normalised(self.weigh(candidates.score)))
            distribution = jax.tree.map(lambda old, new: self.keep * old + (1 - self.keep) * new, distribution, now)
            key_draw, key_evaluate = jax.random.split(key)
            keys = jax.random.split(key_draw, self.population - self.includes_mean)
            actions = jax.vmap(distribution.draw, (0, None))(keys, dynamics)
            if self.includes_mean:
                actions = jnp.concatenate([distribution.mean[None], actions])
            plans, score = jax.vmap(evaluate)(jax.random.split(key_evaluate, self.population), actions)
            candidates = Candidates(actions, plans, score)
            champion = better(champion, candidates.best())
            return (distribution, candidates, champion), champion[0]

        distribution = ActionDistribution.fit(first.actions, jnp.full(self.population, 1 / self.population))
        champion = first.best()
        later = jax.lax.scan(iteration, (distribution, first, champion), jax.random.split(key, iterations - 1))[1]
        return jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), champion[0], later)


def better(old: tuple[Any, Scalar], new: tuple[Any, Scalar]) -> tuple[Any, Scalar]:
    """Of two plans with their scores, the one that scores more."""
    return jax.tree.map(lambda a, b: jnp.where(new[1] > old[1], b, a), old, new)
