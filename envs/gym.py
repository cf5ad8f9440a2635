"""Any environment as a gymnasium environment, and this project's own under gymnasium's ids; needs the `gym` extra.

    import gymnasium, diffplan.envs.gym                   importing it registers the ids
    env = gymnasium.make("diffplan/Maze2d-umaze-v0")      or make("diffplan.envs.gym:diffplan/Maze2d-umaze-v0") alone
    env.unwrapped.environment                             the Environment itself

Since its version 1.0 gymnasium loads no plugins by entry points of a package, so one of these imports is needed. Worker
processes are told the module with the id, and are spawned, since JAX does not survive a fork:

    if __name__ == "__main__":
        workers = {"vectorization_mode": "async", "vector_kwargs": {"context": "spawn"}}
        env = gymnasium.make_vec("diffplan.envs.gym:diffplan/Maze2d-umaze-v0", 2, **workers)

An episode has one seed, drawn from gymnasium's `np_random`. With k = key(seed), the reset and step t = 1, 2, ... are

    s_0 = reset(fold_in(k, 0)),        s_t, transition_t = step(fold_in(k, t), s_{t-1}, a_{t-1})                 (1)

so `reset(seed=...)` fixes this episode and, through `np_random`, those that follow it. The limit of steps is the
environment's own `truncated`; the ids carry none, and no TimeLimit is wrapped round. Stepping on after it is allowed.

Gridworlds score their moves and take the largest; here the action is the number of a move, `Discrete(5)`, and becomes
the one-hot score. Both functions of (1) are compiled once per environment, however many copies there are, and run on
JAX's default device. A step costs a call into JAX, 13,000 steps a second on one busy core: to train or to measure, use
`vmap` and `scan` on the Environment instead, which is some hundred times faster.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from . import gridworld, linear, maze2d, pendulum, potemkin, raster
from .base import Environment

ENVIRONMENTS: dict[str, Environment] = {
    **{f"Maze2d-{name}": maze for name, maze in maze2d.NAMED.items()},
    **{f"Gridworld-{name}": world for name, world in gridworld.NAMED.items()},
    "Linear-point": linear.POINT,
    "Pendulum": pendulum.PENDULUM,
}
"""What has a name. The id of each is diffplan/NAME-v0."""


def named(name: str) -> Environment:
    """An environment by its name.

    Raises:
        ValueError: if there is none of that name; the message lists those there are.
    """
    if name not in ENVIRONMENTS:
        raise ValueError(f"unknown environment {name!r}: choose one of {', '.join(ENVIRONMENTS)}, or pass your own")
    return ENVIRONMENTS[name]


class Gym(gymnasium.Env[np.ndarray, Any]):
    """A gymnasium environment round an Environment. Observations are float32 between the environment's bounds.

    Args:
        environment: any `envs.base.Environment`, or the name of one in ENVIRONMENTS.
        discrete: whether an action is the number of a choice, which becomes a one-hot vector, in place of that vector;
            by default so in gridworlds alone. For environments whose action scores each choice.
        render_mode: "rgb_array" for pictures (`envs.raster`), None for none.

    Raises:
        ValueError: for an unknown name or render mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012  as gymnasium has it

    def __init__(
        self, environment: Environment | str, discrete: bool | None = None, render_mode: str | None = None
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}: choose 'rgb_array' or None")
        self.environment: Environment = named(environment) if isinstance(environment, str) else environment
        self.render_mode = render_mode
        for kind, seconds in ((maze2d.Maze2d, maze2d.STEP), (pendulum.Pendulum, pendulum.STEP)):
            if isinstance(self.environment, kind):
                self.metadata = self.metadata | {"render_fps": round(1 / seconds)}
        if discrete is None:
            discrete = isinstance(self.environment, gridworld.Gridworld | potemkin.Potemkin)
        low, high = self.environment.observation_low, self.environment.observation_high
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = (
            spaces.Discrete(self.environment.action_dim)
            if discrete
            else spaces.Box(self.environment.action_low, self.environment.action_high, dtype=np.float32)
        )
        self._reset, self._place, self._step = _compiled(self.environment)
        self._choices = np.eye(self.environment.action_dim, dtype=np.float32)
        self.state: Any = None
        self._seed, self._time = np.uint32(0), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "o"], dict[str, Any]]:
        """Begins an episode: draws a first state, or takes the one that `options={"observation": o}` shows.

        Raises:
            ValueError: for any other option, or an observation that is not in the space.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := sorted(options.keys() - {"observation"}):
            raise ValueError(f"unknown options {unknown}: there is 'observation' alone")
        self._seed, self._time = self.np_random.integers(2**32, dtype=np.uint32), 0
        if "observation" in options:
            start = np.asarray(options["observation"], np.float32)
            if not self.observation_space.contains(start):
                raise ValueError(f"observation {start.tolist()}: not in the space {self.observation_space}")
            self.state, observation = self._place(start)
        else:
            self.state, observation = self._reset(self._seed)
        return np.array(observation), {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, "o"], float, bool, bool, dict[str, Any]]:
        """One step of (1): (observation, reward, terminated, truncated, {}). The reward is that of the row left.

        Raises:
            ValueError: for an action of the wrong shape, or a choice that there is not; bounds are the environment's.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self.state is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._time += 1
        self.state, row = self._step(self._seed, np.int32(self._time), self.state, self._vector(action))
        values = np.array(row)  # a copy of one's own: nothing that was returned before is written to
        return values[:-3], float(values[-3]), bool(values[-2]), bool(values[-1]), {}

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The present observation as a picture, or None without a render mode.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self.render_mode is None:
            return None
        if self.state is None:
            raise gymnasium.error.ResetNeeded("call reset before render")
        return raster.picture(self.environment, np.asarray(self.environment.observe(self.state)))

    def _vector(self, action: Any) -> Float[np.ndarray, "a"]:
        if isinstance(self.action_space, spaces.Discrete):
            if not self.action_space.contains(action):
                raise ValueError(f"action {action!r}: must be an integer from 0 to {len(self._choices) - 1}")
            return self._choices[action]
        vector = np.asarray(action, np.float32)
        if vector.shape != self.action_space.shape:
            raise ValueError(f"action of shape {vector.shape}: must have shape {self.action_space.shape}")
        return vector


@cache
def _compiled(environment: Environment) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """(1) as reset(seed) and place(observation) -> (state, observation), step(seed, t, state, action) -> (state, row).

    The row is observation, reward, terminated, truncated in one array: one copy from the device, not four.
    """

    @jax.jit
    def reset(seed: Any) -> tuple[Any, Any]:
        state = environment.reset(jax.random.fold_in(jax.random.key(seed), 0))
        return state, environment.observe(state)

    @jax.jit
    def place(observation: Any) -> tuple[Any, Any]:
        state = environment.state_of(observation)
        return state, environment.observe(state)

    @jax.jit
    def step(seed: Any, t: Any, state: Any, action: Any) -> tuple[Any, Any]:
        state, transition = environment.step(jax.random.fold_in(jax.random.key(seed), t), state, action)
        flags = jnp.stack([transition.reward, transition.terminated, transition.truncated])
        return state, jnp.concatenate([transition.observation, flags])

    return reset, place, step


def register() -> None:
    """Makes the ids known to gymnasium; those that are known stay. Importing this module has done it."""
    for name in ENVIRONMENTS:
        if f"diffplan/{name}-v0" not in gymnasium.registry:
            gymnasium.register(f"diffplan/{name}-v0", entry_point=f"{__name__}:Gym", kwargs={"environment": name})


register()
