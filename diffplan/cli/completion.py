"""Completion of commands, tasks and flags in a shell.

    diffplan completion bash > ~/.diffplan-completion    # then, in ~/.bashrc: source ~/.diffplan-completion
    diffplan completion zsh  > ~/.diffplan-completion    # the same in ~/.zshrc
    diffplan completion fish > ~/.config/fish/completions/diffplan.fish

Prints a script that knows all flags of this version and starts no Python. Flags of single tasks are not in it.
"""

import contextlib
import importlib
import io
import re
from collections.abc import Sequence

from diffplan.cli import command

SHELLS = ("bash", "zsh", "fish")
WITH_TASK = ("compare", "tune", "play", "plot", "train", "train-reward", "make-data", "methods")


def flags(name: str) -> list[str]:
    """The flags of a command, as its help lists them."""
    from diffplan.cli.main import module_of

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(module_of(name)).main(["--help"])
    lines = re.findall(r"^[│ ]*((?:-\w, )?--[a-z].*)$", said.getvalue(), re.M)
    return sorted({flag for line in lines for flag in re.findall(r"--[a-z][\w.-]*", line)})


def words() -> dict[str, list[str]]:
    """What may follow each command."""
    from diffplan.cli.main import COMMANDS
    from diffplan.cli.study import NAMES
    from diffplan.tasks import DRAWINGS, TASKS

    tasks = list(TASKS | DRAWINGS)
    after: dict[str, list[str]] = dict.fromkeys(WITH_TASK, tasks)
    after |= {"study": ["list", "run", "render", "compare", *NAMES, "all"], "completion": [*SHELLS]}
    return {name: [*after.get(name, []), *([] if name == "completion" else flags(name))] for name in COMMANDS}


def bash(known: dict[str, list[str]]) -> str:
    """The script for bash."""
    cases = "\n".join(f"        {name}) words='{' '.join(after)}' ;;" for name, after in known.items())
    return f"""_diffplan() {{
    local words='' current="${{COMP_WORDS[COMP_CWORD]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then words='{" ".join(known)}'; else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _diffplan diffplan"""


def zsh(known: dict[str, list[str]]) -> str:
    """The script for zsh, which reads bash's."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash(known)}"


def fish(known: dict[str, list[str]]) -> str:
    """The script for fish."""
    from diffplan.cli.main import COMMANDS

    lines = []
    for name, after in known.items():
        lines.append(f"complete -c diffplan -n __fish_use_subcommand -f -a {name} -d '{COMMANDS[name]}'")
        lines.append(f"complete -c diffplan -n '__fish_seen_subcommand_from {name}' -a '{' '.join(after)}'")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """The command."""
    if len(arguments) == 1 and arguments[0] in SHELLS:
        command.run(lambda: print({"bash": bash, "zsh": zsh, "fish": fish}[arguments[0]](words())))
        return
    if arguments and arguments[0] not in SHELLS and not arguments[0].startswith("-"):
        command.fail(f"shell={arguments[0]!r}: must be one of {', '.join(SHELLS)}")
    command.no_arguments(arguments or ["--help"], "diffplan completion", __doc__)
