"""Files as the libraries that own the formats write them, and what may be wrong with each."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from diffplan.data import readers, windows
from diffplan.data.readers import Bounds, Run
from diffplan.data.windows import DataError
from envs import experts
from envs.maze2d import UMAZE

Fields = dict[str, np.ndarray]


def refused(read: Callable[[], object], *words: str) -> None:
    """It ends in DataError, in one line that holds the words."""
    with pytest.raises(DataError) as caught:
        read()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def numbers(rows: int, observations: int = 4) -> Fields:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(rows, observations)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
    }


def changed(fields: Fields, name: str, place: tuple, value: float) -> Fields:
    """The fields with one number replaced."""
    copy = {name: array.copy() for name, array in fields.items()}
    copy[name][place] = value
    return copy


# What may be wrong with the rows of any format: the fields that take their place, and what the error must say.
WRONG = {
    "NaN": (changed(numbers(50), "actions", (9, 1), np.nan), ["'actions'", "NaN", "row 9"]),
    "infinity": (changed(numbers(50), "observations", (7, 0), -np.inf), ["'observations'", "infinity", "row 7"]),
    "an action out of bounds": (
        changed(numbers(50), "actions", (12, 1), 1.25),
        ["'actions'", "1.25", "row 12", "entry 1", "[-1, 1]"],
    ),
    "flat actions": (numbers(50) | {"actions": np.zeros(50)}, ["'actions'", "[50]"]),
    "actions without entries": (numbers(50) | {"actions": np.zeros((50, 0))}, ["'actions'", "[50, 0]"]),
    "fewer actions": (numbers(50) | {"actions": np.zeros((40, 2))}, ["'observations'", "'actions'", "40"]),
    "words": (numbers(50) | {"actions": np.full((50, 2), b"left")}, ["'actions'", "numbers"]),
}
NARROW = Bounds(np.full(4, -0.5), np.full(4, 0.5), np.full(2, -1.0), np.full(2, 1.0))
SHORT = Bounds(np.full(3, -9.0), np.full(3, 9.0), np.full(2, -1.0), np.full(2, 1.0))


def test_trajectories_are_cut_from_every_run_that_is_long_enough():
    fields = numbers(23)
    whole = Run(fields["observations"], fields["actions"])
    parts = [Run(*(field[first:end] for field in whole)) for first, end in ((0, 11), (11, 14), (14, 23))]
    rows, left_over = readers.trajectories(parts, 4)
    firsts = (0, 4, 14, 18)  # 11 = 4 + 4 + 3, 3 is too short, 9 = 4 + 4 + 1
    for trajectory, first in enumerate(firsts):
        np.testing.assert_array_equal(rows.observations[trajectory], whole.observations[first : first + 4])
        np.testing.assert_array_equal(rows.actions[trajectory], whole.actions[first : first + 4])
    assert rows.actions.shape == (4, 4, 2) and left_over == 3 + 3 + 1
    refused(lambda: readers.trajectories(parts, 12), "no run of 12 steps among 3", "longest has 11")
    refused(lambda: readers.trajectories([], 1), "among 0")


# -- D4RL --


def hdf5(path: Path, fields: Fields) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file.create_dataset(name, data=value, compression="gzip")
    return path


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


def residuals(run: Run) -> np.ndarray:
    """How far every recorded pair of rows is from a step of the simulator."""
    step = jax.jit(jax.vmap(UMAZE.residual))
    return np.asarray(step(run.observations[:-1], run.actions[:-1], run.observations[1:]))


def test_d4rl_every_pair_of_rows_in_a_run_is_a_step_of_the_simulator(tmp_path, published):
    fields = published[True]
    runs = readers.from_d4rl(hdf5(tmp_path / "maze.hdf5", fields), UMAZE)
    switches = int(fields["timeouts"][:-1].sum())  # each is followed by a row that repeats
    assert switches > 10
    assert sum(len(run.actions) for run in runs) >= 3000 - 2 * switches
    assert max(residuals(run).max() for run in runs) < 1e-4
    whole = Run(fields["observations"], fields["actions"])
    assert (residuals(whole) > 1e-2).sum() >= switches  # and before they were not
    rows, _ = readers.trajectories(runs, 50)
    windows.save(tmp_path / "rows.npz", rows, {})
    np.testing.assert_array_equal(windows.load(tmp_path / "rows.npz")[0].actions, rows.actions)


def test_d4rl_repeated_rows_are_put_right_by_the_dynamics(tmp_path, published):
    step = jax.jit(jax.vmap(lambda o, a: UMAZE.step(jax.random.key(0), UMAZE.state_of(o), a)[1].observation))
    path = hdf5(tmp_path / "maze.hdf5", published[True])
    (run,) = readers.from_d4rl(path, UMAZE, lambda observed, actions: np.asarray(step(observed, actions)))
    assert len(run.actions) == 3000
    assert residuals(run).max() < 1e-4


def test_d4rl_without_the_slip_is_one_run(tmp_path, published):
    fields = published[False]
    (run,) = readers.from_d4rl(hdf5(tmp_path / "maze.hdf5", fields), UMAZE)
    np.testing.assert_array_equal(run.observations, fields["observations"])
    np.testing.assert_array_equal(run.actions, fields["actions"])


def test_d4rl_repeats_may_come_twice_soon_and_last(tmp_path):
    fields = numbers(13)
    for row in (4, 5, 8, 10, 12):
        fields["observations"][row] = fields["observations"][row - 1]
    runs = readers.from_d4rl(hdf5(tmp_path / "maze.hdf5", fields))
    kept = [fields["actions"][first:end].tolist() for first, end in ((0, 4), (6, 8))]  # rows 9 and 11 hold no step
    assert [run.actions.tolist() for run in runs] == kept


@pytest.mark.parametrize("wrong", WRONG)
def test_d4rl_rows_are_checked(tmp_path, wrong):
    fields, words = WRONG[wrong]
    path = hdf5(tmp_path / "maze.hdf5", fields)
    refused(lambda: readers.from_d4rl(path), "maze.hdf5", *words)


def test_d4rl_files_are_checked(tmp_path):
    path = tmp_path / "maze.hdf5"
    refused(lambda: readers.from_d4rl(path), "maze.hdf5", "no such file")
    hdf5(path, {"observations": np.zeros((50, 4))})
    refused(lambda: readers.from_d4rl(path), "maze.hdf5", "'actions'", "missing", "['observations']")
    for name, value in (("rewards", np.zeros(49)), ("infos/goal", np.zeros((51, 2)))):
        hdf5(path, numbers(50) | {name: value})
        refused(lambda: readers.from_d4rl(path), "maze.hdf5", repr(name), "differ in rows", str(len(value)))
    hdf5(path, numbers(50) | {"rewards": np.full(50, np.nan)})
    refused(lambda: readers.from_d4rl(path), "maze.hdf5", "'rewards'", "NaN", "row 0")
    hdf5(path, numbers(50))
    refused(lambda: readers.from_d4rl(path, NARROW), "maze.hdf5", "'observations'", "[-0.5, 0.5]")
    refused(lambda: readers.from_d4rl(path, SHORT), "maze.hdf5", "'observations'", "4 entries", "must be 3")
    content = path.read_bytes()
    for length in (0, 10, 1000, len(content) - 100):
        path.write_bytes(content[:length])
        refused(lambda: readers.from_d4rl(path), "maze.hdf5", "truncated or not an HDF5 file")


# -- OGBench --


def npz(path: Path, fields: Fields) -> Path:
    np.savez(path, **fields)
    return path


def episodes(*lengths: int) -> Fields:
    """Episodes of these numbers of rows, end to end."""
    ends = np.zeros(sum(lengths), np.float32)
    ends[np.cumsum(lengths) - 1] = 1
    return numbers(sum(lengths)) | {"terminals": ends}


@pytest.mark.parametrize("kind", [np.float32, bool])
def test_ogbench_runs_hold_the_transitions_that_its_own_loader_gives(tmp_path, kind):
    ogbench = pytest.importorskip("ogbench")
    fields = episodes(5, 2, 9)
    path = npz(tmp_path / "point.npz", fields | {"terminals": fields["terminals"].astype(kind)})
    runs = readers.from_ogbench(path)
    theirs = ogbench.load_dataset(path)
    assert [len(run.actions) for run in runs] == [5, 2, 9]
    for ours, name in (
        ([run.observations[:-1] for run in runs], "observations"),
        ([run.actions[:-1] for run in runs], "actions"),
        ([run.observations[1:] for run in runs], "next_observations"),
    ):
        np.testing.assert_array_equal(np.concatenate(ours), theirs[name])


def test_ogbench_one_episode_is_one_run(tmp_path):
    (run,) = readers.from_ogbench(npz(tmp_path / "point.npz", episodes(30)))
    np.testing.assert_array_equal(run.observations, episodes(30)["observations"])


@pytest.mark.parametrize("wrong", WRONG)
def test_ogbench_rows_are_checked(tmp_path, wrong):
    fields, words = WRONG[wrong]
    path = npz(tmp_path / "point.npz", episodes(50) | fields)
    refused(lambda: readers.from_ogbench(path), "point.npz", *words)


def test_ogbench_files_are_checked(tmp_path):
    path, good = tmp_path / "point.npz", episodes(20, 30)
    refused(lambda: readers.from_ogbench(path), "point.npz", "no such file")

    def wrong(fields: Fields, *words: str) -> None:
        npz(path, fields)
        refused(lambda: readers.from_ogbench(path), "point.npz", *words)

    for name in good:
        wrong({other: value for other, value in good.items() if other != name}, repr(name), "missing")
    wrong(changed(good, "terminals", (49,), 0), "'terminals'", "last row, 49", "must be 1")
    wrong(changed(good, "terminals", (3,), 0.5), "'terminals'", "0.5 at row 3", "0 or 1")
    wrong(changed(good, "terminals", (20,), 1), "'terminals'", "episode 1 after 1 row")
    wrong(good | {"terminals": good["terminals"][:, None]}, "'terminals'", "[50, 1]")
    wrong(good | {"terminals": good["terminals"][:40]}, "'terminals'", "differ in rows", "40")
    wrong(good | {"qpos": np.full((50, 2), np.nan)}, "'qpos'", "NaN")
    wrong({name: value[:0] for name, value in good.items()}, "'observations'", "[0, 4]")
    npz(path, good)
    refused(lambda: readers.from_ogbench(path, NARROW), "point.npz", "'observations'", "[-0.5, 0.5]")
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        refused(lambda: readers.from_ogbench(path), "point.npz", "truncated or not an .npz file")


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
                "rewards": np.zeros(steps),
                "terminations": last & (number == 0),
                "truncations": last & (number > 0),
            }
        )
    return made


def write(minari, made: list[dict], name: str = "maze/test-v0") -> None:
    """A data set by the library's own hand; observations are a goal environment's if they are dictionaries."""
    from gymnasium.spaces import Box, Dict
    from minari.data_collector import EpisodeBuffer

    box = lambda size: Box(-np.inf, np.inf, (size,), np.float64)
    goal = Dict({"observation": box(3), "achieved_goal": box(2), "desired_goal": box(2)})
    observed = goal if made and isinstance(made[0]["observations"], dict) else box(3)
    buffers = [EpisodeBuffer(id=number, **fields) for number, fields in enumerate(made)]
    actions = Box(-2, 2, (2,), np.float32)
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
    made = recorded((7, 1, 12))
    write(minari, with_goals(made) if dictionaries else made)
    for dataset in ("maze/test-v0", tmp_path / "minari" / "maze" / "test-v0"):
        runs = readers.from_minari(dataset)
        assert sum(len(run.actions) for run in runs) == 20
        for run, fields in zip(runs, made, strict=True):
            np.testing.assert_array_equal(run.observations, fields["observations"][:-1].astype(np.float32))
            np.testing.assert_array_equal(run.actions, fields["actions"])


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
    runs = readers.from_minari("car/test-v0")
    assert [len(run.actions) for run in runs] == [20, 20, 20]
    for run in runs:
        for t in range(len(run.actions) - 1):
            assert tuple(x.tobytes() for x in (run.observations[t], run.actions[t], run.observations[t + 1])) in steps


@pytest.mark.parametrize(
    ("episode", "fields", "words"),
    [
        (1, {"observations": np.zeros((5, 3))}, ["'observations'", "5 and 5 rows", "one observation more"]),
        (0, {"terminations": np.array([0, 1, 0, 0, 0], bool)}, ["'terminations'", "row 1 of 5"]),
        (2, {"truncations": np.array([1, 0, 0, 0, 1], bool)}, ["'truncations'", "row 0 of 5"]),
        (1, {"actions": np.full((5, 2), 2.5, np.float32)}, ["'actions'", "2.5", "[-2, 2]"]),
        (1, {"actions": np.full((5, 2), np.nan, np.float32)}, ["'actions'", "NaN"]),
        (0, {"observations": np.where(np.arange(18).reshape(6, 3) > 14, np.nan, 0)}, ["'observations'", "NaN"]),
        (1, {"observations": np.zeros(6)}, ["'observations'", "[5]"]),
        (2, {"rewards": np.full(5, np.inf)}, ["'rewards'", "infinity"]),
    ],
)
def test_minari_episodes_are_checked(minari, episode, fields, words):
    made = recorded((5, 5, 5))
    made[episode] |= fields
    write(minari, made)
    refused(lambda: readers.from_minari("maze/test-v0"), f"maze/test-v0, episode {episode}:", *words)


def test_minari_episodes_hold_a_step(minari, tmp_path):
    h5py = pytest.importorskip("h5py")
    write(minari, recorded((5, 5, 5)))
    with h5py.File(tmp_path / "minari" / "maze" / "test-v0" / "data" / "main_data.hdf5", "a") as file:
        episode = file["episode_2"]
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            kept = episode[name][: name == "observations"]
            del episode[name]
            episode[name] = kept
    refused(lambda: readers.from_minari("maze/test-v0"), "maze/test-v0, episode 2:", "'actions'", "empty")


def test_minari_sets_are_checked(minari, tmp_path):
    folder = tmp_path / "minari" / "maze" / "test-v0"
    refused(lambda: readers.from_minari("maze/test-v0"), "maze/test-v0", "not a Minari data set on this machine")
    refused(lambda: readers.from_minari(folder), "test-v0", "not a Minari data set on this machine")
    write(minari, recorded((5, 6)))
    refused(lambda: readers.from_minari("maze/test-v0", SHORT), "episode 0", "'actions'", "[-1, 1]")
    refused(lambda: readers.from_minari("maze/test-v0", NARROW), "episode 0", "'observations'", "3 entries", "4")
    for file in ("main_data.hdf5", "metadata.json"):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        path = copy / "data" / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(lambda: readers.from_minari(tmp_path / "copy"), "copy", "not a Minari data set on this machine")
    write(minari, [], "maze/none-v0")
    refused(lambda: readers.from_minari("maze/none-v0"), "maze/none-v0", "holds no episodes")
