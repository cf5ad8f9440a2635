"""Episodes of HDF5 files as D4RL has them; needs the `data` extra (h5py).

Flat rows, episode after episode, in the fields that `diffplan.data.npz` lists; `terminals` and `timeouts` both end an
episode.

D4RL's navigation data are the exception: one long run, in which targets change and nothing is reset. Their generator
has a slip. When a target is reached the ball moves on, but the old observation is recorded again. Such a row is not
where its action was taken, so it is left out, and an episode ends there. Given the dynamics, the row is put right, and
the episode goes on. A file holds such data if it has the field `infos/goal`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from diffplan.data.errors import library, reading
from diffplan.data.fields import Header, Kept, Limits, Read, finish, gather, judge
from diffplan.episodes import Episodes, EpisodesError

KIND = "an HDF5 file"
SLIP = "repeat the observation before them, as D4RL's generator does where a target changes"

Dynamics = Callable[[Float[np.ndarray, "n o"], Float[np.ndarray, "n a"]], Float[np.ndarray, "n o"]]
"""Where actions lead from observations."""


class File:
    """The arrays of an open HDF5 file."""

    def __init__(self, file: Any):
        self._file = file

    def names(self) -> list[str]:
        """The names at the top of the file."""
        return list(self._file)

    def header(self, name: str) -> Header:
        """What an array is. Raises EpisodesError if the name is that of a group."""
        item = self._file[name]
        if not hasattr(item, "shape"):
            raise EpisodesError(f"field {name!r} is a group: must be an array")
        return Header(item.shape or (), item.dtype)

    def get(self, name: str) -> np.ndarray:
        """The array."""
        return np.asarray(self._file[name])


def read(path: Path, skip_bad: bool = False, limits: Limits | None = None, step: Dynamics | None = None) -> Read:
    """Episodes of an HDF5 file, and notes.

    Args:
        path: the file.
        skip_bad: leave bad episodes out and say so in notes, instead of raising an error.
        limits: what numbers are allowed; None: all that are finite.
        step: the dynamics of navigation data, which put their repeated rows right.

    Raises:
        DataError: naming the file, the field and the episode, if the file cannot be read or is not as this module says.
        ModuleNotFoundError: if h5py is not installed.
    """
    h5py = library("h5py")
    with reading(path, KIND):
        path.open("rb").close()  # the system says more plainly than HDF5 why a file cannot be opened
        with h5py.File(path, "r") as file:
            recording, notes = gather(File(file))
            navigation = "infos/goal" in file
        kept = judge(recording, limits, skip_bad)
        again = repeats(kept.episodes)
        if navigation and again.any():
            episodes = without(kept.episodes, again) if step is None else righted(kept.episodes, again, step)
            how = "left out" if step is None else "put right by the dynamics"
            slip = f"{again.sum()} of {len(again)} rows {SLIP}: {how}"
            kept = Kept(episodes, np.arange(episodes.count), (*kept.notes, slip))
        return finish(kept, notes)


def repeats(episodes: Episodes) -> Bool[np.ndarray, "rows"]:
    """The rows that repeat the observation before them, in the same episode or the one before."""
    o = episodes.observations
    return np.concatenate([[False], (o[1:] == o[:-1]).all(axis=1)])


def without(episodes: Episodes, again: Bool[np.ndarray, "rows"]) -> Episodes:
    """The rows that do not repeat another; an episode ends before each that does."""
    ends = ends_of(episodes) | np.append(again[1:], False)
    return episodes.rows(~again, np.diff(np.flatnonzero(ends[~again]), prepend=-1))


def righted(episodes: Episodes, again: Bool[np.ndarray, "rows"], step: Dynamics) -> Episodes:
    """All rows, those that repeat another replaced by where the action before led; no episode ends before these."""
    observations, index = episodes.observations.copy(), np.arange(len(again))
    depth = index - np.maximum.accumulate(np.where(again, 0, index))  # how many repeats in a row end here
    for level in range(1, depth.max() + 1):
        rows = np.flatnonzero(depth == level)
        observations[rows] = step(observations[rows - 1], episodes.actions[rows - 1])
    ends = ends_of(episodes) & ~np.append(again[1:], False)
    return episodes._replace(observations=observations, lengths=np.diff(np.flatnonzero(ends), prepend=-1))


def ends_of(episodes: Episodes) -> Bool[np.ndarray, "rows"]:
    """Whether a row is the last of its episode."""
    ends = np.zeros(len(episodes.actions), bool)
    ends[np.cumsum(episodes.lengths) - 1] = True
    return ends
