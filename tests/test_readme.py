"""README and docs: what is named exists, and what is said is in the result files. Examples: `test_examples.py`."""

import contextlib
import importlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from diffplan.benchmarks import report as score_table
from diffplan.benchmarks.rows import SUITES
from diffplan.benchmarks.speed import table as speed_table
from diffplan.cli import bench, command, exact, experiment, play, plot, study, tune
from diffplan.cli import scores as cli_scores
from diffplan.methods import catalogue
from diffplan.methods.strengths import StrengthSettings
from diffplan.metrics.statistics import mean_interval
from diffplan.metrics.table import read_rows
from diffplan.report import table
from diffplan.report.load import read_results
from diffplan.report.summary import curves
from diffplan.tasks import source
from diffplan.validation import report as exact_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "results" / "demo"
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
TEXT = "\n".join([README, *PAGES.values()])
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", TEXT, re.S))
PROSE = re.sub(r"```python\n.*?```", "", TEXT, flags=re.S)
COMMANDS = [
    (name.replace("_", "-"), line)
    for name, line in re.findall(
        r"(?:python scripts/|[` ]diffplan )(\w[\w-]*)(?:\.py)?([^\n`#]*?)(?= -->|\s*[`#\n])", PROSE
    )
]

needs_results = pytest.mark.skipif(not RESULTS.exists(), reason="results/demo is not there yet")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 160
    assert EXAMPLES.keys() == {"planner", "world", "data", "guide", "parts", "method", "network"}
    assert TEXT.count("```python") == len(EXAMPLES)
    assert len(EXAMPLES["planner"].strip().splitlines()) <= 11
    for name, code in EXAMPLES.items():
        assert len(code.splitlines()) <= (40 if name == "world" else 25) and max(map(len, code.splitlines())) <= 120, (
            name
        )


def test_the_world_of_the_readme_is_the_one_that_runs() -> None:
    """It is `tests/worlds/spring.py`, which goes through compare and tune in another test, without its first words."""
    whole = (ROOT / "tests" / "worlds" / "spring.py").read_text()
    assert EXAMPLES["world"].strip() == whole.split('"""', 2)[2].strip()


def scores(file: str) -> dict[tuple[str, str, str, str], float]:
    """A suite's means by maze, kind of method, controller and simulator; plans made once by "once" for the method."""
    result = {}
    for row in read_rows(ROOT / "results" / file):
        kind = "once" if row["method"].endswith("one plan") else score_table.kind(row)
        result[row["task"], kind, row["controller"], row["simulator"]] = score_table.number(row, "mean")
    return result


MAZES = ("umaze", "medium", "large")


def test_the_table_of_scores_is_that_of_the_results() -> None:
    paths = [path for path in map(cli_scores.Command().committed, SUITES) if path.exists()]
    table = re.search(r"<!-- scores: .*? -->\n(.*?)\n<!-- /scores -->", TEXT, re.S)
    assert table and table[1] == score_table.markdown([ROOT / path for path in paths])


def test_the_sentences_on_scores_hold() -> None:
    result = scores("scores.csv")
    cells = lambda kind, controller="tracking", simulator="mujoco": np.array(
        [result[maze, kind, controller, simulator] for maze in MAZES]
    )
    assert (cells("best of n") > cells("guided")).all()
    assert (np.abs(cells("best of n") - cells("guided best of n")) < 3.1).all()
    assert (cells("guided best of n", "inverse") - cells("best of n", "inverse")).round().tolist() == [-3, 4, 10]
    assert cells("guided best of n", "actions").round().tolist() == [114, 65, 57]
    for controller in ("actions", "inverse", "tracking"):
        assert np.abs(cells("once", controller) - cells("once", controller, "jax")).max() < 0.1
    bounds = np.array([result[maze, "bound (optimal control)", "optimal", "jax"] for maze in MAZES])
    assert (100 * cells("best of n") / bounds).round().tolist() == [94, 93, 86]
    warm = [next(v for (m, kind, *_), v in result.items() if m == maze and "warm" in kind) for maze in MAZES]
    lost = np.round(cells("guided best of n") - warm, -1)
    assert (lost.min(), lost.max()) == (10, 50)


def test_the_sentences_on_the_other_suites_hold() -> None:
    tracked = lambda result, simulator, maze: [
        result[maze, kind, "tracking", simulator] for kind in ("guided", "best of n", "guided best of n")
    ]
    points, grids = scores("scores/ogbench.csv"), scores("scores/gridworld.csv")
    ahead = [tracked(points, "ogbench", "large"), *(tracked(grids, "jax", maze) for maze in ("fourrooms", "corridors"))]
    assert all(both > max(guided, best_of_n) for guided, best_of_n, both in ahead)
    _, best_of_n, both = tracked(points, "ogbench", "giant")
    assert both < best_of_n and round(best_of_n) == 91
    assert round(points["giant", "best of n", "inverse", "ogbench"]) == 64
    for row in read_rows(ROOT / "results" / "scores.csv"):
        assert not row["train_minutes"] or 10 <= round(float(row["train_minutes"])) <= 11


def test_every_path_exists() -> None:
    """Whatever looks like a file of ours; what runs leave behind, and results that are not there yet, excepted."""
    ours = r"(?<![\w./-])((?:diffplan|docs|envs|scripts|tests|notebooks|results|\.ci)/[\w./-]*\w|[A-Z]+(?:\.md)?(?=`))"
    named = {path for path in re.findall(ours, PROSE) if "/" in path or path in ("LICENSE", "CONTRIBUTING.md")}
    assert len(named) > 20
    missing = {path for path in named if not (ROOT / path).exists()}
    assert missing <= (set() if RESULTS.exists() else {path for path in named if path.startswith("results/")})


def test_every_page_is_named_in_the_readme_and_every_picture_is_there() -> None:
    assert all(f"`docs/{name}.md`" in README for name in PAGES)
    for folder, text in ((ROOT, README), *((ROOT / "docs", page) for page in PAGES.values())):
        assert all((folder / path).exists() for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))


def test_every_method_is_in_the_readme_by_family() -> None:
    table = re.findall(r"^\| ([\w-]+) \| (`.*) \|$", README.split("## Methods")[1].split("\n## ")[0], re.M)
    named = {name: family for family, names in table for name in re.findall(r"`(\w+)`", names)}
    known = {name: entry.family for name, entry in catalogue(StrengthSettings()).items()}
    assert named == known | {"prior": "controls"}


def test_every_make_target_exists() -> None:
    targets = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())
    named = set(re.findall(r"(?:^    |`)make ([\w-]+)", PROSE, re.M))
    assert {"demo", "test", "bench"} <= named <= targets


def read(command_name: str, words: list[str]) -> Any:
    """The settings that a command reads from its arguments."""
    match command_name:
        case "crossed" | "few-steps" | "few-steps-exact" | "front" | "replanning" | "weakened":
            return tyro.cli(importlib.import_module(f"scripts.{command_name.replace('-', '_')}").Config, args=words)
        case "play":
            begun, rest = experiment.begin(words)
            playing = play.playing_of(begun)
            return command.parse(type(playing), rest, "", None, playing)
        case "bench":
            begun, rest = experiment.begin(words)
            asked = bench.benchmark_of(begun)
            return command.parse(type(asked), rest, "", None, asked)
        case "compare" | "make-data" | "train" | "train-reward":
            return experiment.read(words, "", None)
        case "tune":
            begun, rest = experiment.begin(words)
            tuning = tune.tuning_of(begun)
            return command.parse(type(tuning), rest, "", None, tuning)
        case "plot":
            return command.parse(plot.PlotSettings, words, "", None)
        case "study":
            return command.parse(study.Command, words, "", None)
        case "exact":
            return command.parse(exact.ExactSettings, words, "", None)
        case "tasks" | "doctor" | "completion":
            return None
        case "methods":
            return source(words[0]) if words else None
        case "scores":
            return command.parse(cli_scores.Command, words, "", None, cli_scores.begun(words))
    raise AssertionError(f"no command of that name is known here: {command_name}")


def test_every_command_line_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed as the commands do it, without running them: every preset, flag and value is one that they take."""
    assert len(COMMANDS) >= 8
    monkeypatch.chdir(tmp_path)
    Path("softmax.py").write_text(EXAMPLES["method"].split("white = ")[0])  # the class, saved as the README says
    Path("spring.py").write_text(EXAMPLES["world"])
    for name, line in COMMANDS:
        words = shlex.split(line)
        if "TASK" not in words:
            read(name, words)


def test_every_flag_exists() -> None:
    flags = set(re.findall(r"`(--[\w.-]+)", PROSE)) - {
        "--help",
        "--config",
    }  # which every command takes before all others
    with contextlib.redirect_stdout(io.StringIO()) as page, pytest.raises(SystemExit):
        experiment.read(["maze2d-umaze", "--help"], "", None)
    assert flags and all(flag in page.getvalue() for flag in flags)


def test_every_extra_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    extras = set(re.findall(r"-e '\.\[(\w+)\]'", PROSE))
    assert extras and all(re.search(rf"^{extra} = \[", text, re.M) for extra in extras | {"cuda12", "cuda13", "tpu"})


def test_the_public_names_exist() -> None:
    """What the docstring of the package lists, module by module; and importing it alone imports next to nothing."""
    import diffplan

    listed = diffplan.__doc__.split("Public names")[1]
    result = re.findall(r"^    (\w+)  +(.+)$", listed, re.M)
    assert {module for module, _ in result} == set(diffplan.MODULES)
    assert all(hasattr(diffplan, name) for name in diffplan.__all__)
    for name, members in result:
        module = importlib.import_module(f"diffplan.{name}")
        for member in re.findall(r"\w+(?=,|$)", members.split(", and ")[0]):
            if not hasattr(module, member):
                importlib.import_module(f"diffplan.{name}.{member}")
    seen = re.findall(r"^    from (diffplan[\w.]*) import (\w+) as \2$", Path(diffplan.__file__).read_text(), re.M)
    assert {name: f"diffplan.{module}" for name, module in diffplan.NAMES.items()} == {n: m for m, n in seen}  # editors
    light = (
        "import sys, diffplan; sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'matplotlib', 'diffplan.envs')))"
    )
    assert subprocess.run([sys.executable, "-c", light], cwd=ROOT).returncode == 0


def between(name: str) -> str:
    return re.search(rf"<!-- {name}: [^\n]*-->\n(.*?)<!-- /{name} -->", TEXT, re.S)[1].strip()


@needs_results
def test_the_table_is_that_of_the_result_files() -> None:
    assert between("table") == table.markdown(RESULTS).strip()
    assert between("medium") == table.markdown(ROOT / "results" / "medium").strip()
    assert between("gridworld") == table.markdown(ROOT / "results" / "gridworld").strip()


@pytest.mark.skipif(not (ROOT / "results" / "exact.csv").exists(), reason="results/exact.csv is not there yet")
def test_the_exact_answers_are_those_of_the_result_file() -> None:
    assert between("exact") == exact_table.markdown(ROOT / "results" / "exact.csv").strip()
    assert exact_table.CLAIMS.keys() == set(exact.PARTS)
    assert {row["part"] for row in read_rows(ROOT / "results" / "exact.csv")} == set(exact.PARTS)


class CommittedRun:
    """The curves of a committed run: means by method, measure and strength."""

    def __init__(self, name: str) -> None:
        results = read_results(ROOT / "results" / name)
        self.config, self.curves = results.config, curves(results)

    def all(self, method: str, measure: str) -> np.ndarray:
        return np.asarray(self.curves[method].bands[measure].value)

    def at(self, method: str, measure: str = "delivered", strength: float | None = None) -> float:
        """At a strength, or at the best."""
        curve = self.curves[method]
        k = curve.best if strength is None else int(np.flatnonzero(np.isclose(curve.strengths, strength))[0])
        return float(self.all(method, measure)[k])


def by_seed(name: str, method: str, strength: float) -> np.ndarray:
    """Delivered returns of a committed run, a number a seed."""
    rows = sorted(read_rows(ROOT / "results" / name / "results.csv"), key=lambda row: int(row["seed"]))
    of = lambda row: row["method"] == method and np.isclose(float(row["strength"]), strength)
    return np.array([float(row["delivered"]) for row in rows if of(row)])


def gain(name: str, first: tuple[str, float], second: tuple[str, float]) -> list[float]:
    """(mean, lower, upper 95 % limit) of what the first delivers more than the second, seed by seed."""
    return np.round(mean_interval(by_seed(name, *first) - by_seed(name, *second))[:3], 1).tolist()


@needs_results
def test_the_findings_are_in_the_result_files() -> None:
    """Each sentence on the U-maze, by the numbers of the committed run."""
    demo = CommittedRun("demo")
    one = lambda *names: round(demo.at(*names), 1)
    guided = demo.curves["guided"]
    assert guided.strengths[guided.best] == 10 and guided.is_best(guided.best)
    # plans that can be carried out deliver what they promise
    assert round(100 * demo.at("prior", "feasible")) == 99 and demo.at("prior", "violations.walls") == 0
    upto = guided.strengths <= 10
    assert np.abs(demo.all("guided", "promised") - demo.all("guided", "delivered"))[upto].max() < 1
    far = [demo.at("guided", measure, 320) for measure in ("promised", "delivered", "infeasible")]
    assert np.round(far, 1).tolist() == [37.9, 9.5, 1.0]
    # guidance pays, by the learned reward
    assert (one("guided"), one("prior")) == (18.1, 6.6) and round(demo.at("guided") / demo.at("prior"), 1) == 2.7
    assert round(100 * demo.at("guided", "feasible")) == 94
    assert (one("guided", "delivered", 18), round(100 * demo.at("guided", "feasible", 18))) == (20.0, 72)
    assert not guided.feasible[np.isclose(guided.strengths, 18)].any()
    assert one("null_shuffled") == 9.4 and demo.at("null_noise") == demo.at("prior")
    assert gain("demo", ("guided", 10), ("null_shuffled", 32))[1] > 0
    # selection does not catch up
    picked = demo.curves["best_of_n"]
    assert (picked.strengths[picked.best], one("best_of_n")) == (16, 13.3)
    cost = lambda method, strength: sum(demo.at(method, name, strength) for name in ("network_evals", "proxy_evals"))
    assert cost("best_of_n", 2) / cost("guided", 10) < 1.1 and 8.5 < cost("best_of_n", 16) / cost("guided", 10) < 9
    assert one("best_of_n", "delivered", 2) == 9.1
    assert gain("demo", ("guided", 10), ("best_of_n", 16)) == [4.8, 3.5, 6.0]
    # planning anew helps little
    assert round(demo.at("guided", "replanned") - demo.at("guided"), 1) == 1.5
    # a plan need not be feasible to be worth something
    ascent, shuffled = demo.curves["ascent"], demo.curves["null_shuffled"]
    assert (one("ascent", "promised"), one("ascent")) == (13.0, 30.5)
    assert (demo.all("ascent", "infeasible") == 1).all() and not ascent.is_best(ascent.best)
    assert one("null_shuffled", "delivered", 320) == 15.8 and shuffled.strengths[shuffled.best] == 32


@needs_results
def test_the_findings_in_the_medium_maze_are_in_the_result_files() -> None:
    medium = CommittedRun("medium")
    one = lambda *names: round(medium.at(*names), 1)
    guided = medium.curves["guided"]
    assert guided.strengths[guided.best] == 10 and guided.is_best(guided.best)
    returns = [one(name) for name in ("guided", "prior", "behaviour", "null_noise", "null_shuffled", "best_of_n")]
    assert returns == [34.2, 17.2, 15.1, 17.3, 18.0, 43.0]
    assert round(100 * medium.at("guided", "feasible")) == 96 and one("best_of_n", "delivered", 2) == 26.0
    cost = lambda method, strength: sum(medium.at(method, name, strength) for name in ("network_evals", "proxy_evals"))
    assert cost("best_of_n", 2) / cost("guided", 10) < 1.1 and round(cost("best_of_n", 16) / cost("guided", 10)) == 9
    assert gain("medium", ("guided", 10), ("best_of_n", 2)) == [8.1, 5.9, 10.3]
    assert gain("medium", ("best_of_n", 16), ("guided", 10)) == [8.8, 5.6, 12.0]
    assert min(gain("medium", ("guided", 10), null)[1] for null in (("null_noise", 1), ("null_shuffled", 10))) > 0
    assert one("guided", "replanned") == 29.1
    pair = lambda scale: [one("guided", name, scale) for name in ("delivered", "finer_delivered")]
    assert pair(100) == [24.2, 39.8] and pair(3.2) == [27.0, 23.6]
    assert guided.unconverged[guided.strengths > 10].all()
    assert guided.strengths[guided.unconverged & (guided.strengths <= 10)].tolist() == pytest.approx([3.2], abs=0.05)


@needs_results
def test_the_findings_in_four_rooms_are_in_the_result_files() -> None:
    rooms = CommittedRun("gridworld")
    one = lambda *names: round(rooms.at(*names), 1)
    legal = lambda strength: round(100 * rooms.at("guided", "feasible", strength))
    guided, rows = rooms.curves["guided"], read_rows(ROOT / "results" / "gridworld" / "results.csv")
    # the prior moves as behaviour does
    assert round(100 * rooms.at("prior", "feasible"), 1) == 99.5
    (row,) = [row for row in read_rows(ROOT / "results" / "unguided.csv") if row["task"] == "gridworld-fourrooms"]
    assert all(abs(float(row[name]) - 1) <= 0.0301 for name in ("displacement", "coverage"))
    # guidance pays
    assert np.isclose(guided.strengths[guided.best], 10) and (one("guided"), one("prior")) == (1.2, 0.1)
    assert [round(rooms.at("best_of_n", "delivered", n), 1) for n in (2, 16)] == [0.3, 1.1]
    assert (
        gain("gridworld", ("guided", 10), ("best_of_n", 2))[1] > 0 < gain("gridworld", ("guided", 10), ("prior", 0))[1]
    )
    # what pays more is not quite legal
    assert [(one("guided", "delivered", strength), legal(strength)) for strength in (18, 32)] == [(5.7, 90), (10.8, 72)]
    assert not guided.feasible[guided.strengths > 11].any()
    # pushed further, plans promise more than there is
    assert one("bound") == 21.8 and guided.strengths[-3] == 100
    assert (rooms.all("guided", "promised")[-3:] > rooms.at("bound")).all()
    assert (rooms.all("guided", "infeasible")[-3:] > 0.735).all()
    assert rooms.all("guided", "delivered")[-3:].max() < 9.25
    # the nulls earn what the prior earns, and all has converged
    most = max(rooms.all(null, "delivered").max() for null in ("null_noise", "null_shuffled"))
    assert most < rooms.at("prior") + 0.05
    assert not guided.unconverged.any() and rows[5]["levels"] == "24"


def numbers(table: str) -> dict[str, list[float]]:
    """The numbers of each line of a table, by its first cell."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: [float(n) for cell in rest for n in re.findall(r"-?[\d.]+", cell)] for name, *rest in lines}


def test_unguided_plans_are_those_of_the_result_file() -> None:
    rows = {row["task"]: row for row in read_rows(ROOT / "results" / "unguided.csv")}
    columns = ("displacement", "speed", "coverage", "delivered", "behaviour", "gain", "gain_low")
    lines = numbers(between("unguided"))
    assert lines.keys() == rows.keys() and len(rows) == 8
    for task, cells in lines.items():
        of = lambda name, row=rows[task]: float(row[name] or "nan")
        walls = [100 * of("violations.walls")] if task.startswith("maze2d") else []
        expected = [of("stride"), *walls, 100 * of("feasible"), *map(of, columns)]
        np.testing.assert_allclose(cells, expected, atol=0.0501)
        assert not of("violations.walls") > 0.014 and of("feasible") > 0.93
        assert all(0.9 < of(name) < 1.1 for name in columns[:3])
        interval = of("gain") - of("gain_low")
        assert (of("gain") < -interval) == (task == "maze2d-wide")


def test_the_benchmark_s_tables_are_those_of_the_result_file() -> None:
    path = ROOT / "results" / "bench.json"
    own = {"bench": ("plans",), "machine": ("training", "peak", "worlds")}
    for name in ("bench", "energies", "horizons", "machine", "process", "torch"):
        assert between(name) == speed_table.markdown(path, own.get(name, (name,)))
    rows = json.loads(path.read_text())["rows"]
    ratios = [round(row["over_jax"], 2) for row in rows if "over_jax" in row]
    eager, compiled = ratios[::2], ratios[1::2]
    assert f"compiled, {compiled[0]:.2f} and {compiled[1]:.2f} times" in PROSE
    assert f"takes {eager[0]:.2f} times" in PROSE and f"and {eager[1]:.2f} times" in PROSE
    rates = {row["what"]: row["per_second"] for row in rows if row["part"] == "plans"}
    for kind in ("unguided", "guided"):
        among = [rates[f"{count} plans, {kind}"] for count in (64, 1024, 4096)]
        assert max(among) / min(among) < 1.1


def test_the_findings_on_networks_are_in_the_result_files() -> None:
    rows = read_rows(ROOT / "results" / "front.csv")

    def at(network: str, levels: int, scale: float, name: str, rows: Any = rows) -> float:
        same = lambda row: (row["network"], int(row["levels"]), float(row["scale"])) == (network, levels, scale)
        (row,) = filter(same, rows)
        return float(row[name])

    largest, small, narrow = "chain, 512 states", "chain, 128 states", "chain, 128 states, width 32"
    for scale in (0, 5.7):  # six levels are enough
        few, many = (at(largest, levels, scale, "delivered") for levels in (6, 48))
        error = np.hypot(*(at(largest, levels, scale, "sem") for levels in (6, 48)))
        assert few > many - 1.96 * error
        assert at(largest, 6, scale, "feasible") > at(largest, 48, scale, "feasible")
    assert round(100 - 100 * at(largest, 4, 5.7, "feasible")) == 17
    rates = [[round(at(name, 8, scale, "plans_per_second")) for scale in (0, 5.7)] for name in (largest, small, narrow)]
    assert rates == [[796, 683], [2300, 1532], [3214, 1883]]
    delivered = [at(name, 8, 5.7, "delivered") for name in (largest, small, narrow)]
    assert max(delivered) - min(delivered) < 1.8
    assert min(at(name, 8, 5.7, "feasible") for name in (largest, small, narrow)) > 0.95
    large = read_rows(ROOT / "results" / "front_large.csv")
    fractions = [at(f"chain, {states} states", 8, 0, "feasible", large) for states in (128, 256, 512)]
    assert [round(100 * fraction) for fraction in fractions] == [56, 92, 98]
    fractions = [at(f"chain, {states} states", 8, 0, "feasible") for states in (64, 512)]
    assert [round(100 * fraction) for fraction in fractions] == [96, 99]
    fractions = [at(network, 8, 0, "feasible") for network in ("mixer", "transformer", "unet")]
    assert [round(100 * fraction) for fraction in fractions] == [96, 66, 34]
    few, whole = (at(name, 8, 5.7, "delivered") for name in ("chain, 128 states, half the rows", largest))
    assert (round(few, 1), round(whole, 1)) == (11.7, 13.5)
    for scale in (0, 5.7):  # width 32 costs nothing
        pair = [(f"chain, 512 states{width}", 8, scale) for width in ("", ", width 32")]
        feasible, delivered, sem = (
            [at(*each, name, large) for each in pair] for name in ("feasible", "delivered", "sem")
        )
        assert abs(np.subtract(*feasible)) < 0.01 and abs(np.subtract(*delivered)) < 1.96 * np.hypot(*sem)


def test_the_findings_on_few_evaluations_are_in_the_result_files() -> None:
    rows = {
        (row["task"].removeprefix("maze2d-"), row["network"], int(row["evaluations"]), float(row["scale"])): row
        for name in ("few_steps", "few_steps_large")
        for row in read_rows(ROOT / "results" / f"{name}.csv")
    }
    at = lambda name, *which: float(rows[which][name])
    of = lambda name, *which: (at(name, "umaze", *which, 0), at(name, "umaze", *which, 4))
    rates = [round(rate) for which in (("rows", 4), ("prior", 12)) for rate in of("plans_per_second", *which)]
    assert rates == [7442, 3669, 2183, 1216]
    fractions = [round(100 * f) for which in (("rows", 4), ("prior", 12)) for f in of("feasible", *which)]
    assert fractions == [96, 93, 99, 98]
    assert [round(at("delivered", "umaze", *which, 4), 1) for which in (("rows", 4), ("prior", 12))] == [12.6, 12.5]
    scales = sorted({scale for task, _, _, scale in rows if task == "umaze"})
    more = [at("delivered", "umaze", "rows", 8, s) - at("delivered", "umaze", "prior", 12, s) for s in scales]
    assert min(more) > 0.5
    assert [round(at("delivered", "umaze", *which, 5.7), 1) for which in (("rows", 8), ("prior", 12))] == [16.9, 14.7]
    assert round(100 * at("feasible", "umaze", "rows", 8, 5.7)) == 94
    assert round(at("plans_per_second", "umaze", "rows", 8, 5.7)) == 1978
    free = [round(at("delivered", "umaze", *which, 0), 1) for which in (("rows", 4), ("rows", 8), ("prior", 12))]
    assert free == [8.6, 8.0, 6.7]
    most = [max(at("feasible", "umaze", "rows", n, scale) for scale in scales) for n in (1, 2)]
    assert [round(100 * fraction) for fraction in most] == [28, 82]
    assert round(100 * max(at("feasible", "large", "rows", n, 0) for n in (4, 8))) == 11
    assert [round(100 * at("feasible", "large", "chain", n, 0)) for n in (8, 4)] == [94, 79]
    pushed = [("chain", 8), ("chain", 4), ("prior", 12)]
    assert [round(100 * at("feasible", "large", *which, 5.7)) for which in pushed] == [88, 71, 96]


def test_the_findings_on_guides_of_a_flow_map_are_in_the_result_files() -> None:
    run = CommittedRun("few_steps_guides")
    names = ("guided", "guided_few_steps", "few_steps_contrastive", "few_steps_dps", "few_steps_posterior")
    best = {name: float(run.curves[name].strengths[run.curves[name].best]) for name in (*names, "null_few_steps")}
    delivered = {name: round(run.at(name), 1) for name in best}
    assert list(delivered.values()) == [17.9, 11.2, 9.8, 9.2, 8.4, 8.8]
    assert (best["guided"], best["guided_few_steps"]) == (10, 3.2)
    gains = [gain("few_steps_guides", (name, best[name]), ("null_few_steps", best["null_few_steps"])) for name in names]
    assert gains[1] == [2.4, -0.2, 5.1]
    assert max(mean for mean, *_ in gains[2:]) == 1.0 and max(low for _, low, _ in gains[1:]) < 0


def test_ways_to_plan_anew_are_those_of_the_result_file() -> None:
    rows = {row["way"]: row for row in read_rows(ROOT / "results" / "replanning.csv")}
    lines = numbers(between("replanning"))
    assert lines.keys() == rows.keys()
    columns = ("delivered", "gain", "low", "high", "milliseconds")
    for way, cells in lines.items():
        expected = [
            float(rows[way][name]) for name in columns if way != "12 levels" or name in ("delivered", columns[-1])
        ]
        np.testing.assert_allclose(cells, expected, atol=0.0501, err_msg=way)
    early, first = rows["until settled at 0.2"], rows["12 levels"]
    assert float(early["low"]) > 0 and float(early["slowest"]) < float(first["fastest"])
    free = [float(rows[f"12 levels, unguided{warm}"]["delivered"]) for warm in ("", ", warm")]
    assert round(free[0] - free[1], 1) == 3.5
    warm = [float(row["gain"]) for way, row in rows.items() if "warm" in way and "unguided" not in way]
    assert -14 < min(warm) and max(warm) < -10
    assert max(rows, key=lambda way: float(rows[way]["delivered"])) == "flow map, 8 evaluations"


def test_wasted_nats_of_few_evaluations_are_those_of_the_result_file() -> None:
    rows = [row for row in read_rows(ROOT / "results" / "few_steps_exact.csv") if float(row["weight"]) == 1]
    lines = numbers(between("few_steps"))
    for (name, cells), energy in zip(lines.items(), ("exact", "posterior", "look ahead", "dps"), strict=True):
        expected = [100 * float(row["wasted"]) for row in rows if row["energy"] == energy]
        np.testing.assert_allclose(cells, expected, atol=0.501, err_msg=name)
    miss = {row["energy"]: round(float(row["miss"]), 2) for row in rows if row["evaluations"] == "16"}
    assert (miss["look ahead"], miss["exact"]) == (0.17, 0.01)


def test_controllers_are_those_of_the_result_file() -> None:
    rows = read_rows(ROOT / "results" / "controllers.csv")
    tasks = [(f"maze2d-{maze}", scale) for maze in MAZES for scale in ("0", "10")]
    at = lambda controller, name="delivered": np.array(
        [float(r[name]) for t in tasks for r in rows if (r["task"], r["scale"]) == t and r["controller"] == controller]
    )
    *lines, promised = numbers(between("controllers")).values()
    for controller, cells in zip(("inverse", "flow", "cloned", "places", "model", "tracked"), lines, strict=True):
        np.testing.assert_allclose(cells, at(controller), atol=0.0501)
    np.testing.assert_allclose(promised, at("inverse", "promised"), atol=0.0501)
    fraction = at("inverse") / at("inverse", "promised")
    assert (round(100 * fraction.min()), round(100 * fraction.max())) == (91, 101)
    assert (at("inverse") > at("tracked")).all()
    assert max(np.abs(at("flow", "gain")).max(), np.abs(at("cloned", "gain")).max()) < 0.8
    lost = lambda controller: 1 - (at(controller) / at("inverse")).min()
    assert round(100 * lost("places")) == 27 and round(lost("model"), 1) == 0.5


def test_what_tune_chose_is_in_the_result_files() -> None:
    sweep, grid = (json.loads((ROOT / "results" / "tune" / f"{name}.json").read_text()) for name in ("scale", "grid"))
    assert (round(sweep["scale"], 1), round(grid["scale"], 1), grid["candidates"], grid["prior"]) == (5.3, 5.7, 4, 1)
    of = lambda content: [round(content["validation"][name], 1) for name in ("return", "gain", "low", "high")]
    assert of(sweep) == [14.2, 7.8, 7.0, 8.6] and of(grid) == [17.4, 11.0, 10.1, 11.9]
    rows = read_rows(ROOT / "results" / "tune" / "sweep.csv")
    scales = {row["strength"] for row in rows}
    next_scale = [row for row in rows if float(row["strength"]) == 9.487]
    means = [np.mean([float(row[name]) for row in next_scale]) for name in ("delivered", "feasible")]
    assert len(next_scale) == 8 and [round(means[0], 1), round(100 * means[1])] == [18.0, 90]
    assert len(scales) == 14 and sweep["validation"]["seeds"] == grid["validation"]["seeds"] == 8
    cells = {
        (row["candidates"], row["prior"]): row
        for row in read_rows(ROOT / "results" / "tune" / "grid.csv")
        if row["scale"] == "5.692"
    }
    less = lambda n, name: float(cells[n, "0.9"][name]) - float(cells[n, "1"][name])
    assert [round(less(n, "delivered"), 1) for n in ("1", "4")] == [0.7, 0.2]
    assert [round(-100 * less(n, "feasible")) for n in ("1", "4")] == [2, 3]


def test_the_best_scales_hold_on_other_seeds() -> None:
    table = numbers(between("check"))
    above = {}
    for file, task in (
        ("umaze", "maze2d-umaze"),
        ("medium", "maze2d-medium"),
        ("rooms", "gridworld-fourrooms"),
        ("pendulum", "pendulum"),
    ):
        rows = sorted(read_rows(ROOT / "results" / "check" / f"{file}.csv"), key=lambda row: int(row["seed"]))
        scale, *cells = table[task]

        def of(method: str, strength: float, rows: Any = rows) -> np.ndarray:
            mine = [row for row in rows if row["method"] == method and np.isclose(float(row["strength"]), strength)]
            return np.array([float(row["delivered"]) for row in mine])

        guided, others = of("guided", scale), (of("prior", 0), of("best_of_n", 2), of("null_shuffled", scale))
        gains = [mean_interval(guided - other)[:3] for other in others]
        expected = [guided.mean(), others[0].mean(), others[1].mean(), *(end for gain in gains for end in gain)]
        np.testing.assert_allclose(cells, expected, atol=0.0501)
        above[task] = [low > 0 for _, low, _ in gains]
    assert len(above) == 4 and all(map(all, above.values()))


def test_the_findings_on_more_guides_are_in_the_result_files() -> None:
    run = CommittedRun("guides")
    best = {name: run.curves[name] for name in ("guided_scheduled", "guided_contrastive")}
    assert [round(float(run.at(name)), 1) for name in best] == [16.6, 14.1]
    assert all(curve.is_best(curve.best) for curve in best.values())
    scheduled = best["guided_scheduled"]
    assert scheduled.strengths[scheduled.best] == 18 and round(100 * run.at("guided_scheduled", "feasible")) == 97
    contrastive, demo = best["guided_contrastive"], CommittedRun("demo")
    assert round(float(contrastive.strengths[contrastive.best]), 1) == 5.7
    assert round(demo.at("guided", "delivered", 5.7), 1) == 13.8
    assert round(run.at("guided_contrastive", "delivered", 10), 1) == 18.1
    assert round(100 * run.at("guided_contrastive", "feasible", 10)) == 93
    assert not contrastive.feasible[np.isclose(contrastive.strengths, 10)].any()


def test_the_findings_with_finer_steps_are_in_the_result_files() -> None:
    run = CommittedRun("finer")
    pair = lambda strength: [round(run.at("guided", name, strength), 1) for name in ("delivered", "finer_delivered")]
    assert [pair(strength) for strength in (10, 100, 320)] == [[18.1, 17.5], [14.9, 23.8], [9.5, 18.3]]
    strengths = run.curves["guided"].strengths
    assert (run.curves["guided"].unconverged == (strengths > 18)).all()
    assert round(100 * run.at("guided", "finer_feasible", 100)) == 5
    assert (run.all("guided", "finer_feasible")[strengths > 100] == 0).all()
    assert (run.all("guided", "finer_levels") == 177).all()


def test_the_findings_without_the_prior_are_in_the_result_files() -> None:
    run = CommittedRun("weakened")
    one = lambda *names: round(run.at("weakened", *names), 1)
    assert (one("delivered", 0), one("delivered", 0.14)) == (18.1, 19.4)
    assert [round(100 * run.at("weakened", "feasible", strength)) for strength in (0, 0.14)] == [94, 85]
    strengths = run.curves["weakened"].strengths
    assert round(float(strengths[(run.all("weakened", "feasible") == 0)].min()), 2) == 0.43
    assert one("delivered", 1) == 5.1 < run.at("prior") - 0.5
    rows = read_rows(ROOT / "results" / "weakened" / "exact.csv")
    half = next(row for row in rows if (row["levels"], row["fraction"]) == ("96", "0.5"))
    of = {name: float(value) for name, value in half.items()}
    assert (round(of["mean"], 1), round(of["exact_mean"], 1)) == (2.7, 3.1)
    assert round(of["std"] / of["exact_std"], 1) == 2.3


def test_the_levels_are_those_of_the_result_file() -> None:
    rows = read_rows(ROOT / "results" / "levels.csv")
    at = lambda scale, levels, name, rule="ancestral": next(
        float(row[name])
        for row in rows
        if (row["rule"], float(row["scale"]), row["levels"]) == (rule, scale, str(levels))
    )
    for scale in (0, 10, 32):
        assert abs(at(scale, 12, "delivered") / at(scale, 705, "delivered") - 1) < 0.1
    ends = [at(320, levels, name) for levels in (12, 705) for name in ("promised", "delivered")]
    assert np.round(ends).tolist() == [34, 16, 91, 64]
    early = at(320, 23, "delivered") / at(320, 12, "delivered")
    assert 0.95 < early < 1.05 and round(at(320, 705, "delivered") / at(320, 12, "delivered")) == 4
    assert at(1000, 705, "delivered") > at(1000, 353, "delivered") + 5
    feasible = [100 * at(scale, levels, "feasible") for scale in (32, 100) for levels in (12, 705)]
    assert np.round(feasible).tolist() == [86, 75, 30, 14]
    assert max(float(row["feasible"]) for row in rows if (row["rule"], row["scale"]) == ("ancestral", "320")) < 0.035
    first = [at(32, 12, "delivered", rule) / at(32, 705, "delivered", rule) for rule in ("ancestral", "sde_2m")]
    assert np.round(first, 2).tolist() == [0.92, 0.65]
    excess = [at(10, 12, "path_kl", rule) / at(10, 705, "path_kl", rule) for rule in ("ancestral", "sde_2m")]
    assert np.round(excess, 1).tolist() == [2.1, 5.3]


@needs_results
def test_the_settings_named_are_those_of_the_run() -> None:
    config = read_results(RESULTS).config["settings"]
    labels = re.search(r"from ([\d,]+) labelled windows", TEXT)[1]
    assert int(labels.replace(",", "")) == config["planner"]["proxy"]["labels"]
    assert config["name"] == "maze2d-umaze" and config["task"]["reward"] == "region"


def test_the_methods_are_those_of_the_result_files() -> None:
    """Each sentence of "Every optimiser on one axis"."""
    rows = read_rows(ROOT / "results" / "methods.csv")
    assert len({row["method"] for row in rows}) == 36
    run = CommittedRun("methods")
    assert run.curves.keys() - {row["method"] for row in rows} == {"null_noise", "null_shuffled", "behaviour"}
    one = lambda *names: round(run.at(*names), 1)
    of = lambda row: (row["method"], round(float(row["delivered"]), 1))
    within = lambda evaluations: dict(
        of(row) for row in rows if row["unit"] == "evaluations" and row["budget"] == evaluations and row["delivered"]
    )
    cheap = within("100")
    assert max(cheap, key=cheap.__getitem__) == "classifier_free_return" == max(run.curves, key=run.at)
    assert (cheap["classifier_free_return"], cheap["best_of_n"], cheap["guided"]) == (17.5, 11.6, 9.9)
    # planners: true dynamics, one iteration and more; receding horizons
    for method in ("cem", "mppi"):
        curve = run.curves[method]
        assert curve.strengths[curve.best] == 1 and one(method) == 15.3 == one(method, "promised")
        assert (np.diff(run.all(method, "delivered")[curve.best :]) < 0).all()
    assert one("receding_model") == 16.9
    # a learned model is exploited
    models = ("cem_model", "mppi_model", "cem_disagreement")
    broken = [100 * run.at(method, "infeasible", 16) for method in models]
    assert (round(min(broken)), round(max(broken))) == (52, 62)
    assert all(run.at(method, "infeasible", 1) == 0 for method in models)
    # guides promise far more than they deliver
    assert round(run.at("guided", "promised", 32)) == 35 and one("guided", "delivered", 32) == 7.5
    assert round(run.all("annealed", "promised")[-1]) == 26 and round(run.all("annealed", "delivered")[-1], 1) == 12.5
    # projection is no licence
    assert one("ascent_renoised") == 9.3 and one("ascent_renoised", "delivered", 381) == 6.3
    assert round(run.at("ascent_renoised", "promised", 381)) == 42
    # a prior tuned on its own picks
    assert one("expert_replace", "delivered", 4) == 12.5 == round(run.all("expert_replace", "delivered").max(), 1)
    assert round(100 * run.at("expert_replace", "infeasible", 4)) == 12
    assert one("expert_real", "delivered", 4) == 8.4 == round(run.all("expert_real", "delivered").max(), 1)


def finding(study: str, words: str) -> dict[str, Any]:
    """The one finding of a committed verdict that is stated in these words."""
    verdict = json.loads((ROOT / "results" / "studies" / study / "verdict.json").read_text())
    (result,) = [result for result in verdict["findings"] if words in result["statement"]]
    return result


def cells(study: str, words: str, **where: Any) -> list[dict[str, Any]]:
    """The cells, in the conditions that match, of the one map of a committed verdict that is stated in these words."""
    verdict = json.loads((ROOT / "results" / "studies" / study / "verdict.json").read_text())
    (result,) = [result for result in verdict["maps"] if words in result["statement"]]
    return [cell for cell in result["cells"] if where.items() <= cell["where"].items()]


def test_the_verdicts_on_pressure_are_those_of_the_result_files() -> None:
    """Each sentence of "Five questions, with verdicts"."""
    verdicts = lambda words, **where: {cell["verdict"] for cell in cells("pressure", words, **where)}
    assert finding("pressure", "3,000 labels or more")["verdict"] == "supported"
    assert {cell["where"]["labels"]: cell["verdict"] for cell in cells("pressure", "at most 1,000 labels")} == {
        **dict.fromkeys((30, 100, 300), "inconclusive"),
        1000: "falsified",
    }
    slope = {cell["where"]["labels"]: cell["verdict"] for cell in cells("pressure", "predicted a")}
    assert [slope[labels] == "supported" for labels in (30, 100, 300, 1000, 3000, 30_000)] == [False] * 3 + [True] * 3
    assert verdicts("predicted b") == verdicts("error of (116) less") == {"inconclusive"}
    assert finding("pressure", "0.9 of the tilt's")["cells"] == {"holds": 6, "falsified": 0, "open": 42}
    equal = [cell for cell in cells("pressure", "(167)", labels=300) if cell["n"]]
    assert len(equal) == 14 and all(cell["estimate"] < 0 for cell in equal) and verdicts("(167)") == {"inconclusive"}
    (mean,) = cells("pressure", "mean over the methods of a seed", labels=300)
    assert [round(-mean[name], 2) for name in ("estimate", "high", "low")] == [0.47, 0.02, 0.92]


def test_the_verdicts_on_a_class_that_is_not_in_the_data_are_those_of_the_result_files() -> None:
    joint = "joint prior, classifiers: fraction of plans that hit, at "
    at_ten = cells("held_out_class", f"{joint}scale 10", guide="perfect")
    by_geometry = {cell["where"]["geometry"]: cell for cell in at_ten}
    percent = lambda number: round(100 * number)
    hits = {name: (percent(one["estimate"]), percent(one["exact"]["estimate"])) for name, one in by_geometry.items()}
    assert (hits["composition"], hits["homotopy"], hits["near speed"]) == ((11, 0), (8, 39), (83, 66))
    (strong,) = cells("held_out_class", f"{joint}the other", guide="perfect", geometry="homotopy", scale=30.0)
    assert percent(strong["exact"]["estimate"]) == 73
    sure = "joint prior, classifiers: p(class | plan), at scale 10"
    says = lambda guide: [cell["estimate"] for cell in cells("held_out_class", sure, guide=guide)]
    assert min(says("perfect")) >= 0.92
    assert (round(100 * min(says("learned")), 1), percent(max(says("learned")))) == (0.6, 89)
    composed = "local prior, composition, classifiers: fraction of plans that hit, at scale"
    (local,) = cells("held_out_class", composed, guide="perfect")
    assert percent(local["estimate"]) == 97


def test_the_verdicts_on_paint_and_on_two_rewards_are_those_of_the_result_files() -> None:
    assert max(cell["estimate"] for cell in cells("potemkin", "weight predicted")) < 0.06
    assert finding("potemkin", "weight predicted")["verdict"] == "supported"
    names = ("occupancy", "chi-squared", "best of n", "quantiliser")
    counts = [finding("potemkin", f"{name} is hacked less than the tilt, at equal nats")["cells"] for name in names]
    assert [(one["holds"], sum(one.values())) for one in counts] == [(25, 25), (22, 25), (22, 25), (22, 25)]
    worse = lambda name, axis: {
        (cell["where"]["mass"], cell["where"][axis[1]])
        for cell in cells("potemkin", f"{name} is hacked less than the tilt, at equal {axis[0]}")
        if cell["verdict"] == "falsified"
    }
    nats, gain = ("nats", "nats"), ("proxy gain", "gain")
    assert worse("quantiliser", nats) == {(0.01, 8.0)}
    assert worse("chi-squared", nats) == worse("best of n", nats) == {(0.01, 6.0), (0.01, 8.0)}
    assert all((0.01, 6.0) in worse(name, gain) for name in ("chi-squared", "best of n", "quantiliser"))
    which = ("least of five, all", "least of five, one", "variance of five, all", "variance of five, one")
    checks = [finding("potemkin", words) for words in which]
    assert {one["verdict"] for one in checks} == {"passes"} == {finding("potemkin", "mean of five")["verdict"]}
    theorem = finding("pareto", "the sum less the mixture")
    assert theorem["verdict"] == "passes" and theorem["area_over_mixture"]["estimate"] == pytest.approx(2, abs=0.05)
    assert round(finding("pareto", "area in gold, learned")["estimate"], 2) == 0.42
    assert round(finding("pareto", "area in proxy, learned")["estimate"], 1) == 1.7
    last = finding("pareto", "guidance over the exact sum")
    (perfect,) = cells("pareto", "guidance over the exact sum", reward_model="perfect")
    assert (last["verdict"], last["threshold"], round(perfect["estimate"], 2)) == ("falsified", 0.8, 0.39)


def test_the_section_on_equal_proxy_is_that_of_its_files() -> None:
    """Numbers of "Why the tilt trails at equal proxy"."""
    text = (ROOT / "docs" / "studies.md").read_text().split("## Why the tilt trails")[1]
    files = ROOT / "results" / "studies" / "matched_proxy"
    rows = read_rows(files / "study.csv")

    def of(column: str, reward_model: str, method: str = "short sight", labels: int = 300) -> np.ndarray:
        chosen = {"reward_model": reward_model, "method": method, "labels": str(labels)}
        return np.array([float(row[column]) for row in rows if chosen.items() <= row.items()])

    def lead(*where: Any) -> str:
        mean, low, high = mean_interval(of("gold", *where) - of("tilt_gold", *where))[:3]
        return f"{mean:.2f} ({low:.2f} to {high:.2f})"

    for where in (("weak penalty",), ("weak penalty", "short sight", 1000)):
        assert lead(*where) in text
    assert lead("weak, labels everywhere", "short sight", 100) in text
    for reward_model in (
        *("weak penalty", "weak, ensemble", "weak, other cells mended", "weak, uncertain cells mended"),
        *("weak, labels everywhere", "held out", "posterior mean"),
    ):
        mean, ends = lead(reward_model).rstrip(")").split(" (")
        assert f"| {mean} | {ends} |" in text
    for method, words in (
        ("lazy walk", "leads by 0.64"),
        ("restless walk", "trails by 0.10"),
        ("quantiliser", "by 0.36"),
    ):
        assert lead("weak penalty", method).split()[0].lstrip("-") in words and words in text
    assert round(100 * of("tilt_uncertain", "weak penalty").mean()) == 38
    assert round(100 * of("uncertain", "weak penalty").mean()) == 16
    assert round((of("expected", "weak penalty") - of("tilt_expected", "weak penalty")).mean(), 2) == 1.38
    assert (np.abs(np.log(of("penalty", "held out"))) < np.log(2.5)).all()
    findings = json.loads((files / "verdict.json").read_text())["findings"]
    assert [one["statement"] for one in findings if one["verdict"] != "supported"] == [
        "300 labels, posterior mean: lead of six methods"
    ]
    for words in (
        "posterior mean less weak",
        "weak penalty: lead of six",
        "posterior mean: lead of six",
        "all labels: short",
    ):
        result = next(one for one in findings if words in one["statement"])
        assert f"{result['estimate']:.2f} ({result['low']:.2f} to {result['high']:.2f})" in text
    front = (ROOT / "README.md").read_text()
    mean, ends = lead("weak penalty").rstrip(")").split(" (")
    assert f"delivers {mean} standard deviations less" in front and f"interval {ends}, 64 seeds" in front
    mean, ends = lead("posterior mean").rstrip(")").split(" (")
    assert f"that lead is {mean} ({ends})" in front
    fall = finding("matched_proxy", "fall of six methods")
    assert f"{fall['estimate']:.2f}, from {fall['low']:.2f} to {fall['high']:.2f}" in text
