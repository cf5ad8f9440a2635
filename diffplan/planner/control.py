"""How a plan is carried out: three controllers, in any physics, once or planned anew every k steps.

With p_i, v_i the plan's points, one every K steps, and t the steps since it was made, i = floor(t / K):

    actions     u = the plan's own action of step t            drawn by the low-level prior between two points
    inverse     u = f(o, (p_i+1, v_i+1), K - t mod K)          the learned f of (121): every action is learned
    tracking    a rule of the world's own, towards the place p_j                                              (124)

For `tracking` j begins at 1 and goes on by one when the ball is near p_j: it takes the way from the plan and its own
time. All are clipped to [-1, 1]. When the plan is over, `inverse` and `tracking` stay at its last point, and `actions`
are 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.learn.inverse import Inverse
from diffplan.types import PRNGKey

Name = Literal["actions", "inverse", "tracking"]
CONTROLLERS: tuple[Name, ...] = ("actions", "inverse", "tracking")


class Tracker(NamedTuple):
    """A rule of (124). aim: ``(observation, place) -> action``; near: the distance at which it goes on to the next."""

    aim: Callable[[Float[Array, "o"], Float[Array, "2"]], Float[Array, "2"]]
    near: float


@struct.dataclass
class Execution:
    """What one episode's controller is given, and where it is: a plan, the steps since it was made, and j of (124)."""

    points: Float[Array, "*n h o"]
    actions: Float[Array, "*n steps a"]
    t: Int[Array, "*n"]
    j: Int[Array, "*n"]

    @classmethod
    def of(cls, points: Float[Array, "n h o"], actions: Float[Array, "n steps a"]) -> "Execution":
        """New plans; actions that no controller will look at may be empty."""
        return cls(points, actions, jnp.zeros(len(points), jnp.int32), jnp.ones(len(points), jnp.int32))


def act(
    name: Name, tracker: Tracker, inverse: Inverse, at: Execution, observation: Float[Array, "o"]
) -> tuple[Execution, Float[Array, "a"]]:
    """The next action of one episode."""
    last, stride = len(at.points) - 1, inverse.steps
    ahead = at.points[jnp.minimum(at.j, last), :2]
    match name:
        case "actions":
            planned = at.actions[jnp.minimum(at.t, len(at.actions) - 1)]
            action = jnp.where(at.t < len(at.actions), planned, 0.0)
        case "inverse":
            action = inverse(observation, at.points[jnp.minimum(at.t // stride + 1, last)], stride - at.t % stride)
        case "tracking":
            action = tracker.aim(observation, ahead)
    near = jnp.linalg.norm(ahead - observation[:2]) < tracker.near
    return replace(at, t=at.t + 1, j=at.j + near), jnp.clip(action, -1, 1)


class Physics(NamedTuple):
    """Episodes side by side. run: ``(states, name, inverse, at, steps) -> (states, observations [n, steps, o])``."""

    start: Callable[[Float[np.ndarray, "n o"]], Any]
    run: Callable[..., tuple[Any, Float[np.ndarray, "n steps o"]]]


@runtime_checkable
class World(Protocol):
    """What a controller needs of an environment in JAX, for one state and one action."""

    def state_of(self, observation: Float[Array, "o"]) -> Any: ...

    def observe(self, state: Any) -> Float[Array, "o"]: ...

    def step(self, key: PRNGKey, state: Any, action: Float[Array, "a"]) -> tuple[Any, Any]: ...


@runtime_checkable
class Simulator(Protocol):
    """Any physics outside JAX: `diffplan.envs.mujoco`, `diffplan.envs.robotics`, OGBench's."""

    def start(self, observations: Float[np.ndarray, "n o"]) -> Any: ...

    def run(self, states: Any, act: Callable[[np.ndarray], np.ndarray], steps: int) -> np.ndarray: ...


def in_jax(world: World, tracker: Tracker) -> Physics:
    """An environment of this project, deterministic, compiled."""

    @partial(jax.jit, static_argnames=("name", "steps"))
    def run(states: Any, name: Name, inverse: Inverse, at: Execution, steps: int) -> tuple[Any, Array]:
        def body(carry: tuple[Any, Execution], _: None) -> tuple[tuple[Any, Execution], Array]:
            states, at = carry
            at, actions = jax.vmap(partial(act, name, tracker, inverse))(at, jax.vmap(world.observe)(states))
            states, moved = jax.vmap(world.step, (None, 0, 0))(jax.random.key(0), states, actions)
            return (states, at), moved.observation

        (states, _), observations = jax.lax.scan(body, (states, at), None, length=steps)
        return states, jnp.swapaxes(observations, 0, 1)

    return Physics(lambda starts: jax.vmap(world.state_of)(jnp.asarray(starts)), run)


def outside(simulator: Simulator, tracker: Tracker) -> Physics:
    """A simulator that is no JAX; controllers are compiled, and called once a step for all episodes."""

    @partial(jax.jit, static_argnames="name")
    def control(name: Name, inverse: Inverse, at: Execution, observations: Array) -> tuple[Execution, Array]:
        return jax.vmap(partial(act, name, tracker, inverse))(at, observations)

    def run(states: Any, name: Name, inverse: Inverse, at: Execution, steps: int) -> tuple[Any, np.ndarray]:
        def actions(observations: np.ndarray) -> np.ndarray:
            nonlocal at
            at, result = control(name, inverse, at, observations)
            return np.asarray(result)

        return states, simulator.run(states, actions, steps)

    return Physics(simulator.start, run)


@dataclass(frozen=True)
class Outcome:
    """Episodes as they went. paths: ``[n, T, o]``; plans: the points of every plan ``[n, plans, h, o]``."""

    paths: Float[np.ndarray, "n steps o"]
    plans: Float[np.ndarray, "n m h o"]
    seconds_per_plan: float
    """In full batches, and without compilation."""


@runtime_checkable
class Plans(Protocol):
    """``plans(key, observations, past) -> (points [n, h, o], how many were drawn)`` in the environment's units; those
    that only fill a batch count. past: the points of the plans before, None at first.
    """

    def __call__(
        self, key: PRNGKey, observations: Float[np.ndarray, "n o"], past: Float[np.ndarray, "n h o"] | None
    ) -> tuple[Float[np.ndarray, "n h o"], int]: ...


class Controller(NamedTuple):
    """How plans are carried out. actions: ``(key, points [n, h, o]) -> [n, every, a]``, for `actions` alone."""

    name: Name
    every: int
    """Steps from plan to plan; one plan, where it is no less than an episode."""
    inverse: Inverse
    actions: Callable[[PRNGKey, Float[Array, "n h o"]], Float[Array, "n steps a"]]


def episodes(
    key: PRNGKey, physics: Physics, plans: Plans, how: Controller, starts: Float[np.ndarray, "n o"], steps: int
) -> Outcome:
    """All episodes to their end."""
    states, observations = physics.start(starts), np.asarray(starts, np.float32)
    points, none = None, jnp.zeros((len(starts), 1, 2))
    paths, every_plan, seconds, planned = [], [], 0.0, 0
    for number, first in enumerate(range(0, steps, how.every)):
        key_plan, key_act = jax.random.split(jax.random.fold_in(key, number))
        if number < 2:  # first plans and warm ones are two programs: compiled before they are timed
            plans(key_plan, observations, points)
        began = perf_counter()
        points, count = plans(key_plan, observations, points)
        seconds, planned = seconds + perf_counter() - began, planned + count
        plan = jnp.asarray(points)
        at = Execution.of(plan, how.actions(key_act, plan) if how.name == "actions" else none)
        states, path = physics.run(states, how.name, how.inverse, at, min(how.every, steps - first))
        paths.append(np.asarray(path))
        every_plan.append(points)
        observations = paths[-1][:, -1]
    return Outcome(np.concatenate(paths, axis=1), np.stack(every_plan, axis=1), seconds / max(planned, 1))


def returns(goals: Float[np.ndarray, "*n 2"], paths: Float[np.ndarray, "n steps o"]) -> Float[np.ndarray, "n"]:
    """D4RL's return of each episode: steps that ended within 0.5 cells of the goal."""
    goals = np.broadcast_to(np.asarray(goals, np.float32), (len(paths), 2))
    return (np.linalg.norm(paths[..., :2] - goals[:, None], axis=-1) <= 0.5).sum(axis=1).astype(np.float64)
