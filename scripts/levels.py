"""Measures what a guidance scale does at ever more noise levels: what breaks is the sampler, or the plans themselves.

    python scripts/levels.py          # the shipped U-maze planner; 10 minutes on two idle CPU cores

Each scale is drawn with steps that are halved again and again, always by the same noise (equation (143) of
`diffplan.samplers`), for every step rule that adds noise; plans start at places of behaviour that no planner has seen.
Writes `results/levels.csv`, a row for each rule, number of levels and scale: promised and delivered return, its
standard error, the fraction of feasible plans and path KL; and beside it `levels.png`. Time grows with the levels.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffplan.denoise import pinned
from diffplan.guide import guided
from diffplan.metrics.table import read, write
from diffplan.planner.model import strength
from diffplan.planner.planner import Planner
from diffplan.report.save import save
from diffplan.runs import Progress
from diffplan.samplers import STEPS, sample
from diffplan.settings import ConfigError
from diffplan.tasks import make_task

COLUMNS = ("rule", "levels", "scale", "plans", "promised", "delivered", "sem", "feasible", "path_kl")
COLOURS = ("#8a929c", "#4b9cd3", "#16537e", "#efa03b", "#e2571e", "#1b1f24")


@dataclass(frozen=True)
class Config:
    """What is measured."""

    name: str = "maze2d-umaze"
    """A planner that ships."""
    rules: tuple[str, ...] = ("ancestral", "sde_2m")
    """Step rules."""
    scales: tuple[float, ...] = (0, 10, 32, 100, 320, 1000)
    """Guidance scales; 0 is the prior."""
    halvings: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    """How often steps are halved, from 12 levels on."""
    plans: int = 64
    """Plans of each."""
    out: Path = Path("results/levels.csv")
    """Where the rows go, and the figure."""


def starts_of(name: str, count: int) -> Any:
    """Observations of new behaviour ``[n, o]``."""
    observations = make_task(name, episodes=count, steps=400, seed=7).episodes().observations
    return jnp.asarray(observations[np.random.default_rng(0).choice(len(observations), count, replace=False)])


def measure(config: Config) -> list[dict[str, Any]]:
    """Every rule, number of levels and scale."""
    planner, starts = Planner.pretrained(config.name), starts_of(config.name, config.plans)
    keys, rows = jax.random.split(jax.random.key(1), config.plans), []
    with Progress("levels", total=len(config.rules) * len(config.halvings), unit="numbers of levels") as progress:
        for rule in config.rules:
            for halvings in config.halvings:
                sampler = replace(planner.model.sampler, step=STEPS[rule], halvings=halvings)
                draw = jax.jit(lambda model, scale, sampler=sampler: plans_of(model, sampler, scale, keys, starts))
                draw = draw.lower(planner.model, jnp.float32(0)).compile()
                about = {"rule": rule, "levels": sampler.levels, "plans": config.plans}
                rows += [about | {"scale": scale} | scored(planner, draw, scale) for scale in config.scales]
                progress.advance(1)
    return rows


def plans_of(model: Any, sampler: Any, scale: Any, keys: Any, starts: Any) -> Any:
    """(plans ``[n, h, d]``, path KL ``[n]``)."""

    def one(key: Any, start: Any) -> Any:
        pins = model.codec.pin(model.horizon, start)
        pushed = guided(model.prior, model.energy, strength(scale))
        x, info = sample(key, pinned(pushed, pins), sampler, pinned(model.prior, pins))
        return x, info.path_kl

    return jax.vmap(one)(keys, starts)


def scored(planner: Planner, draw: Any, scale: float) -> dict[str, float]:
    """What plans of a scale promise and deliver, and how long they take."""
    x, path_kl = draw(planner.model, jnp.float32(scale))
    plans = planner.measure(planner.model, x)
    delivered = planner.deliver(jax.random.key(3), plans)
    return {
        "promised": float(jnp.mean(plans.promised)),
        "delivered": float(delivered.mean()),
        "sem": float(delivered.std(ddof=1) / np.sqrt(len(x))),
        "feasible": float(jnp.mean(plans.feasible)),
        "path_kl": float(path_kl.mean()),
    }


def compose(path: Path) -> Figure:
    """Delivered and promised return and the fraction of feasible plans against the number of levels."""
    table = read(path, COLUMNS[1:])
    scales = np.unique(table["scale"])
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("promised return", "delivered return", "fraction of feasible plans")
    for axes, name, title in zip(panels, ("promised", "delivered", "feasible"), titles, strict=True):
        for scale, colour in zip(scales, COLOURS, strict=False):
            lines(axes, table, name, scale, colour)
        levels = np.unique(table["levels"])
        axes.set_xscale("log")
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.minorticks_off()
        axes.set(xlabel="noise levels", title=title)
        axes.set_ylim(0, None if name != "feasible" else 1.03)
    panels[0].set_ylabel("steps in the target")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", edgecolor="none", fontsize=9, title="guidance scale")
    return figure


def lines(axes: Axes, table: Any, name: str, scale: float, colour: str) -> None:
    """A measure of one scale: ancestral steps whole, those of the other rule dashed."""
    for rule in dict.fromkeys(table["rule"].tolist()):
        rows = (table["rule"] == rule) & (table["scale"] == scale)
        first = rule == table["rule"][0]
        look = {"linewidth": 1.9, "marker": "o", "markersize": 4} if first else {"linewidth": 1.0, "linestyle": "--"}
        label = f"{scale:g}" if first else None
        axes.plot(table["levels"][rows], table[name][rows], color=colour, label=label, **look)
        if first and name == "delivered":
            low, high = (table[name][rows] + sign * table["sem"][rows] for sign in (-1.96, 1.96))
            axes.fill_between(table["levels"][rows], low, high, color=colour, alpha=0.13, linewidth=0)


def main(config: Config) -> None:
    """Measure, write, draw."""
    if unknown := [rule for rule in config.rules if rule not in ("ancestral", "sde_2m")]:
        raise ConfigError(f"rules={unknown[0]!r}: must be ancestral or sde_2m, which add noise")
    write(config.out, measure(config), COLUMNS)
    save(config.out.with_suffix(".png"), lambda: compose(config.out))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
