"""Between trajectories in the environment's units and plans ``x[h, d]`` of unit variance.

Each observation and action entry is shifted and scaled by its mean and standard deviation over the data, so that the
denoiser's ``sigma_data`` is 1 and noise levels, distances and gradients mean the same in every environment. Where the
observation is a cell of a gridworld, a plan is one-hot instead: which cell, at every step; its actions are the moves
between them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.types import Pins, Trajectory


@struct.dataclass
class Codec:
    """The normaliser: mean and standard deviation ``[d]`` of observation entries, then of action entries."""

    mean: Float[Array, "d"]
    std: Float[Array, "d"]
    observation_dim: int = struct.field(pytree_node=False)
    discrete: bool = struct.field(pytree_node=False, default=False)
    """Whether an action is a score for each of `a` moves, of which the largest is taken."""

    @property
    def width(self) -> int:
        """d."""
        return self.mean.size

    @property
    def action_dim(self) -> int:
        """a."""
        return self.width - self.observation_dim

    @classmethod
    def fit(
        cls, observations: Float[np.ndarray, "*rows o"], actions: Float[np.ndarray, "*rows a"], discrete: bool = False
    ) -> "Codec":
        """From data rows in the environment's units.

        An entry that is constant, or varies by no more than rounding, has a floor in place of its standard deviation:
        a hundred-thousandth of its mean, and a thousandth of the median standard deviation of the other entries.

        Raises:
            ValueError: if no entry ever changes.
        """
        rows = np.concatenate([observations, actions], axis=-1).reshape(-1, observations.shape[-1] + actions.shape[-1])
        mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
        varies = std > 1e-5 * np.abs(mean)
        if not varies.any():
            raise ValueError(f"observations and actions: all {len(rows)} rows are the same: there is nothing to learn")
        floor = np.maximum(1e-5 * np.abs(mean), 1e-3 * np.median(std[varies]))
        std = np.where(varies, std, floor)
        mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
        return cls(mean, std, observations.shape[-1], discrete)

    def of_observations(self) -> "Codec":
        """The normaliser of plans that have no actions."""
        o = self.observation_dim
        return Codec(self.mean[:o], self.std[:o], o)

    def encode(self, trajectory: Trajectory) -> Float[Array, "*batch h d"]:
        """To a plan in normalised units."""
        rows = jnp.concatenate([trajectory.observations, trajectory.actions], axis=-1)
        return (rows - self._like(self.mean, rows)) / self._like(self.std, rows)

    def decode(self, x: Float[Array, "*batch h d"]) -> Trajectory:
        """Back to the environment's units; the exact inverse of `encode`."""
        rows = x * self._like(self.std, x) + self._like(self.mean, x)
        return Trajectory(rows[..., : self.observation_dim], rows[..., self.observation_dim :])

    def pin(self, horizon: int, start: Float[Array, "o"], goal: Float[Array, "o"] | None = None) -> Pins:
        """Pins on the first observation, and on the last if a goal is given, from observations in environment units."""
        o = self.observation_dim
        empty = jnp.zeros((horizon, self.mean.size))
        value, mask = empty.at[0, :o].set((start - self.mean[:o]) / self.std[:o]), (empty > 0).at[0, :o].set(True)
        if goal is not None:
            value = value.at[-1, :o].set((goal - self.mean[:o]) / self.std[:o])
            mask = mask.at[-1, :o].set(True)
        return Pins(mask, value)

    @staticmethod
    def _like(entry: Float[Array, "d"], rows: Float[Array, "*batch d"]) -> Float[Array, "*ones d"]:
        return entry.reshape((1,) * (rows.ndim - 1) + entry.shape)


@struct.dataclass
class Cells:
    """One-hot plans through k cells: the places ``[k, 2]`` that are observed, and where each of m moves leads."""

    places: Float[Array, "k o"]
    next_cell: Int[Array, "k m"]

    @property
    def width(self) -> int:
        """d, the number of cells."""
        return len(self.places)

    @property
    def observation_dim(self) -> int:
        """o, the coordinates of a place."""
        return self.places.shape[1]

    @property
    def action_dim(self) -> int:
        """m, the number of moves."""
        return self.next_cell.shape[1]

    @property
    def discrete(self) -> bool:
        """True: actions are moves."""
        return True

    def cell(self, place: Float[Array, "*batch o"]) -> Int[Array, "*batch"]:
        """The number of the cell nearest to a place."""
        places = self.places.reshape((1,) * (place.ndim - 1) + self.places.shape)
        return jnp.argmin(jnp.sum((place[..., None, :] - places) ** 2, axis=-1), axis=-1)

    def encode(self, trajectory: Trajectory) -> Float[Array, "*batch h k"]:
        """To a one-hot plan; the actions follow from the cells and are left out."""
        return jax.nn.one_hot(self.cell(trajectory.observations), self.width)

    def decode(self, x: Float[Array, "*batch h k"]) -> Trajectory:
        """The likeliest cell of every step, and the move from each to the next.

        A move that leads there is one-hot; where no move does, and after the last cell, the action is the first move.
        """
        cells = jnp.argmax(x, axis=-1)
        after = jnp.concatenate([cells[..., 1:], cells[..., -1:]], axis=-1)
        move = jnp.argmax(self.next_cell[cells] == after[..., None], axis=-1)
        return Trajectory(self.places[cells], jax.nn.one_hot(move, self.next_cell.shape[1]))

    def legal(self, x: Float[Array, "h k"]) -> Float[Array, "h-1"]:
        """1 for each step from a cell to one that a move leads to, else 0."""
        cells = jnp.argmax(x, axis=-1)
        return jnp.any(self.next_cell[cells[:-1]] == cells[1:, None], axis=-1).astype(jnp.float32)

    def pin(self, horizon: int, start: Float[Array, "o"], goal: Float[Array, "o"] | None = None) -> Pins:
        """Pins on the first cell, and on the last if a goal is given, from places."""
        value, mask = jnp.zeros((horizon, self.width)), jnp.zeros((horizon, self.width), bool)
        value, mask = value.at[0].set(jax.nn.one_hot(self.cell(start), self.width)), mask.at[0].set(True)
        if goal is not None:
            value, mask = value.at[-1].set(jax.nn.one_hot(self.cell(goal), self.width)), mask.at[-1].set(True)
        return Pins(mask, value)
