"""Times plans and training steps: Diffuser's U-Net in PyTorch and in JAX, this project's mixer, and a whole planner.

    python scripts/bench.py                                  # about 2 minutes on two idle CPU cores
    python scripts/bench.py --parts default                  # without PyTorch, about 15 s
    python scripts/bench.py --parts planner                  # without PyTorch, about 5 minutes
    python scripts/bench.py --steps 4 --out runs/bench.json  # a try, about a minute

PyTorch comes with `pip install -e .[bench]`. It runs eagerly, as the peers ship it, and in turn with JAX (torch, jax,
torch, jax, ...), both on the same `--threads` cores, in float32, with the same weights; that both networks give the
same output is asserted first. A JAX call that samples is one compiled program from noise to plans; training is a scan
over `--train-steps` steps, in torch a Python loop over as many. Compilation is timed apart.

Writes results/bench.json and prints a table. Expect, on two cores of a Xeon VM, parity for the same network: 64 plans
of 128 steps, 64 denoising steps, in about 6 s either way (10 plans/s), and a training step of 32 windows in about
0.17 s in torch, some 10 % more in JAX. The mixer draws hundreds of plans per second; that is
another network, not the same one made faster.
Numbers from a busy machine mean nothing (torch's threads suffer most from neighbours, which flatters JAX): the load
before the run is written beside them.
"""

import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

Part = Literal["sampling", "training", "default", "planner"]


@dataclass(frozen=True)
class Config:
    """What to time, and at what size."""

    parts: tuple[Part, ...] = ("sampling", "training", "default")
    """sampling, training: the U-Net in torch and in JAX. default: the mixer. planner: the planner of the U-maze that
    ships, with what its plans deliver."""
    batch: int = 64
    """Plans drawn at once."""
    horizon: int = 128
    """Steps of a plan; divisible by 4 for the U-Net, by 8 for the mixer."""
    dim: int = 6
    """Entries of a step: Maze2D has 4 observations and 2 actions."""
    steps: int = 64
    """Denoising steps of the U-Net, ancestral; Diffuser takes 64 in the U-maze."""
    default_steps: int = 32
    """Denoising steps of the mixer, ancestral."""
    fast_steps: int = 10
    """Denoising steps of the mixer, deterministic (DPM-Solver++ 2M)."""
    batches: tuple[int, ...] = (1, 64, 1024, 4096)
    """Plans that the planner is asked for at once."""
    scale: float = 5.7
    """Guidance scale of the planner's guided plans."""
    train_batch: int = 32
    """Windows of a training step."""
    train_steps: int = 4
    """Training steps in one repetition."""
    repeats: int = 5
    """Repetitions of each row; the median is reported, with the fastest and the slowest."""
    threads: int = 2
    """CPU cores that either library may use."""
    out: Path = Path("results/bench.json")
    """Where the numbers go."""


class Timing(NamedTuple):
    """Seconds of the first call, in which JAX compiles, and of every later one."""

    first: float
    seconds: list[float]


class Torch(NamedTuple):
    """The two calls of the PyTorch side."""

    plans: Callable[[], Any]
    train: Callable[[], Any]


def limit_threads(threads: int) -> None:
    """Give this process that many cores; must run before either library starts its threads."""
    if not hasattr(os, "sched_setaffinity"):
        if threads != os.cpu_count():
            sys.exit(f"this system cannot be limited to {threads} cores; pass --threads {os.cpu_count()}")
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        sys.exit(f"--threads {threads} asked for, but only {len(cores)} cores are available")
    os.sched_setaffinity(0, cores[:threads])


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Time the calls in turn, so that a slow minute of the machine falls on all of them."""

    def seconds(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    timings = {name: Timing(seconds(call), []) for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            timings[name].seconds.append(seconds(call))
    return timings


def sampler(apply: Any, params: Any, config: Config, steps: int, rule: Any) -> Callable[[], Any]:
    """One compiled call from keys to plans, with fresh keys each time."""
    import jax

    from diffplan.denoise import Edm
    from diffplan.noise import karras
    from diffplan.samplers import Sampler, sample

    how = Sampler(karras(steps, 0.02, 20.0), (config.horizon, config.dim), rule)

    @jax.jit
    def plans(key, params):
        keys = jax.random.split(key, config.batch)
        return jax.vmap(lambda k: sample(k, Edm(params, apply), how)[0])(keys)

    seeds = itertools.count()
    return lambda: plans(jax.random.key(next(seeds)), params).block_until_ready()


def trainer(apply: Any, params: Any, config: Config) -> Callable[[], Any]:
    """`train_steps` updates in one compiled scan: the project's loss, Adam as Diffuser sets it."""
    import jax
    import jax.numpy as jnp
    import optax

    from diffplan.denoise import Edm, loss
    from diffplan.noise import LogNormal

    adam = optax.adam(2e-4)
    shape = (config.horizon, config.dim)
    data = jax.random.normal(jax.random.key(1), (config.train_batch, *shape))
    free = jnp.zeros(shape, bool)

    def mean_loss(params, key):
        keys = jax.random.split(key, config.train_batch)
        return jax.vmap(lambda k, x0: loss(k, Edm(params, apply), x0, free, LogNormal())[0])(keys, data).mean()

    def update(carry, key):
        params, state = carry
        value, grads = jax.value_and_grad(mean_loss)(params, key)
        updates, state = adam.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def train(params, state, key):
        return jax.lax.scan(update, (params, state), jax.random.split(key, config.train_steps))

    state = adam.init(params)
    return lambda: jax.block_until_ready(train(params, state, jax.random.key(2)))


def torch_side(apply: Any, params: Any, config: Config) -> Torch:
    """The same network, weights, sampler and training step in eager PyTorch; asserts that the outputs agree."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        sys.exit("the peers' side needs PyTorch: pip install -e .[bench], or leave it out with --parts default")
    sys.path.insert(0, str(Path(__file__).parent))
    from _torch_unet import TorchUNet, ancestral, load, train_step

    from diffplan.noise import karras

    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    network = TorchUNet(config.dim)
    load(network, params)
    assert_same(network, apply, params, config)
    shape = (config.batch, config.horizon, config.dim)
    sigmas = [float(sigma) for sigma in karras(config.steps, 0.02, 20.0)]
    data = torch.randn(config.train_batch, *shape[1:])
    adam = torch.optim.Adam(network.parameters(), lr=2e-4)

    def train() -> None:
        for _ in range(config.train_steps):
            train_step(network, adam, data)

    return Torch(lambda: ancestral(network, sigmas, shape), train)


def assert_same(network: Any, apply: Any, params: Any, config: Config) -> None:
    """Both networks give the same output, to 1e-4, over the noise levels."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    x = jax.random.normal(jax.random.key(3), (4, config.horizon, config.dim))
    c_noise = jnp.linspace(-1.5, 1.0, 4)
    ours = np.asarray(jax.vmap(apply, (None, 0, 0))(params, x, c_noise))
    with torch.no_grad():
        theirs = network(torch.tensor(np.asarray(x)), torch.tensor(np.asarray(c_noise))).numpy()
    difference = float(np.abs(ours - theirs).max())
    if not difference < 1e-4:
        sys.exit(f"the two U-Nets disagree by {difference:.1e}: a comparison of their speed would mean nothing")
    print(f"same outputs: they differ by at most {difference:.0e}, at a size of {np.abs(ours).max():.1f}")


def row(what: str, who: str, timing: Timing, items: int, unit: str, params: int) -> dict[str, Any]:
    """One line of the table; `items` are what one repetition made."""
    median = statistics.median(timing.seconds)
    return {
        "what": what,
        "who": who,
        "parameters": params,
        "first_call_s": timing.first,
        "median_s": median,
        "min_s": min(timing.seconds),
        "max_s": max(timing.seconds),
        "per_second": items / median,
        "unit": unit,
        "seconds": timing.seconds,
    }


def time_unet(config: Config) -> list[dict[str, Any]]:
    """The same U-Net in torch and in JAX."""
    import jax
    from flax import nnx

    from diffplan.models import TemporalUNet, count, to_pure
    from diffplan.samplers import ancestral

    apply, params = to_pure(TemporalUNet(config.dim, rngs=nnx.Rngs(jax.random.key(0))))
    torch = torch_side(apply, params, config)
    rows = []
    if "sampling" in config.parts:
        what = f"U-Net, {config.batch} plans, {config.steps} ancestral steps"
        ours = sampler(apply, params, config, config.steps, ancestral)
        for who, timing in interleaved({"torch": torch.plans, "jax": ours}, config.repeats).items():
            rows.append(row(what, who, timing, config.batch, "plans/s", count(params)))
    if "training" in config.parts:
        what = f"U-Net, {config.train_steps} training steps of {config.train_batch}"
        ours = trainer(apply, params, config)
        for who, timing in interleaved({"torch": torch.train, "jax": ours}, config.repeats).items():
            rows.append(row(what, who, timing, config.train_steps, "steps/s", count(params)))
    return rows


def time_default(config: Config) -> list[dict[str, Any]]:
    """The mixer, unguided."""
    import jax
    from flax import nnx

    from diffplan.models import Mixer, count, to_pure
    from diffplan.samplers import ancestral, dpmpp_2m

    apply, params = to_pure(Mixer(config.horizon, config.dim, rngs=nnx.Rngs(jax.random.key(0))))
    calls = {
        f"mixer, {config.batch} plans, {config.default_steps} ancestral steps": (config.default_steps, ancestral),
        f"mixer, {config.batch} plans, {config.fast_steps} DPM-Solver++ steps": (config.fast_steps, dpmpp_2m),
    }
    timings = interleaved({what: sampler(apply, params, config, *how) for what, how in calls.items()}, config.repeats)
    return [row(what, "jax", timing, config.batch, "plans/s", count(params)) for what, timing in timings.items()]


def time_planner(config: Config) -> list[dict[str, Any]]:
    """The shipped planner of the U-maze: batches of every size, a sweep of scales, and the best of many.

    Rows of batches have the delivered return and the fraction of feasible plans of another batch.
    """
    import jax
    import jax.numpy as jnp

    from diffplan.models import count
    from diffplan.planner.model import PlanOptions
    from diffplan.planner.planner import Planner
    from diffplan.samplers import chunked

    planner = Planner.pretrained("maze2d-umaze")
    model, seeds = planner.model, itertools.count()
    observations = planner.task.episodes().observations
    starts = jnp.asarray(observations[:: max(1, len(observations) // max(64, *config.batches))])
    best = jax.jit(lambda model, key, starts, options: model.best(key, starts, None, None, options)[0])
    sweep = jax.jit(
        lambda model, keys, starts, scales: chunked(
            lambda key, start, scale: model.draw(key, start, scale=scale)[0], keys, starts, scales
        )
    )
    ready = jax.block_until_ready
    calls: dict[str, tuple[int, Callable[[], Any]]] = {}
    for guided in (False, True):
        options = PlanOptions(jnp.asarray(config.scale) if guided else None)
        for n in config.batches:
            what = f"planner, {n} plans, {'guided' if guided else 'unguided'}"
            draw = lambda n=n, options=options: ready(best(model, jax.random.key(next(seeds)), starts[:n], options))
            calls[what] = (n, draw)
    scales = jnp.repeat(jnp.geomspace(0.1, 1000, 20), 64)
    keys, rows64 = jnp.tile(jax.random.split(jax.random.key(0), 64), 20), jnp.tile(starts[:64], (20, 1))
    calls["planner, 20 scales of 64 plans"] = (1280, lambda: ready(sweep(model, keys, rows64, scales)))
    options = PlanOptions(candidates=4096)
    many = lambda: ready(best(model, jax.random.key(next(seeds)), starts[:1], options))
    calls["planner, best of 4096 unguided plans"] = (4096, many)
    timings = interleaved({what: call for what, (_, call) in calls.items()}, config.repeats)
    rows = []
    for what, timing in timings.items():
        n, call = calls[what]
        rows.append(row(what, "jax", timing, n, "plans/s", count(model.prior.params)))
        if f"{n} plans" in what and n > 1 and "scales" not in what:
            plans = planner.measure(model, call())
            delivered = float(planner.deliver(jax.random.key(3), plans).mean())
            rows[-1] |= {"delivered": delivered, "feasible": float(plans.feasible.mean())}
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Torch's seconds over ours where both were timed: of the medians, and the extremes over pairs of repetitions."""
    result = {}
    for what in dict.fromkeys(each["what"] for each in rows):
        both = {each["who"]: each for each in rows if each["what"] == what}
        if len(both) == 2:
            pairs = [a / b for a, b in zip(both["torch"]["seconds"], both["jax"]["seconds"], strict=True)]
            median = both["torch"]["median_s"] / both["jax"]["median_s"]
            result[what] = {"torch_over_jax": median, "min": min(pairs), "max": max(pairs)}
    return result


def machine(threads: int) -> dict[str, Any]:
    """Where and with what the numbers were taken."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    versions = {}
    for package in ("jax", "flax", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "load_before": load, "versions": versions}


def show(rows: list[dict[str, Any]], compared: dict[str, dict[str, float]]) -> None:
    """Print the table and the ratios."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "with", "median s", "min-max s", "per second", "first call s")
    for each in rows:
        spread = f"{each['min_s']:.3g}-{each['max_s']:.3g}"
        rate = f"{each['per_second']:.3g} {each['unit']}"
        table.add_row(each["what"], each["who"], f"{each['median_s']:.3g}", spread, rate, f"{each['first_call_s']:.3g}")
    console = Console()
    console.print(table)
    for what, ratio in compared.items():
        console.print(f"{what}: torch / jax = {ratio['torch_over_jax']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})")


def main(config: Config) -> None:
    """Time what was asked for, write it down and print it."""
    if not config.batches or min(config.batches) < 1 or max(config.batches) > 2**16:
        sys.exit(f"batches={config.batches}: must be from 1 to {2**16}")
    if min(config.repeats, config.batch, config.steps, config.default_steps, config.fast_steps) < 1:
        sys.exit("repeats, batch and numbers of steps must be at least 1")
    limit_threads(config.threads)
    where = machine(config.threads)
    if where["load_before"] is not None and where["load_before"] > 0.5:
        print(f"the machine is busy (load {where['load_before']:.1f}): do not quote these numbers", file=sys.stderr)
    import jax

    if jax.default_backend() != "cpu":
        sys.exit("this compares CPUs, and JAX found an accelerator: set JAX_PLATFORMS=cpu")
    rows = []
    if {"sampling", "training"} & set(config.parts):
        rows += time_unet(config)
    if "default" in config.parts:
        rows += time_default(config)
    if "planner" in config.parts:
        rows += time_planner(config)
    compared = ratios(rows)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {**asdict(config), "out": str(config.out)}
    config.out.write_text(
        json.dumps({"config": settings, "machine": where, "rows": rows, "ratios": compared}, indent=2) + "\n"
    )
    show(rows, compared)
    print(f"written to {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
