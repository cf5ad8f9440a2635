"""Times calls in turn, so that a slow minute of the machine falls on all of them, and makes rows of what it saw."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from diffplan.runs import Progress

Calls = Mapping[str, tuple[int, Callable[[], Any]]]
"""By name: how many items one call makes, and the call."""


class Timing(NamedTuple):
    """Seconds of the first call, in which JAX compiles, and of every later one."""

    first: float
    seconds: list[float]


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int, label: str) -> dict[str, Timing]:
    """Time calls: each once, then all of them in turn, `repeats` times. label: what progress is shown of."""

    def seconds(call: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - begun

    with Progress(label, len(calls) * (repeats + 1), unit="calls") as progress:
        timings = {}
        for name, call in calls.items():
            timings[name] = Timing(seconds(call), [])
            progress.advance(1)
        for _ in range(repeats):
            for name, call in calls.items():
                timings[name].seconds.append(seconds(call))
                progress.advance(1)
    return timings


def row(part: str, what: str, timing: Timing, items: int, unit: str) -> dict[str, Any]:
    """One line of the table. items: what one call made, in `unit`."""
    median = statistics.median(timing.seconds)
    ends = {"min_s": min(timing.seconds), "max_s": max(timing.seconds)}
    about = {"part": part, "what": what, "first_call_s": timing.first, "median_s": median, **ends}
    return about | {"per_second": items / median, "unit": unit, "seconds": timing.seconds}


def timed(part: str, calls: Calls, repeats: int, unit: str) -> list[dict[str, Any]]:
    """A row for each call."""
    timings = interleaved({what: call for what, (_, call) in calls.items()}, repeats, f"bench {part}")
    return [row(part, what, timing, calls[what][0], unit) for what, timing in timings.items()]
