"""What makes a plan infeasible where the task does not say: what no step of the data, or of the simulator, does.

Each violation is 0 where a plan is feasible and 1 where it is not:

    residual   its mean residual exceeds half the median step of the data       where the simulator has a residual
    jumps      a step is more than 1.25 times as long as the longest of the data        where it has none
    bounds     an observation is out of the simulator's bounds by more than 5 % of their range
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffplan.data.windows import Windows
from diffplan.metrics import validity
from diffplan.task import Task, Violation
from diffplan.types import Scalar, Trajectory

SLACK = 0.05
"""Fraction of the range by which bounds may be passed."""

LONGER = 1.25
"""Times the longest step of the data that a step may be long."""

WORDS = {
    "residual": "against the dynamics",
    "jumps": "with a longer step than any of the data",
    "bounds": "out of bounds",
}
"""What plans do, in words."""


class Limits(NamedTuple):
    """What steps of the data do. typical: the median length of a step. longest: of all, in standard deviations ``std``
    ``[o]``.
    """

    typical: float
    longest: float
    std: Float[np.ndarray, "o"]


def limits_of(windows: Windows) -> Limits:
    """Measure the steps from row to row of windows."""
    steps, std = row_steps(windows)
    typical = np.median(np.linalg.norm(steps, axis=1))
    return Limits(float(typical), float(np.sqrt(np.mean((steps / std) ** 2, axis=1)).max()), std)


def violations_of(task: Task, limits: Limits | None, stride: int) -> Mapping[str, Violation]:
    """The task's violations, or these, of plans of a stride; bounds alone where no limits are known."""
    if task.violations:
        return task.violations
    violations: dict[str, Violation] = {}
    if limits is not None and task.residual is not None and stride == 1:
        violations["residual"] = residual(task.residual, limits.typical / 2)
    elif limits is not None:
        violations["jumps"] = jumps(limits.std, LONGER * limits.longest)
    if (bounded := bounds_of(task.simulator)) is not None:
        violations["bounds"] = bounds(*bounded)
    return violations


def row_steps(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """(differences of observations from row to row ``[n, o]``, standard deviation of each entry), of the data."""
    first = np.asarray(windows.first)[:: max(1, len(windows.first) // 50_000)]
    observations = np.asarray(windows.observations)
    std = observations.std(axis=0)
    floor = 1e-3 * np.median(std[std > 0]) if (std > 0).any() else 1.0
    return observations[first + windows.stride] - observations[first], np.maximum(std, floor)


def residual(of_step: Any, tolerance: float) -> Violation:
    """1 where the mean residual exceeds the tolerance."""

    def violation(plan: Trajectory) -> Scalar:
        return (validity.dynamics_residual(of_step, plan) > tolerance).astype(jnp.float32)

    return violation


def jumps(std: np.ndarray, longest: float) -> Violation:
    """1 where a step, in standard deviations, is longer than `longest`."""

    def violation(plan: Trajectory) -> Scalar:
        step = jnp.diff(plan.observations, axis=0) / jnp.asarray(std)[None]
        return (jnp.sqrt(jnp.mean(step**2, axis=1)).max() > longest).astype(jnp.float32)

    return violation


def bounds_of(simulator: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """(least, greatest) observation, entries that are unbounded infinite; None where nothing is bounded."""
    if simulator is None or not hasattr(simulator, "observation_low"):
        return None
    low, high = (np.asarray(getattr(simulator, f"observation_{end}"), np.float64) for end in ("low", "high"))
    finite = np.isfinite(low) & np.isfinite(high) & (np.abs(low) < 1e30) & (np.abs(high) < 1e30)
    return (np.where(finite, low, -np.inf), np.where(finite, high, np.inf)) if finite.any() else None


def bounds(low: np.ndarray, high: np.ndarray) -> Violation:
    """1 where an observation is out of bounds by more than the slack."""
    slack = SLACK * np.where(np.isfinite(high - low), high - low, 0.0)
    least, greatest = jnp.asarray(low - slack, jnp.float32), jnp.asarray(high + slack, jnp.float32)

    def violation(plan: Trajectory) -> Scalar:
        out = (plan.observations < least[None]) | (plan.observations > greatest[None])
        return jnp.any(out).astype(jnp.float32)

    return violation
