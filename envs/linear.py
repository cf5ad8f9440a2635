"""A linear-Gaussian environment, whose every distribution is known in closed form.

    x_0 ~ N(m, diag(s)^2),        x_{t+1} = A x_t + B u_t + q xi_t,        u_t = K x_t + k + p eta_t                (1)

with xi and eta standard normal. The behaviour policy is linear too, so a window of behaviour, the rows z_t = (x_t, u_t)
for t < h laid end to end, is Gaussian. Every row is an affine function of the independent normals
w = (w_x, eta_0, xi_0, eta_1, ...), z = mean + L w, so

    z ~ N(mean, L L^T)                                                                                             (2)

and the reward is a quadratic form of the row (linear where `curvature` is 0), so tilted distributions are Gaussian as
well:

    r(z) = slope . z - sum_i curvature_i z_i^2 / 2                                                                 (3)
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from .base import Transition

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


class State(NamedTuple):
    """The vector x, and the steps taken since the reset."""

    x: Float[Array, "o"]
    time: Int[Array, ""]


@dataclass(frozen=True)
class LinearPolicy:
    """u = K x + k + p eta, equation (1). A `Policy`: call it with (key, observation, step)."""

    gain: Matrix
    """K, [a, o]."""
    offset: Vector
    """k, [a]."""
    std: float
    """p."""

    def __call__(self, key: Key[Array, ""], observation: Float[Array, "o"], t: Int[Array, ""]) -> Float[Array, "a"]:
        """Draws an action. The key is consumed."""
        mean = jnp.array(self.gain) @ observation + jnp.array(self.offset)
        return mean + self.std * jax.random.normal(key, mean.shape)


@dataclass(frozen=True)
class Linear:
    """Equation (1) without its policy. Static and hashable, hence the tuples; build it with `from_arrays`."""

    transition: Matrix
    """A, [o, o]."""
    control: Matrix
    """B, [o, a]."""
    start_mean: Vector
    """m, [o]."""
    start_std: Vector
    """s, [o]."""
    slope: Vector
    """[o + a], equation (3)."""
    curvature: Vector
    """[o + a], equation (3)."""
    noise: float = 0.0
    """q; 0 is deterministic."""
    action_limit: float = 3.0
    """Nominal bound of each action, for users of `action_low` and `action_high`; nothing is clipped."""
    max_steps: int = 50
    """Steps after which a transition is marked truncated."""

    @classmethod
    def from_arrays(
        cls,
        transition: ArrayLike,
        control: ArrayLike,
        start_mean: ArrayLike,
        start_std: ArrayLike,
        slope: ArrayLike,
        curvature: ArrayLike | None = None,
        noise: float = 0.0,
    ) -> "Linear":
        """An environment from anything that numpy takes; `curvature` is 0 unless given.

        Raises:
            ValueError: if the shapes do not fit together.
        """
        a, b, m, s, c = (np.asarray(x, np.float64) for x in (transition, control, start_mean, start_std, slope))
        q = np.zeros_like(c) if curvature is None else np.asarray(curvature, np.float64)
        o = len(m)
        if a.shape != (o, o) or b.ndim != 2 or len(b) != o or s.shape != (o,):
            raise ValueError(f"{o} states need A [{o}, {o}], B [{o}, a] and std [{o}], got {a.shape, b.shape, s.shape}")
        if c.shape != (o + b.shape[1],) or q.shape != c.shape:
            raise ValueError(f"slope and curvature need {o + b.shape[1]} entries, got shapes {c.shape} and {q.shape}")
        return cls(_rows(a), _rows(b), _row(m), _row(s), _row(c), _row(q), noise)

    @property
    def observation_dim(self) -> int:
        return len(self.transition)

    @property
    def action_dim(self) -> int:
        return len(self.control[0])

    @property
    def observation_low(self) -> Float[np.ndarray, "o"]:
        return -self._reach

    @property
    def observation_high(self) -> Float[np.ndarray, "o"]:
        return self._reach

    @property
    def action_low(self) -> Float[np.ndarray, "a"]:
        return np.full(self.action_dim, -self.action_limit, np.float32)

    @property
    def action_high(self) -> Float[np.ndarray, "a"]:
        return np.full(self.action_dim, self.action_limit, np.float32)

    @cached_property
    def _reach(self) -> Float[np.ndarray, "o"]:
        """What |x| stays under for `max_steps` steps with actions in bounds and normals within 6 deviations."""
        a, b = np.array(self.transition), np.array(self.control)
        first = np.abs(self.start_mean) + 6 * np.array(self.start_std)
        power, driven, reach = np.eye(len(a)), np.zeros(len(a)), first
        for _ in range(self.max_steps):
            driven = driven + self.action_limit * np.abs(power @ b).sum(axis=1) + 6 * self.noise * np.abs(power).sum(1)
            power = power @ a
            reach = np.maximum(reach, np.abs(power) @ first + driven)
        return reach.astype(np.float32)

    def reset(self, key: Key[Array, ""]) -> State:
        """Draws x_0 of equation (1)."""
        x = jnp.array(self.start_mean) + jnp.array(self.start_std) * jax.random.normal(key, (self.observation_dim,))
        return State(x, jnp.int32(0))

    def step(self, key: Key[Array, ""], state: State, action: Float[Array, "a"]) -> tuple[State, Transition]:
        """One step of equation (1). Never terminates."""
        x = self._predict(state.x, action) + self.noise * jax.random.normal(key, (self.observation_dim,))
        new, reward = State(x, state.time + 1), self.reward(state.x, action)
        return new, Transition(x, reward, jnp.bool_(False), new.time >= self.max_steps)

    def observe(self, state: State) -> Float[Array, "o"]:
        """The whole state."""
        return state.x

    def state_of(self, observation: Float[Array, "o"]) -> State:
        """The state x = observation, at step 0."""
        return State(observation, jnp.int32(0))

    def reward(self, observation: Float[Array, "o"], action: Float[Array, "a"]) -> Float[Array, ""]:
        """Equation (3)."""
        row = jnp.concatenate([observation, action])
        return jnp.array(self.slope) @ row - 0.5 * (jnp.array(self.curvature) * row**2).sum()

    def residual(self, o: Float[Array, "o"], a: Float[Array, "a"], o_next: Float[Array, "o"]) -> Float[Array, ""]:
        """|o_next - A o - B a| without process noise; 0 with it, since any step is then possible."""
        return jnp.linalg.norm(o_next - self._predict(o, a)) if self.noise == 0 else jnp.zeros(())

    def _predict(self, x: Float[Array, "o"], action: Float[Array, "a"]) -> Float[Array, "o"]:
        return jnp.array(self.transition) @ x + jnp.array(self.control) @ action


def trajectory_distribution(
    env: Linear, policy: LinearPolicy, horizon: int
) -> tuple[Float[np.ndarray, "hd"], Float[np.ndarray, "hd hd"]]:
    """The mean and covariance of a window of behaviour from a reset, equation (2), in float64.

    Entry t * d + i is entry i of row t, where a row is the observation followed by the action and d = o + a: the
    distribution of `x.reshape(-1)` for x[h, d]. Rank deficient where `noise` is 0 (later rows follow from the first).
    """
    a, b, gain = np.array(env.transition), np.array(env.control), np.array(policy.gain)
    o, u = b.shape
    sources = o + horizon * (u + o)
    mean, std = np.array(env.start_mean), np.zeros((o, sources))  # x_t = mean + spread @ w
    std[:, :o] = np.diag(env.start_std)
    means, spreads = [], []
    for t in range(horizon):
        at = o + t * (u + o)  # where eta_t begins among the sources; xi_t follows it
        action_mean, action_spread = gain @ mean + np.array(policy.offset), gain @ std
        action_spread[:, at : at + u] += policy.std * np.eye(u)
        means += [mean, action_mean]
        spreads += [std, action_spread]
        mean, std = a @ mean + b @ action_mean, a @ std + b @ action_spread
        std[:, at + u : at + u + o] += env.noise * np.eye(o)
    whole = np.concatenate(spreads)
    return np.concatenate(means), whole @ whole.T


def _row(vector: Float[np.ndarray, "n"]) -> Vector:
    return tuple(float(x) for x in vector)


def _rows(matrix: Float[np.ndarray, "n m"]) -> Matrix:
    return tuple(_row(row) for row in matrix)


POINT = Linear.from_arrays(
    transition=[[1, 0.1], [0, 0.9]], control=[[0], [0.2]], start_mean=[0, 0], start_std=[0.5, 0.5], slope=[1, 0, 0]
)
"""A damped point on a line, (position, velocity) and a force, rewarded for being far to the right."""
