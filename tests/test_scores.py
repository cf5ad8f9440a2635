"""Scores: windows that reach a goal, inverse dynamics, controllers and the limit, each against what it must be."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.config import DataConfig, TrainConfig
from diffplan.learn import inverse, train
from diffplan.learn.data import DataError, Rows, Strided
from diffplan.learn.inverse import Inverse
from diffplan.models import MLP, build
from diffplan.noise import LogNormal
from diffplan.report import scores as report
from diffplan.studies.scores import control, gridworld, limit, ogbench, planner, playing, suite, training
from diffplan.studies.scores import run as suites
from diffplan.studies.scores.control import Carried, Execution
from diffplan.studies.scores.examples import Reaching
from diffplan.studies.scores.planner import Dials
from diffplan.studies.scores.published import PUBLISHED, REFERENCES, TASKS
from diffplan.studies.scores.rows import SUITES, ScoresConfig
from diffplan.types import Trajectory
from envs import experts, maze2d, mujoco, robotics
from envs.base import rollout
from envs.gridworld import MOVES
from envs.maze2d import UMAZE, Maze2d
from scripts import benchmark

CORRIDOR = Maze2d.from_text("##########\n#OOOOOOOG#\n##########", max_steps=200)


@pytest.fixture(scope="module")
def rows() -> Rows:
    """A little behaviour in the U-maze."""
    found = experts.collect(UMAZE, jax.random.key(0), lanes=4, steps=600, burn_in=0)
    return Rows(np.asarray(found.observations), np.asarray(found.actions))


def test_a_strided_window_is_every_so_manieth_observation(rows):
    codec = Codec.fit(rows.observations, rows.actions)
    windows = Strided.of(rows, codec, horizon=4, stride=15)
    window = windows.at(jnp.int32(2), jnp.int32(100)) * codec.std[None, :4] + codec.mean[None, :4]
    np.testing.assert_allclose(window, rows.observations[2, 100:160:15], atol=1e-4)
    assert windows.length == 60
    with pytest.raises(DataError, match="600 steps are shorter than 41 points, 15 steps apart"):
        Strided.of(rows, codec, horizon=41, stride=15)


def test_a_reaching_window_is_the_data_until_it_first_arrives_and_then_stays(rows):
    """Every drawn window is looked for in the data, step by step."""
    codec = Codec.fit(rows.observations, rows.actions)
    examples = Reaching.of(Strided.of(rows, codec, horizon=8, stride=15), codec)
    keys = jax.random.split(jax.random.key(0), 40)
    held, soonest = jax.jit(jax.vmap(examples.arrival))(keys)
    z = (rows.observations - np.asarray(codec.mean[:4])) / np.asarray(codec.std[:4])
    for x, k in zip(np.asarray(held), np.asarray(soonest, int), strict=True):
        lane, first = np.unravel_index(np.abs(z - x[0]).sum(-1).argmin(), z.shape[:2])
        path, last = z[lane, first : first + 106], -(-k // 15)
        np.testing.assert_allclose(x[0], path[0], atol=1e-5)
        np.testing.assert_allclose(x[1:last], path[15:k:15][: last - 1], atol=1e-5)
        np.testing.assert_allclose(x[max(last, 1) :, :2] - path[k, :2], 0, atol=1e-5)
        np.testing.assert_allclose(
            codec.decode(jnp.asarray(np.pad(x, ((0, 0), (0, 2))))).observations[-1, 2:], 0, atol=1e-5
        )
    assert np.asarray(soonest).max() <= 105
    _, value, mask = jax.vmap(examples.draw)(keys)
    assert np.corrcoef(value, -soonest)[0, 1] == pytest.approx(1)
    assert mask[0].all(axis=1).tolist() == [True] + [False] * 6 + [True]


def test_arriving_is_the_first_time_that_it_was_there():
    """A lane that goes round in a square of four places never arrives later than after three."""
    corners = np.asarray([[0, 0], [0, 1], [1, 1], [1, 0]], np.float32)
    places = np.tile(corners, (50, 1))[None]
    rows = Rows(places, np.random.default_rng(0).normal(size=places.shape).astype(np.float32))
    codec = Codec.fit(*rows)
    examples = Reaching.of(Strided.of(rows, codec, horizon=16, stride=2), codec)
    _, soonest = jax.vmap(examples.arrival)(jax.random.split(jax.random.key(0), 300))
    assert set(np.unique(soonest)) == {0.0, 1.0, 2.0, 3.0}


def test_inverse_dynamics_are_learned_where_they_are_known():
    """Lanes with one velocity each, which is their action: it is the way over the steps."""
    rng = np.random.default_rng(0)
    speed = rng.normal(size=(64, 1, 2))
    observations = rng.normal(size=(64, 1, 2)) + 0.1 * speed * np.arange(40)[None, :, None]
    rows = Rows(observations.astype(np.float32), np.broadcast_to(speed, observations.shape).astype(np.float32))
    codec = Codec.fit(*rows)
    apply, params = build(jax.random.key(0), lambda rngs: MLP(5, 2, width=64, depth=2, rngs=rngs))
    model = Inverse(params, codec, apply, 8)
    config = TrainConfig(steps=1500, batch=128, learning_rate=3e-3, ema=0.98)
    data = codec.encode(Trajectory(jnp.asarray(rows.observations), jnp.asarray(rows.actions)))
    learn = jax.jit(lambda state, data: train.chunk(inverse.task(model), config, state, data, config.steps)[0].ema)
    model = model.replace(params=learn(train.start(jax.random.key(1), params, config), data))
    start, velocity = jnp.asarray([0.3, -0.2]), jnp.asarray([0.8, -1.1])
    for k in (1, 4, 8):
        np.testing.assert_allclose(model(start, start + 0.1 * k * velocity, jnp.int32(k)), velocity, atol=0.1)


IDLE = Inverse((), Codec(jnp.zeros(6), jnp.ones(6), 4), lambda params, *inputs: jnp.zeros(2), 15)
NONE = jnp.zeros((1, 1, 2))


def in_mujoco(maze: Maze2d) -> control.Physics:
    return control.outside(mujoco.Simulator(maze))


@pytest.mark.parametrize("make", [control.in_jax, in_mujoco])
def test_a_plan_s_own_actions_lead_where_they_led(make):
    maze, start = maze2d.OPEN, jnp.asarray([2.0, 2.0, 0.0, 0.0])
    actions = 0.3 * jax.random.normal(jax.random.key(1), (60, 2))
    truth = rollout(maze, jax.random.key(0), maze.state_of(start), actions).observation
    physics = make(maze)
    at = Execution.of(jnp.zeros((1, 5, 4)), actions[None])
    _, seen = physics.run(physics.start(np.asarray(start)[None]), "actions", IDLE, at, 60)
    np.testing.assert_allclose(np.asarray(seen)[0], truth, atol=1e-3)


def test_tracking_goes_along_the_points_to_the_last_and_stays_there():
    corner = jnp.asarray([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [2.0, 3.0], [3.0, 3.0]])
    points = jnp.concatenate([corner, jnp.zeros((5, 2))], axis=1)[None]
    physics = control.in_jax(UMAZE)
    states = physics.start(np.asarray([[1.0, 1.0, 0.0, 0.0]]))
    path = np.asarray(physics.run(states, "tracking", IDLE, Execution.of(points, NONE), 300)[1])[0]
    near = lambda point: np.linalg.norm(path[:, :2] - np.asarray(point), axis=1).argmin()
    visits = [near(point) for point in corner]
    assert visits == sorted(visits) and len(set(visits)) == 5
    np.testing.assert_allclose(path[-1], [3, 3, 0, 0], atol=0.05)


def test_planning_anew_begins_where_the_ball_is_and_once_is_once():
    calls, pasts = [], []

    def plans(key, seen, past):
        calls.append(np.asarray(seen))
        pasts.append(past)
        return np.repeat(seen[:, None], 2, axis=1), len(seen)

    starts = np.asarray([[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]], np.float32)
    push = lambda key, points: jnp.ones((len(points), 20, 2))
    run = lambda every: control.episodes(
        jax.random.key(0), control.in_jax(UMAZE), plans, Carried("actions", every, IDLE, push), starts, 50
    )
    found = run(20)
    assert found.paths.shape == (2, 50, 4) and found.plans.shape == (2, 3, 2, 4)
    assert [past is None for past in pasts] == [True, True, False, False, False]  # two are compiled, then timed
    np.testing.assert_array_equal(calls[3], found.paths[:, 19])
    np.testing.assert_array_equal(calls[4], found.paths[:, 39])
    np.testing.assert_array_equal(pasts[4], found.plans[:, 1])
    calls.clear()
    assert run(50).plans.shape[1] == 1 and len(calls) == 2


def test_returns_are_those_of_d4rl():
    paths = np.zeros((1, 4, 4))
    paths[0, :, :2] = [[1.0, 1.0], [1.3, 1.4], [1.3, 1.41], [1.0, 0.5]]
    assert control.returns(np.asarray([1.0, 1.0]), paths).tolist() == [3.0]
    both = control.returns(np.asarray([[1.0, 1.0], [9.0, 9.0]]), np.concatenate([paths, paths]))
    assert both.tolist() == [3.0, 0.0]
    assert REFERENCES["umaze"].score(161.86) == pytest.approx(100)
    assert REFERENCES["large"].score(6.70) == pytest.approx(0)


def test_the_limit_of_a_corridor_is_that_of_full_force(tmp_path):
    """From rest, straight on: nothing is faster than full force all the way, and there is room to stop."""
    start, goals = jnp.asarray([1.0, 1.0, 0.0, 0.0]), np.asarray([[1.0, 8.0], [1.0, 5.0]], np.float32)
    forced = rollout(CORRIDOR, jax.random.key(0), CORRIDOR.state_of(start), jnp.tile(jnp.asarray([0.0, 1.0]), (200, 1)))
    outside = np.linalg.norm(np.asarray(forced.observation)[None, :, :2] - goals[:, None], axis=-1) > 0.5
    fastest = outside.argmin(axis=1)
    grid, value = limit.solve(CORRIDOR, goals, 5, 11)
    corners, weights = grid.corners(start)
    np.testing.assert_allclose(weights @ value[corners], fastest, rtol=0.02)
    starts = np.tile(np.asarray(start), (2, 1))
    path = limit.paths(tmp_path / "limit", CORRIDOR, starts, goals, 200, (5, 11))
    left = 200 - fastest - control.returns(goals, path)
    assert (0 <= left).all() and (left <= 3).all()
    again = limit.paths(tmp_path / "limit", CORRIDOR, starts, goals, 200, (5, 11))
    np.testing.assert_array_equal(again, path)


def test_the_limit_s_grid_is_where_the_ball_fits_and_interpolates_what_is_linear():
    grid, points = limit.gridded(UMAZE, positions=4, velocities=5)
    assert len(points) == len(UMAZE.cells) * 4**2 * 5**2
    offset = np.asarray(points[:, :2]) + 0.7
    assert jax.vmap(UMAZE.is_free)(points[:, :2]).all()
    assert np.abs(offset - np.round(offset)).min() >= 0.1 - 1e-5  # the ball's radius from any wall
    slope = jnp.asarray([1.0, -2.0, 0.5, 3.0])
    for inside in ([1.13, 2.05, 0.4, -3.0], [1.0, 1.0, 5.1, 5.1], [2.0, 3.05, -5.2, 0.0]):
        corners, weights = grid.corners(jnp.asarray(inside))
        assert float(weights @ (points[corners] @ slope)) == pytest.approx(float(jnp.asarray(inside) @ slope), abs=1e-4)
    wall = jnp.asarray([2.0, 2.35, 0.0, 0.0])  # too near to the wall of the free cell (2, 3), whose places begin at 2.4
    corners, weights = grid.corners(wall)
    np.testing.assert_allclose(weights @ points[corners], [2.0, 2.4, 0.0, 0.0], atol=0.01)


TINY = TrainConfig(steps=20, batch=16, chunk=20, save_every=20)
SMALL = planner.PlannerConfig(
    DataConfig(rows=20_000, lanes=20),
    levels=3,
    prior=TINY,
    fine=TINY,
    value=TINY,
    inverse=TINY,
    reach=TINY,
    width=16,
    depth=2,
    features=8,
    patch=8,
)


IN_SMALL = {
    "multi2d": {"tasks": ("umaze",), "planner": SMALL},
    "ogbench": {"tasks": ("medium",), "planner": SMALL},
    "gridworld": {"tasks": ("corridors",), "planner": replace(SMALL, stride=1, patch=2)},
}
SIMULATORS = {"multi2d": {"mujoco", "jax", "gymnasium-robotics"}, "ogbench": {"ogbench"}, "gridworld": {"jax"}}
BESIDE = {"multi2d": {"optimal", "waypoints"}, "ogbench": set(), "gridworld": {"optimal"}}
"""Rows of ours that no planner made."""


@pytest.fixture(scope="module", params=list(IN_SMALL))
def small(request, tmp_path_factory) -> tuple[ScoresConfig, list[dict[str, str]]]:
    """A whole suite, as small as it gets, on one maze; and its rows."""
    run = tmp_path_factory.mktemp("scores")
    settings = {"episodes": 4, "every": 150, "candidates": 4, "tuning": 5} | IN_SMALL[request.param]
    config = ScoresConfig(run, request.param, **settings)
    ogbench.write(run / "ogbench", "medium", "navigate", episodes=3, steps=600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ogbench, "EPISODES", 1)
        patch.setattr(suite, "FINENESS", {request.param: (4, 7)})
        patch.setattr("diffplan.studies.scores.tuning.SCALES", (1.0, 10.0))
        suites.run(config)
    return config, report.read(run / request.param / "scores.csv")


@pytest.mark.slow
def test_a_suite_in_small_has_every_row_and_draws_them(small):
    config, rows = small
    directory, task = config.run / config.suite, config.tasks[0]
    ours = [row for row in rows if report.ours(row)]
    played = [row for row in ours if row["seconds_per_plan"]]
    assert {row["method"] for row in rows if not report.ours(row)} == {one.method for one in PUBLISHED[config.suite]}
    assert {row["controller"] for row in played} == set(control.CONTROLLERS)
    assert {row["simulator"] for row in played} == SIMULATORS[config.suite]
    assert {row["controller"] for row in ours} - {row["controller"] for row in played} == BESIDE[config.suite]
    assert all(row["source"] for row in rows)
    assert all(float(row["limit_fraction"]) <= 1.2 for row in ours if row["limit_fraction"])
    assert len({(row["method"], row["controller"], row["simulator"]) for row in ours}) == len(ours)
    took = {float(row["train_minutes"]) for row in played}
    assert len(took) == 1 and took.pop() > 0
    assert report.figure(directory / "scores.csv").stat().st_size > 15_000
    report.show(directory / "scores.csv")
    head, _, line = report.markdown([directory / "scores.csv"]).splitlines()
    assert line.count("|") == head.count("|") and task in line
    kept = sorted((directory / "rollouts" / task).glob("*.npz"))
    assert len(kept) == len(played)
    assert report.rollouts(kept[0]).stat().st_size > 10_000


def test_what_was_trained_is_read_back_with_the_minutes_that_it_took(trained, rows, tmp_path_factory):
    again, minutes = training.fit(tmp_path_factory.getbasetemp() / "planner0", SMALL, rows, "rows")
    assert minutes > 0
    for read, made in zip(jax.tree.leaves(again), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(read, made)


def test_the_limit_of_a_gridworld_is_what_its_best_player_gets():
    """The player looks up the neighbour that is nearest to the goal, by a search of its own."""
    world = gridworld.WORLDS["corridors"]
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
    np.testing.assert_array_equal(gridworld.limit(world, starts), gridworld.returns(goals, paths))


def test_the_move_towards_a_place_is_the_one_along_its_longer_way():
    seen = jnp.asarray([3.0, 3.0])
    for place, move in [((3, 3), 0), ((2, 3), 1), ((4.9, 4), 2), ((3, 1), 3), ((3.2, 4), 4)]:
        assert int(jnp.argmax(gridworld.nearest_move(seen, jnp.asarray(place, jnp.float32)))) == move


def test_each_suite_begins_with_settings_of_its_own():
    assert benchmark.begun(["--episodes", "3"]).scores == SUITES["maze2d"]
    assert benchmark.begun(["--every", "3", "--suite", "ogbench"]).scores == SUITES["ogbench"]
    assert all(config.suite == name for name, config in SUITES.items())


def test_goals_are_the_maze_s_own_or_random_free_cells():
    own = suite.drawn(ScoresConfig(), UMAZE, jax.random.key(0), 50)
    random = suite.drawn(ScoresConfig(suite="multi2d"), UMAZE, jax.random.key(0), 50)
    np.testing.assert_array_equal(own.goals, np.tile(np.asarray(UMAZE.goal, np.float32), (50, 1)))
    np.testing.assert_array_equal(own.starts, random.starts)
    cells = {tuple(cell) for cell in np.round(random.goals).astype(int)}
    assert len(cells) > 4 and cells <= {tuple(cell) for cell in UMAZE.cells}
    assert 0.05 < np.abs(random.goals - np.round(random.goals)).max() <= 0.1


def test_behaviour_is_read_from_the_files_of_others(rows, tmp_path, monkeypatch):
    """One lane of behaviour, written as D4RL and as Minari's PointMaze hold it, is the same rows again."""
    h5py, minari, spaces = (pytest.importorskip(name) for name in ("h5py", "minari", "gymnasium.spaces"))
    seen, done = rows.observations[0], rows.actions[0]
    with h5py.File(tmp_path / "umaze.hdf5", "w") as file:
        file["observations"], file["actions"] = seen, done
    space = lambda size, most: spaces.Box(-most, most, (size,), np.float64)
    flags = np.arange(len(done)) == len(done) - 1
    turned = np.stack([done[:, 1], -done[:, 0]], axis=1).astype(np.float64)
    pointmaze = robotics.to_pointmaze(UMAZE, np.concatenate([seen, seen[-1:]]))
    fields = {"observations": pointmaze, "actions": turned, "rewards": np.zeros(len(done))}
    buffer = minari.data_collector.EpisodeBuffer(id=0, terminations=flags & False, truncations=flags, **fields)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with warnings.catch_warnings(action="ignore"):  # that it has no author
        bounds = {"observation_space": space(4, np.inf), "action_space": space(2, 1)}
        minari.create_dataset_from_buffers("pointmaze/umaze-v0", [buffer], **bounds)
    short = replace(SMALL, horizon=8)
    for source in (f"{tmp_path}/{{task}}.hdf5", "pointmaze/{task}-v0"):
        found, identity = suite.behaviour(ScoresConfig(behaviour=source, planner=short), "umaze", UMAZE)
        assert found.actions.shape == (1, 600, 2) and identity
        np.testing.assert_allclose(found.observations[0], seen, atol=1e-5)
        np.testing.assert_allclose(found.actions[0], done, atol=1e-6)
    with pytest.raises(Exception, match="behaviour='x': must be empty in the suite ogbench"):
        ScoresConfig(suite="ogbench", behaviour="x")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows) -> planner.Planner:
    """A planner of tiny networks."""
    return training.fit(tmp_path_factory.getbasetemp() / "planner0", SMALL, rows, "rows")[0]


STARTS = jnp.asarray(suite.drawn(ScoresConfig(), UMAZE, jax.random.key(5), 3).starts)
GOALS = jnp.asarray([[1.0, 1.0, 0, 0], [3.0, 3.0, 0, 0], [1.0, 3.0, 0, 0]])


def test_the_best_candidate_is_the_one_with_the_highest_value(trained):
    key, n = jax.random.key(7), 5
    best, value = jax.jit(lambda key: trained.best(key, STARTS, GOALS, None, Dials(None, n)))(key)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(jax.random.split(key, n))
    draw = jax.vmap(lambda key, start, goal: trained.draw(key, start, goal, None, None))
    x, scores = jax.jit(jax.vmap(draw, (0, None, None)))(keys, STARTS, GOALS)
    np.testing.assert_allclose(value, scores.max(axis=0), rtol=1e-4)
    np.testing.assert_allclose(best, x[scores.argmax(axis=0), jnp.arange(3)], atol=1e-3)
    points = trained.codec.decode(best).observations
    np.testing.assert_allclose(points[:, 0], STARTS, atol=1e-4)
    np.testing.assert_allclose(points[:, -1], GOALS, atol=1e-4)


def test_a_warm_start_goes_on_from_the_last_plan(trained):
    """At noise levels near nothing, the plan is the last one moved on; its pins are the new ones."""
    assert 0 < trained.warmed < len(trained.sigmas)
    points = jnp.linspace(jnp.asarray([1.0, 1.0, 0, 0]), jnp.asarray([3.0, 3.0, 0, 0]), trained.horizon)
    past = trained.moved_on(points, 45)
    moved = trained.codec.decode(past).observations
    np.testing.assert_allclose(moved[:-3], points[3:], atol=1e-5)
    np.testing.assert_allclose(moved[-3:], jnp.tile(points[-1], (3, 1)), atol=1e-5)
    still = replace(trained, sigmas=jnp.geomspace(2e-3, 1e-3, len(trained.sigmas)))
    x, _ = still.draw(jax.random.key(0), moved[0], points[-1], past, None)
    np.testing.assert_allclose(x, past, atol=0.02)

    def plans(dials, past, near=0.0):
        made, count = playing.plans(trained, dials, np.asarray(GOALS[:, :2]), 45, near)(jax.random.key(1), seen, past)
        return made if count == 3 else None

    cold, warm, seen = Dials(None, 2), Dials(None, 2, True), np.asarray(STARTS)
    before = np.tile(points, (3, 1, 1))
    np.testing.assert_array_equal(plans(cold, None), plans(cold, before))
    np.testing.assert_array_equal(plans(cold, None), plans(warm, None))
    assert np.abs(plans(warm, before) - plans(warm, None)).max() > 0.01


def test_who_has_arrived_stays_and_all_others_are_planned_for_in_batches(trained, monkeypatch):
    monkeypatch.setattr(playing, "BATCH", 2)
    seen = np.tile(np.asarray(STARTS[:1]), (5, 1))
    goals = np.tile(np.asarray([[3.0, 1.0]]), (5, 1))
    seen[[1, 4], :2] = goals[0] + 0.2
    made, count = playing.plans(trained, Dials(None), goals, 45, near=0.4)(jax.random.key(0), seen, None)
    assert count == 3
    np.testing.assert_allclose(made[:, 0], seen, atol=1e-4)
    np.testing.assert_allclose(made[[1, 4], 1:], np.broadcast_to([3, 1, 0, 0], (2, trained.horizon - 1, 4)))
    others = made[[0, 2, 3]]
    assert (np.abs(others[:, 1] - [3, 1, 0, 0]).max(axis=1) > 0.05).all()
    assert len(np.unique(others[:, 5], axis=0)) == 3  # each with noise of its own


def test_gaps_are_filled_one_after_another(trained):
    """The fine prior is one whose rows go straight from end to end, with the way between two of them as action."""
    rows, stride = trained.rows, trained.inverse.steps

    def straight(x, sigma):
        start, end = rows.decode(x[:1]).observations, rows.decode(x[-1:]).observations
        share = jnp.linspace(0, 1, len(x))[:, None]
        steps = jnp.tile((end - start)[:, :2] / stride, (len(x), 1))
        return rows.encode(Trajectory(start * (1 - share) + end * share, steps))

    corners = jnp.asarray([[1.0, 1.0], [1.0, 2.5], [1.6, 2.5], [1.6, 2.5]])
    points = jnp.concatenate([corners, jnp.zeros((4, 2))], axis=1)
    found = replace(trained, fine=straight).actions(jax.random.key(0), points, 2 * stride + 4)
    truth = np.repeat(np.diff(corners, axis=0) / stride, stride, axis=0)[: 2 * stride + 4]
    np.testing.assert_allclose(found, truth, atol=0.01)


def test_a_setting_that_cannot_work_is_named():
    with pytest.raises(Exception, match=r"tasks='tiny': must be some of umaze, medium, large"):
        ScoresConfig(tasks=("tiny",))
    with pytest.raises(Exception, match=r"tasks='umaze': must be some of medium, large, giant"):
        ScoresConfig(suite="ogbench", tasks=("umaze",))
    with pytest.raises(Exception, match=r"stride=16: must be 1 less than a multiple of 4"):
        planner.PlannerConfig(stride=16)
    with pytest.raises(Exception, match=r"warm=9.0: must be above low"):
        planner.PlannerConfig(warm=9.0)


def test_published_rows_name_their_source_for_every_maze():
    for name, methods in PUBLISHED.items():
        assert all(len(one.means) == len(TASKS[name]) and one.source for one in methods)
    diffuser = next(one for one in PUBLISHED["maze2d"] if one.method == "Diffuser")
    assert diffuser.means == (113.9, 121.5, 123.0) and LogNormal().std > 0
