"""Energies whose guidance of a Gaussian has a closed form: an interval of levels, DPS without the Jacobian, LGD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from diffplan import guide
from diffplan.guide import guided
from diffplan.noise import karras
from diffplan.types import Strengths

S2, TOP, SLOPE = 0.6, 10.0, np.asarray([[1.0, -0.5]])


def gaussian_denoise(x, sigma):
    """E[x0 | x] under N(0, S2 I)."""
    return S2 * x / (S2 + sigma**2)


def mean_of(energy, weight: float) -> np.ndarray:
    """The mean of the flow guided by an energy of a linear problem: where it takes the mean of the noise, 0."""
    denoise = guided(gaussian_denoise, energy, Strengths(jnp.asarray(weight), jnp.ones(())))
    sigmas = karras(800, 1e-3, TOP)
    steps = jnp.stack([sigmas, jnp.append(sigmas[1:], 0.0)], axis=1)

    def euler(x, pair):  # of midpoints
        sigma, after = pair
        half = x + (after - sigma) / 2 * (x - denoise(x, sigma)) / sigma
        middle = (sigma + after) / 2
        return x + (after - sigma) * (half - denoise(half, middle)) / middle, None

    return np.asarray(jax.lax.scan(euler, jnp.zeros((1, 2)), steps)[0])


def linear(x):
    return jnp.sum(jnp.asarray(SLOPE, jnp.float32) * x)


def exact_energy(x, sigma):
    return jnp.sum(S2 * jnp.asarray(SLOPE, jnp.float32) * x / (S2 + sigma**2))


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (0.3, 2.0), (2.0, 100.0)])
def test_guidance_in_an_interval_moves_the_mean_by_what_the_interval_holds(low, high):
    """x' = x sigma / (s^2 + sigma^2) - w sigma s^2 c / (s^2 + sigma^2) [in]: by w s^3 c (1/sqrt(s^2+low^2) - ...)."""
    w, ends = 1.7, np.minimum([low, high], TOP)
    expected = w * S2**1.5 * SLOPE * (1 / np.sqrt(S2 + ends[0] ** 2) - 1 / np.sqrt(S2 + ends[1] ** 2))
    result = mean_of(guide.in_interval(exact_energy, low, high), w)
    np.testing.assert_allclose(result, expected, rtol=0.02, atol=0.005)


def test_a_schedule_moves_the_mean_by_the_integral_of_its_factor():
    """As of an interval, with d(-1 / sqrt(s^2 + sigma^2)) = sigma d sigma / (s^2 + sigma^2)^1.5, times the factor."""
    w, low, high = 1.7, 0.02, TOP
    factor = lambda sigma: 2 * np.log(high / sigma) / np.log(high / low) if sigma > low else 2.0
    integral, _ = integrate.quad(lambda sigma: factor(sigma) * sigma / (S2 + sigma**2) ** 1.5, 0, high)
    result = mean_of(guide.scheduled(exact_energy, jnp.asarray(low), jnp.asarray(high)), w)
    np.testing.assert_allclose(result, w * S2**1.5 * SLOPE * integral, rtol=0.02)


def test_without_the_jacobian_the_push_is_not_shrunk_with_the_noise():
    """DPS has the gradient s^2 c / (s^2 + sigma^2) of a linear reward, which is exact; without the Jacobian it is c."""
    w = 0.4
    exact = mean_of(guide.dps(gaussian_denoise, linear), w)
    np.testing.assert_allclose(exact, w * S2 * SLOPE * (1 - np.sqrt(S2 / (S2 + TOP**2))), rtol=0.01)
    huge = jnp.full((1, 2), 1e9)
    value = guide.straight(lambda x, sigma: jnp.full_like(x, 0.7), linear)(huge, jnp.ones(()))
    assert float(value) == pytest.approx(0.7 * SLOPE.sum(), rel=1e-5)  # read at D, whatever is lost beside x
    far = mean_of(guide.straight(gaussian_denoise, linear), w)
    np.testing.assert_allclose(far, w * np.sqrt(S2) * SLOPE * (np.sqrt(S2 + TOP**2) - np.sqrt(S2)), rtol=0.01)


def test_a_smoothed_reward_is_its_mean_over_a_gaussian_around_the_denoised_plan():
    """Of a cubic reward: E (m + s e)^3 = m^3 + 3 m s^2, with m = D and s^2 = sigma^2 / (1 + sigma^2)."""
    noise = jax.random.normal(jax.random.key(0), (100_000, 1, 1))
    noise = jnp.concatenate([noise, -noise])
    energy = guide.smoothed(lambda x, sigma: 0.5 * x, lambda x: jnp.sum(x**3), noise)
    for sigma in (0.1, 1.0, 5.0):
        x, s2 = jnp.full((1, 1), 1.4), sigma**2 / (1 + sigma**2)
        assert float(energy(x, jnp.asarray(sigma))) == pytest.approx(0.7**3 + 3 * 0.7 * s2, rel=0.02)
        slope = jax.grad(energy)(x, jnp.asarray(sigma))[0, 0]
        assert float(slope) == pytest.approx(0.5 * (3 * 0.7**2 + 3 * s2), rel=0.02)


def test_lgd_is_the_exact_energy_of_a_white_prior():
    """Under N(0, I) it draws from the posterior: log E exp(w c.x0 given x) = w c.D + w^2 s^2 c.c / 2."""
    noise = jax.random.normal(jax.random.key(1), (200_000, 1, 2))
    for sigma, w in ((0.5, 1.0), (2.0, 0.7)):
        denoise = lambda x, sigma: x / (1 + sigma**2)
        energy = guide.lgd(denoise, linear, noise, jnp.asarray(w))
        x = jnp.asarray([[0.3, -1.2]])
        s2 = sigma**2 / (1 + sigma**2)
        exact = w * float(linear(denoise(x, sigma))) + w**2 * s2 * (SLOPE**2).sum() / 2
        assert float(energy(x, jnp.asarray(sigma))) == pytest.approx(exact, abs=0.01)
    none = guide.lgd(lambda x, sigma: x, linear, noise[:8], jnp.zeros(()))
    np.testing.assert_array_equal(jax.grad(none)(jnp.ones((1, 2)), jnp.ones(())), np.zeros((1, 2)))
