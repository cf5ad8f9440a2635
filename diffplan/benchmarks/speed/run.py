"""The benchmark: what is timed, on which planner, and the file that it ends in."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from diffplan.benchmarks.speed import machine, plans, process
from diffplan.planner import build as building
from diffplan.planner.planner import Planner
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run, say
from diffplan.runs.checkpoints import free_name
from diffplan.runs.files import plain, read_json, write_json
from diffplan.settings import at_least, require, settings
from diffplan.simulators import is_host
from diffplan.task import Task
from diffplan.tasks import make_task

Part = Literal["plans", "energies", "few_steps", "horizons", "training", "peak", "worlds", "process", "torch"]

WORLDS = ("maze2d-umaze", "gridworld-fourrooms")
"""Tasks whose worlds are timed, beside the task's own."""

LEARNED = {"regression", "classifier", "clean", "contrastive"}
"""What the energies need."""


@settings("")
class BenchSettings:
    """What to time."""

    parts: tuple[Part, ...] = ("plans", "energies", "horizons", "training", "peak", "worlds", "process")
    """plans: batches of every size, a sweep of scales, the best of many. energies: a batch guided by each. few_steps: 4
    and 8 evaluations of a flow map, which is distilled first (5 minutes). horizons: longer plans. training: steps of
    the prior. peak: operations of matrix products a second, and what the machine can do. worlds: steps of environments.
    process: a command to its first plan, memory. torch: Diffuser's U-Net beside PyTorch (the `bench` extra)."""
    sizes: tuple[int, ...] = (1, 64, 1024, 4096)
    """Plans drawn at once."""
    horizons: tuple[int, ...] = (32, 128, 512, 1024)
    """Rows of longer plans."""
    guidance: Annotated[float, at_least(0)] = 5.7
    """Guidance scale of guided plans."""
    repeats: Annotated[int, at_least(1, 1000)] = 7
    """Repetitions of each call, in turn with the others; the median is shown."""
    unet_steps: Annotated[int, at_least(2, 1000)] = 64
    """Noise levels of Diffuser's U-Net."""
    calls: Annotated[int, at_least(1, 100_000)] = 200
    """Calls after which a process's memory is looked at."""
    out: Path | None = None
    """Where the numbers go: RUN/bench.json, if not given. Rows of other parts that are there stay."""

    def check(self) -> None:
        """Raise ConfigError unless there is something to time."""
        for name in ("sizes", "horizons"):
            values = getattr(self, name)
            require(bool(values) and min(values) >= 1, name, values, "numbers of at least 1")


def bench(run: Run, task: Task, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """Time every part, each written down when it is done; returns the rows. What is not trained is trained first."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 0.5:
        say(f"the machine is busy (load {busy:.1f}): these times are not those of an idle one")
    planner = Planner.assemble(run, task, learned, few_steps="few_steps" in how.parts)
    about = {"settings": plain(how), "task": task.name, "planner": plain(planner.settings), "machine": here()}
    path = how.out or run.directory / "bench.json"
    rows = other_rows(path, about, how.parts)
    for part in how.parts:
        new = [each | {"load_before": busy} for each in PARTS[part](run, planner, learned, how)]
        rows += new
        write_json(path, about | {"rows": rows})
        for each in new:
            say(in_words(each))
    say(f"written to {path}")
    return rows


def other_rows(path: Path, about: dict[str, Any], parts: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of parts that are not timed now. A file of another planner or machine is set aside, and has none."""
    there, about = read_json(path), json.loads(json.dumps(about))  # as a file would hold it
    if not isinstance(there, dict):
        return []
    if any(there.get(name) != about[name] for name in ("task", "planner", "machine")):
        aside = free_name(path, "old")
        path.rename(aside)
        say(f"{path}: is of another planner or machine; kept as {aside.name}")
        return []
    return [row for row in there["rows"] if row["part"] not in parts]


def few_steps(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """Batches and a sweep by 4 and by 8 evaluations of the flow map."""
    rows = []
    for evaluations in (4, 8):
        fast, sizes = planner.fast(evaluations), tuple({min(size, plans.BATCH): size for size in how.sizes})
        new = plans.batches(fast, how.guidance, sizes, how.repeats, "few_steps")
        rows += [each | {"what": f"{each['what']}, {evaluations} evaluations"} for each in new]
    return rows


def energies(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """A batch by each energy; those that are not learned are learned first."""
    build = building.start(run, planner.task, learned)
    if LEARNED & building.lacks(planner.task, build.rewarded):
        return []
    problem, _ = building.assemble(jax.random.key(0), build, LEARNED)
    return plans.energies(planner, problem, how.guidance, how.repeats)


def training(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """Training steps of the prior."""
    build = building.start(run, planner.task, learned)
    return plans.training(planner, build.data.train, build.decided.levels, how.repeats)


def peak(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """What unguided plans use of the machine's peak, in batches of `plans.BATCH`."""
    starts = plans.starts_of(planner, plans.BATCH)
    keys = jax.random.split(jax.random.key(0), plans.BATCH)
    draw = jax.jit(jax.vmap(lambda model, key, start: model.draw(key, start)[0], (None, 0, 0)))
    model = replace(planner.model, energy=None, critic=None, gate=None)  # whose scores the program would count
    return machine.peak(draw, (model, keys, starts), how.repeats, f"{plans.BATCH} plans, unguided")


def worlds(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """Steps of environments."""
    tasks = {name: make_task(name) for name in WORLDS} | {planner.task.name: planner.task}
    simulators = {name: task.simulator for name, task in tasks.items() if task.simulator is not None}
    return machine.steps({name: world for name, world in simulators.items() if not is_host(world)}, how.repeats)


def processes(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """Processes of their own, from one start."""
    start = plans.starts_of(planner, 1)[0].tolist()
    scale = None if planner.model.energy is None else how.guidance
    return process.processes(run.directory, start, scale, max(how.sizes), how.calls)


def torch(run: Run, planner: Planner, learned: PlannerSettings, how: BenchSettings) -> list[dict[str, Any]]:
    """The U-Net, here and in PyTorch."""
    from diffplan.benchmarks.speed import unet

    return unet.compare(how.unet_steps, how.repeats, os.cpu_count() or 1)


PARTS: dict[str, Callable[[Run, Planner, PlannerSettings, BenchSettings], list[dict[str, Any]]]] = {
    "plans": lambda run, planner, learned, how: plans.batches(planner, how.guidance, how.sizes, how.repeats, "plans"),
    "energies": energies,
    "few_steps": few_steps,
    "horizons": lambda run, planner, learned, how: plans.longer(planner, how.guidance, how.horizons, how.repeats),
    "training": training,
    "peak": peak,
    "worlds": worlds,
    "process": processes,
    "torch": torch,
}
"""Each part: (run, planner, what is learned, settings) -> rows."""


def here() -> dict[str, Any]:
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
    device = jax.devices()[0]
    where = {"device": f"{device.platform} {device.device_kind}", "cpu": cpu, "cores": os.cpu_count()}
    return where | {"versions": versions}


def in_words(each: dict[str, Any]) -> str:
    """A row as a line."""
    name = f"{each['part']}: {each['what']}" + (f", {each['who']}" if "who" in each else "")
    if "median_s" not in each:
        memory = f", grew by {each['grown']:.0f} MB" if "grown" in each else ""
        return f"{name}: {each['seconds']:.1f} s, at most {each['megabytes']:.0f} MB{memory}"
    text = f"{name}: {each['per_second']:.3g} {each['unit']}, {each['median_s']:.3g} s"
    text += f" ({each['min_s']:.3g} to {each['max_s']:.3g}), the first call {each['first_call_s']:.2g} s"
    if each.get("delivered") is not None:
        text += f", delivers {each['delivered']:.1f}"
    if "feasible" in each:
        text += f", {100 * each['feasible']:.1f} % feasible"
    if "used" in each:
        text += f", of which the sampler uses {100 * each['used']:.0f} %"
    return text + (f", {each['over_jax']:.2f} times the seconds of jax" if "over_jax" in each else "")
