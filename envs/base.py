"""What an environment is, and the two ways to run one.

An environment is a Markov decision process with a deterministic or random transition and a reward that is a function of
the row it is paid on,

    s' ~ p(. | s, a),        o = observe(s),        r_t = reward(o_t, a_t)                                       (1)

so the return of a run is the sum of `reward` over its rows (o_t, a_t), the same rows that a plan or a data set holds.
Environments are unbatched and pure: batch with `jax.vmap`, they never reset themselves, and all fields are static and
hashable so that an instance can be closed over by, or be a static argument of, a jitted function. `residual` says how
far a row is from being possible under (1): a plan whose residuals are all 0 can be executed as it is drawn.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

State = TypeVar("State")
Policy = Callable[[Key[Array, ""], Float[Array, "o"], Int[Array, ""]], Float[Array, "a"]]
"""(key, observation, step number) -> action."""


class Transition(NamedTuple):
    """What one step returns. A leading axis `h` is added by `rollout` and `follow`."""

    observation: Float[Array, "o"]
    """The observation after the step, o_{t+1}."""
    reward: Float[Array, ""]
    """The reward of the row that was left, reward(o_t, a_t)."""
    terminated: Bool[Array, ""]
    """The process has ended: nothing that follows counts."""
    truncated: Bool[Array, ""]
    """The environment's own limit of steps is reached; the process itself goes on."""


@runtime_checkable
class Environment(Protocol[State]):
    """A Markov decision process, equation (1). Unbatched, pure, without auto-reset."""

    @property
    def observation_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def observation_low(self) -> Float[np.ndarray, "o"]: ...
    @property
    def observation_high(self) -> Float[np.ndarray, "o"]: ...
    @property
    def action_low(self) -> Float[np.ndarray, "a"]: ...
    @property
    def action_high(self) -> Float[np.ndarray, "a"]: ...

    def reset(self, key: Key[Array, ""]) -> State:
        """Draws a first state. The key is consumed."""
        ...

    def step(self, key: Key[Array, ""], state: State, action: Float[Array, "a"]) -> tuple[State, Transition]:
        """Moves on by one step. The key is consumed, and ignored where the transition is deterministic."""
        ...

    def observe(self, state: State) -> Float[Array, "o"]:
        """What is seen of a state."""
        ...

    def state_of(self, observation: Float[Array, "o"]) -> State:
        """A fresh state, at step 0, that looks like this: observe(state_of(o)) == o for every o that is possible."""
        ...

    def reward(self, observation: Float[Array, "o"], action: Float[Array, "a"]) -> Float[Array, ""]:
        """The gold reward of one row."""
        ...

    def residual(self, o: Float[Array, "o"], a: Float[Array, "a"], o_next: Float[Array, "o"]) -> Float[Array, ""]:
        """How far o_next is from what the step could have given, in observation units; 0 iff the step is feasible."""
        ...


class Episode(NamedTuple):
    """A run of `h` steps. Row t is (observations[t], actions[t]); transitions.observation[t] is what row t led to."""

    observations: Float[Array, "h o"]
    actions: Float[Array, "h a"]
    transitions: Transition


def rollout(env: Environment[State], key: Key[Array, ""], state: State, actions: Float[Array, "h a"]) -> Transition:
    """Executes given actions open loop from a state.

    Returns:
        The transitions, with a leading axis h. Steps go on after `terminated` and `truncated`: mask by them where it
        matters.
    """

    def body(state: State, xs: tuple[Key[Array, ""], Float[Array, "a"]]) -> tuple[State, Transition]:
        return env.step(xs[0], state, xs[1])

    return jax.lax.scan(body, state, (jax.random.split(key, actions.shape[0]), actions))[1]


def follow(env: Environment[State], key: Key[Array, ""], state: State, policy: Policy, steps: int) -> Episode:
    """Executes a policy closed loop from a state for a fixed number of steps, without reset.

    The policy sees the step number, so a controller that tracks a plan is `lambda key, o, t: track(o, plan[t + 1])`.
    """

    def body(state: State, xs: tuple[Key[Array, ""], Int[Array, ""]]) -> tuple[State, Episode]:
        act_key, step_key = jax.random.split(xs[0])
        observation = env.observe(state)
        action = policy(act_key, observation, xs[1])
        state, transition = env.step(step_key, state, action)
        return state, Episode(observation, action, transition)

    times = jax.numpy.arange(steps)
    return jax.lax.scan(body, state, (jax.random.split(key, steps), times))[1]
