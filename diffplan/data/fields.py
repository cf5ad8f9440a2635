"""From the fields of a file to episodes, whatever the format.

    gather      field names, shapes and types are checked; only then are the fields read        -> Recording
    judge       every number is checked; an episode with a bad number is named, or left out     -> Kept
    finish      episodes of a single row hold no step and are left out; jumps are noted         -> (Episodes, notes)

Errors are EpisodesError and name the field, the episode and the row; `errors.reading` puts the file's name before
them. The rows of an error count from the first row of its episode.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from diffplan.episodes import Episodes, EpisodesError, check_matrix, check_vector, float32, jump_note, lengths_of

REQUIRED = ("observations", "actions")
FLAGS = ("terminals", "timeouts")
FIELDS = (*REQUIRED, "rewards", *FLAGS, "lengths")
"""The fields that are read. A file may hold others, which nobody looks at."""

ROUNDING = 1e-5
"""A value may pass a bound by this, times the bound if that is above 1: files hold float32."""

NAMED = 3
"""Notes name so many episodes, and count the others."""

Read = tuple[Episodes, tuple[str, ...]]
"""Episodes, and notes: what was left out, put right, or looks odd, a line each."""


@runtime_checkable
class Limits(Protocol):
    """What numbers a file may hold; any environment is one. Entries may be infinite."""

    @property
    def observation_low(self) -> Float[np.ndarray, "o"]: ...
    @property
    def observation_high(self) -> Float[np.ndarray, "o"]: ...
    @property
    def action_low(self) -> Float[np.ndarray, "a"]: ...
    @property
    def action_high(self) -> Float[np.ndarray, "a"]: ...


class Bounds(NamedTuple):
    """Limits of one's own."""

    observation_low: Float[np.ndarray, "o"]
    observation_high: Float[np.ndarray, "o"]
    action_low: Float[np.ndarray, "a"]
    action_high: Float[np.ndarray, "a"]


class Header(NamedTuple):
    """What an array is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the array needs."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@runtime_checkable
class Source(Protocol):
    """Named arrays of an open file, read one by one."""

    def names(self) -> list[str]:
        """The names of all arrays."""
        ...

    def header(self, name: str) -> Header:
        """What an array is."""
        ...

    def get(self, name: str) -> np.ndarray:
        """The array."""
        ...


class Recording(NamedTuple):
    """Rows as a file holds them: numbers of any type, which nobody has checked, one episode after another."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray | None
    lengths: Int[np.ndarray, "episodes"]
    names: Int[np.ndarray, "episodes"]
    """The number of each episode in the file."""


class Kept(NamedTuple):
    """Episodes whose numbers are all allowed, the number of each in the file, and notes."""

    episodes: Episodes
    names: Int[np.ndarray, "episodes"]
    notes: tuple[str, ...]


def gather(source: Source) -> tuple[Recording, tuple[str, ...]]:
    """The rows of a file, and notes.

    Raises:
        EpisodesError: naming the field, if a field is missing, of the wrong shape or type, or too large for the memory;
            if a flag is neither 0 nor 1; if lengths do not fit.
    """
    names = source.names()
    for name in REQUIRED:
        if name not in names:
            raise EpisodesError(f"field {name!r} is missing: the file has {sorted(names)}")
    headers = {name: source.header(name) for name in FIELDS if name in names}
    for name in REQUIRED:
        check_matrix(name, *headers[name])
    rows = headers["observations"].shape[0]
    check_vector("actions", headers["actions"].shape[:1], headers["actions"].dtype, rows)
    for name in headers.keys() & {"rewards", *FLAGS}:
        check_vector(name, *headers[name], rows)
    arrays = {name: fetch(source, name, header) for name, header in headers.items()}
    lengths, notes = lengths_in(rows, arrays)
    rewards = arrays["rewards"].reshape(rows) if "rewards" in arrays else None
    observations, actions = (arrays[name].reshape(rows, -1) for name in REQUIRED)
    return Recording(observations, actions, rewards, lengths, np.arange(len(lengths))), notes


def fetch(source: Source, name: str, header: Header) -> np.ndarray:
    """One array. Raises EpisodesError that says how many bytes it needs, if the memory is too small."""
    try:
        return source.get(name)
    except MemoryError as error:
        needs = f"{list(header.shape)} of {header.dtype}, {header.nbytes:,} bytes"
        raise EpisodesError(f"out of memory: field {name!r} is {needs}") from error


def lengths_in(rows: int, arrays: dict[str, np.ndarray]) -> tuple[Int[np.ndarray, "episodes"], tuple[str, ...]]:
    """The lengths of the episodes, from `lengths` or else from flags, and notes.

    Raises:
        EpisodesError: if lengths are no whole numbers above 0 or their sum is not the number of rows, or if a flag is 1
            within an episode of `lengths`.
    """
    flags = {name: arrays[name] for name in FLAGS if name in arrays}
    flagged = lengths_of(rows, flags)
    if "lengths" not in arrays:
        one = f"no row ends an episode: all {rows} rows are one episode; is a field 'terminals' or 'timeouts' missing?"
        return flagged, (one,) if len(flagged) == 1 and not any(values.any() for values in flags.values()) else ()
    given = arrays["lengths"]
    if given.ndim != 1 or given.dtype.kind not in "fiu" or not (np.floor(given) == given).all() or (given < 1).any():
        raise EpisodesError(f"field 'lengths', {given.dtype} {list(given.shape)}: must be whole numbers above 0")
    if given.sum() != rows:
        raise EpisodesError(f"field 'lengths' has the sum {given.sum():g}: must be the number of rows, {rows}")
    lengths = given.astype(np.int64)
    within = np.setdiff1d(np.cumsum(flagged), np.cumsum(lengths))
    if within.size:
        episode = int(np.searchsorted(np.cumsum(lengths), within[0]))
        at = f"row {within[0] - 1}, within episode {episode} of 'lengths'"
        raise EpisodesError(f"fields {' and '.join(map(repr, flags))} end an episode at {at}: must agree")
    return lengths, ()


def judge(
    recording: Recording, limits: Limits | None = None, skip_bad: bool = False, faults: Sequence[str] = ()
) -> Kept:
    """The episodes whose numbers are all finite as float32 and within the limits.

    Args:
        recording: the rows of a file.
        limits: what numbers are allowed; None: all that are finite.
        skip_bad: leave bad episodes out and say so in notes, instead of raising an error.
        faults: what is wrong with further episodes, which are not in the recording.

    Raises:
        EpisodesError: naming the first bad episode, unless bad episodes are left out; if none is left; if observations
            or actions have not as many entries as the limits.
    """
    observations, actions, rewards, lengths, names = recording
    if rewards is not None and rewards.dtype.kind == "f" and np.isnan(rewards).all():
        raise EpisodesError("field 'rewards' is nan in every row: must be finite; or leave the field out of the file")
    episodes = Episodes(float32(observations), float32(actions), lengths, None if rewards is None else float32(rewards))
    found = complaints(recording, episodes, limits)
    if not found and not faults:
        return Kept(episodes, names, ())
    texts = [*faults, *(f"episode {names[number]}: {found[number]}" for number in sorted(found))]
    total, some = episodes.count + len(faults), "; ".join(texts[:NAMED])
    if not skip_bad or len(texts) == total:
        ways = "all episodes are bad" if len(texts) == total else "skip_bad leaves bad episodes out"
        raise EpisodesError(f"{texts[0]} ({len(texts)} of {total} episodes are bad; {ways})")
    sound = ~np.isin(np.arange(episodes.count), list(found))
    more = "" if len(texts) <= NAMED else f"; and {len(texts) - NAMED} more"
    return Kept(
        episodes.select(sound), names[sound], (f"{len(texts)} of {total} episodes are bad and left out: {some}{more}",)
    )


def complaints(recording: Recording, episodes: Episodes, limits: Limits | None) -> dict[int, str]:
    """What is wrong with each bad episode: its first bad number, in the first bad field."""
    found: dict[int, str] = {}
    begins = episodes.begins
    for name in ("observations", "actions", "rewards"):
        values, cast = getattr(recording, name), getattr(episodes, name)
        if values is None:
            continue
        values, cast = values.reshape(len(values), -1), cast.reshape(len(values), -1)
        low, high = bounds_of(name, cast.shape[1], limits)
        bad = ~np.isfinite(cast) | (cast < low - slack(low)) | (cast > high + slack(high))
        rows = np.flatnonzero(bad.any(axis=1))
        which, first = np.unique(np.searchsorted(begins, rows, side="right") - 1, return_index=True)
        for number, row in zip(which.tolist(), rows[first].tolist(), strict=True):
            entry = int(np.argmax(bad[row]))
            finite = np.isfinite(cast[row, entry])
            allowed = f"in [{low[0, entry]:g}, {high[0, entry]:g}]" if finite else "finite as float32"
            place = f"row {row - begins[number]}, entry {entry}"
            found.setdefault(number, f"field {name!r} is {values[row, entry]:g} at {place}: must be {allowed}")
    return found


def bounds_of(name: str, width: int, limits: Limits | None) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest of each entry of a field, ``[1, width]``.

    Raises:
        EpisodesError: if the limits have another number of entries.
    """
    if limits is None or name == "rewards":
        return np.full((1, width), -np.inf), np.full((1, width), np.inf)
    of_actions = limits.action_low, limits.action_high
    low, high = (limits.observation_low, limits.observation_high) if name == "observations" else of_actions
    if low.shape != (width,):
        raise EpisodesError(f"field {name!r} has {width} entries a row: must be {low.size}")
    return low[None], high[None]


def slack(bound: Float[np.ndarray, "1 d"]) -> Float[np.ndarray, "1 d"]:
    """How far a value may pass a bound."""
    return ROUNDING * np.maximum(1, np.abs(bound))


def finish(kept: Kept, notes: tuple[str, ...] = ()) -> Read:
    """The episodes that hold a step, with notes on those that do not and on steps that are too long.

    Args:
        kept: the episodes, and what there is to say of them.
        notes: what there is to say of the file.

    Raises:
        EpisodesError: if no episode holds a step.
    """
    episodes, names, notes = *kept[:2], notes + kept.notes
    single = episodes.lengths < 2
    if single.all():
        raise EpisodesError(f"all {episodes.count} episodes have a single row: must be 2 or more, for a step")
    if single.any():
        one = f"{single.sum()} of {episodes.count} episodes have a single row and are left out"
        notes = (*notes, f"{one}, the first is episode {names[single][0]}")
        episodes, names = episodes.select(~single), names[~single]
    return episodes, (*notes, *jump_note(episodes, names))
