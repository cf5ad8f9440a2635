"""Worlds of a user's own, from files and packages, through the commands: rows, columns, words, and what is refused."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import diffplan as dp
from diffplan.data import readers
from diffplan.experiment.compare import compare
from diffplan.runs import Run
from tests import small
from tests.small import numbers

WORLDS = Path(__file__).parent / "worlds"
SPRING = f"{WORLDS / 'spring.py'}:task"
CONTROLS = {"behaviour", "null_noise", "null_shuffled"}


# -- the spring, as its file stands --


@pytest.fixture(scope="module")
def spring(tmp_path_factory) -> Path:
    """A run of `compare`."""
    run = tmp_path_factory.mktemp("spring")
    small.command("compare", SPRING, "--run", str(run), "--replans", "2")
    return run


def test_a_world_of_ones_own_is_compared(spring):
    rows = small.results(spring)
    methods = {row["method"] for row in rows}
    assert methods == {"prior", "guided"} | CONTROLS and {row["task"] for row in rows} == {"spring"}
    for column in ("proxy", "promised", "open_loop", "inverse", "delivered", "feasible", "violations.residual"):
        assert np.isfinite(numbers(rows, column)).all(), column
    assert np.isnan(numbers(rows, "tracked")).all()  # the spring has no tracking controller
    for column in ("promised", "delivered"):
        assert (numbers(rows, column) >= 0).all() and (numbers(rows, column) <= 8).all()
    guided = [row for row in rows if row["method"] == "guided" and row["replanned"]]
    assert len(guided) == 2  # at the best strength, for both seeds
    for row in rows:
        by = {"behaviour": "promised"}.get(row["method"], "inverse")
        assert float(row["delivered"]) == pytest.approx(float(row[by]), rel=1e-5)


def test_behaviour_repeats_itself(spring):
    """Windows of data deliver by their own actions what they earn; the residual of data is 0."""
    rows = [row for row in small.results(spring) if row["method"] == "behaviour"]
    np.testing.assert_allclose(numbers(rows, "open_loop"), numbers(rows, "promised"), rtol=1e-4, atol=1e-4)
    assert (numbers(rows, "feasible") == 1).all() and numbers(rows, "residual").max() < 1e-5


def test_its_files_and_words(spring):
    names = {path.name for path in spring.iterdir()}
    assert {"results.csv", "config.json", "data.npz", "plans.npz", "data", "prior", "inverse", "methods"} <= names
    assert {"summary.csv", "frontier.png", "frontier.pdf", "report.html"} <= names
    config = small.config(spring)
    words = config["task"]
    assert words["name"] == "spring" and words["observations"] == ["observation 0", "observation 1"]
    assert words["actions"] == ["action 0"] and words["ways"] == ["open_loop", "inverse"] and words["place"] is None
    assert set(words["violations"]) == {"jumps", "residual", "bounds"} and words["return"] and words["step"] == "steps"
    said = " ".join(config["left_out"])
    assert "tracked: the task has no tracking controller" in said and "bound: the task does not know" in said
    assert set(config["reward_models"]) == {"regression"}
    assert set(config["methods"]) == {"prior", "guided", "bound"} | CONTROLS
    with np.load(spring / "plans.npz") as plans:
        assert plans["guided.positions"].shape[-2:] == (8, 2) and plans["entries"].tolist() == [0, 1]


def test_it_is_tuned_on_the_same_models(spring):
    before = {path: path.stat().st_mtime_ns for path in spring.glob("*/stage.json")}
    small.command("tune", SPRING, "--run", str(spring), "--replans", "2", "--points", "3", "--repeats", "2")
    scale = json.loads((spring / "scale.json").read_text())
    assert scale["method"] == "guided" and scale["objective"] == "delivered"
    assert {path: path.stat().st_mtime_ns for path in before} == before


# -- other forms of a name --

WORLD = """
import dataclasses
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from spring import Spring, behaviour
import diffplan as dp
from diffplan.settings import settings


@settings("task")
class Settings:
    '''How stiff, and how long.'''
    episodes: int = 30
    '''Episodes.'''
    steps: int = 40
    '''Steps.'''


def make(config: Settings = Settings()):
    return dp.Task.of(Spring(config.steps), behaviour, config.episodes, name="made")


def plain():
    return make()


task = make()
nothing = 3
wrong = lambda: 3
fails = lambda: 1 / 0
"""


@pytest.fixture
def world(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file with a task, functions that make tasks, and things that are none; also a module of a package."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "world.py").write_text(WORLD.format(folder=str(WORLDS)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield package / "world.py"
    for name in [name for name in sys.modules if name in ("spring", "mine", "mine.world")]:
        del sys.modules[name]


def test_a_function_a_function_with_settings_and_a_module(world):
    for name, count in ((f"{world}:task", 30), (f"{world}:plain", 30), (f"{world}:make", 30), ("mine.world:task", 30)):
        task = dp.make_task(name)
        assert task.name == "made" and task.episodes().lengths.tolist() == [40] * count
    assert dp.make_task(f"{world}:make", episodes=5).episodes().count == 5


def test_settings_of_ones_own_are_flags(world, tmp_path, capsys):
    run = tmp_path / "run"
    small.command("make-data", f"{world}:make", "--run", str(run), "--task.episodes", "7")
    assert "7 episodes of 40 to 40 steps" in capsys.readouterr().out
    said = small.refused(capsys, "make-data", f"{world}:make", "--run", str(run), "--task.colour", "7")
    assert said.startswith("--task.colour 7: unknown")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "is of type int: must be a Task or a function of one"),
        ("wrong", "makes a value of type int: must make a Task"),
        ("fails", "failed: ZeroDivisionError: division by zero"),
        ("absent", "has no absent; it has"),
    ],
)
def test_what_is_no_task_is_refused(world, name, words, tmp_path, capsys):
    said = small.refused(capsys, "compare", f"{world}:{name}", "--run", str(tmp_path / "run"))
    assert said.startswith(f"task='{world}:{name}'") and words in said
    assert not (tmp_path / "run").exists()


BAD = {
    "no step": ("del Bad.step", "the environment has no step; it must have observation_dim, "),
    "no observe": ("del Bad.observe", "the environment has no observe"),
    "unhashable": ("Bad.__hash__ = None", "the environment must be hashable, as a frozen dataclass is"),
    "no limit": ("Bad.max_steps = None", "steps=None: must be a whole number of at least 2"),
    "observe": ("Bad.observe = lambda self, state: state[0][:1]", "observe has shape [1]: must be [2]"),
    "behaviour": ("behaviour = lambda key, o, t: o", "behaviour has shape [2]: must be [1]"),
    "reward": ("Bad.reward = lambda self, o, a: a", "the reward of step has shape [1]: must be []"),
    "bounds": ("Bad.action_low = -1.0", "action_low has shape []: must be [1]"),
    "state": (
        "Bad.state_of = lambda self, o: (o.astype(jnp.float16), jnp.int32(0))",
        "state_of makes (ShapeDtypeStruct",
    ),
    "anything": ("1 / 0", "cannot load"),
    "syntax": ("def", "cannot load"),
    "missing": ("import no_such_module", "No module named 'no_such_module'"),
    "field": ("more = {'colour': 3}", "colour"),
    "episodes": ("more = {'episodes': 1}", "episodes=1: must be at least 2"),
}

BROKEN = """
import sys
sys.path.insert(0, {folder!r})
from dataclasses import dataclass
from spring import Spring, behaviour
import diffplan as dp
import jax.numpy as jnp


class Bad:
    pass


for name in ("step", "observe", "reset", "state_of", "reward", "residual", "move"):
    setattr(Bad, name, getattr(Spring, name))
for name in ("observation_dim", "observation_low", "observation_high", "action_dim", "action_low", "action_high"):
    setattr(Bad, name, getattr(Spring, name))
Bad.max_steps, more = 20, {{"episodes": 4}}
{change}
task = dp.Task.of(Bad(), behaviour, name="bad", **more)
"""


@pytest.mark.parametrize("case", BAD)
def test_a_broken_world_is_refused_in_one_line(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    change, words = BAD[case]
    file = tmp_path / "bad.py"
    file.write_text(BROKEN.format(folder=str(WORLDS), change=change))
    said = small.refused(capsys, "compare", f"{file}:task", "--run", str(tmp_path / "run"))
    assert words in said and "bad.py" in said
    assert not (tmp_path / "run").exists()
    sys.modules.pop("spring", None)


def test_a_world_of_numbers_that_are_none_is_refused_when_it_is_simulated(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    change = "Bad.observe = lambda self, state: jnp.where(state[1] == 7, jnp.nan, state[0])"
    (tmp_path / "bad.py").write_text(BROKEN.format(folder=str(WORLDS), change=change))
    said = small.refused(capsys, "compare", f"{tmp_path / 'bad.py'}:task", "--run", str(tmp_path / "run"))
    assert said.startswith("bad: episodes: observations are not finite, first at episode 0, row 7")
    assert not (tmp_path / "run" / "prior").exists()
    sys.modules.pop("spring", None)


# -- arrays --


def arrays() -> dp.Task:
    """The task of ``arrays.py``, as the file makes it before it asks for a planner."""
    source = (WORLDS / "arrays.py").read_text()
    before, planner, _ = source.partition("planner = ")
    assert planner
    names: dict = {}
    exec(compile(before, "arrays.py", "exec"), names)
    return names["task"]


def test_arrays_are_a_task_without_a_simulator():
    task = arrays()
    data = task.episodes()
    assert task.name == "walks" and task.simulator is None and task.reward is None and not task.discrete
    assert data.count == 300 and data.lengths.min() >= 60 and data.lengths.max() < 200
    assert data.rewards is not None
    np.testing.assert_allclose(data.rewards, -np.abs(data.observations[:, 0] - 1), atol=1e-5)
    first = data.actions[data.begins]
    np.testing.assert_allclose(data.observations[data.begins], first, atol=1e-6)  # a walk begins with its first step


def test_arrays_are_compared_by_what_they_promise(tmp_path):
    run = Run(tmp_path)
    compare(run, arrays(), small.smaller(), small.fewest(methods=("prior",)))
    rows = small.results(tmp_path)
    assert np.isfinite(numbers(rows, "promised")).all() and np.isnan(numbers(rows, "delivered")).sum() >= len(rows) - 2
    assert not (tmp_path / "inverse").exists() and (tmp_path / "reward" / "rows").exists()


# -- data files --


def write(path: Path, rewards: bool) -> Path:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 2)).astype(np.float32).cumsum(axis=0) * np.float32(0.1)
    ends = np.zeros(600, bool)
    ends[[99, 199, 350, 480, 599]] = True
    fields = {"observations": rows, "actions": rng.normal(size=(600, 1)).astype(np.float32), "terminals": ends}
    fields |= {"rewards": rows[:, 0]} if rewards else {}
    np.savez(path, **fields)  # pyright: ignore
    assert (readers.read(path)[0].rewards is not None) == rewards
    return path


def test_a_file_with_rewards_promises_and_delivers_nothing(tmp_path):
    run = tmp_path / "run"
    small.command("compare", str(write(tmp_path / "mine.npz", True)), "--run", str(run))
    rows, config = small.results(run), small.config(run)
    planned = [row for row in rows if row["method"] != "behaviour"]
    assert {row["method"] for row in planned} == {"prior", "guided", "null_noise", "null_shuffled"}
    assert np.isfinite(numbers(rows, "promised")).all() and np.isfinite(numbers(planned, "proxy")).all()
    for column in ("delivered", "open_loop", "inverse", "tracked", "replanned"):
        assert np.isnan(numbers(planned, column)).all(), column
    said = " | ".join(config["left_out"])
    assert "promised: estimated by a reward of single rows" in said and "delivered" in said and "no simulator" in said
    assert config["task"]["name"] == "mine" and config["task"]["ways"] == []
    assert set(config["task"]["violations"]) == {"jumps"}


def test_a_file_without_rewards_has_a_prior_and_no_more(tmp_path, capsys):
    run, file = tmp_path / "run", write(tmp_path / "bare.npz", False)
    said = small.refused(capsys, "compare", str(file), "--run", str(run), "--methods", "guided")
    assert said.startswith("methods='guided': cannot run on bare: needs regression")
    said = small.refused(capsys, "tune", str(file), "--run", str(run), "--methods", "guided")
    assert "cannot be tuned" in said and "no reward" in said
    small.command("compare", str(file), "--run", str(run), "--methods", "prior")
    rows, config = small.results(run), small.config(run)
    assert {row["method"] for row in rows} == {"prior", "behaviour"}
    for column in ("proxy", "promised", "delivered"):
        assert np.isnan(numbers(rows, column)).all()
    assert np.isfinite(numbers(rows, "data_distance")).all() and np.isfinite(numbers(rows, "feasible")).all()
    assert "proxy, promised: the task has no reward, and its data record none" in config["left_out"]
    assert config["reward_models"] == {} and not (run / "reward").exists()
