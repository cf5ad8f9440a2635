"""Files as the libraries that own the formats write them, and what may be wrong with each."""

import io
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from diffplan.data import errors, files, hdf5, npz, readers
from diffplan.data.errors import DataError
from diffplan.data.fields import Bounds, Header
from diffplan.envs import experts
from diffplan.envs.maze2d import UMAZE
from diffplan.episodes import Episodes

Fields = dict[str, np.ndarray]


def refused(read: Callable[[], object], *words: str) -> None:
    """It ends in DataError, in one line that holds the words."""
    with pytest.raises(DataError) as caught:
        read()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def numbers(rows: int, observations: int = 4) -> Fields:
    """A walk, so that no step is far longer than the others."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(rows, observations)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
    }


def episodes(*lengths: int) -> Fields:
    """Episodes of these numbers of rows, end to end."""
    ends = np.zeros(sum(lengths), np.float32)
    ends[np.cumsum(lengths) - 1] = 1
    return numbers(sum(lengths)) | {"terminals": ends}


def changed(fields: Fields, name: str, place: tuple, value: float) -> Fields:
    """The fields with one number replaced."""
    copy = {name: array.copy() for name, array in fields.items()}
    copy[name][place] = value
    return copy


def to_npz(path: Path, fields: Fields) -> Path:
    np.savez(path, **fields)
    return path


def to_hdf5(path: Path, fields: Fields) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file.create_dataset(name, data=value, compression="gzip" if np.ndim(value) else None)
    return path


FLAT = {"maze.npz": to_npz, "maze.hdf5": to_hdf5}
NARROW = Bounds(np.full(4, -0.5), np.full(4, 0.5), np.full(2, -1.0), np.full(2, 1.0))
SHORT = Bounds(np.full(3, -9.0), np.full(3, 9.0), np.full(2, -1.0), np.full(2, 1.0))
WIDE = Bounds(np.full(4, -9.0), np.full(4, 9.0), np.full(2, -1.0), np.full(2, 1.0))


# -- flat rows, in either format --


@pytest.fixture(params=FLAT)
def flat(request, tmp_path) -> Callable[[Fields], Path]:
    """Writes a file of one format."""
    return lambda fields: FLAT[request.param](tmp_path / request.param, fields)


@pytest.mark.parametrize("kind", [str, Path])
def test_flags_of_either_kind_end_an_episode_and_rewards_are_kept(flat, kind):
    data = numbers(30) | {"rewards": np.arange(30.0), "terminals": np.zeros(30), "timeouts": np.zeros(30, bool)}
    data["terminals"][9], data["timeouts"][21] = 1, True
    result, notes = readers.read(kind(flat(data)))
    assert result.lengths.tolist() == [10, 12, 8] and notes == ()
    np.testing.assert_array_equal(result.observations, data["observations"])
    np.testing.assert_array_equal(result.actions, data["actions"])
    np.testing.assert_array_equal(result.rewards, np.arange(30))


def test_lengths_stand_for_flags_and_must_agree_with_them(flat):
    lengths = {"lengths": np.array([10, 20])}
    ended = lambda *rows: {"terminals": np.isin(np.arange(30), rows)}
    for flags in ({}, ended(9, 29), ended(9), ended()):  # an episode that is cut off has no terminal
        assert readers.read(flat(numbers(30) | lengths | flags))[0].lengths.tolist() == [10, 20]
    path = flat(numbers(30) | lengths | ended(9, 14))
    refused(lambda: readers.read(path), "'terminals'", "row 14", "within episode 1", "must agree")
    for wrong in ([10, 19], [10, 0, 20], [10.5, 19.5], [[10, 20]], [np.nan, 30]):
        path = flat(numbers(30) | {"lengths": np.array(wrong)})
        refused(lambda path=path: readers.read(path), "'lengths'", "must be")


def test_without_ends_all_rows_are_one_episode_and_a_note_says_so(flat):
    result, (note,) = readers.read(flat(numbers(30)))
    assert result.lengths.tolist() == [30] and "all 30 rows are one episode" in note and "'timeouts'" in note
    assert readers.read(flat(episodes(30)))[1] == ()


def test_one_short_episode_cuts_no_other(flat):
    """100 episodes of 100 rows, of which one has 30 and one a single row."""
    lengths = [100] * 7 + [30, 1] + [100] * 91
    result, (note,) = readers.read(flat(episodes(*lengths)))
    assert result.lengths.tolist() == [100] * 7 + [30] + [100] * 91
    assert "1 of 100 episodes have a single row and are left out, the first is episode 8" in note
    path = flat(episodes(1, 1, 1))
    refused(lambda: readers.read(path), "all 3 episodes have a single row")


def test_a_bad_episode_is_named_and_left_out_if_asked(flat):
    data = changed(episodes(20, 10, 20), "actions", (24, 1), np.nan)
    data["observations"][45] = np.inf
    path = flat(data)
    refused(lambda: readers.read(path), path.name, "episode 1", "'actions' is nan at row 4, entry 1", "2 of 3")
    result, (note,) = readers.read(path, skip_bad=True)
    assert "2 of 3 episodes are bad and left out: episode 1: field 'actions'" in note and "episode 2" in note
    np.testing.assert_array_equal(result.observations, data["observations"][:20])
    path = flat(changed(data, "actions", (0, 0), np.nan))
    refused(lambda: readers.read(path, skip_bad=True), "3 of 3 episodes are bad; all episodes are bad")


WRONG = {
    "NaN": (changed(numbers(50), "actions", (9, 1), np.nan), ["'actions'", "nan", "row 9"]),
    "infinity": (changed(numbers(50), "observations", (7, 0), -np.inf), ["'observations'", "-inf", "row 7"]),
    "too large for float32": (
        numbers(50) | {"observations": np.full((50, 4), 1e300)},
        ["'observations' is 1e+300 at row 0", "float32"],
    ),
    "an action out of bounds": (
        changed(numbers(50), "actions", (12, 1), 1.25),
        ["'actions'", "1.25", "row 12", "entry 1", "[-1, 1]"],
    ),
    "no actions": ({"observations": np.zeros((50, 4))}, ["'actions'", "missing", "['observations']"]),
    "no rows": (numbers(0), ["'observations'", "[0, 4]"]),
    "actions without entries": (numbers(50) | {"actions": np.zeros((50, 0))}, ["'actions'", "[50, 0]"]),
    "images": (numbers(50) | {"observations": np.zeros((50, 8, 8))}, ["'observations'", "[50, 8, 8]"]),
    "a single number": (numbers(50) | {"observations": np.zeros(())}, ["'observations'", "[]"]),
    "fewer actions": (numbers(50) | {"actions": np.zeros((40, 2))}, ["'actions'", "40", "50 rows"]),
    "words": (numbers(50) | {"actions": np.full((50, 2), b"left")}, ["'actions'", "must be numbers"]),
    "fewer rewards": (numbers(50) | {"rewards": np.zeros(49)}, ["'rewards'", "[49]", "50 rows"]),
    "no reward known": (numbers(50) | {"rewards": np.full(50, np.nan)}, ["'rewards'", "nan in every row"]),
    "a reward not known": (numbers(50) | {"rewards": np.where(np.arange(50) == 3, np.nan, 0)}, ["'rewards'", "row 3"]),
    "half a terminal": (changed(episodes(20, 30), "terminals", (3,), 0.5), ["'terminals'", "0.5 at row 3", "0 or 1"]),
    "a timeout not known": (numbers(50) | {"timeouts": np.full(50, np.nan)}, ["'timeouts'", "nan at row 0"]),
    "terminals of two columns": (numbers(50) | {"terminals": np.zeros((50, 2))}, ["'terminals'", "[50, 2]"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named_in_one_line(flat, wrong):
    data, words = WRONG[wrong]
    path = flat(data)
    refused(lambda: readers.read(path, limits=WIDE), path.name, *words)


def test_limits_are_those_that_are_given(flat):
    path = flat(changed(numbers(50), "actions", (12, 1), 1.25))
    assert readers.read(path)[0].actions[12, 1] == 1.25  # an unknown world
    refused(lambda: readers.read(path, limits=NARROW), path.name, "'observations'", "[-0.5, 0.5]")
    refused(lambda: readers.read(path, limits=SHORT), path.name, "'observations'", "4 entries", "must be 3")
    path = flat(changed(numbers(50), "actions", (12, 1), 1 + 1e-6))  # rounding
    readers.read(path, limits=WIDE)


def test_a_reset_that_is_missing_is_noted(flat):
    data = numbers(200)
    data["observations"][60:] += 500
    _, (first, second) = readers.read(flat(data))
    assert "one episode" in first and "1 steps are far longer" in second and "episode 0, row 60" in second


def test_files_that_cannot_be_opened_are_told_apart(flat, tmp_path, monkeypatch):
    path = flat(numbers(50))
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        refused(lambda: readers.read(path), path.name, "truncated, damaged or not")
    path.write_bytes(b"version https://example.org/spec\n" * 4)
    refused(lambda: readers.read(path), path.name, "truncated, damaged or not")
    path.unlink()
    refused(lambda: readers.read(path), f"{path}: no such file")
    refused(lambda: readers.read(path / "under"), "no such file")
    path.mkdir()
    refused(lambda: readers.read(path), path.name, "is a directory: must be an")

    def forbidden(*_: object, **__: object):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    refused(lambda: readers.read(path), path.name, "no permission")


def test_too_little_memory_is_said_in_bytes(flat, monkeypatch):
    path = flat(numbers(50))

    def get(self, name):
        raise MemoryError

    for kind in (npz.Archive, hdf5.File):
        monkeypatch.setattr(kind, "get", get)
    refused(lambda: readers.read(path), "out of memory: field 'observations' is [50, 4] of float32, 800 bytes")


def test_the_suffix_decides_and_others_are_refused(tmp_path, monkeypatch):
    data = numbers(50)
    for name in ("a.h5", "a.hdf", "a.HDF5"):
        assert readers.read(to_hdf5(tmp_path / name, data))[0].lengths.tolist() == [50]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert readers.read("~/a.h5")[0].lengths.tolist() == [50]
    (tmp_path / "a.csv").write_text("1,2")
    refused(lambda: readers.read(tmp_path / "a.csv"), "'.csv'", ".npz, .hdf5, .h5, .hdf")
    refused(lambda: readers.read(tmp_path / "b.csv"), "b.csv", "no such file", "Minari")


@pytest.mark.parametrize("name", ["h5py", "minari"])
def test_a_library_that_is_missing_names_its_extra(tmp_path, monkeypatch, name):
    def missing(module: str):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(errors, "import_module", missing)
    source = {"h5py": tmp_path / "a.h5", "minari": "maze/one-v0"}[name]
    with pytest.raises(ModuleNotFoundError, match=rf"^{name} is missing: pip install 'diffplan\[data\]'$"):
        readers.read(source)


# -- .npz --


@pytest.mark.parametrize("kind", [np.float32, bool])
def test_ogbench_episodes_hold_the_transitions_that_its_own_loader_gives(tmp_path, kind):
    ogbench = pytest.importorskip("ogbench")
    data = episodes(5, 2, 9)
    path = to_npz(tmp_path / "point.npz", data | {"terminals": data["terminals"].astype(kind)})
    parts = list(readers.read(path)[0].parts())
    theirs = ogbench.load_dataset(path)
    assert [len(part.actions) for part in parts] == [5, 2, 9]
    for ours, name in (
        ([part.observations[:-1] for part in parts], "observations"),
        ([part.actions[:-1] for part in parts], "actions"),
        ([part.observations[1:] for part in parts], "next_observations"),
    ):
        np.testing.assert_array_equal(np.concatenate(ours), theirs[name])


def test_keys_that_nobody_asked_for_are_never_unpacked(tmp_path, monkeypatch):
    opened = []
    data = episodes(20, 30)
    path = to_npz(tmp_path / "maze.npz", data | {"info": np.array({"seed": 0}, object), "qpos": np.full(3, np.nan)})
    get = npz.Archive.get
    monkeypatch.setattr(npz.Archive, "get", lambda self, name: (opened.append(name), get(self, name))[1])
    assert readers.read(path)[0].lengths.tolist() == [20, 30]
    assert sorted(opened) == ["actions", "observations", "terminals"]
    path = to_npz(path, data | {"actions": np.array([None, {}], object)})
    refused(lambda: readers.read(path), "'actions'", "object", "must be numbers")


def test_a_header_that_does_not_fit_its_data_is_refused_before_anything_is_read(tmp_path):
    path = to_npz(tmp_path / "maze.npz", {"actions": np.zeros((50, 2))})
    header = io.BytesIO()
    description = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 4)}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("observations.npy", header.getvalue() + bytes(1600))
    refused(lambda: readers.read(path), "'observations'", "32000000000000 bytes, found 1600")


def test_a_flipped_bit_in_the_numbers_is_found(tmp_path):
    path = to_npz(tmp_path / "maze.npz", numbers(50))
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    refused(lambda: readers.read(path), "truncated, damaged or not an .npz file", "CRC")


# -- D4RL --


@pytest.fixture(scope="module")
def published() -> dict[bool, Fields]:
    """One trajectory of our own copy of D4RL's behaviour, with and without its slip, in the fields of its files."""
    result = {}
    for slip in (True, False):
        rows = experts.collect(UMAZE, jax.random.key(0), trajectories=1, steps=3000, burn_in=0, repeat_rows=slip)
        result[slip] = {
            "observations": np.asarray(rows.observations[0]),
            "actions": np.asarray(rows.actions[0]),
            "rewards": np.asarray(rows.rewards[0]),
            "terminals": np.zeros(3000, bool),
            "timeouts": np.asarray(rows.done[0]),
            "infos/goal": np.asarray(rows.goals[0]),
        }
    return result


def residuals(episodes: Episodes) -> np.ndarray:
    """How far every recorded pair of rows is from a step of the simulator."""
    step = jax.jit(jax.vmap(UMAZE.residual))
    observations, actions = episodes.observations, episodes.actions
    error = np.asarray(step(observations[:-1], actions[:-1], observations[1:]))
    return np.delete(error, np.cumsum(episodes.lengths)[:-1] - 1)


def test_d4rl_every_pair_of_rows_in_an_episode_is_a_step_of_the_simulator(tmp_path, published):
    data = published[True]
    result, (note, *_) = hdf5.read(to_hdf5(tmp_path / "maze.hdf5", data), limits=UMAZE)
    switches = int(data["timeouts"][:-1].sum())  # each is followed by a row that repeats
    assert switches > 10 and f"{switches} of 3000 rows repeat" in note and "left out" in note
    assert len(result.actions) >= 3000 - 2 * switches
    assert residuals(result).max() < 1e-4
    whole = Episodes(data["observations"], data["actions"], np.array([3000]))
    assert (residuals(whole) > 1e-2).sum() >= switches  # and before they were not
    files.save(tmp_path / "rows.npz", result, {})
    np.testing.assert_array_equal(files.load(tmp_path / "rows.npz")[0].rewards, result.rewards)


def test_d4rl_repeated_rows_are_put_right_by_the_dynamics(tmp_path, published):
    step = jax.jit(jax.vmap(lambda o, a: UMAZE.step(jax.random.key(0), UMAZE.state_of(o), a)[1].observation))
    path = to_hdf5(tmp_path / "maze.hdf5", published[True])
    result, (note,) = hdf5.read(path, limits=UMAZE, step=lambda observed, actions: np.asarray(step(observed, actions)))
    assert result.lengths.tolist() == [3000] and "put right by the dynamics" in note  # nothing was reset
    assert residuals(result).max() < 1e-4


def test_d4rl_repeats_may_come_twice_soon_and_last(tmp_path):
    data = numbers(13) | {"infos/goal": np.zeros((13, 2))}
    for row in (4, 5, 8, 10, 12):
        data["observations"][row] = data["observations"][row - 1]
    result, _ = readers.read(to_hdf5(tmp_path / "maze.hdf5", data))
    kept = [data["actions"][first:end].tolist() for first, end in ((0, 4), (6, 8))]  # rows 9 and 11 hold no step
    assert [part.actions.tolist() for part in result.parts()] == kept
    del data["infos/goal"]  # of another world, in which one may stay in a place
    assert readers.read(to_hdf5(tmp_path / "maze.hdf5", data))[0].lengths.tolist() == [13]


def test_hdf5_files_are_checked(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = to_hdf5(tmp_path / "maze.hdf5", {"observations/a": np.zeros(3), "actions": np.zeros((3, 2))})
    refused(lambda: readers.read(path), "'observations' is a group: must be an array")
    to_hdf5(path, numbers(50))
    with h5py.File(path, "a") as file:  # it is open, and locked, as by a program that writes it
        file.flush()
        code = f"from diffplan.data.readers import read; read({str(path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "maze.hdf5: is locked by another process" in other.stderr


# -- Minari --


@pytest.fixture
def minari(tmp_path, monkeypatch):
    """The library, with its data sets in a folder of the test."""
    library = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return library


def recorded(lengths: tuple[int, ...]) -> list[dict]:
    """Episodes with these numbers of steps, as Minari keeps them: the first terminated, the rest truncated."""
    rng, made = np.random.default_rng(1), []
    for number, steps in enumerate(lengths):
        last = np.arange(steps) == steps - 1
        made.append(
            {
                "observations": rng.normal(size=(steps + 1, 3)),
                "actions": rng.uniform(-2, 2, (steps, 2)).astype(np.float32),
                "rewards": rng.normal(size=steps),
                "terminations": last & (number == 0),
                "truncations": last & (number > 0),
            }
        )
    return made


def write(minari, made: list[dict], name: str = "maze/test-v0", moves: object = None) -> None:
    """A data set by the library's own hand; observations are a goal environment's if they are dictionaries."""
    from gymnasium.spaces import Box, Dict
    from minari.data_collector import EpisodeBuffer

    box = lambda size: Box(-np.inf, np.inf, (size,), np.float64)
    goal = Dict({"observation": box(3), "achieved_goal": box(2), "desired_goal": box(2)})
    observed = goal if made and isinstance(made[0]["observations"], dict) else box(3)
    buffers = [EpisodeBuffer(id=number, **fields) for number, fields in enumerate(made)]
    actions = moves or Box(-2, 2, (2,), np.float32)
    with warnings.catch_warnings(action="ignore"):  # that it has no author
        minari.create_dataset_from_buffers(name, buffers, observation_space=observed, action_space=actions)


def with_goals(made: list[dict]) -> list[dict]:
    """The same in a goal environment."""
    goals = lambda observed: {
        "observation": observed,
        "achieved_goal": observed[:, :2],
        "desired_goal": observed[:, 1:],
    }
    return [fields | {"observations": goals(fields["observations"])} for fields in made]


@pytest.mark.parametrize("dictionaries", [False, True])
def test_minari_episodes_lose_their_last_observation_alone(minari, tmp_path, dictionaries):
    made = recorded((7, 2, 12))
    write(minari, with_goals(made) if dictionaries else made)
    for dataset in ("maze/test-v0", tmp_path / "minari" / "maze" / "test-v0"):
        result, notes = readers.read(dataset)
        assert result.lengths.tolist() == [7, 2, 12] and notes == ()
        for part, fields in zip(result.parts(), made, strict=True):
            np.testing.assert_array_equal(part.observations, fields["observations"][:-1].astype(np.float32))
            np.testing.assert_array_equal(part.actions, fields["actions"])
            np.testing.assert_array_equal(part.rewards, fields["rewards"].astype(np.float32))


def test_minari_moves_become_one_hot(minari):
    from gymnasium.spaces import Discrete

    made = recorded((5, 5))
    for number, fields in enumerate(made):
        fields["actions"] = np.array([1, 3, 2, 1, 3])[:: 1 - 2 * number]
    write(minari, made, moves=Discrete(3, start=1))
    result, (note,) = readers.read("maze/test-v0")
    np.testing.assert_array_equal(result.actions[:5], np.eye(3)[[0, 2, 1, 0, 2]])
    assert result.discrete and "one-hot" in note
    made[1]["actions"] = np.array([1, 4, 2, 1, 3])
    write(minari, made, "maze/other-v0", moves=Discrete(3, start=1))
    refused(lambda: readers.read("maze/other-v0"), "episode 1", "'actions' is 4 at row 1", "a move, 1 to 3")


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # the recorder's own folder
def test_minari_agrees_with_what_a_data_collector_saw(minari):
    """An environment is stepped by the library's own recorder; every pair of rows is a step that was seen."""
    import gymnasium

    env = minari.DataCollector(gymnasium.make("MountainCarContinuous-v0", max_episode_steps=20))
    env.action_space.seed(0)
    steps = set()
    for episode in range(3):
        observed, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = env.action_space.sample()
            after, _, terminated, truncated, _ = env.step(action)
            steps.add((observed.tobytes(), action.tobytes(), after.tobytes()))
            observed, ended = after, terminated or truncated
    with warnings.catch_warnings(action="ignore"):
        env.create_dataset("car/test-v0")
    env._tmp_dir.cleanup()
    result, _ = readers.read("car/test-v0")
    assert result.lengths.tolist() == [20, 20, 20]
    for part in result.parts():
        for t in range(19):
            row = (part.observations[t], part.actions[t], part.observations[t + 1])
            assert tuple(x.tobytes() for x in row) in steps


@pytest.mark.parametrize(
    ("episode", "fields", "words"),
    [
        (1, {"observations": np.zeros((5, 3))}, ["'observations'", "5 and 5 rows", "one observation more"]),
        (0, {"terminations": np.array([0, 1, 0, 0, 0], bool)}, ["'terminations'", "row 1 of 5"]),
        (2, {"truncations": np.array([1, 0, 0, 0, 1], bool)}, ["'truncations'", "row 0 of 5"]),
        (1, {"actions": np.full((5, 2), 2.5, np.float32)}, ["'actions'", "2.5", "[-2, 2]"]),
        (1, {"actions": np.full((5, 2), np.nan, np.float32)}, ["'actions'", "nan"]),
        (0, {"observations": np.where(np.arange(18).reshape(6, 3) == 13, np.nan, 0)}, ["'observations'", "row 4"]),
        (1, {"observations": np.zeros((6, 3, 1))}, ["'observations'", "[6, 3, 1]"]),
        (1, {"observations": np.zeros((6, 2))}, ["'observations'", "2 entries", "must be 3"]),
        (2, {"rewards": np.full(5, np.inf)}, ["'rewards'", "inf"]),
    ],
)
def test_a_bad_minari_episode_is_named_and_left_out_if_asked(minari, episode, fields, words):
    made = recorded((5, 5, 5))
    made[episode] |= fields
    write(minari, made)
    limits = Bounds(np.full(3, -np.inf), np.full(3, np.inf), np.full(2, -2.0), np.full(2, 2.0))
    refused(lambda: readers.read("maze/test-v0", limits=limits), f"maze/test-v0: episode {episode}: ", *words, "1 of 3")
    result, (note,) = readers.read("maze/test-v0", skip_bad=True, limits=limits)
    assert "1 of 3 episodes are bad and left out" in note and f"episode {episode}" in note
    others = [each["actions"] for number, each in enumerate(made) if number != episode]
    np.testing.assert_array_equal(result.actions, np.concatenate(others))


def test_minari_episodes_that_are_damaged_or_empty_are_named(minari, tmp_path):
    h5py = pytest.importorskip("h5py")
    write(minari, recorded((5, 5, 5)))
    with h5py.File(tmp_path / "minari" / "maze" / "test-v0" / "data" / "main_data.hdf5", "a") as file:
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            kept = file["episode_2"][name][: name == "observations"]
            del file["episode_2"][name]
            file["episode_2"][name] = kept
        del file["episode_1"]["rewards"]
    refused(lambda: readers.read("maze/test-v0"), "maze/test-v0: episode 1: damaged", "rewards")
    result, (note,) = readers.read("maze/test-v0", skip_bad=True)
    assert result.lengths.tolist() == [5] and "2 of 3" in note and "episode 2: field 'actions' has shape [0, 2]" in note


def test_minari_sets_are_checked(minari, tmp_path):
    folder = tmp_path / "minari" / "maze" / "test-v0"
    refused(lambda: readers.read("maze/test-v0"), "maze/test-v0", "not a Minari data set on this machine")
    write(minari, recorded((5, 6)))
    refused(lambda: readers.read("maze/test-v0", limits=SHORT), "episode 0", "'actions'", "[-1, 1]")
    refused(lambda: readers.read("maze/test-v0", limits=NARROW), "'observations'", "3 entries", "4")
    for file in ("main_data.hdf5", "metadata.json"):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        path = copy / "data" / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(lambda: readers.read(tmp_path / "copy"), "copy")
    write(minari, [], "maze/none-v0")
    refused(lambda: readers.read("maze/none-v0"), "maze/none-v0", "holds no episodes")


# -- sizes --


def test_bytes_of_a_header_do_not_overflow():
    assert Header((2**40, 2**40), np.dtype(np.float32)).nbytes == 2**82
