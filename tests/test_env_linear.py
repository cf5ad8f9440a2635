"""The closed-form distribution of a window against simulation, and against what is known of simple cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs import base, linear

ENV = linear.Linear.from_arrays(
    transition=[[0.9, 0.2], [-0.1, 0.8]],
    control=[[0.0], [0.5]],
    start_mean=[1.0, -1.0],
    start_std=[0.5, 0.2],
    slope=[1.0, 0.0, 0.5],
    curvature=[0.0, 1.0, 2.0],
    noise=0.1,
)
POLICY = linear.LinearPolicy(gain=((-0.5, -0.3),), offset=(0.2,), std=0.4)


def test_distribution_agrees_with_simulation(key):
    horizon, count = 6, 40_000

    def window(key):
        reset_key, run_key = jax.random.split(key)
        episode = base.follow(ENV, run_key, ENV.reset(reset_key), POLICY, horizon)
        return jnp.concatenate([episode.observations, episode.actions], axis=1).reshape(-1)

    windows = np.array(jax.jit(jax.vmap(window))(jax.random.split(key, count)), np.float64)
    mean, covariance = linear.trajectory_distribution(ENV, POLICY, horizon)
    variance = np.diag(covariance)
    assert (np.abs(windows.mean(0) - mean) <= 5 * np.sqrt(variance / count)).all()
    # the variance of a sample covariance of Gaussians is (C_ii C_jj + C_ij^2) / n
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / count)
    assert (np.abs(np.cov(windows.T) - covariance) <= 5 * error).all()


def test_distribution_of_a_random_walk():
    """x' = x + xi, u = eta: Var x_t = 1 + t, Cov(x_s, x_t) = 1 + min(s, t), actions independent of everything."""
    env = linear.Linear.from_arrays([[1.0]], [[0.0]], [3.0], [1.0], [0.0, 0.0], noise=1.0)
    mean, covariance = linear.trajectory_distribution(env, linear.LinearPolicy(((0.0,),), (0.0,), 1.0), 4)
    t = np.arange(4)
    np.testing.assert_allclose(mean, [3, 0, 3, 0, 3, 0, 3, 0])
    np.testing.assert_allclose(covariance[::2, ::2], 1 + np.minimum(t[:, None], t[None]))
    np.testing.assert_allclose(covariance[1::2, 1::2], np.eye(4))
    np.testing.assert_allclose(covariance[::2, 1::2], 0)


def test_reward_by_hand():
    assert ENV.reward(jnp.array([2.0, 3.0]), jnp.array([1.0])) == pytest.approx(2 + 0.5 - 0.5 * 9 - 0.5 * 2)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="2 states need A"):
        linear.Linear.from_arrays([[1.0]], [[1.0]], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="slope and curvature need 3 entries"):
        linear.Linear.from_arrays(np.eye(2), np.ones((2, 1)), [0, 0], [1, 1], [0, 0])
