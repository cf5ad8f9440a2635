"""Every exact answer there is, measured: a table of quantity, measured, exact, tolerance and verdict.

    diffplan exact                                 # `make exact`: all parts, about 11 minutes on two cores
    diffplan exact --seed 3 --only coverage           # one part again, with another seed
    diffplan exact --only attribution               # sampler, guide or model? the 2 x 2

Prints the table and writes it to ``--out``: results/exact.csv for all parts, RUN/seed-S/PART.csv for one. Exits with 1
if a row fails. Parts: order, gaussian, mixture, tabular, legality, references, rules, budget, particles, coverage,
discrete, prior, attribution; trained models are kept, and used again.
``--markdown`` prints the tables of docs/exact.md from the CSV.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated

from diffplan.cli import command
from diffplan.settings import SEED, require, settings

PARTS = (
    *("order", "gaussian", "mixture", "tabular", "legality", "references", "rules", "budget"),
    *("particles", "coverage", "discrete", "prior", "attribution"),
)


RESULTS = Path("results/exact.csv")


@settings("")
class ExactSettings:
    """What to measure."""

    seed: Annotated[int, SEED] = 0
    """Seed of everything that is drawn or trained."""
    only: tuple[str, ...] = ()
    """Parts to run; all if none is named."""
    run: Path = Path("runs/exact")
    """Directory of the trained models, one below it for each seed."""
    out: Path | None = None
    """The CSV to write; results/exact.csv for all parts, else one in the run's directory."""

    markdown: bool = False
    """Measure nothing: print the tables of docs/exact.md from the CSV that is there."""

    def check(self) -> None:
        """Raise ConfigError naming a part that does not exist."""
        for part in self.only:
            require(part in PARTS, "only", part, f"one of {', '.join(PARTS)}")


def action(config: ExactSettings) -> None:
    """Run the parts, print and write the table."""
    from diffplan.runs import Run, say

    if config.markdown:
        from diffplan.validation.report import markdown

        return say(markdown(config.out or RESULTS))
    import jax

    # Small programs run on one core each: every core is a device, before anything asks for one.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    from diffplan import validation
    from diffplan.validation.table import write

    run = config.run / f"seed-{config.seed}"
    parts = config.only or PARTS
    default = run / f"{'-'.join(parts)}.csv" if config.only else RESULTS
    rows = []
    for number, part in enumerate(parts, 1):
        began = perf_counter()
        made = list(validation.PARTS[part](Run(run), config.seed, validation.Size()))
        failed = sum(row.passed is False for row in made)
        say(f"{number}/{len(parts)} {part}: {len(made)} rows, {failed} failed, {perf_counter() - began:.0f} s")
        rows += made
    show(rows)
    out = config.out or default
    write(out, rows)
    failed = [row for row in rows if row.passed is False]
    decided = sum(row.passed is not None for row in rows)
    say(f"{out}: {decided - len(failed)} of {decided} rows hold")
    sys.exit(1 if failed else 0)


def show(rows: list) -> None:
    """Print the table, one plain line a row."""
    from diffplan.runs import say
    from diffplan.validation.table import COLUMNS

    table = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.run(lambda: action(command.parse(ExactSettings, arguments, "diffplan exact", __doc__)))
