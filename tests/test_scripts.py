"""The commands, as a user runs them: a whole run from nothing, again, and killed; and the commands of its stages."""

import ast
import contextlib
import dataclasses
import inspect
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import tyro

from diffplan.cli.experiment import PRESETS, Experiment
from diffplan.cli.main import COMMANDS, main
from diffplan.methods import chosen
from diffplan.metrics.table import read_rows
from scripts import bench

ROOT = Path(__file__).parents[1]
SMOKE = PRESETS["smoke"].experiment


def line_of(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line of scripts/compare.py, and its environment: every compiled program is kept for later starts."""
    environment = {name: value for name, value in os.environ.items() if name != "DIFFPLAN_TRACE"}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    return [sys.executable, str(ROOT / "scripts" / "compare.py"), "smoke", *arguments], environment


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/compare.py in a process of its own."""
    line, environment = line_of(*arguments)
    done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def run(*arguments: str, code: int = 0) -> str:
    """Run a command in this process; returns what it said, or its one line of an error."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as exit:
            ended = exit.code
    assert (ended or 0) == code, out.getvalue() + err.getvalue()
    return err.getvalue() if code else out.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A smoke run that nothing disturbs: (its directory, what it said)."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, compare("--run", str(folder))


def rows(folder: Path) -> list[dict[str, str]]:
    return read_rows(folder / "results.csv")


# -- what a run leaves --


def test_a_run_makes_everything_it_promises(whole):
    folder, done = whole
    for name in (
        *("results.csv", "summary.csv", "budgets.csv", "config.json", "frontier.png", "frontier.pdf", "axes.png"),
        *("report.html", "data.npz", "plans.npz"),
    ):
        assert (folder / name).stat().st_size > 0
        assert name in done.stdout or name.endswith((".json", ".npz"))
    assert (
        not list(folder.rglob("*.part")) and not list(folder.rglob("*.old-*")) and not (folder / "lock.json").exists()
    )
    assert done.stderr == ""  # no warnings of any library
    for stage in ("prior", "reward/regression", "reward/classifier", "reward/clean", "methods/ascent"):
        assert re.search(rf"{stage}: \d+/\d+ .*/s  done in", done.stdout)


def test_the_table_holds_every_method_strength_and_seed(whole):
    table = rows(whole[0])
    entries = chosen(SMOKE.strengths, SMOKE.methods)
    assert {row["method"] for row in table} == {entry.method.name for entry in entries} == set(SMOKE.methods)
    for method in (entry.method for entry in entries):
        mine = [row for row in table if row["method"] == method.name]
        strengths = {float(row["strength"]) for row in mine}
        assert strengths >= set(method.strengths) and len(mine) == 2 * len(strengths)
        refined = 0 if method.shared or method.name == "prior" else 2 * SMOKE.strengths.refine
        assert len(strengths) - len(method.strengths) <= refined and (len(strengths) > len(method.strengths)) == (
            refined > 0
        )
    for row in table:
        measured = [row[name] for name in row if name not in ("method", "path_kl", "exact_kl", "ess")]
        assert all(np.isfinite(float(value)) for value in measured) and row["finite"] == "1"
        for name, given in (
            ("path_kl", row["method"].startswith("guided") or row["method"] == "prior"),
            ("ess", False),
        ):
            assert (row[name] != "") == given
    # the weakest guidance is the prior; the best of one costs what the prior costs
    prior = {row["seed"]: row for row in table if row["method"] == "prior"}
    for row in table:
        if row["method"].startswith("guided") and float(row["strength"]) == 0:
            for name in ("promised", "data_distance", "diversity", "residual"):
                assert float(row[name]) == pytest.approx(float(prior[row["seed"]][name]), rel=1e-3)
        if row["method"] == "best_of_n" and float(row["strength"]) == 1:
            assert row["network_evals"] == prior[row["seed"]]["network_evals"] and row["exact_kl"] == "0"


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
    assert f"{folder}/data: rows.npz has changed since it was made" in run(
        "make-data", "smoke", "--run", str(folder), code=2
    )
    assert file.read_bytes() == content


def killed(*arguments: str, when: Path, log: Path) -> str:
    """Start scripts/compare.py, and kill -9 it as soon as a path exists; returns what it had said until then."""
    line, environment = line_of(*arguments)
    with log.open("w") as file:
        process = subprocess.Popen(line, env=environment, cwd=ROOT, stdout=file, stderr=file)
        end = time.monotonic() + 300
        while not when.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    return log.read_text()


def without_seconds(table: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table]


@pytest.mark.slow
def test_damage_and_kills_change_no_number(whole, tmp_path):
    """One story, to save time: a checkpoint is damaged and stages are lost; kill -9 in training, then in a method."""
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    newest = folder / "prior" / "checkpoints" / "60"
    flip(max((newest / "state").rglob("*"), key=lambda path: path.stat().st_size * path.is_file()))
    for name in ("reward/clean", "methods/ascent", "methods/ascent_clean"):
        shutil.rmtree(folder / name)
    for name in ("results.csv", "plans.npz", "data.npz", "frontier.png"):
        (folder / name).unlink()
    arguments = ("--run", str(folder))

    said = killed(*arguments, when=folder / "reward" / "clean" / "checkpoints" / "20", log=tmp_path / "1.log")
    assert f"{newest}: damaged, left there and passed over" in said
    assert f"{folder}/prior: 60/60" in said and f"{folder}/reward/regression:" not in said

    said = killed(*arguments, when=folder / "methods" / "ascent" / "stage.json", log=tmp_path / "2.log")
    assert "damaged" not in said and "data:" not in said and "/prior:" not in said
    assert not (folder / "results.csv").exists()

    done = compare(*arguments)
    assert "/reward/" not in done.stdout and "methods/guided" not in done.stdout and "methods/ascent:" in done.stdout
    assert without_seconds(rows(folder)) == without_seconds(rows(whole[0]))
    kept = [row for row in rows(folder) if not row["method"].startswith("ascent")]
    assert kept == [row for row in rows(whole[0]) if not row["method"].startswith("ascent")]
    for name in ("plans.npz", "data.npz"):
        with np.load(folder / name) as ours, np.load(whole[0] / name) as theirs:
            assert ours.files == theirs.files
            for field in ours.files:
                np.testing.assert_array_equal(ours[field], theirs[field])
    assert (folder / "frontier.png").exists() and not list(folder.rglob("*.old-*"))


# -- the stages by themselves --


def test_make_data_makes_the_same_data(whole, tmp_path):
    said = run("make-data", "smoke", "--run", str(tmp_path / "run"))
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
    assert run("make-data", "ogbench", "--steps", "1", code=2).startswith("error: steps=1: must be")


@pytest.mark.parametrize(("name", "stage"), [("train", "prior"), ("train-reward", "reward/clean")])
def test_the_commands_of_stages_read_back_what_compare_trained(whole, name, stage):
    folder, _ = whole
    before = (folder / stage / "metrics.jsonl").read_bytes()
    said = run(name, "smoke", "--run", str(folder))
    assert f"{folder}/{stage}: " in said and "done in" not in said
    assert (folder / stage / "metrics.jsonl").read_bytes() == before
    assert not list(folder.rglob("*.old-*"))


def test_other_settings_are_refused_until_what_was_made_may_be_kept_aside(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0] / "data", folder / "data")
    other = ("make-data", "smoke", "--run", str(folder), "--data.rows", "10000")
    assert f"{folder}/data: data.rows was 20000 and is now 10000" in run(*other, code=2)
    said = run(*other, "--new-settings")
    assert f"{folder}/data: data.rows was 20000 and is now 10000; what was there is kept as data.old-1" in said
    assert (folder / "data.old-1" / "rows.npz").read_bytes() == (whole[0] / "data" / "rows.npz").read_bytes()


def test_a_damaged_drawing_is_refused_by_name(tmp_path):
    drawing = tmp_path / "maze.txt"
    drawing.write_text("####\n#OO#\n#X##\n")
    said = run("compare", "smoke", "--run", str(tmp_path / "run"), "--data.maze", str(drawing), code=2)
    assert said.startswith("error: ") and said.count("\n") == 1 and "X" in said


# -- the files in scripts/ --


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_script_is_its_command_and_says_how_to_run_it(path):
    tree = ast.parse(path.read_text())
    assert f"python scripts/{path.name}" in (ast.get_docstring(tree) or "")
    if path.stem != "bench":  # which times, and is no part of the command
        (module,) = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert module == f"diffplan.cli.{path.stem}" and path.stem.replace("_", "-") in COMMANDS


def test_help_of_the_timing_says_what_it_does():
    with contextlib.redirect_stdout(io.StringIO()) as page, pytest.raises(SystemExit):
        tyro.cli(bench.Config, description=bench.__doc__, args=["--help"])
    assert words(bench.__doc__.split(":")[0]) in words(page.getvalue())


def words(text: str) -> str:
    """A help page or docstring as plain words: without boxes, line breaks and indentation."""
    return " ".join(re.sub(r"[│╭╮╰╯─`]", " ", text).split())


def documented(cls: type, prefix: str = "") -> dict[str, str]:
    """Flag -> docstring, of every setting under a settings class, read from its source."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0].body
    texts = {
        node.target.id: after.value.value
        for node, after in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
    result = {}
    for field in dataclasses.fields(cls):
        hint = get_type_hints(cls)[field.name]
        nameless = "name=''" in str(get_type_hints(cls, include_extras=True)[field.name])
        name = prefix.removesuffix(".") if nameless else f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint):
            result |= documented(hint, prefix if nameless else f"{name}.")
        else:
            result[f"--{name}"] = texts.get(field.name, "")
    return result


def test_help_explains_every_setting():
    page, flags = words(run("compare", "smoke", "--help")), documented(Experiment)
    assert len(flags) > 60
    for flag, text in flags.items():
        assert text, f"{flag} has no docstring"
        assert re.search(rf"{re.escape(flag)}[ ,]", page), flag
        assert words(text) in page, flag
