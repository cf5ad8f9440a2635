"""Pressure against closed forms: Gaussians, where every KL is known, and distributions of three points, by brute
force.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.metrics import kl

# -- from samples --


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_knn_kl_of_two_gaussians(shift):
    covariance = np.asarray([[1.0, 0.6], [0.6, 0.8]])
    root, mean = np.linalg.cholesky(covariance), np.asarray([shift, 0.5])
    x = jax.random.normal(jax.random.key(0), (3000, 2)) @ jnp.asarray(root.T) + jnp.asarray(mean)[None]
    exact = (np.trace(covariance) - 2 - np.log(np.linalg.det(covariance)) + mean @ mean) / 2  # to N(0, I)
    log_p = jax.vmap(lambda x: -jnp.sum(x**2) / 2 - jnp.log(2 * jnp.pi))(x)
    assert float(jax.jit(kl.knn_kl)(x, log_p)) == pytest.approx(exact, rel=0.1)


def test_knn_kl_of_an_atom_is_infinite_and_too_few_samples_are_refused():
    assert np.isposinf(float(kl.knn_kl(jnp.ones((10, 2)), jnp.zeros(10))))
    with pytest.raises(ValueError, match="neighbours=5: must be between 1 and 4"):
        kl.knn_kl(jnp.ones((5, 2)), jnp.zeros(5))


def test_weight_ess():
    assert float(kl.weight_ess(jnp.full(7, -1e4))) == pytest.approx(7)
    assert float(kl.weight_ess(jnp.log(jnp.asarray([1.0, 2.0, 3.0])))) == pytest.approx(36 / 14)
    assert float(kl.weight_ess(jnp.asarray([0.0, -np.inf, -np.inf]))) == 1
    assert np.isnan(kl.weight_ess(jnp.full(3, -jnp.inf)))


def test_particle_kl_of_the_exact_numbers():
    """r = w c.x of a Gaussian: E[r] = w^2 v, log Z = w^2 v / 2."""
    assert kl.particle_kl(4 * 0.3, 4 * 0.3 / 2) == pytest.approx(4 * 0.3 / 2)


# -- bounds --


@pytest.mark.parametrize("reward", [0.0, 1.0, 3.0, -2.0])
def test_least_kl_of_gaussian_rewards(reward):
    """log Z = w^2 v / 2: the weight is R / v, the KL R^2 / (2 v)."""
    v = 1.7
    result = jax.jit(lambda reward: kl.least_kl(lambda w: w**2 * v / 2, reward, -50.0, 50.0))(jnp.asarray(reward))
    assert float(result.weight) == pytest.approx(reward / v, abs=1e-5)
    assert float(result.kl) == pytest.approx(reward**2 / (2 * v), abs=1e-5)


PRIOR, REWARD = np.asarray([0.7, 0.2, 0.1]), np.asarray([0.0, 1.0, 3.0])


def three_points(weight):
    return jnp.log(jnp.sum(jnp.asarray(PRIOR) * jnp.exp(weight * jnp.asarray(REWARD))))


def divergence(q, p):
    return float(np.sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / p), 0), axis=-1))


@pytest.mark.parametrize("reward", [0.3, 0.9, 2.5])
def test_least_kl_of_three_points_by_brute_force(reward):
    """All distributions on three points with that mean reward are a segment: q3 in between, q2 = R - 3 q3."""
    candidates = [np.asarray([1 - reward + 2 * q3, reward - 3 * q3, q3]) for q3 in np.linspace(0, 1, 20_001)]
    distributions = [q for q in candidates if (q >= 0).all()]
    divergences = np.asarray([divergence(q, PRIOR) for q in distributions])
    result = kl.least_kl(three_points, reward, -20.0, 20.0)
    assert float(result.kl) == pytest.approx(divergences.min(), abs=1e-5)
    assert (divergences >= float(result.kl) - 1e-5).all()
    tilt = PRIOR * np.exp(float(result.weight) * REWARD)
    tilt /= tilt.sum()
    assert tilt @ REWARD == pytest.approx(reward, abs=1e-5)
    for q, nats in list(zip(distributions, divergences, strict=True))[::400]:  # Pythagoras
        assert nats - float(result.kl) == pytest.approx(divergence(q, tilt), abs=2e-5)


def test_least_kl_outside_the_bracket():
    for reward, low, high in ((3.5, -20.0, 20.0), (2.0, 0.0, 0.1), (0.1, 0.0, 5.0)):
        result = kl.least_kl(three_points, reward, low, high)
        assert np.isnan(result.weight) and np.isposinf(result.kl)
    with pytest.raises(ValueError, match=r"low=2.0: must be less than high \(1.0\)"):
        kl.least_kl(three_points, 1.0, 2.0, 1.0)
