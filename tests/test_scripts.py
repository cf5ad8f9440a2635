"""The commands, as a user runs them: a whole run from nothing, again, and killed; and the commands of its stages."""

import ast
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffplan.cli.main import COMMANDS
from diffplan.experiment.presets import PRESETS
from diffplan.methods import chosen
from diffplan.metrics import table as tables
from diffplan.metrics.table import read_rows
from diffplan.runs.files import read_json
from diffplan.tasks.linear import Riccati, environment
from tests.commands import ROOT, parsed, process, run

METHODS = ("prior", "guided", "best_of_n", "ascent_clean")
NULLS = ("null_noise", "null_shuffled")
SETTINGS = ("linear-point", "--preset", "debug", "--methods", *METHODS)
STRENGTHS = PRESETS["debug"].strengths


def line_of(*arguments: str) -> dict:
    """How subprocess starts scripts/compare.py."""
    started = process(*SETTINGS, *arguments)
    args = [sys.executable, str(ROOT / "scripts" / "compare.py"), *SETTINGS, *arguments]
    return started | {"args": args, "cwd": ROOT}


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/compare.py in a process of its own."""
    done = subprocess.run(**line_of(*arguments), capture_output=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that nothing disturbs: (its directory, what it said)."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, compare("--run", str(folder))


def rows(folder: Path) -> list[dict[str, str]]:
    return read_rows(folder / "results.csv")


# -- what a run leaves --


def test_a_run_makes_everything_it_promises(whole):
    folder, done = whole
    for name in ("results.csv", "config.json", "data.npz", "plans.npz"):
        assert (folder / name).stat().st_size > 0
    for path in re.findall(rf"^{folder}/[\w.]+$", done.stdout, re.M):
        assert Path(path).stat().st_size > 0
    assert f"{folder}/results.csv" in done.stdout
    assert not [*folder.rglob("*.part"), *folder.rglob("*.old-*")] and not (folder / "lock.json").exists()
    assert done.stderr == ""  # no warnings of any library
    stages = ("prior", "inverse", "reward/regression", "reward/shuffled/regression", "reward/clean")
    for stage in (*stages, "methods/ascent_clean"):
        assert re.search(rf"{stage}: \d+/\d+ .*/s  done in", done.stdout), stage
    for name in ("classifier", "conservative"):  # what no method needs
        assert not (folder / "reward" / name).exists()
    for setting in ("prior.horizon", "prior.stride", "noise.low", "noise.high"):
        assert re.search(rf"^{setting}: \S", done.stdout, re.M)


def test_the_table_holds_every_method_strength_and_seed(whole):
    table = rows(whole[0])
    entries = chosen(STRENGTHS, METHODS)
    assert {entry.name for entry in entries} == {*METHODS, *NULLS}
    assert {row["method"] for row in table} == {*METHODS, *NULLS, "behaviour", "bound"}
    for method in (entry.method for entry in entries):
        mine = [row for row in table if row["method"] == method.name]
        strengths = {float(row["strength"]) for row in mine}
        assert strengths >= set(method.strengths) and len(mine) == 2 * len(strengths)
        refined = 0 if method.shared or method.name == "prior" else 2 * STRENGTHS.refine
        added = len(strengths) - len(method.strengths)
        assert added <= refined and (added > 0) == (refined > 0)


def test_every_row_has_what_is_known_of_it(whole):
    """Promised and delivered by everything; a path KL of what walks a noisy chain; no tracker in this world."""
    missing = {"tracked", "ess", "replanned", "path_kl", "exact_kl", "pressure", "residual"}
    for row in rows(whole[0]):
        if row["method"] in ("behaviour", "bound"):
            continue
        assert (row["converged"] != "") == (row["finer_promised"] != "") == (row["path_kl"] != "")
        measured = {
            name: value for name, value in row.items() if name not in {*missing, *tables.OPTIONAL, "task", "method"}
        }
        assert all(np.isfinite(float(value)) for value in measured.values()) and row["finite"] == "1", row
        assert row["task"] == "linear-point" and row["tracked"] == row["ess"] == ""
        assert row["delivered"] == row["inverse"] and row["violations.residual"] and row["violations.bounds"]
        assert (row["path_kl"] != "") == row["method"].startswith(("guided", "prior", "null"))


def test_the_weakest_strength_is_the_prior(whole):
    """Plan by plan of guidance; in what it costs of the best of one."""
    table = rows(whole[0])
    prior = {row["seed"]: row for row in table if row["method"] == "prior"}
    weakest = [row for row in table if float(row["strength"]) == 0 and row["method"].startswith(("guided", "null"))]
    assert len(weakest) == 3 * 2
    for row in weakest:
        for name in ("promised", "open_loop", "inverse", "data_distance", "diversity"):
            assert float(row[name]) == pytest.approx(float(prior[row["seed"]][name]), rel=1e-3)
    for row in table:
        if row["method"] == "best_of_n" and float(row["strength"]) == 1:
            assert row["network_evals"] == prior[row["seed"]]["network_evals"] and row["exact_kl"] == "0"


def test_plans_are_made_anew_at_the_best_strength_of_every_method(whole):
    table = rows(whole[0])
    numbers = lambda row: {name: float(value or "nan") for name, value in row.items() if name not in ("task", "method")}
    for name in METHODS:
        mine = [numbers(row) for row in table if row["method"] == name]
        best = tables.best_strength(mine)
        assert all(np.isfinite(row["replanned"]) == (row["strength"] == best) for row in mine)
    assert not any(row["replanned"] for row in table if row["method"] not in METHODS)


def test_behaviour_and_the_optimum_stand_beside_the_methods(whole):
    """Behaviour delivers what it earned, by its own actions from its own starts; the optimum is Riccati's."""
    folder, _ = whole
    table = rows(folder)
    behaviour, bound = ([row for row in table if row["method"] == name] for name in ("behaviour", "bound"))
    assert [row["seed"] for row in behaviour] == [row["seed"] for row in bound] == ["0", "1"]
    for row, most in zip(behaviour, bound, strict=True):
        assert float(row["open_loop"]) == pytest.approx(float(row["delivered"]), rel=3e-2)  # mean actions are held
        assert float(row["promised"]) == float(row["delivered"]) < float(most["delivered"]) and row["feasible"] == "1"
    with np.load(folder / "plans.npz") as plans, np.load(folder / "data" / "rows.npz") as data:
        starts = plans["starts"]
        at = [np.abs(data["observations"] - start[None]).max(axis=1).argmin() for start in starts]
        np.testing.assert_allclose(data["observations"][at], starts, atol=1e-6)  # they are places of behaviour
    exact = Riccati(environment(parsed(*SETTINGS).make().settings))
    count, apart = (int(re.search(rf"prior.{name}: (\d+)", whole[1].stdout)[1]) for name in ("horizon", "stride"))
    mean = np.mean([exact(start, count * apart) for start in starts])
    assert float(bound[0]["delivered"]) == pytest.approx(mean, rel=1e-4)


def test_the_file_of_a_run_says_what_it_is_and_what_is_not_known(whole):
    content = read_json(whole[0] / "config.json")
    assert content["task"]["name"] == "linear-point" and content["task"]["ways"] == ["open_loop", "inverse"]
    assert set(content["methods"]) == {*METHODS, *NULLS, "behaviour", "bound"}
    assert content["methods"]["guided"] == {
        "strength_name": "guidance scale",
        "family": "guidance",
        "delivered_by": "inverse",
    }
    assert content["left_out"] == ["tracked: the task has no tracking controller"]
    assert set(content["reward_models"]) == {"regression", "clean"}
    assert list(content["data_quantiles"]["promised"]) == ["0.5", "0.9", "0.99", "1"]
    assert {"prior.horizon", "prior.stride", "noise.low", "noise.high"} <= set(content["derived"])


# -- again, damaged, killed --


@pytest.mark.slow
def test_a_second_run_reuses_everything(whole):
    folder, _ = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = compare("--run", str(folder))
    assert "done in" not in done.stdout and "again" not in done.stdout and done.stderr == ""
    for path, content in before.items():
        if path.suffix in (".csv", ".json", ".jsonl", ".npz") or "checkpoints" in path.parts:
            assert path.read_bytes() == content, path
    assert not list(folder.rglob("*.old-*"))


def flip(path: Path) -> bytes:
    """One bit, in the middle of a file; returns what it holds now."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return bytes(content)


def test_data_that_were_altered_are_refused_and_left_alone(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0] / "data", folder / "data")
    file = folder / "data" / "rows.npz"
    content = flip(file)
    said = run("make-data", *SETTINGS, "--run", str(folder), code=2)
    assert f"{folder}/data: rows.npz has changed since it was made" in said
    assert file.read_bytes() == content


def killed(*arguments: str, when: Path, log: Path) -> str:
    """Start scripts/compare.py, and kill -9 it as soon as a path exists; returns what it had said until then."""
    with log.open("w") as file:
        job = subprocess.Popen(**line_of(*arguments), stdout=file, stderr=file)
        end = time.monotonic() + 300
        while not when.exists() and job.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, log.read_text()
    return log.read_text()


def without_cost(table) -> list[dict[str, str]]:
    """Without the seconds that training took."""
    return [{name: value for name, value in row.items() if name != "pretrain_seconds"} for row in table]


def without_seconds(table) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in without_cost(table)]


@pytest.mark.slow
def test_damage_and_kills_change_no_number(whole, tmp_path):
    """One story, to save time: a checkpoint is damaged and stages are lost; kill -9 in training, then in a method."""
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    newest = folder / "prior" / "checkpoints" / "60"
    flip(max((newest / "state").rglob("*"), key=lambda path: path.stat().st_size * path.is_file()))
    for name in ("reward/clean", "methods/ascent_clean", "methods/null_noise"):
        shutil.rmtree(folder / name)
    for name in ("results.csv", "plans.npz", "data.npz"):
        (folder / name).unlink()
    arguments = ("--run", str(folder))

    said = killed(*arguments, when=folder / "reward" / "clean" / "checkpoints" / "20", log=tmp_path / "1.log")
    assert f"{newest}: damaged, left there and passed over" in said
    assert f"{folder}/prior: 60/60" in said and f"{folder}/reward/regression:" not in said

    said = killed(*arguments, when=folder / "methods" / "ascent_clean" / "stage.json", log=tmp_path / "2.log")
    assert "damaged" not in said and "data:" not in said and "/prior:" not in said
    assert not (folder / "results.csv").exists()

    done = compare(*arguments)
    assert "/reward/" not in done.stdout and "methods/guided" not in done.stdout
    assert "methods/ascent_clean:" in done.stdout and "methods/null_noise:" in done.stdout
    assert without_seconds(rows(folder)) == without_seconds(rows(whole[0]))
    again = ("ascent_clean", "null_noise")
    kept = [row for row in rows(folder) if row["method"] not in again]
    assert without_cost(kept) == without_cost(row for row in rows(whole[0]) if row["method"] not in again)
    for name in ("plans.npz", "data.npz"):
        with np.load(folder / name) as ours, np.load(whole[0] / name) as theirs:
            assert ours.files == theirs.files
            for field in ours.files:
                np.testing.assert_array_equal(ours[field], theirs[field])
    assert not list(folder.rglob("*.old-*"))


# -- the stages by themselves --


def test_make_data_makes_the_same_data(whole, tmp_path):
    said = run("make-data", *SETTINGS, "--run", str(tmp_path / "run"))
    for name in ("rows.npz", "rows.json", "stage.json"):
        assert (tmp_path / "run" / "data" / name).read_bytes() == (whole[0] / "data" / name).read_bytes()
    with np.load(whole[0] / "data" / "rows.npz") as data:
        assert all(f"{name:<13}{list(data[name].shape)}" in said for name in ("observations", "actions"))


def test_make_data_makes_files_that_ogbench_loads_by_name(tmp_path):
    ogbench = pytest.importorskip("ogbench")
    arguments = ("--maze", "large", "--kind", "stitch", "--episodes", "12", "--steps", "5", "--folder", str(tmp_path))
    said = run("make-data", "ogbench", *arguments)
    name = "pointmaze-large-stitch-v0"
    training, validation = ogbench.make_env_and_datasets(name, dataset_dir=str(tmp_path), dataset_only=True)
    assert len(training["actions"]) == 12 * 4 and len(validation["actions"]) == 4
    for line in (str(tmp_path / f"{name}.npz"), str(tmp_path / f"{name}-val.npz"), "large-stitch-v0 ", "touching"):
        assert line in said
    assert run("make-data", "ogbench", "--steps", "1", code=2).startswith("steps=1: must be")


def test_the_commands_of_stages_read_back_what_compare_trained(whole, tmp_path):
    """And the classifier, which compare did not need, is all that train-reward trains."""
    folder = tmp_path / "run"
    for name in ("data", "prior", "reward"):
        shutil.copytree(whole[0] / name, folder / name)
    said = run("train", *SETTINGS, "--run", str(folder))
    assert re.search(rf"{folder}/prior: [\d,]+ parameters, digest \w+", said) and "done in" not in said
    said = run("train-reward", *SETTINGS, "--run", str(folder))
    assert re.findall(r"/reward/(\S+): .*done in", said) == ["classifier"]
    for kind in ("regression", "classifier", "clean"):
        assert re.search(rf"^reward {kind}: rank correlation [-.\d]+, calibration [-.\d]+, on \d+ held", said, re.M)
    for stage in ("prior", "reward/regression", "reward/clean"):
        assert (folder / stage / "metrics.jsonl").read_bytes() == (whole[0] / stage / "metrics.jsonl").read_bytes()
    assert not list(folder.rglob("*.old-*"))


def test_other_settings_are_refused_until_what_was_made_may_be_kept_aside(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0] / "data", folder / "data")
    other = ("make-data", *SETTINGS, "--run", str(folder), "--task.episodes", "30")
    assert f"{folder}/data: task.episodes was 40 and is now 30" in run(*other, code=2)
    said = run(*other, "--new-settings")
    assert f"{folder}/data: task.episodes was 40 and is now 30; what was there is kept as data.old-1" in said
    assert (folder / "data.old-1" / "rows.npz").read_bytes() == (whole[0] / "data" / "rows.npz").read_bytes()


def test_a_damaged_drawing_is_refused_by_name(tmp_path):
    drawing = tmp_path / "maze.txt"
    drawing.write_text("####\n#OO#\n#X##\n")
    said = run("compare", "maze2d", "--run", str(tmp_path / "run"), "--task.maze", str(drawing), code=2)
    assert said.startswith(f"task.maze='{drawing}': ") and "X" in said


# -- the files in scripts/ --


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_script_is_its_command_and_says_how_to_run_it(path):
    tree = ast.parse(path.read_text())
    assert f"python scripts/{path.name}" in (ast.get_docstring(tree) or "")
    own = {
        "controllers",
        "crossed",
        "few_steps",
        "few_steps_exact",
        "front",
        "levels",
        "replanning",
        "unguided",
        "weakened",
    }
    if path.stem not in own:  # no part of the command
        (module,) = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert module == f"diffplan.cli.{path.stem}" and path.stem.replace("_", "-") in COMMANDS
