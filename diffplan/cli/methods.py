"""Every method: its strength, what it acts on, how plans are carried out, what it needs; or which can run on a task.

    diffplan methods
    diffplan methods gridworld-fourrooms        # says why the others cannot run there

Prints a table. Methods of your own need no entry: `--methods my_file.py:NAME`.
"""

from collections.abc import Sequence

from diffplan.cli import command


def action(name: str | None) -> None:
    """Print the table.

    Raises:
        ConfigError: if there is no such task.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from diffplan.methods import catalogue, suited
    from diffplan.methods.strengths import StrengthSettings
    from diffplan.planner.build import lacks
    from diffplan.runs import console
    from diffplan.tasks import source

    entries = catalogue(StrengthSettings())
    left: dict[str, str] = {}
    if name is not None:
        made = source(name)
        task = made.make(made.settings)
        _, left = suited(entries.values(), lacks(task), task.cells is not None)
    about = ("method", "family", "strength", "needs")
    columns = (*about, f"on {name}") if name else (*about, "acts on", "delivered by", "paper")
    shown = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for entry in entries.values():
        line = (entry.name, entry.family, entry.method.strength_name, ", ".join(entry.needs))
        more = (entry.acts_on, entry.delivered_by.replace("_", " "), entry.paper)
        shown.add_row(*line, *((left.get(entry.name, "yes"),) if name else more))
    console.print(shown, markup=False)


def main(arguments: Sequence[str]) -> None:
    """The command."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    command.no_arguments(arguments[1:] if name else arguments, "diffplan methods", __doc__)
    command.run(lambda: action(name))
