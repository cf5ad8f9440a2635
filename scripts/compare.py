"""Every method at all its strengths on one prior and one proxy: data -> prior -> proxy -> plans -> figure, page and
table.

    python scripts/compare.py demo                                  # U-maze, about 7 minutes on two CPU cores
    python scripts/compare.py demo --run runs/mine --data.maze large --prior.network unet
    python scripts/compare.py methods                                # every method there is, at equal budgets
    python scripts/compare.py demo --run runs/min --methods guided best_of_n --rater ensemble_min
    python scripts/compare.py smoke                               # every part, tiny, in a minute; for tests

Writes into the run directory: results.csv, summary.csv, config.json, frontier.png, frontier.pdf, report.html, and what
each stage made. Stopped at any moment and started again, it goes on where it was. In the demo expect the guided
method's gold to pass 21, the data's 99th percentile, before its plans go through walls (at scale 22), and to fall to
nothing by scale 1000, while the proxy only rises.
"""

from pathlib import Path

from diffplan import config, runtime
from diffplan.config import CompareSettings

TINY = config.TrainSettings(steps=20, batch=16, chunk=20, save_every=20)
SMOKE = CompareSettings(
    run=Path("runs/smoke"),
    data=config.DataSettings(rows=20_000, trajectories=40),
    prior=config.PriorSettings(
        config.TrainSettings(steps=60, batch=16, chunk=20, save_every=20), horizon=32, width=32, depth=1
    ),
    proxy=config.ProxySettings(
        config.TrainSettings(steps=40, batch=16, chunk=20, save_every=20), labels=200, width=16, depth=1
    ),
    sampler=config.SamplerSettings(steps=6),
    world=config.WorldSettings(TINY, transitions=500, members=2, width=8, depth=1),
    value=config.ValueSettings(TINY, width=8, depth=1),
    clone=config.CloneSettings(TINY, width=8, depth=1),
    conditional=config.ConditionalSettings(TINY, width=16, depth=1),
    strengths=config.StrengthSettings(
        points=2,
        refine=1,
        scale=(10, 1000),
        pool=4,
        ascent_steps=20,
        particles=2,
        iterations=2,
        population=8,
        updates=3,
        rounds=1,
        round_plans=2,
        round_steps=2,
    ),
    seeds=2,
    plans=8,
    reference=256,
)
METHODS = CompareSettings(
    run=Path("runs/methods"),
    methods=("all",),
    strengths=config.StrengthSettings(points=5, refine=1),
    seeds=3,
    plans=32,
)
PRESETS = {
    "demo": ("The headline figure in the U-maze.", CompareSettings()),
    "methods": ("Every method there is, on the demo's problem.", METHODS),
    "smoke": ("Every part once, as small as it gets; for tests.", SMOKE),
}


def main(config: CompareSettings) -> None:
    """Run the comparison, then draw and print it."""
    from diffplan.experiment.compare import compare
    from diffplan.report import axes, budgets, figure, page, record, table

    results = compare(config)
    paths = [results, record.record(config.run), budgets.write(config.run), *axes.axes_figure(config.run)]
    if {"guided", "ascent"} <= set(
        config.methods
    ) or "all" in config.methods:  # what the first figure and the page follow
        paths += [*figure.frontier(config.run), page.page(config.run)]
    table.show(config.run, runtime.console)
    budgets.show(config.run, runtime.console)
    for path in paths:
        runtime.say(str(path))


if __name__ == "__main__":
    runtime.command(main, CompareSettings, PRESETS)
