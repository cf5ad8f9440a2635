"""A damped point on a line under a noisy linear policy; its optimal return is known in closed form."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from jaxtyping import Float

from diffplan.envs.linear import Linear, LinearPolicy
from diffplan.settings import SEED, at_least, settings
from diffplan.task import Task, Words


@settings("task")
class LinearSettings:
    """A damped point on a line, paid for being near 1 m and for small forces."""

    noise: Annotated[float, at_least(0)] = 0.6
    """Standard deviation of the policy's noise, N."""
    steps: Annotated[int, at_least(2, 1e6)] = 100
    """Steps of an episode."""
    episodes: Annotated[int, at_least(2, 1e7)] = 1000
    """Episodes. One at least is held out."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""


def environment(config: LinearSettings) -> Linear:
    """x' = x + 0.1 v, v' = 0.9 v + 0.2 u; the reward of a row is x - x^2 / 2 - u^2 / 20."""
    matrices = {"transition": [[1, 0.1], [0, 0.9]], "control": [[0], [0.2]]}
    reward = {"slope": [1, 0, 0], "curvature": [1, 0, 0.1]}
    env = Linear.from_arrays(**matrices, start_mean=[0, 0], start_std=[0.5, 0.5], **reward)
    return replace(env, max_steps=config.steps)


@dataclass(frozen=True)
class Riccati:
    """The optimal return of a linear environment without noise whose reward is quadratic: no bound on actions."""

    env: Linear

    def __call__(self, start: Float[np.ndarray, "o"], steps: int) -> float:
        """By dynamic programming on V_t(x) = v + p.x - x P x / 2."""
        a, b = np.array(self.env.transition), np.array(self.env.control)
        o = len(a)
        slope, curve = np.array(self.env.slope), np.diag(self.env.curvature)
        offset, linear, quadratic = 0.0, np.zeros(o), np.zeros((o, o))
        for _ in range(steps):
            step = np.concatenate([a, b], axis=1)
            whole, push = curve + step.T @ quadratic @ step, slope + step.T @ linear
            inner = np.linalg.pinv(whole[o:, o:])
            gain, shift = inner @ whole[o:, :o], inner @ push[o:]
            offset += push[o:] @ shift / 2
            linear = push[:o] - whole[:o, o:] @ shift
            quadratic = whole[:o, :o] - whole[:o, o:] @ gain
        return float(offset + linear @ start - start @ quadratic @ start / 2)


def make(config: LinearSettings) -> Task:
    """The point as a task."""
    env = environment(config)
    policy = LinearPolicy(gain=((-0.3, -0.2),), offset=(0.1,), std=config.noise)
    return Task.of(
        env,
        behaviour=policy,
        episodes=config.episodes,
        name="linear-point",
        steps=config.steps,
        seed=config.seed,
        settings=config,
        bound=Riccati(env),
        words=Words(("position [m]", "velocity [m/s]"), ("force [N]",), "reward", step="steps"),
    )
