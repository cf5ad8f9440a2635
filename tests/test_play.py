"""Episodes by the command, in three families of tasks and in a foreign environment; what the machine is."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffplan.cli import doctor
from diffplan.cli.command import EXTRAS
from diffplan.cli.play import in_words
from diffplan.runs.files import read_json
from tests.small import command, refused

SPRING = f"{Path(__file__).parent / 'worlds' / 'spring.py'}:task"


@pytest.mark.parametrize("task", ["linear-point", "pendulum", "gridworld-street", SPRING])
def test_episodes_are_played_beside_unguided_ones_and_filmed(tmp_path, capsys, task):
    run = tmp_path / "run"
    command("play", task, "--run", str(run), "--episodes", "3", "--steps", "5", "--scale", "2", "--every", "2")
    said = capsys.readouterr().out
    assert "agent: 3 episodes, return " in said and "unguided: 3 episodes, return " in said
    results = read_json(run / "play.json")["results"]
    assert {len(rows["returns"]) for rows in results.values()} == {3} and results.keys() == {"agent", "unguided"}
    with Image.open(run / "play.gif") as film:
        assert film.n_frames > 5 and film.format == "GIF"


def test_a_foreign_environment_is_played_in(tmp_path, capsys):
    """The task's own world under gymnasium's id: the agent is given the world's goal, and counts moves."""
    world = ("--world", "diffplan/Gridworld-street-v0", "--episodes", "2", "--steps", "4")
    command("play", "gridworld-street", "--run", str(tmp_path), *world, "--no-film")
    assert "agent: 2 episodes" in capsys.readouterr().out and not (tmp_path / "play.gif").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--world", "Nowhere-v0"), "world='Nowhere-v0': cannot be made: "),
        (("--pretrained",), "pretrained='linear-point': must be one of"),
        (("--way", "tracked"), "way='tracked': must be inverse or open_loop: task linear-point has no tracker"),
    ],
)
def test_what_cannot_be_played_is_named(tmp_path, capsys, flags, words):
    assert words in refused(capsys, "play", "linear-point", "--run", str(tmp_path), *flags)


def test_the_interval_is_students():
    """Of 1, 2, 3: the mean 2, and 4.303 (t of two degrees of freedom) / sqrt 3."""
    assert in_words(np.array([1.0, 2.0, 3.0]), "steps") == "3 episodes, return 2.00 ± 2.48 at 95 % (steps)"


def test_the_doctor_says_what_there_is(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "median_seconds", lambda call, x, budget: 1e-3)  # times belong into benchmarks
    monkeypatch.setitem(EXTRAS, "none", ("no_such_module",))
    doctor.main([])
    said = capsys.readouterr().out
    for word in ("machine", "python", "jax ", "flax", "cpu", "matmul", "dispatch", "GB free"):
        assert word in said
    assert "pip install 'diffplan[none]' (no_such_module missing)" in said and re.search(r"\[gym\] +installed", said)
