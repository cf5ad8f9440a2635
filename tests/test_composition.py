"""Several rewards at once: how their energies compose, what lies between them, and who is on the front."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from diffplan import guide
from diffplan.count import count
from diffplan.guide import Ensemble, Learned, Proxy, Sum, guided, mixture, weighted
from diffplan.methods import Method, Prior
from diffplan.methods.pareto import Compromise
from diffplan.metrics.pareto import front, hypervolume
from diffplan.noise import karras
from diffplan.oracle.gaussian import Gaussian
from diffplan.samplers import Sampler, sample
from diffplan.types import Strengths
from diffplan.validation import known
from tests import problems

COPIES, SCALE = 150, 8.0
SHARES = (0.0, 0.3, 1.0)


def slopes(whole: problems.Known) -> jax.Array:
    """Two linear rewards with no say in the first row."""
    c = np.random.default_rng(3).normal(size=(2, *whole.problem.shape)).astype(np.float32) / 4
    c[:, 0] = 0
    return jnp.asarray(c)


def conditional(distribution: Gaussian, mask: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a flattened Gaussian plan, given the entries under the mask."""
    mean, s = np.asarray(distribution.mean, np.float64), np.asarray(distribution.covariance, np.float64)
    gain = s[:, mask] @ np.linalg.inv(s[np.ix_(mask, mask)])
    return mean + gain @ (value[mask] - mean[mask]), s - gain @ s[mask]


def test_every_share_of_two_linear_rewards_draws_its_exact_tilt():
    whole = problems.linear()
    c = slopes(whole)
    first, second = (known.Additive(w, whole.problem.denoise, jnp.zeros(()), jnp.ones(())) for w in c)
    method = Compromise(lambda problem: second, SHARES, proxy=lambda problem: first, scale=SCALE)
    starts = jnp.repeat(whole.starts[:2], COPIES, axis=0)
    draw = jax.jit(method.__call__, compiler_options={"xla_backend_optimization_level": 0})
    plans = draw(jax.random.key(0), whole.problem, starts, jnp.asarray(SHARES))
    assert isinstance(method, Method) and bool(jnp.isfinite(plans.path_kl).all())
    x = np.asarray(plans.x).reshape(len(SHARES), 2, COPIES, -1)
    for n, start in enumerate(whole.starts[:2]):
        pins = whole.problem.pins(start)
        begun = x[:, n][..., np.asarray(pins.mask).ravel()]
        np.testing.assert_allclose(begun, np.broadcast_to(pins.value[pins.mask], begun.shape), atol=1e-6)
        mean, covariance = conditional(
            whole.problem.denoise.distribution,
            np.asarray(pins.mask).ravel(),
            np.asarray(pins.value, np.float64).ravel(),
        )
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        for i, fraction in enumerate(SHARES):
            shift = SCALE * covariance @ np.asarray((1 - fraction) * c[0] + fraction * c[1], np.float64).ravel()
            assert np.abs(shift).max() > 0.5
            error = np.abs(x[i, n].mean(axis=0) - mean - shift)
            assert (error <= 4.5 * std / np.sqrt(COPIES) + 0.1 * np.abs(shift).max()).all()  # 32 steps: some %


def test_a_compromise_of_scale_zero_is_the_prior():
    whole = problems.linear()
    method = Compromise(lambda problem: problem.clean, (0.5,), scale=0.0)
    x, prior = (
        jax.jit(one.__call__)(jax.random.key(0), whole.problem, whole.starts, jnp.asarray([0.5])).x
        for one in (method, Prior())
    )
    np.testing.assert_allclose(x, prior, atol=1e-5)


A = 2.0


def exact(sign: float):
    """The exact energy of r = sign * A x under N(0, 1), constants and all (10)."""
    distribution = Gaussian.of(jnp.zeros(1), jnp.eye(1), (1, 1))
    return lambda x, sigma: sign * A * distribution.denoise(x, sigma)[0, 0] + A**2 * sigma**2 / (1 + sigma**2) / 2


def draws(energy, count: int = 2000) -> np.ndarray:
    distribution = Gaussian.of(jnp.zeros(1), jnp.eye(1), (1, 1))
    denoise = guided(distribution.denoise, energy, Strengths(jnp.ones(()), jnp.ones(())))
    draw = lambda key: sample(key, denoise, Sampler(karras(100, 0.02, 40.0), (1, 1)))[0][0, 0]
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count)))


def test_a_product_of_opposite_rewards_is_neither_and_a_mixture_is_either():
    """exp(Ax) exp(-Ax) = 1 leaves N(0, 1); w exp(Ax) + (1 - w) exp(-Ax) makes it w N(A, 1) + (1 - w) N(-A, 1)."""
    both, w = (exact(1.0), exact(-1.0)), 0.8
    product = draws(weighted(both, jnp.ones(2)))
    assert product.mean() == pytest.approx(0, abs=0.1) and product.var() == pytest.approx(1, abs=0.15)
    either = draws(mixture(both, jnp.asarray([w, 1 - w])))
    for point in (-3.0, -2.0, 0.0, 1.0, 2.0, 3.0):
        distribution = w * norm.cdf(point - A) + (1 - w) * norm.cdf(point + A)
        assert (either < point).mean() == pytest.approx(distribution, abs=0.05)
    alone = draws(mixture(both, jnp.asarray([1.0, 0.0])))
    assert alone.mean() == pytest.approx(A, abs=0.1)  # a weight of 0 is without effect, as of no such reward


def learned(weight: float, kind="regression") -> Learned:
    apply = lambda params, x, c_noise: params["w"] * jnp.sum(x)
    return Learned({"w": jnp.asarray(weight)}, jnp.asarray(0.3), jnp.asarray(0.5), apply, kind)


@pytest.mark.parametrize("kind", ["regression", "classifier"])
@pytest.mark.parametrize("combine", ["mean", "min", "uwo"])
def test_an_ensemble_combines_what_its_members_say(kind, combine):
    weights, caution = (0.5, -1.0, 2.0), 0.7
    members = [learned(w, kind) for w in weights]
    zero, one = jnp.zeros(()), jnp.ones(())
    params = {"w": jnp.asarray(weights)}
    whole = Ensemble(params, zero + 0.4, one * 3, one * caution, members[0].apply, kind, combine)
    assert isinstance(whole, Proxy)
    by_hand = {"mean": np.mean, "min": np.min, "uwo": lambda v: np.mean(v) - caution * np.var(v)}[combine]
    x, sigma = jax.random.normal(jax.random.key(0), (4, 3)), jnp.asarray(0.5)
    assert float(whole(x, sigma)) == pytest.approx(by_hand([float(m(x, sigma)) for m in members]), rel=1e-5)
    assert float(whole.reward(x)) == pytest.approx(by_hand([float(m.reward(x)) for m in members]), rel=1e-5)
    outputs = [float(m.score(x)) * 0.5 + 0.3 for m in members]
    assert float(whole.score(x)) == pytest.approx((by_hand(outputs) - 0.4) / 3, rel=1e-5)
    assert count(whole, x, sigma)["proxy_evals"] == 3
    assert count(jax.vmap(whole.score), jnp.stack([x, x]))["proxy_evals"] == 6


def test_a_sum_weighs_its_parts_and_its_weights_can_be_swept():
    parts = (learned(1.0), learned(-2.0, "classifier"))
    x, sigma = jax.random.normal(jax.random.key(1), (4, 3)), jnp.asarray(0.5)
    values = lambda f: np.asarray([float(f(part)) for part in parts])
    sweep = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 3.0]])
    for name, f in {"score": lambda p: p.score(x), "reward": lambda p: p.reward(x), "g": lambda p: p(x, sigma)}.items():
        swept = jax.jit(jax.vmap(lambda weights, f=f: f(Sum(parts, weights))))(sweep)
        np.testing.assert_allclose(swept, np.asarray(sweep) @ values(f), rtol=1e-5, err_msg=name)
    gradients = [jax.grad(part)(x, sigma) for part in parts]
    np.testing.assert_allclose(
        jax.grad(Sum(parts, sweep[2]))(x, sigma), 0.5 * gradients[0] + 3 * gradients[1], rtol=1e-5
    )
    assert isinstance(Sum(parts, sweep[0]), guide.Proxy)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_front_by_brute_force(m):
    values = np.random.default_rng(m).integers(0, 6, size=(40, m)).astype(np.float32)  # ties and equal points
    values[3, 0] = np.nan
    values[7] = np.inf
    sound = [i for i in range(40) if np.isfinite(values[i]).all()]

    def dominated(b: int) -> bool:
        return any((values[a] >= values[b]).all() and tuple(values[a]) != tuple(values[b]) for a in sound)

    brute = [i in sound and not dominated(i) for i in range(40)]
    np.testing.assert_array_equal(front(jnp.asarray(values)), brute)
    assert any(brute)


def test_the_hypervolume_counts_unit_squares():
    rng = np.random.default_rng(0)
    for _ in range(8):
        values = rng.integers(-2, 8, size=(5, 2))
        reference = rng.integers(-1, 3, size=2)
        squares = {
            cell
            for x, y in values
            for cell in itertools.product(range(reference[0], int(x)), range(reference[1], int(y)))
        }
        points = jnp.asarray([*values, (np.nan, 9)], jnp.float32)
        assert float(hypervolume(points, jnp.asarray(reference, jnp.float32))) == len(squares)
