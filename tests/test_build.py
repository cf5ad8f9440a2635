"""What an experiment learns: each part is a stage, made once, and refused when it differs; and what rows earn."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.contrastive import ContrastiveSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.flow_map import FlowMapSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import PROXIES, ProxySettings
from diffplan.learn.row_reward import RowRewardSettings
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import ValueSettings
from diffplan.methods.base import Problem
from diffplan.noise import karras
from diffplan.planner import build
from diffplan.planner.build import Builder
from diffplan.planner.decide import decide
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Made, Run, RunError
from diffplan.runs.files import digest
from diffplan.samplers import Sampler
from diffplan.settings import ConfigError
from diffplan.simulators import Truth
from diffplan.task import Task
from diffplan.tasks import maze2d
from diffplan.tasks.maze2d import Maze2dSettings

H = 16
SHORT = TrainSettings(steps=2, batch=2, chunk=2)
CONFIG = PlannerSettings(
    prior=PriorSettings(SHORT, horizon=H, stride=1, width=8, depth=1),
    proxy=ProxySettings(SHORT, labels=20, width=8, depth=1),
    row_reward=RowRewardSettings(replace(SHORT, steps=1500, batch=64, chunk=500, learning_rate=3e-3), width=32),
    dynamics=DynamicsSettings(SHORT, transitions=50, members=2, width=8, depth=1),
    value=ValueSettings(SHORT, width=8, depth=1),
    behaviour=BehaviourSettings(SHORT, width=8, depth=1),
    conditional=ConditionalSettings(SHORT, width=8, depth=1),
    contrastive=ContrastiveSettings(replace(SHORT, batch=1), windows=128, effective=20, width=8, depth=1),
    flow_map=FlowMapSettings(SHORT, courses=4, levels=4, width=8, depth=1),
)
TASK = maze2d.make(Maze2dSettings(radius=1.0))
PARTS = {"regression", "model", "value", "behaviour", "conditional", "contrastive", "conservative", "flow_map"}
STAGES = {
    "chain",
    "prior",
    "dynamics",
    "value",
    "behaviour",
    "conditional",
    "contrastive",
    "flow_map",
    "reward/regression",
    "reward/conservative/clean",
}


def random_episodes(lengths: tuple[int, ...] = (40, 40, 40, 40)) -> Episodes:
    """Episodes of random numbers, some of them where the maze's reward pays; each records its own rewards."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(sum(lengths), 4)).astype(np.float32)
    observations[:, :2] = 2 + observations[:, :2] / 2
    actions = rng.normal(size=(sum(lengths), 2)).astype(np.float32)
    return Episodes(observations, actions, np.asarray(lengths), (observations[:, 0] - actions[:, 1]).astype(np.float32))


def builder(directory: Path, task: Task = TASK, config: PlannerSettings = CONFIG) -> Builder:
    """A run whose behaviour is random numbers."""
    episodes = random_episodes()
    decided = decide(config, task, episodes)
    data = build.split(task, decided, episodes, "random numbers")._replace(identity="random numbers")
    return Builder(Run(directory), task, decided, data, task.reward)


def bare(run: Builder) -> Problem:
    """A problem that has nothing yet."""
    return Problem(lambda x, sigma: x, run.data.codec, Sampler(karras(4, 0.02, 10.0), (H, run.data.codec.width)))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Builder, Problem, dict[str, Made]]:
    """A run with every part, the problem with the parts, and the parts."""
    run = builder(tmp_path_factory.mktemp("run"))
    return run, *build.assemble(jax.random.key(0), run, PARTS)


@pytest.mark.slow
def test_parts_are_made_once_and_read_back(made):
    run, problem, parts = made
    assert {str(path.parent.relative_to(run.run.directory)) for path in run.run.directory.rglob("stage.json")} == STAGES
    assert parts.keys() == PARTS | {"prior"} and len({part.identity for part in parts.values()}) == len(parts)
    again, same = build.assemble(jax.random.key(0), run, PARTS)
    assert {name: part.identity for name, part in same.items()} == {name: part.identity for name, part in parts.items()}
    for name in PARTS | {"denoise"}:
        assert digest(getattr(again, name)) == digest(getattr(problem, name))


@pytest.mark.slow
def test_parts_are_what_methods_take(made):
    run, problem, _ = made
    x = run.data.train.at(run.data.train.first[0])
    plan = run.data.codec.decode(x)
    assert problem.value(x, jnp.asarray(3)).shape == () == problem.conservative.score(x).shape
    after, disagreement = problem.model(jax.random.key(0), plan.observations[0], plan.actions[0])
    assert after.shape == (4,) and disagreement > 0
    assert problem.conditional(x, jnp.ones(()), jnp.zeros(2 + 1 + x.shape[1])).shape == x.shape
    assert problem.behaviour.distribution(plan.observations[0], jnp.zeros(())).centre.shape == (2,)
    assert problem.shape == x.shape and problem.data.shape[1:] == x.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", ["value", "conditional", "contrastive"])
def test_what_the_proxies_score_is_learned_anew_for_other_proxies(made, name):
    run, problem, parts = made
    others = parts | {"regression": parts["regression"]._replace(identity="others")}
    with pytest.raises(RunError, match=rf"{name}: inputs\.proxies was '\w+' and is now 'others'; --new-settings"):
        build.fit_part(run, problem, others, name)


@pytest.mark.slow
def test_a_part_of_other_data_or_settings_is_refused_or_kept_aside(made):
    run, problem, parts = made
    with pytest.raises(RunError, match=r"behaviour: inputs\.data was 'random numbers' and is now 'others'"):
        build.fit_part(run._replace(data=run.data._replace(identity="others")), problem, parts, "behaviour")
    more = run.decided._replace(config=replace(run.config, dynamics=replace(run.config.dynamics, transitions=60)))
    with pytest.raises(RunError, match="dynamics: transitions was 50 and is now 60"):
        build.fit_part(run._replace(decided=more), problem, parts, "model")
    renewed = run._replace(decided=more, run=replace(run.run, new_settings=True))
    assert build.fit_part(renewed, problem, parts, "model").identity != parts["model"].identity
    assert (run.run.directory / "dynamics.old-1" / "stage.json").exists()


def rewards_only(**more) -> Task:
    """A task of arrays: no reward function, no simulator."""
    rows = random_episodes()
    ends = np.isin(np.arange(160), np.cumsum(rows.lengths) - 1)
    return Task.from_arrays(rows.observations, rows.actions, rows.rewards, timeouts=ends, **more)


@pytest.mark.parametrize("stride", [1, 4])
def test_rows_earn_the_reward_of_all_steps_up_to_the_next_row(tmp_path, stride):
    """By the true reward held from row to row, or by what was recorded in each step, summed by hand."""
    config = replace(CONFIG, prior=replace(CONFIG.prior, horizon=8, stride=stride))
    true, recorded = builder(tmp_path, config=config), builder(tmp_path, rewards_only(), config)
    first = true.data.train.first[::9]
    gains, sums = np.asarray(true.gains(true.data.train, first)), np.asarray(recorded.gains(recorded.data.train, first))
    assert gains.shape == sums.shape == (len(first), 8) and true.span == 8 * stride
    rows = random_episodes()
    reward = jax.jit(TASK.reward)
    for i, begin in enumerate(np.asarray(first)):
        for t in range(8):
            steps = slice(begin + t * stride, begin + (t + 1) * stride)
            held = stride * float(reward(rows.observations[steps][0], rows.actions[steps].mean(axis=0)))
            assert gains[i, t] == pytest.approx(held, rel=1e-5)
            assert sums[i, t] == pytest.approx(float(rows.rewards[steps].sum()), abs=1e-4)
    np.testing.assert_allclose(recorded.returns(recorded.data.train, first), sums.sum(axis=1), rtol=1e-5)


def test_what_a_task_does_not_have_its_problem_lacks(tmp_path):
    learned = {*PROXIES, "conservative", "shuffled", "untrained", "value", "conditional", "contrastive"}
    run = builder(tmp_path, rewards_only())
    assert build.lacks(builder(tmp_path / "whole").task) == set() and build.lacks(run.task) == {"dynamics"}
    silent = run._replace(data=run.data._replace(kept=run.data.kept._replace(rewards=None)))
    assert build.lacks(silent.task, silent.rewarded) == learned | {"dynamics"} and not silent.rewarded
    with pytest.raises(ConfigError, match="no part of a problem is named 'nonsense'"):
        build.fit_part(run, bare(run), {}, "nonsense")


def test_the_dynamics_of_a_task_hold_an_action_from_row_to_row(tmp_path):
    config = replace(CONFIG, prior=replace(CONFIG.prior, horizon=8, stride=3))
    run = builder(tmp_path, config=config)
    dynamics = build.fit_part(run, bare(run), {}, "dynamics").model
    assert isinstance(dynamics, Truth) and dynamics.stride == 3
    observation, action = jnp.asarray([1.0, 1.2, 0.5, -0.3]), jnp.asarray([0.4, -0.7])
    state = TASK.simulator.state_of(observation)
    for _ in range(3):
        state, moved = TASK.simulator.step(jax.random.key(0), state, action)
    np.testing.assert_allclose(dynamics(jax.random.key(0), observation, action)[0], moved.observation, rtol=1e-5)


def test_what_decides_a_reward_is_its_settings_or_its_program(tmp_path):
    of = lambda **more: build.identity_of(builder(tmp_path, rewards_only(**more)))
    assert of() is None
    assert of(reward_settings={"a": 1}, reward=lambda o, a: o[0]) == {"a": 1}
    one, same, other = (of(reward=lambda o, a, scale=scale: scale * o[0]) for scale in (2.0, 2.0, 3.0))
    assert one == same != other


def test_training_and_held_out_windows_share_no_episode(tmp_path):
    """The windows of each part, and no others, are looked for in the episodes of random numbers."""
    run = builder(tmp_path)
    rows = random_episodes()
    assert run.data.kept.lengths.tolist() == [40, 40, 40] and run.data.aside.lengths.tolist() == [40]
    np.testing.assert_array_equal(run.data.kept.observations, rows.observations[:120])
    np.testing.assert_array_equal(run.data.aside.observations, rows.observations[120:])
    assert len(run.data.train.first) == 3 * (40 - H + 1) and len(run.data.held_out.first) == 40 - H + 1
    np.testing.assert_allclose(run.data.rows.mean[:4], rows.observations[:120].mean(axis=0), rtol=1e-4)
    few = Windows.of(random_episodes((40,)), run.data.rows, 3, 2)
    assert run.data.windows(3, 2).span == few.span == 6


def started(tmp_path: Path, episodes: Episodes, config: PlannerSettings = CONFIG, **more) -> Builder:
    return build.start(Run(tmp_path / "run"), Task.from_episodes(episodes, "mine", **more), config)


def test_episodes_shorter_than_a_plan_are_left_out_and_counted(tmp_path, capsys):
    run = started(tmp_path, random_episodes((40, 15, 16, 9, 40)), reward=lambda o, a: o[0])
    said = " ".join(capsys.readouterr().out.split())
    assert "mine: 5 episodes of 9 to 40 steps, 120 rows" in said
    assert "mine: 2 of 5 episodes are shorter than a plan (16 steps): left out" in said
    assert run.data.kept.lengths.tolist() == [40, 16] and run.data.aside.lengths.tolist() == [40]
    with pytest.raises(ConfigError, match=r"prior.horizon=16: but one of 3 episodes has 16 steps: need two"):
        started(tmp_path / "other", random_episodes((9, 40, 15)))


def test_a_single_episode_is_cut_in_two_and_both_parts_hold_plans(tmp_path):
    """A random walk, which forgets nothing: its plans are as long as the held-out tenth."""
    steps = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    walk = Episodes(np.cumsum(steps, axis=0), steps, np.asarray([1000]))
    config = replace(CONFIG, prior=PriorSettings(SHORT))
    run = started(tmp_path, walk, config, reward=lambda o, a: o[0])
    assert 90 <= run.span <= 100 and len(run.data.held_out.first) > 0
    longer = replace(CONFIG, prior=PriorSettings(SHORT, horizon=104))
    with pytest.raises(ConfigError, match=r"horizon=104 with prior.stride=1: must be at most 100: the shorter part"):
        started(tmp_path / "longer", walk, longer, reward=lambda o, a: o[0])


def test_data_are_read_back_and_those_of_other_settings_refused(tmp_path):
    rows = random_episodes()
    first, second = (started(tmp_path, rows, reward=lambda o, a: o[0]) for _ in range(2))
    assert first.data.identity == second.data.identity
    with np.load(tmp_path / "run" / "data" / "rows.npz") as file:
        np.testing.assert_array_equal(file["observations"], rows.observations)
    with pytest.raises(RunError, match="data: "):
        started(tmp_path, rows._replace(actions=2 * rows.actions), reward=lambda o, a: o[0])


def test_a_reward_that_no_window_earns_cannot_be_learned(tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"^reward: all 20 labelled windows earn 0: there is nothing to learn"):
        started(tmp_path, random_episodes(), reward=lambda o, a: 0 * o[0])
    rows = random_episodes((160,))
    limit = float(np.sort(rows.observations[:144, 0])[-3])  # two rows of 144 earn
    config = replace(
        CONFIG, proxy=replace(CONFIG.proxy, labels=400, patch=2), prior=PriorSettings(SHORT, horizon=2, patch=2)
    )
    started(tmp_path / "rare", rows, config, reward=lambda o, a: (o[0] > limit).astype(jnp.float32))
    assert "% of windows earn more than the least, 0" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_reward_of_a_row_is_learned_where_only_rewards_are_recorded(tmp_path, capsys):
    """The recorded reward is a linear function of the row, which the network finds."""
    run = started(
        tmp_path, random_episodes((400, 400, 400, 400)), replace(CONFIG, prior=replace(CONFIG.prior, held_out=0.5))
    )
    said = " ".join(capsys.readouterr().out.split())
    share = float(said.partition("it explains ")[2].partition(" %")[0])
    assert share > 90
    rows = random_episodes((400, 400, 400, 400))
    estimate = jax.vmap(run.reward)(jnp.asarray(rows.observations[:800]), jnp.asarray(rows.actions[:800]))
    assert np.corrcoef(estimate, rows.rewards[:800])[0, 1] ** 2 == pytest.approx(share / 100, abs=0.05)
    assert run.task.reward is None and isinstance(run.data.codec, Codec)
