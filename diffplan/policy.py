"""Policies: a network that looks at an observation and the time, as a distribution of actions.

    discrete    pi(a | o, t) = softmax(f(o, t))                over m moves; an action is the one-hot move
    continuous  pi(a | o, t) = N(f(o, t), diag exp(2 s))       s is a parameter of the policy, not of the observation

t runs from 0 at the first step of a plan to 1 at the last. Observations and actions are in the environment's units; the
network sees observations, and gives actions, in standard deviations from a mean. Any function will do for f: a small
network, or a table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffplan.count import counted
from diffplan.dynamics import Dynamics
from diffplan.types import Apply, Params, PRNGKey, Scalar, Trajectory


class Distribution(NamedTuple):
    """The distribution of an action: logits of m moves (then std is all 0), or mean and std of a Gaussian, network
    units.
    """

    centre: Float[Array, "a"]
    std: Float[Array, "a"]


@struct.dataclass
class Policy:
    """A policy as a pytree: parameters are traced.

    params: ``{"network": ..., "log_std": [a]}``. apply: ``apply(params["network"], z[o], t[]) -> [a]``, the logits or
    the mean. Scales are of observations and actions, in environment units.
    """

    params: Params
    observation_mean: Float[Array, "o"]
    observation_std: Float[Array, "o"]
    action_mean: Float[Array, "a"]
    action_std: Float[Array, "a"]
    apply: Apply = struct.field(pytree_node=False)
    discrete: bool = struct.field(pytree_node=False)

    def distribution(self, observation: Float[Array, "o"], time: Scalar) -> Distribution:
        """The distribution of the action at an observation and a time in [0, 1]."""
        z = (observation - self.observation_mean) / self.observation_std
        centre = counted("network_evals", self.apply(self.params["network"], z, time))
        return Distribution(centre, jnp.zeros_like(centre) if self.discrete else jnp.exp(self.params["log_std"]))

    def draw(self, key: PRNGKey, distribution: Distribution) -> Float[Array, "a"]:
        """An action, in environment units."""
        if self.discrete:
            return jax.nn.one_hot(jax.random.categorical(key, distribution.centre), distribution.centre.size)
        scaled = distribution.centre + distribution.std * jax.random.normal(key, distribution.centre.shape)
        return self.action_mean + self.action_std * scaled

    def log_prob(self, distribution: Distribution, action: Float[Array, "a"]) -> Scalar:
        """log pi(action), of a Gaussian up to the constant of the units."""
        if self.discrete:
            return jnp.sum(action * jax.nn.log_softmax(distribution.centre))
        z = ((action - self.action_mean) / self.action_std - distribution.centre) / distribution.std
        return -jnp.sum(z**2 / 2 + jnp.log(distribution.std * np.sqrt(2 * np.pi)))

    def kl(self, distribution: Distribution, other: Distribution) -> Scalar:
        """KL(distribution || other) of one action, in nats."""
        if self.discrete:
            log_p, log_q = jax.nn.log_softmax(distribution.centre), jax.nn.log_softmax(other.centre)
            return jnp.sum(jnp.exp(log_p) * (log_p - log_q))
        ratio = (distribution.std / other.std) ** 2
        return jnp.sum(ratio - 1 - jnp.log(ratio) + ((distribution.centre - other.centre) / other.std) ** 2) / 2


def times(horizon: int) -> Float[Array, "h"]:
    """The time of every step, from 0 to 1."""
    return jnp.arange(horizon) / max(horizon - 1, 1)


class Rollout(NamedTuple):
    """One run of a policy: the trajectory, each action's distribution, the disagreement about each observation."""

    trajectory: Trajectory
    distributions: Distribution
    disagreements: Float[Array, "h"]


def follow(
    policy: Policy, dynamics: Dynamics, key: PRNGKey, start: Float[Array, "o"], clock: Float[Array, "h"]
) -> Rollout:
    """Follow a policy from a start; `clock` is the time of every row, as `times` gives it.

    Actions are kept as they were drawn; the dynamics clips them where it must.
    """

    def body(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple]:
        observation, disagreement = carry
        key_draw, key_step = jax.random.split(inputs[0])
        distribution = policy.distribution(observation, inputs[1])
        action = policy.draw(key_draw, distribution)
        return dynamics(key_step, observation, action), (observation, action, distribution, disagreement)

    steps = (jax.random.split(key, len(clock)), clock)
    observations, actions, distributions, disagreements = jax.lax.scan(body, (start, jnp.zeros(())), steps)[1]
    return Rollout(Trajectory(observations, actions), distributions, disagreements)


def act(
    policy: Policy, dynamics: Dynamics, key: PRNGKey, start: Float[Array, "o"], clock: Float[Array, "h"]
) -> tuple[Trajectory, Float[Array, "h"]]:
    """`follow`, without the distributions: the trajectory, and the dynamics' disagreement about each row's
    observation.
    """
    rollout = follow(policy, dynamics, key, start, clock)
    return rollout.trajectory, rollout.disagreements
