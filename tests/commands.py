"""The command, in this process or in one of its own, and the files that it leaves."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from diffplan.cli import experiment
from diffplan.cli.experiment import Experiment
from diffplan.cli.main import main

ROOT = Path(__file__).parents[1]


def ended(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; returns (exit status, standard output, standard error)."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as exit:
            code = exit.code or 0
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def run(*arguments: str, code: int = 0) -> str:
    """Run a command in this process; returns what it said: after an error its one line, without ``error:``."""
    status, out, err = ended(*arguments)
    assert status == code, out + err
    return out if code == 0 else one_line(err)


def refused(*arguments: str) -> str:
    """The one line with which a command is refused, before it says anything else."""
    status, out, err = ended(*arguments)
    assert status == 2 and out == "", out + err
    return one_line(err)


def one_line(text: str) -> str:
    """What an error says."""
    assert text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n"), text
    return text.removeprefix("error: ").strip()


def shell(*arguments: str, code: int = 0, **environment: str) -> str:
    """`diffplan` in a process of its own; returns all that it said."""
    done = subprocess.run(**process(*arguments, **environment), capture_output=True, check=False, timeout=300)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    # jax may warn of a compiled program that another process is just writing
    lines = done.stderr.splitlines()
    assert code == 0 or [line.startswith("error: ") for line in lines].count(True) == 1, done.stderr
    assert code == 0 or lines[-1].startswith("error: "), done.stderr
    return done.stdout + done.stderr


def process(*arguments: str, **environment: str) -> dict:
    """How subprocess starts `diffplan`: every compiled program is kept for later starts."""
    whole = {name: value for name, value in os.environ.items() if name != "DIFFPLAN_TRACE"}
    whole |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", "from diffplan.cli.main import main; main()", *arguments]
    return {"args": line, "env": whole | environment, "text": True}


def parsed(*arguments: str) -> Experiment:
    """The experiment that flags ask for."""
    return experiment.read(arguments, "diffplan compare", None)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
