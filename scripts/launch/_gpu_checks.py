"""What scripts/launch/gpu_check.py checks: right answers in closed form, the CPU beside the device, and bfloat16."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.denoise import pinned
from diffplan.guide import guided
from diffplan.noise import karras
from diffplan.samplers import STEPS, Sampler, sample
from diffplan.types import Strengths
from scripts.launch._gpu_parts import LEVELS, Plans, Problem, Report, at, rms

WAYS = {
    "float32 highest": ("float32", "highest", 1e-4, 1e-3),
    "float32 tensorfloat32": ("float32", "tensorfloat32", 1e-2, 3e-2),
    "float32": ("float32", None, 1e-2, 3e-2),
    "bfloat16": ("bfloat16", None, 8e-2, 1e-1),
}
"""Ways to compute on the device: (precision, matrix products, limit of the network's error, limit of the plans')."""


def check_exact(report: Report, problem: Problem, matmul: str | None) -> None:
    """Check sampler, guide and path KL with the exact denoiser, and a deterministic sampler against the exact flow."""
    config, exact = report.config, problem.distribution
    c, shape = jnp.asarray(problem.direction, jnp.float32), (config.horizon, config.dim)
    noisy = Sampler(karras(config.exact_levels, 0.002, 80.0), shape)
    smooth = Sampler(karras(config.exact_levels // 4, 0.002, 80.0), shape, STEPS["dpmpp_2m"])

    def tilted(key: Any, exact: Any, scale: Any) -> Any:
        denoise = guided(exact.denoise, exact.energy(c), Strengths(scale, jnp.ones(())))
        x, info = sample(key, denoise, noisy, reference=exact.denoise)
        return x, info.path_kl

    def flowed(key: Any, exact: Any) -> Any:
        x, info = sample(key, exact.denoise, smooth)
        return x, exact.flow(info.iterates[0], smooth.sigmas[0], jnp.zeros(()))

    keys, scale = jax.random.split(jax.random.key(6), config.exact_plans), jnp.asarray(config.scale)
    with jax.default_matmul_precision(matmul):
        plans, kl = jax.jit(jax.vmap(tilted, (0, None, None)))(keys, exact, scale)
        ends, right = jax.jit(jax.vmap(flowed, (0, None)))(keys[:64], exact)
    x, name = np.asarray(plans, np.float64).reshape(len(keys), -1), f"matmul {matmul or 'default'}"
    direction, noise = problem.direction.ravel(), 4 / np.sqrt(len(keys))
    scores, mean = x @ direction, config.scale * problem.prior_covariance @ direction
    report.check(f"exact tilt: mean reward, {name}", abs(scores.mean() / config.scale - 1), 0.02 + noise / config.scale)
    report.check(f"exact tilt: std of the reward, {name}", abs(scores.std() - 1), 0.03 + noise)
    report.check(f"exact tilt: mean of every entry, {name}", rms(x.mean(0) - mean), 0.02 + noise)
    report.check(f"exact tilt: std of every entry, {name}", rms(x.std(0) - 1), 0.02 + noise)
    nats = float(kl.mean()) / (config.scale**2 / 2)
    report.check(f"exact tilt: path KL, {name}", abs(nats - 1), 20 / config.exact_levels)
    report.check(f"exact flow, relative error, {name}", rms(ends - right) / rms(right), (30 / config.exact_levels) ** 2)


def check_device(report: Report, problem: Problem, model: Any) -> None:
    """Check outputs of the network, and plans of the same keys, on the device against float32 on the CPU."""
    config, cpu = report.config, jax.devices("cpu")[0]
    sigmas = jnp.repeat(jnp.asarray([LEVELS.low, 0.5, LEVELS.high]), 16)
    noise = jax.random.normal(jax.random.key(7), (48, config.horizon, config.dim))
    x = problem.windows.draws(jax.random.key(8), 48) + sigmas[:, None, None] * noise
    keys, levels = jax.random.split(jax.random.key(9), 16), karras(8, LEVELS.low, LEVELS.high)
    sampler = Sampler(levels, (config.horizon, config.dim), STEPS["dpmpp_2m"])

    def outcome(model: Any, x: Any, sigmas: Any, keys: Any, pins: Any, sampler: Sampler) -> Any:
        outputs = jax.vmap(lambda x, sigma: model.terms(x, sigma)[1])(x, sigmas)
        plan = lambda key: sample(key, pinned(model, pins), sampler)[0]
        return outputs, jax.vmap(plan)(keys)

    def outcomes(model: Any, *arguments: Any) -> Any:
        result = {}
        for name, (network, matmul, *_) in WAYS.items():
            with jax.default_matmul_precision(matmul):
                result[name] = outcome(at(model, network), *arguments)
        return result

    arguments = (model, x, sigmas, keys, problem.pins, sampler)
    with jax.default_matmul_precision("highest"), jax.default_device(cpu):
        expected = [np.asarray(each, np.float64) for each in jax.jit(outcome)(*jax.device_put(arguments, cpu))]
    for name, (outputs, plans) in jax.jit(outcomes)(*arguments).items():
        *_, output_limit, plan_limit = WAYS[name]
        error = rms(outputs - expected[0]) / rms(expected[0])
        report.check(f"network on the device and on the CPU, relative error, {name}", error, output_limit)
        report.check(f"plans of the same keys, rms difference, {name}", rms(plans - expected[1]), plan_limit)


def check_bfloat16(report: Report, problem: Problem, plans: Plans) -> None:
    """Check plans in bfloat16 against plans in float32, drawn with the same keys."""
    judged = not report.config.tiny
    for rule, name, guide in plans:
        if name != "float32" or (rule, "bfloat16", guide) not in plans:
            continue
        full, half = plans[rule, name, guide], plans[rule, "bfloat16", guide]
        what = f"bfloat16 and float32, {rule}, {'guided' if guide else 'unguided'}"
        free = full.std(0) > 1e-6
        report.check(f"{what}: rms difference of plans", rms(half - full), 0.2, judged)
        report.check(f"{what}: mean of every entry", rms(half.mean(0) - full.mean(0)), 0.03, judged)
        report.check(f"{what}: std of every entry", rms(half.std(0)[free] / full.std(0)[free] - 1), 0.03, judged)
        lengths = steps_of(problem, half) / steps_of(problem, full)
        report.check(f"{what}: length of steps", abs(lengths - 1), 0.05, judged)
        scores, other = full @ problem.direction.ravel(), half @ problem.direction.ravel()
        report.check(f"{what}: mean reward", abs(other.mean() - scores.mean()), 0.03, judged)


def steps_of(problem: Problem, plans: np.ndarray) -> float:
    """Root mean square of the difference between neighbouring steps of plans ``[n, h * d]``."""
    return rms(np.diff(plans.reshape(len(plans), *problem.direction.shape), axis=1))


def check_learned(report: Report, problem: Problem, plans: Plans) -> None:
    """Check the trained network's plans from the pinned start against the exact conditional distribution."""
    judged, c, size = not report.config.tiny, problem.direction.ravel(), problem.direction.size
    deviation, free = np.sqrt(np.maximum(np.diag(problem.covariance), 0)), ~np.asarray(problem.pins.mask).ravel()
    dim, second = problem.direction.shape[1], problem.covariance + np.outer(problem.mean, problem.mean)
    squares = np.diag(second)[dim:] + np.diag(second)[:-dim] - 2 * np.diag(second, dim)
    exact_steps = np.sqrt(squares.mean())
    exact_shift = report.config.scale * c @ problem.covariance @ c
    for name in report.config.precisions:
        if ("ancestral", name, True) not in plans or ("ancestral", name, False) not in plans:
            continue
        x, what = plans["ancestral", name, False], f"learned plans and the exact distribution, {name}"
        pinned_error = np.abs(x[:, ~free] - np.asarray(problem.pins.value, np.float64).reshape(size)[~free]).max()
        report.check(f"{what}: pinned entries", pinned_error, 0.0)
        report.check(f"{what}: mean of every entry", rms(x.mean(0) - problem.mean), 0.15, judged)
        report.check(f"{what}: std of every entry", rms(x.std(0)[free] / deviation[free] - 1), 0.15, judged)
        report.check(f"{what}: length of steps", abs(steps_of(problem, x) / exact_steps - 1), 0.25, judged)
        shift = (plans["ancestral", name, True] @ c).mean() - (x @ c).mean()
        report.check(f"{what}: shift of the reward by guidance", abs(shift / exact_shift - 1), 0.25, judged)
