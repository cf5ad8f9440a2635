"""Simulators, and how behaviour and plans are carried out in them.

Two kinds are known. An `Environment` is written in JAX, is unbatched and pure, and can be put into the state of any
observation. A `Host` runs batches of episodes of somebody else's simulator, which begin at seeds.

A plan of h rows, s steps apart, is carried out for h s steps by a controller u, from the state that it begins in,

    a_k = u(plan, o_k, k),        k = 0 .. h s - 1                                                             (132)

and delivers the sum of the rewards up to the step that ends the episode. With t = floor(k / s) the row in force and
l = s - k mod s the steps that are left to the next one, three controllers are known:

    open loop           the plan's action a_t
    inverse dynamics    f(o_k, o*_t+1, l), with o* the plan's observations and f learned (121)
    tracking            the task's own controller, given o_k and o*_t+1

and a fourth, which keeps its own count of rows (`Pursuit`), for agents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from diffplan.count import counted
from diffplan.types import PRNGKey, Scalar, Trajectory

Policy = Callable[[PRNGKey, Float[Array, "o"], Int[Array, ""]], Float[Array, "a"]]
"""``policy(key, observation, step) -> action``."""

Track = Callable[[Float[Array, "o"], Float[Array, "o"]], Float[Array, "a"]]
"""``track(observation, next observation of the plan) -> action``."""

State = TypeVar("State")


class Transition(NamedTuple):
    """What one step of an environment returns."""

    observation: Float[Array, "o"]
    """The observation after the step."""
    reward: Float[Array, ""]
    """The reward of the row that was left."""
    terminated: Bool[Array, ""]
    """The process has ended: nothing that follows counts."""
    truncated: Bool[Array, ""]
    """The environment's own limit of steps is reached."""


@runtime_checkable
class Environment(Protocol[State]):
    """A world in JAX: unbatched, pure, without auto-reset. It also has bounds: ``observation_low``,
    ``observation_high``, ``action_low`` and ``action_high``, arrays that may hold infinities.
    """

    @property
    def observation_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...

    def reset(self, key: PRNGKey) -> State:
        """A first state."""
        ...

    def step(self, key: PRNGKey, state: State, action: Float[Array, "a"]) -> tuple[State, Any]:
        """The next state, and what has the fields of a `Transition`."""
        ...

    def observe(self, state: State) -> Float[Array, "o"]:
        """What is seen of a state."""
        ...

    def state_of(self, observation: Float[Array, "o"]) -> State:
        """A fresh state that looks like this."""
        ...


@runtime_checkable
class Host(Protocol):
    """A simulator outside JAX: batches of episodes side by side."""

    @property
    def observation_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def action_low(self) -> Float[np.ndarray, "a"]: ...
    @property
    def action_high(self) -> Float[np.ndarray, "a"]: ...

    def reset(self, seeds: Int[np.ndarray, "n"]) -> tuple[Sequence[Any], Float[np.ndarray, "n o"]]:
        """Begins an episode for every seed: (handles, first observations)."""
        ...

    def step(self, handles: Sequence[Any], actions: Float[np.ndarray, "n a"]) -> tuple[np.ndarray, ...]:
        """Moves every episode on: (observations [n, o], rewards [n], terminated [n], truncated [n])."""
        ...

    def release(self, handles: Sequence[Any]) -> None:
        """Says that these episodes are not needed any more."""
        ...


@dataclass(frozen=True)
class Rewarded:
    """An environment with another reward of a row; everything else is the environment's own."""

    env: Any
    reward: Callable[[Float[Array, "o"], Float[Array, "a"]], Scalar]
    """Must be hashable: a function, or a frozen dataclass that can be called."""

    def step(self, key: PRNGKey, state: Any, action: Float[Array, "a"]) -> tuple[Any, Any]:
        """The environment's step; its reward is that of the row it begins at."""
        after, moved = self.env.step(key, state, action)
        return after, moved._replace(reward=self.reward(self.env.observe(state), action))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


@struct.dataclass
class Truth:
    """An environment as `diffplan.dynamics.Dynamics`: an action is held for `stride` steps; the disagreement is 0."""

    env: Any = struct.field(pytree_node=False)
    discrete: bool = struct.field(pytree_node=False, default=False)
    stride: int = struct.field(pytree_node=False, default=1)

    @property
    def action_low(self) -> Float[Array, "a"]:
        """The least action."""
        return jnp.asarray(self.env.action_low, jnp.float32)

    @property
    def action_high(self) -> Float[Array, "a"]:
        """The greatest action."""
        return jnp.asarray(self.env.action_high, jnp.float32)

    def __call__(
        self, key: PRNGKey, observation: Float[Array, "o"], action: Float[Array, "a"]
    ) -> tuple[Float[Array, "o"], Scalar]:
        """One row of a plan."""
        state = self.env.state_of(observation)
        if self.stride == 1:
            return counted("env_steps", self.env.step(key, state, action)[1].observation), jnp.zeros(())
        step = lambda state, key: (self.env.step(key, state, action)[0], None)
        state = jax.lax.scan(step, state, jax.random.split(key, self.stride))[0]
        return counted("env_steps", self.env.observe(state)), jnp.zeros(())


@struct.dataclass
class OpenLoop:
    """The controller that executes the plan's own actions."""

    stride: int = struct.field(pytree_node=False)

    def __call__(self, plan: Trajectory, observation: Float[Array, "o"], step: Int[Array, ""]) -> Float[Array, "a"]:
        """The action of the row in force."""
        return plan.actions[step // self.stride]


@struct.dataclass
class Steering:
    """The controller that steers from where it is to the plan's next observation, by learned inverse dynamics."""

    inverse: Callable[..., Float[Array, "a"]]
    """f of (121): ``inverse(observation, target, steps left)``."""
    stride: int = struct.field(pytree_node=False)

    def __call__(self, plan: Trajectory, observation: Float[Array, "o"], step: Int[Array, ""]) -> Float[Array, "a"]:
        """The action towards the next row; after the last row, towards the last row itself."""
        return self.inverse(observation, following(plan, step, self.stride), self.stride - step % self.stride)


@struct.dataclass
class Tracking:
    """The task's own controller, following the plan's observations."""

    track: Track = struct.field(pytree_node=False)
    stride: int = struct.field(pytree_node=False)

    def __call__(self, plan: Trajectory, observation: Float[Array, "o"], step: Int[Array, ""]) -> Float[Array, "a"]:
        """The action towards the next row."""
        return self.track(observation, following(plan, step, self.stride))


@struct.dataclass
class Pursuit:
    """The task's own controller, at the pace of the episode: it aims at row j of the plan, from j = 1 on, and

    j <- j + 1        when the place of row j is nearer than `near`                                      (124)
    """

    track: Track = struct.field(pytree_node=False)
    near: float = struct.field(pytree_node=False)
    """In the units of observations."""
    place: tuple[int, ...] = struct.field(pytree_node=False)
    """The entries of an observation that say where it is."""

    def __call__(
        self, plan: Trajectory, observation: Float[Array, "o"], j: Int[Array, ""]
    ) -> tuple[Float[Array, "a"], Int[Array, ""]]:
        """The action towards row j, and the next j."""
        ahead = plan.observations[jnp.minimum(j, len(plan.observations) - 1)]
        left = jnp.linalg.norm((ahead - observation)[jnp.asarray(self.place)])
        return self.track(observation, ahead), j + (left < self.near)


Controller = OpenLoop | Steering | Tracking


def following(plan: Trajectory, step: Int[Array, ""], stride: int) -> Float[Array, "o"]:
    """The plan's next observation at a step, the last one once there is no next."""
    return plan.observations[jnp.minimum(step // stride + 1, len(plan.observations) - 1)]


class Running(NamedTuple):
    """Episodes that are being carried out: states of an `Environment`, or handles of a `Host` with observations."""

    states: Any
    observations: Float[Array, "n o"]
    alive: Bool[Array, "n"]


@partial(jax.jit, static_argnames=("env", "steps"))
def _carry_out_in_jax(
    key: PRNGKey, env: Environment, controller: Controller, running: Running, plans: Trajectory, steps: int
) -> tuple[Running, Float[Array, "n"]]:
    def one(key: PRNGKey, state: Any, alive: Bool[Array, ""], plan: Trajectory) -> tuple:
        def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            (state, alive, total), (key, step) = carry, inputs
            after, moved = env.step(key, state, controller(plan, env.observe(state), step))
            total = total + jnp.where(alive, moved.reward, 0.0)
            return (after, alive & ~moved.terminated, total), None

        start = (state, alive, jnp.zeros(()))
        return jax.lax.scan(body, start, (jax.random.split(key, steps), jnp.arange(steps)))[0]

    keys = jax.random.split(key, len(running.alive))
    states, alive, totals = jax.vmap(one)(keys, running.states, running.alive, plans)
    return Running(states, jax.vmap(env.observe)(states), alive), totals


@jax.jit
def _actions(
    controller: Controller, plans: Trajectory, observations: Float[Array, "n o"], step: Int[Array, ""]
) -> Float[Array, "n a"]:
    return jax.vmap(controller, (0, 0, None))(plans, observations, step)


def _carry_out_on_host(
    host: Host, controller: Controller, running: Running, plans: Trajectory, steps: int
) -> tuple[Running, Float[Array, "n"]]:
    observations, alive = np.asarray(running.observations), np.asarray(running.alive)
    totals = np.zeros(len(alive))
    for step in range(steps):
        if not alive.any():
            break
        actions = np.asarray(_actions(controller, plans, jnp.asarray(observations, jnp.float32), step))
        observations, rewards, terminated, truncated = host.step(running.states, actions)
        totals += np.where(alive, rewards, 0.0)
        alive = alive & ~terminated & ~truncated
    after = Running(running.states, jnp.asarray(observations, jnp.float32), jnp.asarray(alive))
    return after, jnp.asarray(totals, jnp.float32)


def begin(simulator: Any, states: Any) -> Running:
    """Episodes at their first step. states: of an `Environment`, or the seeds ``[n]`` of a `Host`."""
    if is_host(simulator):
        handles, observations = simulator.reset(np.asarray(states))
        return Running(handles, jnp.asarray(observations, jnp.float32), jnp.ones(len(handles), bool))
    observations = jax.vmap(simulator.observe)(states)
    return Running(states, observations, jnp.ones(len(observations), bool))


def end(simulator: Any, running: Running) -> None:
    """Let go of episodes."""
    if is_host(simulator):
        simulator.release(running.states)


def carry_out(
    key: PRNGKey, simulator: Any, controller: Controller, running: Running, plans: Trajectory, steps: int
) -> tuple[Running, Float[Array | np.ndarray, "n"]]:
    """Carry out plans (132).

    Args:
        key: consumed; of the transitions, where they are random.
        simulator: an `Environment` or a `Host`.
        controller: what turns plans into actions.
        running: episodes that stand where their plans begin.
        plans: one for each, ``[n, h, .]``, in the environment's units.
        steps: how many steps are carried out.

    Returns:
        (the episodes as they stand afterwards, the return of each).
    """
    if is_host(simulator):
        return _carry_out_on_host(simulator, controller, running, plans, steps)
    return _carry_out_in_jax(key, simulator, controller, running, plans, steps)


def is_host(simulator: Any) -> bool:
    """Whether a simulator runs outside JAX: it has no `observe`."""
    return not hasattr(simulator, "observe")


class Recorded(NamedTuple):
    """Runs of behaviour of one length: row t is (observation, action, reward); `ended` is true from the last row on."""

    observations: Float[Array, "n t o"]
    actions: Float[Array, "n t a"]
    rewards: Float[Array, "n t"]
    ended: Bool[Array, "n t"]


@partial(jax.jit, static_argnames=("env", "policy", "steps", "count"))
def behave(env: Environment, policy: Policy, key: PRNGKey, count: int, steps: int) -> Any:
    """`Recorded`: `count` runs of a policy from fresh states. The key is consumed."""

    def one(key: PRNGKey) -> Recorded:
        key_reset, key_steps = jax.random.split(key)

        def body(carry: tuple, inputs: tuple) -> tuple:
            (state, ended), (key, step) = carry, inputs
            key_act, key_step = jax.random.split(key)
            observation = env.observe(state)
            action = policy(key_act, observation, step)
            state, moved = env.step(key_step, state, action)
            ended = ended | moved.terminated | moved.truncated
            return (state, ended), Recorded(observation, action, moved.reward, ended)

        first = (env.reset(key_reset), jnp.zeros((), bool))
        return jax.lax.scan(body, first, (jax.random.split(key_steps, steps), jnp.arange(steps)))[1]

    return jax.vmap(one)(jax.random.split(key, count))
