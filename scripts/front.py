"""Measures networks and numbers of noise levels: what plans deliver, against how many are drawn a second.

    python scripts/front.py maze2d-umaze                 # all networks: half an hour on two idle CPU cores
    python scripts/front.py maze2d-umaze --networks chain --levels 8 12

Every network is a prior that is trained on the task as the demo's is, in RUN/TASK/NETWORK, with the same rewards and
controllers; a row is one network, one number of levels and one guidance scale, with 64 plans to a batch. The columns:

    plans_per_second, fastest, slowest   of batches drawn in turn with all other numbers of levels: the median, the ends
    promised, delivered, sem, feasible   of plans from starts that no training saw: returns as drawn and carried out,
                                         the standard error of the latter, fraction
    displacement                         from first to last row, over that of behaviour from the same starts

Writes results/front.csv, in which rows that are there already are kept, and beside it front.png.
"""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from diffplan.episodes import Episodes
from diffplan.learn.prior import PriorSettings
from diffplan.learn.train import TrainSettings
from diffplan.metrics.table import read, read_rows, write
from diffplan.noise import karras
from diffplan.planner.decide import decide
from diffplan.planner.model import PlanModel
from diffplan.planner.planner import Planner
from diffplan.planner.settings import PlannerSettings
from diffplan.report.save import save
from diffplan.runs import say
from diffplan.settings import ConfigError
from diffplan.task import Task
from diffplan.tasks import make_task

BATCH = 64
"""Plans that are drawn at once."""

REPEATS = 9
"""Batches that are timed of each."""

ADAM = TrainSettings(1500, 64, "adam", 2e-3)

NETWORKS: dict[str, PriorSettings] = {
    "chain, 512 states": PriorSettings(states=512, width=64),
    "chain, 256 states": PriorSettings(states=256, width=64),
    "chain, 128 states": PriorSettings(states=128, width=64),
    "chain, 64 states": PriorSettings(states=64, width=64),
    "chain, 128 states, width 48": PriorSettings(states=128, width=48),
    "chain, 128 states, width 32": PriorSettings(states=128, width=32),
    "chain, 512 states, width 32": PriorSettings(states=512, width=32),
    "chain, 128 states, depth 2": PriorSettings(states=128, width=64, depth=2),
    "chain, 128 states, half the rows": PriorSettings(states=128, width=64, horizon=16),
    "mixer": PriorSettings(ADAM, network="mixer", width=128),
    "transformer": PriorSettings(ADAM, network="transformer", width=64),
    "unet": PriorSettings(replace(ADAM, learning_rate=2e-4), network="unet"),
}

DEFAULT = "chain, 128 states, width 32", 12
"""The default network in the U-maze, and its number of levels: a star in the figure."""

RATES = ("plans_per_second", "fastest", "slowest")
MEASURED = ("plans", *RATES, "promised", "delivered", "sem", "feasible", "displacement")
COLUMNS = ("task", "network", "levels", "scale", *MEASURED)


@dataclass(frozen=True)
class Config:
    """What is measured."""

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of tasks."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """Which networks."""
    levels: tuple[int, ...] = (4, 6, 8, 12, 24, 48)
    """Numbers of noise levels."""
    scale: float = 5.7
    """Guidance scale of guided plans."""
    plans: int = 512
    """Plans of each, a multiple of 64."""
    run: Path = Path("runs/front")
    """Where networks are trained."""
    out: Path = Path("results/front.csv")
    """Where the rows go, and the figure."""


def measure(name: str, network: str, config: Config) -> list[dict[str, Any]]:
    """A network at all numbers of levels, unguided and guided."""
    drawing = {"maze": name} if name.endswith(".txt") else {}
    make = partial(make_task, "maze2d" if drawing else name, **drawing)
    planner = trained(make(), network, config.run / Path(name).stem)
    about = {"task": planner.task.name, "network": network}
    models = {
        (("levels", levels), ("scale", scale)): (at(planner, levels), scale)
        for levels in config.levels
        for scale in (0.0, config.scale)
    }
    return [about | row for row in rows_of(planner, models, make(episodes=config.plans, seed=7).episodes())]


def rows_of(planner: Planner, models: dict[tuple, tuple[PlanModel, float]], data: Episodes) -> list[dict[str, Any]]:
    """What models at their scales draw from starts of some episodes, one start of each, timed in turn.

    models: by the (column, value) pairs that a row begins with.
    """
    span, stride = planner.model.horizon * planner.model.stride, planner.model.stride
    first = np.random.default_rng(0).integers(0, data.lengths - span) + data.begins
    starts, ends = (jnp.asarray(data.observations[first + lag]) for lag in (0, span - stride))
    keys = jax.random.split(jax.random.key(1), data.count)
    calls = {about: batches(model, scale or None, keys, starts) for about, (model, scale) in models.items()}
    timed, rows = timings({about: one for about, (one, _) in calls.items()}), []
    for about, (_, every) in calls.items():
        rates = dict(zip(RATES, (BATCH / seconds for seconds in timed[about]), strict=True))
        rows.append(dict(about) | {"plans": data.count} | rates | scored(planner, every(), ends))
        say(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    return rows


def trained(task: Task, network: str, run: Path) -> Planner:
    """A planner with this network. Half the rows are twice as far apart as those of the others."""
    prior = NETWORKS[network]
    if prior.horizon is not None:
        prior = replace(prior, stride=2 * decide(PlannerSettings(), task, task.episodes()).stride)
    return Planner.fit(task, run / re.sub(r"\W+", "-", network), settings=PlannerSettings(prior=prior))


def at(planner: Planner, levels: int) -> PlanModel:
    """The planner's model with another number of noise levels."""
    settings = planner.settings
    assert settings is not None and settings.noise.low is not None and settings.noise.high is not None
    sigmas = karras(levels, settings.noise.low, settings.noise.high)
    return replace(planner.model, sampler=replace(planner.model.sampler, sigmas=sigmas))


def scored(planner: Planner, x: Any, ends: Any) -> dict[str, float]:
    """What plans promise and deliver, and how far they go. ends: last rows of behaviour from the same starts."""
    batch = planner.measure(planner.model, x)
    delivered = planner.deliver(jax.random.key(3), batch)
    place = planner.task.plane.place if planner.task.plane is not None else lambda o: o
    first, last = batch.observations[:, 0], batch.observations[:, -1]
    moved = lambda there: float(jnp.linalg.norm(place(there) - place(first), axis=1).mean())
    return {
        "promised": float(batch.promised.mean()),
        "delivered": float(delivered.mean()),
        "sem": float(delivered.std(ddof=1) / len(delivered) ** 0.5),
        "feasible": float(batch.feasible.mean()),
        "displacement": moved(last) / moved(ends),
    }


def batches(model: PlanModel, scale: float | None, keys: Any, starts: Any) -> tuple[Callable, Callable]:
    """(one batch, all of them), drawn by a model."""
    pushed = None if scale is None else jnp.asarray(scale)
    draw = jax.jit(jax.vmap(lambda model, key, start: model.draw(key, start, scale=pushed)[0], (None, 0, 0)))
    one = lambda k=0: draw(model, keys[k : k + BATCH], starts[k : k + BATCH])
    return one, lambda: jnp.concatenate([one(k) for k in range(0, len(keys), BATCH)])


def timings(calls: dict[Any, Callable]) -> dict[Any, tuple[float, float, float]]:
    """Median, least and most seconds of each call, made in turn."""
    seconds: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(REPEATS + 1):
        for key, call in calls.items():
            begun = time.perf_counter()
            jax.block_until_ready(call())
            seconds[key].append(time.perf_counter() - begun)
    return {key: (float(np.median(each[1:])), min(each[1:]), max(each[1:])) for key, each in seconds.items()}


def compose(path: Path) -> Figure:
    """Delivered return and the fraction of feasible plans against plans a second: a column a task, a line a network."""
    table = read(path, COLUMNS[2:])
    tasks, networks = (list(dict.fromkeys(table[name].tolist())) for name in ("task", "network"))
    figure = Figure(figsize=(5.6 * len(tasks) + 2.4, 7.2), layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, sharex="col")
    for column, task in zip(panels.T, tasks, strict=True):
        for network, colour in zip(networks, colours_of(len(networks)), strict=True):
            for scale in np.unique(table["scale"]):
                rows = (table["task"] == task) & (table["network"] == network) & (table["scale"] == scale)
                rows = np.flatnonzero(rows)[np.argsort(table["levels"][rows])]
                line(column, table, rows, colour, network, scale > 0)
        column[0].set_title(task)
        column[0].set_ylabel("delivered return")
        column[1].set_ylabel("fraction of feasible plans")
        column[1].set(xlabel="plans a second", xscale="log")
        column[0].set_ylim(0, None)
        column[1].set_ylim(None, 1.01)
    panels[0, 0].plot([], [], "*", color="white", markeredgecolor="0.1", markersize=12, label="the default")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", edgecolor="none", fontsize=9)
    return figure


def colours_of(count: int) -> list[Any]:
    """Colours that are told apart, as many as there are networks."""
    from matplotlib import colormaps

    return [colormaps["turbo"](0.05 + 0.9 * k / max(1, count - 1)) for k in range(count)]


def line(column: Any, table: Any, rows: Any, colour: Any, network: str, guided: bool) -> None:
    """A network at one scale over its numbers of levels: guided whole, unguided dashed."""
    look = {"marker": "o", "linewidth": 1.8} if guided else {"marker": "o", "mfc": "white", "linestyle": "--"}
    for axes, name in zip(column, ("delivered", "feasible"), strict=True):
        x, y = table["plans_per_second"][rows], table[name][rows]
        label = network if guided and name == "delivered" else None
        axes.plot(x, y, color=colour, markersize=4.5, label=label, **look)
        if network == DEFAULT[0]:
            star = {"color": colour if guided else "white", "markeredgecolor": "0.1", "markersize": 14, "zorder": 5}
            own = table["levels"][rows] == DEFAULT[1]
            axes.plot(x[own], y[own], "*", **star)
        if name == "delivered":
            axes.errorbar(x, y, 1.96 * table["sem"][rows], color=colour, linewidth=0.8, fmt="none")


def main(config: Config) -> None:
    """Measure, write after every network, draw."""
    if unknown := [name for name in config.networks if name not in NETWORKS]:
        raise ConfigError(f"networks={unknown[0]!r}: must be among {', '.join(NETWORKS)}")
    if config.plans % BATCH or config.plans < 1:
        raise ConfigError(f"plans={config.plans}: must be a multiple of {BATCH}")
    for task in config.tasks:
        for network in config.networks:
            add(config.out, measure(task, network, config), COLUMNS)
            save(config.out.with_suffix(".png"), lambda: compose(config.out))


def add(path: Path, new: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Write rows into a table, in which those of the same first four columns make way."""
    rows: list[dict[str, Any]] = list(read_rows(path)) if path.exists() else []
    key = lambda row: (*(str(row[name]) for name in columns[:3]), float(row[columns[3]]))
    write(path, [row for row in rows if key(row) not in set(map(key, new))] + new, columns)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
