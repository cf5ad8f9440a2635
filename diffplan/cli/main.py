"""The entry point: ``diffplan NAME ...``, where NAME is one of `COMMANDS`."""

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "compare": "every method at all its strengths on one task, with figure, page and table",
    "tune": "the guidance scale for a run, and why",
    "play": "episodes of a planner's agent, and a film",
    "plot": "draw a run again from its files",
    "train": "the prior of a run by itself",
    "train-reward": "the learned rewards of a run by themselves",
    "make-data": "behaviour to learn from",
    "tasks": "the worlds that ship, and what else names a task",
    "methods": "every method, what it acts on and what it needs",
    "bench": "how fast plans are made on this machine, and what they deliver",
    "study": "a question with its claim, its table and its verdict",
    "exact": "every exact answer there is, measured",
    "doctor": "what it runs on: versions, devices, extras, speed",
    "scores": "scores that others publish, in the simulators that others use",
    "completion": "completion of commands, tasks and flags, for bash, zsh or fish",
}


def module_of(name: str) -> str:
    """The module of a command."""
    return f"diffplan.cli.{name.replace('-', '_')}"


def text() -> str:
    """What ``diffplan --help`` prints."""
    lines = [f"    {name:<14}{words}" for name, words in COMMANDS.items()]
    return "\n".join(["usage: diffplan COMMAND ...", "", *lines, "", "diffplan COMMAND --help says more."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the subcommand that the arguments begin with."""
    try:
        begin(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
    except BrokenPipeError:  # `diffplan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def begin(arguments: Sequence[str]) -> None:
    """Run a subcommand.

    Raises:
        BrokenPipeError: if nobody reads what it prints any more.
    """
    name, *rest = arguments
    if name in ("-h", "--help"):
        print(text())
    elif name in COMMANDS:
        importlib.import_module(module_of(name)).main(rest)
    else:
        from diffplan.settings import perhaps

        allowed = f"{perhaps(name, COMMANDS)}must be one of {', '.join(COMMANDS)}"
        sys.stderr.write(f"error: command={name!r}: {allowed}\n")
        raise SystemExit(2)
