"""Measures unguided plans of the default prior: can they be carried out, and do they move as the data do?

    python scripts/unguided.py maze2d-umaze maze2d-medium maze2d-large          # 3 minutes a task on two idle CPU cores
    python scripts/unguided.py my_maze.txt --out runs/unguided.csv              # a drawing, with D4RL's physics

Writes a row for each task. Plans start where held-out windows do, and are compared with those windows:

    feasible, low, high   fraction of feasible plans, with its 95 % interval (Wilson); violations.NAME: of each kind
    displacement, speed, coverage   over that of the data: from first to last row, from row to row, cells of a quarter
                          standard deviation that are visited; of places, or of observations where there are none
    delivered, tracked, behaviour   return by the learned controller, by the task's tracker, and of the windows;
    gain, gain_low        of delivered over behaviour, start by start, and the lower end of its 95 % interval

Rows that are there already are kept; a task is trained in RUN/TASK, and read back when it is asked for again.
"""

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy import stats

from diffplan import noise
from diffplan.denoise import pinned
from diffplan.experiment.deliver import delivery_of
from diffplan.experiment.harness import Begin
from diffplan.planner import build as building
from diffplan.planner import feasible
from diffplan.planner.settings import PlannerSettings
from diffplan.resolve import resolve
from diffplan.runs import Run, say
from diffplan.samplers import STEPS, Sampler, sample
from diffplan.settings import ConfigError
from diffplan.task import Task
from diffplan.tasks import make_task

BATCH = 64
"""Plans that are drawn at once."""


@dataclass(frozen=True)
class Config:
    """What is measured."""

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of tasks, or drawings (.txt) of mazes."""
    run: Path = Path("runs/unguided")
    """Where each task is trained."""
    out: Path = Path("results/unguided.csv")
    """Where the rows go."""
    plans: int = 512
    """Unguided plans of each task, a multiple of 64."""


def task_of(name: str) -> Task:
    """A task by its name, or a drawing."""
    return make_task("maze2d", maze=name) if name.endswith(".txt") else make_task(name)


def measure(run: Run, task: Task, count: int) -> dict[str, Any]:
    """Train the prior and the controller, and measure `count` unguided plans."""
    made = building.start(run, task, PlannerSettings(), learns=False)
    prior, inverse = building.fit_prior(made), building.fit_inverse(made)
    config, levels, data = made.config.sampler, made.decided.levels, made.data
    shape = (made.decided.horizon, data.codec.width)
    sampler = Sampler(noise.karras(config.steps, levels.low, levels.high), shape, resolve(config.rule, STEPS, "rule"))

    @jax.jit
    def draw(model: Any, keys: Any, starts: Any) -> Any:
        one = lambda key, start: sample(key, pinned(model, data.codec.pin(shape[0], start)), sampler)[0]
        return jax.vmap(one)(keys, starts)

    first = data.held_out.places(jax.random.key(5), count)
    starts, keys = data.held_out.observations[first], jax.random.split(jax.random.key(1), count)
    batches = [slice(i, i + BATCH) for i in range(0, count, BATCH)]
    x = jnp.concatenate([draw(prior.model, keys[part], starts[part]) for part in batches])
    jax.block_until_ready(x)
    begun = time.perf_counter()
    jax.block_until_ready([draw(prior.model, keys[part], starts[part]) for part in batches])
    seconds = time.perf_counter() - begun
    plans, own = data.codec.decode(x), jax.vmap(data.held_out.trajectory)(first)

    kinds = feasible.violations_of(task, feasible.limits_of(task, data.train), made.stride)
    broken = {name: np.asarray(jax.jit(jax.vmap(kind))(plans)) > 0 for name, kind in kinds.items()}
    well = ~np.any([*broken.values()], axis=0) & np.isfinite(np.asarray(x)).all(axis=(1, 2))
    interval = stats.binomtest(int(well.sum()), count).proportion_ci(method="wilson")
    states = building.settled(made, prior.model).prior.states
    row = {"task": task.name, "rows": shape[0], "stride": made.stride, "states": states}
    row |= {"minutes": prior.seconds / 60, "plans_per_second": count / seconds, "plans": count}
    row |= {"feasible": well.mean(), "low": interval.low, "high": interval.high}
    row |= {f"violations.{name}": flags.mean() for name, flags in broken.items()}
    row |= motion(task, plans.observations, own.observations)
    return row | delivered(made, inverse.model, starts, x, first)


def motion(task: Task, plans: Any, own: Any) -> dict[str, float]:
    """Displacement, speed and coverage of plans over those of the data ``[n, h, o]``."""
    place = task.plane.place if task.plane is not None else lambda o: o
    plans, own = np.asarray(place(plans)), np.asarray(place(own))
    std = own.reshape(-1, own.shape[-1]).std(axis=0)

    def measures(x: np.ndarray) -> np.ndarray:
        cells = [len(np.unique(np.round(4 * plan / std[None]), axis=0)) for plan in x]
        lengths = np.linalg.norm(np.diff(x, axis=1), axis=-1).mean()
        return np.asarray([np.linalg.norm(x[:, -1] - x[:, 0], axis=-1).mean(), lengths, np.mean(cells)])

    return dict(zip(("displacement", "speed", "coverage"), measures(plans) / measures(own), strict=True))


def delivered(made: building.Builder, inverse: Any, starts: Any, x: Any, first: Any) -> dict[str, float]:
    """What plans earn when they are carried out, beside what the windows earned that they share a start with."""
    task = made.task
    ways = delivery_of(task, made.data.codec, inverse, made.span, made.stride)
    if ways is None or not hasattr(task.simulator, "state_of") or not made.rewarded:
        return {}
    begin = Begin(jax.vmap(task.simulator.state_of)(starts), starts, first)
    returns = ways.returns(jax.random.key(3), begin, x)
    behaviour = np.asarray(made.returns(made.data.held_out, first))
    gain = returns["inverse"] - behaviour
    least = gain.mean() - stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
    tracked = {"tracked": returns["tracked"].mean()} if "tracked" in returns else {}
    means = {"delivered": returns["inverse"].mean(), **tracked, "behaviour": behaviour.mean()}
    return means | {"gain": gain.mean(), "gain_low": least}


def main(config: Config) -> None:
    """Measure, and write after every task."""
    if config.plans % BATCH:
        raise ConfigError(f"plans={config.plans}: must be a multiple of {BATCH}")
    tasks = {name: task_of(name) for name in config.tasks}
    rows = list(csv.DictReader(config.out.open())) if config.out.exists() else []
    for name, task in tasks.items():
        row = measure(Run(config.run / Path(name).stem), task, config.plans)
        short = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()}
        rows = [other for other in rows if other["task"] != row["task"]] + [short]
        names = list(dict.fromkeys(key for each in rows for key in each))
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with config.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        say(", ".join(f"{key} {value}" for key, value in short.items()))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
