"""Measures plans in a few evaluations of a flow map, beside those of the prior that it was distilled from.

    python scripts/few_steps.py maze2d-umaze                # results/few_steps.csv: 8 minutes on two idle CPU cores
    python scripts/few_steps.py maze2d-umaze --evaluations 4 --scales 0 4

The prior is that of `scripts/front.py`, and is trained if it is not there; the flow map is distilled from it into the
same run. A row is a number of evaluations and a guidance scale, with 64 plans to a batch; the rows of `prior` are drawn
by the sampler of the demo, with 12 noise levels. The columns are those of `scripts/front.py`.

Writes results/few_steps.csv, in which rows that are there already are kept, and beside it few_steps.png.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
from front import BATCH, batches, scored, timings, trained

from diffplan.flow_map import ChainFlowMap, FewSteps, FlowMap, few_steps
from diffplan.learn.flow_map import FlowMapSettings, fit
from diffplan.learn.train import TrainSettings
from diffplan.metrics.table import read, read_rows, write
from diffplan.noise import NoiseSettings, karras
from diffplan.planner import build as building
from diffplan.planner.planner import Planner
from diffplan.report.save import save
from diffplan.runs import Run, say, stage
from diffplan.settings import ConfigError
from diffplan.tasks import make_task

NETWORK = "chain, 512 states"
"""The prior, by its name in `scripts/front.py`."""

Network = Literal["rows", "chain"]

SETTINGS: dict[Network, FlowMapSettings] = {
    "rows": FlowMapSettings(),
    "chain": FlowMapSettings(TrainSettings(1500, 64, "muon", 5e-2), network="chain", courses=8192),
}
"""How the flow map is distilled, by its network."""

COLUMNS = (
    *("task", "drawn_by", "evaluations", "scale", "plans", "plans_per_second", "fastest", "slowest"),
    *("promised", "delivered", "sem", "feasible", "displacement"),
)


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
    renewed: float = 0.3
    """Fraction of the noise that is renewed between jumps."""
    plans: int = 512
    """Plans of each, a multiple of 64."""
    run: Path = Path("runs/front")
    """Where networks are trained."""
    out: Path = Path("results/few_steps.csv")
    """Where the rows go, and the figure."""


def distilled(planner: Planner, run: Path, name: str, network: Network) -> FlowMap | ChainFlowMap:
    """The flow map of a planner's prior, in its run."""
    assert planner.settings is not None
    own, noise = SETTINGS[network], planner.settings.noise
    assert noise.low is not None and noise.high is not None
    levels = NoiseSettings(noise.low, noise.high)
    build = building.start(Run(run, read_only=True), make_task(name), planner.settings)
    inputs = build.inputs | {"prior": building.fit_prior(build).identity}
    make = lambda recorder: fit(build.data.train, planner.model.prior, own, levels, recorder)
    return stage(Run(run), f"flow_map/{network}", make, {"flow_map": own, "noise": levels}, inputs).model


def measure(name: str, config: Config) -> list[dict[str, Any]]:
    """The prior and the flow map of a task at all scales."""
    planner = trained(make_task(name), NETWORK, config.run / name)
    run = config.run / name / "chain-512-states"
    flow, model = distilled(planner, run, name, config.network), planner.model
    span = model.horizon * model.stride
    data = make_task(name, episodes=config.plans, seed=7).episodes()
    first = np.random.default_rng(0).integers(0, data.lengths - span) + data.begins
    starts, ends = (jnp.asarray(data.observations[first + lag]) for lag in (0, span - model.stride))
    keys = jax.random.split(jax.random.key(1), config.plans)
    calls: dict[tuple[str, int, float], tuple[Callable, Callable]] = {}
    for scale in config.scales:
        calls["prior", model.sampler.levels, scale] = batches(model, scale or None, keys, starts)
        for count in config.evaluations:
            levels = karras(count, model.sampler.sigmas[-1], model.sampler.sigmas[0])
            how = FewSteps(levels, model.sampler.shape, config.renewed)
            calls[config.network, count, scale] = mapped(planner, flow, how, scale, keys, starts)
    timed, rows = timings({key: call for key, (call, _) in calls.items()}), []
    for (drawn_by, count, scale), (_, every) in calls.items():
        about = {"task": planner.task.name, "drawn_by": drawn_by, "evaluations": count, "scale": scale}
        rates = [BATCH / seconds for seconds in timed[drawn_by, count, scale]]
        about |= {"plans": config.plans} | dict(zip(COLUMNS[5:8], rates, strict=True))
        rows.append(about | scored(planner, every(), ends))
        say(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    return rows


def mapped(
    planner: Planner, flow: FlowMap | ChainFlowMap, how: FewSteps, scale: float, keys: Any, starts: Any
) -> tuple[Callable, Callable]:
    """(one batch, all of them), drawn by a flow map."""
    model, pushed = planner.model, jnp.asarray(scale) if scale else None

    def one(flow: Any, energy: Any, key: Any, start: Any) -> Any:
        return few_steps(key, flow, how, model.codec.pin(model.horizon, start), pushed, energy)

    draw = jax.jit(jax.vmap(one, (None, None, 0, 0)))
    batch = lambda k=0: draw(flow, model.energy, keys[k : k + BATCH], starts[k : k + BATCH])
    return batch, lambda: jnp.concatenate([batch(k) for k in range(0, len(keys), BATCH)])


def compose(path: Path) -> Figure:
    """Delivered return against the fraction of feasible plans, and both against the scale."""
    table = read(path, COLUMNS[2:])
    tasks = list(dict.fromkeys(table["task"].tolist()))
    figure = Figure(figsize=(13.0, 3.7 * len(tasks)), layout="constrained")
    for row, task in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks, strict=True):
        for drawn_by in ("rows", "chain", "prior"):
            mine = (table["task"] == task) & (table["drawn_by"] == drawn_by)
            for count in np.unique(table["evaluations"][mine]):
                rows = np.flatnonzero(mine & (table["evaluations"] == count))
                line(row, table, rows[np.argsort(table["scale"][rows])], drawn_by, int(count))
        row[0].set(xlabel="guidance scale", ylabel="delivered return", title=task)
        row[1].set(xlabel="guidance scale", ylabel="fraction of feasible plans", ylim=(0, 1.02))
        row[1].axhline(0.9, color="0.6", linewidth=0.8, linestyle=":")
        handles, labels = row[0].get_legend_handles_labels()
        row[1].legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, edgecolor="none")
    return figure


def line(axes: Any, table: Any, rows: Any, drawn_by: str, count: int) -> None:
    """One number of evaluations over the scales."""
    guided = rows[table["scale"][rows] > 0]
    of = "" if drawn_by == "rows" else " with a chain"
    what = "prior, 12 levels" if drawn_by == "prior" else f"flow map{of}, {count} evaluation{'s' if count > 1 else ''}"
    label = f"{what}:\n{np.median(table['plans_per_second'][guided]):.0f} guided plans a second"
    colour = "0.2" if drawn_by == "prior" else f"C{int(np.log2(count))}"
    x, look = table["scale"][rows], {"color": colour, "marker": "o", "linestyle": "--" if drawn_by == "chain" else "-"}
    axes[0].errorbar(x, table["delivered"][rows], 1.96 * table["sem"][rows], label=label, capsize=2, **look)
    axes[1].plot(x, table["feasible"][rows], **look)


def main(config: Config) -> None:
    """Measure, write, draw."""
    if config.plans % BATCH or config.plans < 1:
        raise ConfigError(f"plans={config.plans}: must be a multiple of {BATCH}")
    if not config.evaluations or min(config.evaluations) < 1:
        raise ConfigError(f"evaluations={config.evaluations}: must be 1 or more")
    if not 0 <= config.renewed <= 1:
        raise ConfigError(f"renewed={config.renewed}: must be from 0 to 1")
    rows: list[dict[str, Any]] = list(read_rows(config.out)) if config.out.exists() else []
    key = lambda row: (row["task"], row["drawn_by"], int(row["evaluations"]), float(row["scale"]))
    for task in config.tasks:
        new = measure(task, config)
        rows = [row for row in rows if key(row) not in set(map(key, new))] + new
        write(config.out, rows, COLUMNS)
        save(config.out.with_suffix(".png"), lambda: compose(config.out))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
