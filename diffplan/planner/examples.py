"""What plans are learned from: windows of behaviour that reach a goal and stay there.

A plan begins where the ball is and ends at the goal, which the planner is told, as Diffuser is (Janner et al. 2022,
section 5.1). Behaviour stays nowhere, so windows are relabelled in hindsight: with k a step of the window, uniform, and
g the place at step k, let

    k' = min { t <= k : |p_t - g| < NEAR },     the first time that it was there                           (122)

and hold the window from k' on: its points before k' are the data's, all later ones p_k' at rest. Its first point and
its last stay clean. Its value is -k' / L, L the window's steps, standardised: how soon it arrives.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.types import PRNGKey, Scalar, Trajectory

NEAR = 0.1
"""Deviations of the data, in a place."""

Example = tuple[Float[Array, "h o"], Scalar, Bool[Array, "h o"]]
"""A window, its value, and the entries that stay clean."""


def clean(horizon: int, width: int) -> Bool[Array, "h d"]:
    """The mask of the first point and the last."""
    return jnp.zeros((horizon, width), bool).at[jnp.asarray([0, -1])].set(True)


@struct.dataclass
class Reaching:
    """Windows that are held from some step on. The first two entries of an observation are its place, the others its
    velocity, which is 0 at rest.
    """

    windows: Windows

    @property
    def points(self) -> Codec:
        """The normaliser of observations."""
        codec = self.windows.codec
        assert isinstance(codec, Codec)
        return codec.of_observations()

    def arrival(self, key: PRNGKey) -> tuple[Float[Array, "h o"], Scalar]:
        """A window that is held, and k', in steps."""
        windows, codec = self.windows, self.points
        o = codec.observation_dim
        key_place, key_wait = jax.random.split(key)
        first = windows.place(key_place)
        steps = (windows.horizon - 1) * windows.stride  # to the last point, so that it is held
        observed = jax.lax.dynamic_slice(windows.observations, (first, 0), (steps + 1, o))
        path = codec.encode(Trajectory(observed, jnp.zeros((steps + 1, 0))))
        wait = jax.random.randint(key_wait, (), 1, steps + 1)
        there = jnp.linalg.norm(path[:, :2] - path[wait, :2][None], axis=1) < NEAR
        soonest = jnp.argmax(there)  # of k itself too: the distance is 0
        goal = jnp.where(jnp.arange(o) < 2, path[soonest], -codec.mean / codec.std)
        points = path[:: windows.stride]
        later = windows.stride * jnp.arange(windows.horizon) >= soonest
        # the start stays the data's, velocity and all, also where it is the goal
        return jnp.where(later.at[0].set(False)[:, None], goal[None], points), soonest.astype(jnp.float32)

    def draw(self, key: PRNGKey) -> Example:
        """An example."""
        x, soonest = self.arrival(key)
        # standardised as if k' were uniform, which it nearly is; the score of a value is standardised anyway
        return x, jnp.sqrt(12.0) * (0.5 - soonest / self.windows.span), clean(*x.shape)
