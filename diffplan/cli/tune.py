"""The guidance scale for a run: a sweep over scales, one recommendation with its reason, and its validation.

    diffplan tune TASK                       # about 2 minutes on two CPU cores, after `diffplan compare`
    diffplan tune --run runs/mine                    # with the settings that the run was made with
    diffplan tune TASK --method guided_dps --high 100 --objective promised
    diffplan tune TASK --candidates 1 4 16 --prior 1 0.9      # the scale with how many candidates, how much prior
    diffplan tune TASK --nats 4              # instead: the scale that spends 4 nats of path KL
    diffplan tune TASK --typicality 0.95     # instead: the scale that leaves the data

Works on the data, prior and learned rewards of a run of `diffplan compare`, which it makes where they are missing.
What is recommended is the weakest feasible scale within one standard error of the best delivered return, and 0 where
guidance does not help. With several candidates or weights of the prior it is the first cell of their grid that is so
good: fewest candidates first, then most of the prior, then the weakest scale. Each call is kept in a directory
RUN/tune/METHOD-OBJECTIVE-DIGEST: sweep.csv, sweep.png, grid.csv where there is a grid, and scale.json with the scale,
its reason, its validation on other seeds, and the units that it is in; RUN/scale.json is the last call's.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

import tyro

from diffplan.cli import command, experiment
from diffplan.cli.experiment import Experiment, extended
from diffplan.experiment.tune import TuneSettings
from diffplan.settings import settings


@settings("")
class Tuning:
    """How the guidance scale of a run is chosen; the run, with its settings, is another field (`tuning_of`)."""

    tune: Annotated[TuneSettings, tyro.conf.arg(name="")] = field(default_factory=TuneSettings)
    """The sweep."""


def tuning_of(run: Experiment) -> Any:
    """A tuning of the run of an experiment."""
    return extended(Tuning, "run_of", Annotated[type(run), tyro.conf.arg(name="")])(run_of=run)


def action(config: Any) -> None:
    """Choose a scale, print it and write it down."""
    from diffplan.experiment.tune import fits, tune
    from diffplan.report import sweep
    from diffplan.runs import say

    of = config.run_of
    fits(config.tune, of.planner)
    run, task = of.open()
    _, directory = tune(run, task, of.planner, of.experiment, config.tune)
    if (directory / "sweep.csv").exists():
        sweep.show(directory)
        say(", ".join(str(path) for path in sweep.draw(directory)))
    say(str(directory / "scale.json"))


def main(arguments: Sequence[str]) -> None:
    """The command."""

    def read() -> Any:
        default, rest = experiment.begin(arguments)
        tuning = tuning_of(default)
        return command.parse(type(tuning), rest, "diffplan tune", __doc__, tuning)

    command.run(lambda: action(read()))
