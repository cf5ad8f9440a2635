"""The worlds that ship, and what else can stand where a task is named.

    diffplan tasks

Prints a line for each world: its name, and what it is.
"""

from collections.abc import Sequence

from diffplan.cli import command


def action() -> None:
    """Print the list."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from diffplan.runs import console
    from diffplan.tasks import DRAWINGS, OTHERS, TASKS

    shown = Table("task", "what it is", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, shipped in (TASKS | DRAWINGS).items():
        shown.add_row(name, shipped.about)
    shown.add_section()
    for name, words in OTHERS.items():
        shown.add_row(name, words)
    console.print(shown, markup=False)


def main(arguments: Sequence[str]) -> None:
    """The command."""
    command.no_arguments(arguments, "diffplan tasks", __doc__)
    command.run(action)
