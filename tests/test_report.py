"""The report on a SYNTHETIC run directory: invented numbers in the shape of the trial table of the design, no model.

`python tests/test_report.py DIRECTORY` writes that run directory, to look at the pictures without training anything.
"""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from diffplan.metrics.table import COLUMNS, TableError, read, read_rows
from diffplan.report import axes, budgets, figure, load, maze, page, style, summary, table
from diffplan.report import record as record_

# method: strength_name, then for each strength: strength, proxy, gold, share of plans crossing a wall
SYNTHETIC = {
    "prior": (
        "none",
        "0 0 6.2 0",
    ),
    "guided": (
        "guidance scale",
        "0 0 6.2 0; 1 0.6 10 0; 3 1.6 18.9 0; 10 3.5 35.2 0.02; 30 5.5 43.4 0.06; 100 9.5 25.9 0.81; "
        "300 41 1.4 0.99; 1000 187 0.05 1",
    ),
    "guided_classifier": (
        "guidance scale",
        "0 0 6.1 0; 1 0.5 9 0; 3 1.2 15 0; 10 2.6 27 0.01; 30 4.1 33 0.05; 100 6.2 30 0.5; 300 16 9 0.95; "
        "1000 60 0.6 1",
    ),
    "guided_dps": (
        "guidance scale",
        "0 0 6.3 0; 1 0.9 12 0; 3 2.1 22 0.01; 10 4.2 37 0.05; 30 6.6 34 0.3; 100 14 12 0.92; "
        "300 70 0.8 1; 1000 260 0.02 1",
    ),
    "guided_raw": (
        "guidance scale",
        "0 0 6.2 0; 1 1.8 17 0.1; 3 4.4 21 0.5; 10 11 9 0.9; 30 34 1.9 1; 100 90 0.3 1; 300 170 0.04 1; "
        "1000 330 0.01 1",
    ),
    "best_of_n": (
        "n",
        "1 0 6.2 0; 2 0.5 9.7 0; 4 1 13.6 0; 8 1.35 16 0; 16 1.6 18.5 0; 32 1.9 20.6 0; 64 2.1 22.3 0; 256 2.5 25.3 0",
    ),
    "ascent": (
        "ascent steps",
        "0 0 6.2 0; 3 0.9 9 0.1; 10 2.2 13 0.4; 30 4.6 16 0.7; 100 10.6 11.9 0.96; 300 38 1.6 1; "
        "1000 140 0.1 1; 3000 422 0.01 1",
    ),
    "ascent_clean": (
        "ascent steps",
        "0 0 6.2 0; 3 1.3 8 0.2; 10 3.4 10 0.6; 30 8 7 0.95; 100 30 2.2 1; 300 110 0.3 1; "
        "1000 320 0.02 1; 3000 800 0 1",
    ),
}
SYNTHETIC = {
    method: (strength_name, [tuple(float(number) for number in point.split()) for point in points.split(";")])
    for method, (strength_name, points) in SYNTHETIC.items()
}
WALLS = np.array([[c == "#" for c in row] for row in ("#####", "#..##", "###.#", "#...#", "#####")])
WALLS[1, 3] = False
CORRIDOR = np.array([(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]) - 0.2  # cell centres
SEEDS, PLANS, HORIZON = 4, 12, 96


def synthetic_run(path: Path, seed: int = 0) -> Path:
    """Writes a synthetic run directory: invented scores, and plans made by shaking walks along the corridor of a U."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for method, (_, points) in SYNTHETIC.items():
            for point in points:
                writer.writerows(_row(rng, method, *point, seed) for seed in range(SEEDS))
    methods = {
        method: {"strength_name": strength_name, "strengths": [p[0] for p in points]}
        for method, (strength_name, points) in SYNTHETIC.items()
    }
    config = {"environment": "synthetic U-maze", "synthetic": True, "horizon": HORIZON, "methods": methods}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    draws = {"walls": WALLS, "region": np.array([0.8, 2.8, 0.45], np.float32)}
    begin = rng.uniform(0.3, 5.7, PLANS)
    draws["starts"] = _corridor(begin).astype(np.float32)
    for method, (_, points) in SYNTHETIC.items():
        draws[f"{method}.strengths"] = np.array([p[0] for p in points], np.float32)
        plans = [
            _plans(begin, proxy, gold, crossing, method.startswith("ascent"), seed)
            for _, proxy, gold, crossing in points
        ]
        draws[f"{method}.positions"] = np.array(plans, np.float32)
    np.savez_compressed(path / "plans.npz", **draws)
    z = rng.normal(size=4000)
    gold = np.clip(np.round(14 * z - 2 + 6 * rng.normal(size=z.size)), 0, 60) * (z > 0)
    data = {"proxy": (z - z.mean()) / z.std(), "gold": gold}
    np.savez_compressed(path / "data.npz", positions=_plans(begin, 0, 6, 0, False, 1).astype(np.float32), **data)
    return path


def _row(rng, method, strength, proxy, gold, crossing, seed):
    shaken = gold * (1 + 0.04 * rng.normal()) + 0.2 * rng.normal()
    row = dict.fromkeys(COLUMNS, "")
    guided = method.startswith("guided")
    row |= {"method": method, "strength": strength, "seed": seed, "plans": 64, "finite": 1.0, "seconds": 0.01}
    row |= {"proxy": proxy * (1 + 0.02 * rng.normal()) + 0.05 * rng.normal(), "promised": max(shaken, 0)}
    row |= {"open_loop": max(0.8 * shaken * (1 - 0.5 * crossing), 0), "tracked": max(0.9 * shaken, 0)}
    row |= {
        "path_kl": 1.4 * strength**0.9 if guided else "",
        "violations.walls": crossing,
        "longest_step": 0.1 + crossing,
    }
    row |= {"residual": 0.01 + crossing, "data_distance": 0.5 + 5 * crossing, "diversity": 1.0, "network_evals": 32}
    return row | {"proxy_evals": 32 if guided else 0, "env_steps": 0}


def _corridor(s):
    return np.stack([np.interp(s, np.arange(7), CORRIDOR[:, k]) for k in (0, 1)], -1)


def _plans(begin, proxy, gold, crossing, rough, seed):
    rng = np.random.default_rng(seed)  # the same noise at every strength
    time = np.linspace(0, 1, HORIZON)
    stay = np.minimum(gold / 43, 1)
    aim = np.where(rng.uniform(size=PLANS) < stay, 2.0, np.clip(begin + rng.normal(size=PLANS) * 2, 0, 6))
    s = begin[:, None] + (aim - begin)[:, None] * np.clip(time * (1 + 1.5 * stay), 0, 1)
    wiggle = np.cumsum(np.cumsum(rng.normal(size=(PLANS, HORIZON, 2)), 1), 1) / HORIZON**1.5
    positions = _corridor(s) + 0.12 * np.tanh(wiggle)
    if proxy > 3:
        noise = rng.normal(size=positions.shape)
        smooth = np.cumsum(noise, 1) / 10
        positions = positions + crossing * np.log1p(proxy) * (0.2 * noise if rough else 0.5 * smooth)
    positions[:, 0] = _corridor(begin)
    return positions


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("runs") / "synthetic")


@pytest.fixture
def copied(run_dir, tmp_path) -> Path:
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def csv_mean(path: Path, method: str, strength: float, column: str) -> float:
    """The mean over seeds, read from the CSV without the code under test."""
    with (path / "results.csv").open() as file:
        cells = [r[column] for r in csv.DictReader(file) if r["method"] == method and float(r["strength"]) == strength]
    return float(np.mean([float(cell) for cell in cells if cell]))


def rewrite(path: Path, change) -> None:
    with (path / "results.csv").open() as file:
        rows = change(list(csv.DictReader(file)))
    with (path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def without_column(path: Path) -> None:
    rewrite(path, lambda rows: [{k: v for k, v in row.items() if k != "path_kl"} for row in rows])


def not_a_number(path: Path) -> None:
    rewrite(path, lambda rows: [row | {"proxy": "much"} for row in rows])


def without_array(path: Path) -> None:
    with np.load(path / "plans.npz") as file:
        np.savez(path / "plans.npz", **{k: v for k, v in file.items() if k != "ascent.positions"})


def truncated(path: Path) -> None:
    content = (path / "data.npz").read_bytes()
    (path / "data.npz").write_bytes(content[: len(content) // 2])


def without_strength_name(path: Path) -> None:
    (path / "config.json").write_text('{"methods": {"prior": {"strength_name": "none"}}}')


def without_file(path: Path) -> None:
    (path / "plans.npz").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_column, "results.csv: column 'path_kl' is missing"),
        (not_a_number, "results.csv: line 2, column 'proxy': 'much' is not a number"),
        (without_array, "plans.npz: 'ascent.positions' is missing"),
        (truncated, "data.npz: the archive cannot be read"),
        (without_strength_name, "config.json: methods.guided.strength_name is missing"),
        (without_file, "plans.npz: no such file"),
        (lambda path: shutil.rmtree(path), "run: no such run directory"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(copied, damage, words):
    damage(copied)
    with pytest.raises(TableError) as error:
        load.read_run(copied)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_figure_names_a_missing_method(copied):
    rewrite(copied, lambda rows: [row for row in rows if row["method"] != "ascent"])
    with pytest.raises(TableError, match=r"results\.csv: method 'ascent' is missing"):
        figure.frontier(copied)


def test_an_empty_cell_is_undefined_not_zero(run_dir):
    table_ = read(run_dir / "results.csv", COLUMNS[1:])
    assert np.isnan(table_["path_kl"][table_["method"] == "ascent"]).all()
    assert np.isfinite(table_["path_kl"][table_["method"] == "guided"]).all()


def test_curves_average_over_seeds(run_dir):
    curve = summary.curves(load.read_results(run_dir))["guided"]
    assert curve.strengths.tolist() == [0, 1, 3, 10, 30, 100, 300, 1000]
    assert curve.strengths[np.argmax(curve.bands["promised"].value)] == 30
    assert curve.strengths[curve.best] == 10  # at 30 over 2 % of the plans go through walls
    assert set(curve.seeds) == {4} and set(curve.plans) == {4 * 64}
    for k, strength in enumerate(curve.strengths):
        for column in ("proxy", "promised", "violations.walls"):
            expected = csv_mean(run_dir, "guided", strength, column)
            np.testing.assert_allclose(curve.bands[column].value[k], expected, rtol=1e-12)


def test_batches_without_a_finite_plan_are_counted_and_said(copied):
    def lose(rows):
        hit = [row["method"] == "ascent" and row["strength"] == "3000.0" and row["seed"] in "12" for row in rows]
        empty = dict.fromkeys(("proxy", "promised", "open_loop", "tracked"), "") | {"finite": 0}
        return [row | empty if h else row for row, h in zip(rows, hit, strict=True)]

    rewrite(copied, lose)
    curve = summary.curves(load.read_results(copied))["ascent"]
    assert curve.dropped.tolist() == [0] * 7 + [2] and curve.seeds[-1] == 2
    left = "Batches without one finite plan, left out"
    assert f"{left}: 2 of gradient ascent." in table.markdown(copied)
    assert f"{left} of the means: 2 of gradient ascent." in page.page(copied).read_text()


@pytest.mark.parametrize(("n", "best", "count"), [(8, 4, 5), (8, 0, 5), (8, 7, 5), (3, 1, 5), (1, 0, 5), (12, 1, 5)])
def test_spread_keeps_the_first_the_best_and_the_last(n, best, count):
    chosen = summary.evenly_chosen(n, best, count)
    assert {0, best, n - 1} <= set(chosen) <= set(range(n))
    assert chosen == sorted(set(chosen)) and len(chosen) == min(n, count)


def test_crossing_by_hand_in_the_u():
    corner = [(0.8, 0.8), (0.8, 2.8), (2.8, 2.8), (2.8, 0.8)]  # along the corridor, from cell centre to cell centre
    through = [(0.8, 0.8), (2.8, 0.8), (2.8, 0.9), (9.0, 0.9)]  # through the inner wall; within a cell; out of the maze
    missing = [(0.8, 0.8), (np.nan, 0.8), (0.8, 0.8), (0.8, 0.9)]
    result = maze.crossing(np.array([corner, through, missing]), WALLS)
    assert result.tolist() == [[False, False, False], [True, False, True], [True, True, False]]
    edges = np.array([(0.301, 0.8), (0.299, 0.8), (1.299, 1.8), (1.301, 1.8)])  # cell (i, j) spans [i - 0.7, i + 0.3]
    assert maze.in_wall(edges, WALLS).tolist() == [False, True, False, True]


def test_the_figure_is_written_and_small(run_dir):
    png, pdf = figure.frontier(run_dir)
    assert png.read_bytes().startswith(b"\x89PNG") and 50_000 < png.stat().st_size < 1_000_000
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size < 2_000_000


def test_labels_of_the_plane_do_not_cover_each_other(run_dir):
    run = load.read_run(run_dir)
    draws = figure.compose(run, ("guided", "ascent"))
    draws.canvas.draw()
    plane = next(axes for axes in draws.get_axes() if "beyond the data" in axes.get_xlabel())
    boxes = [text.get_window_extent() for text in plane.texts if text.get_text()]
    assert len(boxes) == len(SYNTHETIC) + 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def embedded(html: str) -> dict:
    result = re.search(r'<script type="application/json" id="run">(.*?)</script>', html, re.DOTALL)
    assert result is not None
    return json.loads(result.group(1))


def test_the_page_is_small_and_asks_for_nothing(run_dir):
    path = page.page(run_dir)
    html = path.read_text()
    assert path.stat().st_size < 500_000
    assert not re.search(r"https?://|\b(src|href)\s*=|@import|url\(|fetch\(|XMLHttp", html)
    assert not re.search(r"/\*(STYLE|RUN|SCRIPT)\*/", html)


def test_the_page_holds_the_numbers_of_the_table(run_dir):
    shown = embedded(page.page(run_dir).read_text())
    assert [method["name"] for method in shown["methods"]] == list(SYNTHETIC)
    for method in shown["methods"]:
        for k, strength in enumerate(method["strengths"]):
            for column in ("proxy", "promised", "tracked", "seconds"):
                expected = csv_mean(run_dir, method["name"], strength, column)
                np.testing.assert_allclose(method["bands"][column]["value"][k], expected, rtol=1e-5)
    assert shown["config"] == json.loads((run_dir / "config.json").read_text())


def test_the_script_of_the_page_asks_for_what_the_page_holds(run_dir):
    """Every field and column that page.js names is in the JSON; every element that it fills is in page.html."""
    content, script = embedded(page.page(run_dir).read_text()), (Path(page.__file__).parent / "page.js").read_text()
    assert set(re.findall(r"\brun\.(\w+)", script)) <= content.keys()
    fields = content["methods"][0].keys() | {"frames"}  # which the script itself adds
    assert {"name", "best", "bands"} <= set(re.findall(r"\b(?:method|a|asked)\.(\w+)", script)) <= fields
    curves = re.findall(r'curve\("\w+", "(\w+)"', script)
    columns = {*curves, *re.findall(r'\["[^"]+", "([\w.]+)", \w+\]', script)}
    assert {"proxy", "promised"} <= columns <= content["methods"][0]["bands"].keys()
    skeleton = (Path(page.__file__).parent / "page.html").read_text()
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(re.findall(r'id="([\w-]+)"', skeleton))


def test_the_page_holds_the_plans(run_dir):
    shown = embedded(page.page(run_dir).read_text())
    with np.load(run_dir / "plans.npz") as file:
        whole = {name: file[name] for name in file.files}
    for method in shown["methods"]:
        s, p, h = method["plans"]["shape"]
        integers = np.frombuffer(base64.b64decode(method["plans"]["positions"]), "<i2").reshape(s, p, h, 2)
        units = np.array(method["plans"]["units"])[:, None, None, None]
        expected = whole[f"{method['name']}.positions"][:, :, [*range(0, HORIZON, 2), HORIZON - 1]]
        assert (np.abs(integers * units - expected) <= 0.51 * units + 1e-6).all()
        bits = np.unpackbits(np.frombuffer(base64.b64decode(method["plans"]["crossing"]), np.uint8))
        assert bits.size // 8 == -(-s * p * (h - 1) // 8)
        if method["name"] == "ascent":
            flags = bits[: s * p * (h - 1)].reshape(s, p, h - 1)
            assert flags[0].mean() < 0.05 and flags[-1].mean() > 0.8


def test_positions_that_are_not_finite_are_marked():
    positions = np.random.default_rng(0).normal(size=(2, 3, 4, 2)) * 1e4
    positions[1, 2, 3] = np.nan
    integers, units = page.quantise(positions)
    assert (integers[1, 2, 3] == page.EMPTY).all() and (integers != page.EMPTY).sum() == positions.size - 2
    kept = np.isfinite(positions)
    assert (np.abs(integers * units[:, None, None, None] - positions)[kept] <= 0.5001 * units.max()).all()


def test_a_config_cannot_break_out_of_the_page(copied):
    config = json.loads((copied / "config.json").read_text()) | {"note": "</script><b>"}
    (copied / "config.json").write_text(json.dumps(config))
    assert embedded(page.page(copied).read_text())["config"]["note"] == "</script><b>"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_the_page_shows_its_numbers_in_a_browser(run_dir, tmp_path):
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --user-data-dir={tmp_path} --virtual-time-budget=2000"
    address = f"file://{page.page(run_dir)}#ascent/300"
    shown = subprocess.run(
        ["chromium", *flags.split(), "--dump-dom", address], capture_output=True, text=True, timeout=120
    )
    proxy = csv_mean(run_dir, "ascent", 300, "proxy")
    assert f'<b class="proxy">{proxy:.1f}</b>' in shown.stdout
    assert 'aria-valuetext="ascent steps 300"' in shown.stdout
    assert shown.stdout.count("<tr") == 1 + sum(len(points) for _, points in SYNTHETIC.values())


def test_the_table_fits_a_terminal_and_has_the_numbers(run_dir):
    screen = io.StringIO()
    table.show(run_dir, Console(width=80, file=screen, force_terminal=False))
    printed = screen.getvalue()
    best = csv_mean(run_dir, "guided", 10, "promised")
    assert "…" not in printed.split("at:")[0] and f"{best:.1f} ±" in printed
    line = next(line for line in table.markdown(run_dir).splitlines() if "guidance scale 10 " in line)
    half = stats.sem([float(x) for x in _cells(run_dir, "guided", 10, "promised")]) * stats.t.ppf(0.975, SEEDS - 1)
    assert f"| {best:.1f} ± {half:.1f} |" in line


def _cells(path: Path, method: str, strength: float, column: str) -> list[str]:
    with (path / "results.csv").open() as file:
        return [r[column] for r in csv.DictReader(file) if r["method"] == method and float(r["strength"]) == strength]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0123, "0.012"), (1.234, "1.2"), (9.96, "10.0"), (12.3, "12"), (1234.5, "1234"), (1e-5, "1e-5"), (np.nan, "–")],
)
def test_short_numbers(value, words):
    assert style.short(value) == words


def test_the_script_fails_in_one_line(tmp_path):
    root = Path(__file__).parents[1]
    command = [sys.executable, str(root / "scripts" / "plot.py"), str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path / 'nowhere'}: no such run directory\n"


def test_importing_the_report_draws_in_no_matplotlib():
    root = Path(__file__).parents[1]
    code = "import sys, diffplan.report.load, diffplan.report.table; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


if __name__ == "__main__":
    print(synthetic_run(Path(sys.argv[1])))


def test_summary_csv_has_the_interquartile_mean_of_every_strength_and_of_the_strength_name(copied):
    with record_.record(copied).open() as file:
        rows = list(csv.DictReader(file))
    mine = [row for row in rows if row["method"] == "guided"]
    assert [row["strength"] for row in mine] == ["0", "1", "3", "10", "30", "100", "300", "1000", ""]
    for row in mine[:-1]:
        values = [float(x) for x in _cells(copied, "guided", float(row["strength"]), "promised")]
        assert float(row["promised_iqm"]) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-4)
        assert min(values) - 1e-4 <= float(row["promised_low"]) <= float(row["promised_high"]) <= max(values) + 1e-4
    strength_name = [float(x) for s in mine[:-1] for x in _cells(copied, "guided", float(s["strength"]), "promised")]
    assert float(mine[-1]["promised_iqm"]) == pytest.approx(stats.trim_mean(strength_name, 0.25), rel=1e-4)


def test_one_seed_has_no_interval_and_everything_is_drawn(copied):
    rewrite(copied, lambda rows: [row for row in rows if row["seed"] == "0"])
    for row in read_rows(record_.record(copied)):
        for name in record_.MEASURES:
            assert row[f"{name}_iqm"] and (row[f"{name}_low"], row[f"{name}_high"]) == ("", "")
    assert all((row["low"], row["high"]) == ("", "") for row in read_rows(budgets.write(copied)))
    assert "±" not in table.markdown(copied).split("Means over")[0] and "Means over 1 seed," in table.markdown(copied)
    table.show(copied, Console(file=io.StringIO()))
    budgets.show(copied, Console(file=io.StringIO()))
    for path in (*figure.frontier(copied), *axes.axes_figure(copied), page.page(copied)):
        assert path.stat().st_size > 10_000
