"""Episodes of behaviour: rows of any number of episodes of any lengths, laid end to end.

Row t of an episode is (o_t, a_t) and, where rewards were recorded, r_t. Action a_t led from o_t to o_t+1, the next row
of the same episode. Where the last action of an episode led is not recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike


class EpisodesError(ValueError):
    """Arrays that are no episodes. The message names the field, the value and what is allowed."""


class Episodes(NamedTuple):
    """Behaviour in the environment's units, as float32."""

    observations: Float[np.ndarray, "rows o"]
    actions: Float[np.ndarray, "rows a"]
    lengths: Int[np.ndarray, "episodes"]
    """Rows of each episode; they sum to the number of rows."""
    rewards: Float[np.ndarray, "rows"] | None = None

    @property
    def count(self) -> int:
        """The number of episodes."""
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of all rows."""
        rewards = 0 if self.rewards is None else self.rewards.nbytes
        return self.observations.nbytes + self.actions.nbytes + rewards

    @property
    def discrete(self) -> bool:
        """Whether every action is one-hot: one move of several."""
        binary = (self.actions == 0) | (self.actions == 1)
        return self.actions.shape[1] > 1 and bool(binary.all() and (self.actions.sum(axis=1) == 1).all())

    @property
    def begins(self) -> Int[np.ndarray, "episodes"]:
        """The first row of each episode."""
        return np.cumsum(self.lengths) - self.lengths

    def parts(self) -> Iterator["Episodes"]:
        """Every episode by itself."""
        for begin, length in zip(self.begins.tolist(), self.lengths.tolist(), strict=True):
            yield self.rows(slice(begin, begin + length), np.array([length]))

    def rows(self, which: slice | Bool[np.ndarray, "rows"], lengths: Int[np.ndarray, "episodes"]) -> "Episodes":
        """Some of the rows, as episodes of the lengths given."""
        rewards = None if self.rewards is None else self.rewards[which]
        return Episodes(self.observations[which], self.actions[which], lengths, rewards)

    def select(self, keep: Bool[np.ndarray, "episodes"]) -> "Episodes":
        """Some of the episodes."""
        return self.rows(np.repeat(keep, self.lengths), self.lengths[keep])

    def split(self, held_out: float) -> "tuple[Episodes, Episodes]":
        """(episodes to train on, held-out episodes): the last `held_out` of the episodes, at least one of each.

        A single episode is cut in two, so that no window lies in both parts.

        Raises:
            EpisodesError: if there is but one row.
        """
        if self.count == 1:
            total = len(self.actions)
            cut = min(total - 1, round((1 - held_out) * total))
            if cut < 1:
                raise EpisodesError(f"episodes: 1 of {total} rows: must be 2 or more, for some are held out")
            return self.rows(slice(0, cut), np.array([cut])), self.rows(slice(cut, None), np.array([total - cut]))
        aside = min(self.count - 1, max(1, round(held_out * self.count)))
        kept = np.arange(self.count) < self.count - aside
        return self.select(kept), self.select(~kept)

    def jumps(self, factor: float = 10.0) -> Iterator[tuple[int, int, float]]:
        """Steps within episodes that are far longer than others: (episode, row of the episode, how many times longer).

        The length of a step is its root mean square over observation entries, in standard deviations of the data, and
        is compared with the 99 % quantile over all steps. Such a step is often a reset that is not recorded.
        """
        std = self.observations.std(axis=0, dtype=np.float64)
        step = np.diff(self.observations, axis=0) / np.where(std > 0, std, 1.0)
        size = np.sqrt(np.mean(step**2, axis=1))
        begins = self.begins
        size[begins[1:] - 1] = 0.0
        usual = np.quantile(size, 0.99) if size.size else 0.0
        for row in np.flatnonzero((size > factor * usual) & (size > 0.5) & (usual > 0)) + 1:
            episode = int(np.searchsorted(begins, row, side="right")) - 1
            yield episode, int(row - begins[episode]), float(size[row - 1] / usual)


def jump_note(episodes: Episodes, names: Sequence[int] | Int[np.ndarray, "episodes"] | None = None) -> tuple[str, ...]:
    """A line on steps that are far longer than others, if there are any. names: the numbers of the episodes."""
    jumps, some = list(episodes.jumps()), []
    if not jumps:
        return ()
    for episode, row, times in jumps[:3]:
        some.append(f"episode {episode if names is None else names[episode]}, row {row}: {times:.0f} times")
    what = f"{len(jumps)} steps are far longer than 99 % of all steps ({'; '.join(some)})"
    return (f"{what}: is a reset missing from terminals or timeouts?",)


def joined(parts: Sequence[Episodes]) -> Episodes:
    """Episodes of several sources, in order; rewards are kept if all have them."""
    rewards = [part.rewards for part in parts if part.rewards is not None]
    return Episodes(
        np.concatenate([part.observations for part in parts]),
        np.concatenate([part.actions for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate(rewards) if len(rewards) == len(parts) else None,
    )


def from_stacked(
    observations: Float[np.ndarray, "n t o"],
    actions: Float[np.ndarray, "n t a"],
    rewards: Float[np.ndarray, "n t"] | None = None,
) -> Episodes:
    """Episodes of one length, as parallel simulation gives them."""
    n, t = actions.shape[:2]
    flat = lambda rows: np.asarray(rows, np.float32).reshape(n * t, *rows.shape[2:])
    return Episodes(flat(observations), flat(actions), np.full(n, t), None if rewards is None else flat(rewards))


def from_arrays(
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike | None = None,
    terminals: ArrayLike | None = None,
    timeouts: ArrayLike | None = None,
) -> Episodes:
    """Episodes from flat arrays, one episode after another.

    Args:
        observations: ``[rows, o]``, in the environment's units; ``[rows]`` is one entry a row.
        actions: ``[rows, a]``; ``[rows]`` is one entry a row.
        rewards: ``[rows]``, or None.
        terminals: ``[rows]``, true at the last row of an episode that ended by itself.
        timeouts: ``[rows]``, true at the last row of an episode that was cut off. Either ends an episode. The last row
            of all ends one too.

    Raises:
        EpisodesError: naming the field, if an array has the wrong shape, no rows, no numbers, or NaN or infinity.
    """
    observations, actions = np.asarray(observations), np.asarray(actions)
    check_matrix("observations", observations.shape, observations.dtype)
    check_matrix("actions", actions.shape, actions.dtype)
    rows = len(observations)
    vectors = {"rewards": rewards, "terminals": terminals, "timeouts": timeouts}
    recorded = {name: np.asarray(value) for name, value in vectors.items() if value is not None}
    check_vector("actions", actions.shape[:1], actions.dtype, rows)
    for name, value in recorded.items():
        check_vector(name, value.shape, value.dtype, rows)
    return Episodes(
        _finite("observations", observations.reshape(rows, -1)),
        _finite("actions", actions.reshape(rows, -1)),
        lengths_of(rows, {name: value for name, value in recorded.items() if name != "rewards"}),
        _finite("rewards", recorded["rewards"].reshape(rows)) if "rewards" in recorded else None,
    )


def lengths_of(rows: int, flags: Mapping[str, np.ndarray]) -> Int[np.ndarray, "episodes"]:
    """The lengths of the episodes that flags end, such as terminals or timeouts; the last row of all ends one too.

    Args:
        rows: the number of rows.
        flags: by the name of the field, ``[rows]`` or ``[rows, 1]``, 1 at the last row of an episode.

    Raises:
        EpisodesError: naming the field, if a flag is neither 0 nor 1.
    """
    ends = np.arange(rows) == rows - 1
    for name, values in flags.items():
        values = values.reshape(rows)
        bad = np.flatnonzero((values != 0) & (values != 1))
        if bad.size:
            raise EpisodesError(f"field {name!r} is {values[bad[0]]:g} at row {bad[0]}: must be 0 or 1")
        ends |= values == 1
    return np.diff(np.flatnonzero(ends), prepend=-1)


def check_matrix(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise EpisodesError unless an array has the shape ``[rows, entries]``, or ``[rows]``, and holds numbers."""
    if len(shape) not in (1, 2) or 0 in shape:
        raise EpisodesError(f"field {name!r} has shape {list(shape)}: must be [rows, entries], none of them 0")
    _check_numbers(name, dtype)


def check_vector(name: str, shape: tuple[int, ...], dtype: np.dtype, rows: int) -> None:
    """Raise EpisodesError unless an array has the shape ``[rows]``, or ``[rows, 1]``, and holds numbers."""
    if shape not in ((rows,), (rows, 1)):
        raise EpisodesError(f"field {name!r} has shape {list(shape)}: must be of {rows} rows, as 'observations' is")
    _check_numbers(name, dtype)


def _check_numbers(name: str, dtype: np.dtype) -> None:
    if dtype.kind not in "bfiu":
        raise EpisodesError(f"field {name!r} is of type {dtype}: must be numbers")


def float32(values: np.ndarray) -> Float[np.ndarray, "..."]:
    """The values as float32. Those that are too large become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def _finite(name: str, values: np.ndarray) -> Float[np.ndarray, "..."]:
    cast = float32(values)
    bad = np.argwhere(~np.isfinite(cast))
    if bad.size:
        raise EpisodesError(
            f"field {name!r} is {values[tuple(bad[0])]:g} at row {bad[0][0]}: must be finite as float32"
        )
    return cast
