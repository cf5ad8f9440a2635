"""Pressure against closed forms: Gaussians, where every KL is known, and distributions of three points, by brute
force.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.denoise import pinned
from diffplan.guide import guided
from diffplan.metrics import kl
from diffplan.noise import log_linear
from diffplan.oracle.gaussian import Gaussian
from diffplan.types import Pins, Strengths

SHAPE = (3, 2)
DIRECTION = jnp.asarray([[1.0, 0.5], [0.0, -0.5], [1.0, 1.0]])
SIGMAS = log_linear(160, 0.05, 200.0)


def correlated() -> Gaussian:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) / 3
    return Gaussian.of(jnp.asarray(rng.normal(size=6)), jnp.asarray(root @ root.T + 0.1 * np.eye(6)), SHAPE)


def log_normal(x, mean, covariance) -> float:
    """log N(x; mean, covariance), in float64."""
    x, mean, covariance = (np.asarray(value, float) for value in (x, mean, covariance))
    deviation, (_, log_det) = x.ravel() - mean, np.linalg.slogdet(2 * np.pi * covariance)
    return float(-deviation @ np.linalg.solve(covariance, deviation) / 2 - log_det / 2)


def normals(count: int) -> jax.Array:
    """Starts of the flow in opposite pairs: what is odd in them has mean zero."""
    half = SIGMAS[0] * jax.random.normal(jax.random.key(1), (count // 2, *SHAPE))
    return jnp.concatenate([half, -half])


# -- the probability flow --


def test_flow_log_density_is_that_of_the_gaussian_noised_to_the_last_level():
    prior = correlated()
    noised = prior.covariance + SIGMAS[-1] ** 2 * jnp.eye(6)
    root = jnp.linalg.cholesky(prior.covariance)
    points = prior.mean.reshape(1, *SHAPE) + (jax.random.normal(jax.random.key(0), (20, 6)) @ root.T).reshape(
        20, *SHAPE
    )
    result = jax.jit(jax.vmap(lambda x: kl.flow_log_density(prior.denoise, x, SIGMAS)))(points)
    np.testing.assert_allclose(result, [log_normal(x, prior.mean, noised) for x in points], atol=0.05)


def test_flow_log_density_is_of_second_order():
    """Against the closed form of the same start, N(0, sigma_max^2), carried along the exact flow; in float64."""
    with jax.enable_x64(True):
        prior, x = correlated(), jnp.full(SHAPE, 0.5)

        def error(steps: int) -> float:
            sigmas = log_linear(steps + 1, 0.05, 5.0)
            high, low = sigmas[0] ** 2, sigmas[-1] ** 2
            start = log_normal(prior.flow(x, sigmas[-1], sigmas[0]), np.zeros(6), high * np.eye(6))
            exact = start + float(jnp.log((prior.eigenvalues + high) / (prior.eigenvalues + low)).sum() / 2)
            return abs(float(kl.flow_log_density(prior.denoise, x, sigmas)) - exact)

        assert np.log2(error(32) / error(128)) / 2 > 1.8


@pytest.mark.parametrize("weight", [0.0, 0.7, -1.5])
def test_flow_kl_of_the_exact_guide_is_the_kl_of_the_tilt(weight):
    """w^2 c'S (S + sigma_min^2)^-1 S c / 2, the tilt's noised to the last level; log q - log p varies by twice that."""
    prior = correlated()
    c, s = np.asarray(DIRECTION, float).ravel(), np.asarray(prior.covariance, float)
    exact = weight**2 * c @ s @ np.linalg.solve(s + float(SIGMAS[-1]) ** 2 * np.eye(6), s @ c) / 2
    wrapped = guided(prior.denoise, prior.energy(DIRECTION), Strengths(jnp.asarray(weight), jnp.ones(())))
    result = jax.jit(lambda noises: kl.flow_kl(wrapped, prior.denoise, noises, SIGMAS))(normals(2000))
    assert float(result.value) == pytest.approx(exact, rel=0.015, abs=1e-3)
    assert float(result.error) == pytest.approx(np.sqrt(2 * exact / 2000), rel=0.05, abs=1e-4)


def test_pinned_entries_cancel_in_the_flow_kl():
    """With the first step pinned, of independent entries: the KL of a tilt in the others alone."""
    variances = jnp.asarray([0.3, 0.5, 1.0, 0.7, 0.4, 1.2])
    pins = Pins(jnp.zeros(SHAPE, bool).at[0].set(True), jnp.full(SHAPE, 0.7))

    def diagonal(x, sigma):
        return x * variances.reshape(SHAPE) / (variances.reshape(SHAPE) + sigma**2)

    energy = lambda x, sigma: jnp.sum(DIRECTION * diagonal(x, sigma))
    wrapped = pinned(guided(diagonal, energy, Strengths(jnp.ones(()), jnp.ones(()))), pins)
    result = jax.jit(lambda noises: kl.flow_kl(wrapped, pinned(diagonal, pins), noises, SIGMAS))(normals(2000))
    exact = float(jnp.sum(DIRECTION.ravel()[2:] ** 2 * variances[2:]) / 2)
    assert float(result.value) == pytest.approx(exact, rel=0.02)


def test_hutchinson_is_unbiased_and_exact_for_a_diagonal():
    matrix = jax.random.normal(jax.random.key(0), (6, 6))
    f = lambda x: (matrix @ jnp.sin(x.ravel())).reshape(SHAPE)
    x = jnp.ones(SHAPE) * 0.3
    value, trace = kl.exact_trace(f, x)
    np.testing.assert_allclose(value, f(x), rtol=1e-6)
    assert float(trace) == pytest.approx(float(jnp.trace(matrix) * jnp.cos(0.3)), rel=1e-5)
    draw = jax.jit(jax.vmap(lambda key: kl.hutchinson(key, 4)(f, x)[1]))
    result = kl.estimate(draw(jax.random.split(jax.random.key(1), 4000)))
    assert abs(float(result.value - trace)) < 4 * float(result.error) and float(result.error) > 0
    assert float(kl.hutchinson(jax.random.key(2), 1)(lambda x: 3 * x, x)[1]) == 18


def test_hutchinson_over_keys_gives_the_flow_kl():
    prior = correlated()
    wrapped = guided(prior.denoise, prior.energy(DIRECTION), Strengths(jnp.ones(()), jnp.ones(())))

    def ratio(key, noise):
        return kl.flow_log_ratio(wrapped, prior.denoise, noise, SIGMAS, kl.hutchinson(key, 2))

    result = kl.estimate(jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(3), 2000), normals(2000)))
    assert abs(float(result.value - prior.tilt_kl(DIRECTION, 1.0))) < 4 * float(result.error)


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


@pytest.mark.parametrize("weight", [0.0, 0.8, -1.2])
def test_reweighted_gaussian_rewards(weight):
    """r ~ N(1, v) tilts to N(1 + w v, v); gold = -r^2; all the ratios are log-normal."""
    v = 0.5
    rewards = 1 + np.sqrt(v) * jax.random.normal(jax.random.key(0), (400_000,))
    result = jax.jit(kl.reweighted)(rewards, jnp.asarray(weight), -(rewards**2))
    mean = 1 + weight * v
    assert float(result.log_z) == pytest.approx(weight + weight**2 * v / 2, abs=0.01)
    assert float(result.reward) == pytest.approx(mean, abs=0.01)
    assert float(result.gold) == pytest.approx(-(mean**2 + v), abs=0.02)
    assert float(result.kl) == pytest.approx(weight**2 * v / 2, abs=0.01)
    assert float(result.chi2) == pytest.approx(np.expm1(weight**2 * v), rel=0.05, abs=1e-3)
    assert float(result.ess) == pytest.approx(np.exp(-(weight**2) * v), rel=0.05)
    assert float(result.kl) <= np.log1p(float(result.chi2)) + 1e-6 <= np.log(float(result.largest)) + 2e-6


def test_reweighted_without_gold_has_none():
    result = kl.reweighted(jax.random.normal(jax.random.key(0), (1000,)), 0.1)
    assert np.isnan(result.gold) and np.isfinite(result.kl)


def test_reweighted_says_when_too_few_samples_carry_the_tilt():
    rewards = jax.random.normal(jax.random.key(0), (1000,))
    result = kl.reweighted(rewards, 8.0, rewards)
    assert all(np.isnan(value) for value in result[:-1]) and 1 / 1000 <= float(result.ess) < 0.02
    trusted = kl.reweighted(rewards, 8.0, least=1)
    assert float(trusted.kl) < np.log(1000) < 32  # what it would have said of 32 nats
    assert np.isfinite(kl.reweighted(rewards, 8.0, least=1000 * float(result.ess) * 0.99).kl)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((jnp.zeros(0), 1.0), "rewards: 0 values"),
        ((jnp.asarray([0.0, np.nan, np.inf]), 1.0), "rewards: 2 of 3 values are not finite"),
        ((jnp.zeros(3), np.inf), "weight: 1 of 1 values are not finite"),
        ((jnp.zeros(3), 1.0, jnp.zeros(2)), "gold: 2 values, must be as many as the others, 3"),
        ((jnp.zeros(3), 1.0, jnp.asarray([0.0, np.nan, 1.0])), "gold: 1 of 3 values are not finite"),
    ],
)
def test_reweighted_refuses_by_name(arguments, said):
    with pytest.raises(ValueError, match=said):
        kl.reweighted(*arguments)


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
    wasted = kl.wasted_nats(reward**2 / (2 * v) + 0.4, lambda w: w**2 * v / 2, reward, -50, 50)
    assert float(wasted) == pytest.approx(0.4, abs=1e-5)


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
    for q, divergence in list(zip(distributions, divergences, strict=True))[::400]:  # Pythagoras
        wasted = float(kl.wasted_nats(divergence, three_points, reward, -20.0, 20.0))
        assert wasted == pytest.approx(kl(q, tilt), abs=2e-5)


def test_least_kl_outside_the_bracket():
    for reward, low, high in ((3.5, -20.0, 20.0), (2.0, 0.0, 0.1), (0.1, 0.0, 5.0)):
        result = kl.least_kl(three_points, reward, low, high)
        assert np.isnan(result.weight) and np.isposinf(result.kl)
        assert np.isneginf(kl.wasted_nats(1.0, three_points, reward, low, high))
    with pytest.raises(ValueError, match=r"low=2.0: must be less than high \(1.0\)"):
        kl.least_kl(three_points, 1.0, 2.0, 1.0)


def test_sample_log_z_feeds_least_kl():
    log_z = kl.sample_log_z(jax.random.normal(jax.random.key(0), (100_000,)))
    assert float(kl.least_kl(log_z, 1.0, -5.0, 5.0).kl) == pytest.approx(0.5, rel=0.02)


def test_the_certificate_holds_for_every_distribution_and_is_attained():
    """Distributions over 40 equally likely plans, random and with the ratio 1 + a U + b W that attains the bound."""
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=40)
    gold = 5 + 2 * (0.8 * proxy + 0.6 * rng.normal(size=40))
    u, v = ((value - value.mean()) / value.std() for value in (proxy, gold))
    r = float((u * v).mean())
    w = (v - r * u) / np.sqrt(1 - r**2)
    ratios = [rng.dirichlet(np.full(40, rng.uniform(0.1, 5))) * 40 for _ in range(200)]
    ratios += [np.exp(t * u) / np.exp(t * u).mean() for t in (0.3, 1.0, 3.0)]
    extreme = 1 + 0.2 * u - 0.15 * w
    assert extreme.min() > 0
    slack = []
    for ratio in [*ratios, extreme]:
        proxy_gain, chi2 = float((ratio * proxy).mean() - proxy.mean()), float((ratio**2).mean() - 1)
        result = kl.chi2_certificate(jnp.asarray(proxy), jnp.asarray(gold), proxy_gain, chi2)
        slack.append(float((ratio * gold).mean() - gold.mean() - result.gain))
        assert float(result.correlation) == pytest.approx(r, abs=1e-5)
        published = (proxy_gain / proxy.std() - np.sqrt((1 - r**2) * chi2)) / r * gold.std()
        assert float(result.gain) >= published - 1e-4 and (float(result.gain) > 0) == (published > 0)
    assert min(slack) > -1e-4 and abs(slack[-1]) < 1e-4 and max(slack) > 0.5


def test_certificates_that_cannot_be_given():
    proxy = jnp.arange(4.0)
    assert np.isnan(kl.chi2_certificate(proxy, proxy**2, 3.0, 0.1).gain)  # a gain that chi^2 does not pay for
    assert np.isnan(kl.chi2_certificate(jnp.ones(4), proxy, 0.0, 0.1).gain)
    with pytest.raises(ValueError, match="gold: 3 values"):
        kl.chi2_certificate(proxy, jnp.arange(3.0), 0.1, 0.1)
    with pytest.raises(ValueError, match="proxy: 0 values"):
        kl.chi2_certificate(jnp.zeros(0), jnp.zeros(0), 0.1, 0.1)


@pytest.mark.parametrize("mass", [0.3, 1e-2, 1e-6])
def test_an_event_is_bounded_by_the_kl_of_its_two_outcomes(mass):
    """Every share Q(H), with the least KL that it costs, the binary one."""
    for fraction in np.linspace(0.001, 0.999, 50):
        cost = kl(np.asarray([fraction, 1 - fraction]), np.asarray([mass, 1 - mass]))
        assert fraction <= float(kl.event_bound(cost, mass)) + 1e-5
    for n in (1, 10, 1000):  # best of n
        spent = kl.best_of_n_kl(jnp.asarray(float(n)))
        assert -np.expm1(n * np.log1p(-mass)) <= float(kl.event_bound(spent, mass)) + 1e-6
    assert float(kl.event_bound(0.0, 0.9)) == 1
