"""A planner of tiny networks: what it selects, where it starts, how its gaps are filled, how it is read back."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.benchmarks import maze2d
from diffplan.benchmarks.rows import ScoresSettings
from diffplan.envs.maze2d import UMAZE
from diffplan.episodes import Episodes
from diffplan.guide import Learned
from diffplan.learn.reach import Reach
from diffplan.learn.train import TrainSettings
from diffplan.planner import agent as agents
from diffplan.planner import model, reaching
from diffplan.planner.feasible import Limits
from diffplan.planner.model import PlanOptions
from diffplan.planner.planner import Planner
from diffplan.runs import Run
from diffplan.runs.files import read_json, write_json
from diffplan.tasks import make_task
from diffplan.types import Trajectory
from tests.test_scores import behaviour

pytestmark = pytest.mark.slow  # planners are trained, and plan and act

TINY = TrainSettings(steps=20, batch=16, chunk=20, save_every=20)
SMALL = reaching.GoalSettings(
    levels=3,
    prior=TINY,
    low_level=TINY,
    value=TINY,
    inverse=TINY,
    reach=TINY,
    width=16,
    depth=2,
    features=8,
    patch=8,
)


@pytest.fixture(scope="module")
def rows() -> Episodes:
    return behaviour()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows) -> model.PlanModel:
    """A planner of tiny networks."""
    return reaching.fit(Run(tmp_path_factory.getbasetemp() / "planner0"), SMALL, rows, "rows")[0]


STARTS = jnp.asarray(maze2d.draw_trials(ScoresSettings(), UMAZE, jax.random.key(5), 3).starts)
GOALS = jnp.asarray([[1.0, 1.0, 0, 0], [3.0, 3.0, 0, 0], [1.0, 3.0, 0, 0]])


def test_what_was_trained_is_read_back_with_the_minutes_that_it_took(trained, rows, tmp_path_factory):
    directory = tmp_path_factory.getbasetemp() / "planner0"
    again, minutes = reaching.fit(Run(directory), SMALL, rows, "rows")
    assert minutes > 0
    for read, made in zip(jax.tree.leaves(again), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(read, made)
    record = read_json(directory / "reach" / "stage.json")
    write_json(directory / "reach" / "stage.json", record | {"seconds": record["seconds"] + 6000})  # in another process
    assert reaching.fit(Run(directory), SMALL, rows, "rows")[1] == pytest.approx(minutes + 100, abs=0.01)


def test_the_best_candidate_is_the_one_with_the_highest_value(trained):
    key, n = jax.random.key(7), 5
    best, value = jax.jit(lambda key: trained.best(key, STARTS, GOALS, None, PlanOptions(None, n)))(key)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(jax.random.split(key, n))
    draw = jax.vmap(lambda key, start, goal: trained.draw(key, start, goal, None, None))
    x, scores = jax.jit(jax.vmap(draw, (0, None, None)))(keys, STARTS, GOALS)
    np.testing.assert_allclose(value, scores.max(axis=0), rtol=1e-4)
    np.testing.assert_allclose(best, x[scores.argmax(axis=0), jnp.arange(3)], atol=1e-3)
    points = trained.codec.decode(best).observations
    np.testing.assert_allclose(points[:, 0], STARTS, atol=1e-4)
    np.testing.assert_allclose(points[:, -1], GOALS, atol=1e-4)


def test_a_plan_that_leaps_is_selected_only_where_all_can_be_walked(trained):
    """Half of the candidates leap half way, the others walk; the critic prefers leaps, but only short steps reach."""
    pins = trained.codec.pin(trained.horizon, STARTS[0], GOALS[0])
    (start, end), kind = pins.value[jnp.asarray([0, -1])], jnp.ones(trained.horizon)
    fraction = jnp.linspace(0, 1, trained.horizon)[:, None]
    way = lambda fraction, kind: (start[None] * (1 - fraction) + end[None] * fraction).at[:, 2].set(kind)
    leap, walk = way((fraction > 0.5).astype(jnp.float32), kind), way(fraction, -kind)
    length = lambda params, z, place: -jnp.linalg.norm(place - z[:2])[None]
    small = replace(
        trained,
        prior=lambda x, sigma: jnp.where(x[5, 2] > 0, leap, walk),
        critic=Learned((), jnp.zeros(()), jnp.ones(()), lambda params, x, sigma: x[5, 2], "regression"),
        gate=model.Gate(Reach((), length, trained.stride), jnp.zeros(())),
    )
    far = float(jnp.linalg.norm((end - start)[:2]))

    def chosen(weakest: float) -> tuple[float, float]:
        gated = replace(small, gate=small.gate.replace(weakest=jnp.asarray(weakest)))
        x, score = gated.best(jax.random.key(0), STARTS[:1], GOALS[:1], None, PlanOptions(None, 16))
        return float(x[0, 5, 2]), float(score[0])

    assert chosen(-2 * far) == pytest.approx((1, 1), abs=0.1)
    assert chosen(-far / 2) == pytest.approx((-1, -1), abs=0.1)
    kind, score = chosen(0.0)  # nothing can be walked: the one whose weakest step is the strongest
    assert kind == pytest.approx(-1, abs=0.1) and score == pytest.approx(-far / 31 - model.UNWALKABLE, abs=0.1)


def test_a_warm_start_goes_on_from_the_last_plan(trained):
    """At noise levels near nothing, the plan is the last one moved on; its pins are the new ones."""
    assert 0 < trained.warmed < len(trained.sampler.sigmas)
    points = jnp.linspace(jnp.asarray([1.0, 1.0, 0, 0]), jnp.asarray([3.0, 3.0, 0, 0]), trained.horizon)
    past = trained.moved_on(trained.codec.encode(Trajectory(points, jnp.zeros((len(points), 0)))), 45)
    moved = trained.codec.decode(past).observations
    np.testing.assert_allclose(moved[:-3], points[3:], atol=1e-5)
    np.testing.assert_allclose(moved[-3:], jnp.tile(points[-1], (3, 1)), atol=1e-5)
    sigmas = jnp.geomspace(2e-3, 1e-3, len(trained.sampler.sigmas))
    still = replace(trained, sampler=trained.sampler.replace(sigmas=sigmas))
    x, _ = still.draw(jax.random.key(0), moved[0], points[-1], past, None)
    np.testing.assert_allclose(x, past, atol=0.02)

    def plans(options, past):
        agent = agent_for(trained, GOALS[:, :2], warm=options.warm, candidates=options.candidates, near=0.0)
        agent.plan = None if past is None else Trajectory(jnp.asarray(past), jnp.zeros((*past.shape[:2], 0)))
        agent.make_plan(trained, np.asarray(STARTS))
        assert agent.planned == 3  # a full batch
        return agent.plan.observations

    cold, warm = PlanOptions(None, 2), PlanOptions(None, 2, True)
    before = np.tile(points, (3, 1, 1))
    np.testing.assert_array_equal(plans(cold, None), plans(cold, before))
    np.testing.assert_array_equal(plans(cold, None), plans(warm, None))
    assert np.abs(plans(warm, before) - plans(warm, None)).max() > 0.01


def agent_for(trained, goals, **how):
    """The agent of a model, in the U-maze, on its way to goals."""
    task, one = make_task("maze2d-umaze"), np.ones(2, np.float32)
    limits = Limits(1.0, 1.0, np.ones(4))
    planner = Planner(task, trained, task.reward, limits, (-one, one), None, trained)
    agent = planner.agent(every=45, **how)
    agent.reset(goal=np.asarray(goals))
    return agent


def test_who_has_arrived_stays_and_all_others_are_planned_for_in_batches(trained, monkeypatch):
    monkeypatch.setattr(agents, "batch_size", lambda: 2)
    observed = np.tile(np.asarray(STARTS[:1]), (5, 1))
    goals = np.tile(np.asarray([[3.0, 1.0]]), (5, 1))
    observed[[1, 4], :2] = goals[0] + 0.2
    agent = agent_for(trained, goals, near=0.4)
    agent.act(observed)
    made = np.asarray(agent.plan.observations)
    assert agent.planned == 4  # two batches
    np.testing.assert_allclose(made[:, 0], observed, atol=1e-4)
    np.testing.assert_allclose(made[[1, 4], 1:], np.broadcast_to([3, 1, 0, 0], (2, trained.horizon - 1, 4)))
    others = made[[0, 2, 3]]
    assert (np.abs(others[:, 1] - [3, 1, 0, 0]).max(axis=1) > 0.05).all()
    assert len(np.unique(others[:, 5], axis=0)) == 3  # each with noise of its own


def test_gaps_are_filled_one_after_another(trained):
    """The low-level prior is one whose rows go straight from end to end, with the way between two of them as action."""
    rows, stride = trained.rows, trained.stride

    def straight(x, sigma):
        start, end = rows.decode(x[:1]).observations, rows.decode(x[-1:]).observations
        fraction = jnp.linspace(0, 1, len(x))[:, None]
        steps = jnp.tile((end - start)[:, :2] / stride, (len(x), 1))
        return rows.encode(Trajectory(start * (1 - fraction) + end * fraction, steps))

    corners = jnp.asarray([[1.0, 1.0], [1.0, 2.5], [1.6, 2.5], [1.6, 2.5]])
    points = jnp.concatenate([corners, jnp.zeros((4, 2))], axis=1)
    result = replace(trained, low_level=straight).actions(jax.random.key(0), points, 2 * stride + 4)
    truth = np.repeat(np.diff(corners, axis=0) / stride, stride, axis=0)[: 2 * stride + 4]
    np.testing.assert_allclose(result, truth, atol=0.01)
