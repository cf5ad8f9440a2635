"""OGBench's point mazes: the description against its simulator, the data against its rules and its published data."""

import os
import tempfile
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from diffplan.benchmarks.statistics import OGBENCH
from diffplan.data import npz
from diffplan.envs import pointmaze
from diffplan.envs.pointmaze import Episode

ogbench = pytest.importorskip("ogbench")  # it does not install on Python 3.13


@cache
def world(name: str):
    """OGBench's environment, without gymnasium's wrappers."""
    return pointmaze.environment(name).unwrapped


@cache
def made(name: str, kind: str) -> list[Episode]:
    """A small data set, its episodes as long as the published ones."""
    episodes = 60 if kind == "stitch" else 12 if name == "giant" else 20
    return list(pointmaze.generate(name, kind, episodes, pointmaze.published(name, kind)[1]))


def boxes(name: str) -> np.ndarray:
    """(x, y, half of the side) of every wall, as MuJoCo has compiled them: [walls 3]."""
    model = world(name).model
    walls = [model.geom(i) for i in range(model.ngeom) if model.geom(i).name.startswith("block")]
    return np.array([[*wall.pos[:2], wall.size[0]] for wall in walls])


def in_a_wall(name: str, places: np.ndarray) -> np.ndarray:
    """Which of the places [n 2] lie in one of MuJoCo's boxes."""
    x, y, half = boxes(name).T
    return ((np.abs(places[:, :1] - x) < half) & (np.abs(places[:, 1:] - y) < half)).any(1)


@pytest.mark.parametrize("name", pointmaze.NAMES)
def test_the_description_is_that_of_the_simulator(name):
    rng = np.random.default_rng(0)
    maze, env = pointmaze.named(name), world(name)
    assert hash(maze) == hash(pointmaze.named(name)) and pointmaze.named(name) is maze
    assert (maze.unit, maze.radius, maze.stride, maze.jitter, maze.tolerance) == (4, 0.7, 0.2, 1, 1)
    assert maze.max_steps == 1000 and len(maze.tasks) == env.num_tasks == 5
    for cell in maze.cells:
        np.testing.assert_array_equal(maze.centre(cell), env.ij_to_xy(cell))
    places = rng.uniform(maze.observation_low + 1e-3, maze.observation_high - 1e-3, (2000, 2))
    assert [maze.cell_of(place) for place in places] == [env.xy_to_ij(place) for place in places]
    free = np.asarray(jax.vmap(maze.is_free)(places.astype(np.float32)))
    np.testing.assert_array_equal(free, ~in_a_wall(name, places))
    tasks = np.array([maze.centre(cell) for task in maze.tasks for cell in task])
    assert not in_a_wall(name, tasks).any()


def test_tasks_begin_and_end_where_the_environments_do():
    maze, env = pointmaze.named("giant"), pointmaze.environment("giant")
    away = []
    for number, (start, goal) in enumerate(maze.tasks, 1):
        for seed in range(20):
            observed, info = env.reset(seed=seed, options={"task_id": number})
            away += [observed - maze.centre(start), info["goal"] - maze.centre(goal)]
    assert 0.95 * maze.jitter < np.abs(away).max() <= maze.jitter


def test_a_segment_crosses_a_wall_if_one_of_its_points_is_in_one():
    rng = np.random.default_rng(0)
    maze = pointmaze.named("large")
    p = rng.uniform(maze.observation_low, maze.observation_high, (200, 2))
    q = np.clip(p + rng.normal(0, 3, (200, 2)), maze.observation_low, maze.observation_high)
    ours = np.asarray(jax.vmap(maze.crosses_wall)(p.astype(np.float32), q.astype(np.float32)))
    points = p[:, None] + np.linspace(0, 1, 1001)[None, :, None] * (q - p)[:, None]
    theirs = in_a_wall("large", points.reshape(-1, 2)).reshape(200, 1001).any(1)
    assert 20 < theirs.sum() < 180 and (ours != theirs).sum() <= 2  # one that cuts a corner between two points


def test_goals_are_cells_that_are_no_corridor():
    for name in pointmaze.NAMES:
        maze, drawing = pointmaze.named(name), world(name).maze_map
        kept = []
        for i, j in np.argwhere(drawing == 0):
            ways = [(di, dj) for di, dj in ((1, 0), (0, 1), (-1, 0), (0, -1)) if drawing[i + di, j + dj] == 0]
            straight = len(ways) == 2 and ways[0][0] == -ways[1][0] and ways[0][1] == -ways[1][1]
            kept += [] if straight else [(int(i), int(j))]
        assert [tuple(cell) for cell in maze.junctions.tolist()] == kept


@pytest.mark.parametrize(("name", "kind"), [("medium", "navigate"), ("giant", "stitch")])
def test_every_pair_of_rows_is_a_step_of_the_stock_environment(name, kind):
    env = pointmaze.environment(name)
    env.reset(seed=0)
    runs = made(name, kind)[:5]
    for run in runs:
        for t in range(0, len(run.actions) - 1, 3):
            env.unwrapped.set_xy(run.observations[t].astype(np.float64))
            observed, *_ = env.step(run.actions[t].astype(np.float64))
            np.testing.assert_allclose(observed, run.observations[t + 1], atol=2e-4)
        assert not in_a_wall(name, run.observations).any()


def test_the_ball_moves_by_its_action_where_no_wall_is_near():
    x, y, half = boxes("medium").T
    fraction = []
    for run in made("medium", "navigate"):
        outside = np.stack([np.abs(run.observations[:-1, :1] - x) - half, np.abs(run.observations[:-1, 1:] - y) - half])
        distance = np.linalg.norm(np.maximum(outside, 0), axis=0).min(1)
        moved = np.diff(run.observations, axis=0)
        away = distance > 0.7 + 0.2 * np.sqrt(2)
        np.testing.assert_allclose(moved[away], 0.2 * run.actions[:-1][away], atol=1e-5)
        fraction.append(away.mean())
    assert np.mean(fraction) > 0.5


@pytest.mark.parametrize("kind", ["navigate", "stitch"])
def test_without_noise_the_ball_heads_for_ogbenchs_subgoal(kind):
    env = world("large")
    for run in pointmaze.generate("large", kind, 4, 150, noise=0):
        for place, action, goal in zip(run.observations, run.actions, run.goals, strict=True):
            way = env.get_oracle_subgoal(place, goal)[0] - place
            if np.linalg.norm(way) > 1e-3:
                np.testing.assert_allclose(action, way / np.linalg.norm(way), atol=2e-3)


def test_a_goal_that_is_reached_gives_way_to_another():
    maze, reached = pointmaze.named("medium"), 0
    for run in made("medium", "navigate"):
        changes = (run.goals[1:] != run.goals[:-1]).any(1)
        near = np.linalg.norm(run.observations[1:] - run.goals[:-1], axis=1)
        np.testing.assert_array_equal(changes, near <= 1)
        reached += changes.sum()
        for goal in np.unique(run.goals, axis=0):
            cell = maze.cell_of(goal)
            assert cell in [tuple(junction) for junction in maze.junctions.tolist()]
            assert (np.abs(goal - maze.centre(cell)) <= 1).all()
    assert reached > 5 * len(made("medium", "navigate"))


def test_stitch_keeps_one_goal_four_moves_away():
    maze, env = pointmaze.named("giant"), world("giant")
    for run in made("giant", "stitch"):
        assert (run.goals == run.goals[0]).all()
        moves = env.get_oracle_subgoal(run.observations[0], run.goals[0])[1]  # from the goal to every cell
        assert moves[maze.cell_of(run.observations[0])] == 4
        assert np.linalg.norm(run.observations[-1] - maze.centre(maze.cell_of(run.goals[0]))) < 1  # and it gets there


@pytest.mark.parametrize(("name", "kind"), OGBENCH)
def test_statistics_are_those_of_the_published_data(name, kind):
    """|ours - published| <= 4 standard errors of ours, which has some 1/80 of the rows, and 1 % of the std.

    Episodes are independent, so the standard error of a mean is the std over episodes of the episodes' means over
    sqrt(episodes); a std is compared by its square, the mean of squares about the published mean.
    """
    mean, std, action_mean, action_std = map(np.array, OGBENCH[name, kind])
    observations = np.stack([run.observations for run in made(name, kind)]).astype(np.float64)
    actions = np.stack([run.actions for run in made(name, kind)]).astype(np.float64)
    for values, expected, scale in (
        (observations, mean, std),
        ((observations - mean) ** 2, std**2, std**2),
        (actions, action_mean, action_std),
        ((actions - action_mean) ** 2, action_std**2, action_std**2),
    ):
        error = values.mean(1).std(0, ddof=1) / np.sqrt(len(values))
        assert (np.abs(values.mean((0, 1)) - expected) <= 4 * error + 0.01 * scale).all()


def test_an_environment_leaves_no_file_open_or_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    kept = [pointmaze.environment("medium") for _ in range(3)]
    assert len(os.listdir("/dev/fd")) == before and not list(tmp_path.iterdir())
    assert kept[0].reset(seed=0)[0].shape == (2,)


def test_an_episode_is_a_function_of_the_seed_and_its_number():
    few, more, other = (
        list(pointmaze.generate("medium", "navigate", n, 30, seed=s)) for n, s in ((2, 0), (3, 0), (2, 1))
    )
    for ours, theirs in zip(few, more, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert len({run.observations.tobytes() for run in more + other}) == 5


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "deep" / "pointmaze-medium-navigate-v0.npz"
    pointmaze.save(path, made("medium", "navigate"))
    pointmaze.save(path.with_name("pointmaze-medium-navigate-v0-val.npz"), made("medium", "navigate")[:2])
    return path


def test_ogbench_reads_the_same_transitions(saved):
    assert len(list(saved.parent.iterdir())) == 2  # nothing half-written is left
    env, training, validation = ogbench.make_env_and_datasets("pointmaze-medium-navigate-v0", dataset_path=str(saved))
    assert env.spec.id == "pointmaze-medium-v0"
    for theirs, ours in ((training, made("medium", "navigate")), (validation, made("medium", "navigate")[:2])):
        for name, rows in (
            ("observations", [run.observations[:-1] for run in ours]),
            ("actions", [run.actions[:-1] for run in ours]),
            ("next_observations", [run.observations[1:] for run in ours]),
        ):
            np.testing.assert_array_equal(theirs[name], np.concatenate(rows))
        np.testing.assert_array_equal(np.flatnonzero(theirs["terminals"]) + 1, 1000 * np.arange(1, len(ours) + 1))


def test_ogbench_pays_its_own_rewards_on_them(saved):
    """Its variant with one task relabels the rows by `qpos`."""
    name = "pointmaze-medium-navigate-singletask-task1-v0"
    env, training, _ = ogbench.make_env_and_datasets(name, dataset_path=str(saved))
    near = np.linalg.norm(training["observations"] - env.unwrapped.cur_goal_xy, axis=1) <= 1
    np.testing.assert_array_equal(training["rewards"], near - 1.0)


def test_our_reader_gives_back_the_episodes(saved):
    episodes, notes = npz.read(saved, limits=pointmaze.named("medium"))
    assert notes == ()
    for ours, episode in zip(episodes.parts(), made("medium", "navigate"), strict=True):
        np.testing.assert_array_equal(ours.observations, episode.observations)
        np.testing.assert_array_equal(ours.actions, episode.actions)


def test_statistics_of_rows_that_are_known():
    """Five rows: three free steps right of 0.2, and one that a wall cut to nothing; in one cell of medium's 26."""
    maze = pointmaze.named("medium")
    places = np.array([[-0.2, 0], [0, 0], [0.2, 0], [0.4, 0], [0.4, 0]], np.float32)
    run = Episode(places, np.tile(np.float32([1, 0]), (5, 1)), 0 * places, 0 * places)
    result = pointmaze.statistics(maze, [run])
    assert (result.episodes, result.rows, result.touching) == (1, 5, 0.25)
    assert result.visited == pytest.approx(1 / (world("medium").maze_map == 0).sum())
    np.testing.assert_allclose(result.observation_mean, [0.16, 0], atol=1e-6)
    np.testing.assert_allclose(result.action_std, 0)
    lines = pointmaze.table({"mine": result, "again": result}).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1 and "0.250" in lines[1]


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match=r"^unknown point maze 'small': choose 'medium', 'large', 'giant'$"):
        pointmaze.named("small")
    with pytest.raises(ValueError, match=r"^unknown kind of data 'explore': choose 'navigate' or 'stitch'$"):
        next(pointmaze.generate("medium", "explore", 1, 1))
