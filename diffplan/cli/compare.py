"""Every method at all its strengths on one task: data -> prior -> learned rewards -> plans -> delivery -> figure.

    diffplan compare TASK                                  # `diffplan tasks` lists them; minutes on two CPU cores
    diffplan compare gridworld-fourrooms --run runs/mine --task.noise 0.3
    diffplan compare my_world.py:task --preset debug       # a world of your own, every part as small as it gets
    diffplan compare data/my.npz                           # a file with rewards, without a simulator
    diffplan compare Pendulum-v1                           # any gymnasium environment
    diffplan compare --run runs/mine                       # goes on with the settings that the run was made with
    diffplan compare --config runs/mine/config.json --run elsewhere
    diffplan compare TASK --preset full                    # every method there is, at equal budgets
    diffplan compare TASK --run runs/min --methods guided best_of_n --reward-model ensemble_min

Writes into the run directory: results.csv, summary.csv, config.json, frontier.png, frontier.pdf, report.html, and what
each stage made. Stopped at any moment and started again, it goes on where it was.
"""

from collections.abc import Sequence

from diffplan.cli import experiment
from diffplan.cli.experiment import Experiment


def action(config: Experiment) -> None:
    """Run the comparison, then draw and print it."""
    from diffplan.experiment.compare import compare
    from diffplan.report import budgets, draw, table
    from diffplan.runs import console, say

    run, task = config.open()
    results = compare(run, task, config.planner, config.experiment)
    paths = draw.draw(run.directory)
    table.show(run.directory, console)
    budgets.show(run.directory, console)
    for path in (results, *paths):
        say(str(path))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    experiment.main(action, "diffplan compare", __doc__, arguments)
