"""Checks and times the library on the device that JAX finds: sampling and training, in float32 and in bfloat16.

    bash scripts/launch/gpu_check.sh           # everything, about 4 minutes on one H100, most of them compilation
    bash scripts/launch/gpu_check.sh --tiny    # the same parts at tiny sizes, on any device

The data are plans of a Gaussian distribution, so the right answers are known in closed form. The script trains the
default network on them, trains a learned reward, draws plans and compares:

    exact       the sampler and the guide with the exact denoiser, against the exact tilt and its KL
    learned     plans of the trained network from a pinned start, against the exact conditional distribution
    device      denoised plans and samples on the device, against the same on the CPU with the same keys
    bfloat16    plans and training losses in bfloat16, against float32

Three precisions are timed. `float32` is the library as it is: XLA chooses how matrix products round, and on recent
NVIDIA devices it chooses TensorFloat-32. `float32 highest` asks for full float32 products. `bfloat16` runs the network
through `diffplan.models.in_bfloat16`; parameters, moving average, noise and plans stay float32.

Writes results/gpu_check.json and prints a line for each measurement. Exits with 1 if a check fails.
"""

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffplan.denoise import pinned
from diffplan.guide import Learned, guided
from diffplan.learn import chain, prior, reward
from diffplan.learn.train import TrainSettings
from diffplan.noise import karras
from diffplan.samplers import STEPS, Sampler, sample
from diffplan.types import Pins, Strengths
from scripts.launch._gpu_checks import check_bfloat16, check_device, check_exact, check_learned
from scripts.launch._gpu_parts import (
    LEVELS,
    PRECISIONS,
    Plans,
    Problem,
    Report,
    Stopwatch,
    at,
    make_problem,
    platforms,
    repeated,
)

LEVEL_COUNTS = {"dpmpp_2m": 10, "ancestral": 32}
"""Noise levels of each rule."""
HOST = ("callback", "infeed", "outfeed", "S(5)")
"""Words of a compiled program that show a trip to the host."""


@dataclass(frozen=True)
class Config:
    """What is checked and timed, and at what size."""

    tiny: bool = False
    """Replace every size by a tiny one. Learned models are then too poor to be judged."""
    out: Path = Path("results/gpu_check.json")
    """Where the numbers go."""
    horizon: int = 32
    """Steps of a plan."""
    states: int = 256
    """States of the chain that the network begins with."""
    dim: int = 6
    """Entries of a step."""
    batches: tuple[int, ...] = (64, 1024, 8192)
    """Plans drawn at once. The last batch is the one that moments are taken from."""
    train_batches: tuple[int, ...] = (64, 1024)
    """Windows of a training step. The last batch trains the model that plans are drawn from."""
    precisions: tuple[str, ...] = ("float32", "bfloat16", "float32 highest")
    """Names in `PRECISIONS`; float32 must be among them. `float32 highest` is timed in two rows of sampling alone."""
    rules: tuple[str, ...] = ("dpmpp_2m", "ancestral")
    """Step rules that are timed."""
    train_steps: int = 3000
    """Training steps of the prior."""
    chunk: int = 50
    """Training steps of one compiled call."""
    reward_steps: int = 1000
    """Training steps of the learned reward."""
    trajectories: int = 8192
    """Plans in the data."""
    repeats: int = 20
    """Repetitions of each row; the median is reported, with the fastest and the slowest."""
    exact_levels: int = 400
    """Noise levels of the check with the exact denoiser."""
    exact_plans: int = 2048
    """Plans of the check with the exact denoiser."""
    scale: float = 2.0
    """Guidance scale."""
    compilers: int = 12
    """Threads that compile samplers; `compile_s` of sampling is measured while the others compile."""
    budget: float = 60.0
    """Seconds of compiling samplers after which no further one is begun; rows that are left out are listed."""


TINY = {
    "horizon": 16,
    "dim": 5,
    "states": 16,
    "batches": (4, 64),
    "train_batches": (4, 8),
    "train_steps": 15,
    "chunk": 5,
    "reward_steps": 10,
    "trajectories": 64,
    "repeats": 2,
    "exact_levels": 100,
    "exact_plans": 256,
}


def train_prior(report: Report, problem: Problem, batch: int, name: str) -> tuple[Any, np.ndarray]:
    """Train a chain of width 64 in one precision, and time its chunks; returns (model, losses)."""
    config, precision, watch = report.config, PRECISIONS[name], Stopwatch()

    training = replace(prior.PriorSettings().train, steps=config.train_steps, batch=batch, chunk=config.chunk)
    settings = prior.PriorSettings(training, horizon=config.horizon, states=config.states, width=64)
    states = chain.fit(problem.windows, config.states, problem.windows.codec.observation_dim)
    with jax.default_matmul_precision(precision.matmul):
        model = prior.fit(problem.windows, settings, LEVELS, states, watch, precision.network)
    first, *later = np.diff(watch.times).tolist()
    compile_s = first - statistics.median(later)
    about = {"what": "training", "batch": batch, "steps_per_chunk": training.chunk, "precision": name}
    report.row(later, training.chunk, **about, compile_s=compile_s)
    first_loss, last_loss = (float(np.mean(part)) for part in (watch.losses[0], np.concatenate(watch.losses)[-100:]))
    report.rows[-1] |= {"first_loss": first_loss, "last_loss": last_loss}
    report.check(f"training loss, last over first, batch {batch}, {name}", last_loss / first_loss, 0.9, not config.tiny)
    away = watch.platforms - {jax.default_backend()}
    report.check(f"training state off the device, batch {batch}, {name}", len(away), 0)
    return model, np.concatenate(watch.losses)


def train_reward(config: Config, problem: Problem) -> Learned:
    """The noise-conditioned regression of the reward."""
    x = jax.vmap(problem.windows.at)(problem.windows.first)
    target = jnp.sum(x * jnp.asarray(problem.direction, jnp.float32)[None], axis=(1, 2))
    labelled = reward.Labelled(x, target, problem.pins.mask)
    settings = reward.ProxySettings(train=TrainSettings(steps=config.reward_steps, batch=256))
    return reward.fit("regression", labelled, settings, LEVELS)


def compiled_planner(
    guide: bool, keys: Any, given: tuple[Sampler, Pins, Any, Any, Any]
) -> tuple[Any, Callable[[], Any]]:
    """A compiled program that draws a plan for each key, and a call of it.

    Args:
        guide: whether the learned reward guides.
        keys: a key for each plan.
        given: sampler, pins, denoiser, learned reward and guidance scale. All are arguments of the program.

    Returns:
        The program, and a function that runs it on `keys` and `given` and returns plans ``[n, h, d]``.
    """
    leaves, tree = jax.tree.flatten(given)  # `lower` puts stand-ins in place of arrays, and checked types refuse them

    def plan(key: Any, leaves: Any) -> Any:
        sampler, pins, model, proxy, scale = jax.tree.unflatten(tree, leaves)
        denoise = guided(model, proxy, Strengths(scale, jnp.ones(()))) if guide else model
        return sample(key, pinned(denoise, pins), sampler)[0]

    program = jax.jit(jax.vmap(plan, (0, None))).lower(keys, leaves).compile()
    return program, lambda: program(keys, leaves)


class Job(NamedTuple):
    """One row of sampling."""

    batch: int
    rule: str
    guide: bool
    precision: str


def jobs_of(config: Config) -> list[Job]:
    """Every row of sampling; full float32 products for the first rule at the largest batch alone."""
    full = Job(config.batches[-1], config.rules[0], False, "float32 highest")
    rows = [
        Job(batch, rule, guide, name)
        for name in config.precisions
        if name != full.precision
        for batch in reversed(config.batches)
        for rule in config.rules
        for guide in (False, True)
    ]
    return rows + [full, full._replace(guide=True)] * (full.precision in config.precisions)


def time_sampling(report: Report, problem: Problem, model: Any, proxy: Any) -> Plans:
    """Compile all samplers in a few threads, then time them one by one.

    Returns:
        The plans of the largest batch by (rule, precision, guided).
    """
    config, plans, begun = report.config, {}, time.perf_counter()
    keys, scale = jax.random.split(jax.random.key(5), config.batches[-1]), jnp.asarray(config.scale)

    def compiled(job: Job) -> tuple[Any, Callable[[], Any], float] | None:
        if report.late(f"sampling {tuple(job)}", begun):
            return None
        levels = karras(LEVEL_COUNTS[job.rule], LEVELS.low, LEVELS.high)
        sampler = Sampler(levels, (config.horizon, config.dim), STEPS[job.rule])
        given = (sampler, problem.pins, at(model, job.precision), at(proxy, job.precision), scale)
        start = time.perf_counter()
        with jax.default_matmul_precision(PRECISIONS[job.precision].matmul):
            program, call = compiled_planner(job.guide, keys[: job.batch], given)
        return program, call, time.perf_counter() - start

    jobs = jobs_of(config)
    with ThreadPoolExecutor(config.compilers) as pool:
        programs = list(pool.map(compiled, jobs))
    for job, made in zip(jobs, programs, strict=True):
        if made:
            x = time_job(report, job, made)
            report.write()
            if job.batch == config.batches[-1]:
                plans[job.rule, job.precision, job.guide] = np.asarray(x, np.float64).reshape(job.batch, -1)
    return plans


def time_job(report: Report, job: Job, made: tuple[Any, Callable[[], Any], float]) -> Any:
    """Time one compiled program ``(program, call, compile_s)``, and check where it runs; returns its plans."""
    program, call, compile_s = made
    seconds, x = repeated(call, report.config.repeats)
    about = {"what": "sampling", "batch": job.batch, "rule": job.rule, "levels": LEVEL_COUNTS[job.rule]}
    report.row(seconds, job.batch, **about, guided=job.guide, precision=job.precision, compile_s=compile_s)
    finite, trips = bool(jnp.isfinite(x).all()), [word for word in HOST if word in program.as_text()]
    try:
        with jax.transfer_guard("disallow"):
            jax.block_until_ready(call())
    except Exception as error:  # JAX has no narrower type for a refused transfer
        trips.append(str(error).splitlines()[0])
    report.rows[-1] |= {"finite": finite, "host_trips": trips}
    if trips or not finite or platforms(x) != {jax.default_backend()}:
        report.check(f"plans are finite and never leave the device, {tuple(job)}", 1, 0)
    return x


def run(config: Config) -> Report:
    """Check and time everything; the report is written after every part."""
    report = Report(config)
    print(f"{jax.devices()[0].device_kind} ({jax.default_backend()}), jax {jax.__version__}")
    problem = make_problem(config.horizon, config.dim, config.trajectories)
    try:
        models, losses = {}, {}
        for name in [name for name in config.precisions if name != "float32 highest"]:
            for batch in config.train_batches:
                models[name], losses[name, batch] = train_prior(report, problem, batch, name)
        for batch in config.train_batches if "bfloat16" in config.precisions else ():
            last = [float(losses[name, batch][-100:].mean()) for name in ("bfloat16", "float32")]
            report.check(
                f"training loss in bfloat16 over float32, batch {batch}", last[0] / last[1], 1.05, not config.tiny
            )
        report.write()
        proxy = train_reward(config, problem)
        for matmul in (None, "highest"):
            check_exact(report, problem, matmul)
        check_device(report, problem, models["float32"])
        report.write()
        plans = time_sampling(report, problem, models["float32"], proxy)
        check_bfloat16(report, problem, plans)
        check_learned(report, problem, plans)
    finally:
        report.write()
    return report


def main(config: Config) -> None:
    """Run, say where the numbers are, and fail if a check failed."""
    if jax.default_backend() == "cpu" and not config.tiny:
        sys.exit("JAX found no accelerator: pip install -e .[cuda13] (or cuda12, tpu), or pass --tiny")
    report = run(replace(config, **TINY) if config.tiny else config)
    failed = [each["name"] for each in report.checks if each["passed"] is False]
    print(f"{len(report.rows)} rows, {len(report.checks)} checks, {len(failed)} failed: written to {config.out}")
    if report.skipped:
        print(f"left out, because {config.budget:g} s of compiling samplers were over: {', '.join(report.skipped)}")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
