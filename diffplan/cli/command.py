"""The manners of every command: settings from flags, errors in one line, an exit status that says what happened."""

import contextlib
import hashlib
import importlib.metadata
import io
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from diffplan.runs import RunError, signals
from diffplan.settings import ConfigError

Config = TypeVar("Config")

EXTRAS = {
    "data": ("h5py", "minari"),
    "gym": ("gymnasium",),
    "simulators": ("mujoco", "gymnasium_robotics", "ogbench"),
    "search": ("mctx",),
    "app": ("marimo",),
    "track": ("wandb", "tensorboardX"),
}
"""The modules of each extra."""

BOX = "╭─╮│╰╯┌┐└┘━"


def fail(line: str, code: int = 2) -> NoReturn:
    """Print one line on standard error, and exit."""
    sys.stderr.write(f"error: {line}\n")
    raise SystemExit(code)


def run(action: Callable[[], Any]) -> None:
    """Run a command's action. A value that cannot work, or a file that is not what it should be, ends in one line.

    Exit status: 2 after an error, 130 after SIGINT, 143 after SIGTERM. DIFFPLAN_TRACE=1 shows where an error came from.
    """
    from diffplan.metrics.table import TableError

    try:
        with signals.handled():
            check_backend()
            keep_compiled()
            action()
    except BrokenPipeError:
        raise
    except (ConfigError, RunError, TableError, ValueError, FloatingPointError, OSError, ImportError) as error:
        if os.environ.get("DIFFPLAN_TRACE"):
            raise
        fail(missing(error) or " ".join(str(error).split()))
    except signals.Stopped as stopped:
        fail("interrupted; run the same command again to go on from here", stopped.code)


def missing(error: Exception) -> str:
    """What to install, where a module of an extra is missing; else nothing."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extras = [extra for extra, modules in EXTRAS.items() if module in modules]
    return f"{module} is missing: pip install 'diffplan[{extras[0]}]'" if extras else ""


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache folder, one for every version of jax and kind of machine.

    JAX_COMPILATION_CACHE_DIR names another folder; empty, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    kind = hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags}".encode()).hexdigest()[:8]
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "diffplan" / f"jax-{importlib.metadata.version('jax')}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return
    if not os.access(folder, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)  # for processes that this one starts
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if "jax" in sys.modules:
        config, least = sys.modules["jax"].config, os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_persistent_cache_min_compile_time_secs", float(least))


def check_backend() -> None:
    """Raise ConfigError where JAX_PLATFORMS asks for a backend that jax does not find."""
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked:
        return
    import jax

    try:
        jax.devices()
    except Exception as error:  # jax raises whatever the plugin does
        reason = " ".join(str(error).split()).partition(" (set JAX_PLATFORMS")[0] or type(error).__name__
        extras = "unset it, or install what it needs: pip install 'diffplan[cuda13]', [cuda12] or [tpu]"
        raise ConfigError(
            f"JAX_PLATFORMS={asked!r}: must name a backend that jax finds here ({reason}); {extras}"
        ) from None


def parse(cls: type[Config] | Any, arguments: Sequence[str], prog: str, text: str | None, default: Any = None) -> Any:
    """Settings from flags.

    Raises:
        ConfigError: in one line, for a flag or a value that is not allowed.
    """
    import tyro

    for flag, value in pairwise([*arguments, None]):
        if flag and flag.startswith("--") and (value == "" or flag.endswith("=")):
            raise ConfigError(f"{flag.rstrip('=')}='': must not be empty")
    read = partial(tyro.cli, cls, prog=prog, description=text, args=arguments)
    read = read if default is None else partial(read, default=default)
    if {"-h", "--help"} & set(arguments):
        return read()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return read()
    except SystemExit:
        raise ConfigError(f"{one_line(said.getvalue(), arguments)}; see {prog} --help") from None


def no_arguments(arguments: Sequence[str], prog: str, text: str | None) -> None:
    """Print the help, or refuse what is left of the arguments of a command that takes no flags."""
    if {"-h", "--help"} & set(arguments):
        print(f"usage: {prog}\n\n{text}")
        raise SystemExit(0)
    if arguments:
        fail(f"{arguments[0]}: unknown; see {prog} --help")


KINDS = {"INT": "a whole number", "FLOAT": "a number", "True|False": "True or False"}


def kind_of(shown: str) -> str:
    """What a parser's help shows for the values of a flag, in words."""
    bare = shown.removeprefix("{None}|").strip("{}")
    return ("None or " if shown.startswith("{None}|") else "") + KINDS.get(bare, bare)


def one_line(text: str, arguments: Sequence[str]) -> str:
    """What a parser says in a box, on one line: the field, its value, and what is allowed."""
    words = " ".join(re.sub(rf"\x1b\[[0-9;]*m|[{BOX}]|-{{9,}}", " ", text).split())
    if match := re.search(r"Error parsing --(\S+): .* Argument helptext: (?:-\w, )?--\S+ (\S+)", words):
        given = re.search(rf"--{match[1]}[ =](.*?)(?= --|$)", " ".join(arguments))
        return f"{match[1]}={given and given[1]!r}: must be {kind_of(match[2])}"
    if match := re.search(r"invalid choice (\S+) for argument '-*(\S+)'. Expected one of \((.*?),?\)", words):
        return f"{match[2]}={match[1]}: must be one of {match[3].replace(chr(39), '')}"
    if match := re.search(r"Missing value for argument '-*(\S+)'. Expected (\d+)", words):
        return f"{match[1]}: must be followed by {match[2]} value{'s' * (match[2] != '1')}"
    if match := re.search(r"Unrecognized options: (.*?) (?:Perhaps|For full)", words):
        near = re.findall(r"(--[\w.-]+) [A-Z{]", words.partition("Perhaps you meant:")[2])
        return f"{match[1].replace(',', '')}: unknown" + (f"; perhaps {' or '.join(near)}" if near else "")
    return words.partition("For full helptext")[0].strip() or "wrong flags"


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag, the last one given; None if the flag is not there."""
    value = None
    for number, argument in enumerate(arguments):
        if argument == flag and number + 1 < len(arguments):
            value = arguments[number + 1]
        elif argument.startswith(f"{flag}="):
            value = argument.partition("=")[2]
    return value


def without(flag: str, arguments: Sequence[str]) -> list[str]:
    """The arguments without a flag and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == flag:
            skip = True
        elif not argument.startswith(f"{flag}="):
            kept.append(argument)
    return kept
