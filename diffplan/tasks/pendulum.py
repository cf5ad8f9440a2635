"""The pendulum that is to be swung up: no maze, behaviour of mixed quality, and a bound by value iteration."""

from typing import Annotated

import jax
import numpy as np
from jaxtyping import Float

from diffplan.envs import pendulum
from diffplan.envs.pendulum import Pendulum
from diffplan.episodes import Episodes, from_stacked
from diffplan.settings import SEED, at_least, settings
from diffplan.task import Task, Words


@settings("task")
class PendulumSettings:
    """A torque-limited pendulum under swing-up controllers of mixed quality."""

    episodes: Annotated[int, at_least(2, 1e7)] = 1000
    """Episodes, each with a controller of its own. One at least is held out."""
    steps: Annotated[int, at_least(2, 1e6)] = 200
    """Steps of an episode."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""


def simulate(config: PendulumSettings) -> Episodes:
    """Behaviour."""
    runs = pendulum.collect(Pendulum(), jax.random.key(config.seed), config.episodes, config.steps)
    return from_stacked(np.asarray(runs.observations), np.asarray(runs.actions))


def bound(start: Float[np.ndarray, "3"], steps: int) -> float:
    """The optimal return, by value iteration on a grid."""
    return float(pendulum.bound(np.asarray(start)[None], steps)[0])


def make(config: PendulumSettings) -> Task:
    """The pendulum as a task."""
    env = Pendulum()
    return Task(
        name="pendulum",
        observation_dim=env.observation_dim,
        action_dim=env.action_dim,
        episodes=lambda: simulate(config),
        settings=config,
        reward=env.reward,
        reward_settings="Pendulum-v1's cost, from 0 to 1",
        simulator=env,
        residual=env.residual,
        bound=bound,
        words=Words(
            ("cosine of the angle", "sine of the angle", "speed [rad/s]"), ("torque [N m]",), "steps upright at rest"
        ),
    )
