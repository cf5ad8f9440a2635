"""Between trajectories in the environment's units and plans ``x[h, d]`` of unit variance.

Each observation and action entry is shifted and scaled by its mean and standard deviation over the data, so that the
denoiser's ``sigma_data`` is 1 and noise levels, distances and gradients mean the same in every environment.
"""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffplan.types import Pins, Trajectory


@struct.dataclass
class Codec:
    """The normaliser: mean and standard deviation ``[d]`` of observation entries, then of action entries."""

    mean: Float[Array, "d"]
    std: Float[Array, "d"]
    observation_dim: int = struct.field(pytree_node=False)

    @classmethod
    def fit(cls, observations: Float[np.ndarray, "*rows o"], actions: Float[np.ndarray, "*rows a"]) -> "Codec":
        """From data rows in the environment's units.

        Raises:
            ValueError: if an entry never changes, so that it cannot be scaled.
        """
        rows = np.concatenate([observations, actions], axis=-1).reshape(-1, observations.shape[-1] + actions.shape[-1])
        mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
        if not (std > 0).all():
            raise ValueError(
                f"entry {int(np.argmin(std))} of observation + action is constant: it cannot be normalised"
            )
        return cls(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32), observations.shape[-1])

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
