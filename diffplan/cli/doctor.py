"""What diffplan runs on: versions, devices, cache, disk, extras, and how fast they are.

    diffplan doctor                 # about ten seconds

Prints a line for each. A matrix product is timed at three sizes, and the dispatch of a small program. The first lines
to send with a report of something slow or broken.
"""

from collections.abc import Sequence

from diffplan.cli import command


def action() -> None:
    """Print everything."""
    from diffplan.runs import say

    for part in (system, packages, devices, cache, speed):
        for name, words in part():
            say(f"{name:<18}{words}")


def system() -> list[tuple[str, str]]:
    """The machine, and where runs would go."""
    import os
    import platform
    import shutil
    import sys
    from pathlib import Path

    free = shutil.disk_usage(".").free / 1e9
    writable = "writable" if os.access(".", os.W_OK) else "NOT writable: name another directory with --run"
    return [
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("python", f"{platform.python_version()} at {os.path.realpath(sys.executable)}"),
        ("folder", f"{Path.cwd()}, {free:.0f} GB free, {writable}"),
    ]


def packages() -> list[tuple[str, str]]:
    """Versions of what numbers depend on, and which extras are there."""
    from importlib.util import find_spec

    from diffplan.runs.files import versions

    lines = [(name, version) for name, version in versions().items() if name not in ("python", "backend")]
    for extra, modules in command.EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        words = f"pip install 'diffplan[{extra}]' ({', '.join(missing)} missing)" if missing else "installed"
        lines.append((f"[{extra}]", words))
    return lines


def devices() -> list[tuple[str, str]]:
    """Every device that jax sees."""
    import jax

    lines = []
    for device in jax.devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        words = device.device_kind + (f", {memory / 1e9:.0f} GB" if memory else "")
        lines.append((str(device.platform), words))
    return lines


def cache() -> list[tuple[str, str]]:
    """Where compiled programs are kept."""
    from pathlib import Path

    import jax

    where = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if not where:
        return [("cache", "none: JAX_COMPILATION_CACHE_DIR is empty; a folder there keeps compiled programs")]
    files = [path for path in Path(where).rglob("*") if path.is_file()]
    return [("cache", f"{where}, {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.0f} MB")]


def speed() -> list[tuple[str, str]]:
    """Matrix products in float32 and bfloat16, and the time that a call of a compiled program takes."""
    import jax
    import jax.numpy as jnp

    lines = []
    for kind in (jnp.float32, jnp.bfloat16):
        n = 1024 if jax.default_backend() == "cpu" else 8192
        x = jnp.ones((n, n), kind)
        seconds = median_seconds(jax.jit(lambda x: x @ x), x, 1.5)
        lines.append(("matmul", f"{jnp.dtype(kind).name} {n} x {n}: {2 * n**3 / seconds / 1e9:.0f} GFLOP/s"))
    seconds = median_seconds(jax.jit(lambda x: x + 1), jnp.ones(()), 0.5)
    lines.append(("dispatch", f"{1e6 * seconds:.0f} microseconds a call"))
    return lines


def median_seconds(call, x, budget: float) -> float:
    """The median time of a call, over as many as fit a budget of seconds; the first, which compiles, is left out."""
    import statistics
    from time import perf_counter

    call(x).block_until_ready()
    times, began = [], perf_counter()
    while perf_counter() - began < budget and len(times) < 1000:
        start = perf_counter()
        call(x).block_until_ready()
        times.append(perf_counter() - start)
    return statistics.median(times)


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.no_arguments(arguments, "diffplan doctor", __doc__)
    command.run(action)
