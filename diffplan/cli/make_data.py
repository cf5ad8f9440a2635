"""Behaviour to learn from: the data of a run by themselves, or the data of a published benchmark, made again.

    diffplan make-data TASK --run runs/mine --task.episodes 1000    # 1 M rows in about 10 s
    diffplan make-data ogbench --help                               # OGBench's, by the rules of its generator

A task writes RUN/data/rows.npz (observations, actions, the length of each episode, rewards if they are recorded)
and rows.json (configuration, versions, digest). `diffplan compare` goes on from here.
"""

from collections.abc import Sequence

from diffplan.cli import command, experiment
from diffplan.cli.experiment import Experiment


def action(config: Experiment) -> None:
    """Make or check the data, and print their statistics."""
    import numpy as np

    from diffplan.planner.build import make_data
    from diffplan.runs import say

    run, task = config.open()
    episodes, _ = make_data(run, task)
    lengths = episodes.lengths
    say(f"{episodes.count} episodes of {lengths.min()} to {lengths.max()} steps")
    for name, value in (("observations", episodes.observations), ("actions", episodes.actions)):
        mean, std = value.mean(0, dtype=np.float64), value.std(0, dtype=np.float64)
        say(f"{name:<13}{list(value.shape)}  mean {np.round(mean, 4)}  std {np.round(std, 4)}")
    say(str(run.directory / "data" / "rows.npz"))


def main(arguments: Sequence[str]) -> None:
    """The command."""
    if arguments[:1] == ["ogbench"]:
        from diffplan.benchmarks import ogbench_data as published

        prog, text = "diffplan make-data ogbench", published.__doc__
        read = lambda: command.parse(published.DataSettings, arguments[1:], prog, text)
        return command.run(lambda: published.make(read()))
    experiment.main(action, "diffplan make-data", __doc__, arguments)
