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
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.settings import require
from diffplan.simulators import Controller, OpenLoop, Pursuit, Steering, Tracking
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
    pace: float | None
    """With the task's tracker, the distance at which it goes on to the plan's next point; None: with time."""
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
    planned: int = 0
    """Plans made so far; those that only fill a batch count."""
    followed: Trajectory | None = field(default=None, repr=False)
    """The plans as the controller is given them: with an action for every step, where the low-level prior drew them."""
    ahead: Int[Array, "n"] | None = field(default=None, repr=False)
    """The point of the plan that each episode pursues."""

    def reset(self, observation: Any = None, goal: ArrayLike | None = None) -> None:
        """Begin an episode, or a batch of them.

        Args:
            observation: the first observation, as the environment gives it; a goal environment's holds its goal.
            goal: where to go, ``[g]`` or ``[n, g]``, in the task's units: the entries that `Task.goal` names. It goes
                before the goal of the observation.

        Raises:
            ConfigError: if a goal is given and the task has none, or if it has another number of entries.
        """
        self.plan = self.followed = self.goal = None
        self.t = 0
        if goal is None and observation is not None:
            goal = self.adapter.goal(observation)
        if goal is not None:
            self.goal = whole_goal(self.task, np.asarray(goal, np.float32))
            model, scale = self.plans(True), self.options.scale
            require(model.energy is not None or scale is None, "scale", scale, "None: it has no guide to goals")
            controller_of(self.task, model, self.way)

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
        controller = controller_of(self.task, model, self.way)
        if isinstance(controller, Tracking) and self.pace is not None:
            place = self.task.goal or tuple(range(self.task.observation_dim))
            controller = Pursuit(controller.track, self.pace, place)
        actions, self.ahead = _act(controller, self.followed, jnp.asarray(rows), jnp.asarray(self.t), self.ahead)
        self.t += 1
        actions = np.asarray(actions)
        if not self.task.discrete:
            actions = np.clip(actions, *self.bounds)
        return self.adapter.action(actions if raw.ndim > 1 else actions[0])

    def make_plan(self, model: PlanModel, rows: Float[np.ndarray, "n o"]) -> None:
        """Plan anew from where the episodes are, for those that have not arrived, in batches of one size."""
        self.key, key_plan, key_fill = jax.random.split(self.key, 3)
        n, past = len(rows), self.plan if self.options.warm else None
        goals = None if self.goal is None else np.broadcast_to(self.goal, rows.shape)
        whole, away = at_rest(model, rows, goals), np.arange(n)
        if goals is not None and self.task.goal is not None:
            entries = list(self.task.goal)
            away = np.flatnonzero(np.linalg.norm((rows - goals)[:, entries], axis=1) > self.near)
        batch, moved = min(batch_size(), n), self.every if past is not None else 0
        for number, first in enumerate(range(0, len(away), batch)):
            some = away[first : first + batch]
            full = np.resize(some, batch)
            given = jax.tree.map(lambda leaf, full=full: jnp.asarray(leaf[full]), (rows, goals, past))
            made = _plan(model, self.options, moved, jax.random.fold_in(key_plan, number), *given)
            for array, part in zip(whole, (made.observations, made.actions), strict=True):
                array[some] = np.asarray(part)[: len(some)]
            self.planned += batch
        self.plan = self.followed = plan = Trajectory(*map(jnp.asarray, whole))
        if self.way == "open_loop" and model.low_level is not None:
            self.followed = _filled(model, self.every, key_fill, plan.observations)
        self.t, self.ahead = 0, jnp.ones(n, jnp.int32)


def batch_size() -> int:
    """Episodes that are planned for together: as many as a CPU's caches hold, or many on an accelerator."""
    return 32 if jax.default_backend() == "cpu" else 1024


def at_rest(
    model: PlanModel, rows: Float[np.ndarray, "n o"], goals: Float[np.ndarray, "n o"] | None
) -> tuple[Float[np.ndarray, "n h o"], Float[np.ndarray, "n h a"]]:
    """Observations and actions of plans that stay at the goal, or where they begin."""
    observations = np.repeat((rows if goals is None else goals)[:, None], model.horizon, axis=1)
    observations[:, 0] = rows
    return observations, np.zeros((*observations.shape[:2], model.codec.action_dim), np.float32)


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
        ConfigError: if the task has no tracker and one is asked for, or if plans have no actions and they are.
    """
    if way == "open_loop":
        require(model.has_actions, "way", way, "inverse or tracked: these plans have no actions")
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
    past: Trajectory | None,
) -> Trajectory:
    """Plans; where there are plans of `steps` steps before, warm from them."""
    warm = None if past is None else jax.vmap(lambda plan: model.moved_on(model.codec.encode(plan), steps))(past)
    return model.decode(model.best(key, starts, goals, warm, options)[0])


@partial(jax.jit, static_argnames="steps")
def _filled(model: PlanModel, steps: int, key: PRNGKey, points: Float[Array, "n h o"]) -> Trajectory:
    """Plans of so many single steps, with the actions of the low-level prior, and 0 when they are over."""
    fill = lambda key, points: model.actions(key, points, steps)
    actions = jax.vmap(fill)(jax.random.split(key, len(points)), points)
    over = ((0, 0), (0, steps - actions.shape[1]), (0, 0))
    row = jnp.minimum(jnp.arange(steps) // model.stride, model.horizon - 1)
    return Trajectory(points[:, row], jnp.pad(actions, over))


@jax.jit
def _act(
    controller: Controller | Pursuit, plans: Trajectory, observations: Float[Array, "n o"], t: Array, ahead: Array
) -> tuple[Float[Array, "n a"], Int[Array, "n"]]:
    if isinstance(controller, Pursuit):
        return jax.vmap(controller)(plans, observations, ahead)
    return jax.vmap(controller, (0, 0, None))(plans, observations, t), ahead
