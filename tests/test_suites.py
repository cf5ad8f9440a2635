"""Whole suites, as small as they get; what they learn from; gridworlds, whose bound is known."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.benchmarks import gridworld, maze2d, ogbench, report, statistics
from diffplan.benchmarks import run as suites
from diffplan.benchmarks.episodes import WAYS
from diffplan.benchmarks.published import PUBLISHED, TASKS
from diffplan.benchmarks.rows import MEASURED, SUITES, DataSettings, ScoresSettings
from diffplan.cli import scores
from diffplan.codec import Codec
from diffplan.data import files
from diffplan.data.errors import DataError
from diffplan.data.windows import Windows
from diffplan.envs import robotics
from diffplan.envs.gridworld import CORRIDORS, MOVES
from diffplan.envs.maze2d import UMAZE, named
from diffplan.episodes import Episodes
from diffplan.metrics.table import read_rows
from diffplan.planner import reaching
from diffplan.tasks.gridworld import nearest_move
from tests.test_planner import SMALL
from tests.test_scores import behaviour

IN_SMALL = {
    "maze2d": {"tasks": ("umaze",), "planner": SMALL},
    "ogbench": {"tasks": ("medium",), "planner": SMALL},
    "gridworld": {"tasks": ("corridors",), "every": 50, "planner": replace(SMALL, stride=1, patch=2)},
}
DATA = DataSettings(episodes=20, steps=1000)
SIMULATORS = {"maze2d": {"mujoco", "jax", "gymnasium-robotics"}, "ogbench": {"ogbench"}, "gridworld": {"jax"}}
BESIDE = {"maze2d": {"optimal", "waypoints"}, "ogbench": set(), "gridworld": {"optimal"}}
"""Rows of ours that no planner made."""


@pytest.fixture(scope="module")
def rows() -> Episodes:
    return behaviour()


@pytest.fixture(scope="module", params=list(IN_SMALL))
def small(request, tmp_path_factory) -> tuple[ScoresSettings, list[dict[str, str]]]:
    """A whole suite, as small as it gets, on one maze; and its rows."""
    run = tmp_path_factory.mktemp("scores")
    settings = {"episodes": 4, "every": 150, "candidates": 4, "tuning": 5, "data": DATA} | IN_SMALL[request.param]
    config = ScoresSettings(run, request.param, **settings)
    ogbench.write(run / "ogbench", "medium", "navigate", episodes=3, steps=600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ogbench, "EPISODES", 1)
        patch.setattr(maze2d, "FINENESS", {request.param: (4, 7)})
        patch.setattr("diffplan.benchmarks.tuning.SCALES", (1.0, 10.0))
        suites.run(config)
    return config, read_rows(run / request.param / "scores.csv")


@pytest.mark.slow
def test_a_suite_in_small_has_every_row_and_draws_them(small):
    config, rows = small
    directory, task = config.run / config.suite, config.tasks[0]
    ours = [row for row in rows if report.ours(row)]
    played = [row for row in ours if row["seconds_per_plan"]]
    assert {row["method"] for row in rows if not report.ours(row)} == {one.method for one in PUBLISHED[config.suite]}
    assert {row["controller"] for row in played} == set(WAYS)
    assert {row["simulator"] for row in played} == SIMULATORS[config.suite]
    assert {row["controller"] for row in ours} - {row["controller"] for row in played} == BESIDE[config.suite]
    assert all(row["source"] for row in rows)
    assert all(float(row["bound_fraction"]) <= 1.2 for row in ours if row["bound_fraction"])
    assert len({(row["method"], row["controller"], row["simulator"]) for row in ours}) == len(ours)
    took = {float(row["train_minutes"]) for row in played}
    assert len(took) == 1 and took.pop() > 0
    assert report.figure(directory / "scores.csv").stat().st_size > 15_000
    report.show(directory / "scores.csv")
    head, _, line = report.markdown([directory / "scores.csv"]).splitlines()
    assert line.count("|") == head.count("|") and task in line
    folder = directory / "rollouts" / task
    kept = report.kept(directory / "scores.csv", config.tasks)
    assert kept == sorted(folder.glob("*.npz"))
    assert len(kept) == len(ours) - (config.suite == "gridworld")  # whose bound has no episodes
    assert report.rollouts(kept[0]).stat().st_size > 10_000
    with np.load(kept[0]) as file:
        np.savez(folder / "other.npz", **dict(file) | {"about": ["diffplan of another setting", "", ""]})
    assert report.kept(directory / "scores.csv", config.tasks) == kept


def test_a_table_keeps_the_mazes_that_are_not_run_again_and_only_a_suite_s_own_is_a_result(tmp_path, monkeypatch):
    def rows_of(config, task):
        yield {"suite": config.suite, "task": task, "mean": float(config.seed), "source": MEASURED}

    monkeypatch.setattr(gridworld, "rows_of", rows_of)
    own = replace(SUITES["gridworld"], run=tmp_path)
    ran = lambda **settings: suites.run(replace(own, **settings))
    means = lambda path: {row["task"]: float(row["mean"]) for row in read_rows(path)}
    path = ran(tasks=("corridors",), seed=1)
    assert not scores.whole(own, path)
    assert means(ran(tasks=("fourrooms",), seed=2)) == {"fourrooms": 2, "corridors": 1}
    assert list(means(path)) == ["fourrooms", "corridors"]
    assert means(ran()) == {"fourrooms": 0, "corridors": 0}
    assert scores.whole(own, path) and scores.whole(replace(own, tasks=("corridors",)), path)
    assert not scores.whole(replace(own, seed=1), path)


def test_the_bound_of_a_gridworld_is_what_its_best_player_gets():
    """The player looks up the neighbour that is nearest to the goal, by a search of its own."""
    world = CORRIDORS
    left = {world.goal: 0}
    queue = [world.goal]
    for cell in queue:
        for di, dj in MOVES[1:]:
            beside = (cell[0] + di, cell[1] + dj)
            if not world.walls[beside] and beside not in left:
                left[beside] = left[cell] + 1
                queue.append(beside)
    starts = world.cells.astype(np.float32)
    paths = np.zeros((len(starts), world.max_steps, 2), np.float32)
    for i, cell in enumerate(map(tuple, world.cells.tolist())):
        for t in range(world.max_steps):
            beside = [(cell[0] + di, cell[1] + dj) for di, dj in MOVES]
            cell = min((place for place in beside if place in left), key=lambda place: left[place])
            paths[i, t] = cell
    goals = np.broadcast_to(np.asarray(world.goal, np.float32), starts.shape)
    np.testing.assert_array_equal(gridworld.bound(world, starts), gridworld.returns(goals, paths))


def test_the_move_towards_a_place_goes_along_its_longer_way_and_stays_in_its_cell():
    observed = jnp.asarray([3.0, 3.0])
    for place, move in [((3, 3), 0), ((3.4, 2.7), 0), ((2, 3), 1), ((4.9, 4), 2), ((3, 1), 3), ((5, 6), 4)]:
        assert int(jnp.argmax(nearest_move(observed, jnp.asarray(place, jnp.float32)))) == move


def test_each_suite_begins_with_settings_of_its_own():
    assert scores.begun(["--episodes", "3"]).scores == SUITES["maze2d"]
    assert scores.begun(["--every", "3", "--suite", "ogbench"]).scores == SUITES["ogbench"]
    assert all(config.suite == name for name, config in SUITES.items())


def test_goals_are_the_maze_s_own_or_random_free_cells():
    own = maze2d.draw_trials(ScoresSettings(), UMAZE, jax.random.key(0), 50)
    random = maze2d.draw_trials(ScoresSettings(suite="multi2d"), UMAZE, jax.random.key(0), 50)
    np.testing.assert_array_equal(own.goals, np.tile(np.asarray(UMAZE.goal, np.float32), (50, 1)))
    np.testing.assert_array_equal(own.starts, random.starts)
    cells = {tuple(cell) for cell in np.round(random.goals).astype(int)}
    assert len(cells) > 4 and cells <= {tuple(cell) for cell in UMAZE.cells}
    assert 0.05 < np.abs(random.goals - np.round(random.goals)).max() <= 0.1


def test_the_data_s_statistics_stand_beside_the_published_ones(rows, tmp_path):
    files.save(tmp_path / "umaze" / "data" / "rows.npz", rows, {})
    ours, theirs = statistics.table(tmp_path)
    assert (ours["source"], theirs["source"]) == ("regenerated", "published") and ours["rows"] == 2400
    assert float(ours["observation_mean"].split()[0]) == pytest.approx(rows.observations[:, 0].mean(), abs=1e-4)
    paid = np.hypot(*(rows.observations[:, :2] - 1).T) <= 0.5  # the goal is at (1, 1)
    assert float(ours["reward_mean"]) == pytest.approx(paid.mean(), abs=1e-4)
    assert theirs["action_std"] == "0.7043 0.7506"
    ogbench.write(tmp_path / "ogbench", "medium", "stitch", episodes=2, steps=200)
    *_, ours, theirs = statistics.table(tmp_path)
    assert ours["data"] == theirs["data"] == "pointmaze-medium-stitch-v0" and ours["rows"] == 400
    assert theirs["observation_std"] == "5.7913 5.0557"


def test_statistics_of_no_data_are_refused_and_what_is_written_stays(tmp_path):
    asked = scores.Command(do="data", results=tmp_path, scores=ScoresSettings(tmp_path / "empty"))
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "data.csv").write_text("kept")
    with pytest.raises(Exception, match="empty': must be a directory in which a suite has made data"):
        scores.action(asked)
    assert (tmp_path / "scores" / "data.csv").read_text() == "kept"


def test_behaviour_is_read_from_the_files_of_others(rows, tmp_path, monkeypatch):
    """One episode of behaviour, written as D4RL and as Minari's PointMaze hold it, is the same rows again."""
    h5py, minari, spaces = (pytest.importorskip(name) for name in ("h5py", "minari", "gymnasium.spaces"))
    observed, done, *_ = next(rows.parts())
    with h5py.File(tmp_path / "umaze.hdf5", "w") as file:
        file["observations"], file["actions"] = observed, done
    space = lambda size, most: spaces.Box(-most, most, (size,), np.float64)
    flags = np.arange(len(done)) == len(done) - 1
    turned = np.stack([done[:, 1], -done[:, 0]], axis=1).astype(np.float64)
    pointmaze = robotics.to_pointmaze(UMAZE, np.concatenate([observed, observed[-1:]]))
    fields = {"observations": pointmaze, "actions": turned, "rewards": np.zeros(len(done))}
    buffer = minari.data_collector.EpisodeBuffer(id=0, terminations=flags & False, truncations=flags, **fields)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with warnings.catch_warnings(action="ignore"):  # that it has no author
        bounds = {"observation_space": space(4, np.inf), "action_space": space(2, 1)}
        minari.create_dataset_from_buffers("pointmaze/umaze-v0", [buffer], **bounds)
    short = replace(SMALL, horizon=8)
    for source in (f"{tmp_path}/{{task}}.hdf5", "pointmaze/{task}-v0"):
        result, identity = maze2d.behaviour(ScoresSettings(behaviour=source, planner=short), "umaze", UMAZE)
        assert result.lengths.tolist() == [600] and identity
        np.testing.assert_allclose(result.observations, observed, atol=1e-5)
        np.testing.assert_allclose(result.actions, done, atol=1e-6)
    with pytest.raises(Exception, match="behaviour='x': must be empty in the suite ogbench"):
        ScoresSettings(suite="ogbench", behaviour="x")
    with pytest.raises(Exception, match=r"behaviour='x': must be with \{task\} for several mazes"):
        ScoresSettings(behaviour="x")
    wrong = ScoresSettings(behaviour=f"{tmp_path}/umaze.hdf5", tasks=("medium",), planner=short)
    with pytest.raises(DataError, match=r"umaze.hdf5: episode 0, row \d+ is at \[.*\]: must be in free cells of m"):
        maze2d.behaviour(wrong, "medium", named("medium"))


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_episodes_of_any_lengths_are_all_used(tmp_path, suffix):
    """1,000 episodes of 500 to 900 steps beside one of 1,200: nothing is cut to the shortest or to a multiple."""
    rng = np.random.default_rng(0)
    lengths = np.append(rng.integers(500, 901, 1000), 1200)
    total = int(lengths.sum())
    places = UMAZE.cells[rng.integers(len(UMAZE.cells), size=total)] + rng.uniform(-0.1, 0.1, (total, 2))
    fields = {
        "observations": np.concatenate([places, rng.normal(size=(total, 2))], axis=1).astype(np.float32),
        "actions": rng.uniform(-1, 1, (total, 2)).astype(np.float32),
        "timeouts": np.isin(np.arange(total) + 1, np.cumsum(lengths)),
    }
    if suffix == ".npz":
        np.savez(tmp_path / "umaze.npz", **fields)
    else:
        with pytest.importorskip("h5py").File(tmp_path / "umaze.h5", "w") as file:
            for name, value in fields.items():
                file[name] = value
    episodes, _ = maze2d.behaviour(
        ScoresSettings(behaviour=f"{tmp_path}/umaze{suffix}", tasks=("umaze",)), "umaze", UMAZE
    )
    np.testing.assert_array_equal(episodes.lengths, lengths)
    np.testing.assert_array_equal(episodes.observations, fields["observations"])
    windows = Windows.of(episodes, Codec.fit(episodes.observations, episodes.actions), 32, 15)
    assert len(windows.first) == (lengths - 480 + 1).sum()


def test_a_setting_that_cannot_work_is_named():
    with pytest.raises(Exception, match=r"tasks='tiny': must be some of umaze, medium, large"):
        ScoresSettings(tasks=("tiny",))
    with pytest.raises(Exception, match=r"tasks='umaze': must be some of medium, large, giant"):
        ScoresSettings(suite="ogbench", tasks=("umaze",))
    with pytest.raises(Exception, match=r"planner.stride=16: must be 1 less than a multiple of patch \(4\)"):
        reaching.GoalSettings(stride=16)
    with pytest.raises(Exception, match=r"planner.warm=9.0: must be above planner.low"):
        reaching.GoalSettings(warm=9.0)


def test_published_rows_name_their_source_for_every_maze():
    for name, methods in PUBLISHED.items():
        assert all(len(one.means) == len(TASKS[name]) and one.source for one in methods)
    diffuser = next(one for one in PUBLISHED["maze2d"] if one.method == "Diffuser")
    assert diffuser.means == (113.9, 121.5, 123.0)
