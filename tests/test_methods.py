"""Every method of the comparison on small random networks: what must hold whatever the networks have learned."""

from collections import Counter
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, struct
from scipy import integrate

from diffplan.codec import Codec
from diffplan.denoise import CLEAN, Edm
from diffplan.experiment.programs import Programs
from diffplan.experiment.settings import DEMO_METHODS
from diffplan.guide import Learned
from diffplan.methods import Ascent, Guided, Method, Plans, Problem, chosen
from diffplan.methods.guidance import Pushed, Weakened, clean
from diffplan.methods.strengths import StrengthSettings
from diffplan.metrics.kl import best_of_n_kl
from diffplan.models import Mixer, Size, Value, to_pure
from diffplan.noise import karras
from diffplan.samplers import Sampler, ancestral, heun, sample

HORIZON, OBSERVATION, DIM, STARTS = 16, 4, 6, 5
FEW = StrengthSettings(points=2, scale=(1, 30), pool=6, ascent_steps=40)
RULES = ("guided_interval", "guided_scheduled", "guided_smoothed", "guided_lgd", "guided_budget")
MORE = ("guided_dps", "guided_classifier", "guided_raw", *RULES, "weakened", "ascent_clean", "ascent_prior")
METHODS: dict[str, Method] = {entry.name: entry.method for entry in chosen(FEW, (*DEMO_METHODS, *MORE))}
GUIDED = [name for name, method in METHODS.items() if isinstance(method, Guided)]


def random_weights(module, seed):
    """The module as (apply, params), with every weight moved off its initial value (some begin at 0)."""
    apply, params = to_pure(module)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return apply, jax.tree.unflatten(
        tree, [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    )


def codec() -> Codec:
    mean = jnp.asarray([1.0, -2.0, 0.0, 0.5, 0.0, 0.1])
    return Codec(mean, jnp.asarray([0.5, 2.0, 1.0, 3.0, 0.7, 0.2]), OBSERVATION)


@cache
def problem(rule=ancestral) -> Problem:
    size = Size(patch=4, width=16, depth=1)
    apply, params = random_weights(Mixer(HORIZON, DIM, size, rngs=nnx.Rngs(0)), 0)

    def proxy(seed: int, kind: str) -> Learned:
        value, weights = random_weights(Value(HORIZON, DIM, size, rngs=nnx.Rngs(seed)), seed)
        return Learned(weights, jnp.asarray(0.3), jnp.asarray(0.5), value, kind)

    return Problem(
        denoise=Edm(params, apply),
        codec=codec(),
        sampler=Sampler(karras(6, 0.02, 10.0), (HORIZON, DIM), rule),
        regression=proxy(1, "regression"),
        classifier=proxy(2, "classifier"),
        clean=proxy(3, "regression"),
        shuffled=proxy(4, "regression"),
        untrained=proxy(5, "regression"),
    )


def starts() -> jax.Array:
    return codec().mean[None, :4] + jax.random.normal(jax.random.key(8), (STARTS, OBSERVATION))


TRACES = Counter()
FAST = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


@cache
def program(name: str):
    """A method as one compiled program, whose traces are counted (chex counts all programs from one line together)."""

    def traced(*args):
        TRACES[name] += 1
        return METHODS[name](*args)

    return jax.jit(traced, compiler_options=FAST)


@cache
def plans(name: str) -> Plans:
    """A method's plans, drawn once for all tests."""
    return program(name)(jax.random.key(3), problem(), starts(), jnp.asarray(METHODS[name].strengths, jnp.float32))


def scores(name: str, x) -> np.ndarray:
    """By a method's own proxy, over all leading axes of plans."""
    flat = jnp.asarray(x).reshape(-1, HORIZON, DIM)
    return np.asarray(jax.jit(jax.vmap(METHODS[name].proxy(problem()).score))(flat)).reshape(x.shape[:-2])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_the_contract(name):
    method, draws = METHODS[name], plans(name)
    s = len(method.strengths)
    assert isinstance(method, Method) and list(method.strengths) == sorted(method.strengths)
    assert draws.x.shape == (s, STARTS, HORIZON, DIM) and draws.path_kl.shape == (s, STARTS)
    assert draws.exact_kl.shape == (s,)
    assert bool(jnp.isfinite(draws.x).all())
    # every plan begins exactly at its start, at every strength
    begin = (starts() - codec().mean[None, :4]) / codec().std[None, :4]
    np.testing.assert_array_equal(draws.x[:, :, 0, :OBSERVATION], np.broadcast_to(begin, (s, STARTS, OBSERVATION)))
    first = codec().decode(draws.x).observations[:, :, 0]
    np.testing.assert_allclose(first, np.broadcast_to(starts(), first.shape), atol=1e-5)
    # plans differ from start to start, and strengths differ from each other
    assert len(np.unique(np.asarray(draws.x[0, :, 1:]).reshape(STARTS, -1), axis=0)) == STARTS
    assert len(np.unique(np.asarray(draws.x).reshape(s, -1), axis=0)) == s


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_of_scale_zero_is_the_prior_plan_by_plan(name):
    np.testing.assert_allclose(plans(name).x[0], plans("prior").x[0], atol=1e-5)
    np.testing.assert_allclose(plans(name).path_kl[0], 0, atol=1e-6)
    assert bool((plans(name).path_kl[1:] > 1e-6).all())


@pytest.mark.parametrize("name", ["guided", "guided_classifier", "guided_raw", "guided_dps"])
def test_guidance_raises_what_it_is_guided_by(name):
    assert (np.diff(scores(name, plans(name).x).mean(axis=1)) > 0.05).all()


def test_the_prior_is_weakened_from_guidance_to_the_reward_alone():
    """Strength 0 is guidance at the same scale, plan by plan; at 1 another prior gives the same plans."""
    weakened = METHODS["weakened"]
    assert weakened.strengths == (0.0, 0.5, 1.0)
    scale = weakened.denoiser.scale
    guided = Guided("guided", (scale,))
    key = jax.random.key(3)
    draw = lambda method, problem, *strengths: jax.jit(
        lambda strengths: method(key, problem, starts(), strengths), compiler_options=FAST
    )(jnp.asarray(strengths, jnp.float32))
    whole = draw(guided, problem(), scale)
    np.testing.assert_allclose(plans("weakened").x[0], whole.x[0], atol=1e-5)
    other = replace(problem(), denoise=lambda x, sigma: 0.3 * x)
    alone = draw(weakened, other, 1.0).x[0]
    np.testing.assert_allclose(plans("weakened").x[2], alone, rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(draw(weakened, other, 0.5).x[0] - plans("weakened").x[1]).max()) > 0.1


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.8, 1.0])
def test_a_weakened_gaussian_prior_has_a_closed_form(fraction):
    """With D and the exact energy of w c.x under N(0, s^2) the flow dx/dsigma = (x - D_guided) / sigma is linear.

    With p = 1 - fraction it ends at m + (x - m) k for k = (s^2 / (s^2 + sigma_1^2))^(p/2), from x at sigma_1 and with
    m = w s^2 c / p, the mean of the tilt by w / p; at p = 0 at x + w s^2 c log(1 + sigma_1^2 / s^2) / 2.
    """
    s2, w, top, p = 0.6, 1.7, 10.0, 1 - fraction
    c = jnp.asarray([[1.0, -0.5]])
    problem = Problem(
        denoise=lambda x, sigma: s2 * x / (s2 + sigma**2),
        codec=Codec(jnp.zeros(2), jnp.ones(2), 0),
        sampler=Sampler(karras(400, 1e-3, top), (1, 2), heun),
        regression=Exact(c, s2),
    )
    method = Pushed("weakened", (fraction,), Weakened(w), "fraction")
    starts = jnp.zeros((4000, 0))
    ends = jax.jit(lambda strengths: method(jax.random.key(0), problem, starts, strengths))(jnp.asarray([fraction])).x[
        0
    ]
    k = (s2 / (s2 + top**2)) ** (p / 2)
    mean = w * s2 * c / p * (1 - k) if p else w * s2 * c * np.log1p(top**2 / s2) / 2
    error = top * k / np.sqrt(4000)
    np.testing.assert_allclose(ends.mean(axis=0), mean, atol=4 * error + 2e-3)
    np.testing.assert_allclose(ends.std(axis=0), top * k, rtol=0.06)


@struct.dataclass
class Exact:
    """The exact energy of the reward c.x under N(0, s2 I): its gradient is s2 c / (s2 + sigma^2)."""

    c: jax.Array
    s2: float

    def __call__(self, x, sigma):
        return jnp.sum(self.s2 * self.c * x / (self.s2 + sigma**2))

    def reward(self, x):
        return jnp.sum(self.c * x)

    score = reward


def test_best_of_n_picks_from_the_prior():
    """Every plan is one of the prior's draws from its start; the largest n takes the best, and no n a worse one."""
    draws, ns = plans("best_of_n").x, METHODS["best_of_n"].strengths
    draw = lambda key: program("prior")(key, problem(), starts(), jnp.zeros(1)).x[0]
    pool = np.stack([draw(key) for key in jax.random.split(jax.random.split(jax.random.key(3))[0], max(ns))])
    score = scores("best_of_n", pool)
    apart = np.abs(np.asarray(draws)[:, None] - pool[None]).max(axis=(3, 4))  # [s pool n]
    assert (apart.min(axis=1) < 1e-5).all()
    np.testing.assert_array_equal(apart[-1].argmin(axis=0), score.argmax(axis=0))
    best = scores("best_of_n", draws)
    assert (np.diff(best, axis=0) >= 0).all() and (best[-1] > best[0]).any()


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_exact_kl_of_best_of_n_by_quadrature(n):
    """The best of n has density n u^(n-1) in the prior's quantile u, so the KL is the integral of p log p."""
    density = lambda u: n * u ** (n - 1)
    nats, _ = integrate.quad(lambda u: density(u) * np.log(density(u)) if u > 0 else 0.0, 0, 1)
    assert float(best_of_n_kl(jnp.asarray(float(n)))) == pytest.approx(nats, abs=1e-5)


def test_exact_kl_stands_in_the_plans():
    kl = plans("best_of_n").exact_kl
    assert float(kl[0]) == 0 and float(kl[1]) == pytest.approx(np.log(2) - 0.5, rel=1e-5)
    assert float(plans("prior").exact_kl[0]) == 0
    for name in {*METHODS} - {"prior", "best_of_n"}:
        assert bool(jnp.isnan(plans(name).exact_kl).all())


@pytest.mark.parametrize("name", ["ascent", "ascent_clean"])
def test_ascent_reads_every_number_of_steps_from_one_run(name):
    steps = METHODS[name].strengths[1]
    alone = replace(METHODS[name], strengths=(steps,))
    x = jax.jit(alone.__call__)(jax.random.key(3), problem(), starts(), jnp.asarray([float(steps)])).x
    np.testing.assert_allclose(plans(name).x[1], x[0], atol=1e-5)


def with_proxy(apply) -> Problem:
    proxy = Learned((), jnp.zeros(()), jnp.ones(()), apply, "regression")
    return replace(problem(), regression=proxy, clean=proxy)


def test_ascent_on_a_parabola_contracts_geometrically():
    """On r(x) = -|x / c|^2 / 2 at the clean level, c = sqrt(1 + CLEAN^2), a step multiplies by 1 - rate / c^2."""
    steps, rate = (0, 1, 2, 5, 20), 0.3
    parabola = with_proxy(lambda params, x, c_noise: -jnp.sum(x**2) / 2)
    method = Ascent(steps, "ascent_clean", clean, rate, anneal=0)
    x = np.asarray(jax.jit(method.__call__)(jax.random.key(0), parabola, starts(), jnp.asarray(steps, jnp.float32)).x)
    free = np.ones((HORIZON, DIM), bool)
    free[0, :OBSERVATION] = False
    assert x[0][:, free].std() == pytest.approx(1, abs=0.1)  # unit noise
    for i, k in enumerate(steps):
        np.testing.assert_allclose(x[i][:, free], x[0][:, free] * (1 - rate / (1 + CLEAN**2)) ** k, atol=1e-5)


def test_ascent_on_a_plane_climbs_in_steps_of_the_annealed_gradient():
    """With r(x) = w.x the gradient at level sigma is w / sqrt(1 + sigma^2): w / sqrt 2 at level 1, w when clean."""
    slope = jnp.asarray(np.random.default_rng(0).normal(size=(HORIZON, DIM)), jnp.float32).at[0, :OBSERVATION].set(0)
    plane = with_proxy(lambda params, x, c_noise: jnp.sum(slope * x))
    steps = tuple(range(16))
    method = Ascent(steps, rate=0.1, anneal=10)
    x = np.asarray(
        jax.jit(method.__call__)(jax.random.key(0), plane, starts(), jnp.asarray(steps, jnp.float32)).x, np.float64
    )
    moves = np.diff(x, axis=0) / 0.1  # [15 n h d]
    size = np.einsum("snhd,hd->sn", moves, slope) / np.sum(np.square(slope, dtype=np.float64))
    np.testing.assert_allclose(moves, size[..., None, None] * np.asarray(slope), atol=1e-4)
    np.testing.assert_allclose(size[0], 1 / np.sqrt(2), atol=1e-4)
    np.testing.assert_allclose(size[10:], 1 / np.sqrt(1 + CLEAN**2), atol=1e-4)
    assert (np.diff(size[:11], axis=0) > 0).all()
    levels = np.sqrt(1 / size[:8, 0] ** 2 - 1)  # falling in equal ratios
    np.testing.assert_allclose(levels[1:] / levels[:-1], CLEAN**0.1, rtol=2e-2)


COUNTS = {"network": 0, "proxy": 0}


def counting(name: str, apply):
    """`apply`, which also counts its forward and backward passes over plans while the program runs."""

    def note(_):
        COUNTS[name] += 1

    @jax.custom_vjp
    def counted(params, x, c_noise):
        jax.debug.callback(note, x[0, 0])
        return apply(params, x, c_noise)

    def backward(arguments, slope):
        jax.debug.callback(note, arguments[1][0, 0])
        return jax.vjp(apply, *arguments)[1](slope)

    counted.defvjp(lambda *arguments: (counted(*arguments), arguments), backward)
    return counted


def counted_problem(rule) -> Problem:
    network = Edm((), counting("network", lambda params, x, c_noise: 0.1 * x))
    value = counting("proxy", lambda params, x, c_noise: -jnp.sum((x - 1) ** 2))
    kinds = {"regression": "regression", "classifier": "classifier"}
    kinds |= dict.fromkeys(("clean", "shuffled", "untrained"), "regression")
    proxies = {name: Learned((), jnp.zeros(()), jnp.ones(()), value, kind) for name, kind in kinds.items()}
    return Problem(network, codec(), Sampler(karras(4, 0.02, 10.0), (3, DIM), rule), **proxies)


RULED = [*((name, ancestral) for name in METHODS), ("prior", heun), ("guided_dps", heun)]


@pytest.mark.parametrize(("name", "rule"), RULED)
def test_costs_read_off_the_program_are_the_evaluations_that_it_makes(name, rule, monkeypatch):
    """The path KL's reference is left out of the run: it measures, and is not a cost of the method."""
    strength = METHODS[name].strengths[-1] if isinstance(METHODS[name], Guided) else min(METHODS[name].strengths[-1], 5)
    method = replace(METHODS[name], strengths=(strength,))
    arguments = (jax.random.key(0), counted_problem(rule), starts()[:2], jnp.asarray([strength], jnp.float32))
    result = Programs(method, *arguments[1:3]).costs((strength,))
    without = lambda key, denoise, sampler, reference=None: sample(key, denoise, sampler)
    monkeypatch.setattr("diffplan.methods.base.sample", without)
    monkeypatch.setattr("diffplan.methods.guidance.sample", without)
    COUNTS.update(network=0, proxy=0)
    again = jax.jit(lambda *args: method(*args), compiler_options=FAST)  # not the program that was traced above
    jax.block_until_ready(again(*arguments))
    jax.effects_barrier()
    assert COUNTS["network"] / 2 == result["network_evals"][0]
    assert COUNTS["proxy"] / 2 == result["proxy_evals"][0]
    assert result["env_steps"][0] == 0


@pytest.mark.parametrize("name", METHODS)
def test_other_strengths_run_the_same_program(name):
    strengths = jnp.asarray(METHODS[name].strengths, jnp.float32)
    first = plans(name).x
    others = program(name)(
        jax.random.key(3), problem(), starts(), jnp.minimum(strengths, strengths[-2:][0])
    ).x  # traces: 1
    near = {"rtol": 1e-4, "atol": 1e-5}  # where a plan lies in its chunk decides how it is rounded
    np.testing.assert_allclose(others[:-1], first[:-1], **near)
    np.testing.assert_allclose(others[-1], first[-2:][0], **near)


def test_a_budget_is_spent():
    """The strength of `guided_budget` is the path KL of its plans: exactly in many steps, and in few more than that."""
    nats = np.asarray(METHODS["guided_budget"].strengths)
    few = np.asarray(plans("guided_budget").path_kl.mean(axis=1))
    assert nats[0] == 0 and few[0] == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(few[1:] / nats[1:], few[1] / nats[1], rtol=0.01)
    fine = replace(problem(), sampler=replace(problem().sampler, sigmas=karras(100, 0.02, 10.0)))
    draw = jax.jit(lambda strengths: METHODS["guided_budget"](jax.random.key(3), fine, starts(), strengths))
    ratio = np.asarray(draw(jnp.asarray(nats, jnp.float32)).path_kl.mean(axis=1))[1:] / nats[1:]
    np.testing.assert_allclose(ratio, 1, atol=0.1)
    assert few[1] / nats[1] > 1.1
