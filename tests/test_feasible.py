"""What makes a plan infeasible where the task does not say: thresholds that are known beforehand."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes, from_stacked
from diffplan.planner import feasible
from diffplan.task import Plane, Task
from diffplan.tasks import make_task
from diffplan.types import Trajectory

H = 5


class World:
    """Bounds of observations alone."""

    observation_low, observation_high = (-2.0, -np.inf), (2.0, np.inf)
    action_low, action_high = (-1.0,), (1.0,)


def data() -> Episodes:
    """The first entry walks in steps of 0.1, once of 0.4; the second, in a unit a thousand times smaller, of 100."""
    steps = np.full(40, 0.1)
    steps[[10, 20]] = 0.4, -0.4
    first = np.cumsum(np.where(np.arange(40) % 2, steps, -steps))
    rows = np.stack([first, 1000 * first], axis=1)[None].repeat(3, axis=0)
    return from_stacked(rows.astype(np.float32), np.zeros((3, 40, 1), np.float32) + np.arange(40)[None, :, None] % 2)


def broken(task: Task, windows: Windows) -> Any:
    """The violations of a task by the steps of these windows."""
    return feasible.violations_of(task, feasible.limits_of(task, windows), windows.stride)


def violations(stride: int = 1, **task: Any) -> tuple[Any, Windows]:
    episodes = data()
    windows = Windows.of(episodes, Codec.fit(episodes.observations, episodes.actions), H, stride)
    return broken(Task.from_episodes(episodes, "own", **task), windows), windows


def walk(step: float, start: float = 0.0) -> Trajectory:
    """A plan whose every step is so long in both entries."""
    first = start + step * jnp.arange(H)
    return Trajectory(jnp.stack([first, 1000 * first], axis=1), jnp.zeros((H, 1)))


def test_what_a_task_says_comes_first_and_is_not_all():
    own = {"walls": lambda plan: jnp.zeros(())}
    assert list(violations(violations=own, simulator=World())[0]) == ["walls", "jumps", "bounds"]


def test_of_cells_the_tasks_moves_alone_count():
    task = make_task("gridworld-fourrooms", episodes=4, steps=40)
    windows = Windows.of(data := task.episodes(), Codec.fit(data.observations, data.actions), H)
    assert list(broken(task, windows)) == ["moves"]


def test_where_there_is_a_plane_a_step_is_as_long_as_on_it():
    """The second entry, a thousand times larger, is no place."""
    found, _ = violations(plane=Plane(lambda o: jnp.concatenate([o[..., :1], 0 * o[..., :1]], axis=-1)))
    assert float(found["jumps"](walk(0.49))) == 0 and float(found["jumps"](walk(0.51))) == 1
    wild = walk(0.1).observations * jnp.asarray([[1.0, 50.0]])
    assert float(found["jumps"](Trajectory(wild, jnp.zeros((H, 1))))) == 0


def test_a_jump_is_a_step_longer_than_any_of_the_data():
    """The longest step of the data is 0.4: with a slack of a quarter, 0.49 passes and 0.51 does not."""
    found, windows = violations()
    assert set(found) == {"jumps"}
    assert float(found["jumps"](walk(0.49))) == 0 and float(found["jumps"](walk(-0.49))) == 0
    assert float(found["jumps"](walk(0.51))) == 1
    one = walk(0.1).observations.at[3:].add(jnp.asarray([0.6, 600.0]))  # a single step of 0.7
    assert float(found["jumps"](Trajectory(one, jnp.zeros((H, 1))))) == 1
    assert windows.stride == 1


def test_jumps_count_all_entries_alike():
    """A step of one entry alone may be longer by the square root of 2: the length is a mean over entries."""
    found, _ = violations()
    alone = lambda step: Trajectory(walk(step).observations * jnp.asarray([[1.0, 0.0]]), jnp.zeros((H, 1)))
    assert float(found["jumps"](alone(0.69))) == 0
    assert float(found["jumps"](alone(0.72))) == 1


def test_steps_of_a_plan_are_compared_with_strides_of_the_data():
    """Two steps of the data go back and forth, and are at most 0.4 + 0.1 long together."""
    found, windows = violations(stride=2)
    before, after, _ = feasible.row_steps(windows)
    longest = np.abs((after - before)[:, 0]).max()
    assert longest == pytest.approx(0.5, abs=1e-5)
    assert float(found["jumps"](walk(1.2 * longest))) == 0 and float(found["jumps"](walk(1.3 * longest))) == 1


class Cart:
    """A cart on a line, x' = v and v' = a, of which place and speed are observed; a step is 0.1 long."""

    action_low, action_high = (-1.0,), (1.0,)

    def state_of(self, observation: Any) -> Any:
        return observation

    def observe(self, state: Any) -> Any:
        return state

    def reset(self, key: Any) -> Any:
        raise NotImplementedError

    def step(self, key: Any, state: Any, action: Any) -> Any:
        moved = jnp.stack([state[0] + 0.1 * state[1], state[1] + 0.1 * action[0]])
        return moved, Step(moved)


class Step(NamedTuple):
    observation: Any


def pushed_cart(stride: int, miss: float = 0.0) -> Trajectory:
    """A plan of the cart under a force of 0.3 whose last row has a speed that misses by so much."""
    time = stride * np.arange(H)
    place = 0.1 * 0.03 * time * (time - 1) / 2
    rows = np.stack([place, 0.03 * time + miss * (np.arange(H) == H - 1)], axis=1)
    return Trajectory(jnp.asarray(rows, jnp.float32), jnp.full((H, 1), 0.3))


@pytest.mark.parametrize("stride", [1, 4])
def test_a_row_may_be_where_any_force_within_bounds_would_have_led(stride):
    """Against 0.3 held, a force of -1 changes the speed by 1.3 times 0.1 a step, and the place by what follows."""
    limits = feasible.Limits(0.0, 1e9, np.ones(2))
    rule = feasible.violations_of(Task("cart", 2, 1, data, simulator=Cart()), limits, stride)["residual"]
    speed, place = 0.13 * stride, 0.013 * stride * (stride - 1) / 2
    allowed = np.hypot(speed, place)
    assert float(rule(pushed_cart(stride))) == 0
    for miss, violates in ((0.98, 0), (-0.98, 0), (1.02, 1), (-1.02, 1)):
        assert float(rule(pushed_cart(stride, miss * allowed))) == violates


def test_half_a_median_step_is_allowed_where_no_force_moves_anything():
    """A cart that cannot be pushed: the residual is what it misses, over the root of two entries."""
    still = Cart()
    still.action_low, still.action_high = (0.0,), (0.0,)
    limits = feasible.Limits(0.2, 1e9, np.ones(2))
    rule = feasible.violations_of(Task("cart", 2, 1, data, simulator=still), limits, 1)["residual"]
    for miss, violates in ((0.13, 0), (0.15, 1)):
        plan = Trajectory(jnp.zeros((H, 2)).at[-1, 1].set(miss), jnp.zeros((H, 1)))
        assert float(rule(plan)) == violates


@pytest.mark.parametrize(("a", "count"), [(1, 2), (4, 16), (5, 10)])
def test_the_extremes_are_corners_or_ends(a, count):
    far = feasible.extremes(-np.ones(a), np.ones(a), False)
    assert far.shape == (count, a) and (np.abs(far).max(axis=1) == 1).all()
    np.testing.assert_array_equal(feasible.extremes(np.zeros(a), np.ones(a), True), np.eye(a))


def test_bounds_have_a_slack_of_a_twentieth_of_their_range():
    """-2 to 2 in the first entry, 0.2 beyond; none in the second."""
    found, _ = violations(simulator=World())
    assert set(found) == {"jumps", "bounds"}
    at = lambda value: Trajectory(jnp.zeros((H, 2)).at[2].set(jnp.asarray([value, 1e6])), jnp.zeros((H, 1)))
    for value, out in ((2.19, 0), (2.21, 1), (-2.19, 0), (-2.21, 1)):
        assert float(found["bounds"](at(value))) == out


def test_bounds_that_are_none_are_none():
    class Free(World):
        observation_low, observation_high = (-np.inf, -np.finfo(np.float32).max), (np.inf, np.finfo(np.float32).max)

    assert (
        feasible.bounds_of(Free()) is None and feasible.bounds_of(None) is None and feasible.bounds_of(object()) is None
    )
    low, high = feasible.bounds_of(World()) or (None, None)
    np.testing.assert_array_equal(low, [-2, -np.inf])
    np.testing.assert_array_equal(high, [2, np.inf])


def test_every_violation_has_words():
    found = {*violations(simulator=World())[0], *violations(simulator=Cart())[0]}
    assert found == set(feasible.WORDS)


def test_entries_that_never_change_neither_divide_by_zero_nor_hide_others():
    episodes = data()
    constant = episodes._replace(observations=np.column_stack([episodes.observations, np.ones(120, np.float32)]))
    windows = Windows.of(constant, Codec.fit(constant.observations, constant.actions), H)
    found = broken(Task.from_episodes(constant, "own"), windows)
    more = lambda step, third: Trajectory(
        jnp.column_stack([walk(step).observations, 1 + third * jnp.arange(H)]), jnp.zeros((H, 1))
    )
    assert float(found["jumps"](more(0.4, 0.0))) == 0
    assert float(found["jumps"](more(0.51, 0.0))) == 1
    assert float(found["jumps"](more(0.1, 1.0))) == 1  # what never changes in the data may not change in a plan
