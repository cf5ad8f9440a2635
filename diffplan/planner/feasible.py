"""What makes a plan infeasible, beside what the task says itself: what physics, or no step of the data, allows.

Each violation is 0 where a plan is feasible and 1 where it is not:

    jumps      a step from row to row is more than 1.25 times as long as the longest of the data
    residual   a row's action, held until the next row, leads too far from it             where the simulator is in JAX
    bounds     an observation is out of the simulator's bounds by more than 5 % of their range

A step is as long as the way between two places, where the task has a plane; else it is the root mean square of its
entries in standard deviations of the data. In those the residual is measured too. With F(o, a) the observation that an
action held for a stride leads to, and C the extreme actions, it is too far where

    |o_t+1 - F(o_t, a_t)|  >  max(max_c in C |F(o_t, c) - F(o_t, a_t)|, half the median step of the data)       (142)

so a row may be anywhere that actions within their bounds could have moved the state to, however they change between two
rows. One-hot plans through cells are held to the task's moves alone.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.data.windows import Windows
from diffplan.simulators import Truth, is_host
from diffplan.task import Task, Violation
from diffplan.types import Scalar, Trajectory

SLACK = 0.05
"""Fraction of the range by which bounds may be passed."""

LONGER = 1.25
"""Times the longest step of the data that a step may be long."""

CORNERS = 16
"""Extreme actions that are tried: all corners of the bounds, or the two ends of each entry if those are fewer."""

WORDS = {
    "residual": "against the dynamics",
    "jumps": "with too long a step",
    "bounds": "out of bounds",
}
"""What plans do, in words."""


class Limits(NamedTuple):
    """What steps of the data do, from row to row. typical: the median length of a step, in standard deviations ``std``
    ``[o]``. longest: of all, in the task's own measure of length.
    """

    typical: float
    longest: float
    std: Float[np.ndarray, "o"]


Length = Callable[[Float[Array, "o"], Float[Array, "o"]], Scalar]
"""``length(o, o')`` of a step."""


def limits_of(task: Task, windows: Windows) -> Limits:
    """Measure the steps from row to row of windows."""
    before, after, std = row_steps(windows)
    each = lambda length: np.asarray(jax.jit(jax.vmap(length))(jnp.asarray(before), jnp.asarray(after)))
    return Limits(float(np.median(each(scaled(std)))), float(each(length_of(task, std)).max()), std)


def length_of(task: Task, std: Float[np.ndarray, "o"]) -> Length:
    """How the steps of a task are measured."""
    if task.plane is None:
        return scaled(std)
    place = task.plane.place
    return lambda o, after: jnp.linalg.norm(place(after) - place(o))


def scaled(std: Float[np.ndarray, "o"]) -> Length:
    """The root mean square of a step in standard deviations."""
    return lambda o, after: jnp.sqrt(jnp.mean(((after - o) / jnp.asarray(std, jnp.float32)) ** 2))


def violations_of(task: Task, limits: Limits | None, stride: int) -> Mapping[str, Violation]:
    """What makes plans of a stride infeasible; limits: of such plans, where they are known."""
    violations = dict(task.violations)
    if task.cells is not None:
        return violations
    if limits is not None:
        violations["jumps"] = jumps(length_of(task, limits.std), LONGER * limits.longest)
        if in_jax(task.simulator):
            violations["residual"] = residual(Truth(task.simulator, task.discrete, stride), limits)
    if (bounded := bounds_of(task.simulator)) is not None:
        violations["bounds"] = bounds(*bounded)
    return violations


def row_steps(windows: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(observations ``[n, o]``, those of the next rows, standard deviation of each entry), of the data."""
    first = np.asarray(windows.first)[:: max(1, len(windows.first) // 50_000)]
    observations = np.asarray(windows.observations)
    std = observations.std(axis=0)
    floor = 1e-3 * np.median(std[std > 0]) if (std > 0).any() else 1.0
    return observations[first], observations[first + windows.stride], np.maximum(std, floor)


def in_jax(simulator: Any) -> bool:
    """Whether an action can be held in a simulator from any observation."""
    if simulator is None or is_host(simulator) or not hasattr(simulator, "state_of"):
        return False
    return bool(np.isfinite([*simulator.action_low, *simulator.action_high]).all())


def extremes(low: Float[np.ndarray, "a"], high: Float[np.ndarray, "a"], discrete: bool) -> Float[np.ndarray, "c a"]:
    """C of (142): every choice, or the corners of the bounds of actions."""
    if discrete:
        return np.eye(len(low), dtype=np.float32)
    if 2 ** len(low) <= CORNERS:
        return np.asarray(list(product(*zip(low, high, strict=True))), np.float32)
    one = lambda i, end: np.where(np.arange(len(low)) == i, end, (low + high) / 2)
    return np.asarray([one(i, end) for i in range(len(low)) for end in (low, high)], np.float32)


def residual(truth: Truth, limits: Limits) -> Violation:
    """1 where a row is further than (142) from where the row before leads."""
    length, tolerance = scaled(limits.std), limits.typical / 2
    far = jnp.asarray(extremes(np.asarray(truth.action_low), np.asarray(truth.action_high), truth.discrete))
    after = lambda o, a: truth(jax.random.key(0), o, a)[0]

    def too_far(o: Float[Array, "o"], a: Float[Array, "a"], o_next: Float[Array, "o"]) -> Array:
        held = after(o, jnp.clip(a, truth.action_low, truth.action_high))
        moved = jax.vmap(lambda action: length(after(o, action), held))(far).max()
        return length(o_next, held) > jnp.maximum(moved, tolerance)

    def violation(plan: Trajectory) -> Scalar:
        o, a = plan.observations, plan.actions
        return jnp.any(jax.vmap(too_far)(o[:-1], a[:-1], o[1:])).astype(jnp.float32)

    return violation


def jumps(length: Length, longest: float) -> Violation:
    """1 where a step is longer than `longest`."""

    def violation(plan: Trajectory) -> Scalar:
        steps = jax.vmap(length)(plan.observations[:-1], plan.observations[1:])
        return (steps.max() > longest).astype(jnp.float32)

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
