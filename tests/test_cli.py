"""The command line: every word is checked before anything is made, and every error is one line that says what to do."""

import ast
import importlib
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from diffplan.benchmarks import ogbench_data
from diffplan.cli import command, exact, experiment, tune
from diffplan.cli.experiment import Experiment
from diffplan.cli.main import COMMANDS, main
from diffplan.methods import catalogue
from diffplan.methods.strengths import StrengthSettings
from diffplan.runs import RunError
from diffplan.settings import ConfigError, settings
from diffplan.tasks import TASKS, source
from diffplan.tasks.linear import LinearSettings
from diffplan.tasks.maze2d import Maze2dSettings
from tests.commands import ROOT, refused, run

ON_A_TASK = ("compare", "tune", "train", "train-reward", "make-data", "play", "bench")
"""Commands whose first word is a task."""

LISTS = ("tasks", "methods", "doctor", "completion")
"""Commands that print something, and take no flags."""


# -- the command itself --


def test_it_lists_its_commands():
    for arguments in ((), ("--help",), ("-h",)):
        text = run(*arguments)
        assert all(re.search(rf"^ +{name} +\S", text, re.M) for name in COMMANDS)


@pytest.mark.parametrize("name", ["nonsense", "Compare", "compare.py", "--run", ""])
def test_an_unknown_command_is_refused_with_those_that_there_are(name):
    said = refused(name)
    near = {"Compare": "compare", "compare.py": "compare"}.get(name)
    assert said == f"command={name!r}: {f'perhaps {near}; ' if near else ''}must be one of {', '.join(COMMANDS)}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", run(name, "--help")).split())
    module = importlib.import_module(f"diffplan.cli.{name.replace('-', '_')}")
    assert f"diffplan {name}" in text and " ".join((module.__doc__ or "").split(".")[0].split()) in text


def flags(cls: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every flag of a class of settings and its docstring, read from the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # pyright: ignore[reportAttributeAccessIssue]
    texts = {
        node.target.id: after.value.value
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
    for name, hint in get_type_hints(cls, include_extras=True).items():
        bare, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        nameless = any(getattr(extra, "name", None) == "" for extra in extras)
        own = prefix if nameless else f"{prefix}{name}."
        if is_dataclass(bare):
            yield from flags(bare, own)
        else:
            yield f"--{own.removesuffix('.')}".replace("_", "-"), texts.get(name, "")


EXPLAINED = [
    ("compare", "maze2d-umaze", Experiment, ""),
    ("compare", "maze2d-umaze", Maze2dSettings, "task."),
    ("compare", "linear-point", LinearSettings, "task."),
    ("tune", "linear-point", tune.Tuning, ""),
    ("tune", "linear-point", LinearSettings, "task."),
    ("make-data", "ogbench", ogbench_data.DataSettings, ""),
    ("exact", "--help", exact.ExactSettings, ""),
]


@pytest.mark.parametrize(("name", "first", "cls", "prefix"), EXPLAINED)
def test_every_flag_is_explained(name, first, cls, prefix):
    page = " ".join(re.sub("[│╭╮╰╯─]", " ", run(name, first, "--help")).split())
    for flag, text in flags(cls, prefix):
        if flag == "--name":  # is no flag: the task is the first word
            continue
        assert text, f"{flag} has no docstring"
        assert re.search(rf"{flag}(,| )", page) and " ".join(text.split()) in page, flag


def test_the_lists_name_every_task_and_every_method(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    tasks, methods = run("tasks"), run("methods")
    assert all(re.search(rf"^ *{task} ", tasks, re.M) for task in TASKS)
    for name, entry in catalogue(StrengthSettings()).items():
        (line,) = re.findall(rf"^ *{name} .*", methods, re.M)
        assert " ".join(entry.method.strength_name.split()[:3]) in line and entry.paper in line
        assert entry.family in line and entry.delivered_by.replace("_", " ") in line
    assert re.search(r"^ *tree .*plans in one-hot cells alone", run("methods", "linear-point"), re.M)
    assert refused("methods", "maze3d").startswith("task='maze3d': must be one of")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_tasks_and_flags(shell, tmp_path):
    """In the shell itself: what it would offer after some words."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(run("completion", shell))

    def offered(*words: str) -> set[str]:
        quoted = " ".join(f"'{word}'" for word in ("diffplan", *words))
        ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _diffplan; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        asked = [shell, "-c", f"source {tmp_path}/script; {ask}"]
        return set(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split())

    assert offered("t") == {"tune", "train", "train-reward", "tasks"}
    assert offered("compare", "gridworld-f") == {"gridworld-fourrooms"}
    assert offered("play", "pendulum", "--can") == {"--candidates"}
    assert offered("study", "run", "po") == {"potemkin"}
    assert {"--seeds", "--seed"} & offered("compare", "--see") and offered("completion", "b") == {"bash"}


def test_an_unknown_shell_is_refused():
    assert refused("completion", "csh") == "shell='csh': must be one of bash, zsh, fish"
    assert "complete -c diffplan" in run("completion", "fish")


def test_it_is_installed_as_a_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["diffplan"].split(":")
    assert getattr(importlib.import_module(module), name) is main


def test_help_of_the_package_loads_nothing_heavy():
    code = "import sys, diffplan, diffplan.cli.main as cli; cli.main(['--help']); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"jax", "numpy", "flax", "matplotlib", "tyro", "rich"} & set(done.stdout.splitlines()[-1].split())


# -- what is refused at parsing --

REFUSED = {
    "--prior.horizon 0": "prior.horizon=0: must be between 2 and",
    "--prior.horizon -8": "prior.horizon=-8: must be between 2 and",
    "--prior.horizon 1 --prior.patch 1": "prior.horizon=1: must be between 2 and",
    "--prior.horizon 36 --proxy.patch 8": "prior.horizon=36: must be a multiple of proxy.patch (8)",
    "--prior.horizon 33": "prior.horizon=33: must be a multiple of proxy.patch (2)",
    "--prior.patch -8": "prior.patch=-8: must be between 1 and",
    "--prior.stride 0": "prior.stride=0: must be between 1 and",
    "--value.depth 0": "value.depth=0: must be between 1 and",
    "--proxy.width -3": "proxy.width=-3: must be between 1 and",
    f"--prior.width {10**30}": f"prior.width={10**30}: must be a whole number of at most 64 bits",
    f"--task.seed {10**30}": f"task.seed={10**30}: must be a whole number of at most 64 bits",
    "--task.noise nan": "task.noise=nan: must be finite",
    "--strengths.scale 1 inf": "strengths.scale=inf: must be finite",
    "--strengths.scale 3 1": "strengths.scale=(3.0, 1.0): must be two numbers, the smaller first",
    "--noise.low 3 --noise.high 2": "noise.low=3.0: must be below noise.high (2.0)",
    "--task.episodes 1": "task.episodes=1: must be between 2 and",
    "--plans 1": "plans=1: must be between 2 and",
    "--proxy.quantile 2": "proxy.quantile=2.0: must be between 0 and 1, neither of them",
    "--methods guided gided": "methods='gided': must be one of all, prior, guided,",
    "--plans many": "plans='many': must be a whole number; see diffplan compare --help",
    "--task.steps 1e6": "task.steps='1e6': must be a whole number; see",
    "--task.centre 1 x": "task.centre='1 x': must be None or a number; see",
    "--prior.horizon many": "prior.horizon='many': must be None or a whole number; see",
    "--task.reward bold": "task.reward='bold': must be one of region, goal, path; see",
    "--preset smoke": "preset='smoke': must be one of demo, debug, full, accelerator",
    "--track foo": "track='foo': must be one of none, wandb, tensorboard; see",
    "--prior.horizon": "prior.horizon: must be followed by 1 value; see",
    "--strengths.scale 3": "strengths.scale: must be followed by 2 values; see",
    "--nonsense 3": "--nonsense 3: unknown; see diffplan compare --help",
    "--name gridworld-street": "--name gridworld-street: unknown; see",
    "--prior.horizn 32": "--prior.horizn 32: unknown; perhaps --prior.horizon; see diffplan compare --help",
    "--task.slip 0.1": "--task.slip 0.1: unknown; see diffplan compare --help",
    "--plan 3": "--plan 3: unknown; perhaps --plans",
    "--plans 3 4": "4: unknown; see",
    "more": "more: unknown; see",
    "--new-settings maybe": "maybe: unknown; see",
    "--task.maze nowhere": "task.maze='nowhere': unknown maze 'nowhere'",
    "--task.centre 0 0": "task.centre=(0.0, 0.0): no point within task.radius (0.3) of it is free in umaze",
    "--task.maze=": "--task.maze='': must not be empty",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_wrong_flag_or_value_is_refused_before_anything_is_made(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert refused("compare", "maze2d-umaze", "--run", "run", *arguments.split()).startswith(REFUSED[arguments])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", ["40", "300"])
def test_the_line_does_not_depend_on_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    for arguments in ("--task.centre 1 x", "--task.reward bold", "--prior.horizn 32", "--plans many"):
        assert refused("train", "maze2d-umaze", *arguments.split()).startswith(REFUSED[arguments].split(";")[0])


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "plot"])
def test_every_command_keeps_these_manners(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    first = ["linear-point"] if name in ON_A_TASK else {"study": ["list"]}.get(name, [])
    words = "--nonsense" if name in LISTS else "--nonsense 3"
    assert refused(name, *first, "--nonsense", "3") == f"{words}: unknown; see diffplan {name} --help"
    if name not in ("scores", "study", *LISTS):
        assert refused(name, *first, "--run", "") == "--run='': must not be empty"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ON_A_TASK)
@pytest.mark.parametrize("arguments", [[], ["--run", "runs/nowhere"], ["--plans", "8"], ["--preset", "debug"]])
def test_without_a_task_or_a_run_that_is_said(tmp_path, monkeypatch, name, arguments):
    monkeypatch.chdir(tmp_path)
    said = refused(name, *arguments)
    assert said.startswith("task: none is named: name one of maze2d-open, ") and all(task in said for task in TASKS)
    assert said.endswith("my_world.py:NAME; or give --run of a run, or --config")
    assert list(tmp_path.iterdir()) == []


WORLD = """
from diffplan.settings import settings
from diffplan.tasks import make_task

number = 3
point = make_task("linear-point")

@settings("task")
class Mine:
    episodes: int = 70
    \"\"\"How many.\"\"\"

def small(config: Mine = Mine()):
    return make_task("linear-point", episodes=config.episodes)

def wrong():
    return 3
"""

UNKNOWN = {
    "maze3d": "task='maze3d': must be one of maze2d-open, maze2d-umaze, ",
    "debug": "task='debug': must be one of maze2d-open, maze2d-umaze, ",
    "nowhere.npz": "task.path='nowhere.npz': no such file",
    "world.py:nobody": "task='world.py:nobody': world.py has no nobody; it has ",
    "world.py:number": "task='world.py:number': is of type int: must be a Task or a function of one",
    "world.py:wrong": "task='world.py:wrong': makes a value of type int: must make a Task",
    "elsewhere.py:task": "task='elsewhere.py:task': cannot load elsewhere.py: ",
    "nowhere.module:task": "task='nowhere.module:task': cannot load nowhere.module: ",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_task_that_does_not_exist_is_refused_before_anything_is_made(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.py").write_text(WORLD)
    assert refused("compare", name).startswith(UNKNOWN[name])
    assert not (tmp_path / "runs").exists()


def test_a_world_of_ones_own_brings_its_settings(tmp_path, monkeypatch):
    """Its one argument's default decides which flags there are, and which values the preset debug makes smaller."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.py").write_text(WORLD)
    read = lambda *flags: experiment.read(["world.py:small", *flags], "diffplan compare", None)
    assert read().make().settings == LinearSettings(episodes=70)
    assert read("--preset", "debug").make().settings.episodes == 40
    assert read("--task.episodes", "50").make().settings.episodes == 50
    assert str(read().run) == "runs/world" and "How many." in run("compare", "world.py:small", "--help")
    assert source("world.py:small").settings.episodes == 70
    assert "--task.episodes" not in run("compare", "world.py:point", "--help")
    assert "--task.slip" in run("compare", "gridworld-street", "--help")


# -- manners --


@settings("")
class Three:
    """For `parse`."""

    steps: int = 3
    """How many."""


@pytest.mark.parametrize(
    "error", [ConfigError, RunError, ValueError, FileNotFoundError, FloatingPointError, PermissionError, ImportError]
)
def test_an_error_is_one_line_unless_its_origin_is_asked_for(error, capsys, monkeypatch):
    def action() -> None:
        raise error("steps=3:\n  not today")

    monkeypatch.delenv("DIFFPLAN_TRACE", raising=False)
    with pytest.raises(SystemExit) as ended:
        command.run(action)
    assert ended.value.code == 2 and capsys.readouterr().err == "error: steps=3: not today\n"
    monkeypatch.setenv("DIFFPLAN_TRACE", "1")
    with pytest.raises(error):
        command.run(action)


def test_a_reader_that_has_had_enough_ends_it_in_silence():
    """The help is longer than a pipe holds, and only its first line is read."""
    loud = "from diffplan.cli import main; main.COMMANDS['x'] = 'y' * 2**20; main.main(['--help'])"
    piped = f'{sys.executable} -c "{loud}" | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", piped], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("141", "")


def test_what_is_nearly_a_task_is_guessed():
    assert refused("compare", "maze2d-umza").startswith("task='maze2d-umza': perhaps maze2d-umaze; must be one of")
    assert refused("compare", "arm.py") == "task='arm.py': must name the task in the file: arm.py:NAME"


@pytest.mark.slow
def test_a_run_of_a_program_s_task_says_where_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (ROOT / "tests" / "worlds" / "spring.py").read_text()
    (tmp_path / "arm.py").write_text(code)
    program = code + "\ndp.Planner.fit(task, preset='debug', run='runs/arm')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    for words in (("tune", "arm.py:task", "--run", "runs/arm"), ("play", "--run", "runs/arm", "--scale", "ten")):
        assert "its task 'spring' was made in a program: go on with it there" in refused(*words)
    config = Path("runs/arm/config.json")
    config.write_text(config.read_text().replace('"name": "spring"', '"name": "elsewhere.py:task"'))
    said = refused("play", "--run", "runs/arm")
    assert "its task 'elsewhere.py:task' cannot be loaded here: go on in the folder in which the run was made" in said


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("gymnasium", "gym", ("compare", "Pendulum-v1")),
        ("minari", "data", ("compare", "D4RL/pointmaze/umaze-v2")),
        ("h5py", "data", ("compare", "rows.hdf5")),
        ("ogbench", "simulators", ("compare", "pointmaze-medium-navigate")),
        ("ogbench", "simulators", ("scores", "--suite", "ogbench")),
        ("mujoco", "simulators", ("scores",)),
        ("gymnasium", "gym", ("play", "maze2d-umaze", "--pretrained", "--world", "PointMaze_UMaze-v3")),
        ("mctx", "search", ("compare", "gridworld-street", "--preset", "debug", "--methods", "tree")),
        ("wandb", "track", ("train", "linear-point", "--preset", "debug", "--track", "wandb")),
    ],
)
def test_a_missing_extra_names_itself(tmp_path, module, extra, words):
    """In a process in which the module cannot be imported; nothing is trained before it is missed."""
    (tmp_path / "rows.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    hide = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] == {module!r} else find(name, *more)
from diffplan.cli.main import main
main({list(words)})
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", hide]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and re.search(rf"{module}\b.*: pip install 'diffplan\[{extra}\]'$", last), done.stderr
    assert "loss" not in done.stdout + done.stderr


def test_flags_are_read_and_the_last_one_counts():
    read = lambda *arguments: command.parse(Three, arguments, "three", None)
    assert read().steps == 3 and read("--steps", "4", "--steps=5").steps == 5
    assert command.parse(Three, ["--steps", "4"], "three", None, Three(7)).steps == 4
    assert command.value_of("--run", ["--run", "a", "--run=b", "--runs", "c"]) == "b"
    assert command.value_of("--run", ["--plans", "3"]) is None
    assert command.without("--config", ["--config", "a", "x", "--config=b", "--run", "c"]) == ["x", "--run", "c"]


@pytest.mark.parametrize("backend", ["cuda", "nonsense"])
def test_a_backend_that_jax_does_not_find_is_named_in_one_line(tmp_path, backend):
    """Before anything is made; JAX itself ends in an AssertionError after many lines."""
    arguments = [sys.executable, ROOT / "scripts" / "compare.py", "linear-point", "--run", tmp_path / "run"]
    settings = os.environ | {"JAX_PLATFORMS": backend}
    done = subprocess.run(arguments, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS='{backend}': must name a backend that jax finds here (")
