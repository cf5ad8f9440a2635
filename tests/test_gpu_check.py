"""The check of an accelerator, on the CPU at tiny sizes; and networks in bfloat16, which the check times."""

import json
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from diffplan.models import NETWORKS, Size, TemporalUNet, Value, build, in_bfloat16
from scripts.launch import _gpu_checks as checks
from scripts.launch import _gpu_parts as parts
from scripts.launch import gpu_check

CONFIG = replace(
    gpu_check.Config(tiny=True),
    **gpu_check.TINY | {"batches": (8,), "train_batches": (4,), "horizon": 8, "exact_levels": 40},
    precisions=("float32",),
    rules=("ancestral",),
)


@pytest.fixture(scope="module")
def problem() -> parts.Problem:
    return parts.make_problem(CONFIG.horizon, CONFIG.dim, CONFIG.trajectories)


def test_the_problem_says_what_its_plans_are(problem):
    x = np.asarray(jax.vmap(problem.distribution.draw)(jax.random.split(jax.random.key(0), 20_000)), np.float64)
    x = x.reshape(len(x), -1)
    np.testing.assert_allclose(np.cov(x.T), problem.prior_covariance, atol=0.05)
    assert (x @ problem.direction.ravel()).std() == pytest.approx(1, abs=0.03)
    # a Gaussian given its first entries: least squares predicts the others, with the conditional covariance left over
    known, rest = x[:, : parts.OBSERVED], x[:, parts.OBSERVED :]
    gain = np.linalg.lstsq(known, rest, rcond=None)[0]
    start = np.asarray(problem.pins.value, np.float64).ravel()[: parts.OBSERVED]
    np.testing.assert_allclose(start @ gain, problem.mean[parts.OBSERVED :], atol=0.05)
    left = np.cov((rest - known @ gain).T)
    np.testing.assert_allclose(left, problem.covariance[parts.OBSERVED :, parts.OBSERVED :], atol=0.05)


@pytest.mark.slow
def test_every_part_runs_and_leaves_a_report(tmp_path):
    config = replace(CONFIG, out=tmp_path / "check.json", precisions=("float32", "bfloat16"))
    report = gpu_check.run(config)
    text = json.loads(config.out.read_text())
    assert [row["what"] for row in text["rows"]] == ["training"] * 2 + ["sampling"] * 4
    assert all(row["min_s"] <= row["median_s"] <= row["max_s"] for row in text["rows"])
    assert [each["name"] for each in text["checks"] if each["passed"] is False] == []
    assert len(text["checks"]) == len(report.checks) > 20
    assert text["machine"]["platform"] == "cpu" and not text["skipped"]


def test_samplers_are_timed_and_their_plans_checked(problem, tmp_path):
    report = parts.Report(replace(CONFIG, out=tmp_path / "check.json"))
    plans = gpu_check.time_sampling(report, problem, untrained_prior(problem), untrained(CONFIG))
    assert plans.keys() == {("ancestral", "float32", False), ("ancestral", "float32", True)}
    checks.check_learned(report, problem, plans)
    report.write()
    text = json.loads(report.config.out.read_text())
    assert [(row["batch"], row["guided"], row["finite"]) for row in text["rows"]] == [(8, False, True), (8, True, True)]
    assert next(each for each in text["checks"] if each["name"].endswith("pinned entries"))["value"] == 0


def test_the_exact_denoiser_passes_and_a_wrong_one_does_not(problem):
    right, wrong = parts.Report(CONFIG), parts.Report(CONFIG)
    checks.check_exact(right, problem, None)
    assert all(each["passed"] for each in right.checks)
    narrow = replace(problem.distribution, eigenvalues=problem.distribution.eigenvalues / 4)
    checks.check_exact(wrong, problem._replace(distribution=narrow), None)
    assert not all(each["passed"] for each in wrong.checks)


def untrained_prior(problem):
    """The default network with its initial parameters, as a denoiser."""
    states = gpu_check.chain.fit(problem.windows, CONFIG.states, problem.windows.codec.observation_dim)
    return gpu_check.prior.untrained(
        gpu_check.prior.PriorSettings(width=64), CONFIG.horizon, problem.windows.codec, states
    )


def untrained(config):
    """A learned reward with its initial parameters."""
    settings = gpu_check.reward.ProxySettings()
    apply, params = gpu_check.reward.network(settings, config.horizon, config.dim)
    return gpu_check.Learned(params, jnp.zeros(()), jnp.ones(()), apply, "regression")


def test_a_wrong_answer_fails_the_check():
    report = parts.Report(CONFIG)
    report.check("right", 0.1, 0.2)
    report.check("wrong", 0.3, 0.2)
    report.check("not finite", math.nan, 0.2)
    report.check("not judged", 0.3, 0.2, judged=False)
    assert [each["passed"] for each in report.checks] == [True, False, False, None]


def test_rows_after_the_budget_are_listed_and_not_run(problem):
    report = parts.Report(replace(CONFIG, budget=0.0))
    assert gpu_check.time_sampling(report, problem, untrained(CONFIG), untrained(CONFIG)) == {}
    assert len(report.skipped) == 2 and not report.rows


# -- networks in bfloat16 --


def product_types(jaxpr: Any) -> set[np.dtype]:
    """The types that matrix products of a program work in."""
    types = {each.invars[0].aval.dtype for each in jaxpr.eqns if each.primitive.name == "dot_general"}
    for each in jaxpr.eqns:
        for value in each.params.values():
            inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
            types |= product_types(inner) if isinstance(inner, Jaxpr) else set()
    return types


def network(name):
    if name == "value":
        return build(jax.random.key(0), lambda rngs: Value(16, 4, Size(width=32, depth=1), rngs=rngs))
    if name == "unet":
        return build(jax.random.key(0), lambda rngs: TemporalUNet(4, dim=8, mults=(1, 2), rngs=rngs))
    apply, params = NETWORKS[name](jax.random.key(0), 16, 4, Size(width=32, depth=1))
    scale = lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(1), leaf.shape)  # outputs start at 0
    return apply, jax.tree.map(scale, params)


@pytest.mark.parametrize("name", ["mixer", "unet", "value"])
def test_every_product_of_a_network_in_bfloat16_is_one(name):
    apply, params = network(name)
    x, c_noise = jax.random.normal(jax.random.key(2), (16, 4)), jnp.asarray(-0.9)
    half = in_bfloat16(apply)
    gradient = jax.make_jaxpr(jax.grad(lambda params: jnp.sum(half(params, x, c_noise) ** 2)))(params)
    assert product_types(gradient.jaxpr) == {np.dtype(jnp.bfloat16)}
    assert {each.dtype for each in gradient.out_avals} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["mixer", "value"])
def test_a_network_in_bfloat16_is_near_its_float32_self(name):
    """A noise level rounded to bfloat16 before its embedding would be off by up to 4 radians: the error is smaller."""
    apply, params = network(name)
    x, levels = jax.random.normal(jax.random.key(2), (4, 16, 4)), jnp.asarray([-0.978, -0.3, 0.31, 0.922])
    evaluate = jax.jit(lambda apply, levels: jax.vmap(apply, (None, 0, 0))(params, x, levels), static_argnums=0)
    full, half = evaluate(apply, levels), evaluate(in_bfloat16(apply), levels)
    assert half.dtype == jnp.float32 and half.shape == full.shape
    error = jnp.linalg.norm(half - full) / jnp.linalg.norm(full)
    assert error < 0.05
    if name == "mixer":
        rounded = evaluate(apply, levels.astype(jnp.bfloat16).astype(jnp.float32))
        assert 2 * error < jnp.linalg.norm(rounded - full) / jnp.linalg.norm(full)


def test_without_an_accelerator_the_script_says_what_to_do():
    with pytest.raises(SystemExit, match="no accelerator"):
        gpu_check.main(gpu_check.Config())
