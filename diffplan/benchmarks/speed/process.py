"""What only a process of its own can tell: the way to the first plan, peak memory, memory over many calls.

Each measurement is a small program, which another interpreter runs and whose last line is JSON. Compiled programs are
kept in a folder that the measurement is given: empty, it compiles; used again, it reads them back.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from diffplan.runs import RunError

PEAK = """
import pathlib, resource, sys
def megabytes():
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # what getrusage says may be the peak of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
"""

HEAD = (
    PEAK
    + """
import json
import jax, jax.numpy as jnp
import diffplan as dp
planner, start = dp.load({run!r}), jnp.asarray({start!r})
"""
)

FIRST = HEAD + "planner.plan(jax.random.key(0), start, scale={scale})\nprint(json.dumps(dict(megabytes=megabytes())))"

BEST = """
planner.plan(jax.random.key(0), start, candidates={most})
print(json.dumps(dict(megabytes=megabytes())))
"""

SWEEP = """
from diffplan.benchmarks.speed.plans import sweep
jax.block_until_ready(sweep(planner.model, jnp.tile(jnp.asarray(start), ({most}, 1)))())
print(json.dumps(dict(megabytes=megabytes())))
"""

RESIDENT = """
resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
def grown(call, warm=5):
    for k in range(warm):
        jax.block_until_ready(call(k))
    before = resident()
    for k in range({calls}):
        jax.block_until_ready(call(k))
    print(json.dumps(dict(megabytes=megabytes(), grown=resident() - before)))
"""

PLAN = RESIDENT + "grown(lambda k: planner.plan(jax.random.key(k), start, scale={scale}, n=8).observations)"

METHOD = (
    RESIDENT
    + """
from diffplan.methods import Guided, Problem
model = planner.model
problem = Problem(model.prior, model.codec, model.sampler, model.energy)
starts, scales = jnp.tile(jnp.asarray(start), (8, 1)), jnp.asarray([1.0, {scale}])
grown(lambda k: Guided("guided", (1.0, {scale}))(jax.random.key(k), problem, starts, scales).x)
"""
)


def measured(code: str, cache: Path, **values: Any) -> dict[str, Any]:
    """The last line of a program, and its seconds from the start of its interpreter to its end.

    Raises:
        RunError: with the end of what it said, if it fails.
    """
    settings = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    begun = time.perf_counter()
    command = [sys.executable, "-c", code.format(**values)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        raise RunError(f"a measurement failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - begun}


def processes(run: Path, start: list[float], scale: float | None, most: int, calls: int) -> list[dict[str, Any]]:
    """Every measurement on the planner of a run: a row each, with its seconds and its peak in MB.

    start: where plans begin. scale: of guided plans; None: nothing guides, and what guides is left out.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        values = {"run": str(run), "start": start, "scale": scale, "most": most, "calls": calls}
        programs = {
            "a command to its first plan, nothing compiled": FIRST,
            "a command to its first plan, compiled before": FIRST,
            f"best of {most} plans": HEAD + BEST,
            f"{calls} calls of planner.plan": HEAD + PLAN,
        }
        if scale is not None:
            programs[f"20 scales of {most} plans"] = HEAD + SWEEP
            programs[f"{calls} calls of a method"] = HEAD + METHOD
        for what, code in programs.items():
            rows.append({"part": "process", "what": what} | measured(code, Path(folder), **values))
    return rows
