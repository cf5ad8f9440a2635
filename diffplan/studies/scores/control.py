"""How a plan is carried out: three controllers, in JAX's physics or MuJoCo's, once or planned anew every k steps.

With p_i, v_i the plan's points, one every K steps, and t the steps since it was made, i = floor(t / K):

    actions     u = the plan's own action of step t
    inverse     u = f(o, (p_i+1, v_i+1), K - t mod K)          the learned f of (121): every action is learned
    tracking    u = 10 (p_j - p) - v                           D4RL's rule, with points for waypoints         (124)

For `tracking` j begins at 1 and goes on by one when the ball is within `REACHED` of p_j: it takes the way from the plan
and its own time. All are clipped to [-1, 1], and stay at the last point when the plan is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.learn.inverse import Inverse
from diffplan.types import PRNGKey, Trajectory
from envs.maze2d import Maze2d

Name = Literal["actions", "inverse", "tracking"]
CONTROLLERS: tuple[Name, ...] = ("actions", "inverse", "tracking")
REACHED = 0.4
"""Cells from a point at which `tracking` goes on to the next."""


@struct.dataclass
class Execution:
    """What one episode's controller is given, and where it is: a plan, the steps since it was made, and j of (124)."""

    plan: Trajectory
    t: Int[Array, "*n"]
    j: Int[Array, "*n"]

    @classmethod
    def of(cls, plans: Trajectory) -> "Execution":
        """New plans ``[n, h, ...]``."""
        count = len(plans.observations)
        return cls(plans, jnp.zeros(count, jnp.int32), jnp.ones(count, jnp.int32))


def act(
    name: Name, inverse: Inverse, at: Execution, observation: Float[Array, "o"]
) -> tuple[Execution, Float[Array, "a"]]:
    """The next action of one episode."""
    points, stride = at.plan.observations, inverse.steps
    last = len(points) - 1
    now = jnp.minimum(at.t // stride, last)
    ahead = points[jnp.minimum(at.j, last), :2]
    match name:
        case "actions":
            action = at.plan.actions[now].reshape(stride, -1)[at.t % stride]
        case "inverse":
            action = inverse(observation, points[jnp.minimum(now + 1, last)], stride - at.t % stride)
        case "tracking":
            action = 10 * (ahead - observation[:2]) - observation[2:]
    reached = jnp.linalg.norm(ahead - observation[:2]) < REACHED
    return replace(at, t=at.t + 1, j=at.j + reached), jnp.clip(action, -1, 1)


class Physics(NamedTuple):
    """Episodes side by side. run: ``(states, name, inverse, at, steps) -> (states, observations [n, steps, o])``."""

    start: Callable[[Float[np.ndarray, "n o"]], Any]
    run: Callable[..., tuple[Any, Float[np.ndarray, "n steps o"]]]


def in_jax(maze: Maze2d) -> Physics:
    """`envs.maze2d` itself, compiled."""

    @partial(jax.jit, static_argnames=("name", "steps"))
    def run(states: Any, name: Name, inverse: Inverse, at: Execution, steps: int) -> tuple[Any, Array]:
        def body(carry: tuple[Any, Execution], _: None) -> tuple[tuple[Any, Execution], Array]:
            states, at = carry
            at, actions = jax.vmap(partial(act, name, inverse))(at, jax.vmap(maze.observe)(states))
            states, moved = jax.vmap(maze.step, (None, 0, 0))(jax.random.key(0), states, actions)
            return (states, at), moved.observation

        (states, _), seen = jax.lax.scan(body, (states, at), None, length=steps)
        return states, jnp.swapaxes(seen, 0, 1)

    return Physics(lambda starts: jax.vmap(maze.state_of)(jnp.asarray(starts)), run)


def in_mujoco(maze: Maze2d) -> Physics:
    """MuJoCo, a state an episode; controllers are compiled, and called once a step for all episodes."""
    from envs.mujoco import Simulator

    simulator = Simulator(maze)
    controlled = jax.jit(
        lambda name, inverse, at, seen: jax.vmap(partial(act, name, inverse))(at, seen), static_argnums=0
    )

    def run(states: Any, name: Name, inverse: Inverse, at: Execution, steps: int) -> tuple[Any, np.ndarray]:
        held = [at]

        def actions(seen: np.ndarray) -> np.ndarray:
            held[0], found = controlled(name, inverse, held[0], seen)
            return np.asarray(found)

        return states, simulator.run(states, actions, steps)

    return Physics(simulator.start, run)


@dataclass(frozen=True)
class Outcome:
    """Episodes as they went. paths: ``[n, T, o]``; plans: the points of every plan ``[n, plans, h, o]``."""

    paths: Float[np.ndarray, "n steps o"]
    plans: Float[np.ndarray, "n m h o"]
    seconds_per_plan: float
    """In a batch of all episodes, without compilation."""


Plans = Callable[[PRNGKey, Float[Array, "n o"]], Trajectory]
"""``plans(key, observations) -> plans [n, h, ...]`` in the environment's units; compiled."""


def episodes(
    key: PRNGKey,
    physics: Physics,
    plans: Plans,
    name: Name,
    inverse: Inverse,
    starts: Float[np.ndarray, "n o"],
    steps: int,
    every: int,
) -> Outcome:
    """All episodes to their end, planned anew every `every` steps, or once where that is no less than `steps`."""
    states, seen = physics.start(starts), np.asarray(starts, np.float32)
    paths, drawn, seconds = [], [], []
    jax.block_until_ready(plans(key, jnp.asarray(seen)))  # compiled before it is timed
    for number, first in enumerate(range(0, steps, every)):
        began = perf_counter()
        made = jax.block_until_ready(plans(jax.random.fold_in(key, number), jnp.asarray(seen)))
        seconds.append((perf_counter() - began) / len(starts))
        states, path = physics.run(states, name, inverse, Execution.of(made), min(every, steps - first))
        seen = np.asarray(path)[:, -1]
        paths.append(np.asarray(path))
        drawn.append(np.asarray(made.observations))
    return Outcome(np.concatenate(paths, axis=1), np.stack(drawn, axis=1), float(np.median(seconds)))


def returns(maze: Maze2d, paths: Float[np.ndarray, "n steps o"]) -> Float[np.ndarray, "n"]:
    """D4RL's return of each episode: steps that ended within 0.5 cells of the goal's integer location."""
    goal = np.asarray(maze.goal, np.float32)
    return (np.linalg.norm(paths[..., :2] - goal, axis=-1) <= 0.5).sum(axis=1).astype(np.float64)
