"""Training windows of ragged episodes, on the device.

A window of `horizon` rows, `stride` steps apart, begins at any row of an episode from which it fits into the episode:
it never crosses a reset. With s the stride, row t of a window that begins at step k of an episode holds

    o_{k + t s},        (a_{k + t s} + ... + a_{k + t s + s - 1}) / s                                            (131)

the observation, and the mean of the actions until the next row. Episodes shorter than a window have none.

A batch is a function of a key alone: a window is drawn uniformly over all there are, and gathered on the device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells, Codec
from diffplan.data.errors import DataError
from diffplan.episodes import Episodes
from diffplan.types import PRNGKey, Trajectory


@struct.dataclass
class Windows:
    """All windows of some episodes (131)."""

    observations: Float[Array, "rows o"]
    actions: Float[Array, "rows a"]
    rewards: Float[Array, "rows"] | None
    first: Int[Array, "windows"]
    """The row at which each window begins."""
    codec: Codec | Cells
    horizon: int = struct.field(pytree_node=False)
    stride: int = struct.field(pytree_node=False, default=1)

    @classmethod
    def of(cls, episodes: Episodes, codec: Codec | Cells, horizon: int, stride: int = 1) -> "Windows":
        """Place episodes on the device.

        Raises:
            DataError: if no episode is as long as a window.
        """
        first = first_rows(episodes.lengths, horizon * stride)
        if not first.size:
            raise no_window(episodes, horizon, stride)
        rewards = None if episodes.rewards is None else jnp.asarray(episodes.rewards)
        rows = jnp.asarray(episodes.observations), jnp.asarray(episodes.actions), rewards
        return cls(*rows, jnp.asarray(first), codec, horizon, stride)

    @property
    def width(self) -> int:
        """d, the entries of a row."""
        return self.codec.width

    @property
    def span(self) -> int:
        """Steps of a window, to where a next row would be."""
        return self.horizon * self.stride

    def place(self, key: PRNGKey) -> Int[Array, ""]:
        """The first row of a window, uniform over all windows."""
        return self.first[jax.random.randint(key, (), 0, len(self.first))]

    def trajectory(self, first: Int[Array, ""]) -> Trajectory:
        """The window that begins at a row, in the environment's units (131)."""
        cut = lambda rows: jax.lax.dynamic_slice_in_dim(rows, first, self.span)
        observations, actions = cut(self.observations)[:: self.stride], cut(self.actions)
        return Trajectory(observations, actions.reshape(self.horizon, self.stride, -1).mean(axis=1))

    def at(self, first: Int[Array, ""]) -> Float[Array, "h d"]:
        """The window that begins at a row, normalised."""
        return self.codec.encode(self.trajectory(first))

    def row(self, index: Int[Array, ""]) -> Float[Array, "d"]:
        """One row, normalised."""
        return self.codec.encode(Trajectory(self.observations[index][None], self.actions[index][None]))[0]

    def recorded(self, first: Int[Array, ""]) -> Float[Array, ""]:
        """The sum of the rewards that were recorded in a window."""
        assert self.rewards is not None
        return jax.lax.dynamic_slice(self.rewards, (first,), (self.span,)).sum()

    def draw(self, key: PRNGKey) -> Float[Array, "h d"]:
        """One window, normalised, uniform over all."""
        return self.at(self.place(key))

    def places(self, key: PRNGKey, count: int) -> Int[Array, "n"]:
        """The first rows of `count` windows, independently drawn."""
        return jax.vmap(self.place)(jax.random.split(key, count))

    def draws(self, key: PRNGKey, count: int) -> Float[Array, "n h d"]:
        """`count` windows, normalised, independently drawn."""
        return jax.vmap(self.at)(self.places(key, count))


def no_window(episodes: Episodes, horizon: int, stride: int) -> DataError:
    """The error of episodes that are all shorter than a window."""
    longest = episodes.lengths.max(initial=0)
    return DataError(
        f"the longest of {episodes.count} episodes has {longest} steps: a window of {horizon} rows, "
        f"{stride} steps apart, needs {horizon * stride}; choose a shorter horizon"
    )


def first_rows(lengths: Int[np.ndarray, "episodes"], span: int) -> Int[np.ndarray, "windows"]:
    """The rows at which a window of `span` steps may begin, of episodes laid end to end."""
    begins = np.cumsum(lengths) - lengths
    counts = np.maximum(lengths - span + 1, 0)
    shift = np.repeat(begins - (np.cumsum(counts) - counts), counts)
    return (np.arange(counts.sum()) + shift).astype(np.int32)
