"""The guidance scale for a run: four rules on a sweep over scales, with intervals over seeds, and which to follow.

    python scripts/tune_scale.py demo                               # about 2 minutes on two CPU cores, after compare.py
    python scripts/tune_scale.py demo --method guided_dps --high 100
    python scripts/tune_scale.py demo --nats 4                      # instead: the scale that spends 4 nats of path KL
    python scripts/tune_scale.py demo --typicality 0.95             # instead: the scale that leaves the data

Works on the data, prior and proxies of a run of compare.py, which it makes where they are missing. Writes
RUN/scale.json: the scale, the rule, every choice, and the units that carry the scale over to another problem. In the
demo expect executed gold to bear a scale of about 17, valid plans and staying near the data about 9, which is what it
recommends; 4 nats of path KL are spent at 2.5.
"""

from compare import PRESETS

from diffplan import runtime
from diffplan.experiment.tune import TuneSettings, tune

TUNED = {name: (text, TuneSettings(config)) for name, (text, config) in PRESETS.items()}


def main(config: TuneSettings) -> None:
    """Choose a scale, print it and write it down."""
    tune(config)
    runtime.say(str(config.compare.run / "scale.json"))


if __name__ == "__main__":
    runtime.command(main, TuneSettings, TUNED)
