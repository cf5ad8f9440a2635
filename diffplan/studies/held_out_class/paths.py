"""Classes of paths in the plane with a known distribution, and judges of a path that do not use the distribution.

A path x[h, 2] goes through five waypoints w, of one of four classes y:

    x = A (w_y + j zeta) + t epsilon,    so    x_sigma | y ~ N(A w_y, j^2 A A' + (t^2 + sigma^2) I)             (111)

with A the interpolation between waypoints and zeta, epsilon standard normal. What a path shows is judged by where it
starts, ends and turns; it is valid if its steps are short and clear of walls. The last class is the one in question:

    composition     a crossroads: from the left or the right, then up or down; the last from the right, up
    homotopy        round an obstacle, clockwise in three trajectories; the last anticlockwise
    near speed      speeds 1, 2, 3; the last 4, four standard deviations from 3
    far speed       speeds 1, 2, 3; the last 6, about as far from 3 as the ways round the obstacle are apart
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffplan.oracle.mixture import Mixture, mixture
from diffplan.types import PRNGKey, Scalar

STEPS, WAYPOINTS, CLASSES = 16, 5, 4
JITTER, TREMOR = 0.15, 0.08
"""j and t of (111): standard deviations of a waypoint, and of a step about its path."""
NEAR, PACE = 0.6, 0.5
"""How far from where its class starts or ends a path may do so; of a speed, how far from the class's."""
STRIDE = 0.9
"""The longest step of a valid path."""
CORRIDOR, OBSTACLE = 0.8, 0.6
"""Half the width of a corridor; radius of the obstacle."""

Track = Float[Array, "h 2"]


class Geometry(NamedTuple):
    """Four classes of paths, the last of them in question; and two judges.

    waypoints: ``[class, waypoint, 2]``. shows: whether a path is of the last class. clear: whether it is clear of
    walls.
    """

    name: str
    waypoints: Float[np.ndarray, "y k 2"]
    shows: Callable[[Track], Bool[Array, ""]]
    clear: Callable[[Track], Bool[Array, ""]]

    def judge(self, x: Float[Array, "*batch h 2"]) -> tuple[Bool[Array, "*batch"], Bool[Array, "*batch"]]:
        """Of every path, whether it shows the last class, and whether it is valid: clear, by short steps."""
        return _judge(self.shows, self.clear, x)


@partial(jax.jit, static_argnums=(0, 1))
@partial(jnp.vectorize, excluded=(0, 1), signature="(h,d)->(),()")
def _judge(shows: Callable, clear: Callable, x: Track) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Compiled once for each geometry."""
    return shows(x), clear(x) & (jnp.max(jnp.linalg.norm(jnp.diff(x, axis=0), axis=1)) < STRIDE)


def near(point: Float[Array, "2"], place: tuple[float, float]) -> Bool[Array, ""]:
    """Whether a path starts or ends where it should."""
    return jnp.linalg.norm(point - jnp.asarray(place)) < NEAR


def in_corridors(x: Track) -> Bool[Array, ""]:
    """Whether both ends of every step are in one corridor of the crossroads."""
    inside = jnp.abs(x) < CORRIDOR
    return jnp.all(jnp.any(inside[:-1] & inside[1:], axis=1))


def turned(x: Track) -> Scalar:
    """The angle that a path sweeps about the origin, anticlockwise."""
    steps = jnp.diff(jnp.arctan2(x[:, 1], x[:, 0]))
    return jnp.sum(jnp.mod(steps + jnp.pi, 2 * jnp.pi) - jnp.pi)


def round_obstacle(x: Track) -> Bool[Array, ""]:
    """Whether no step comes within the obstacle's radius of the origin."""
    start, step = x[:-1], jnp.diff(x, axis=0)
    nearest = -jnp.sum(start * step, axis=1) / jnp.maximum(jnp.sum(step**2, axis=1), 1e-12)
    points = start + jnp.clip(nearest, 0.0, 1.0)[:, None] * step
    return jnp.all(jnp.linalg.norm(points, axis=1) > OBSTACLE)


def crossroads() -> Geometry:
    """From the left or right method to the upper or lower one."""
    methods = [(-2, 2), (-2, -2), (2, -2), (2, 2)]
    paths = [[(a, 0), (a / 2, 0), (0, 0), (0, b / 2), (0, b)] for a, b in methods]
    shows = lambda x: near(x[0], (2.0, 0.0)) & near(x[-1], (0.0, 2.0))
    return Geometry("composition", np.array(paths, float), shows, in_corridors)


def ring() -> Geometry:
    """From left to right round an obstacle: over it in three trajectories, or under it in the middle one."""
    angle = np.linspace(np.pi, 0, WAYPOINTS)
    half = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    paths = [1.25 * half, 1.6 * half, 1.95 * half, 1.6 * half * [[1, -1]]]
    shows = lambda x: near(x[0], (-1.6, 0.0)) & near(x[-1], (1.6, 0.0)) & (turned(x) > 0)
    return Geometry("homotopy", np.stack(paths), shows, round_obstacle)


def trajectory(name: str, fastest: float) -> Geometry:
    """Straight on along a trajectory; speed is the distance covered."""
    along = np.linspace(0, 1, WAYPOINTS)
    paths = [np.stack([speed * along - 1.5, 0 * along], axis=1) for speed in (1, 2, 3, fastest)]
    shows = lambda x: jnp.abs(jnp.linalg.norm(x[-1] - x[0]) - fastest) < PACE
    return Geometry(name, np.stack(paths), shows, lambda x: jnp.all(jnp.abs(x[:, 1]) < CORRIDOR))


GEOMETRIES = (crossroads(), ring(), trajectory("near speed", 4.0), trajectory("far speed", 6.0))


def interpolation() -> Float[np.ndarray, "h k"]:
    """A of (111): every step lies between two waypoints."""
    places = np.linspace(0, WAYPOINTS - 1, STEPS)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(WAYPOINTS)[None]))


def behave(key: PRNGKey, waypoints: Float[Array, "k 2"]) -> Track:
    """One path of the class with these waypoints (111)."""
    key_waypoints, key_steps = jax.random.split(key)
    points = waypoints + JITTER * jax.random.normal(key_waypoints, waypoints.shape)
    path = jnp.asarray(interpolation(), jnp.float32) @ points
    return path + TREMOR * jax.random.normal(key_steps, path.shape)


def distribution(waypoints: Float[np.ndarray, "y k 2"]) -> Mixture:
    """All classes in equal parts (111)."""
    basis = np.kron(interpolation(), np.eye(2))
    means = waypoints.reshape(CLASSES, -1) @ basis.T
    covariance = JITTER**2 * basis @ basis.T + TREMOR**2 * np.eye(len(basis))
    single = lambda values: jnp.asarray(values, jnp.float32)
    return mixture(
        single(np.full(CLASSES, 1 / CLASSES)), single(means), single(np.stack([covariance] * CLASSES)), (STEPS, 2)
    )
