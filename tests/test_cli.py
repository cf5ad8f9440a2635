"""The command line: every word is checked before anything is made, and every error is one line that says what to do."""

import ast
import importlib
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest

from diffplan.cli import command, exact, experiment, make_data, tune
from diffplan.cli.experiment import PRESETS, Experiment
from diffplan.cli.main import COMMANDS, main
from diffplan.runs import Run, RunError, lock
from diffplan.runs.config import recorded, settle
from diffplan.settings import ConfigError, at_least, settings

ROOT = Path(__file__).parents[1]


def run(capsys, *arguments: str, code: int = 0) -> str:
    """Run a command in this process; returns what it said: on an error one line, and nothing else."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
        raise SystemExit(0)
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, out + err
    if code == 0:
        return out
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n") and out == "", out + err
    return err.removeprefix("error: ").strip()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- the command itself --


def test_it_lists_its_commands(capsys):
    for arguments in ((), ("--help",), ("-h",)):
        text = run(capsys, *arguments)
        assert all(re.search(rf"^ +{name} +\S", text, re.M) for name in COMMANDS)


@pytest.mark.parametrize("name", ["nonsense", "Compare", "compare.py", "--run", ""])
def test_an_unknown_command_is_refused_with_those_that_there_are(capsys, name):
    said = run(capsys, name, code=2)
    assert said == f"command={name!r}: must be one of {', '.join(COMMANDS)}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(capsys, name):
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", run(capsys, name, "--help")).split())
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


@pytest.mark.parametrize(
    ("name", "first", "cls"),
    [
        ("compare", "smoke", Experiment),
        ("tune", "smoke", tune.Tuning),
        ("make-data", "ogbench", make_data.PointMazeSettings),
        ("exact", "--help", exact.ExactSettings),
    ],
)
def test_every_flag_is_explained(capsys, name, first, cls):
    page = " ".join(re.sub("[│╭╮╰╯─]", " ", run(capsys, name, first, "--help")).split())
    for flag, text in flags(cls):
        assert text, f"{flag} has no docstring"
        assert re.search(rf"{flag}(,| )", page) and " ".join(text.split()) in page, flag


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
    "--prior.horizon 36 --prior.patch 4": "prior.horizon=36: must be a multiple of proxy.patch (8)",
    "--prior.horizon 33": "prior.horizon=33: must be a multiple of 8",
    "--prior.patch -8": "prior.patch=-8: must be between 1 and",
    "--value.depth 0": "value.depth=0: must be between 1 and",
    "--proxy.width -3": "proxy.width=-3: must be between 1 and",
    f"--prior.width {10**30}": f"prior.width={10**30}: must be a whole number of at most 64 bits",
    f"--data.seed {10**30}": f"data.seed={10**30}: must be a whole number of at most 64 bits",
    "--data.noise nan": "data.noise=nan: must be finite",
    "--strengths.scale 1 inf": "strengths.scale=inf: must be finite",
    "--strengths.scale 3 1": "strengths.scale=(3.0, 1.0): must be two numbers, the smaller first",
    "--data.trajectories 1": "data.trajectories=1: must be between 2 and",
    "--data.trajectories 4 --prior.held-out 0.99": "prior.held_out=0.99: must be such that some of the 4 trajectories",
    "--data.rows 100": "data.rows=100: must be more than data.trajectories * prior.horizon (1280)",
    "--plans 1": "plans=1: must be between 2 and",
    "--proxy.quantile 2": "proxy.quantile=2.0: must be between 0 and 1, neither of them",
    "--plans many": "plans='many': must be a whole number; see diffplan compare --help",
    "--data.rows 1e6": "data.rows='1e6': must be a whole number; see",
    "--gold.centre 1 x": "gold.centre='1 x': must be a number; see",
    "--gold.kind bold": "gold.kind='bold': must be one of region, goal, path; see",
    "--track foo": "track='foo': must be one of none, wandb, tensorboard; see",
    "--prior.horizon": "prior.horizon: must be followed by 1 value; see",
    "--strengths.scale 3": "strengths.scale: must be followed by 2 values; see",
    "--nonsense 3": "--nonsense 3: unknown; see diffplan compare --help",
    "--prior.horizn 32": "--prior.horizn 32: unknown; perhaps --prior.horizon; see diffplan compare --help",
    "--plan 3": "--plan 3: unknown; perhaps --plans",
    "--plans 3 4": "4: unknown; see",
    "more": "more: unknown; see",
    "--new-settings maybe": "maybe: unknown; see",
    "--data.maze nowhere": "unknown maze 'nowhere'",
    "--data.maze=": "--data.maze='': must not be empty",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_wrong_flag_or_value_is_refused_before_anything_is_made(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "compare", "smoke", "--run", "run", *arguments.split(), code=2).startswith(REFUSED[arguments])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", ["40", "300"])
def test_the_line_does_not_depend_on_the_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    for arguments in ("--gold.centre 1 x", "--gold.kind bold", "--prior.horizn 32", "--plans many"):
        assert run(capsys, "train", "smoke", *arguments.split(), code=2).startswith(REFUSED[arguments].split(";")[0])


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "plot"])
def test_every_command_keeps_these_manners(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    first = {"study": ["list"], "exact": [], "scores": []}.get(name, ["smoke"])
    assert run(capsys, name, *first, "--nonsense", "3", code=2) == f"--nonsense 3: unknown; see diffplan {name} --help"
    if name not in ("scores", "study"):
        assert run(capsys, name, *first, "--run", "", code=2) == "--run='': must not be empty"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "first"),
    [([], "nothing"), (["dmo"], "'dmo'"), (["--run", "runs/nowhere"], "nothing"), (["--plans", "8"], "nothing")],
)
def test_without_a_preset_or_a_run_that_is_said(capsys, tmp_path, monkeypatch, arguments, first):
    monkeypatch.chdir(tmp_path)
    said = run(capsys, "compare", *arguments, code=2)
    assert said == f"preset={first}: must be one of {', '.join(PRESETS)}; or give --run of a run, or --config"
    assert list(tmp_path.iterdir()) == []


# -- where a run is --


def parsed(*arguments: str) -> Experiment:
    return experiment.read(arguments, "diffplan compare", None)


def test_a_home_is_expanded_wherever_a_path_is_named(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for flag in (["--run=~/x"], ["--run", "~/x"]):
        config = parsed("smoke", *flag)
        assert config.run == home / "x"
    run, _ = config.open()
    assert run.directory == home / "x" and not list(tmp_path.rglob("~*"))
    assert parsed("--run", "~/x").run == parsed("--config=~/x/config.json").run == home / "x"


def test_names_that_look_like_markup_and_relative_paths_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("[/x]", "./b"):
        run, _ = parsed("smoke", "--run", name).open()
        assert (Path(name) / "config.json").exists() and run.directory == Path(name)
    assert {path.name for path in tmp_path.iterdir()} == {"[", "b"} and (tmp_path / "[" / "x]").is_dir()


def test_a_file_where_the_run_should_be_is_left_alone(capsys, tmp_path):
    (tmp_path / "run").write_text("mine")
    for place in ("run", "run/deeper"):
        said = run(capsys, "train", "smoke", "--run", str(tmp_path / place), code=2)
        assert str(tmp_path / "run") in said and "name another directory with --run" in said
    assert (tmp_path / "run").read_text() == "mine"


# -- settings of a run --


def test_the_run_alone_is_enough_and_its_file_repeats_it_elsewhere(tmp_path):
    first = parsed("smoke", "--run", str(tmp_path / "a"), "--prior.width", "48", "--methods", "guided", "ascent")
    first.open()
    again = parsed("--run", str(tmp_path / "a"))
    assert again == replace(first, new_settings=False)
    other = parsed("--config", str(tmp_path / "a" / "config.json"), "--run", str(tmp_path / "b"))
    assert other == replace(first, run=tmp_path / "b")
    before = tree(tmp_path)
    again.open()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_recorded_is_read_back(tmp_path, preset):
    """As JSON knows neither tuples nor paths nor optional parts."""
    config = replace(PRESETS[preset], run=tmp_path)
    config.open()
    assert recorded(tmp_path / "config.json", Experiment) == config
    settle(Run(tmp_path), recorded(tmp_path / "config.json", Experiment))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--prior.width 48", "experiment.prior.width was 32 and is now 48; --new-settings"),
        ("--data.noise 0.1 --seeds 3", "data.noise was 0.5 and is now 0.1; --new-settings"),
        ("--prior.train.steps 80", r"experiment.prior.train.steps was 60 and is now 80 \(.*decays.*\); --new-settings"),
    ],
)
def test_changed_settings_are_named_and_need_a_word(capsys, tmp_path, flags, words):
    place = ["--run", str(tmp_path / "run")]
    parsed("smoke", *place).open()
    before = tree(tmp_path)
    for start in (["smoke"], []):
        assert re.match(rf"{tmp_path}/run: {words}", run(capsys, "train", *start, *place, *flags.split(), code=2))
    assert tree(tmp_path) == before
    changed = parsed("smoke", *place, *flags.split(), "--new-settings")
    changed.open()
    assert parsed(*place) == replace(changed, new_settings=False)


@pytest.mark.parametrize(
    "flags",
    [
        ["--prior.train.chunk", "10", "--proxy.train.save-every", "7"],
        ["--methods", "all"],
        ["--track", "tensorboard"],
    ],
)
def test_what_decides_no_number_may_change(tmp_path, flags):
    place = ["--run", str(tmp_path)]
    parsed("smoke", *place).open()
    changed = parsed(*place, *flags)
    changed.open()
    assert parsed(*place) == changed  # the latest are those that the run alone goes on with


def test_more_steps_at_a_constant_rate_are_recorded(tmp_path):
    place = ["--run", str(tmp_path)]
    parsed("smoke", *place, "--prior.train.decay", "constant").open()
    parsed(*place, "--prior.train.steps", "80").open()
    assert parsed(*place).experiment.prior.train.steps == 80


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mine": 1}', "null"])
def test_a_file_of_that_name_that_is_no_runs_is_left_alone(capsys, tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    for first, words in ((["smoke"], "move it away, or name another --run"), ([], "holds no settings of a run")):
        said = run(capsys, "train", *first, "--run", str(tmp_path), code=2)
        assert said.startswith(f"{path}: ") and words in said
    assert path.read_text() == content and [path.name for path in tmp_path.iterdir()] == ["config.json"]


@settings("part")
class Part:
    """Some settings."""

    size: Annotated[int, at_least(1)] = 2
    pair: tuple[float, float] = (1.0, 2.0)
    kind: Literal["a", "b"] = "a"
    place: Path | None = None


@settings("")
class Local:
    """Settings of a run, in a module whose types nothing else checks."""

    part: Part = field(default_factory=Part)
    name: str = "n"


EDITED = [
    ({"size": "x"}, "part.size='x': must be a whole number"),
    ({"size": 0}, "part.size=0: must be at least 1"),
    ({"wings": 2}, "config.json: part.wings is not a setting of this version"),
    ({"pair": 3}, "part.pair=3: must be several values"),
    ({"pair": [1]}, r"part.pair=\(1,\): must be 2 values"),
    ({"kind": "c"}, "part.kind='c': must be one of a, b"),
    ({"place": 3}, "part.place=3: must be a path"),
]


@pytest.mark.parametrize(("changes", "words"), EDITED)
def test_settings_edited_by_hand_are_checked_like_flags(tmp_path, changes, words):
    own = Local(Part(3, (0.5, 4), "b", Path("x")))
    settle(Run(tmp_path), own)
    path = tmp_path / "config.json"
    assert recorded(path, Local) == own
    content = json.loads(path.read_text())
    content["settings"]["part"] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises((ConfigError, RunError), match=words) as error:
        recorded(path, Local)
    assert "\n" not in str(error.value)
    content["settings"]["part"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"config.json: part holds no settings"):
        recorded(path, Local)


def test_a_run_that_another_process_uses_is_refused_by_every_command(capsys, tmp_path):
    holder = {"pid": os.getppid(), "started": lock._started(os.getppid()), **lock._where(), "token": "another"}
    (tmp_path / lock.FILE).write_text(json.dumps(holder))
    for name in ("compare", "train", "train-reward", "make-data", "tune"):
        said = run(capsys, name, "smoke", "--run", str(tmp_path), code=2)
        assert said.startswith(f"{tmp_path}: in use by process {os.getppid()} on ")
    assert [path.name for path in tmp_path.iterdir()] == [lock.FILE]


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


def test_flags_are_read_and_the_last_one_counts():
    read = lambda *arguments: command.parse(Three, arguments, "three", None)
    assert read().steps == 3 and read("--steps", "4", "--steps=5").steps == 5
    assert command.parse(Three, ["--steps", "4"], "three", None, Three(7)).steps == 4
    assert command.value_of("--run", ["--run", "a", "--run=b", "--runs", "c"]) == "b"
    assert command.value_of("--run", ["--plans", "3"]) is None
    assert command.without("--config", ["--config", "a", "x", "--config=b", "--run", "c"]) == ["x", "--run", "c"]


# -- whole commands, as a user starts them --


def shell(*arguments: str, code: int = 0, **environment: str) -> str:
    """`diffplan` in a process of its own."""
    line = [sys.executable, "-c", "from diffplan.cli.main import main; main()", *arguments]
    whole = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    done = subprocess.run(line, env=whole, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert code == 0 or done.stderr.count("\n") == 1
    return done.stdout + done.stderr


@pytest.mark.slow
def test_one_run_through_other_settings_other_types_and_two_processes(tmp_path):
    run = ["--run", str(tmp_path / "run")]
    model = shell("train", "smoke", *run).splitlines()[-1]
    before = {name: content for name, content in tree(tmp_path / "run").items() if name != "config.json"}
    unchanged = lambda: {k: v for k, v in tree(tmp_path / "run").items() if k != "config.json"} == before
    for name, value, words in (
        ("JAX_ENABLE_X64", "1", "float32"),
        ("JAX_DEFAULT_PRNG_IMPL", "rbg", "key<fry>"),
    ):
        said = shell("train", "smoke", *run, code=2, **{name: value})
        assert said.startswith(f"error: {tmp_path}/run/prior: checkpoints/60 is of another kind: ") and words in said
        assert "run as it was made" in said and unchanged()
    for flags in (["--prior.train.chunk", "10"], ["--prior.train.save-every", "30"]):
        assert shell("train", *run, *flags).splitlines()[-1] == model and unchanged()
    assert "steps was 60 and is now 80" in shell("train", *run, "--prior.train.steps", "80", code=2) and unchanged()
    line = [sys.executable, "-c", "from diffplan.cli.main import main; main()", "train", "smoke", "--run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    flags = (["--prior.width", "32"], ["--prior.width", "64"])
    jobs = [
        subprocess.Popen(
            [*line, str(tmp_path / "both"), *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for more in flags
    ]
    said = [job.communicate(timeout=300)[0] for job in jobs]
    codes = [job.returncode for job in jobs]
    assert sorted(codes) == [0, 2], said
    assert re.search("in use by process|width was", said[codes.index(2)])
    width = json.loads((tmp_path / "both" / "prior" / "stage.json").read_text())["settings"]["prior"]["width"]
    assert width == (32, 64)[codes.index(0)]
