"""The guidance scale for a run: rules on a sweep over scales, with intervals over seeds, and which rule to follow.

    diffplan tune demo                               # about 2 minutes on two CPU cores, after `diffplan compare demo`
    diffplan tune --run runs/mine                    # with the settings that the run was made with
    diffplan tune demo --method guided_dps --high 100
    diffplan tune demo --nats 4                      # instead: the scale that spends 4 nats of path KL
    diffplan tune demo --typicality 0.95             # instead: the scale that leaves the data

Works on the data, prior and proxies of a run of `diffplan compare`, which it makes where they are missing. Writes
RUN/scale.json: the scale, the rule, every choice, and the units that the scale is in. In the demo expect the tracked
return to bear a scale of about 17, valid plans and staying near the data about 9, which is the recommendation; 4 nats
of path KL are spent at 2.5.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated

import tyro

from diffplan.cli import command
from diffplan.cli.experiment import PRESETS, Experiment, load
from diffplan.experiment.tune import TuneSettings
from diffplan.settings import settings


@settings("")
class Tuning:
    """A run, and how its guidance scale is chosen."""

    run_of: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)
    """The run: its data, prior, proxies, sampler, seeds and plans."""
    tune: Annotated[TuneSettings, tyro.conf.arg(name="")] = field(default_factory=TuneSettings)
    """The sweep and the rules."""


def action(config: Tuning) -> None:
    """Choose a scale, print it and write it down."""
    from diffplan.experiment.tune import fits, tune
    from diffplan.runs import say

    fits(config.tune, config.run_of.experiment)
    run, task = config.run_of.open()
    tune(run, task, config.run_of.experiment, config.tune)
    say(str(run.directory / "scale.json"))


def main(arguments: Sequence[str]) -> None:
    """The command."""

    def read() -> Tuning:
        default, rest = command.begin(PRESETS, arguments, load)
        return command.parse(Tuning, rest, "diffplan tune", __doc__, Tuning(default))

    command.run(lambda: action(read()))
