"""Behaviour that others publish, read from their files: D4RL's Maze2D, Minari, OGBench.

A reader returns runs. In a `Run` every two consecutive rows are one true step of the environment: the
action of row t, taken at the observation of row t, led to the observation of row t + 1. What each file holds instead:

    D4RL Maze2D    one long run, in which targets change and nothing is reset. Its generator has a slip: when a target
                   is reached the ball moves on, but the old observation is recorded again. A row that repeats the
                   observation before it is not where its action was taken, so it is left out, and a run ends there; or,
                   given the dynamics, it is put right, and the run goes on.
    Minari         episodes of T actions and T + 1 observations. The last observation has no action and is left out.
    OGBench        flat rows, episode after episode; `terminals` is 1 at the last row of each. All rows are kept.

`trajectories` cuts runs of any lengths into the equal trajectories that training takes. Bad input of any kind raises
DataError, one line that names the file, the field, the value, and what is allowed. Nothing here opens a connection.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from diffplan.data.windows import FIELDS, DataError, Rows, one_line, present, read_npz

ROUNDING = 1e-5
"""A value may pass a bound by this, times the bound if that is above 1: files hold float32."""


class Run(NamedTuple):
    """Unbroken behaviour in the environment's units: row t + 1 is what row t led to."""

    observations: Float[np.ndarray, "steps o"]
    actions: Float[np.ndarray, "steps a"]


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


def trajectories(runs: Sequence[Run], steps: int) -> tuple[Rows, int]:
    """Cut every run from its start into trajectories of `steps` rows; returns (trajectories, number of rows that were
    left over).

    Raises:
        DataError: if no run is that long.
    """
    longest = max((len(run.actions) for run in runs), default=0)
    if longest < steps:
        raise DataError(f"no run of {steps} steps among {len(runs)}: the longest has {longest}")

    def cut(parts: list[np.ndarray]) -> np.ndarray:
        whole = [part[: len(part) // steps * steps] for part in parts]
        return np.concatenate([part.reshape(-1, steps, part.shape[-1]) for part in whole])

    rows = Rows(cut([run.observations for run in runs]), cut([run.actions for run in runs]))
    return rows, sum(len(run.actions) for run in runs) - rows.actions.shape[0] * steps


Dynamics = Callable[[Float[np.ndarray, "n o"], Float[np.ndarray, "n a"]], Float[np.ndarray, "n o"]]
"""Where actions lead from observations."""


def from_d4rl(path: Path, limits: Limits | None = None, step: Dynamics | None = None) -> list[Run]:
    """Runs from a D4RL Maze2D file (HDF5); needs the `data` extra (h5py). step: puts repeated rows right.

    `observations` and `actions` must be there; `rewards`, `terminals`, `timeouts` and `infos/goal` are checked if they
    are. Without `limits`, actions must be in [-1, 1] and observations may be anything finite.

    Raises:
        DataError: if the file is missing, truncated or empty; if a field is missing, of the wrong shape, not as long as
            the others, outside its limits, or holds NaN or infinity.
    """
    import h5py

    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            present(path, FIELDS, file)
            names = [*FIELDS, *(name for name in ("rewards", "terminals", "timeouts", "infos/goal") if name in file)]
            fields = {name: np.asarray(file[name]) for name in names}
    except DataError:
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError or KeyError, depending on where the file ends
        raise DataError(f"{path}: truncated or not an HDF5 file ({one_line(error)})") from error
    whole = _checked(str(path), fields, limits)
    again = np.concatenate([[False], (whole.observations[1:] == whole.observations[:-1]).all(axis=1)])
    if step is None:
        return _split(whole, again)
    observations, index = whole.observations.copy(), np.arange(len(again))
    depth = index - np.maximum.accumulate(np.where(again, 0, index))  # how many repeats in a row end here
    for level in range(1, depth.max() + 1):
        rows = np.flatnonzero(depth == level)
        observations[rows] = step(observations[rows - 1], whole.actions[rows - 1])
    return [Run(observations, whole.actions)]


def from_ogbench(path: Path, limits: Limits | None = None) -> list[Run]:
    """Runs, one an episode, from an OGBench file (.npz), whose action in the last row leads to nothing recorded.

    `observations`, `actions` and `terminals` must be there; `qpos` and `qvel` are checked if they are. Without
    `limits`, actions must be in [-1, 1] and observations may be anything finite.

    Raises:
        DataError: if the file is missing, truncated or empty; if a field is missing, of the wrong shape, not as long as
            the others, outside its limits, or holds NaN or infinity; if the last row does not end an episode, or an
            episode has one row and so no step.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    arrays = read_npz(path, path.read_bytes())
    present(path, (*FIELDS, "terminals"), arrays)
    fields = {name: arrays[name] for name in (*FIELDS, "terminals", "qpos", "qvel") if name in arrays}
    whole = _checked(str(path), fields, limits)
    ends = fields["terminals"]
    wrong = np.flatnonzero((ends != 0) & (ends != 1))
    if ends.ndim != 1 or wrong.size:
        value = list(ends.shape) if ends.ndim != 1 else f"{ends[wrong[0]]} at row {wrong[0]}"
        raise DataError(f"{path}: field 'terminals' is {value}: must be 0 or 1 for each row")
    if not ends[-1]:
        raise DataError(f"{path}: field 'terminals' is 0 at the last row, {len(ends) - 1}: must be 1, an episode's end")
    cuts = np.flatnonzero(ends) + 1
    short = np.flatnonzero(np.diff(cuts, prepend=0) < 2)
    if short.size:
        raise DataError(f"{path}: field 'terminals' ends episode {short[0]} after 1 row: must be 2 or more, for a step")
    return [Run(*fields) for fields in zip(*(np.split(field, cuts[:-1]) for field in whole), strict=True)]


def from_minari(dataset: str | Path, limits: Limits | None = None) -> list[Run]:
    """Runs, one an episode, from a local Minari data set: its id, or as a Path its folder; needs the `data` extra.

    Of a goal environment's observations, dictionaries, the entry `observation` is taken. Without `limits`, actions must
    be in the data set's own action space and observations may be anything finite. Nothing is downloaded.

    Raises:
        DataError: if there is no such data set here, or it is damaged or empty; if an episode is empty, has not one
            observation more than actions, ends before its last row, or holds a wrong shape, NaN, infinity, or a value
            outside its limits.
    """
    import gymnasium
    import minari

    try:
        file = minari.MinariDataset(dataset / "data") if isinstance(dataset, Path) else minari.load_dataset(dataset)
        episodes = list(file.iterate_episodes())
    except Exception as error:  # ValueError, OSError, KeyError, AssertionError: one for each damage
        raise DataError(f"{dataset}: not a Minari data set on this machine ({one_line(error)})") from error
    if not episodes:
        raise DataError(f"{dataset}: holds no episodes")
    actions = file.action_space if isinstance(file.action_space, gymnasium.spaces.Box) else None
    return [_episode(f"{dataset}, episode {episode.id}", episode, limits, actions) for episode in episodes]


def _episode(where: str, episode: Any, limits: Limits | None, space: Any) -> Run:
    """One of Minari's episodes, without its last observation; `space` is that of its actions, if that is a box."""
    observations, actions = episode.observations, episode.actions
    if isinstance(observations, Mapping):
        present(where, ("observation",), observations)
        observations = observations["observation"]
    for name, value in (("observations", observations), ("actions", actions)):
        if not isinstance(value, np.ndarray):
            raise DataError(f"{where}: field {name!r} is a {type(value).__name__}: must be an array")
    if len(actions) == 0:
        raise DataError(f"{where}: field 'actions' is empty: must hold a step")
    if len(observations) != len(actions) + 1:
        rows = f"{len(observations)} and {len(actions)} rows: must be one observation more"
        raise DataError(f"{where}: fields 'observations' and 'actions' have {rows}")
    for name in ("terminations", "truncations"):
        early = np.flatnonzero(getattr(episode, name)[:-1])
        if early.size:
            at = f"row {early[0]} of {len(actions)}"
            raise DataError(f"{where}: field {name!r} is 1 at {at}: must be 0 but in the last")
    _finite(where, "observations", observations[-1:])
    fields = {"observations": observations[:-1], "actions": actions, "rewards": episode.rewards}
    if limits is None and space is not None:
        anything = np.full(observations.shape[1:], np.inf)
        limits = Bounds(-anything, anything, space.low, space.high)
    return _checked(where, fields, limits)


def _split(whole: Run, dropped: np.ndarray) -> list[Run]:
    """The stretches between the rows that are dropped, those of a single row left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], dropped, [True]]).astype(np.int8)))
    return [Run(*(field[first:end] for field in whole)) for first, end in edges.reshape(-1, 2) if end - first > 1]


def _finite(where: str, name: str, value: np.ndarray) -> None:
    """Numbers, and none of them NaN or infinite."""
    if value.dtype.kind not in "bfiu":
        raise DataError(f"{where}: field {name!r} is of type {value.dtype}: must be numbers")
    bad = np.argwhere(~np.isfinite(value))
    if bad.size:
        raise DataError(f"{where}: field {name!r} holds NaN or infinity, first at row {bad[0][0]}")


def _checked(where: str, fields: Mapping[str, np.ndarray], limits: Limits | None) -> Run:
    """Observations and actions as float32, if all fields are sound, equally long, and within their limits."""
    for name in FIELDS:
        if fields[name].ndim != 2 or 0 in fields[name].shape:
            raise DataError(f"{where}: field {name!r} has shape {list(fields[name].shape)}: must be [rows, entries]")
    rows = len(fields["observations"])
    for name, value in fields.items():
        if value.shape[:1] != (rows,):
            raise DataError(f"{where}: fields 'observations' and {name!r} differ in rows: {rows}, {list(value.shape)}")
        _finite(where, name, value)
    run = Run(*(fields[name].astype(np.float32) for name in FIELDS))
    if limits is None:
        anything, one = (np.full(field.shape[1], value) for field, value in zip(run, (np.inf, 1.0), strict=True))
        limits = Bounds(-anything, anything, -one, one)
    _within(where, "observations", run.observations, limits.observation_low, limits.observation_high)
    _within(where, "actions", run.actions, limits.action_low, limits.action_high)
    return run


def _within(where: str, name: str, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    if value.shape[1:] != low.shape:
        raise DataError(f"{where}: field {name!r} has {value.shape[1]} entries a row: must be {low.size}")
    slack = lambda bound: ROUNDING * np.maximum(1, np.abs(bound))
    bad = np.argwhere((value < low - slack(low)) | (value > high + slack(high)))
    if bad.size:
        row, entry = bad[0]
        allowed = f"must be in [{low[entry]:g}, {high[entry]:g}]"
        raise DataError(f"{where}: field {name!r} is {value[row, entry]:g} at row {row}, entry {entry}: {allowed}")
