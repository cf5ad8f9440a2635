"""The gymnasium wrapper: judged by gymnasium's own checker, and held to what the environment does without it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffplan.envs import base, gym, raster
from diffplan.envs.gridworld import CORRIDORS, FOUR_ROOMS, MOVES, Gridworld
from diffplan.envs.gym import ENVIRONMENTS, Gym
from diffplan.envs.linear import POINT
from diffplan.envs.maze2d import OPEN, UMAZE
from diffplan.envs.pendulum import PENDULUM
from diffplan.envs.potemkin import street

IDS = [f"diffplan/{name}-v0" for name in ENVIRONMENTS]
MAZES = [f"diffplan/Maze2d-{name}-v0" for name in ("open", "umaze", "medium", "large")]


def played(env: gymnasium.Env, actions: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a user sees of one episode: observations, rewards, terminated, truncated, one row a step."""
    rows = [env.step(action)[:4] for action in actions]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def draws(env: gymnasium.Env, steps: int) -> np.ndarray:
    env.action_space.seed(1)
    return np.array([env.action_space.sample() for _ in range(steps)])


def test_every_named_layout_has_an_id():
    assert set(MAZES) < set(IDS) < set(gymnasium.registry)
    assert {type(gymnasium.make(name).action_space).__name__ for name in MAZES} == {"Box"}
    for name in ("fourrooms", "corridors", "street"):
        assert gymnasium.make(f"diffplan/Gridworld-{name}-v0").action_space == gymnasium.spaces.Discrete(5)


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")  # the point's force is +-3
@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_finds_nothing(name):
    env = gymnasium.make(name)
    check_env(env.unwrapped)
    assert isinstance(env.unwrapped.environment, base.Environment)
    assert gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()).make().spec == env.spec  # Minari stores it


@pytest.mark.parametrize("name", IDS)
def test_an_episode_is_the_environments_own(name):
    env = gymnasium.make(name)
    first, _ = env.reset(seed=3)
    actions = draws(env, 60)
    vectors = np.eye(5)[actions] if actions.ndim == 1 else actions
    world = env.unwrapped.environment
    run = jax.jit(lambda o, a: base.rollout(world, jax.random.key(0), world.state_of(o), a))
    for mine, its in zip(played(env, actions), run(first, jnp.asarray(vectors, jnp.float32)), strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-4)


@pytest.mark.parametrize("name", ["diffplan/Maze2d-open-v0", "diffplan/Linear-point-v0"])
def test_the_limit_of_steps_is_the_environments(name):
    env = gymnasium.make(name)
    assert "TimeLimit" not in str(env)
    env.reset(seed=0)
    *_, terminated, truncated = played(env, draws(env, env.unwrapped.environment.max_steps))
    assert not terminated.any() and np.flatnonzero(truncated).tolist() == [len(truncated) - 1]
    assert env.reset()[0] is not None and not played(env, draws(env, 2))[3].any()  # the clock starts anew


@pytest.mark.parametrize("world", [UMAZE, Gridworld(FOUR_ROOMS.rows, slip=0.5)], ids=["maze", "slippery"])
def test_a_seed_fixes_this_episode_and_those_after_it(world):
    def episodes(seed: int) -> list[np.ndarray]:
        env = Gym(world)
        result = [env.reset(seed=seed)[0], *played(env, draws(env, 30))]
        return [*result, env.reset()[0], *played(env, draws(env, 30))]

    for left, right in zip(episodes(5), episodes(5), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(episodes(5)[1], episodes(6)[1])
    one = episodes(5)
    assert not np.array_equal(one[1], one[6])  # the second episode is another


def test_episodes_without_a_seed_begin_differently():
    env, fresh = Gym(UMAZE), Gym(UMAZE)
    starts = [env.reset(seed=0)[0], *(env.reset()[0] for _ in range(5)), fresh.reset()[0]]
    assert len(np.unique(np.array(starts)[:, 0])) == 7


def test_chance_follows_the_environments_distribution():
    """Slips are drawn anew at each step: the share of steps that go where they should is the distribution's, to 4
    deviations.
    """
    world = Gridworld(CORRIDORS.rows, slip=0.4, max_steps=10**6)
    env = Gym(world)
    first, _ = env.reset(seed=0)
    actions = draws(env, 4000)
    observed = np.concatenate([first[None], played(env, actions)[0]])
    number = np.full(world.walls.shape, -1)
    number[tuple(world.cells.T)] = np.arange(len(world.cells))
    cells = number[tuple(observed.astype(int).T)]
    right = cells[1:] == world.next_cell[cells[:-1], actions]
    chance = world.distribution[cells[:-1], actions, world.next_cell[cells[:-1], actions]]
    assert abs((right - chance).sum()) <= 4 * np.sqrt((chance * (1 - chance)).sum())
    assert abs(np.corrcoef((right - chance)[1:], (right - chance)[:-1])[0, 1]) <= 4 / np.sqrt(4000)


def test_a_start_may_be_given():
    env = Gym(UMAZE)
    start = np.array([2.7, 1.3, 0.5, -4.0], np.float32)
    assert env.reset(options={"observation": start})[0].tolist() == start.tolist()
    with pytest.raises(ValueError, match=r"unknown options \['start'\]: there is 'observation' alone"):
        env.reset(options={"start": start})
    with pytest.raises(ValueError, match=r"observation \[9.0, 9.0, 0.0, 0.0\]: not in the space Box"):
        env.reset(options={"observation": [9, 9, 0, 0]})


def test_moves_have_numbers():
    env = Gym(FOUR_ROOMS)
    for move, (down, right) in enumerate(MOVES):
        env.reset(options={"observation": [4, 4]})
        assert env.step(move)[0].tolist() == [4 + down, 4 + right]
    assert Gym(street(np.zeros(80))).action_space == env.action_space
    scores = Gym(FOUR_ROOMS, discrete=False)
    scores.reset(options={"observation": [4, 4]})
    assert scores.action_space.shape == (5,) and scores.step(np.array([0, 0.2, 0, 0.9, 0]))[0].tolist() == [4, 3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Gym("Maze2d-huge"), "unknown environment 'Maze2d-huge': choose one of Maze2d-open, Maze2d-umaze, "),
        (lambda: Gym(UMAZE, render_mode="human"), "unknown render_mode 'human': choose 'rgb_array' or None"),
        (lambda: reset(UMAZE).step(np.zeros(3)), r"action of shape \(3,\): must have shape \(2,\)"),
        (lambda: reset(FOUR_ROOMS).step(5), "action 5: must be an integer from 0 to 4"),
        (lambda: reset(FOUR_ROOMS).step(-1), "action -1: must be an integer from 0 to 4"),
    ],
)
def test_errors_are_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        wrong()
    assert "\n" not in str(error.value)


def reset(world: base.Environment) -> Gym:
    env = Gym(world)
    env.reset(seed=0)
    return env


def test_a_reset_comes_first():
    env = Gym(UMAZE, render_mode="rgb_array")
    for call in (lambda: env.step(np.zeros(2)), env.render):
        with pytest.raises(gymnasium.error.ResetNeeded):
            call()


def test_copies_share_one_compilation():
    world = Gridworld(FOUR_ROOMS.rows, slip=0.123)
    copies = [reset(Gridworld(FOUR_ROOMS.rows, slip=0.123)) for _ in range(3)]
    for env in (reset(world), *copies):
        for action in (0, np.int64(3), np.int32(2)):
            env.step(action)
    assert copies[0]._step is copies[2]._step and copies[0]._step._cache_size() == 1


def test_many_at_once_begin_differently():
    envs = gymnasium.make_vec("diffplan/Maze2d-umaze-v0", num_envs=3, vectorization_mode="sync")
    observations, _ = envs.reset(seed=0)
    assert len(np.unique(observations[:, 0])) == 3
    assert envs.step(envs.action_space.sample())[0].shape == (3, 4)


def test_worker_processes_make_an_environment_by_its_id(tmp_path):
    """The lines of the module's docstring, in a program of their own, after JAX was used."""
    lines = re.search(r"^    (if __name__.*?\n)\n", gym.__doc__, re.S | re.M)[1].replace("\n    ", "\n")
    shown = "    print(env.reset(seed=0)[0].shape, env.step(env.action_space.sample())[1].shape)\n    env.close()\n"
    program = tmp_path / "program.py"
    program.write_text(f"import gymnasium, jax\njax.numpy.ones(2).block_until_ready()\n{lines}{shown}")
    settings = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, program], env=settings, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(2, 4) (2,)", done.stderr


def test_a_fresh_process_needs_only_the_id():
    """gymnasium imports the module before the colon; importing it registers the ids."""
    code = (
        "import gymnasium; print(gymnasium.make('diffplan.envs.gym:diffplan/Maze2d-umaze-v0').reset(seed=0)[0].shape)"
    )
    settings = os.environ | {"JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=settings, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(4,)\n", "")


@pytest.mark.parametrize(
    ("world", "low", "place"),
    [(OPEN, -0.7, (2.37, 4.11, 1, 1)), (CORRIDORS, -0.5, (5.0, 3.0)), (street(np.zeros(80)), -0.5, (8.0, 8.0))],
    ids=["maze", "gridworld", "potemkin"],
)
def test_a_picture_shows_where_things_are(world, low, place):
    env = Gym(world, render_mode="rgb_array")
    env.reset(options={"observation": np.array(place, np.float32)})
    frame = env.render()
    at = lambda colour: (frame == np.array(colour, np.uint8)).all(axis=-1)
    walls = getattr(world, "grid", world).walls
    assert at(raster.WALL).mean() == pytest.approx(walls.mean())
    assert at(raster.GOAL).any()
    centroid = (np.argwhere(at(raster.AGENT)).mean(axis=0) + 0.5) / raster.PIXELS + low
    np.testing.assert_allclose(centroid, place[:2], atol=1 / raster.PIXELS)


@pytest.mark.parametrize("theta", [0.0, 0.7, -2.5])
def test_a_pendulum_is_drawn_as_gymnasium_draws_it(theta):
    """The rod's middle lies 1.5 cells from the hinge, a positive angle to the left; the upright end covers the goal."""
    frame = raster.picture(PENDULUM, np.array([np.cos(theta), np.sin(theta), 3], np.float32))
    at = lambda colour: (frame == np.array(colour, np.uint8)).all(axis=-1)
    middle = (np.argwhere(at(raster.AGENT)).mean(axis=0) + 0.5) / raster.PIXELS - 4
    np.testing.assert_allclose(middle, [-1.5 * np.cos(theta), -1.5 * np.sin(theta)], atol=0.02)
    goal = (np.argwhere(at(raster.GOAL)).mean(axis=0) + 0.5) / raster.PIXELS - 4
    np.testing.assert_allclose(goal, [-3, 0], atol=0.2)
    assert Gym(PENDULUM).metadata["render_fps"] == 20


def test_what_has_no_map_is_drawn_as_bars():
    low, high = POINT.observation_low, POINT.observation_high
    middles = []
    for fraction in (0.25, 0.75):
        frame = raster.picture(POINT, low + np.float32(fraction) * (high - low))
        middles.append(np.argwhere((frame == np.array(raster.AGENT, np.uint8)).all(axis=-1))[:, 1].mean())
    np.testing.assert_allclose(np.array(middles) / frame.shape[1], [0.25, 0.75], atol=0.01)
    assert Gym(POINT).render() is None
