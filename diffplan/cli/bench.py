"""How fast plans are made on this machine, and what they deliver.

    diffplan bench maze2d-umaze                                # trains first what is not there
    diffplan bench --run runs/mine --parts plans peak          # on a planner of your own
    diffplan bench maze2d-umaze --parts few_steps torch        # a flow map; PyTorch (the `bench` extra)

Writes RUN/bench.json: a row for each call, with the seconds of the first (which compiles) and of all others.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

import tyro

from diffplan.benchmarks.speed.run import BenchSettings, bench
from diffplan.cli import command, experiment
from diffplan.cli.experiment import Experiment, extended
from diffplan.settings import settings


@settings("")
class Benchmark:
    """What is timed, and the run whose planner it is."""

    bench: Annotated[BenchSettings, tyro.conf.arg(name="")] = field(default_factory=BenchSettings)


def action(config: Any) -> None:
    """Time, and write down."""
    import jax

    from diffplan.runs.lock import locked

    jax.config.update("jax_enable_compilation_cache", False)  # the first call of each program compiles it
    run, task = config.run_of.open()
    with locked(run.directory):
        bench(run, task, config.run_of.planner, config.bench)


def benchmark_of(run: Experiment) -> Any:
    """The benchmark of the run of an experiment."""
    return extended(Benchmark, "run_of", Annotated[type(run), tyro.conf.arg(name="")])(run_of=run)


def main(arguments: Sequence[str]) -> None:
    """The command."""

    def read() -> Any:
        default, rest = experiment.begin(arguments)
        return command.parse(type(benchmark_of(default)), rest, "diffplan bench", __doc__, benchmark_of(default))

    command.run(lambda: action(read()))
