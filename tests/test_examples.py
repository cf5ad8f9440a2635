"""The examples of README and docs run as they stand, in the way that the text says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diffplan as dp
from tests.test_readme import EXAMPLES, README, ROOT


def printed(code: str, folder: Path) -> str:
    """What a file of this code prints in a folder, without a word on stderr."""
    (folder / "example.py").write_text(code)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "example.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def numbers_of(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", text)]


@pytest.mark.parametrize("name", ["world", "data", "guide", "parts", "method", "network"])
def test_examples_run_as_they_stand(name: str, tmp_path: Path) -> None:
    said = printed(EXAMPLES[name], tmp_path)
    numbers = numbers_of(said)
    match name:
        case "world" | "data" | "network":
            assert said == ""
        case "guide":
            scale, end = np.reshape(numbers, (-1, 2)).T
            assert scale.tolist() == [0, 1, 3] and (np.diff(end) < -0.1).all()
        case "parts":
            scale, position, std, nats = np.reshape(numbers, (-1, 4)).T
            assert (np.diff(position) > 0).all() and (np.diff(nats) > 0).all() and (np.diff(std) < 0).all()
            assert (scale[0], nats[0]) == (0, 0) and abs(position[-1] - 2) < 0.1
        case "method":
            # scores are N(0, 3), so the tilt at strength w has mean 3 w; 64 candidates fall short of it
            assert said.startswith("True")
            assert abs(numbers[0]) < 0.3 and 1.5 < numbers[1] < 3.3 and numbers[2] > numbers[1]


def test_ten_lines_of_a_planner_that_ships_promise_more_than_they_deliver(tmp_path: Path) -> None:
    """The example of the README, with the planner that ships in place of one that trains for minutes."""
    code, times = re.subn(r"Planner\.fit\(.*?\)", 'Planner.pretrained("maze2d-umaze")', EXAMPLES["planner"])
    said = printed(code, tmp_path)
    promised, delivered = np.reshape(numbers_of(said), (3, -1))[:, :2].T
    fractions = [int(n) for n in re.findall(r"feasible (\d+)%", said)]
    assert times == 1 and promised[1] > promised[0] + 3 and fractions[0] > 90 and len(fractions) == 3
    assert delivered[2] < promised[2]


@pytest.mark.slow
def test_ten_lines_read_back_what_is_there(tmp_path: Path) -> None:
    """The example as it stands, in a folder where its run was made before, with networks of a few steps."""
    dp.Planner.fit(dp.make_task("maze2d-umaze"), run=tmp_path / "runs" / "umaze", preset="debug")
    assert len(re.findall(r"promised -?\d+\.\d, delivered \d+\.\d", printed(EXAMPLES["planner"], tmp_path))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "world"])
def test_a_task_of_ones_own_is_fitted(name: str, tmp_path: Path) -> None:
    """Both as the README makes them: a planner learns them, and promises."""
    code = (
        EXAMPLES[name]
        + """
import numpy as np
planner = dp.Planner.fit(task, preset="debug")
plans = planner.plan(jax.random.key(0), np.zeros(task.observation_dim), scale=1.0, n=4)
print(plans.observations.shape[2], float(plans.promised.mean()))
"""
    )
    said = printed("import jax\n" + code, tmp_path).splitlines()[-1].split()
    assert int(said[0]) == {"data": 1, "world": 2}[name] and np.isfinite(float(said[1]))


@pytest.mark.slow
def test_a_network_of_ones_own_trains_as_the_text_says(tmp_path: Path) -> None:
    """The command of the text, for a few steps: the loss falls below that of the zeros that it starts from."""
    (tmp_path / "my_network.py").write_text(EXAMPLES["network"])
    line = re.search(r"`diffplan (train maze2d-umaze --prior\.network my_network\.py:dense)`", README)
    assert line
    few = "--preset debug --prior.train.steps 1500 --prior.train.chunk 100 --prior.passes 1000 --run runs/own"
    command = [sys.executable, "-m", "diffplan", *line[1].split(), *few.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loss = [json.loads(row)["loss"] for row in (tmp_path / "runs/own/prior/metrics.jsonl").read_text().splitlines()]
    assert loss[-1] < 0.9 * loss[0]
