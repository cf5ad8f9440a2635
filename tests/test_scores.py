"""Scores: windows that reach a goal, inverse dynamics, controllers and the bound, each against what it must be."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffplan.benchmarks import bound
from diffplan.benchmarks.episodes import InJax, Manner, Trials, agent_of, episodes
from diffplan.benchmarks.maze2d import PACE, returns, spring
from diffplan.benchmarks.published import REFERENCES
from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.denoise import Edm
from diffplan.envs import experts, maze2d, mujoco
from diffplan.envs.base import rollout
from diffplan.envs.maze2d import UMAZE, Maze2d
from diffplan.episodes import Episodes, from_stacked
from diffplan.learn import inverse, reach, train
from diffplan.learn.inverse import Inverse
from diffplan.learn.train import TrainSettings
from diffplan.models import MLP, build
from diffplan.planner.examples import Reaching
from diffplan.planner.feasible import Limits
from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.planner.planner import Planner
from diffplan.runs import Run
from diffplan.samplers import Sampler
from diffplan.tasks import make_task
from diffplan.types import Trajectory

CORRIDOR = Maze2d.from_text("##########\n#OOOOOOOG#\n##########", max_steps=200)


def behaviour() -> Episodes:
    """A little behaviour in the U-maze: four episodes of 600 steps."""
    result = experts.collect(UMAZE, jax.random.key(0), trajectories=4, steps=600, burn_in=0)
    return from_stacked(np.asarray(result.observations), np.asarray(result.actions))


@pytest.fixture(scope="module")
def rows() -> Episodes:
    return behaviour()


def test_a_reaching_window_is_the_data_until_it_first_arrives_and_then_stays(rows):
    """Every drawn window is looked for in the data, step by step."""
    codec = Codec.fit(rows.observations, rows.actions)
    examples = Reaching(Windows.of(rows, codec, horizon=8, stride=15))
    keys = jax.random.split(jax.random.key(0), 40)
    held, soonest = jax.jit(jax.vmap(examples.arrival))(keys)
    z = (rows.observations - np.asarray(codec.mean[:4])) / np.asarray(codec.std[:4])
    for x, k in zip(np.asarray(held), np.asarray(soonest, int), strict=True):
        first = np.abs(z - x[0]).sum(-1).argmin()
        path, last = z[first : first + 106], -(-k // 15)
        assert first // 600 == (first + 119) // 600  # of one episode
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
    """A trajectory that goes round in a square of four places never arrives later than after three."""
    corners = np.asarray([[0, 0], [0, 1], [1, 1], [1, 0]], np.float32)
    places = np.tile(corners, (50, 1))[None]
    rows = from_stacked(places, np.random.default_rng(0).normal(size=places.shape).astype(np.float32))
    codec = Codec.fit(rows.observations, rows.actions)
    examples = Reaching(Windows.of(rows, codec, horizon=16, stride=2))
    _, soonest = jax.vmap(examples.arrival)(jax.random.split(jax.random.key(0), 300))
    assert set(np.unique(soonest)) == {0.0, 1.0, 2.0, 3.0}


def test_inverse_dynamics_are_learned_where_they_are_known():
    """Lanes with one velocity each, which is their action: it is the way over the steps."""
    rng = np.random.default_rng(0)
    speed = rng.normal(size=(64, 1, 2))
    observations = rng.normal(size=(64, 1, 2)) + 0.1 * speed * np.arange(40)[None, :, None]
    rows = from_stacked(observations.astype(np.float32), np.broadcast_to(speed, observations.shape).astype(np.float32))
    codec = Codec.fit(rows.observations, rows.actions)
    apply, params = build(jax.random.key(0), lambda rngs: MLP(5, 2, width=64, depth=2, rngs=rngs))
    model = Inverse(params, codec, apply, 8)
    config = TrainSettings(steps=1500, batch=128, learning_rate=3e-3, ema=0.98)
    learn = jax.jit(lambda state, data: train.chunk(inverse.task(model), config, state, data, config.steps)[0].ema)
    model = model.replace(params=learn(train.start(jax.random.key(1), params, config), Windows.of(rows, codec, 9)))
    start, velocity = jnp.asarray([0.3, -0.2]), jnp.asarray([0.8, -1.1])
    for k in (1, 4, 8):
        np.testing.assert_allclose(model(start, start + 0.1 * k * velocity, jnp.int32(k)), velocity, atol=0.1)


def test_reach_is_learned_where_it_is_known():
    """Lanes with one velocity each: within K steps comes what is no farther than K times the velocity, and ahead."""
    rng, most = np.random.default_rng(0), 4
    speed = rng.normal(size=(256, 1, 2))
    places = rng.normal(size=(256, 1, 2)) + 0.1 * speed * np.arange(60)[None, :, None]
    rows = np.concatenate([places, np.broadcast_to(speed, places.shape)], axis=-1).astype(np.float32)
    unit = Codec(jnp.zeros(6), jnp.ones(6), 4)
    data = Windows.of(from_stacked(rows, rows[..., 2:]), unit, reach.span(most))
    mlp, params = build(jax.random.key(0), lambda rngs: MLP(4, 1, width=64, depth=3, rngs=rngs))
    model = reach.Reach(params, lambda params, z, place: mlp(params, z[2:], place - z[:2]), most)
    config = TrainSettings(steps=2000, batch=256, learning_rate=3e-3, ema=0.98)
    learn = jax.jit(lambda state, data: train.chunk(reach.task(model, 4), config, state, data, config.steps)[0].ema)
    model = model.replace(params=learn(train.start(jax.random.key(1), params, config), data))
    velocity = jnp.asarray([0.8, -1.1])
    here = jnp.concatenate([jnp.asarray([0.3, -0.2]), velocity])
    steps = lambda k: model.weakest(jnp.stack([here, here.at[:2].add(0.1 * k * velocity)]))
    near, far = [float(steps(k)) for k in (0, 2, 3)], [float(steps(k)) for k in (6, 12, 30)]
    assert min(near) > 0 > max(far)
    there = here.at[:2].add(0.1 * 2 * velocity)
    both = jnp.stack([here, there, there.at[:2].add(0.1 * 12 * velocity)])
    np.testing.assert_allclose(model.weakest(both), min(float(steps(2)), float(model.weakest(both[1:]))), rtol=1e-5)


@struct.dataclass
class Fixed(PlanModel):
    """Plans the same points from everywhere; or, warm, the last plan moved on. On the way it pushes as it is told."""

    points: Any = None
    pushes: Any = None

    def best(self, key, starts, goals, past, options, energy=None):
        points = jnp.broadcast_to(self.points, (len(starts), *self.points.shape)).at[:, 0].set(starts)
        x = self.codec.encode(Trajectory(points, jnp.zeros((*points.shape[:2], 0))))
        return x if past is None or not options.warm else past, jnp.zeros(len(starts))

    def actions(self, key, points, steps):
        return self.pushes[:steps]


def fixed(points, pushes=None) -> Planner:
    """The planner of these points ``[h, 4]``, 15 steps apart."""
    rows = Codec(jnp.zeros(6), jnp.ones(6), 4)
    idle = Inverse((), rows, lambda params, *inputs: jnp.zeros(2), 15)
    still = Edm((), lambda params, x, sigma: x)
    sampler = Sampler(jnp.ones(2), (len(points), 4))
    pushes = jnp.zeros((len(points) * 15, 2)) if pushes is None else pushes
    model = Fixed(
        rows, rows.of_observations(), still, sampler, idle, low_level=still, stride=15, points=points, pushes=pushes
    )
    task = replace(make_task("maze2d-umaze"), tracker=spring)
    one = np.ones(2, np.float32)
    return Planner(task, model, task.reward, Limits(1.0, 1.0, np.ones(4)), (-one, one), None, model)


def run(simulator, planner, controller, starts, steps, every=1000, warm=False, goal=(9.0, 9.0)):
    """Episodes towards a goal where nobody is."""
    starts = np.asarray(starts, np.float32)
    trials = Trials(starts, np.broadcast_to(np.asarray(goal, np.float32), (len(starts), 2)))
    options = PlanOptions(None, 1, warm)
    return episodes(simulator, agent_of(planner, options, controller, every, Manner(0.4, PACE, 0)), trials, steps)


@pytest.mark.parametrize("make", [InJax, mujoco.Simulator])
def test_a_plan_s_own_actions_lead_where_they_led(make):
    maze, start = maze2d.OPEN, jnp.asarray([2.0, 2.0, 0.0, 0.0])
    actions = 0.3 * jax.random.normal(jax.random.key(1), (60, 2))
    then = jnp.concatenate([actions, jnp.zeros((20, 2))])  # a plan that is over pushes no more
    truth = rollout(maze, jax.random.key(0), maze.state_of(start), then).observation
    outcome = run(make(maze), fixed(jnp.zeros((4, 4)), actions), "actions", start[None], 80)
    np.testing.assert_allclose(outcome.paths[0], truth, atol=1e-3)


def test_tracking_goes_along_the_points_to_the_last_and_stays_there():
    corner = jnp.asarray([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [2.0, 3.0], [3.0, 3.0]])
    points = jnp.concatenate([corner, jnp.zeros((5, 2))], axis=1)
    path = run(InJax(UMAZE), fixed(points), "tracking", [[1.0, 1.0, 0.0, 0.0]], 300).paths[0]
    near = lambda point: np.linalg.norm(path[:, :2] - np.asarray(point), axis=1).argmin()
    visits = [near(point) for point in corner]
    assert visits == sorted(visits) and len(set(visits)) == 5
    np.testing.assert_allclose(path[-1], [3, 3, 0, 0], atol=0.05)


def test_planning_anew_begins_where_the_ball_is_and_once_is_once():
    starts = [[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]]
    points = jnp.stack([jnp.asarray([1.0, 1.0 + k / 4, 0, 0]) for k in range(6)])
    planner = fixed(points, jnp.ones((90, 2)))
    result = run(InJax(UMAZE), planner, "actions", starts, 50, every=20)
    assert result.paths.shape == (2, 50, 4) and result.plans.shape == (2, 3, 6, 4)
    np.testing.assert_allclose(result.plans[:, 1, 0], result.paths[:, 19], atol=1e-6)
    np.testing.assert_allclose(result.plans[:, 2, 0], result.paths[:, 39], atol=1e-6)
    np.testing.assert_allclose(result.plans[:, 1, 1:], np.broadcast_to(points[1:], (2, 5, 4)), atol=1e-6)
    assert run(InJax(UMAZE), planner, "actions", starts, 50, every=50).plans.shape[1] == 1
    warm = run(InJax(UMAZE), planner, "actions", starts, 50, every=30, warm=True).plans
    np.testing.assert_allclose(warm[:, 1, :4], warm[:, 0, 2:], atol=1e-6)  # 30 steps are two points


def test_returns_are_those_of_d4rl():
    paths = np.zeros((1, 4, 4))
    paths[0, :, :2] = [[1.0, 1.0], [1.3, 1.4], [1.3, 1.41], [1.0, 0.5]]
    assert returns(np.asarray([1.0, 1.0]), paths).tolist() == [3.0]
    both = returns(np.asarray([[1.0, 1.0], [9.0, 9.0]]), np.concatenate([paths, paths]))
    assert both.tolist() == [3.0, 0.0]
    assert REFERENCES["umaze"].score(np.asarray([161.86]))[0] == pytest.approx(100)
    assert REFERENCES["large"].score(np.asarray([6.70]))[0] == pytest.approx(0)


def test_the_bound_of_a_corridor_is_that_of_full_force(tmp_path):
    """From rest, straight on: nothing is faster than full force all the way, and there is room to stop."""
    start, goals = jnp.asarray([1.0, 1.0, 0.0, 0.0]), np.asarray([[1.0, 8.0], [1.0, 5.0]], np.float32)
    forced = rollout(CORRIDOR, jax.random.key(0), CORRIDOR.state_of(start), jnp.tile(jnp.asarray([0.0, 1.0]), (200, 1)))
    outside = np.linalg.norm(np.asarray(forced.observation)[None, :, :2] - goals[:, None], axis=-1) > 0.5
    fastest = outside.argmin(axis=1)
    grid, value = bound.solve(CORRIDOR, goals, 5, 11)
    corners, weights = grid.corners(start)
    np.testing.assert_allclose(weights @ value[corners], fastest, rtol=0.02)
    starts = np.tile(np.asarray(start), (2, 1))
    path = bound.paths(Run(tmp_path / "bound"), CORRIDOR, Trials(starts, goals), 200, (5, 11))
    left = 200 - fastest - returns(goals, path)
    assert (0 <= left).all() and (left <= 3).all()
    again = bound.paths(Run(tmp_path / "bound"), CORRIDOR, Trials(starts, goals), 200, (5, 11))
    np.testing.assert_array_equal(again, path)


def test_the_grid_of_the_bound_is_where_the_ball_fits_and_interpolates_what_is_linear():
    grid, points = bound.gridded(UMAZE, positions=4, velocities=5)
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
