"""The prior of a run by itself: the diffusion model of behaviour (and the data, if they are not there yet).

    diffplan train TASK                                   # about half a minute on two CPU cores, loss near 0.25
    diffplan train TASK --run runs/unet --prior.network unet --prior.train.steps 20000 --track tensorboard

Writes RUN/prior: stage.json, metrics.jsonl, checkpoints. Stopped at any moment, it resumes at its last checkpoint.
Settings are those of `diffplan compare`, which goes on from here.
"""

from collections.abc import Sequence

from diffplan.cli import experiment
from diffplan.cli.experiment import Experiment


def action(config: Experiment) -> None:
    """Train the prior, or read it back."""
    from diffplan.models import count
    from diffplan.planner import build
    from diffplan.runs import say
    from diffplan.runs.lock import locked

    run, task = config.open()
    with locked(run.directory):
        made = build.fit_prior(build.start(run, task, config.planner, learns=False))
    say(f"{config.run / 'prior'}: {count(made.model.params):,} parameters, digest {made.identity[:12]}")


def main(arguments: Sequence[str]) -> None:
    """The command."""
    experiment.main(action, "diffplan train", __doc__, arguments)
