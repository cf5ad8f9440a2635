"""Measures plans in a few evaluations of a flow map, beside those of the prior that it was distilled from.

    python scripts/few_steps.py maze2d-umaze                # results/few_steps.csv: 8 minutes on two idle CPU cores
    python scripts/few_steps.py maze2d-umaze --evaluations 4 --scales 0 4

The prior is the task's default, and is trained if it is not there; the flow map is distilled from it into the same
run. A row is a number of evaluations and a guidance scale, with 64 plans to a batch; the rows of `prior` are drawn
by the sampler of the demo, with 12 noise levels. The other columns are those of `scripts/front.py`.

Writes results/few_steps.csv, in which rows that are there already are kept, and beside it few_steps.png.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
from front import BATCH, MEASURED, add, rows_of

from diffplan.flow_map import FlowMap
from diffplan.learn.flow_map import FlowMapSettings, fit
from diffplan.learn.train import TrainSettings
from diffplan.metrics.table import read
from diffplan.planner import build as building
from diffplan.planner.planner import Planner
from diffplan.planner.settings import PlannerSettings
from diffplan.report.save import save
from diffplan.runs import Run, stage
from diffplan.settings import ConfigError
from diffplan.tasks import make_task

Network = Literal["rows", "chain"]

SETTINGS: dict[Network, FlowMapSettings] = {
    "rows": FlowMapSettings(),
    "chain": FlowMapSettings(TrainSettings(1500, 64, "muon", 5e-2), network="chain", courses=8192),
}
"""How the flow map is distilled, by its network."""

COLUMNS = ("task", "network", "evaluations", "scale", *MEASURED)


@dataclass(frozen=True)
class Config:
    """What is measured."""

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of tasks."""
    network: Network = "rows"
    """The flow map's: over rows alone, or beyond the Markov chain of the prior."""
    evaluations: tuple[int, ...] = (1, 2, 4, 8)
    """Evaluations of the flow map."""
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.7, 8.0)
    """Guidance scales; 0 is unguided."""
    plans: int = 512
    """Plans of each, a multiple of 64."""
    run: Path = Path("runs/few_steps")
    """Where planners are trained, a folder a task."""
    out: Path = Path("results/few_steps.csv")
    """Where the rows go, and the figure."""


def flow_map_of(planner: Planner, run: Path, network: Network) -> FlowMap:
    """The flow map of a planner's prior, in its run."""
    build = building.start(Run(run, read_only=True), planner.task, PlannerSettings())
    own, levels, prior = SETTINGS[network], build.decided.levels, building.fit_prior(build)
    make = lambda recorder: fit(build.data.train, prior.model, own, levels, recorder)
    inputs = build.inputs | {"prior": prior.identity}
    where = {"rows": "flow_map", "chain": "flow_map_chain"}[network]
    return stage(Run(run), where, make, {"flow_map": own, "noise": levels}, inputs).model


def measure(name: str, config: Config) -> list[dict[str, Any]]:
    """The prior and the flow map of a task at all scales."""
    planner = Planner.fit(make_task(name), config.run / name)
    flow = flow_map_of(planner, config.run / name, config.network)
    prior = planner.model
    fast = {count: replace(prior, flow_map=flow, evaluations=count) for count in config.evaluations}
    models = {
        (("network", network), ("evaluations", count), ("scale", scale)): (model, scale)
        for scale in config.scales
        for network, each in (("prior", {prior.sampler.levels: prior}), (config.network, fast))
        for count, model in each.items()
    }
    rows = rows_of(planner, models, make_task(name, episodes=config.plans, seed=7).episodes())
    return [{"task": planner.task.name} | row for row in rows]


def compose(path: Path) -> Figure:
    """Delivered return and the fraction of feasible plans against the scale: a row a task."""
    table = read(path, COLUMNS[2:])
    tasks = list(dict.fromkeys(table["task"].tolist()))
    figure = Figure(figsize=(13.0, 3.7 * len(tasks)), layout="constrained")
    for row, task in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks, strict=True):
        for network in ("rows", "chain", "prior"):
            mine = (table["task"] == task) & (table["network"] == network)
            for count in np.unique(table["evaluations"][mine]):
                rows = np.flatnonzero(mine & (table["evaluations"] == count))
                line(row, table, rows[np.argsort(table["scale"][rows])], network, int(count))
        row[0].set(xlabel="guidance scale", ylabel="delivered return", title=task)
        row[1].set(xlabel="guidance scale", ylabel="fraction of feasible plans", ylim=(0, 1.02))
        row[1].axhline(0.9, color="0.6", linewidth=0.8, linestyle=":")
        handles, labels = row[0].get_legend_handles_labels()
        row[1].legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, edgecolor="none")
    return figure


def line(axes: Any, table: Any, rows: Any, network: str, count: int) -> None:
    """One number of evaluations over the scales."""
    guided = rows[table["scale"][rows] > 0]
    of = "" if network == "rows" else " with a chain"
    what = "prior, 12 levels" if network == "prior" else f"flow map{of}, {count} evaluation{'s' if count > 1 else ''}"
    label = f"{what}:\n{np.median(table['plans_per_second'][guided]):.0f} guided plans a second"
    colour = "0.2" if network == "prior" else f"C{int(np.log2(count))}"
    x, look = table["scale"][rows], {"color": colour, "marker": "o", "linestyle": "--" if network == "chain" else "-"}
    axes[0].errorbar(x, table["delivered"][rows], 1.96 * table["sem"][rows], label=label, capsize=2, **look)
    axes[1].plot(x, table["feasible"][rows], **look)


def main(config: Config) -> None:
    """Measure, write, draw."""
    if config.plans % BATCH or config.plans < 1:
        raise ConfigError(f"plans={config.plans}: must be a multiple of {BATCH}")
    if not config.evaluations or min(config.evaluations) < 1:
        raise ConfigError(f"evaluations={config.evaluations}: must be 1 or more")
    for task in config.tasks:
        add(config.out, measure(task, config), COLUMNS)
        save(config.out.with_suffix(".png"), lambda: compose(config.out))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
