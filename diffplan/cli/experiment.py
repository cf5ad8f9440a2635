"""The settings that every command on an experiment in a maze shares, and their presets."""

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffplan.cli import command
from diffplan.experiment.settings import ExperimentSettings
from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import ValueSettings
from diffplan.methods.strengths import StrengthSettings
from diffplan.runs import Run
from diffplan.runs.config import recorded, settle
from diffplan.samplers import SamplerSettings
from diffplan.settings import require, settings
from diffplan.task import Task
from diffplan.tasks import maze2d
from diffplan.tasks.maze2d import DataSettings, GoldSettings


@settings("")
class Experiment:
    """An experiment in a maze, and the directory of its run."""

    run: Path = Path("runs/demo")
    """Directory of the run. What is finished in it is used again."""
    new_settings: bool = False
    """Go on in a run that was made with other settings: what they made is kept aside, and made anew."""
    track: Literal["none", "wandb", "tensorboard"] = "none"
    """Where training metrics go beside metrics.jsonl; wandb and tensorboard need the `track` extra."""
    data: DataSettings = field(default_factory=DataSettings)
    gold: GoldSettings = field(default_factory=GoldSettings)
    experiment: Annotated[ExperimentSettings, tyro.conf.arg(name="")] = field(default_factory=ExperimentSettings)
    """What is learned and compared."""

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is made."""
        return "run", "new_settings", "track"

    def check(self) -> None:
        """Raise ConfigError unless windows fit into trajectories, of which some are trained on and some held out."""
        data, prior = self.data, self.experiment.prior
        least = data.trajectories * prior.horizon
        allowed = f"more than data.trajectories * prior.horizon ({least})"
        require(data.steps > prior.horizon, "data.rows", data.rows, allowed)
        aside = max(1, round(prior.held_out * data.trajectories))
        allowed = f"such that some of the {data.trajectories} trajectories are left to train on"
        require(aside < data.trajectories, "prior.held_out", prior.held_out, allowed)

    def open(self) -> tuple[Run, Task]:
        """The run, whose settings are recorded, and the task.

        Raises:
            RunError: if the run was made with other settings.
            ValueError: if there is no such maze.
        """
        task = maze2d.task(self.data, self.gold)
        opened = Run(self.run, self.new_settings, self.track)
        settle(opened, self)
        return opened, task


TINY = TrainSettings(steps=20, batch=16, chunk=20, save_every=20)
SMOKE = Experiment(
    run=Path("runs/smoke"),
    data=DataSettings(rows=20_000, trajectories=40),
    experiment=ExperimentSettings(
        prior=PriorSettings(replace(TINY, steps=60), horizon=32, width=32, depth=1),
        proxy=ProxySettings(replace(TINY, steps=40), labels=200, width=16, depth=1),
        sampler=SamplerSettings(steps=6),
        dynamics=DynamicsSettings(TINY, transitions=500, members=2, width=8, depth=1),
        value=ValueSettings(TINY, width=8, depth=1),
        behaviour=BehaviourSettings(TINY, width=8, depth=1),
        conditional=ConditionalSettings(TINY, width=16, depth=1),
        strengths=StrengthSettings(
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
    ),
)
ALL = Experiment(
    run=Path("runs/methods"),
    experiment=ExperimentSettings(methods=("all",), strengths=StrengthSettings(points=5, refine=1), seeds=3, plans=32),
)
PRESETS = {"demo": Experiment(), "methods": ALL, "smoke": SMOKE}
"""demo: the headline figure in the U-maze; methods: every method on the demo's problem; smoke: every part once, as
small as it gets, for tests."""


def load(path: Path) -> Experiment:
    """The settings of a run's config.json; `run` is the directory that the file stands in."""
    return replace(recorded(path, Experiment), run=path.parent, new_settings=False)


def read(arguments: Sequence[str], prog: str, text: str | None) -> Experiment:
    """An experiment from flags: a preset first, or `--config FILE`, or `--run` of a run that exists."""
    default, rest = command.begin(PRESETS, arguments, load)
    return command.parse(Experiment, rest, prog, text, default)


def main(action: Callable[[Experiment], Any], prog: str, text: str | None, arguments: Sequence[str]) -> None:
    """Run an action on an experiment, with a command's manners."""
    command.run(lambda: action(read(arguments, prog, text)))
