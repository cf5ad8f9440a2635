"""A world as a user writes it, in a few lines: a point that is pushed along a line and paid for standing right of 1."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.task import Task


class Moved(NamedTuple):
    """What a step says."""

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array = jnp.asarray(False)
    truncated: jax.Array = jnp.asarray(False)


@dataclass(frozen=True)
class Line:
    """The state is the position; an action is added to it."""

    observation_dim = action_dim = 1
    max_steps: int = 24
    action_low, action_high = np.array([-1.0]), np.array([1.0])

    def reset(self, key):
        """Anywhere between -1 and 1."""
        return jax.random.uniform(key, minval=-1.0)

    def step(self, key, state, action):
        """Moves; the reward is that of the row."""
        after = state + jnp.clip(action[0], -1, 1)
        return after, Moved(after[None], self.reward(state[None], action))

    def observe(self, state):
        """The position."""
        return state[None]

    def state_of(self, observation):
        """The same."""
        return observation[0]

    def reward(self, observation, action):
        """1 right of 1."""
        return (observation[0] > 1).astype(jnp.float32)


def wander(key, observation, step):
    """Pushes at random, back towards 0."""
    return 0.5 * jax.random.normal(key, (1,)) - 0.2 * observation


LINE = Task.of(Line(), wander, episodes=30, name="line")
"""The world as a task. It has no settings."""
