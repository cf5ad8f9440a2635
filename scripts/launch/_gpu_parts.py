"""What scripts/launch/gpu_check.py works with: the record of rows and checks, the known problem, and clocks."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.episodes import from_stacked
from diffplan.models import in_bfloat16
from diffplan.noise import NoiseSettings
from diffplan.oracle.gaussian import Gaussian
from diffplan.runs.files import versions
from diffplan.types import Apply, Pins

OBSERVED = 4
"""Entries of a step that are observations; the others are actions. The first observation is pinned."""
LEVELS = NoiseSettings(low=0.02, high=40.0)
"""Noise levels of training and sampling: the largest is far above the deviation of the data in any direction."""
Plans = dict[tuple[str, str, bool], np.ndarray]
"""Flattened plans ``[n, h * d]`` by rule, precision and whether they are guided."""


class Precision(NamedTuple):
    """How networks compute. network: wraps ``apply``. matmul: what float32 matrix products ask for; None is default."""

    network: Callable[[Apply], Apply]
    matmul: str | None


PRECISIONS = {
    "float32": Precision(lambda apply: apply, None),
    "float32 highest": Precision(lambda apply: apply, "highest"),
    "bfloat16": Precision(in_bfloat16, None),
}


def at(model: Any, name: str) -> Any:
    """A denoiser or learned reward, trained in float32, that computes in another precision."""
    return replace(model, apply=PRECISIONS[name].network(model.apply))


@dataclass
class Report:
    """All that is measured; `write` may be called at any time."""

    config: Any
    """A dataclass with `out`, the file, and `budget`, in seconds."""
    started: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def check(self, name: str, value: float, limit: float, judged: bool = True) -> None:
        """Record that `value` should be at most `limit`. Without `judged`, the value is recorded alone."""
        passed = bool(value <= limit) if judged else None
        self.checks.append({"name": name, "value": float(value), "limit": limit, "passed": passed})
        print(f"{'ok  ' if passed else '--  ' if passed is None else 'FAIL'} {name}: {value:.3g} (limit {limit:g})")

    def row(self, seconds: list[float], items: int, **about: Any) -> None:
        """Record a timing; `items` are the plans or steps that one repetition makes."""
        median = statistics.median(seconds)
        times = {"median_s": median, "min_s": min(seconds), "max_s": max(seconds), "repeats": len(seconds)}
        self.rows.append(about | times | {"per_second": items / median})
        words = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in about.items()
        )
        print(f"     {words}: {median:.4g} s ({min(seconds):.4g}-{max(seconds):.4g}), {items / median:.4g} per second")

    def late(self, what: str, since: float) -> bool:
        """Whether the budget is spent, counted from a moment; then the row is listed as skipped."""
        late = time.perf_counter() - since > self.config.budget
        if late:
            self.skipped.append(what)
        return late

    def write(self) -> None:
        """Write everything to the file."""
        text = {
            "config": {**asdict(self.config), "out": self.config.out.name},
            "machine": machine(),
            "seconds": time.perf_counter() - self.started,
            "rows": self.rows,
            "checks": self.checks,
            "skipped": self.skipped,
        }
        self.config.out.parent.mkdir(parents=True, exist_ok=True)
        self.config.out.write_text(json.dumps(text, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Where and with what the numbers were taken."""
    device = jax.devices()[0]
    memory = device.memory_stats() or {}
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "platform_version": getattr(device.client, "platform_version", "").strip(),
        "devices": jax.device_count(),
        "peak_memory_bytes": memory.get("peak_bytes_in_use"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


class Problem(NamedTuple):
    """A known distribution of plans, data of it, a linear reward and a pinned start.

    prior_covariance ``[h * d, h * d]``: of a flattened plan; its mean is 0. direction: c ``[h, d]`` of the reward c.x,
    whose standard deviation over the data is 1. pins: the first observation. mean, covariance: of a flattened plan
    given the first observation. NumPy arrays are float64.
    """

    distribution: Gaussian
    windows: Windows
    prior_covariance: np.ndarray
    direction: np.ndarray
    pins: Pins
    mean: np.ndarray
    covariance: np.ndarray


def make_problem(horizon: int, dim: int, trajectories: int) -> Problem:
    """A stationary Gaussian process of smooth paths, with correlated entries, and `trajectories` plans of it."""
    steps, entries = np.arange(horizon), np.arange(dim)
    apart = np.abs(steps[:, None] - steps[None]) * np.sqrt(3) / 12
    over_steps = (1 + apart) * np.exp(-apart)  # Matern 3/2 of length 12 steps
    over_entries = 0.5 ** np.abs(entries[:, None] - entries[None])
    (a, u), (b, v) = np.linalg.eigh(over_steps), np.linalg.eigh(over_entries)
    covariance, size = np.kron(over_steps, over_entries), horizon * dim
    shape = (horizon, dim)
    as_float = lambda array: jnp.asarray(array, jnp.float32)
    distribution = Gaussian(jnp.zeros(size), as_float(np.kron(a, b)), as_float(np.kron(u, v)), shape)
    direction = np.zeros(shape)
    direction[:, 0] = 1.0
    direction /= np.sqrt(direction.ravel() @ covariance @ direction.ravel())
    known = np.arange(size) < OBSERVED
    start = np.linspace(-1.0, 1.0, OBSERVED)
    gain = covariance[:, known] @ np.linalg.inv(covariance[np.ix_(known, known)])
    with jax.default_matmul_precision("highest"):
        draws = jax.jit(jax.vmap(distribution.draw))(jax.random.split(jax.random.key(1), trajectories))
    value = np.zeros(size)
    value[known] = start
    pins = Pins(jnp.asarray(known.reshape(shape)), as_float(value.reshape(shape)))
    episodes = from_stacked(*np.split(np.asarray(draws), [OBSERVED], axis=-1))
    unit = Codec(jnp.zeros(dim), jnp.ones(dim), OBSERVED)
    windows = Windows.of(episodes, unit, horizon)
    return Problem(
        distribution, windows, covariance, direction, pins, gain @ start, covariance - gain @ covariance[known]
    )


class Stopwatch:
    """A recorder of training: the losses, and the time after every chunk. The losses of a chunk are on the host by
    then, so the device has finished the chunk.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[np.ndarray] = []
        self.platforms: set[str] = set()

    def restore(self, state: Any, total: int) -> Any:
        """The state as it is; the clock starts."""
        self.times.append(time.perf_counter())
        return state

    def record(self, step: int, losses: np.ndarray, state: Any, due: bool) -> None:
        """After a chunk."""
        self.times.append(time.perf_counter())
        self.losses.append(losses)
        self.platforms |= platforms(state)


def platforms(tree: Any) -> set[str]:
    """The platforms of all devices that hold a part of a pytree of arrays; "host" for what is no array of JAX."""
    leaves = jax.tree.leaves(tree)
    return {place.platform for leaf in leaves if isinstance(leaf, jax.Array) for place in leaf.devices()} | {
        "host" for leaf in leaves if isinstance(leaf, np.ndarray)
    }


def repeated(call: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    """Seconds of every call after the first, and the last result."""
    result, seconds = jax.block_until_ready(call()), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds, result


def rms(x: Any) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.asarray(x, np.float64) ** 2)))
