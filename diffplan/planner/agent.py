"""Agents: a planner at work in any loop. They plan, carry out some steps, and plan anew from where they are.

An agent steers one episode or a batch of them, as its observations have one axis or two. Who is near its goal is not
planned for: that plan is the goal itself, at rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.settings import require
from diffplan.simulators import Controller, OpenLoop, Steering, Tracking
from diffplan.task import Adapter, Task
from diffplan.types import PRNGKey, Trajectory

Way = Literal["inverse", "open_loop", "tracked"]
"""How an agent acts: by learned inverse dynamics, by the plan's own actions, by the task's tracker."""


@dataclass
class Agent:
    """A planner in a loop: ``reset``, then ``act`` at every step. Made by `Planner.agent`."""

    task: Task
    plans: Callable[[bool], PlanModel]
    """The model that plans: ``plans(whether there is a goal)``."""
    options: PlanOptions
    every: int
    """Steps from plan to plan."""
    way: Way
    bounds: tuple[Float[np.ndarray, "a"], Float[np.ndarray, "a"]]
    """The least and the greatest action."""
    adapter: Adapter
    near: float
    """Distance from the goal within which no plan is made."""
    key: PRNGKey
    t: int = 0
    """Steps since the last plan."""
    goal: Float[np.ndarray, "n o"] | None = None
    plan: Trajectory | None = None
    """The plans that are carried out, ``[n, h, .]``, in the task's units."""
    x: Float[Array, "n h d"] | None = field(default=None, repr=False)

    def reset(self, observation: Any = None, goal: ArrayLike | None = None) -> None:
        """Begin an episode, or a batch of them.

        Args:
            observation: the first observation, as the environment gives it; a goal environment's holds its goal.
            goal: where to go, ``[g]`` or ``[n, g]``, in the task's units: the entries that `Task.goal` names. It goes
                before the goal of the observation.

        Raises:
            ConfigError: if a goal is given and the task has none, or if it has another number of entries.
        """
        self.plan = self.x = self.goal = None
        self.t = 0
        if goal is None and observation is not None:
            goal = self.adapter.goal(observation)
        if goal is not None:
            self.goal = whole_goal(self.task, np.asarray(goal, np.float32))
            guided, scale = self.plans(True).energy is not None, self.options.scale
            require(guided or scale is None, "scale", scale, "None: this planner has no guide to goals")

    def act(self, observation: Any) -> Any:
        """The next action, as the environment takes it."""
        raw = np.asarray(self.adapter.observation(observation), np.float32)
        wanted = (self.task.observation_dim,)
        require(raw.shape[-1:] == wanted, "observation: shape", list(raw.shape), f"[..., {wanted[0]}]")
        rows = np.atleast_2d(raw)
        if self.plan is not None:
            count = len(self.plan.observations)
            require(len(rows) == count, "observation: episodes", len(rows), f"{count}, or call reset")
        model = self.plans(self.goal is not None)
        if self.plan is None or self.t >= self.every:
            self.make_plan(model, rows)
        assert self.plan is not None
        controller = controller_of(self.task, model, self.way)
        actions = np.asarray(_act(controller, self.plan, jnp.asarray(rows), jnp.asarray(self.t)))
        self.t += 1
        if not self.task.discrete:
            actions = np.clip(actions, *self.bounds)
        return self.adapter.action(actions if raw.ndim > 1 else actions[0])

    def make_plan(self, model: PlanModel, rows: Float[np.ndarray, "n o"]) -> None:
        """Plan anew from where the episodes are."""
        self.key, key_plan, key_fill = jax.random.split(self.key, 3)
        past = self.x if self.options.warm else None
        goals = None if self.goal is None else np.broadcast_to(self.goal, rows.shape)
        steps = min(self.every, model.horizon * model.stride)
        x, plan = _plan(model, self.options, steps, key_plan, jnp.asarray(rows), goals, past)
        if model.codec.width == model.codec.observation_dim and self.way == "open_loop":
            plan = plan.replace(actions=_fill(model, steps, key_fill, plan.observations))
        if goals is not None and self.task.goal is not None:
            entries = list(self.task.goal)
            there = np.linalg.norm(rows[:, entries] - goals[:, entries], axis=1) <= self.near
            rest = jnp.asarray(goals)[:, None] * jnp.ones((1, model.horizon, 1))
            plan = plan.replace(observations=jnp.where(jnp.asarray(there)[:, None, None], rest, plan.observations))
        self.x, self.plan, self.t = x, plan, 0


def whole_goal(task: Task, goal: Float[np.ndarray, "*n g"]) -> Float[np.ndarray, "*n o"]:
    """The observation at a goal: the entries that it names, and 0 in all others.

    Raises:
        ConfigError: if the task has no goals, or if this one has another number of entries.
    """
    require(task.goal is not None, "goal", goal.tolist(), f"left out: task {task.name} has none")
    assert task.goal is not None
    require(goal.shape[-1:] == (len(task.goal),), "goal: shape", list(goal.shape), f"[..., {len(task.goal)}]")
    whole = np.zeros((*goal.shape[:-1], task.observation_dim), np.float32)
    whole[..., list(task.goal)] = goal
    return whole


def adapter_of(task: Task, env: Any = None) -> Adapter:
    """Between an environment and a task: the task's own, or one that takes observations and actions as they are.

    A goal environment's observation is a dict; another's goal is that of the environment it wraps, if it has one. An
    action of a discrete task is the number of the move for an environment that counts moves.
    """
    own = task.adapter(env) if task.adapter is not None and env is not None else None
    if own is not None:
        return own
    inside = lambda raw, name: raw.get(name) if isinstance(raw, dict) else None
    wrapped = getattr(getattr(env, "unwrapped", None), "environment", None)  # of `diffplan.envs.gym`
    counted = env is not None and hasattr(getattr(env, "action_space", None), "n")

    def goal(raw: Any) -> Any:
        wanted = inside(raw, "desired_goal")
        return getattr(wrapped, "goal", None) if wanted is None and task.goal is not None else wanted

    def observation(raw: Any) -> Any:
        return inside(raw, "observation") if isinstance(raw, dict) else raw

    return Adapter(
        observation, goal, (lambda actions: actions.argmax(axis=-1)) if counted else (lambda actions: actions)
    )


def controller_of(task: Task, model: PlanModel, way: Way) -> Controller:
    """What turns a plan into actions.

    Raises:
        ConfigError: if the task has no tracker and one is asked for.
    """
    if way == "open_loop":
        return OpenLoop(1 if model.low_level is not None else model.stride)
    if way == "tracked":
        require(task.tracker is not None, "way", way, f"inverse or open_loop: task {task.name} has no tracker")
        assert task.tracker is not None
        return Tracking(task.tracker, model.stride)
    return Steering(model.inverse, model.stride)


@partial(jax.jit, static_argnames="steps")
def _plan(
    model: PlanModel,
    options: PlanOptions,
    steps: int,
    key: PRNGKey,
    starts: Float[Array, "n o"],
    goals: Float[Array, "n o"] | None,
    past: Float[Array, "n h d"] | None,
) -> tuple[Float[Array, "n h d"], Trajectory]:
    warm = None if past is None else jax.vmap(lambda x: model.moved_on(x, steps))(past)
    x, _ = model.best(key, starts, goals, warm, options)
    return x, model.decode(x)


@partial(jax.jit, static_argnames="steps")
def _fill(model: PlanModel, steps: int, key: PRNGKey, points: Float[Array, "n h o"]) -> Float[Array, "n steps a"]:
    return jax.vmap(lambda key, points: model.actions(key, points, steps))(jax.random.split(key, len(points)), points)


@jax.jit
def _act(controller: Controller, plan: Trajectory, observations: Float[Array, "n o"], t: Array) -> Array:
    return jax.vmap(controller, (0, 0, None))(plan, observations, t)
