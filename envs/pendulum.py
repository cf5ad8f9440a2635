"""A pendulum to swing up with a weak motor: gymnasium's Pendulum-v1 in JAX, and controllers to learn from.

An observation is (cos theta, sin theta, omega): the angle theta is 0 upright, omega is its speed in rad/s. An action is
a torque u in [-2, 2] N m. The motor cannot lift the rod (mass 1 kg, length 1 m, gravity 10 m/s^2) in one go. One step
of h = 0.05 s is semi-implicit, and clips the torque to its bounds and the speed to [-8, 8] rad/s:

    omega' = clip(omega + h (15 sin theta + 3 u), -8, 8),         theta' = theta + h omega'                       (1)

The reward maps Pendulum-v1's cost to [0, 1]; the largest cost, pi^2 + 6.4 + 0.004, has reward 0:

    r = 1 - (theta^2 + 0.1 omega^2 + 0.001 u^2) / 16.2736044,     theta in [-pi, pi]                              (2)

The rod's energy in joules, 0 at rest upright and -10 at rest below, changes at the rate omega u:

    E = omega^2 / 6 + 5 (cos theta - 1)                                                                           (3)

The controller pumps energy until E is its target e, and balances near the top. The coordinate z grows by itself there,
as exp(sqrt(15) t), and the motor can hold it while |z| < 0.4:

    u = gain (e - E) sign(omega)           elsewhere                                                              (4)
    u = -20 z,     z = theta + omega / sqrt(15)           where |theta| < 1 and |z| < 0.35                        (5)

Both are clipped to the bounds, then noise N(0, std^2) is added and the sum is clipped again. For data of mixed quality
each episode has a controller of its own:

    e = 0 with probability 1/2, else U(-10, 5),     gain = exp U(log 0.1, log 3),     std from U(0.2, 1.5)        (6)

The optimal return with k rows to go follows by value iteration, with V interpolated between grid points:

    V_k(s) = max_u r(s, u) + V_{k-1}(step(s, u)),     V_0 = 0                                                     (7)

Measured over 200 rows from 2000 resets: return, and the fraction that stands upright in the last 20 rows.

    policy                      mean    std     upright
    uniform torques             125.1   17.3    0.00
    mixture (6)                 167.9   31.8    0.71        covers 89 % of 20 x 20 bins of (theta, omega)
    controller without noise    190.8    5.5    1.00
    bound (7), 200 x 161        191.7    2.7

Against a grid of 800 x 641, the bound errs by -0.08 in the mean, by less than 0.6 in 90 % of the starts and by 2.4 at
most, where the best number of swings changes. It takes about 3 s of one core.

Source: the physics and the cost are those of gymnasium 1.4 (Towers et al. 2024, arXiv 2407.17032), written anew; energy
shaping is that of Astrom and Furuta (2000, Automatica 36).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .base import Episode, Transition, follow

STEP = 0.05
"""Seconds per step."""
MAX_TORQUE = 2.0
"""N m."""
MAX_SPEED = 8.0
"""rad/s."""
GRAVITY, MOTOR = 15.0, 3.0
"""3 g / 2 l in 1/s^2 and 3 / m l^2 in 1/kg m^2: a rod about its end; equation (1)."""
WORST = np.pi**2 + 0.1 * MAX_SPEED**2 + 0.001 * MAX_TORQUE**2
"""The largest cost of a row, 16.2736044."""
GROWTH = GRAVITY**0.5
"""Rate in 1/s at which a lean grows near the top."""
TORQUES = 5
"""Torques that value iteration tries in each state."""


Gold = Callable[[Float[Array, "3"], Float[Array, "1"]], Float[Array, ""]]
"""``gold(observation, action) -> reward`` of a row. Must be hashable."""


class State(NamedTuple):
    """The direction of the rod (cos theta, sin theta), its speed in rad/s, the steps taken since the reset."""

    direction: Float[Array, "2"]
    speed: Float[Array, ""]
    time: Int[Array, ""]


def angle(direction: Float[Array, "2"]) -> Float[Array, ""]:
    """The angle in [-pi, pi] rad of a direction (cos, sin) of any length; 0 for (0, 0), where gradients are 0 too."""
    nowhere = (direction == 0).all()
    return jnp.arctan2(direction[1], jnp.where(nowhere, 1.0, direction[0]))


def energy(observation: Float[Array, "3"]) -> Float[Array, ""]:
    """The rod's energy in joules, equation (3)."""
    return observation[2] ** 2 / 6 + 5 * (observation[0] - 1)


@dataclass(frozen=True)
class Pendulum:
    """The pendulum of equations (1) and (2). Static and hashable."""

    max_steps: int = 200
    """Steps after which a transition is marked truncated."""

    observation_dim = 3
    action_dim = 1

    @property
    def observation_low(self) -> Float[np.ndarray, "3"]:
        return np.array([-1, -1, -MAX_SPEED], np.float32)

    @property
    def observation_high(self) -> Float[np.ndarray, "3"]:
        return np.array([1, 1, MAX_SPEED], np.float32)

    @property
    def action_low(self) -> Float[np.ndarray, "1"]:
        return np.full(1, -MAX_TORQUE, np.float32)

    @property
    def action_high(self) -> Float[np.ndarray, "1"]:
        return np.full(1, MAX_TORQUE, np.float32)

    def reset(self, key: Key[Array, ""]) -> State:
        """An angle from U(-pi, pi) rad and a speed from U(-1, 1) rad/s, as in Pendulum-v1."""
        theta, speed = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return State(_direction(jnp.pi * theta), speed, jnp.int32(0))

    def step(self, key: Key[Array, ""], state: State, action: Float[Array, "1"]) -> tuple[State, Transition]:
        """One step of 0.05 s, equation (1). Deterministic: the key is not used. Never terminates."""
        theta = angle(state.direction)
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        speed = state.speed + STEP * (GRAVITY * jnp.sin(theta) + MOTOR * torque)
        speed = jnp.clip(speed, -MAX_SPEED, MAX_SPEED)
        new = State(_direction(theta + STEP * speed), speed, state.time + 1)
        reward = self.reward(self.observe(state), action)
        return new, Transition(self.observe(new), reward, jnp.bool_(False), new.time >= self.max_steps)

    def observe(self, state: State) -> Float[Array, "3"]:
        """(cos theta, sin theta, omega in rad/s)."""
        return jnp.concatenate([state.direction, state.speed[None]])

    def state_of(self, observation: Float[Array, "3"]) -> State:
        """The state of this direction and speed, at step 0.

        The direction is kept as it is, so that `observe` gives it back bit for bit. The step uses its angle alone: a
        direction of another length than 1, as a plan may hold, counts as the direction of length 1.
        """
        return State(observation[:2], observation[2], jnp.int32(0))

    def reward(self, observation: Float[Array, "3"], action: Float[Array, "1"]) -> Float[Array, ""]:
        """Equation (2), in [0, 1]; 0 also for speeds beyond the bound whose cost is larger still."""
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        cost = angle(observation[:2]) ** 2 + 0.1 * observation[2] ** 2 + 0.001 * torque**2
        return jnp.maximum(1 - cost / WORST, 0.0)

    def residual(self, o: Float[Array, "3"], a: Float[Array, "1"], o_next: Float[Array, "3"]) -> Float[Array, ""]:
        """|step(o, a) - o_next|, plus the distance of o's direction from the unit circle.

        Returns:
            A sum of distances in observation units; 0 on real steps up to float32 rounding, 1e-6.
        """
        new, _ = self.step(jax.random.key(0), self.state_of(o), a)
        return jnp.linalg.norm(self.observe(new) - o_next) + jnp.abs(jnp.linalg.norm(o[:2]) - 1)


def _direction(theta: Float[Array, ""]) -> Float[Array, "2"]:
    return jnp.stack([jnp.cos(theta), jnp.sin(theta)])


class Controller(NamedTuple):
    """The numbers that equations (4) and (5) leave open."""

    target: Float[Array, ""] | float = 0.0
    """e, the energy that is pumped up to, in joules: 0 swings up, -10 stops the rod below."""
    gain: Float[Array, ""] | float = 1.0
    """In N m per joule."""
    std: Float[Array, ""] | float = 0.0
    """Standard deviation of the noise on the torque, in N m."""


PRECISE = Controller()
"""The controller without noise."""


def swing_up(
    key: Key[Array, ""], observation: Float[Array, "3"], t: Int[Array, ""], controller: Controller = PRECISE
) -> Float[Array, "1"]:
    """Chooses a torque by equations (4) and (5). An `envs.base.Policy`. The key is consumed.

    Args:
        key: random key of the noise.
        observation: (cos theta, sin theta, omega in rad/s).
        t: step number; not used.
        controller: target energy, gain and noise.

    Returns:
        The torque in N m, within the bounds.
    """
    theta, speed = angle(observation[:2]), observation[2]
    growing = theta + speed / GROWTH
    pump = controller.gain * (controller.target - energy(observation)) * jnp.where(speed < 0, -1.0, 1.0)
    balances = (jnp.abs(theta) < 1) & (jnp.abs(growing) < 0.35)
    torque = jnp.clip(jnp.where(balances, -20 * growing, pump), -MAX_TORQUE, MAX_TORQUE)
    return jnp.clip(torque + controller.std * jax.random.normal(key, (1,)), -MAX_TORQUE, MAX_TORQUE)


def draw_controller(key: Key[Array, ""]) -> Controller:
    """Draws the controller of one episode, equation (6). The key is consumed."""
    swings, energy_key, gain_key, std_key = jax.random.split(key, 4)
    other = jax.random.uniform(energy_key, minval=-10.0, maxval=5.0)
    return Controller(
        target=jnp.where(jax.random.bernoulli(swings), 0.0, other),
        gain=jnp.exp(jax.random.uniform(gain_key, minval=np.log(0.1), maxval=np.log(3.0))),
        std=jax.random.uniform(std_key, minval=0.2, maxval=1.5),
    )


@partial(jax.jit, static_argnames=("env", "episodes", "steps", "draw"))
def collect(
    env: Pendulum,
    key: Key[Array, ""],
    episodes: int,
    steps: int,
    draw: Callable[[Key[Array, ""]], Controller] = draw_controller,
) -> Episode:
    """Records behaviour of mixed quality: each episode has a controller of its own.

    Args:
        env: the pendulum.
        key: random key. It is consumed.
        episodes: number of episodes; each begins with a reset.
        steps: rows of each episode.
        draw: the distribution of controllers; `lambda key: PRECISE` gives the controller without noise.

    Returns:
        Rows with leading axes [episodes, steps].
    """

    def one(key: Key[Array, ""]) -> Episode:
        reset_key, controller_key, run_key = jax.random.split(key, 3)
        policy = partial(swing_up, controller=draw(controller_key))
        return follow(env, run_key, env.reset(reset_key), policy, steps)

    return jax.vmap(one)(jax.random.split(key, episodes))


def bound(
    observations: Float[np.ndarray, "n 3"], steps: int, angles: int = 200, speeds: int = 161, gold: Gold | None = None
) -> Float[np.ndarray, "n"]:
    """Returns of optimal control from each start, by value iteration (7) on a grid, in float32.

    Args:
        observations: the starts, (cos theta, sin theta, omega in rad/s).
        steps: rows of an episode.
        angles: grid points round the circle; an even number has one upright.
        speeds: grid points between the bounds of omega; an odd number has one at rest.
        gold: another reward of a row, hashable; (2) if it is not given.

    Returns:
        The largest sum of rewards that `steps` rows from each start can have, to the error in the module's docstring.
    """
    table = np.asarray(_values(steps, angles, speeds, gold or PENDULUM.reward), np.float64)
    theta = np.arctan2(observations[:, 1], observations[:, 0])
    corners, weights = _corners(theta, np.clip(observations[:, 2], -MAX_SPEED, MAX_SPEED), table.shape)
    return (table.reshape(-1)[corners] * weights).sum(axis=0)


def _corners(
    theta: Float[np.ndarray, "*n"], speed: Float[np.ndarray, "*n"], shape: tuple[int, ...]
) -> tuple[Int[np.ndarray, "4 *n"], Float[np.ndarray, "4 *n"]]:
    """The numbers of the four grid points round each state, and their weights in bilinear interpolation."""
    angles, speeds = shape
    x, y = (theta / (2 * np.pi) + 0.5) * angles, (speed / MAX_SPEED + 1) / 2 * (speeds - 1)
    i = np.floor(x).astype(np.int32)
    j = np.clip(np.floor(y).astype(np.int32), 0, speeds - 2)
    right, up = x - i, y - j
    number = lambda i, j: i % angles * speeds + j
    weights = [(1 - right) * (1 - up), (1 - right) * up, right * (1 - up), right * up]
    return np.stack([number(i, j), number(i, j + 1), number(i + 1, j), number(i + 1, j + 1)]), np.stack(weights)


@cache
def _values(steps: int, angles: int, speeds: int, gold: Gold) -> Float[Array, "angles speeds"]:
    """V_steps of (7) on the grid."""
    theta = (np.arange(angles) / angles - 0.5) * 2 * np.pi
    omega, torque = np.linspace(-MAX_SPEED, MAX_SPEED, speeds), np.linspace(-MAX_TORQUE, MAX_TORQUE, TORQUES)
    theta, omega, torque = np.meshgrid(theta, omega, torque, indexing="ij")
    faster = np.clip(omega + STEP * (GRAVITY * np.sin(theta) + MOTOR * torque), -MAX_SPEED, MAX_SPEED)
    corners, weights = _corners(theta + STEP * faster, faster, (angles, speeds))
    observations = np.stack([np.cos(theta), np.sin(theta), omega], axis=-1).reshape(-1, 3)
    rewards = jax.vmap(gold)(jnp.asarray(observations, jnp.float32), jnp.asarray(torque.reshape(-1, 1), jnp.float32))

    @jax.jit
    def iterate(
        rewards: Float[Array, "angles speeds torques"],
        corners: Int[Array, "4 angles speeds torques"],
        weights: Float[Array, "4 angles speeds torques"],
    ) -> Float[Array, "angles speeds"]:
        def improve(values: Float[Array, "angles speeds"], _: None) -> tuple[Float[Array, "angles speeds"], None]:
            later = (values.reshape(-1)[corners] * weights).sum(axis=0)
            return (rewards + later).max(axis=-1), None

        return jax.lax.scan(improve, jnp.zeros((angles, speeds)), None, length=steps)[0]

    return iterate(rewards.reshape(torque.shape), jnp.asarray(corners), jnp.asarray(weights, jnp.float32))


PENDULUM = Pendulum()
"""Pendulum-v1 with rewards between 0 and 1."""
