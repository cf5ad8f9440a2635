"""PointMaze in Maze2d's coordinates: against gymnasium-robotics' public interface, and `envs.maze2d`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium_robotics.envs.maze import maps
from gymnasium_robotics.envs.maze.maze_v4 import Maze

from diffplan.envs import base, maze2d, mujoco, robotics
from diffplan.envs.maze2d import LARGE, MARGIN, OPEN, STEP, UMAZE, Maze2d
from diffplan.envs.robotics import Simulator, from_pointmaze, to_pointmaze

NAMES = {"open": "OPEN", "umaze": "U_MAZE", "medium": "MEDIUM_MAZE", "large": "LARGE_MAZE"}


@pytest.fixture(scope="module")
def runs():
    """100 steps from 60 resets of the large maze under held random forces, hitting walls: starts, actions, seen."""
    rng = np.random.default_rng(0)
    states = jax.jit(jax.vmap(LARGE.reset))(jax.random.split(jax.random.key(0), 60))
    starts = np.array(jax.vmap(LARGE.observe)(states))
    actions = np.repeat(rng.uniform(-1, 1, (60, 10, 2)), 10, axis=1).astype(np.float32)
    return starts, actions, played(Simulator(LARGE), starts, actions)


def played(simulator, starts, actions):
    """Open loop: the observations [n, steps, 4] after each of actions [n, steps, 2]."""
    ahead = iter(np.moveaxis(actions, 1, 0))
    return simulator.run(simulator.start(starts), lambda observed: next(ahead), actions.shape[1])


def in_jax(maze, starts, actions):
    run = lambda o, a: base.rollout(maze, jax.random.key(0), maze.state_of(o), a).observation
    return np.array(jax.jit(jax.vmap(run))(jnp.asarray(starts, jnp.float32), jnp.asarray(actions, jnp.float32)))


@pytest.mark.parametrize("name", NAMES)
def test_layouts_are_those_of_gymnasium_robotics(name):
    np.testing.assert_array_equal(maze2d.named(name).walls, np.array(getattr(maps, NAMES[name])))


@pytest.mark.parametrize("maze", [OPEN, LARGE], ids=["open", "large"])
def test_coordinates_are_those_of_its_map(maze):
    """Its own map says where a cell's centre is, and which cell a point lies in; neither maze here is square."""
    theirs = Maze(maze.walls.astype(int).tolist(), 1.0, 0.4)
    for i, j in maze.cells.tolist():
        centre = np.array([*maze.cell_centre(i, j), 0, 0])
        np.testing.assert_allclose(
            to_pointmaze(maze, centre)[:2], theirs.cell_rowcol_to_xy(np.array([i, j])), atol=1e-6
        )
    points = np.random.default_rng(0).uniform(maze.observation_low, maze.observation_high, (500, 4))
    cells = np.array([theirs.cell_xy_to_rowcol(o[:2]) for o in to_pointmaze(maze, points)])
    np.testing.assert_array_equal(cells, np.array(jax.vmap(maze.cell_of)(jnp.asarray(points[:, :2], jnp.float32))))
    np.testing.assert_allclose(from_pointmaze(maze, to_pointmaze(maze, points)), points, atol=1e-12)
    later = points + STEP * np.pad(points[:, 2:], ((0, 0), (0, 2)))  # velocities turn as positions do
    moved = to_pointmaze(maze, later)[:, :2] - to_pointmaze(maze, points)[:, :2]
    np.testing.assert_allclose(moved, STEP * to_pointmaze(maze, points)[:, 2:], atol=1e-12)


@pytest.mark.parametrize(("name", "size"), [("umaze", "UMaze"), ("medium", "Medium"), ("large", "Large")])
def test_it_is_pointmaze(name, size, tmp_path, monkeypatch):
    """The same episodes through gymnasium: made by id, reset by seed, moved by step; side by side as one by one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # gymnasium-robotics leaves a file there for each maze
    maze, rng = maze2d.named(name), np.random.default_rng(1)
    actions = np.repeat(rng.uniform(-1.3, 1.3, (3, 30, 2)), 10, axis=1)  # beyond the bounds too
    starts, theirs = [], []
    for seed in range(3):
        env = gymnasium.make(f"PointMaze_{size}-v3", continuing_task=True, reset_target=False)
        starts.append(env.reset(seed=seed)[0]["observation"])
        theirs.append([env.step(np.array([right, -down]))[0]["observation"] for down, right in actions[seed]])
        env.close()
    observed = played(Simulator(maze), from_pointmaze(maze, np.array(starts)), actions)
    np.testing.assert_allclose(
        observed, from_pointmaze(maze, np.array(theirs)), atol=2e-6
    )  # float32, cells and cells / s
    assert np.abs(observed[..., 2:]).max() > 4 and np.ptp(observed[..., :2], axis=1).max() > 1  # it has moved, and fast


def test_flight_is_maze2ds():
    """Half a second away from walls, forces along each axis and both ways."""
    starts = np.array([[2.0, 2.0, 1.0, -2.0], [2.0, 3.0, -1.0, 0.0], [1.5, 3.5, 0.0, 0.0], [2.0, 2.5, 0.5, 0.5]])
    forces = np.array([[0.1, 0.2], [0.0, -0.15], [0.2, 0.0], [-0.1, 0.1]])
    actions = np.repeat(forces[:, None], 30, axis=1)
    observed = played(Simulator(OPEN), starts, actions)
    np.testing.assert_allclose(observed, in_jax(OPEN, starts, actions), atol=1e-5)
    assert ((observed[..., :2] > 0.5) & (observed[..., :2] < [2.9, 4.9])).all() and np.ptp(observed, axis=1).min(
        axis=0
    ).max() > 0


def test_a_ball_rests_further_from_the_wall_by_the_margin():
    """The force on a ball is a function of its distance less the margin, which MuJoCo is asked for."""
    maze = Maze2d.from_text("#####\n#OOG#\n#####")
    starts, ways = np.tile([0.8, 1.8, 0.0, 0.0], (4, 1)), np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    actions = np.repeat(ways[:, None].astype(float), 500, axis=1)
    simulator = Simulator(maze)
    states = simulator.start(starts)
    ours = simulator.run(states, lambda observed: ways.astype(float), 500)[:, -1]
    extra = states[0].contact.includemargin.max() - MARGIN  # 0.002 in MuJoCo 4
    for simulated in (in_jax(maze, starts, actions)[:, -1], played(mujoco.Simulator(maze), starts, actions)[:, -1]):
        np.testing.assert_allclose((simulated - ours)[:, :2], extra * ways, atol=2e-5)


def test_how_far_runs_drift_apart(runs):
    starts, actions, observed = runs
    gaps = np.linalg.norm((observed - in_jax(LARGE, starts, actions))[:, -1, :2], axis=1)
    assert (gaps > 1e-3).mean() > 0.5  # most have touched a wall
    assert (
        np.median(gaps) <= 0.01 and np.quantile(gaps, 0.9) <= 0.05 and gaps.max() <= 0.2
    )  # 0.006, 0.04, 0.14 measured


def test_the_margin_is_the_whole_difference(runs):
    starts, actions, _ = runs
    simulator = Simulator(LARGE)
    simulator.model.geom_margin[simulator.model.geom_bodyid == 0] = 0  # all but the ball
    gaps = np.abs(played(simulator, starts, actions) - in_jax(LARGE, starts, actions))[..., :2]
    assert gaps.max() <= 1e-3  # 4e-5 measured
    np.testing.assert_allclose(
        played(simulator, starts, actions), played(mujoco.Simulator(LARGE), starts, actions), atol=1e-4
    )


def test_balls_stay_out_of_walls_unless_started_there(runs):
    positions = jnp.asarray(runs[2].reshape(-1, 4)[:, :2])
    assert jax.jit(jax.vmap(LARGE.is_free))(positions).all()
    rammed = played(Simulator(UMAZE), np.array([[0.8, 1.2, 0.0, 5.0]]), np.ones((1, 200, 2)))
    assert jax.jit(jax.vmap(UMAZE.is_free))(jnp.asarray(rammed[0, :, :2])).all()
    inside, still = np.array([[1.32, 0.8, 0.0, 0.0]]), np.zeros((1, 20, 2))
    assert played(Simulator(UMAZE), inside, still)[0, -1].tolist() == inside[0].astype(np.float32).tolist()
    assert in_jax(UMAZE, inside, still)[0, -1, 0] < 1.3 - maze2d.RADIUS


@pytest.mark.parametrize("room", [mujoco, robotics])
def test_both_simulators_are_used_alike(room):
    """Closed loop, in two parts: a spring and a damper bring each ball to its place; the first look is the start."""
    places = np.array([[1.0, 1.0], [2.4, 2.7], [1.2, 4.5]])
    starts, looks = np.array([[2.0, 2.0, 3.0, 0.0], [1.0, 4.0, 0.0, -3.0], [2.5, 3.5, 1.0, 1.0]]), []

    def act(observed):
        looks.append(observed.copy())
        return np.clip(10 * (places - observed[:, :2]) - observed[:, 2:], -1, 1)

    simulator = room.Simulator(OPEN)
    states = simulator.start(starts)
    first, second = simulator.run(states, act, 100), simulator.run(states, act, 500)
    assert first.shape == (3, 100, 4) and first.dtype == np.float32
    np.testing.assert_allclose(looks[0], starts, atol=1e-6)
    np.testing.assert_array_equal(looks[100], first[:, -1])
    np.testing.assert_allclose(second[:, -1, :2], places, atol=1e-3)
    np.testing.assert_allclose(second[:, -1, 2:], 0, atol=1e-3)


def test_it_is_quiet_and_leaves_nothing_behind(tmp_path):
    code = "from diffplan.envs.maze2d import UMAZE; from diffplan.envs.robotics import Simulator; Simulator(UMAZE)"
    settings = os.environ | {"JAX_PLATFORMS": "cpu", "TMPDIR": str(tmp_path)}
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr, list(tmp_path.iterdir())) == (0, "", "", [])
