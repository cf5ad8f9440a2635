"""Runs on the command line: where they are, what their config.json holds, and how another command goes on with them."""

import ast
import json
import os
import re
import subprocess
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest

from diffplan.cli import command, tune
from diffplan.cli.experiment import begin, default_run, experiment, load
from diffplan.planner.presets import PRESETS
from diffplan.runs import Run, RunError, lock
from diffplan.runs.config import recorded, settle
from diffplan.settings import ConfigError, at_least, settings
from tests.commands import ROOT, parsed, process, refused, run, shell, tree

POINT = ("linear-point", "--preset", "debug")
"""A task that is made at once, every part as small as it gets."""


# -- where a run is --


def test_a_run_has_a_place_of_its_own_name():
    """runs/ and the last part of a name; of a file its stem."""
    places = {
        "maze2d-umaze": "maze2d-umaze",
        "ALE/Pong-v5": "Pong-v5",
        "my.package:Point-v0": "Point-v0",
        "folder/mine.npz": "mine",
        "folder/mine.hdf5": "mine",
        "folder/world.py:task": "world",
        "my.package:task": "task",
    }
    assert {name: str(default_run(name)) for name in places} == {k: f"runs/{v}" for k, v in places.items()}


def test_a_home_is_expanded_wherever_a_path_is_named(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for flag in (["--run=~/x"], ["--run", "~/x"]):
        config = parsed(*POINT, *flag)
        assert config.run == home / "x"
    opened, _ = config.open()
    assert opened.directory == home / "x" and not list(tmp_path.rglob("~*"))
    assert parsed("--run", "~/x").run == parsed("--config=~/x/config.json").run == home / "x"


def test_names_that_look_like_markup_and_relative_paths_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("[/x]", "./b"):
        opened, _ = parsed(*POINT, "--run", name).open()
        assert (Path(name) / "config.json").exists() and opened.directory == Path(name)
    assert {path.name for path in tmp_path.iterdir()} == {"[", "b"} and (tmp_path / "[" / "x]").is_dir()


def test_a_file_where_the_run_should_be_is_left_alone(tmp_path):
    (tmp_path / "run").write_text("mine")
    for place in ("run", "run/deeper"):
        said = refused("train", *POINT, "--run", str(tmp_path / place))
        assert str(tmp_path / "run") in said and "name another directory with --run" in said
    assert (tmp_path / "run").read_text() == "mine"


# -- what commands say of themselves --


def examples() -> list[str]:
    """The command lines on tasks and runs in the docstrings of commands and scripts."""
    lines = []
    for path in (ROOT / "diffplan" / "cli").glob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines += re.findall(r"^    diffplan ((?:compare|tune|train|train-reward|make-data) .*?)(?: +#.*)?$", text, re.M)
    return [line for line in lines if "ogbench" not in line]


@pytest.mark.parametrize("line", examples())
def test_every_example_is_a_command_that_works(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_world.py").write_text("from tests.line_world import LINE as task\n")
    parsed(*POINT, "--run", "runs/mine").open()
    name, *flags = line.replace("TASK", "maze2d-umaze").split()
    if "Pendulum-v1" in flags:
        pytest.importorskip("gymnasium")
    if name == "tune":
        default, rest = begin(flags)
        assert command.parse(type(tune.tuning_of(default)), rest, "diffplan tune", None, tune.tuning_of(default))
    else:
        assert parsed(*flags)


# -- settings of a run --


def test_the_run_alone_is_enough_and_its_file_repeats_it_elsewhere(tmp_path):
    flags = ("--prior.width", "48", "--methods", "guided", "ascent", "--task.noise", "0.3")
    first = parsed(*POINT, "--run", str(tmp_path / "a"), *flags)
    first.open()
    again = parsed("--run", str(tmp_path / "a"))
    assert again == replace(first, new_settings=False)
    other = parsed("--config", str(tmp_path / "a" / "config.json"), "--run", str(tmp_path / "b"))
    assert other == replace(first, run=tmp_path / "b")
    before = tree(tmp_path)
    again.open()
    assert tree(tmp_path) == before


def test_a_task_without_a_preset_goes_on_with_its_run(tmp_path, monkeypatch):
    """A preset begins anew with its settings, which must be those of the run."""
    monkeypatch.chdir(tmp_path)
    first = parsed(*POINT, "--task.noise", "0.3")
    first.open()
    assert first.run == Path("runs/linear-point") and first == parsed("linear-point")
    assert parsed("linear-point", "--run", "elsewhere").preset == "demo"
    assert "task.noise was 0.3 and is now 0.6" in refused("train", *POINT)
    assert refused("train", "gridworld-street", "--run", str(first.run)).startswith(f"{first.run}: experiment.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gridworld-street"], "task='gridworld-street': must be linear-point, as in "),
        (["linear-point", "--preset", "full"], "preset='full': must be left out where --config is given"),
    ],
)
def test_a_file_decides_the_task_and_the_preset(tmp_path, arguments, said):
    parsed(*POINT, "--run", str(tmp_path)).open()
    file = ["--config", str(tmp_path / "config.json")]
    assert parsed("linear-point", *file) == parsed(*file)
    assert refused("train", *arguments, *file).startswith(said)


@pytest.mark.parametrize(
    "flags",
    [
        ["compare", "--help"],
        ["tune", "--help"],
        ["train", "--prior.width", "48"],
    ],
)
def test_the_commands_take_a_run_alone(tmp_path, flags):
    """Help shows the settings that the run was made with, and the flags of its task."""
    parsed(*POINT, "--run", str(tmp_path), "--task.noise", "0.3125").open()
    name, *rest = flags
    if "--help" in rest:
        said = run(name, "--run", str(tmp_path), *rest)
        assert "--task.noise" in said and "0.3125" in said
    else:
        assert "planner.prior.width was 16 and is now 48" in refused(name, "--run", str(tmp_path), *rest)


@pytest.mark.parametrize("task", ["linear-point", "maze2d-medium", "gridworld-street", "tests.line_world:LINE"])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_recorded_is_read_back(tmp_path, task, preset):
    """As JSON knows neither tuples nor paths nor optional parts."""
    config = experiment(task, preset, tmp_path)
    config.open()
    assert recorded(tmp_path / "config.json", type(config)) == config == load(tmp_path / "config.json")
    settle(Run(tmp_path), load(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--prior.width 48", "planner.prior.width was 16 and is now 48; --new-settings"),
        ("--task.noise 0.1 --task.steps 30", "task.noise was 0.6 and is now 0.1; --new-settings"),
        ("--prior.train.steps 80", r"planner.prior.train.steps was 60 and is now 80 \(.*decays.*\); --new-settings"),
    ],
)
def test_changed_settings_are_named_and_need_a_word(tmp_path, flags, words):
    place = ["--run", str(tmp_path / "run")]
    parsed(*POINT, *place).open()
    before = tree(tmp_path)
    for start in (POINT, ()):
        assert re.match(rf"{tmp_path}/run: {words}", refused("train", *start, *place, *flags.split()))
    assert tree(tmp_path) == before
    changed = parsed(*POINT, *place, *flags.split(), "--new-settings")
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
    parsed(*POINT, *place).open()
    changed = parsed(*place, *flags)
    changed.open()
    assert parsed(*place) == changed  # the latest are those that the run alone goes on with


def test_more_steps_at_a_constant_rate_are_recorded(tmp_path):
    place = ["--run", str(tmp_path)]
    parsed(*POINT, *place, "--prior.train.decay", "constant").open()
    parsed(*place, "--prior.train.steps", "80").open()
    assert parsed(*place).planner.prior.train.steps == 80


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mine": 1}', "null", '{"settings": {"name": 3}}'])
def test_a_file_of_that_name_that_is_no_runs_is_left_alone(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    for first in ((), ("linear-point",), POINT):
        said = refused("train", *first, "--run", str(tmp_path))
        assert said == f"{path}: holds no settings of a run; move it away, or name another --run"
    assert path.read_text() == content and [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert refused("train", "--config", str(tmp_path / "no.json")) == f"{tmp_path}/no.json: no such file"


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


def test_a_run_that_another_process_uses_is_refused_by_every_command(tmp_path):
    holder = {"pid": os.getppid(), "started": lock._started(os.getppid()), **lock._where(), "token": "another"}
    (tmp_path / lock.FILE).write_text(json.dumps(holder))
    for name in ("compare", "train", "train-reward", "make-data", "tune"):
        said = refused(name, *POINT, "--run", str(tmp_path))
        assert said.startswith(f"{tmp_path}: in use by process {os.getppid()} on ")
    assert [path.name for path in tmp_path.iterdir()] == [lock.FILE]


# -- whole commands, as a user starts them --


@pytest.mark.slow
def test_one_run_through_other_settings_other_types_and_two_processes(tmp_path):
    place = ["--run", str(tmp_path / "run")]
    model = shell("train", *POINT, *place).splitlines()[-1]
    before = {name: content for name, content in tree(tmp_path / "run").items() if name != "config.json"}
    unchanged = lambda: {k: v for k, v in tree(tmp_path / "run").items() if k != "config.json"} == before
    for name, value, words in (
        ("JAX_ENABLE_X64", "1", "float32"),
        ("JAX_DEFAULT_PRNG_IMPL", "rbg", "key<fry>"),
    ):
        said = shell("train", *POINT, *place, code=2, **{name: value})
        assert f"error: {tmp_path}/run/prior: checkpoints/60 is of another kind: " in said and words in said
        assert "run as it was made" in said and unchanged()
    for flags in (["--prior.train.chunk", "10"], ["--prior.train.save-every", "30"]):
        assert shell("train", *place, *flags).splitlines()[-1] == model and unchanged()
    assert "steps was 60 and is now 80" in shell("train", *place, "--prior.train.steps", "80", code=2) and unchanged()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = ["--run", str(tmp_path / "both"), "--prior.width"]
    jobs = [subprocess.Popen(**process("train", *POINT, *both, width), **streams) for width in ("32", "64")]
    said = [job.communicate(timeout=300)[0] for job in jobs]
    codes = [job.returncode for job in jobs]
    assert sorted(codes) == [0, 2], said
    assert re.search("in use by process|width was", said[codes.index(2)])
    width = json.loads((tmp_path / "both" / "prior" / "stage.json").read_text())["settings"]["prior"]["width"]
    assert width == (32, 64)[codes.index(0)]


def test_a_run_of_an_earlier_version_lacks_what_came_later(tmp_path):
    """A part and a field that it never recorded contradict nothing; what it did record still does."""
    settle(Run(tmp_path), Local(Part(3, (0.5, 4), "b", Path("x"))))
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for kept in (content["settings"], content["decided"]):
        del kept["name"], kept["part"]["kind"]
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"part.size was 3 and is now 4; --new-settings"):
        settle(Run(tmp_path), Local(Part(4, (0.5, 4), "a", Path("x")), "m"))
    settle(Run(tmp_path), Local(Part(3, (0.5, 4), "a", Path("x")), "m"))
    assert recorded(path, Local) == Local(Part(3, (0.5, 4), "a", Path("x")), "m")
