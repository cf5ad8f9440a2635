"""The commands, as a user runs them: from nothing, again, killed, damaged and mistyped. One whole run: slow."""

import ast
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffplan import config
from diffplan.methods import chosen
from scripts.compare import SMOKE

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("[a-z]*.py"))
STAGED = [name for name in ("compare.py", "make_data.py", "train.py", "train_reward.py") if name in SCRIPTS]


def command(script: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """A command line and its environment: compiled in haste, and every program kept, so that later starts are quick."""
    environment = {name: value for name, value in os.environ.items() if name != "DIFFPLAN_TRACE"}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "COLUMNS": "100"}
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    return [sys.executable, str(ROOT / "scripts" / script), *arguments], environment


def run(script: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    line, environment = command(script, *arguments)
    done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def killed(script: str, *arguments: str, when: Path, log: Path) -> str:
    """Start it, and kill -9 it as soon as a path exists; returns what it had said until then."""
    line, environment = command(script, *arguments)
    with log.open("w") as file:
        process = subprocess.Popen(
            line, env=environment | {"PYTHONUNBUFFERED": "1"}, cwd=ROOT, stdout=file, stderr=file
        )
        end = time.monotonic() + 300
        while not when.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    return log.read_text()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A smoke run that nothing disturbs: (its directory, what it said)."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run("compare.py", "smoke", "--run", str(folder))


# -- what a run leaves --


def test_a_run_makes_everything_it_promises(whole):
    folder, done = whole
    for name in ("results.csv", "config.json", "frontier.png", "frontier.pdf", "report.html", "data.npz", "plans.npz"):
        assert (folder / name).stat().st_size > 0
        assert name in done.stdout or name.endswith((".json", ".npz"))
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("*.old-*"))
    assert done.stderr == ""  # no warnings of any library
    for stage in ("prior", "proxy/regression", "proxy/classifier", "proxy/clean", "methods/ascent"):
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


def test_a_second_run_reuses_everything(whole):
    folder, _ = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run("compare.py", "smoke", "--run", str(folder))
    assert "done in" not in done.stdout and "again" not in done.stdout and done.stderr == ""
    for path, content in before.items():
        if path.suffix in (".csv", ".json", ".jsonl", ".npz") or "checkpoints" in path.parts:
            assert path.read_bytes() == content, path


def flip(path: Path) -> None:
    """One bit, in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_seconds(table: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table]


def test_damage_and_kills_change_no_number(whole, tmp_path):
    """One story, to save time: two files are damaged and two stages lost; then kill -9 in training, then in a
    method.
    """
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    flip(folder / "data" / "rows.npz")
    flip(
        max(
            (folder / "prior" / "checkpoints" / "60" / "state").rglob("*"),
            key=lambda path: path.stat().st_size * path.is_file(),
        )
    )
    for name in ("proxy/clean", "methods/ascent", "methods/ascent_clean"):
        shutil.rmtree(folder / name)
    for name in ("results.csv", "plans.npz", "data.npz", "frontier.png"):
        (folder / name).unlink()
    arguments = ("compare.py", "smoke", "--run", str(folder))

    said = killed(*arguments, when=folder / "proxy" / "clean" / "checkpoints" / "20", log=tmp_path / "1.log")
    assert f"{folder}/data/rows.npz: damaged (its sha256 has changed); making it again" in said
    assert f"checkpoint {folder}/prior/checkpoints/60 is damaged and will not be used" in said
    assert f"{folder}/prior: 60/60" in said and f"{folder}/proxy/regression:" not in said
    assert (folder / "data" / "rows.npz").read_bytes() == (whole[0] / "data" / "rows.npz").read_bytes()

    said = killed(*arguments, when=folder / "methods" / "ascent" / "config.json", log=tmp_path / "2.log")
    assert "damaged" not in said and "data:" not in said and "/prior:" not in said
    assert not (folder / "results.csv").exists()

    done = run(*arguments)
    assert "/proxy/" not in done.stdout and "methods/guided" not in done.stdout and "methods/ascent:" in done.stdout
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
    done = run("make_data.py", "smoke", "--run", str(tmp_path / "run"))
    for name in ("rows.npz", "rows.json", "stage.json"):
        assert (tmp_path / "run" / "data" / name).read_bytes() == (whole[0] / "data" / name).read_bytes()
    with np.load(whole[0] / "data" / "rows.npz") as data:
        assert all(f"{name:<13}{list(data[name].shape)}" in done.stdout for name in ("observations", "actions"))


def test_make_data_makes_files_that_ogbench_loads_by_name(tmp_path):
    ogbench = pytest.importorskip("ogbench")
    arguments = ("--maze", "large", "--kind", "stitch", "--episodes", "12", "--steps", "5", "--folder", str(tmp_path))
    done = run("make_data.py", "ogbench", *arguments)
    name = "pointmaze-large-stitch-v0"
    training, validation = ogbench.make_env_and_datasets(name, dataset_dir=str(tmp_path), dataset_only=True)
    assert len(training["actions"]) == 12 * 4 and len(validation["actions"]) == 4
    for line in (str(tmp_path / f"{name}.npz"), str(tmp_path / f"{name}-val.npz"), "large-stitch-v0 ", "touching"):
        assert line in done.stdout
    assert run("make_data.py", "ogbench", "--steps", "1", code=2).stderr.startswith(
        "error: steps=1: must be at least 2"
    )


@pytest.mark.parametrize(("script", "stage"), [("train.py", "prior"), ("train_reward.py", "proxy/clean")])
def test_train_scripts_find_what_compare_trained(whole, script, stage):
    folder, _ = whole
    before = (folder / stage / "metrics.jsonl").read_bytes()
    done = run(script, "smoke", "--run", str(folder))
    assert f"{folder}/{stage}: " in done.stdout and "done in" not in done.stdout
    assert (folder / stage / "metrics.jsonl").read_bytes() == before
    assert not list(folder.rglob("*.old-*"))


def test_other_settings_keep_what_was_made_aside(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0] / "data", folder / "data")
    done = run("make_data.py", "smoke", "--run", str(folder), "--data.rows", "10000")
    assert f"{folder}/data: rows was 20000 and is now 10000; what was there is kept in data.old-1" in done.stdout
    assert (folder / "data.old-1" / "rows.npz").read_bytes() == (whole[0] / "data" / "rows.npz").read_bytes()


# -- the command lines --


def words(text: str) -> str:
    """A help page or docstring as plain words: without boxes, line breaks and indentation."""
    return " ".join(re.sub(r"[│╭╮╰╯─`]", " ", text).split())


def documented_fields() -> dict[str, dict[str, str]]:
    """Class -> field -> its docstring, read from the source of the configuration."""
    outcome: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(config.__file__).read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            outcome[node.name] = {}
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    text = (
                        after.value.value
                        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                        else ""
                    )
                    outcome[node.name][field.target.id] = f"{ast.unparse(field.annotation)}\n{text}"
    return outcome


def flags(name: str, prefix: str = "") -> list[tuple[str, str]]:
    """(flag, its docstring) for every setting under a configuration class."""
    fields = documented_fields()
    result = []
    for field, both in fields[name].items():
        annotation, text = both.split("\n", 1)
        if "name=''" in annotation:  # a field that lends its class's own flag
            result.append((f"--{prefix.removesuffix('.')}", text))
        elif annotation in fields:
            result += flags(annotation, f"{prefix}{field}.")
        else:
            result.append((f"--{prefix}{field.replace('_', '-')}", text))
    return result


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_a_script_does(script):
    done = run(script, "--help")
    summary = words(ast.get_docstring(ast.parse((ROOT / "scripts" / script).read_text())) or "").split(".")[0]
    assert summary and (summary in words(done.stdout) or "usage" in done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize("script", STAGED)
def test_help_explains_every_setting(script):
    page = words(run(script, "smoke", "--help").stdout)
    all_flags = flags("CompareSettings")
    assert len(all_flags) > 40
    for flag, text in all_flags:
        assert text, f"{flag} has no docstring"
        assert f"{flag} " in page or f"{flag.replace('-', '_').replace('__', '--')} " in page, flag
        assert words(text) in page, flag


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_flag_ends_in_a_hint_and_exit_code_two(script):
    first = ["smoke"] if script in STAGED else {"plot.py": ["runs/demo"], "study.py": ["list"]}.get(script, [])
    done = run(script, *first, "--nonsense", "3", code=2)
    assert "--nonsense" in done.stderr + done.stdout and "--help" in done.stderr + done.stdout


def test_a_flag_that_is_nearly_right_is_corrected():
    assert "--plans" in run("compare.py", "smoke", "--plan", "3", code=2).stderr


WRONG = {
    "--plans 1": "plans=1: must be at least 2",
    "--proxy.quantile 2": "proxy.quantile=2.0: must be between 0 and 1",
    "--data.maze nowhere": "unknown maze 'nowhere'",
    "--prior.horizon 33": "prior.horizon=33: must be a multiple of 8",
    "--strengths.scale 3 1": "strengths.scale=(3.0, 1.0): must be two numbers above 0",
    "--methods guided nonsense": "methods='nonsense': must be all, or some of prior, guided",
    "--run /dev/null/run": "/dev/null/run",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_value_ends_in_one_line_and_exit_code_two(arguments, tmp_path):
    place = [] if arguments.startswith("--run") else ["--run", str(tmp_path / "run")]
    done = run("compare.py", "smoke", *place, *arguments.split(), code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert WRONG[arguments] in done.stderr and done.stdout == ""


@pytest.mark.parametrize("arguments", ["--plans many", "--gold.kind bold", "--data.rows 1e6"])
def test_a_value_of_the_wrong_kind_names_its_flag(arguments):
    done = run("compare.py", "smoke", *arguments.split(), code=2)
    assert arguments.split()[0] in done.stderr


def test_a_damaged_drawing_is_refused_by_name(tmp_path):
    drawing = tmp_path / "maze.txt"
    drawing.write_text("####\n#OO#\n#X##\n")
    done = run("compare.py", "smoke", "--run", str(tmp_path / "run"), "--data.maze", str(drawing), code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "X" in done.stderr
