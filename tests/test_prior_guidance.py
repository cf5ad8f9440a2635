"""Prior guidance where the best noise is known: under a Gaussian the plan is an affine function of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jaxtyping import Array

from diffplan.codec import Codec
from diffplan.count import count
from diffplan.methods import Method, Plans, Problem
from diffplan.methods.prior_guidance import PriorGuided
from diffplan.noise import karras
from diffplan.oracle.gaussian import Gaussian
from diffplan.samplers import Sampler, ddim, heun
from diffplan.types import Trajectory
from tests import problems

SHAPE, TOP = (3, 2), 40.0
NATS = (0.0, 0.5, 2.0, 8.0)
C = np.random.default_rng(2).normal(size=SHAPE)


@struct.dataclass
class Scored:
    """A reward of clean plans that is a parabola around `centre` of some curvature, and a plane where that is 0."""

    slope: Array
    curvature: float = struct.field(pytree_node=False, default=0.0)
    centre: float = struct.field(pytree_node=False, default=0.0)

    def __call__(self, x, sigma):
        return self.reward(x)

    def reward(self, x):
        return jnp.sum(self.slope * x) - self.curvature * jnp.sum((x - self.centre) ** 2) / 2

    score = reward


@cache
def prior() -> Gaussian:
    """A correlated prior away from the origin."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) / 3
    return Gaussian.of(jnp.asarray(rng.normal(size=6)), jnp.asarray(root @ root.T + 0.3 * np.eye(6)), SHAPE)


def problem(proxy: Scored, levels: int = 48) -> Problem:
    """Nothing is pinned: a plan has no observation."""
    codec, sampler = Codec(jnp.zeros(2), jnp.ones(2), 0), Sampler(karras(levels, 2e-3, TOP), SHAPE)
    return Problem(denoise=problems.GaussianPrior(prior()), codec=codec, sampler=sampler, regression=proxy)


def run(method: PriorGuided, part: Problem, count: int = 3) -> Plans:
    starts = jnp.zeros((count, 0))
    strengths = jnp.asarray(method.strengths, jnp.float32)
    return jax.jit(method.__call__)(jax.random.key(0), part, starts, strengths)


@cache
def linear(rule) -> Plans:
    """By a linear reward."""
    return run(PriorGuided(NATS, step=rule), problem(Scored(jnp.asarray(C, jnp.float32))))


def jacobian() -> np.ndarray:
    """Of the flow of the ODE from unit noise: V sqrt(l TOP^2 / (l + TOP^2)) V' for the covariance V l V'."""
    values, vectors = np.linalg.eigh(np.asarray(prior().covariance, np.float64))
    return vectors @ np.diag(np.sqrt(values * TOP**2 / (values + TOP**2))) @ vectors.T


RULES = pytest.mark.parametrize("rule", [heun, PriorGuided.step], ids=["heun", "default"])


@RULES
def test_the_gain_of_a_linear_reward_is_the_largest_that_a_budget_allows(rule):
    """score = c.x and x = J z + const, so sqrt(2 K) |J'c| is gained by every plan, along J'c."""
    assert isinstance(PriorGuided(NATS), Method)
    gain = np.tensordot(np.asarray(linear(rule).x - linear(rule).x[:1]), C, 2)
    best = np.sqrt(2 * np.asarray(NATS)) * np.linalg.norm(jacobian().T @ C.ravel())
    np.testing.assert_allclose(gain, np.broadcast_to(best[:, None], gain.shape), rtol=0.01, atol=1e-4)


@RULES
def test_nats_are_spent_and_are_the_kl_of_the_plans(rule):
    """Plans move from N(m, J J') by d, at d'(J J')^-1 d / 2 nats: J is invertible, so nothing of the noise is lost."""
    plans = linear(rule)
    np.testing.assert_allclose(plans.path_kl, np.broadcast_to(np.asarray(NATS)[:, None], (4, 3)), rtol=1e-4)
    np.testing.assert_allclose(plans.exact_kl, NATS, rtol=1e-4)
    moved = np.asarray(plans.x - plans.x[:1]).reshape(4, 3, 6)
    covariance = jacobian() @ jacobian().T
    nats = np.einsum("sni,ij,snj->sn", moved, np.linalg.inv(covariance), moved) / 2
    np.testing.assert_allclose(nats, np.broadcast_to(np.asarray(NATS)[:, None], nats.shape), rtol=0.02)


def test_without_nats_plans_are_those_of_the_prior():
    method = PriorGuided((0.0,), draws=1, iterations=1)
    x = np.asarray(run(method, problem(Scored(jnp.asarray(C, jnp.float32)), 24), 4000).x[0]).reshape(4000, 6)
    exact = np.asarray(prior().covariance)
    np.testing.assert_allclose(x.mean(axis=0), prior().mean, atol=0.06)
    np.testing.assert_allclose(np.cov(x.T), exact, atol=0.06)


def test_a_budget_beyond_the_optimum_is_not_spent():
    """Of a parabola around 1 the mean score is highest where plans have the mean 1; what is left of 30 nats stays."""
    plans = run(PriorGuided((0.0, 30.0), iterations=32, draws=8), problem(Scored(jnp.zeros(SHAPE), 1.0, 1.0), 12), 8)
    away = 1 - np.asarray(prior().mean)
    needed = np.sum(np.linalg.solve(jacobian(), away) ** 2) / 2
    assert 2 < needed < 10
    moved = np.asarray(plans.x[1] - plans.x[0]).reshape(-1, 6)
    gain = np.mean(moved @ away - np.sum(moved**2, axis=1) / 2)
    assert 0.95 < gain / (away @ away / 2) <= 1
    np.testing.assert_allclose(plans.exact_kl[1], needed, rtol=0.3)


def most(f: Callable[[Array], Array], nats: float) -> float:
    """The largest gain in mean f of forces N(v, I) over N(0, I) with |v|^2 / 2 nats: a quadratic on a ball."""
    g, h = (np.asarray(derivative(f)(jnp.zeros(6)), np.float64) for derivative in (jax.grad, jax.hessian))
    step = lambda shift: np.linalg.solve(shift * np.eye(6) - h, g)
    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(step(middle) ** 2) > 2 * nats else (low, middle)
    v = step(high)
    return float(g @ v + v @ h @ v / 2)


def test_plans_begin_at_their_starts_and_gain_what_their_budget_allows():
    """The plans of the point are those of its forces, which are N(0, I): the noise has no cheaper way to move them."""
    whole, method = problems.linear(), PriorGuided((0.0, 0.3, 1.0))
    codec, dynamics = whole.problem.codec, whole.problem.dynamics

    def gold(start: Array, forces: Array) -> Array:
        step = lambda o, u: (dynamics(jax.random.key(0), o, u)[0], o)
        observations = jax.lax.scan(step, start, forces[:, None])[1]
        return whole.gold(codec.encode(Trajectory(observations, forces[:, None])))

    part = replace(whole.problem, sampler=replace(whole.problem.sampler, sigmas=karras(12, 0.02, 10.0)))
    plans = jax.jit(method.__call__)(jax.random.key(0), part, whole.starts, jnp.asarray(method.strengths))
    pins = jax.vmap(part.pins)(whole.starts)
    first = np.broadcast_to(pins.value, plans.x.shape)[:, pins.mask]
    np.testing.assert_array_equal(np.asarray(plans.x)[:, pins.mask], first)
    assert bool((plans.path_kl <= jnp.asarray(method.strengths)[:, None] * (1 + 1e-5)).all())
    forces = codec.decode(plans.x).actions[..., 0]
    for nats, moved in zip(method.strengths[1:], forces[1:] - forces[:1], strict=True):
        parts = []
        for start, v in zip(whole.starts, moved, strict=True):
            f, zero = partial(gold, start), jnp.zeros(6)
            parts.append((jax.grad(f)(zero) @ v + v @ jax.hessian(f)(zero) @ v / 2, most(f, nats)))
        gain, best = np.mean(parts, axis=0)
        assert 0.88 * best < gain < 1.03 * best


def test_a_score_without_a_slope_leaves_the_noise_where_it_is():
    plans = run(PriorGuided((0.0, 5.0)), problem(Scored(jnp.zeros(SHAPE)), 8))
    np.testing.assert_allclose(plans.x[1], plans.x[0], atol=1e-5)
    np.testing.assert_array_equal(plans.exact_kl, 0)


def test_costs_are_those_of_the_plans_of_all_draws():
    method = PriorGuided((2.0,), draws=3, iterations=5, step=ddim)
    whole = problems.linear()
    part = replace(whole.problem, sampler=replace(whole.problem.sampler, sigmas=karras(7, 0.02, 10.0)))
    result = count(method.__call__, jax.random.key(0), part, whole.starts[:1], jnp.asarray([2.0]))
    assert result == {
        "network_evals": 7 * (2 * 3 * 5 + 1),
        "proxy_evals": 2 * 3 * 5,
        "env_steps": 0,
    }  # a gradient is two
