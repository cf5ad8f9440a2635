"""The proxies of a run by themselves: three learned rewards on the same N labelled windows.

    diffplan train-reward TASK --run runs/few --proxy.labels 300          # about 40 s on two CPU cores

Writes RUN/reward/{regression,classifier,clean} and prints how well each ranks held-out windows. Settings are those of
`diffplan compare`, which goes on from here.
"""

from collections.abc import Sequence

from diffplan.cli import experiment
from diffplan.cli.experiment import Experiment


def action(config: Experiment) -> None:
    """Fit the reward models, or read them back, and print how good they are on held-out windows."""
    from diffplan.experiment.harness import data_key
    from diffplan.experiment.quality import quality
    from diffplan.learn.reward import PROXIES
    from diffplan.planner import build as building
    from diffplan.runs import say
    from diffplan.runs.lock import locked
    from diffplan.settings import ConfigError

    run, task = config.open()
    with locked(run.directory):
        build = building.start(run, task, config.planner)
        if not build.rewarded:
            raise ConfigError(f"task {task.name}: has no reward, and its data record none")
        problem, _ = building.assemble(data_key(config.experiment, 2), build, set(PROXIES))
        quality(data_key(config.experiment, 3), build, problem, config.experiment.reference)
    say(str(run.directory / "reward"))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    experiment.main(action, "diffplan train-reward", __doc__, arguments)
