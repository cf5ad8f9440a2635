"""Behaviour data on disk, and training windows on the device.

A data set is two files: ``NAME.npz`` with float32 ``observations [trajectories, steps, o]`` and ``actions
[trajectories, steps, a]``, each trajectory one unbroken run, and ``NAME.json`` with the seed, configuration, package
versions, shapes and a digest. A file that is not what its description says is refused by name; nothing is trained on
it.

Batches are a function of a key alone: a window is a uniformly drawn (trajectory, first step), gathered on the device.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.codec import Codec
from diffplan.types import PRNGKey, Trajectory

FIELDS = ("observations", "actions")


class DataError(ValueError):
    """A data file is missing, damaged or not what it says; the message names the file and the field."""


class Rows(NamedTuple):
    """Behaviour in the environment's units, one unbroken run a trajectory."""

    observations: Float[np.ndarray, "trajectories steps o"]
    actions: Float[np.ndarray, "trajectories steps a"]

    def split(self, held_out: float) -> "tuple[Rows, Rows]":
        """(training trajectories, held-out trajectories): the last `held_out` share of trajectories, at least one,
        is held out.
        """
        cut = len(self.observations) - max(1, round(held_out * len(self.observations)))
        return Rows(self.observations[:cut], self.actions[:cut]), Rows(self.observations[cut:], self.actions[cut:])

    def encoded(self, codec: Codec) -> Float[Array, "trajectories steps d"]:
        """All rows, normalised, on the device."""
        return codec.encode(Trajectory(jnp.asarray(self.observations), jnp.asarray(self.actions)))


def save(path: Path, rows: Rows, description: dict[str, Any]) -> str:
    """Write ``path`` (.npz) and its description beside it, the data first, each in one move. Returns the digest."""
    buffer = io.BytesIO()
    np.savez(buffer, observations=rows.observations.astype(np.float32), actions=rows.actions.astype(np.float32))
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    shapes = {name: list(value.shape) for name, value in rows._asdict().items()}
    text = json.dumps(description | {"shapes": shapes, "sha256": digest}, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, data in ((path, content), (path.with_suffix(".json"), text.encode())):
        part = target.with_name(target.name + ".part")
        part.write_bytes(data)
        part.replace(target)
    return digest


def load(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Read and check a data set; returns (rows, description).

    Raises:
        DataError: naming the file and the field, if either file is missing, truncated or altered, or if a field is
            missing, of another shape than described, or holds NaN or infinity.
    """
    sidecar = path.with_suffix(".json")
    for file in (path, sidecar):
        if not file.exists():
            raise DataError(f"{file}: no such file")
    try:
        description = json.loads(sidecar.read_text())
        shapes = {name: tuple(description["shapes"][name]) for name in FIELDS}
        digest = description["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{sidecar}: not a description of a data set ({error!r})") from error
    content = path.read_bytes()
    rows = checked(path, read_npz(path, content))
    for name, value in rows._asdict().items():
        if value.shape != shapes[name]:
            raise DataError(f"{path}: field {name!r} has shape {list(value.shape)}, described as {list(shapes[name])}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{path}: altered since it was written: its sha256 differs from that in {sidecar.name}")
    return rows, description


def read_npz(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """All arrays of an .npz file's content; `path` is named in errors. Raises DataError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy raise whatever they trip over first
        raise DataError(f"{path}: truncated or not an .npz file ({one_line(error)})") from error


def one_line(error: Exception) -> str:
    """What an exception says, or its kind, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def present(where: object, names: Sequence[str], fields: Any) -> None:
    """Raise DataError for the first field that is missing; `where` is named in the error."""
    for name in names:
        if name not in fields:
            raise DataError(f"{where}: field {name!r} is missing; found {sorted(fields)}")


def checked(path: Path, fields: dict[str, np.ndarray]) -> Rows:
    """The fields as rows, if each is what it must be; `path` is named in errors. Raises DataError."""
    present(path, FIELDS, fields)
    for name in FIELDS:
        value = fields[name]
        if value.ndim != 3 or value.dtype != np.float32:
            kind = f"{value.dtype} {list(value.shape)}"
            raise DataError(f"{path}: field {name!r} must be float32 [trajectories, steps, entries], got {kind}")
        if not np.isfinite(value).all():
            trajectory, step, _ = np.argwhere(~np.isfinite(value))[0]
            place = f"trajectory {trajectory}, step {step}"
            raise DataError(f"{path}: field {name!r} holds NaN or infinity, first at {place}")
    if fields["observations"].shape[:2] != fields["actions"].shape[:2]:
        shapes = [list(fields[name].shape) for name in FIELDS]
        raise DataError(f"{path}: fields 'observations' and 'actions' differ in trajectories or steps: {shapes}")
    return Rows(*(fields[name] for name in FIELDS))


@struct.dataclass
class Windows:
    """All windows of `horizon` steps in normalised rows ``[trajectories, steps, d]``, on the device."""

    rows: Float[Array, "trajectories steps d"]
    horizon: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, rows: Rows, codec: Codec, horizon: int) -> "Windows":
        """Normalise and place on the device. Raises DataError if a trajectory is shorter than the horizon."""
        steps = rows.observations.shape[1]
        if steps < horizon:
            raise DataError(f"trajectories of {steps} steps are shorter than the horizon {horizon}")
        return cls(rows.encoded(codec), horizon)

    def draw(self, key: PRNGKey) -> Float[Array, "h d"]:
        """One window, uniform over trajectories and first steps."""
        trajectories, steps, dim = self.rows.shape
        key_trajectory, key_step = jax.random.split(key)
        trajectory = jax.random.randint(key_trajectory, (), 0, trajectories)
        first = jax.random.randint(key_step, (), 0, steps - self.horizon + 1)
        return jax.lax.dynamic_slice(self.rows, (trajectory, first, 0), (1, self.horizon, dim))[0]

    def draws(self, key: PRNGKey, count: int) -> Float[Array, "n h d"]:
        """`count` windows, independently drawn."""
        return jax.vmap(self.draw)(jax.random.split(key, count))


@struct.dataclass
class Strided:
    """All windows of `horizon` observations, `stride` steps apart, of normalised rows ``[trajectories, steps, d]``, on
    the device.
    """

    rows: Float[Array, "trajectories steps d"]
    horizon: int = struct.field(pytree_node=False)
    stride: int = struct.field(pytree_node=False)
    observation_dim: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, rows: Rows, codec: Codec, horizon: int, stride: int) -> "Strided":
        """Normalise by the codec of single rows. Raises DataError if a trajectory is shorter than a window."""
        steps = rows.observations.shape[1]
        if steps < horizon * stride:
            raise DataError(f"trajectories of {steps} steps are shorter than {horizon} points, {stride} steps apart")
        return cls(rows.encoded(codec), horizon, stride, codec.observation_dim)

    @property
    def length(self) -> int:
        """Steps of a window, to where a next point would be."""
        return self.horizon * self.stride

    def place(self, key: PRNGKey) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """A trajectory and a first step, each uniform."""
        trajectories, steps, _ = self.rows.shape
        key_trajectory, key_step = jax.random.split(key)
        first = jax.random.randint(key_step, (), 0, steps - self.length + 1)
        return jax.random.randint(key_trajectory, (), 0, trajectories), first
