"""Plans carried out in JAX and on the host, against loops written out by hand and gymnasium's own pendulum."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs.gymnasium_host import Host
from diffplan.envs.pendulum import PENDULUM, WORST
from diffplan.simulators import (
    OpenLoop,
    Running,
    Steering,
    Tracking,
    Transition,
    Truth,
    begin,
    behave,
    carry_out,
    end,
    following,
    is_host,
)
from diffplan.types import Trajectory

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Walk:
    """A number that actions move; the reward of a row is 10 o + a. The process ends beyond `far`."""

    noise: float = 0.0
    far: float = 1e9
    observation_dim: int = 1
    action_dim: int = 1
    action_low: tuple[float, ...] = field(default=(-1.0,))
    action_high: tuple[float, ...] = field(default=(1.0,))

    def reset(self, key):
        return jax.random.uniform(key, (1,))

    def observe(self, state):
        return state

    def state_of(self, observation):
        return observation

    def reward(self, observation, action):
        return 10 * observation[0] + action[0]

    def step(self, key, state, action):
        after = state + action + self.noise * jax.random.normal(key, (1,))
        return after, Transition(after, self.reward(state, action), after[0] > self.far, jnp.bool_(False))


def plans(n: int = 3, h: int = 4, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, n, h, 1)).astype(np.float32)
    return Trajectory(jnp.asarray(rows[0]), jnp.asarray(rows[1]))


def walked(start: Any, actions: Any, stride: int, far: float, noise: np.ndarray | None = None) -> tuple:
    """(where a walk ends, what it earns while it is alive), in Python."""
    place, total, alive = float(start), 0.0, True
    for step in range(len(actions) * stride):
        action = float(actions[step // stride])
        total += (10 * place + action) * alive
        place += action + (0.0 if noise is None else float(noise[step]))
        alive = alive and place <= far
    return place, total, alive


# -- carrying out in JAX --


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("far", [1e9, 1.5])
def test_open_loop_is_a_loop_written_out(stride, far):
    """Every action is held for the stride, and nothing counts after the step that ends the episode."""
    starts, plan = jnp.asarray([[0.0], [1.0], [-2.0]]), plans()
    running, totals = carry_out(KEY, Walk(far=far), OpenLoop(stride), begin(Walk(), starts), plan, 4 * stride)
    for i in range(3):
        place, total, alive = walked(starts[i, 0], plan.actions[i, :, 0], stride, far)
        assert float(running.observations[i, 0]) == pytest.approx(place, abs=1e-4)
        assert float(totals[i]) == pytest.approx(total, abs=1e-3)
        assert bool(running.alive[i]) == alive
    assert bool(running.alive.all()) == (far > 100)


def test_what_is_not_alive_earns_nothing_further():
    plan, starts = plans(), jnp.zeros((3, 1))
    first, _ = carry_out(KEY, Walk(), OpenLoop(1), begin(Walk(), starts), plan, 2)
    dead = first._replace(alive=jnp.asarray([True, False, True]))
    _, totals = carry_out(KEY, Walk(), OpenLoop(1), dead, plan, 2)
    assert float(totals[1]) == 0 and (np.asarray(totals)[[0, 2]] != 0).all()


def test_two_halves_earn_the_whole():
    """Episodes that stand half way go on from there."""
    plan, starts = plans(h=6), jnp.asarray([[0.0], [1.0], [2.0]])
    _, whole = carry_out(KEY, Walk(), OpenLoop(2), begin(Walk(), starts), plan, 12)
    rest = Trajectory(plan.observations[:, 3:], plan.actions[:, 3:])
    half, first = carry_out(KEY, Walk(), OpenLoop(2), begin(Walk(), starts), plan, 6)
    _, second = carry_out(KEY, Walk(), OpenLoop(2), half, rest, 6)
    np.testing.assert_allclose(first + second, whole, rtol=1e-5)


def test_random_transitions_follow_their_keys():
    """Replayed by hand with the keys that the key is split into: one for each plan, of those one for each step."""
    env, plan, starts = Walk(noise=0.5), plans(), jnp.zeros((3, 1))
    running, totals = carry_out(KEY, env, OpenLoop(1), begin(env, starts), plan, 4)
    for i, key in enumerate(jax.random.split(KEY, 3)):
        noise = [0.5 * float(jax.random.normal(each, (1,))[0]) for each in jax.random.split(key, 4)]
        place, total, _ = walked(0.0, plan.actions[i, :, 0], 1, 1e9, np.asarray(noise))
        assert float(running.observations[i, 0]) == pytest.approx(place, abs=1e-4)
        assert float(totals[i]) == pytest.approx(total, abs=1e-3)
    other = carry_out(jax.random.key(1), env, OpenLoop(1), begin(env, starts), plan, 4)[1]
    again = carry_out(KEY, env, OpenLoop(1), begin(env, starts), plan, 4)[1]
    np.testing.assert_array_equal(again, totals)
    assert not np.isclose(other, totals).any()


@pytest.mark.parametrize("stride", [1, 3])
def test_steering_by_the_inverse_of_a_walk_visits_the_plan(stride):
    """Of a walk the action that arrives in k steps is the distance / k: the plan's rows are met, one a stride."""
    inverse = jax.tree_util.Partial(lambda observation, target, left: (target - observation) / left)
    plan, env = plans(h=5), Walk()
    controller = Steering(inverse, stride)
    running, total = begin(env, plan.observations[:, 0]), np.zeros(3)
    for row in range(1, 5):
        left = Trajectory(plan.observations[:, row - 1 :], plan.actions[:, row - 1 :])
        running, gained = carry_out(KEY, env, controller, running, left, stride)
        np.testing.assert_allclose(running.observations, plan.observations[:, row], atol=1e-5)
        total += np.asarray(gained)
    running, whole = carry_out(KEY, env, controller, begin(env, plan.observations[:, 0]), plan, 5 * stride)
    np.testing.assert_allclose(running.observations, plan.observations[:, -1], atol=1e-5)  # the last row is held
    held = stride * 10 * np.asarray(plan.observations[:, -1, 0])
    np.testing.assert_allclose(whole, total + held, rtol=1e-4, atol=1e-3)


def test_tracking_asks_for_the_next_row():
    """A controller that goes there at once reaches row t + 1 within every row, and then stays."""
    plan, env = plans(h=4), Walk()
    for steps in range(1, 9):
        controller = Tracking(lambda observation, target: target - observation, 2)
        running, _ = carry_out(KEY, env, controller, begin(env, plan.observations[:, 0]), plan, steps)
        row = min((steps - 1) // 2 + 1, 3)
        np.testing.assert_allclose(running.observations, plan.observations[:, row], atol=1e-6)


def test_the_next_row_of_a_plan():
    plan = Trajectory(jnp.arange(4.0)[:, None], jnp.zeros((4, 1)))
    rows = [float(following(plan, jnp.asarray(step), 3)[0]) for step in range(14)]
    assert rows == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]


def test_a_program_does_not_depend_on_the_plans():
    """Other plans and starts of the same shape use the same compiled program."""
    traced = []

    def track(observation, target):
        traced.append(1)
        return target - observation

    controller = Tracking(track, 1)
    for seed in range(3):
        plan = plans(seed=seed)
        carry_out(KEY, Walk(), controller, begin(Walk(), plan.observations[:, 0]), plan, 4)
    assert len(traced) == 1


# -- the truth as dynamics --


@pytest.mark.parametrize("stride", [1, 4])
def test_a_row_of_the_truth_is_its_steps(stride):
    after, disagreement = Truth(Walk(), False, stride)(KEY, jnp.asarray([0.25]), jnp.asarray([0.5]))
    assert float(after[0]) == 0.25 + 0.5 * stride and float(disagreement) == 0
    state = PENDULUM.reset(KEY)
    observation, action = PENDULUM.observe(state), jnp.asarray([1.5])
    for _ in range(stride):
        state, _ = PENDULUM.step(KEY, state, action)
    after, _ = Truth(PENDULUM, False, stride)(KEY, observation, action)
    np.testing.assert_allclose(after, PENDULUM.observe(state), atol=1e-5)
    np.testing.assert_array_equal(Truth(PENDULUM).action_high, PENDULUM.action_high)


def test_random_steps_of_a_row_have_keys_of_their_own():
    """Three steps of noise of standard deviation 1 have standard deviation sqrt 3, not 3."""
    row = jax.vmap(partial(Truth(Walk(noise=1.0), False, 3), observation=jnp.zeros(1), action=jnp.zeros(1)))
    places = row(jax.random.split(KEY, 4000))[0]
    assert float(places.std()) == pytest.approx(np.sqrt(3), rel=0.05)


# -- behaviour --


def test_behaviour_is_recorded_row_by_row():
    """Constant steps from a random start: row t stands at start + t / 2, and `ended` stays true."""
    policy = lambda key, observation, step: jnp.asarray([0.5])
    runs = jax.tree.map(np.asarray, behave(Walk(far=2.0), policy, KEY, 5, 8))
    start = runs.observations[:, :1]
    np.testing.assert_allclose(runs.observations, start + 0.5 * np.arange(8)[None, :, None], atol=1e-5)
    np.testing.assert_allclose(runs.rewards, 10 * runs.observations[..., 0] + 0.5, atol=1e-4)
    np.testing.assert_array_equal(runs.ended, runs.observations[..., 0] + 0.5 > 2.0)
    assert len(np.unique(start)) == 5
    counted = behave(Walk(), lambda key, observation, step: step[None].astype(jnp.float32), KEY, 2, 4).actions
    np.testing.assert_array_equal(counted[..., 0], [[0, 1, 2, 3]] * 2)


# -- the host --


@pytest.fixture(scope="module")
def host() -> Host:
    return Host("Pendulum-v1")


def test_what_is_a_host(host):
    assert is_host(host) and not is_host(PENDULUM) and not is_host(Walk())


@pytest.mark.parametrize("stride", [1, 5])
def test_the_pendulum_on_the_host_is_the_pendulum_in_jax(host, stride):
    """The same starts and torques: of a cost c a step gymnasium's reward is -c, and ours 1 - c / 16.27."""
    seeds, h = np.arange(6), 40 // stride
    torques = np.random.default_rng(1).uniform(-3, 3, (6, h, 1)).astype(np.float32)  # some beyond the bounds
    on_host = begin(host, seeds)
    starts = jax.vmap(PENDULUM.state_of)(on_host.observations)
    plan = Trajectory(jnp.zeros((6, h, 3)), jnp.asarray(torques))
    there, costs = carry_out(KEY, host, OpenLoop(stride), on_host, plan, 40)
    here, returns = carry_out(KEY, PENDULUM, OpenLoop(stride), begin(PENDULUM, starts), plan, 40)
    end(host, there)
    np.testing.assert_allclose(40 + np.asarray(costs) / WORST, returns, atol=1e-3)
    np.testing.assert_allclose(there.observations, here.observations, atol=2e-3)
    assert bool(there.alive.all()) and bool(here.alive.all())


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
def test_a_batch_on_the_host_is_its_single_episodes(name):
    """Some of CartPole's end, each at a step of its own; what follows is not counted, as in a loop of gymnasium's."""
    host, seeds = Host(name), np.arange(5)
    rng = np.random.default_rng(0)
    plan = Trajectory(
        jnp.zeros((5, 30, host.observation_dim)),
        jnp.asarray(rng.normal(size=(5, 30, host.action_dim)), jnp.float32),
    )
    running, totals = carry_out(KEY, host, OpenLoop(1), begin(host, seeds), plan, 30)
    for i, seed in enumerate(seeds.tolist()):
        env = gymnasium.make(name)
        env.reset(seed=seed)
        total, over = 0.0, False
        for action in np.asarray(plan.actions[i]):
            taken = int(action.argmax()) if host.discrete else np.clip(action, -2, 2)
            _, reward, over, _, _ = env.step(taken)
            total += float(reward)
            if over:
                break
        assert float(totals[i]) == pytest.approx(total, rel=1e-5)
        assert bool(running.alive[i]) == (not over)
    assert bool(running.alive.all()) == (name == "Pendulum-v1")


def test_controllers_see_what_the_host_shows(host):
    """A controller that answers with the observation's speed, against a loop of gymnasium's."""
    plan = Trajectory(jnp.zeros((2, 4, 3)), jnp.zeros((2, 4, 1)))
    controller = Tracking(lambda observation, target: -observation[2:], 1)
    running, totals = carry_out(KEY, host, controller, begin(host, np.array([3, 4])), plan, 4)
    end(host, running)
    for i, seed in enumerate((3, 4)):
        env = gymnasium.make("Pendulum-v1")
        observation, _ = env.reset(seed=seed)
        total = 0.0
        for _ in range(4):
            observation, reward, *_ = env.step(np.clip(-observation[2:], -2, 2))
            total += float(reward)
        assert float(totals[i]) == pytest.approx(total, rel=1e-5)
        np.testing.assert_allclose(running.observations[i], observation, atol=1e-6)


def test_episodes_that_were_let_go_are_used_again(host):
    before = host.opened
    for _ in range(3):
        running = begin(host, np.arange(7))
        end(host, running)
    assert host.opened <= max(before, 7)
    end(PENDULUM, Running(None, jnp.zeros((1, 3)), jnp.ones(1, bool)))  # nothing to let go of
