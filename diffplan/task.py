"""What a world must say of itself. This module imports no world; those that ship stand in `diffplan.tasks`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from diffplan.dynamics import Dynamics
from diffplan.types import PRNGKey, Scalar, Trajectory

Reward = Callable[[Float[Array, "o"], Float[Array, "a"]], Scalar]
"""``reward(observation, action)`` of one row, in the environment's units."""

Disc = tuple[float, float, float]
"""x, y and radius of a place."""

Rollout = Callable[[PRNGKey, Trajectory], Scalar]
"""``rollout(key, plan)``: the return of a plan when it is executed from its first observation."""

Violation = Callable[[Trajectory], Scalar]
"""``violation(plan)``: 0 where a plan is feasible."""


@dataclass(frozen=True)
class Task:
    """A world and a question, as a comparison needs it.

    Every function is for one plan or one row, in the environment's units; callers batch with `jax.vmap`.
    """

    name: str
    """As it stands in tables and figures."""
    settings: Any
    """What decides the episodes: part of the identity of everything that is learned from them."""
    episodes: Callable[[], tuple[np.ndarray, np.ndarray]]
    """Behaviour, simulated or read: observations ``[trajectories, steps, o]`` and actions."""
    reward_settings: Any
    """What decides the reward."""
    reward: Reward
    """The true reward. No optimiser sees it; labels of it train the proxies."""
    dynamics: Dynamics
    """What an action really does."""
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    """Ways to execute a plan, by the column that their return stands in."""
    violations: Mapping[str, Violation] = field(default_factory=dict)
    """What makes a plan infeasible, by the column that its mean stands in."""
    residual: Callable[[Float[Array, "o"], Float[Array, "a"], Float[Array, "o"]], Scalar] | None = None
    """How far a step is from what the dynamics does."""
    place: Callable[[Float[Array, "*b o"]], Float[Array, "*b 2"]] = lambda observations: observations[..., :2]
    """Where an observation is drawn."""
    target: Disc | None = None
    """The disc that the reward pays for, where it pays for one."""
    walls: np.ndarray | None = None
    """The cells that plans are drawn on."""
