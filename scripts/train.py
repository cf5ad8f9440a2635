"""The prior stage of a run by itself: the diffusion model of behaviour (and the data, if it is not there yet).

    python scripts/train.py demo                                     # about 2 minutes on two CPU cores, loss near 0.29
    python scripts/train.py demo --run runs/unet --prior.network unet --prior.train.steps 20000 --track tensorboard

Writes RUN/prior: config.json, metrics.jsonl, checkpoints. Stopped at any moment, it resumes at its last checkpoint.
Settings are those of compare.py, which goes on from here when it is given the same ones.
"""

from compare import PRESETS

from diffplan import runtime
from diffplan.config import CompareSettings


def main(config: CompareSettings) -> None:
    """Train the prior, or find it trained."""
    from diffplan.experiment import stages
    from diffplan.models import count

    prior, digest = stages.fit_prior(config, stages.behaviour(config))
    runtime.say(f"{config.run / 'prior'}: {count(prior.params):,} parameters, digest {digest[:12]}")


if __name__ == "__main__":
    runtime.command(main, CompareSettings, PRESETS)
