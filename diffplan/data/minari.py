"""Episodes of Minari's local data sets; needs the `data` extra (minari). Nothing is downloaded.

An episode has T actions and T + 1 observations. The last observation has no action and is left out. Of a goal
environment's observations, which are dictionaries, the entry `observation` is taken. Actions that are numbers of moves
become one-hot.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffplan.data.errors import library, one_line, reading
from diffplan.data.fields import Limits, Read, Recording, finish, judge
from diffplan.episodes import EpisodesError, check_matrix, check_vector

KIND = "a Minari data set on this machine"


class Part(NamedTuple):
    """One episode, as the data set holds it."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


def read(source: str | Path, skip_bad: bool = False, limits: Limits | None = None) -> Read:
    """Episodes of a Minari data set, and notes.

    Args:
        source: the id of a data set, or as a Path its folder.
        skip_bad: leave bad episodes out and say so in notes, instead of raising an error.
        limits: what numbers are allowed; None: all that are finite.

    Raises:
        DataError: naming the data set, the episode and the field, if there is no such data set here, it is damaged or
            empty, or an episode is not as this module says.
        ModuleNotFoundError: if minari is not installed.
    """
    minari = library("minari")
    with reading(source, KIND):
        try:
            dataset = minari.MinariDataset(source / "data") if isinstance(source, Path) else minari.load_dataset(source)
        except FileNotFoundError as error:
            raise EpisodesError(f"not {KIND} ({one_line(error)})") from error
        names, parts, faults = [], [], []
        for number in range(dataset.total_episodes):
            try:
                parts.append(part(dataset, number, parts[0] if parts else None))
                names.append(number)
            except EpisodesError as error:
                faults.append(f"episode {number}: {error}")
        if not parts:
            raise EpisodesError(faults[0] if faults else "holds no episodes")
        lengths = np.array([len(each.actions) for each in parts])
        observations, actions, rewards = (np.concatenate(field) for field in zip(*parts, strict=True))
        recording = Recording(observations, actions, rewards, lengths, np.array(names))
        kept = judge(recording, limits, skip_bad, faults)
        moves = ("actions are numbers of moves: they become one-hot",) if moves_of(dataset) else ()
        return finish(kept, moves)


def part(dataset: Any, number: int, first: Part | None) -> Part:
    """One episode without its last observation, as wide as the first.

    Raises:
        EpisodesError: naming the field, if the episode is not as it must be.
    """
    try:
        episode = dataset[number]
    except MemoryError:
        raise
    except Exception as error:  # KeyError, OSError, AssertionError: one for each damage
        raise EpisodesError(f"damaged ({one_line(error)})") from error
    observations, actions = episode.observations, episode.actions
    if isinstance(observations, Mapping):
        if "observation" not in observations:
            raise EpisodesError(f"field 'observation' of 'observations' is missing: there are {sorted(observations)}")
        observations = observations["observation"]
    for name, value in (("observations", observations), ("actions", actions)):
        if not isinstance(value, np.ndarray):
            raise EpisodesError(f"field {name!r} is a {type(value).__name__}: must be an array")
        check_matrix(name, value.shape, value.dtype)
    steps = len(actions)
    if len(observations) != steps + 1:
        rows = f"{len(observations)} and {steps} rows: must be one observation more"
        raise EpisodesError(f"fields 'observations' and 'actions' have {rows}")
    check_vector("rewards", episode.rewards.shape, episode.rewards.dtype, steps)
    for name in ("terminations", "truncations"):
        early = np.flatnonzero(getattr(episode, name)[:-1])
        if early.size:
            raise EpisodesError(f"field {name!r} is 1 at row {early[0]} of {steps}: must be 0 but in the last")
    moves = moves_of(dataset)
    actions = one_hot(actions, *moves) if moves else actions.reshape(steps, -1)
    result = Part(observations[:-1].reshape(steps, -1), actions, episode.rewards.reshape(steps))
    for name in ("observations", "actions"):
        width, allowed = (getattr(each, name).shape[1] for each in (result, first or result))
        if width != allowed:
            raise EpisodesError(f"field {name!r} has {width} entries a row: must be {allowed}, as in the first episode")
    return result


def moves_of(dataset: Any) -> tuple[int, int] | None:
    """(number of moves, number of the first) where actions are moves, else None."""
    space = dataset.action_space
    return (int(space.n), int(space.start)) if type(space).__name__ == "Discrete" else None


def one_hot(actions: np.ndarray, count: int, first: int) -> np.ndarray:
    """Moves ``[steps]`` as ``[steps, count]``. Raises EpisodesError if there is no such move."""
    move = actions.reshape(len(actions)) - first
    bad = np.flatnonzero(~np.isin(move, np.arange(count)))
    if bad.size:
        allowed = f"a move, {first} to {first + count - 1}"
        raise EpisodesError(f"field 'actions' is {actions[bad[0]]} at row {bad[0]}: must be {allowed}")
    return np.eye(count, dtype=np.float32)[move.astype(int)]
