"""The guidance scale for a run: rules on a sweep over scales, with intervals over seeds, and which rule to follow.

    diffplan tune TASK                       # about 2 minutes on two CPU cores, after `diffplan compare`
    diffplan tune --run runs/mine                    # with the settings that the run was made with
    diffplan tune TASK --method guided_dps --high 100
    diffplan tune TASK --nats 4              # instead: the scale that spends 4 nats of path KL
    diffplan tune TASK --typicality 0.95     # instead: the scale that leaves the data

Works on the data, prior and learned rewards of a run of `diffplan compare`, which it makes where they are missing.
Writes RUN/scale.json: the scale, the rule, every choice, and the units that the scale is in.
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
    """The sweep and the rules."""


def tuning_of(run: Experiment) -> Any:
    """A tuning of the run of an experiment."""
    return extended(Tuning, "run_of", Annotated[type(run), tyro.conf.arg(name="")])(run_of=run)


def action(config: Any) -> None:
    """Choose a scale, print it and write it down."""
    from diffplan.experiment.tune import fits, tune
    from diffplan.runs import say

    of = config.run_of
    fits(config.tune, of.planner, of.experiment)
    run, task = of.open()
    tune(run, task, of.planner, of.experiment, config.tune)
    say(str(run.directory / "scale.json"))


def main(arguments: Sequence[str]) -> None:
    """The command."""

    def read() -> Any:
        default, rest = experiment.begin(arguments)
        tuning = tuning_of(default)
        return command.parse(type(tuning), rest, "diffplan tune", __doc__, tuning)

    command.run(lambda: action(read()))
