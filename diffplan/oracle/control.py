"""Stochastic moves have two exact answers, and taking one for the other is a trap.

States s, actions a drawn by the behaviour pi0(a | s), moves P(s' | s, a), and a reward w_t(s_t) summed over h steps:

    trajectory tilt   p(s, a) exp(lambda R) / Z: what guidance of a joint model of plans aims at. It tilts the moves of
                      the world too, and so plans luck:  b_t(s) as in (18), over actions and moves alike
    executable        only the actions are ours (Levine 2018, section 4; Todorov 2009):
                      V_t(s) = 1/lambda log sum_a pi0(a | s) exp(lambda Q_t(s, a))                            (25)
                      Q_t(s, a) = sum_s' P(s' | s, a) (w_t+1(s') + V_t+1(s'))

Both come with their policy, and `execute` runs a policy in the true moves, exactly: what was planned minus what is then
earned is the plan's optimism. With deterministic moves the two are one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float

from diffplan.oracle.distribution import nonnegative
from diffplan.oracle.tabular import Chain, logs
from diffplan.types import Scalar


class World(NamedTuple):
    """What a behaviour does in a world, as tables of probabilities; rewards stand apart.

    start: ``[k]``; policy pi0: ``[k, a]``; moves P: ``[k, a, k]``.
    """

    start: Float[Array, "k"]
    policy: Float[Array, "k a"]
    moves: Float[Array, "k a k"]


class Planned(NamedTuple):
    """An answer: what it promises, and the policy that carries it out.

    reward: the expected reward it plans with; kl: nats from the behaviour, of whole paths; policy: ``[h - 1, k, a]``.
    """

    reward: Scalar
    kl: Scalar
    policy: Float[Array, "t k a"]


def trajectory_tilt(world: World, rewards: Float[Array, "h k"], weight: float | Scalar) -> Planned:
    """The tilt of whole trajectories, moves of the world included: it promises more than it can keep.

    Raises:
        ValueError: if the weight is negative.
    """
    nonnegative("weight", weight)
    kernel = jnp.einsum("sa,sat->st", world.policy, world.moves)
    chain = Chain(logs(world.start), jnp.broadcast_to(logs(kernel)[None], (len(rewards) - 1, *kernel.shape)), kernel)
    tilted, log_z = chain.tilted(rewards, weight)
    reward = tilted.expected(rewards)

    # the policy: pi0(a | s) sum_s' P(s' | s, a) exp(gain of s'), where log kernel' - log kernel holds the gain
    def policy(log_kernel: Float[Array, "k k"], before: Float[Array, "k k"]) -> Float[Array, "k a"]:
        gain = jnp.where(jnp.isfinite(before), log_kernel - before, -jnp.inf)
        log_joint = logs(world.policy) + logsumexp(logs(world.moves) + gain[:, None], axis=2)
        return jax.nn.softmax(log_joint, axis=1)

    return Planned(reward, weight * reward - log_z, jax.vmap(policy)(tilted.log_kernels, chain.log_kernels))


def executable(world: World, rewards: Float[Array, "h k"], weight: float | Scalar) -> Planned:
    """The best that actions alone can do at this price of a nat (25); at weight 0, the behaviour.

    Raises:
        ValueError: if the weight is negative.
    """
    nonnegative("weight", weight)

    def back(value: Float[Array, "k"], gain: Float[Array, "k"]) -> tuple[Array, Array]:
        """`value` is lambda V: finite at lambda = 0."""
        joint = logs(world.policy) + world.moves @ (weight * gain + value)
        total = logsumexp(joint, axis=1)
        return total, jnp.exp(joint - total[:, None])

    _, policy = jax.lax.scan(back, jnp.zeros(rewards.shape[1]), rewards[1:], reverse=True)
    reward, occupancy = execute(world, policy, rewards)
    ratio = jnp.where(policy > 0, policy * (logs(policy) - logs(world.policy)[None]), 0.0)
    return Planned(reward, jnp.sum(occupancy[:-1] * ratio.sum(axis=2)), policy)


def execute(
    world: World, policy: Float[Array, "t k a"], rewards: Float[Array, "h k"]
) -> tuple[Scalar, Float[Array, "h k"]]:
    """(expected reward, occupancy) of a policy in the true moves, exactly."""
    forward = lambda p, pi: (jnp.einsum("s,sa,sat->t", p, pi, world.moves), p)
    last, before = jax.lax.scan(forward, world.start, policy)
    occupancy = jnp.concatenate([before, last[None]])
    return jnp.sum(occupancy * rewards), occupancy
