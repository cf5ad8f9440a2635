"""Scores: strided windows, values, inverse dynamics, controllers and the limit, each against what it must be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.config import DataConfig, TrainConfig
from diffplan.learn import inverse, train
from diffplan.learn.data import DataError, Rows, Strided, strided_codec
from diffplan.learn.inverse import Inverse
from diffplan.models import MLP, build
from diffplan.report import scores as report
from diffplan.studies.scores import control, limit, planner, suite
from diffplan.studies.scores.control import Execution
from diffplan.studies.scores.published import REFERENCES
from diffplan.types import Trajectory
from envs import experts, maze2d
from envs.base import rollout
from envs.maze2d import UMAZE, Maze2d

CORRIDOR = Maze2d.from_text("##########\n#OOOOOOOG#\n##########", max_steps=200)


@pytest.fixture(scope="module")
def rows() -> Rows:
    """A little behaviour in the U-maze."""
    found = experts.collect(UMAZE, jax.random.key(0), lanes=4, steps=600, burn_in=0)
    return Rows(np.asarray(found.observations), np.asarray(found.actions))


def test_a_strided_window_holds_every_observation_s_actions(rows):
    codec = Codec.fit(rows.observations, rows.actions)
    windows = Strided.of(rows, codec, horizon=4, stride=15)
    plan = strided_codec(codec, 15).decode(windows.at(jnp.int32(2), jnp.int32(100)))
    np.testing.assert_allclose(plan.observations, rows.observations[2, 100:160:15], atol=1e-4)
    np.testing.assert_allclose(plan.actions.reshape(60, 2), rows.actions[2, 100:160], atol=1e-4)
    assert windows.firsts == 600 - 60 + 1
    with pytest.raises(DataError, match="600 steps are shorter than 41 points, 15 steps apart"):
        Strided.of(rows, codec, horizon=41, stride=15)


def test_values_say_when_a_window_is_first_paid():
    rewards = np.zeros((3, 30))
    rewards[1, 7:] = 1.0
    rewards[2, [4, 25]] = 1.0
    found = planner.values(rewards, 20)
    assert found.shape == (3, 11)
    np.testing.assert_allclose(found[:, 0], [-1, -7 / 20, -4 / 20])
    brute = [[next((t for t in range(20) if row[first + t]), 20) for first in range(11)] for row in rewards]
    np.testing.assert_allclose(found, -np.asarray(brute) / 20)


def test_a_plan_is_held_at_the_first_point_that_pays():
    codec = Codec(jnp.zeros(6), jnp.ones(6), 4)
    pays = planner.Pays((), codec, lambda params, z: z[:1] - 2.5)  # beyond x = 2.5
    points = jnp.stack([jnp.asarray([x, 0.0, 1.0, 1.0]) for x in (1.0, 2.0, 3.0, 4.0)])
    held = pays.held(Trajectory(points, jnp.ones((4, 30))))
    np.testing.assert_array_equal(held.observations[:, 0], [1, 2, 3, 3])
    np.testing.assert_array_equal(held.observations[:, 2], [1, 1, 0, 0])
    np.testing.assert_array_equal(held.actions[:, 0], [1, 1, 1, 0])
    never = pays.held(Trajectory(points.at[:, 0].set(0.0), jnp.ones((4, 30))))
    np.testing.assert_array_equal(never.observations, points.at[:, 0].set(0.0))


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


def plan_of(maze: Maze2d, start, actions, stride: int) -> Trajectory:
    """What happens when these actions are taken, as a plan of points and of all actions."""
    moved = rollout(maze, jax.random.key(0), maze.state_of(start), actions).observation
    path = jnp.concatenate([start[None], moved[:-1]])
    return Trajectory(path[::stride], actions.reshape(-1, 2 * stride))


IDLE = Inverse((), Codec(jnp.zeros(6), jnp.ones(6), 4), lambda params, *inputs: jnp.zeros(2), 15)


@pytest.mark.parametrize("make", [control.in_jax, control.in_mujoco])
def test_a_plan_s_own_actions_lead_where_they_led(make):
    maze = maze2d.OPEN
    start = jnp.asarray([2.0, 2.0, 0.0, 0.0])
    actions = 0.3 * jax.random.normal(jax.random.key(1), (60, 2))
    plans = jax.tree.map(lambda leaf: leaf[None], plan_of(maze, start, actions, 15))
    truth = rollout(maze, jax.random.key(0), maze.state_of(start), actions).observation
    physics = make(maze)
    _, seen = physics.run(physics.start(np.asarray(start)[None]), "actions", IDLE, Execution.of(plans), 60)
    np.testing.assert_allclose(np.asarray(seen)[0], truth, atol=1e-3)


def test_tracking_goes_along_the_points_to_the_last_and_stays_there():
    corner = jnp.asarray([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [2.0, 3.0], [3.0, 3.0]])
    plan = Trajectory(jnp.concatenate([corner, jnp.zeros((5, 2))], axis=1)[None], jnp.zeros((1, 5, 30)))
    physics = control.in_jax(UMAZE)
    path = np.asarray(
        physics.run(physics.start(np.asarray([[1.0, 1.0, 0.0, 0.0]])), "tracking", IDLE, Execution.of(plan), 300)[1]
    )[0]
    near = lambda point: np.linalg.norm(path[:, :2] - np.asarray(point), axis=1).argmin()
    visits = [near(point) for point in corner]
    assert visits == sorted(visits) and len(set(visits)) == 5
    np.testing.assert_allclose(path[-1], [3, 3, 0, 0], atol=0.05)


def test_planning_anew_begins_where_the_ball_is_and_once_is_once():
    calls = []

    def plans(key, seen):
        calls.append(np.asarray(seen))
        points = jnp.broadcast_to(seen[:, None], (len(seen), 2, 4))
        return Trajectory(points, jnp.ones((len(seen), 2, 30)))

    starts = np.asarray([[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]], np.float32)
    run = partial(control.episodes, jax.random.key(0), control.in_jax(UMAZE), plans, "actions", IDLE, starts, 50)
    found = run(20)
    assert found.paths.shape == (2, 50, 4) and found.plans.shape == (2, 3, 2, 4) and len(calls) == 4
    np.testing.assert_array_equal(calls[2], found.paths[:, 19])
    np.testing.assert_array_equal(calls[3], found.paths[:, 39])
    calls.clear()
    assert run(50).plans.shape[1] == 1 and len(calls) == 2


def test_returns_are_those_of_d4rl():
    paths = np.zeros((1, 4, 4))
    paths[0, :, :2] = [[1.0, 1.0], [1.3, 1.4], [1.3, 1.41], [1.0, 0.5]]  # the goal is at (1, 1)
    assert control.returns(UMAZE, paths).tolist() == [3.0]
    assert REFERENCES["umaze"].score(161.86) == pytest.approx(100)
    assert REFERENCES["large"].score(6.70) == pytest.approx(0)


def test_the_limit_of_a_corridor_is_that_of_full_force():
    """From rest, straight on: nothing is faster than full force all the way, and there is room to stop."""
    start = jnp.asarray([1.0, 1.0, 0.0, 0.0])
    forced = rollout(CORRIDOR, jax.random.key(0), CORRIDOR.state_of(start), jnp.tile(jnp.asarray([0.0, 1.0]), (200, 1)))
    goal = np.asarray(CORRIDOR.goal)
    fastest = int((np.linalg.norm(np.asarray(forced.observation)[:, :2] - goal, axis=1) > 0.5).argmin())
    grid = limit.solve(CORRIDOR, positions=5, velocities=11)
    path = np.asarray(limit.play(CORRIDOR, grid, start[None], 200))
    assert float(grid.at(start)) == pytest.approx(fastest, rel=0.1)
    assert 200 - fastest - 6 <= control.returns(CORRIDOR, path)[0] <= 200 - fastest


TINY = TrainConfig(steps=20, batch=16, chunk=20, save_every=20)
SMALL = planner.PlannerConfig(
    DataConfig(rows=20_000, lanes=20),
    levels=3,
    actions=True,
    prior=TINY,
    value=TINY,
    pays=TINY,
    inverse=TINY,
    width=16,
    depth=2,
    patch=8,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[suite.ScoresConfig, list[dict[str, str]]]:
    """The whole suite, as small as it gets, on one maze; and its rows."""
    run = tmp_path_factory.mktemp("scores")
    config = suite.ScoresConfig(run, tasks=("umaze",), planner=SMALL, episodes=4, every=150, candidates=2, tuning=5)
    coarse = limit.solve
    patch = pytest.MonkeyPatch()
    patch.setattr(limit, "solve", lambda maze: coarse(maze, 4, 7))
    patch.setattr(suite, "SCALES", (1.0, 10.0))
    suite.run(config)
    patch.undo()
    return config, report.read(run)


def test_the_suite_in_small_has_every_row_and_draws_them(small):
    config, rows = small
    ours = [row for row in rows if report.ours(row)]
    assert {row["controller"] for row in ours} == {"optimal", *control.CONTROLLERS}
    assert {row["simulator"] for row in ours} == {"mujoco", "jax"}
    assert all(row["source"] for row in rows) and all(float(row["limit_fraction"]) <= 1.2 for row in ours)
    assert all(float(row["seconds_per_plan"]) > 0 for row in ours if row["controller"] != "optimal")
    took = {float(row["train_minutes"]) for row in ours if row["controller"] != "optimal"}
    assert len(took) == 1 and suite.bench(config, "umaze").minutes == pytest.approx(took.pop(), rel=1e-4) != 0
    assert report.figure(config.run).stat().st_size > 20_000
    report.show(config.run)
    kept = sorted((config.run / "umaze" / "rollouts").glob("*.npz"))
    assert len(kept) == len(ours) - 1
    assert report.rollouts(config.run, UMAZE.walls, UMAZE.goal, kept[0]).stat().st_size > 10_000


def test_the_best_candidate_is_the_one_with_the_highest_value(small):
    config, _ = small
    bench = suite.bench(config, "umaze")
    starts = jnp.asarray(suite.starts_of(UMAZE, jax.random.key(5), 3))
    key, horizon, n = jax.random.key(7), bench.horizon, 5
    best, value = jax.jit(lambda key: bench.planner.best(key, starts, horizon, None, n))(key)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(jax.random.split(key, n))
    draw = jax.jit(jax.vmap(jax.vmap(lambda key, start: bench.planner.draw(key, start, horizon, None)), (0, None)))
    x, scores = draw(keys, starts)
    np.testing.assert_allclose(value, scores.max(axis=0), rtol=1e-4)
    np.testing.assert_allclose(best, x[scores.argmax(axis=0), jnp.arange(3)], atol=1e-3)
    first = bench.planner.codec.decode(best).observations[:, 0]
    np.testing.assert_allclose(first, starts, atol=1e-4)


def test_a_setting_that_cannot_work_is_named():
    with pytest.raises(Exception, match=r"tasks='tiny': must be some of umaze, medium, large"):
        suite.ScoresConfig(tasks=("tiny",))
    with pytest.raises(Exception, match=r"horizon=30: must be a multiple of patch \(4\)"):
        planner.PlannerConfig(horizon=30)
