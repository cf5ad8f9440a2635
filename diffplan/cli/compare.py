"""Every method at all its strengths on one prior and one proxy: data -> prior -> proxy -> plans -> figure, page and
table.

    diffplan compare demo                                  # U-maze, about 7 minutes on two CPU cores
    diffplan compare demo --run runs/mine --data.maze large --prior.network unet
    diffplan compare --run runs/mine                       # goes on with the settings that the run was made with
    diffplan compare --config runs/mine/config.json --run elsewhere
    diffplan compare methods                               # every method there is, at equal budgets
    diffplan compare demo --run runs/min --methods guided best_of_n --reward-model ensemble_min
    diffplan compare smoke                                 # every part, tiny, in a minute; for tests

Writes into the run directory: results.csv, summary.csv, config.json, frontier.png, frontier.pdf, report.html, and what
each stage made. Stopped at any moment and started again, it goes on where it was. In the demo expect the promised
return of guided plans to pass 21, the data's 99th percentile, before its plans go through walls (at scale 22), and to
fall to nothing by scale 1000, while the proxy only rises.
"""

from collections.abc import Sequence

from diffplan.cli import experiment
from diffplan.cli.experiment import Experiment


def action(config: Experiment) -> None:
    """Run the comparison, then draw and print it."""
    from diffplan.experiment.compare import compare
    from diffplan.report import axes, budgets, figure, page, record, table
    from diffplan.runs import console, say

    run, task = config.open()
    results = compare(run, task, config.experiment)
    paths = [results, record.record(config.run), budgets.write(config.run), *axes.axes_figure(config.run)]
    methods = config.experiment.methods
    if {"guided", "ascent"} <= set(methods) or "all" in methods:  # what the first figure and the page follow
        paths += [*figure.frontier(config.run), page.page(config.run)]
    table.show(config.run, console)
    budgets.show(config.run, console)
    for path in paths:
        say(str(path))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    experiment.main(action, "diffplan compare", __doc__, arguments)
