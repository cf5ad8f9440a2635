"""Every measure against loops in numpy, and against plans that were really executed."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.envs import experts, maze2d
from diffplan.envs.base import follow
from diffplan.experiment.compare import Measures
from diffplan.experiment.deliver import Delivery
from diffplan.experiment.harness import Begin
from diffplan.guide import Learned
from diffplan.metrics import diversity, returns, validity
from diffplan.simulators import OpenLoop, Tracking
from diffplan.task import Task
from diffplan.tasks import maze2d as tasks
from diffplan.tasks.maze2d import Maze2dSettings
from diffplan.types import Trajectory

H, D = 7, 3


def random_plans(count: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(count, H, D)) + 0.5).astype(np.float32)


def rms(x, y) -> float:
    """Root mean square difference per entry, one number after the other, in float64."""
    return float(np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x.ravel(), y.ravel(), strict=True)) / x.size))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e6, 1e15])
def test_data_distance_is_the_nearest_neighbour_by_brute_force(scale):
    """Also for plans that diverged: the expanded square must not lose them."""
    data = random_plans(20)
    distance = jax.jit(diversity.data_distance)
    for plan in random_plans(4, seed=1, scale=scale):
        brute = min(rms(plan, window) for window in data)
        assert float(distance(jnp.asarray(plan), jnp.asarray(data))) == pytest.approx(brute, rel=1e-4)


def test_data_distance_of_a_window_of_the_data_is_zero():
    data = random_plans(50) + 3
    nearest = jax.vmap(diversity.data_distance, (0, None))(jnp.asarray(data), jnp.asarray(data))
    assert float(nearest.max()) < 1e-3  # float32, of distances near 1.4


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_pairwise_distance_is_the_mean_over_pairs(count, offset):
    plans = random_plans(count) + np.float32(offset)
    pairs = [rms(plans[i], plans[j]) for i in range(count) for j in range(count) if i != j]
    assert float(diversity.pairwise_distance(jnp.asarray(plans))) == pytest.approx(np.mean(pairs), rel=1e-4)


def test_pairwise_distance_of_equal_plans_is_zero():
    assert float(diversity.pairwise_distance(jnp.broadcast_to(jnp.asarray(random_plans(1)), (5, H, D)))) == 0


def test_longest_step():
    positions = np.cumsum(random_plans(1)[0, :, :2], axis=0)
    brute = max(float(np.hypot(*(q - p).astype(float))) for p, q in pairwise(positions))
    assert float(validity.longest_step(jnp.asarray(positions))) == pytest.approx(brute, rel=1e-6)


def test_crosses_asks_about_every_segment_and_nothing_else():
    """A wall between x = 1 and x = 2, asked for segment by segment; both of a pair's points may be free."""
    wall = lambda p, q: (jnp.minimum(p[0], q[0]) < 2) & (jnp.maximum(p[0], q[0]) > 1)
    for xs, expected in (
        ([0.0, 0.5, 0.9, 0.2], False),
        ([0.0, 0.5, 2.5, 2.9], True),  # no point in the wall
        ([2.5, 2.9, 2.5, 0.5], True),  # the last segment
        ([0.5, 2.5, 2.9, 2.5], True),  # the first
        ([1.5], False),  # no segment at all
    ):
        path = jnp.stack([jnp.asarray(xs), jnp.zeros(len(xs))], axis=1)
        assert bool(validity.crosses(wall, path)) == expected


def test_crosses_a_real_maze_by_sampling_the_segments_densely(key):
    """Polylines through the U-maze; brute force looks at 2,000 points of every segment, up to grazed corners."""
    maze = maze2d.UMAZE
    crosses = jax.jit(lambda path: validity.crosses(maze.crosses_wall, path))
    free = jax.jit(jax.vmap(maze.is_free))
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(60):
        begin = maze.cells[rng.integers(len(maze.cells))] - 0.2
        path = np.cumsum(np.concatenate([begin[None], 0.3 * rng.normal(size=(4, 2))]), axis=0).astype(np.float32)
        t = np.linspace(0, 1, 2000, dtype=np.float32)[:, None]
        points = np.concatenate([p + t * (q - p) for p, q in pairwise(path)])
        blocked = int((~np.asarray(free(jnp.asarray(points)))).sum())
        if not 0 < blocked <= 2:  # less is a corner or a rounding
            answers.append(blocked > 0)
            assert bool(crosses(jnp.asarray(path))) == answers[-1]
    assert 10 < sum(answers) < len(answers) - 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_entry_makes_a_plan_not_finite(bad):
    plan = random_plans(1)[0]
    assert bool(validity.is_finite(jnp.asarray(plan)))
    plan[3, 1] = bad
    assert not bool(validity.is_finite(jnp.asarray(plan)))


STEPS = 64


@pytest.fixture(scope="module")
def recorded() -> experts.Behaviour:
    """Real runs of the noisy controller in the U-maze: [trajectories, steps, ...]."""
    return experts.collect(maze2d.UMAZE, jax.random.key(1), trajectories=12, steps=STEPS)


REGION = tasks.make(Maze2dSettings(centre=(1.0, 1.5), radius=0.8))
PATH = tasks.make(Maze2dSettings(reward="path"))


@pytest.fixture(scope="module")
def codec(recorded) -> Codec:
    return Codec.fit(np.asarray(recorded.observations), np.asarray(recorded.actions))


@pytest.mark.parametrize("task", [REGION, PATH], ids=["region", "path"])
def test_a_plan_return_is_the_sum_over_its_rows(recorded, task):
    reward = jax.jit(task.reward)
    for trajectory in range(4):
        brute = sum(
            float(reward(recorded.observations[trajectory, t], recorded.actions[trajectory, t])) for t in range(STEPS)
        )
        plan = Trajectory(recorded.observations[trajectory], recorded.actions[trajectory])
        assert float(returns.plan_return(task.reward, plan)) == pytest.approx(brute, rel=1e-5)


def test_the_residual_is_zero_on_real_runs_and_not_on_broken_ones(recorded):
    """Broken: rows in another order, velocities not the positions' own, other actions."""
    maze = maze2d.UMAZE
    residual = jax.jit(lambda o, a: validity.dynamics_residual(maze.residual, Trajectory(o, a)))
    o, a = recorded.observations, recorded.actions
    for trajectory in range(4):
        assert float(residual(o[trajectory], a[trajectory])) < 1e-5
        assert float(residual(o[trajectory][::-1], a[trajectory])) > 1e-2
        assert float(residual(o[trajectory].at[:, 2:].multiply(1.2), a[trajectory])) > 1e-2
        assert float(residual(o[trajectory], -a[trajectory])) > 1e-2
    broken = o[0].at[20, 0].add(0.3)
    one = jax.jit(maze.residual)
    brute = np.mean([float(one(broken[t], a[0, t], broken[t + 1])) for t in range(STEPS - 1)])
    assert float(residual(broken, a[0])) == pytest.approx(brute, rel=1e-4) and brute > 0.3 / STEPS


def carried_out(task: Task, codec: Codec, recorded: experts.Behaviour) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The returns of real runs: as they were, by their own actions again, and tracked."""
    x = codec.encode(Trajectory(recorded.observations, recorded.actions))
    starts = recorded.observations[:, 0]
    begin = Begin(jax.vmap(task.simulator.state_of)(starts), starts, jnp.zeros(len(starts), int))
    delivery = Delivery(task.simulator, codec, {"own": OpenLoop(1), "tracked": Tracking(task.tracker, 1)}, STEPS, 1)
    delivered = delivery.returns(jax.random.key(0), begin, x)
    planned = jax.vmap(lambda o, a: returns.plan_return(task.reward, Trajectory(o, a)))
    return np.asarray(planned(recorded.observations, recorded.actions)), delivered["own"], delivered["tracked"]


def test_executing_a_real_run_repeats_it(recorded, codec):
    """By its own actions exactly, up to the codec's rounding; by tracking nearly, although it sees no actions."""
    planned, own, tracked = carried_out(PATH, codec, recorded)
    np.testing.assert_allclose(own, planned, rtol=0.02)
    assert np.median(np.abs(own / planned - 1)) < 1e-3
    np.testing.assert_allclose(tracked, planned, rtol=0.3)
    assert np.median(np.abs(tracked / planned - 1)) < 0.1


def test_returns_of_an_executed_real_run_are_those_of_the_plan(recorded, codec):
    planned, own, tracked = carried_out(REGION, codec, recorded)
    assert planned.max() > 30 and planned.min() < 10  # some runs earn, some do not
    assert np.abs(own - planned).max() <= 1  # a step at the region's edge
    assert np.abs(tracked - planned).max() <= 15 and np.median(np.abs(tracked - planned)) <= 2


def test_tracking_ends_where_the_plan_ends(recorded):
    """The controller itself, along a plan that it has not seen the actions of."""
    o = recorded.observations[3]
    ahead = jnp.concatenate([o[1:], o[-1:]])
    policy = lambda key, observation, t: experts.tracking_action(observation, ahead[t])
    episode = follow(maze2d.UMAZE, jax.random.key(0), maze2d.UMAZE.state_of(o[0]), policy, STEPS)
    assert float(jnp.linalg.norm(episode.observations[-1, :2] - o[-1, :2])) < 0.15


def test_measures_of_a_batch_are_means_over_its_finite_plans(recorded, codec):
    proxy = Learned((), jnp.asarray(1.0), jnp.asarray(2.0), lambda params, x, c_noise: x.mean(), "regression")
    windows = codec.encode(Trajectory(recorded.observations[:8], recorded.actions[:8]))
    x = windows[:6] + 0.1
    measures = Measures(codec, REGION.reward, REGION.violations, REGION.residual, REGION.plane.place, 1)
    batch = jax.jit(lambda x: measures(proxy, windows, x))
    alone = [{name: float(value) for name, value in batch(jnp.stack([plan, plan])).items()} for plan in x]
    whole, holed = batch(x), batch(x.at[2, 5, 1].set(jnp.nan).at[4, 0, 0].set(jnp.inf))
    assert float(whole["finite"]) == 1 and float(holed["finite"]) == pytest.approx(4 / 6)
    for name in set(whole) - {"finite", "feasible", "diversity"}:
        values = [row[name] for row in alone]
        assert float(whole[name]) == pytest.approx(np.mean(values), rel=1e-4, abs=1e-5), name
        assert float(holed[name]) == pytest.approx(np.mean([values[i] for i in (0, 1, 3, 5)]), rel=1e-4, abs=1e-5), name
    feasible = [row["feasible"] for row in alone]
    assert float(whole["feasible"]) == pytest.approx(np.mean(feasible)) == pytest.approx(1 - whole["violations.walls"])
    assert float(holed["feasible"]) == pytest.approx(sum(feasible[i] for i in (0, 1, 3, 5)) / 6)
    # measures known another way: the mean entry, the data themselves 0.1 away
    assert float(whole["proxy"]) == pytest.approx((float(x.mean()) - 1.0) / 2.0, rel=1e-2)
    assert float(whole["data_distance"]) == pytest.approx(0.1, rel=1e-3)
    none = batch(jnp.full_like(x, jnp.nan))
    assert float(none["finite"]) == float(none["feasible"]) == 0
    assert all(np.isnan(float(none[name])) for name in set(none) - {"finite", "feasible"})


def test_a_plan_whose_rows_are_several_steps_apart_promises_their_reward_for_all_steps(recorded, codec):
    """The residual is of single steps, and is not known of such plans; nor is what the task does not say."""
    windows = codec.encode(Trajectory(recorded.observations[:8], recorded.actions[:8]))
    one, four = (Measures(codec, REGION.reward, {}, REGION.residual, REGION.plane.place, stride) for stride in (1, 4))
    alone, held = one(None, windows, windows[:4]), four(None, windows, windows[:4])
    assert float(held["promised"]) == pytest.approx(4 * float(alone["promised"])) != 0
    assert set(alone) - set(held) == {"residual"} and "proxy" not in alone
    assert float(held["feasible"]) == 1  # no violation is known
    assert "promised" not in Measures(codec, None, {}, None, REGION.plane.place, 1)(None, windows, windows[:4])
