"""The planner that a user meets: what it plans, how its agents act, what is saved and read back."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffplan as dp
from diffplan.benchmarks import gridworld
from diffplan.cli import experiment
from diffplan.flow_map import FewSteps, few_steps
from diffplan.learn.train import TrainSettings
from diffplan.noise import karras
from diffplan.planner.agent import whole_goal
from diffplan.planner.play import play
from diffplan.planner.reaching import GoalSettings
from diffplan.runs import RunError
from diffplan.settings import ConfigError
from tests import small

START = np.array([1.0, 1.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def task() -> dp.Task:
    """A U-maze with little behaviour."""
    return dp.make_task("maze2d-umaze", episodes=12, steps=60)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("planner") / "run"


@pytest.fixture(scope="module")
def planner(task, run) -> dp.Planner:
    """Networks of two steps of training, plans of 8 rows."""
    return dp.Planner.fit(task, run, settings=small.smaller())


def tree(folder: Path) -> dict[str, tuple[int, float]]:
    """Size and time of every file."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime) for p in folder.rglob("*") if p.is_file()}


def same(left: dp.Planner, right: dp.Planner, atol: float = 0.0) -> None:
    """Both draw the same plans, and say the same of them."""
    ours, theirs = (each.plan(jax.random.key(3), START, scale=2.0, n=4) for each in (left, right))
    np.testing.assert_allclose(ours.x, theirs.x, atol=atol)
    np.testing.assert_allclose(ours.promised, theirs.promised, atol=atol)
    np.testing.assert_array_equal(ours.feasible, theirs.feasible)


def test_plans_begin_at_the_start_and_end_at_the_goal(planner):
    plans = planner.plan(jax.random.key(0), START, n=5, goal=[3.0, 1.0], candidates=2)
    assert plans.observations.shape == (5, 8, 4) and plans.actions.shape == (5, 8, 2)
    np.testing.assert_allclose(plans.observations[:, 0], np.tile(START, (5, 1)), atol=1e-5)
    np.testing.assert_allclose(plans.observations[:, -1], np.tile([3.0, 1.0, 0, 0], (5, 1)), atol=1e-5)
    assert len(np.unique(plans.x[:, 4], axis=0)) == 5


def finer(planner: dp.Planner) -> dp.Planner:
    """The same with 24 noise levels; three are too few for guidance that is strong beside what has been learned."""
    fine = dataclasses.replace(planner.model.sampler, sigmas=karras(24, 0.02, 10.0))
    return dataclasses.replace(planner, model=dataclasses.replace(planner.model, sampler=fine))


def test_a_scale_raises_the_learned_reward_and_a_candidate_is_the_best_of_several(planner):
    """At scale 0 plans are those without a scale; of n candidates the best has the highest score."""
    draw = lambda **how: finer(planner).plan(jax.random.key(1), START, n=64, **how)
    np.testing.assert_allclose(draw(scale=0.0).x, draw().x, atol=1e-5)
    assert draw(scale=30.0).proxy.mean() > draw().proxy.mean() + 1
    assert draw(candidates=8).proxy.mean() > draw().proxy.mean() + 0.5


def test_an_energy_of_ones_own_guides_in_place_of_the_learned_reward(planner):
    """Towards larger first entries of row 4, and of no other row."""
    energy = lambda x, sigma: x[4, 0]
    free, pushed = (finer(planner).plan(jax.random.key(2), START, scale, 64, energy=energy) for scale in (0.0, 1.0))
    gain = (pushed.x - free.x).mean(axis=0)[:, 0]
    assert gain[4] > 0.1 and gain.argmax() == 4


def test_promised_is_the_true_reward_summed_and_delivered_is_what_the_simulator_pays(planner, task):
    plans = planner.plan(jax.random.key(4), START, n=6)
    rewards = [
        [float(task.reward(o, a)) for o, a in zip(*rows, strict=True)]
        for rows in zip(plans.observations, plans.actions, strict=True)
    ]
    np.testing.assert_allclose(plans.promised, np.sum(rewards, axis=1), atol=1e-5)
    delivered = planner.deliver(jax.random.key(0), plans, "open_loop")
    maze, totals = task.simulator, []
    for plan in plans.actions:
        state, total = maze.state_of(jnp.asarray(START)), 0.0
        for action in plan:
            state, moved = maze.step(jax.random.key(0), state, action)
            total += float(moved.reward)
        totals.append(total)
    np.testing.assert_allclose(delivered, totals, atol=1e-5)


def test_a_run_is_read_back_without_a_word_written(planner, run, task):
    before = tree(run)
    same(dp.load(run), planner)
    same(dp.load(run, task), planner)
    assert tree(run) == before
    same(dp.Planner.fit(task, run), planner)  # with the settings of the run, no preset named


def test_reading_trains_nothing_and_names_what_differs(run, task, planner, tmp_path):
    with pytest.raises(RunError, match=r"config.json: no such file, or it holds no settings of a planner"):
        dp.load(tmp_path)
    with pytest.raises(RunError, match=r"no such file, and no run directory"):
        dp.load(tmp_path / "none.npz")
    other = dp.make_task("maze2d-umaze", episodes=13, steps=60)
    before = tree(run)
    with pytest.raises(RunError, match=r"data: task.episodes was 12 and is now 13; reading a run makes nothing"):
        dp.load(run, other)
    assert tree(run) == before


@pytest.mark.parametrize(("half", "atol"), [(False, 0.0), (True, 0.05)])
def test_one_file_holds_a_planner(planner, tmp_path, half, atol):
    path = planner.save(tmp_path / "small", half=half)
    assert path.name == "small.npz"
    same(dp.load(path), planner, atol)
    with pytest.raises(ConfigError, match="a file that does not exist yet"):
        planner.save(path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(RunError, match="damaged"):
        dp.load(tmp_path / "damaged.npz")


def test_an_agent_follows_its_plan_and_plans_anew(planner, task):
    """By the plan's own actions for `every` steps, then from where it is."""
    agent = planner.agent(scale=1.0, every=3, way="open_loop", seed=5)
    agent.reset()
    actions = [agent.act(START)]
    plan = agent.plan
    actions += [agent.act(START + 0.1), agent.act(START)]
    low, high = planner.bounds
    np.testing.assert_allclose(actions, np.clip(plan.actions[0, :3], low, high), atol=1e-6)
    agent.act(START + 0.1)
    np.testing.assert_allclose(agent.plan.observations[0, 0], START + 0.1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"^observation: episodes=7: must be 1, or call reset"):
        agent.act(np.tile(START, (7, 1)))
    agent.reset()
    assert agent.act(np.tile(START, (7, 1))).shape == (7, 2)


def test_an_agent_near_its_goal_rests_there(planner):
    agent = planner.agent(every=4)
    agent.reset(goal=[1.2, 1.0])
    agent.act(START)
    np.testing.assert_allclose(agent.plan.observations[0, 1:], np.tile([1.2, 1.0, 0, 0], (7, 1)), atol=1e-6)
    agent.reset(goal=[3.0, 1.0])
    agent.act(START)
    np.testing.assert_allclose(agent.plan.observations[0, 0], START, atol=1e-5)


def test_a_batch_of_episodes_is_played(planner, task):
    agent = planner.agent(scale=1.0, every=4)
    rollout = play(jax.random.key(0), task, agent, episodes=3, steps=6)
    assert rollout.observations.shape == (3, 7, 4) and (rollout.lengths == 6).all()
    assert np.abs(np.diff(rollout.observations[..., :2], axis=1)).max() < 0.2  # nothing leaps


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.plan(jax.random.key(0), START[:3]), r"start: shape=\[3\]: must be \[4\]"),
        (lambda p: p.plan(jax.random.key(0), START, n=0), "n=0: must be at least 1"),
        (lambda p: p.plan(jax.random.key(0), START, candidates=0), "candidates=0: must be at least 1"),
        (lambda p: p.plan(jax.random.key(0), [*START[:3], float("nan")]), r"start=\[.*nan\]: must be finite numbers"),
        (
            lambda p: p.plan(jax.random.key(0), START, scale=float("inf")),
            "scale=inf: must be a finite number",
        ),
        (lambda p: p.plan(jax.random.key(0), START, goal=[1.0]), r"goal: shape=\[1\]: must be \[..., 2\]"),
        (lambda p: p.agent(every=0), "every=0: must be at least 1"),
        (lambda p: p.fast(), "fast: this planner has no flow map; Planner.fit"),
        (lambda p: p.fast(0), "evaluations=0: must be at least 1"),
        (lambda p: p.early(-0.1), "tolerance=-0.1: must be at least 0"),
        (lambda p: p.agent().act(np.zeros(3)), r"observation: shape=\[3\]: must be \[..., 4\]"),
        (lambda p: dp.Planner.pretrained("umaze"), "pretrained='umaze': must be one of"),
        (lambda p: dp.Planner.fit(p.task, preset="smoke"), "preset='smoke': must be one of"),
    ],
)
def test_a_wrong_argument_is_named(planner, call, words):
    with pytest.raises(ConfigError, match=f"^{words}"):
        call(planner)


def test_a_planner_is_described_in_a_line(planner):
    assert repr(planner) == "Planner(maze2d-umaze: plans of 8 rows, 1 apart)"


def test_ways_are_judged_by_what_is_known_of_their_steps(planner):
    """Limits are those of single rows, so steps of three are judged by the world's bounds alone."""
    plain = dataclasses.replace(planner.task, violations={})
    ways = dataclasses.replace(planner.model, stride=3)
    near, far = dataclasses.replace(planner, task=plain, ways=ways).measures
    assert (len(near.violations), len(far.violations)) == (3, 1)
    assert len(dataclasses.replace(planner, ways=ways).measures[1].violations) == 1 + len(planner.task.violations)


def test_ways_are_learned_to_places_alone(tmp_path):
    with pytest.raises(ConfigError, match=r"task.goal=\(2,\): must be \(0, 1\)"):
        dp.Planner.fit(dataclasses.replace(dp.make_task("pendulum"), goal=(2,)), tmp_path / "run", goals=True)
    assert not (tmp_path / "run").exists()


def test_a_goal_gives_the_entries_that_the_task_names(task):
    np.testing.assert_array_equal(whole_goal(task, np.array([[2.0, 3.0]])), [[2.0, 3.0, 0, 0]])
    with pytest.raises(ConfigError, match=r"goal=.*: must be left out: task pendulum has none"):
        whole_goal(dp.make_task("pendulum"), np.zeros(2))


def test_the_commands_as_functions_share_a_run(task, run, planner, tmp_path):
    """What `fit` trained is used; a second call reads everything back; rows have promised and delivered returns."""
    before = tree(run / "prior")
    table = dp.compare(task, ("best_of_n",), run, settings=small.fewest())
    assert tree(run / "prior") == before
    best = table.best["best_of_n"]
    assert np.isfinite([best["promised"], best["delivered"], best["feasible"]]).all()
    assert {row["method"] for row in table.rows} == {"prior", "best_of_n", "null_noise", "null_shuffled", "behaviour"}
    assert str(table).startswith("| method") and (run / "frontier.png").exists()
    assert str(dp.compare(task, ("best_of_n",), run).rows) == str(table.rows)
    result = dp.tune(task, run, low=1.0, high=10.0, points=3, repeats=2)
    assert result.content["method"] == "guided" and result.reason and result.recommended is not None
    assert (result.run / "sweep.png").exists()
    assert dp.plot(run, tmp_path)[0].parent == tmp_path


def test_plans_that_have_settled_are_done(planner, tmp_path):
    """At tolerance 0 they are the plans of all levels; at another a file keeps it, and agents plan by it."""
    draw = lambda planner: planner.plan(jax.random.key(0), START, n=5, scale=2.0).x
    assert dp.load(planner.early(0.2).save(tmp_path / "early.npz")).model.tolerance == 0.2
    sampler = dataclasses.replace(planner.model.sampler, sigmas=karras(8, 0.02, 10.0))
    planner = dataclasses.replace(planner, model=dataclasses.replace(planner.model, sampler=sampler))
    np.testing.assert_allclose(draw(planner.early(0)), draw(planner), atol=1e-5)
    early = planner.early(5.0)
    assert np.abs(draw(early) - draw(planner)).max() > 1e-3
    agent = early.agent(scale=2.0, every=2, warm=True)
    assert np.isfinite([agent.act(START) for _ in range(4)]).all()


def test_a_few_evaluations_of_a_flow_map_draw_plans_guided_or_not(task, run, planner, tmp_path):
    """The map is distilled into the run beside what is there; a file holds it too; agents plan by it."""
    made = dp.Planner.fit(task, run, few_steps=True)
    same(made, planner)
    draw = lambda planner, **how: planner.fast(2).plan(jax.random.key(0), START, n=5, **how)
    plans, pushed = draw(made, goal=[3.0, 1.0]), draw(made, scale=30.0, candidates=2)
    np.testing.assert_allclose(plans.observations[:, 0], np.tile(START, (5, 1)), atol=1e-5)
    np.testing.assert_allclose(plans.observations[:, -1, :2], np.tile([3.0, 1.0], (5, 1)), atol=1e-5)
    assert pushed.proxy.mean() > draw(made).proxy.mean() and made.deliver(jax.random.key(1), pushed).shape == (5,)
    for again in (dp.load(run), dp.load(made.save(tmp_path / "whole.npz"))):
        np.testing.assert_array_equal(draw(again, scale=2.0).x, draw(made, scale=2.0).x)
    assert dp.load(made.fast(3).save(tmp_path / "fast.npz")).model.evaluations == 3
    assert experiment.load(run / "config.json").planner == small.smaller()  # the commands go on with the run
    record = run / "flow_map" / "stage.json"
    whole = record.read_text()
    record.write_text(whole.replace('"prior": "', '"prior": "other '))
    assert dp.load(run).model.flow_map is None
    same(dp.load(run), planner)
    record.write_text(whole)
    model = made.fast(2).model  # half of its evaluations, from the first level of a warm start
    row, past = jnp.asarray(START), jnp.full(model.sampler.shape, 0.3)
    pins, level = model.codec.pin(model.horizon, row), model.sampler.sigmas[model.warmed :][:1]
    how = FewSteps(level, model.sampler.shape)
    warm = few_steps(jax.random.key(2), model.flow_map, how, pins, warm=past)
    np.testing.assert_allclose(model.draw(jax.random.key(2), row, past=past)[0], warm, atol=1e-5)
    assert np.abs(model.draw(jax.random.key(2), row)[0] - warm).max() > 1e-3
    agent, slow = made.fast(2).agent(scale=2.0, every=4, warm=True), made.agent(scale=2.0, every=4)
    acted = [[each.act(START) for _ in range(6)] for each in (agent, slow)]  # the second plan is warm
    assert np.isfinite(acted).all() and not np.allclose(*acted)
    rooms = dp.make_task("gridworld-fourrooms", episodes=12, steps=60)
    with pytest.raises(ConfigError, match=r"few_steps=True: must be False: flow maps are of continuous plans"):
        dp.Planner.fit(rooms, tmp_path / "rooms", settings=small.smaller(), few_steps=True)


@pytest.mark.slow
def test_a_run_with_ways_to_goals_is_read_back_and_the_commands_go_on_with_it(task, tmp_path):
    """The model of ways plans where there is a goal; the command reads the settings that it shares."""
    tiny = TrainSettings(steps=2, batch=4, chunk=2, save_every=2)
    parts = dict.fromkeys(("prior", "low_level", "value", "inverse", "reach"), tiny)
    goals = GoalSettings(horizon=8, stride=3, levels=3, width=16, depth=2, features=8, **parts)
    run = tmp_path / "run"
    made = dp.Planner.fit(task, run, settings=small.smaller(), goals=goals)
    plans = made.plan(jax.random.key(0), START, n=3, goal=[3.0, 1.0], candidates=2)
    assert plans.observations.shape == (3, 8, 4) and plans.actions.shape == (3, 8, 0)
    assert made.deliver(jax.random.key(0), plans).shape == (3,)
    for again in (dp.load(run), dp.load(made.save(tmp_path / "whole.npz"))):
        np.testing.assert_array_equal(
            again.plan(jax.random.key(0), START, n=3, goal=[3.0, 1.0], candidates=2).x, plans.x
        )
    assert experiment.load(run / "config.json").planner == small.smaller()


def run_alone(program: str, folder: Path) -> str:
    """What a program prints that is run as it stands, in a folder of its own."""
    path = Path(__file__).parent / "worlds" / program
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, path], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_arrays_run_as_they_stand(tmp_path):
    """The example of data alone, as a user has it."""
    assert run_alone("arrays.py", tmp_path).startswith("(64, 32, 2) proxy ")
    assert (tmp_path / "runs" / "walks" / "prior").is_dir()


def test_the_planner_that_ships_reaches_its_goal_in_a_foreign_simulator(tmp_path):
    """In gymnasium-robotics' PointMaze, whose coordinates are turned and whose goals are random."""
    pytest.importorskip("gymnasium_robotics")
    assert run_alone("gymnasium_loop.py", tmp_path).startswith("reached after ")


@pytest.mark.slow
def test_the_planner_of_four_rooms_reaches_the_goal_from_anywhere_under_gymnasium_s_id():
    """Against the most steps on the goal that any player could have, from random cells."""
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("diffplan.envs.gym:diffplan/Gridworld-fourrooms-v0")
    world = env.unwrapped.environment
    agent = dp.Planner.pretrained("gridworld-fourrooms").agent(scale=10.0, candidates=4, every=10, world=env)
    starts = np.random.default_rng(0).choice(world.cells, 6).astype(np.float32)
    returns = []
    for start in starts:
        observation, _ = env.reset(seed=0, options={"observation": start})
        agent.reset(observation)
        rewards, over = [], False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
            rewards.append(reward)
            over = terminated or truncated
        returns.append(sum(rewards))
    best = gridworld.bound(world, starts)
    assert (np.asarray(returns) > 0.4 * best).all() and np.mean(returns) > 0.7 * best.mean()


@pytest.mark.parametrize(("name", "start"), [("maze2d-umaze", START), ("gridworld-fourrooms", START[:2])])
def test_what_ships_plans_feasibly_and_is_pushed_by_its_learned_reward(name, start):
    shipped = dp.Planner.pretrained(name)
    free, pushed = (shipped.plan(jax.random.key(0), start, scale=scale, n=50) for scale in (None, 10.0))
    assert free.feasible.mean() > 0.8 and pushed.proxy.mean() > free.proxy.mean() + 0.5
    source = Path(dp.__file__).parent / "planner" / "pretrained" / f"{name}.npz"
    assert source.stat().st_size < 4e6
