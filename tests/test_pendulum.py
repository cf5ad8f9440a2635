"""The pendulum against gymnasium's Pendulum-v1, its controllers against random torques, its bound against rollouts."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs import pendulum
from diffplan.envs.base import follow, rollout
from diffplan.envs.pendulum import Pendulum

ENV = Pendulum()
STEPS = 200


def pendulum_v1(theta: float, speed: float):
    """Gymnasium's environment in a given state."""
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    env.state = np.array([theta, speed])
    return env


def observation_of(theta, speed):
    return np.stack([np.cos(theta), np.sin(theta), speed], axis=-1).astype(np.float32)


def test_single_steps_are_those_of_gymnasium(key):
    """1000 states between the bounds, and torques beyond them."""
    rng = np.random.default_rng(0)
    theta, speed = rng.uniform(-np.pi, np.pi, 1000), rng.uniform(-8, 8, 1000)
    torques = rng.uniform(-3, 3, (1000, 1)).astype(np.float32)
    expected, costs = [], []
    for one in zip(theta, speed, torques, strict=True):
        observation, reward, *_ = pendulum_v1(*one[:2]).step(one[2])
        expected.append(observation)
        costs.append(-reward)
    step = jax.jit(jax.vmap(lambda o, a: ENV.step(key, ENV.state_of(o), a)[1]))
    transition = step(observation_of(theta, speed), torques)
    np.testing.assert_allclose(transition.observation, expected, atol=1e-5)
    np.testing.assert_allclose(transition.reward, 1 - np.array(costs) / 16.2736044, atol=1e-5)
    assert not transition.terminated.any() and not transition.truncated.any()


def test_an_episode_is_that_of_gymnasium(key):
    theta, speed = 2.5, 0.4
    torques = jnp.asarray(np.random.default_rng(1).uniform(-2, 2, (60, 1)), jnp.float32)
    env = pendulum_v1(theta, speed)
    expected = [env.step(np.asarray(torque))[0] for torque in torques]
    result = jax.jit(lambda o: rollout(ENV, key, ENV.state_of(o), torques).observation)(observation_of(theta, speed))
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_resets_and_limits_are_those_of_gymnasium():
    space = gymnasium.make("Pendulum-v1")
    np.testing.assert_array_equal(ENV.observation_high, space.observation_space.high)
    np.testing.assert_array_equal(ENV.action_high, space.action_space.high)
    assert ENV.max_steps == space.spec.max_episode_steps
    states = jax.vmap(ENV.reset)(jax.random.split(jax.random.key(0), 4000))
    theirs = np.array([space.reset(seed=seed)[0] for seed in range(4000)])
    mine = np.asarray(jax.vmap(ENV.observe)(states))
    error = 4 * np.hypot(mine.std(0), theirs.std(0)) / np.sqrt(4000)
    assert (np.abs(mine.mean(0) - theirs.mean(0)) <= error).all()
    np.testing.assert_allclose(np.abs(mine).mean(0), np.abs(theirs).mean(0), atol=0.03)


def test_rewards_lie_between_their_ends():
    reward = lambda theta, speed, torque: float(
        ENV.reward(jnp.asarray(observation_of(theta, speed)), jnp.array([torque]))
    )
    assert reward(0.0, 0.0, 0.0) == 1
    assert reward(np.pi, 8.0, 2.0) == pytest.approx(0, abs=1e-6)
    assert reward(np.pi, 20.0, 2.0) == 0
    assert reward(np.pi, 0.0, 0.0) == pytest.approx(1 - np.pi**2 / 16.2736044)
    assert reward(0.5, 1.0, 50.0) == reward(0.5, 1.0, 2.0)


def test_a_direction_counts_by_its_angle(key):
    """Plans hold directions that are not of length 1: the step takes their angle, and the residual says so."""
    o, a = jnp.asarray(observation_of(2.0, 1.0)), jnp.array([0.5])
    long = o * jnp.array([1.5, 1.5, 1.0])
    np.testing.assert_allclose(
        ENV.step(key, ENV.state_of(long), a)[1].observation, ENV.step(key, ENV.state_of(o), a)[1].observation, atol=1e-6
    )
    after = ENV.step(key, ENV.state_of(o), a)[1].observation
    assert ENV.residual(o, a, after) <= 1e-6
    assert ENV.residual(long, a, after) == pytest.approx(0.5, abs=1e-5)
    assert ENV.residual(o, -a, after) > 0.1  # another torque


def test_gradients_are_finite_everywhere():
    reward = jax.vmap(jax.grad(lambda o: ENV.reward(o, jnp.zeros(1))))
    observations = jnp.array([[0.0, 0.0, 0.0], [-1.0, 0.0, 8.0], [1.0, 0.0, 0.0], [0.3, -2.0, 30.0]])
    assert jnp.isfinite(reward(observations)).all()


def test_energy_is_kept_without_torque_and_changes_at_the_rate_of_the_motors_work(key):
    """dE / dt = omega u, by small differences of the continuous equation of motion."""
    rng = np.random.default_rng(0)
    theta, speed, torque, h = rng.uniform(-3, 3, 50), rng.uniform(-7, 7, 50), rng.uniform(-2, 2, 50), 1e-3
    energy = jax.vmap(pendulum.energy)
    later = observation_of(theta + h * speed, speed + h * (15 * np.sin(theta) + 3 * torque))
    rate = (np.asarray(energy(later)) - np.asarray(energy(observation_of(theta, speed)))) / h
    np.testing.assert_allclose(rate, speed * torque, atol=0.2)
    assert pendulum.energy(jnp.array([1.0, 0.0, 0.0])) == 0 and pendulum.energy(jnp.array([-1.0, 0.0, 0.0])) == -10


@pytest.fixture(scope="module")
def results():
    """Returns [300] of uniform torques, the mixture, and the controller without noise; and the latter's episodes."""
    key = jax.random.key(3)
    uniform = lambda key, o, t: jax.random.uniform(key, (1,), minval=-2, maxval=2)
    one = lambda key: follow(ENV, key, ENV.reset(jax.random.fold_in(key, 0)), uniform, STEPS)
    mixed = pendulum.collect(ENV, key, 300, STEPS)
    precise = pendulum.collect(ENV, key, 300, STEPS, lambda key: pendulum.PRECISE)
    episodes = jax.jit(jax.vmap(one))(jax.random.split(key, 300)), mixed, precise
    return [np.asarray(each.transitions.reward).sum(axis=1) for each in episodes], mixed, precise


def test_the_controller_swings_up_from_every_reset(results):
    _, _, precise = results
    assert (np.asarray(precise.observations)[:, -20:, 0] > 0.99).all()


def test_the_mixture_is_between_uniform_torques_and_the_controller(results):
    (uniform, mixed, precise), episodes, _ = results
    error = lambda values: values.std() / np.sqrt(len(values))
    assert uniform.mean() + 20 < mixed.mean() - 4 * error(mixed)
    assert mixed.mean() + 4 * error(mixed) < precise.mean() - 10
    observations = np.asarray(episodes.observations).reshape(-1, 3)
    theta = np.arctan2(observations[:, 1], observations[:, 0])
    counts = np.histogram2d(theta, observations[:, 2], 20, ((-np.pi, np.pi), (-8, 8)))[0]
    assert (counts > 0).mean() > 0.85
    assert len(np.unique(np.asarray(episodes.actions)[:, 5, 0])) > 200


@pytest.mark.parametrize("steps", [1, 3])
def test_the_bound_is_that_of_trying_every_torque(steps, key):
    """With few rows to go, against all sequences of 21 torques."""
    rng = np.random.default_rng(0)
    starts = observation_of(rng.uniform(-np.pi, np.pi, 20), rng.uniform(-3, 3, 20))
    choices = np.linspace(-2, 2, 21, dtype=np.float32)
    sequences = np.stack(np.meshgrid(*[choices] * steps, indexing="ij"), -1).reshape(-1, steps, 1)
    run = lambda o, actions: rollout(ENV, key, ENV.state_of(o), actions).reward.sum()
    best = jax.jit(jax.vmap(lambda o: jax.vmap(lambda actions: run(o, actions))(jnp.asarray(sequences)).max()))(starts)
    np.testing.assert_allclose(pendulum.bound(starts, steps), best, atol=2e-3 * steps)


def test_the_bound_holds_and_is_nearly_reached(results):
    (_, mixed, precise), mixed_episodes, episodes = results
    bound = pendulum.bound(np.asarray(episodes.observations)[:, 0], STEPS)
    assert (precise - bound).max() <= 2.4  # the error of the grid, as documented
    assert 0 < (bound - precise).mean() < 1.5
    assert (mixed - pendulum.bound(np.asarray(mixed_episodes.observations)[:, 0], STEPS)).max() <= 2.4
    upright = np.array([[1, 0, 0]], np.float32)
    assert pendulum.bound(upright, STEPS) == pytest.approx(STEPS, abs=1e-3)
