"""Every world that ships keeps to what a task promises: its data, reward, violations, starts, delivery and drawing."""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from diffplan.cli.main import main
from diffplan.data import files
from diffplan.data.windows import Windows
from diffplan.envs import gridworld, maze2d
from diffplan.episodes import Episodes
from diffplan.experiment.compare import starts_of
from diffplan.learn.prior import PriorSettings
from diffplan.planner import feasible
from diffplan.planner.build import Builder, split
from diffplan.planner.decide import decide
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.settings import ConfigError
from diffplan.simulators import OpenLoop, Running, Tracking, begin, carry_out, end, is_host
from diffplan.task import Task
from diffplan.tasks import DRAWINGS, TASKS, make_task
from diffplan.types import Trajectory

KEY = jax.random.key(0)
H = 16
SMALL = {
    "maze2d": {"episodes": 6, "steps": 200},
    "gridworld": {"episodes": 12, "steps": 80},
    "linear": {"episodes": 20, "steps": 50},
    "pendulum": {"episodes": 12, "steps": 60},
    "pointmaze": {"episodes": 4, "steps": 60},
}


def named(name: str) -> Any:
    """A task as a parameter: OGBench's are slow, for MuJoCo has to start."""
    return pytest.param(name, marks=[pytest.mark.slow] if name.startswith("pointmaze") else [])


class Made(NamedTuple):
    """A small task with its data, as an experiment would build on them."""

    task: Task
    episodes: Episodes
    build: Builder

    @property
    def windows(self) -> Windows:
        """The windows to train on, all of them on the device."""
        assert isinstance(self.build.data.every, Windows)
        return self.build.data.every


@cache
def made(name: str) -> Made:
    if name.startswith("pointmaze"):
        pytest.importorskip("ogbench")
    task = make_task(name, **SMALL[TASKS[name].module])
    episodes = task.episodes()
    config = PlannerSettings(prior=PriorSettings(horizon=H, stride=1))
    decided = decide(config, task, episodes)
    data = split(task, decided, episodes, "these")
    return Made(task, episodes, Builder(Run(Path()), task, decided, data, task.reward))


every = pytest.mark.parametrize("name", [named(name) for name in TASKS])


def some(windows: Windows, count: int = 64) -> tuple[Trajectory, jax.Array]:
    """(windows of data in the environment's units, their first rows)."""
    first = windows.places(KEY, count)
    return jax.vmap(windows.trajectory)(first), first


# -- data --


@every
def test_episodes_are_what_the_task_says(name):
    task, episodes, _ = made(name)
    size = SMALL[TASKS[name].module]
    assert episodes.count == size["episodes"] and episodes.lengths.max() <= size["steps"]
    rows = int(episodes.lengths.sum())
    assert episodes.observations.shape == (rows, task.observation_dim)
    assert episodes.actions.shape == (rows, task.action_dim)
    assert episodes.observations.dtype == episodes.actions.dtype == np.float32
    assert np.isfinite(episodes.observations).all() and np.isfinite(episodes.actions).all()
    assert episodes.discrete == task.discrete
    low, high = np.asarray(task.simulator.action_low), np.asarray(task.simulator.action_high)
    if name != "linear-point":  # whose policy is Gaussian, and whose bounds clip nothing
        assert (episodes.actions >= low - 1e-6).all() and (episodes.actions <= high + 1e-6).all()
    assert len(np.unique(episodes.observations[episodes.begins], axis=0)) > 1  # episodes begin in different places


@every
def test_a_step_of_the_data_is_a_step_of_the_simulator(name):
    """The residual of pairs of rows is 0; of a host, whose states cannot be set, the task has none."""
    task, episodes, _ = made(name)
    first = Windows.of(episodes, made(name).build.data.rows, 2).first[::7]
    o, a, after = (jnp.asarray(part) for part in (episodes.observations, episodes.actions, episodes.observations[1:]))
    if task.residual is None:
        assert is_host(task.simulator)
        return
    apart = jax.vmap(task.residual)(o[first], a[first], after[first])
    assert float(jnp.max(apart)) < 1e-4


@every
def test_the_reward_of_a_row_is_what_a_step_from_it_pays(name):
    task, episodes, _ = made(name)
    assert task.reward is not None
    rows = slice(None, None, max(1, len(episodes.actions) // 200))
    o, a = jnp.asarray(episodes.observations[rows]), jnp.asarray(episodes.actions[rows])
    rewards = np.asarray(jax.jit(jax.vmap(task.reward))(o, a))
    assert np.isfinite(rewards).all()
    if not is_host(task.simulator):
        step = lambda o, a: task.simulator.step(KEY, task.simulator.state_of(o), a)[1].reward
        np.testing.assert_allclose(rewards, jax.jit(jax.vmap(step))(o, a), atol=1e-5)
        return
    handles, seen = task.simulator.reset(np.arange(5))
    for row in range(5):
        actions = np.asarray(a[row : row + 5])
        after, paid, *_ = task.simulator.step(handles, actions)
        np.testing.assert_array_equal(paid, jax.vmap(task.reward)(jnp.asarray(seen), jnp.asarray(actions)))
        seen = after


@every
def test_data_can_be_written_and_read(name, tmp_path):
    episodes = made(name).episodes
    files.save(tmp_path / "rows.npz", episodes, {"name": name})
    again, description = files.load(tmp_path / "rows.npz")
    assert description["name"] == name
    for one, other in zip(episodes, again, strict=True):
        np.testing.assert_array_equal(one, other) if one is not None else None
    assert (again.rewards is None) == (episodes.rewards is None)


# -- plans --


@every
def test_behaviour_is_feasible_and_nonsense_is_not(name):
    """Nonsense jumps between corners far outside of the data."""
    task, episodes, build = made(name)
    violations = feasible.violations_of(task, feasible.limits_of(task, made(name).windows), made(name).windows.stride)
    assert violations
    plans, _ = some(made(name).windows)
    for words, violation in violations.items():
        assert np.max(np.asarray(jax.vmap(violation)(plans))) == 0, words
    rows = episodes.observations
    low, high = (10 * end - 9 * rows.mean(axis=0) for end in (rows.min(axis=0), rows.max(axis=0)))
    jumps = jnp.where((jnp.arange(H) % 2 == 0)[:, None], jnp.asarray(low)[None], jnp.asarray(high)[None])
    nonsense = Trajectory(jumps, jnp.zeros((H, task.action_dim)))
    assert max(float(violation(nonsense)) for violation in violations.values()) > 0
    assert build.decided.horizon == H


@every
def test_plans_begin_where_the_simulator_begins(name):
    task, _, build = made(name)
    start = starts_of(build, KEY, 5)
    assert start.observations.shape == (5, task.observation_dim) and start.windows.shape == (5,)
    running = begin(task.simulator, start.states)
    np.testing.assert_array_equal(running.observations, start.observations)
    end(task.simulator, running)
    windows = jax.vmap(build.data.held_out.trajectory)(start.windows)
    assert np.isin(start.windows, build.data.held_out.first).all()
    if not is_host(task.simulator):
        np.testing.assert_array_equal(windows.observations[:, 0], start.observations)


@every
def test_windows_of_data_deliver_what_they_earn(name):
    """Open loop from where they begin, row for row; on a host, the actions of one run from the same seeds again."""
    task, _, build = made(name)
    if is_host(task.simulator):
        actions = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, H, task.action_dim)), jnp.float32)
        plans, totals = Trajectory(jnp.zeros((4, H, task.observation_dim)), actions), []
        for _ in range(2):
            running = begin(task.simulator, np.arange(4))
            running, returns = carry_out(KEY, task.simulator, OpenLoop(1), running, plans, H)
            end(task.simulator, running)
            totals.append(np.asarray(returns))
        np.testing.assert_array_equal(*totals)
        return
    start = starts_of(build, KEY, 32)
    plans = jax.vmap(build.data.held_out.trajectory)(start.windows)
    _, delivered = carry_out(KEY, task.simulator, OpenLoop(1), begin(task.simulator, start.states), plans, H)
    np.testing.assert_allclose(delivered, build.returns(build.data.held_out, start.windows), atol=2e-3)


@every
def test_the_tracker_arrives_at_the_next_row(name):
    """Following the observations of data ends where they end, up to 0.2 cells."""
    task, _, build = made(name)
    if task.tracker is None:
        assert name in ("linear-point", "pendulum")
        return
    start = starts_of(build, KEY, 8)
    plans = jax.vmap(build.data.held_out.trajectory)(start.windows)
    actions = jax.vmap(task.tracker)(plans.observations[:, 0], plans.observations[:, 1])
    assert actions.shape == (8, task.action_dim) and bool(jnp.isfinite(actions).all())
    if is_host(task.simulator):  # one step of the stride, in free space
        away = plans.observations[:, 1] - plans.observations[:, 0]
        assert float(jnp.mean(jnp.abs(task.simulator.maze.stride * actions - away))) < 0.05
        return
    running = begin(task.simulator, start.states)
    running, _ = carry_out(KEY, task.simulator, Tracking(task.tracker, 1), running, plans, H - 1)
    place = task.plane.place if task.plane else lambda row: row
    missed = jnp.linalg.norm(place(running.observations) - place(plans.observations[:, -1]), axis=-1)
    assert float(missed.max()) < 0.2


# -- words and pictures --


@every
def test_tables_and_figures_have_words(name):
    task = made(name).task
    assert task.name == name and TASKS[name].about
    words = task.words
    assert len(words.observations) == task.observation_dim and len(words.actions) == task.action_dim
    assert set(words.violations) >= set(task.violations)
    for text in (*words.observations, *words.actions, *words.violations.values(), words.returns, words.step):
        assert text and text.strip() == text and "\n" not in text
    assert task.reward_settings is not None or name == "linear-point"


@every
def test_data_are_drawn_in_free_cells_and_pay_in_the_region(name):
    task, episodes, _ = made(name)
    if task.plane is None:
        assert name in ("linear-point", "pendulum")
        return
    place, _, solid, origin, size, region = task.plane
    points = np.asarray(place(jnp.asarray(episodes.observations)))
    assert solid is not None and points.shape == (len(episodes.actions), 2)
    cells = np.floor((points - np.asarray(origin)) / size).astype(int)
    assert (cells >= 0).all() and (cells < np.asarray(solid.shape)).all()
    assert not solid[tuple(cells.T)].any()
    assert region is not None and task.reward is not None
    middle = np.floor((np.asarray(region[:2]) - origin) / size).astype(int)
    assert not solid[tuple(middle)]
    assert 0 < solid.mean() < 1 and solid[0].all() and solid[-1].all()
    pays = jax.vmap(task.reward)(jnp.asarray(episodes.observations), jnp.asarray(episodes.actions)) > 0
    away = np.linalg.norm(points - np.asarray(region[:2]), axis=1) - region[2]
    sure = np.abs(away) > 1e-4
    np.testing.assert_array_equal(np.asarray(pays)[sure], away[sure] <= 0)


# -- bounds --


@every
def test_no_window_of_data_earns_more_than_the_bound(name):
    task, _, build = made(name)
    if task.bound is None:
        assert TASKS[name].module in ("maze2d", "pointmaze")
        return
    plans, first = some(build.data.held_out, 32)
    returns = np.asarray(build.returns(build.data.held_out, first))
    bounds = np.array([task.bound(start, H) for start in np.asarray(plans.observations[:, 0])])
    slack = 0.6 if name == "pendulum" else 1e-3  # what the grid of value iteration errs by
    assert (returns <= bounds + slack).all()
    assert bounds.max() <= H * 1.01 or name == "linear-point"


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_points_bound_is_what_an_optimiser_finds(steps):
    """Brute force: BFGS on the actions themselves, in a loop of numpy."""
    task = made("linear-point").task
    assert task.bound is not None

    def cost(actions: np.ndarray, start: np.ndarray) -> float:
        x, v, total = *start, 0.0
        for u in actions:
            total += x - x**2 / 2 - u**2 / 20
            x, v = x + 0.1 * v, 0.9 * v + 0.2 * u
        return -total

    for start in ([0.0, 0.0], [0.7, -0.4], [-1.5, 1.0]):
        best = optimize.minimize(cost, np.zeros(steps), np.asarray(start), tol=1e-10)
        assert task.bound(np.asarray(start), steps) == pytest.approx(-best.fun, abs=1e-5)


@pytest.mark.parametrize("name", [name for name, shipped in TASKS.items() if shipped.module == "gridworld"])
def test_the_gridworlds_bound_is_that_of_dynamic_programming(name):
    task = made(name).task
    assert task.bound is not None
    world, cells = task.simulator, np.asarray(task.simulator.cells)
    reward = (cells == np.asarray(world.goal)).all(axis=1).astype(float)
    values = np.zeros(len(cells))
    for steps in range(1, 25):
        values = reward + values[world.next_cell].max(axis=1)
        if steps in (1, 2, 7, 24):
            bounds = [task.bound(cell.astype(np.float32), steps) for cell in cells]
            np.testing.assert_array_equal(bounds, values)
    assert make_task(name, slip=0.1).bound is None  # for which it would be wrong


# -- settings --


def walls_of(name: str) -> list[tuple[float, float]]:
    """The centres of the wall cells of a maze."""
    return [(float(i) - 0.2, float(j) - 0.2) for i, j in np.argwhere(maze2d.named(name).walls)]


@pytest.mark.parametrize("maze", ["open", "umaze", "medium", "large"])
def test_a_region_in_a_wall_is_refused_with_one_that_is_free(maze):
    """The proposal is accepted, and is the default of the maze."""
    for centre in walls_of(maze)[:: max(1, len(walls_of(maze)) // 5)]:
        with pytest.raises(ConfigError, match=r"task\.centre=") as error:
            make_task(f"maze2d-{maze}", centre=centre, radius=0.3)
        assert f"{centre}" in str(error.value) and "\n" not in str(error.value)
        proposed = str(error.value).rpartition("such as (")[2].rstrip(")").split(",")
        task = make_task(f"maze2d-{maze}", centre=tuple(float(each) for each in proposed))
        assert task.plane is not None and task.plane.region == make_task(f"maze2d-{maze}").plane.region  # pyright: ignore


def test_values_that_cannot_work_are_refused_by_name():
    for name, settings, words in (
        ("maze2d-umaze", {"episodes": 1}, r"task\.episodes=1: must be between 2 and"),
        ("maze2d-umaze", {"maze": "tiny"}, r"task\.maze='tiny': unknown maze 'tiny'"),
        ("maze2d-umaze", {"maze": "no/such.txt"}, r"task\.maze='no/such\.txt': "),
        ("maze2d-umaze", {"colour": 1}, r"task\.colour: unknown; maze2d-umaze has centre, episodes, max_steps, "),
        ("gridworld-street", {"layout": "alley"}, r"task\.layout='alley': unknown gridworld"),
        ("gridworld-street", {"slip": 1.5}, r"task\.slip=1\.5: must be between 0 and 1"),
        ("linear-point", {"steps": 1}, r"task\.steps=1: must be between 2 and"),
        ("pendulum", {"seed": -1}, r"task\.seed=-1: must be"),
        ("pointmaze-medium-navigate", {"maze": "tiny-stitch"}, r"task\.maze='tiny-stitch': must be one of medium-nav"),
        ("nothing", {}, r"task='nothing': must be one of maze2d-open, .*gymnasium id, my_world\.py:NAME"),
        ("no.npz", {}, r"task\.path='no\.npz': no such file"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_task(name, **settings)


@pytest.mark.parametrize(
    ("family", "setting", "name"), [("maze2d", "maze", "umaze"), ("gridworld", "layout", "street")]
)
def test_a_drawing_is_the_world_that_it_draws(family, setting, name, tmp_path):
    rows = maze2d.named(name).rows if family == "maze2d" else gridworld.named(name).rows
    drawing = tmp_path / f"{name}.txt"
    drawing.write_text("\n".join(rows))
    assert family in DRAWINGS
    drawn, shipped = make_task(family, **{setting: str(drawing)}), make_task(f"{family}-{name}")
    assert drawn.name == shipped.name and drawn.settings["drawing"] == shipped.settings["drawing"]


@pytest.mark.parametrize("name", ["maze2d-umaze", "gridworld-street", "linear-point", "pendulum"])
def test_what_decides_the_data_is_their_identity_and_the_reward_is_not(name):
    small = SMALL[TASKS[name].module]
    one, same, other = (make_task(name, **small, seed=seed) for seed in (0, 0, 1))
    assert one.settings == same.settings != other.settings
    first, second, third = (task.episodes().observations for task in (one, same, other))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    if name == "maze2d-umaze":
        goal = make_task(name, **small, reward="goal")
        assert goal.settings == one.settings and goal.reward_settings != one.reward_settings
    assert dataclasses.replace(one, name="mine").name == "mine"
    assert isinstance(begin(one.simulator, jax.vmap(one.simulator.reset)(jax.random.split(KEY, 2))), Running)


def test_a_region_in_a_wall_is_refused_before_anything_is_simulated(tmp_path, capsys):
    run = ["--preset", "debug", "--run", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(["compare", "maze2d-umaze", *run, "--task.centre", "1.8", "1.8"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert said.startswith("error: task.centre=(1.8, 1.8): no point within task.radius (0.3)") and "(1.6, 2.7)" in said
    assert not list(tmp_path.iterdir())
