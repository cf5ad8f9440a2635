"""The report reads a run directory and says it in tables: every kind of task, every gap and every damage."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from diffplan.cli import plot
from diffplan.metrics.table import COLUMNS, TableError, read, read_rows
from diffplan.report import budgets, draw, load, record, style, summary, table
from diffplan.settings import ConfigError
from tests.report_runs import KINDS, SEEDS, methods_of, write_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of each kind; only read them."""
    directory = tmp_path_factory.mktemp("runs")
    return {kind: write_run(directory / kind, kind) for kind in KINDS}


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    return Path(shutil.copytree(runs["cells"], tmp_path / "run"))


def cells(path: Path, method: str, strength: float, column: str) -> np.ndarray:
    """A column over seeds, read from the CSV without the code under test."""
    with (path / "results.csv").open() as file:
        mine = [r[column] for r in csv.DictReader(file) if r["method"] == method and float(r["strength"]) == strength]
    return np.array([float(cell) for cell in mine if cell])


def rewrite(path: Path, change) -> None:
    with (path / "results.csv").open() as file:
        rows = change(list(csv.DictReader(file)))
    with (path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def rearrange(path: Path, file: str, change) -> None:
    with np.load(path / file) as arrays:
        changed = change(dict(arrays))
    np.savez(path / file, **changed)


def reconfigure(path: Path, change) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(change(config)))


def truncate(path: Path) -> None:
    content = (path / "data.npz").read_bytes()
    (path / "data.npz").write_bytes(content[: len(content) // 2])


def without(entries: dict, *names: str) -> dict:
    return {name: value for name, value in entries.items() if name not in names}


DAMAGE = {
    "results.csv: column 'path_kl' is missing": lambda p: rewrite(
        p, lambda rows: [without(r, "path_kl") for r in rows]
    ),
    "results.csv: line 2, column 'proxy': 'much' is not a number": lambda p: rewrite(
        p, lambda rows: [row | {"proxy": "much"} for row in rows]
    ),
    "plans.npz: 'ascent.strengths' is missing": lambda p: rearrange(
        p, "plans.npz", lambda a: without(a, "ascent.strengths")
    ),
    "plans.npz: 'starts' is missing": lambda p: rearrange(p, "plans.npz", lambda a: without(a, "starts")),
    "plans.npz: 'guided.positions' is (8, 12, 64, 1), must be (8, 12, 64, 2) [s, p, h, k]": lambda p: rearrange(
        p, "plans.npz", lambda a: a | {"guided.positions": a["guided.positions"][..., :1]}
    ),
    "data.npz: 'positions' is missing": lambda p: rearrange(p, "data.npz", lambda a: without(a, "positions")),
    "data.npz: 'proxy' is empty or has values that are not finite": lambda p: rearrange(
        p, "data.npz", lambda a: a | {"proxy": np.array([1.0, np.nan])}
    ),
    "data.npz: the archive cannot be read": truncate,
    "config.json: methods.guided.strength_name is missing": lambda p: reconfigure(
        p, lambda c: c | {"methods": without(c["methods"], "guided")}
    ),
    "config.json: task.observations is missing": lambda p: reconfigure(p, lambda c: c | {"task": {"name": "a task"}}),
    "config.json: not JSON": lambda p: (p / "config.json").write_text("{"),
    "plans.npz: no such file": lambda p: (p / "plans.npz").unlink(),
    "run: no such run directory": shutil.rmtree,
}


@pytest.mark.parametrize("words", DAMAGE)
def test_a_damaged_run_is_named_in_one_line(copied, words):
    DAMAGE[words](copied)
    with pytest.raises(TableError) as error:
        load.read_run(copied)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_optional_may_be_missing(runs, kind):
    run = load.read_run(runs[kind])
    words = run.results.words
    assert run.plans.plane == (words.place is not None) and len(run.plans.labels) == run.plans.starts.shape[1]
    assert (run.plans.grid is None) == (kind in ("plane", "series", "unrewarded"))
    assert run.plans.broken.keys() == (run.plans.positions.keys() if kind in ("plane", "series") else set())
    assert words.returns("delivered").startswith("delivered return (")
    assert words.infeasible == {"plane": "infeasible", "series": "with too large a torque"}.get(
        kind, "infeasible" if kind == "unrewarded" else "through walls"
    )


def test_an_empty_cell_is_undefined_not_zero(runs):
    table_ = read(runs["cells"] / "results.csv", COLUMNS[2:])
    assert np.isnan(table_["path_kl"][table_["method"] == "ascent"]).all()
    assert np.isfinite(table_["path_kl"][table_["method"] == "guided"]).all()


def test_curves_average_over_seeds_and_the_best_delivers_most(runs):
    curve = summary.curves(load.read_results(runs["cells"]))["guided"]
    assert curve.strengths.tolist() == [0, 1, 3, 10, 30, 100, 300, 1000]
    assert curve.strengths[np.argmax(curve.value("promised"))] == 100  # which delivers little
    assert curve.headline == "delivered" and curve.strengths[curve.best] == 10
    assert set(curve.seeds) == {SEEDS} and set(curve.plans) == {64 * SEEDS}
    for k, strength in enumerate(curve.strengths):
        for column in ("proxy", "promised", "delivered", "violations.walls"):
            expected = cells(runs["cells"], "guided", strength, column).mean()
            np.testing.assert_allclose(curve.value(column)[k], expected, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(curve.value("infeasible")[k], curve.value("violations.walls")[k], atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "headline", "method", "strength"),
    [
        ("cells", "delivered", "guided", 10),
        ("plane", "delivered", "guided", 10),
        ("offline", "promised", "guided", 30),
        ("few", "delivered", "best_of_n", 64),
        ("unrewarded", "proxy", "prior", 0),
    ],
)
def test_the_headline_is_what_is_known_and_the_subject_is_guided_where_it_can(runs, kind, headline, method, strength):
    by_method = summary.curves(load.read_results(runs[kind]))
    methods, controls = summary.split(by_method)
    subject = summary.subject(methods)
    assert summary.headline(by_method) == headline
    assert subject is not None and (subject.method, subject.strengths[subject.best]) == (method, strength)
    assert set(methods) | set(controls) == set(methods_of(kind)) and not set(methods) & set(load.CONTROLS)


def test_batches_without_a_finite_plan_are_counted_and_said(copied):
    def lose(rows):
        hit = [row["method"] == "ascent" and row["strength"] == "3000.0" and row["seed"] in "12" for row in rows]
        empty = dict.fromkeys(("proxy", "promised", "delivered", "feasible"), "") | {"finite": 0}
        return [row | empty if h else row for row, h in zip(rows, hit, strict=True)]

    rewrite(copied, lose)
    curve = summary.curves(load.read_results(copied))["ascent"]
    assert curve.dropped.tolist() == [0] * 6 + [2] and curve.seeds[-1] == 2
    expected = "Batches without one finite plan, left out of the means: 2 of gradient ascent."
    assert expected in table.markdown(copied).splitlines()


@pytest.mark.parametrize(("n", "best", "count"), [(8, 4, 5), (8, 0, 5), (8, 7, 5), (3, 1, 5), (1, 0, 5), (12, 1, 5)])
def test_chosen_strengths_keep_the_first_the_best_and_the_last(n, best, count):
    chosen = summary.evenly_chosen(n, best, count)
    assert {0, best, n - 1} <= set(chosen) <= set(range(n))
    assert chosen == sorted(set(chosen)) and len(chosen) == min(n, count)


def shown(path: Path) -> str:
    screen = io.StringIO()
    table.show(path, Console(width=80, file=screen, force_terminal=False))
    budgets.show(path, Console(width=80, file=screen, force_terminal=False))
    return screen.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_has_its_tables(runs, kind):
    printed, readme = shown(runs[kind]), table.markdown(runs[kind])
    assert max(map(len, printed.splitlines())) <= 80
    for method in methods_of(kind):
        assert style.look(method).label in printed and style.look(method).label in readme
    config = json.loads((runs[kind] / "config.json").read_text())
    for line in config["left_out"]:
        assert line in readme and line in " ".join(printed.split())
    assert ("delivered return" in readme) == (kind not in ("offline", "unrewarded"))
    assert ("0.81, 0.94" in readme) == (kind != "unrewarded")
    if kind != "unrewarded":
        assert config["task"]["return"] in readme


def test_the_table_has_the_numbers_and_ends_with_the_controls(runs):
    values = cells(runs["cells"], "guided", 10, "delivered")
    half = stats.sem(values) * stats.t.ppf(0.975, SEEDS - 1)
    lines = table.markdown(runs["cells"]).splitlines()
    promised = cells(runs["cells"], "guided", 10, "promised").mean()
    line = next(line for line in lines if "guidance scale 10 " in line)
    assert f"| {promised:.1f} | {values.mean():.1f} ± {half:.1f} |" in line
    assert f"{values.mean():.1f} ± {half:.1f}" in shown(runs["cells"])
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    last = [name for name in names if name][-4:]
    assert last == [style.look(name).label for name in load.CONTROLS if name != "null_few_steps"]  # it has no flow map
    assert "by the actions of the plan for MPPI" in "\n".join(lines)


def test_summary_csv_has_the_interquartile_mean_of_every_strength_and_of_all(runs, tmp_path):
    rows = [row for row in read_rows(record.record(runs["cells"], tmp_path)) if row["method"] == "guided"]
    strengths = [0, 1, 3, 10, 30, 100, 300, 1000]
    assert [row["strength"] for row in rows] == [*(f"{s}" for s in strengths), ""]
    every = [cells(runs["cells"], "guided", s, "delivered") for s in strengths]
    for row, values in zip(rows, every, strict=False):
        assert float(row["delivered_iqm"]) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-4)
        assert min(values) - 1e-4 <= float(row["delivered_low"]) <= float(row["delivered_high"]) <= max(values) + 1e-4
    assert float(rows[-1]["delivered_iqm"]) == pytest.approx(stats.trim_mean(np.concatenate(every), 0.25), rel=1e-4)


def test_one_seed_has_no_interval(runs, tmp_path):
    rows = [row for row in read_rows(record.record(runs["few"], tmp_path)) if row["method"] == "best_of_n"]
    for row in rows:
        for name in ("proxy", "promised", "delivered", "feasible"):
            assert row[f"{name}_iqm"] and (row[f"{name}_low"], row[f"{name}_high"]) == ("", "")
    assert all((row["low"], row["high"]) == ("", "") for row in read_rows(budgets.write(runs["few"], tmp_path)))
    assert "±" not in table.markdown(runs["few"]) and "means over 1 seed," in table.markdown(runs["few"])


@pytest.mark.parametrize("kind", ["few", "unrewarded"])  # `test_report_figures` draws the others
def test_everything_is_drawn_elsewhere_and_the_run_stays_as_it_is(runs, kind, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in runs[kind].iterdir()}
    files = draw.draw(runs[kind], tmp_path / "new" / "out")
    assert {path.name: path.stat().st_mtime_ns for path in runs[kind].iterdir()} == before
    names = {"summary.csv", "budgets.csv", "frontier.png", "frontier.pdf", "report.html"}
    assert {path.name for path in files} - {"axes.png", "axes.pdf"} == names
    assert all(path.parent == tmp_path / "new" / "out" and path.stat().st_size > 0 for path in files)
    assert (tmp_path / "new" / "out" / "axes.png").exists() == (kind != "unrewarded")


def test_plot_says_where_else_to_write(runs, monkeypatch, capsys):
    def refuse(run_dir, out):
        raise PermissionError(13, "Permission denied", "summary.csv")

    monkeypatch.setattr(draw, "draw", refuse)
    with pytest.raises(SystemExit):
        plot.main([str(runs["few"])])
    line = "error: summary.csv: may not be written; name another directory with --out DIR\n"
    assert capsys.readouterr().err == line


def test_the_script_fails_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "plot.py"), str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path / 'nowhere'}: no such run directory\n"


def test_a_table_needs_no_pictures(runs, tmp_path, capsys):
    """As in results/, where only the files of numbers are kept; and it leaves nothing behind."""
    for name in ("results.csv", "config.json"):
        shutil.copy(runs["cells"] / name, tmp_path)
    plot.action(plot.PlotSettings(tmp_path, table="markdown"))
    assert capsys.readouterr().out.startswith("| method |")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "results.csv"]
    with pytest.raises(ConfigError, match="out='pictures': must be left out with table=markdown"):
        plot.action(plot.PlotSettings(tmp_path, Path("pictures"), "markdown"))


def test_importing_the_report_draws_in_no_matplotlib():
    code = "import sys, diffplan.report.load, diffplan.report.table; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0123, "0.012"), (1.234, "1.2"), (9.96, "10.0"), (12.3, "12"), (1234.5, "1234"), (1e-5, "1e-5"), (np.nan, "–")],
)
def test_short_numbers(value, words):
    assert style.short(value) == words


def test_a_strength_that_has_not_converged_is_marked_and_a_table_without_the_columns_is_read(copied):
    plain = table.markdown(copied)
    assert "‡" not in plain
    marked = lambda row: row | {"converged": float(float(row["strength"]) < 100) if row["method"] == "guided" else ""}
    rewrite(copied, lambda rows: [marked(row) for row in rows])
    lines = table.markdown(copied).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| guided |"))
    assert "‡" not in lines[start] and "‡" in lines[start + 1]
    assert sum("‡" in line for line in lines if line.startswith("|")) == 1
    assert "‡ marks a strength that has not converged: more noise levels" in table.markdown(copied)
    learned = lambda row: row | {"pretrain_evals": 64 if row["method"] == "guided" else ""}
    rewrite(copied, lambda rows: [learned(row) for row in rows])
    assert "‡ marks a strength that has not converged: more training changes a return" in table.markdown(copied)
    gone = ("pretrain_evals", "finer_levels", "finer_promised", "finer_delivered", "finer_feasible", "converged")
    rewrite(copied, lambda rows: [{name: row[name] for name in row if name not in gone} for row in rows])
    assert table.markdown(copied) == plain
