"""The page: self-contained, with the numbers of results.csv and the plans of plans.npz, and readable by its script."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffplan.metrics.table import TableError
from diffplan.report import page
from tests.report_runs import KINDS, methods_of, write_run
from tests.test_report import cells, reconfigure

HERE = Path(page.__file__).parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of each kind of run, inside of it."""
    directory = tmp_path_factory.mktemp("runs")
    return {kind: page.page(write_run(directory / kind, kind)) for kind in KINDS}


def embedded(path: Path) -> dict:
    result = re.search(r'<script type="application/json" id="run">(.*?)</script>', path.read_text(), re.DOTALL)
    assert result is not None
    return json.loads(result.group(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_small_and_asks_for_nothing(pages, kind):
    html = pages[kind].read_text()
    assert pages[kind].stat().st_size < 500_000 and "<noscript>" in html
    assert not re.search(r"https?://|\b(src|href)\s*=|@import|url\(|fetch\(|XMLHttp", html)
    assert not re.search(r"/\*(STYLE|RUN|SCRIPT)\*/", html)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_holds_the_numbers_of_the_table(pages, kind):
    shown = embedded(pages[kind])
    assert [method["name"] for method in shown["methods"]] == list(methods_of(kind))
    titles = {name: title for name, title, _ in shown["columns"]}
    assert ("delivered" in titles) == (kind not in ("offline", "unrewarded"))
    assert titles["infeasible"] == {"plane": "infeasible plans", "unrewarded": "infeasible plans"}.get(
        kind, f"plans {shown['words']['infeasible']}"
    )
    for method in shown["methods"]:
        for k, strength in enumerate(method["strengths"]):
            for column in {"proxy", "promised", "delivered", "seconds"} & titles.keys():
                values, result = cells(pages[kind].parent, method["name"], strength, column), method["bands"][column]
                expected = pytest.approx(values.mean(), rel=1e-5) if values.size else None
                assert result["value"][k] == expected
    assert shown["config"] == json.loads((pages[kind].parent / "config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_of_the_page_asks_for_what_the_page_holds(pages, kind):
    """Every field that page.js names is in the JSON; every element that it fills is in page.html."""
    content, script = embedded(pages[kind]), (HERE / "page.js").read_text()
    assert set(re.findall(r"\brun\.(\w+)", script)) == content.keys()
    assert set(re.findall(r"run\.words\.(\w+)", script)) <= content["words"].keys()
    fields = content["methods"][0].keys() | {"frames"}  # which the script itself adds
    assert {"name", "best", "bands"} <= set(re.findall(r"\b(?:method|a|asked)\.(\w+)", script)) <= fields
    skeleton = (HERE / "page.html").read_text()
    ids = set(re.findall(r'id="([\w-]+)"', skeleton))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids
    forms = set(re.findall(r"^  (\w+): \(v\) =>", script, re.MULTILINE))
    assert {form for _, _, form in content["columns"]} <= forms


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_holds_the_plans(pages, kind):
    shown = embedded(pages[kind])
    with np.load(pages[kind].parent / "plans.npz") as file:
        whole = {name: file[name] for name in file.files}
    for method in shown["methods"]:
        assert (method["plans"] is not None) == (f"{method['name']}.positions" in whole)
        if method["plans"] is None:
            continue
        s, p, h, k = method["plans"]["shape"]
        integers = np.frombuffer(base64.b64decode(method["plans"]["positions"]), "<i2").reshape(s, p, h, k)
        units = np.array(method["plans"]["units"])[:, None, None]
        expected = whole[f"{method['name']}.positions"][:, :p, method["plans"]["steps"]]
        known = np.isfinite(expected)
        assert (integers[~known] == page.EMPTY).all()
        assert (np.abs(integers * units - expected)[known] <= (0.51 * units + 1e-6 + 0 * expected)[known]).all()
        bits = np.unpackbits(np.frombuffer(base64.b64decode(method["plans"]["broken"]), np.uint8))
        assert bits.size // 8 == -(-s * p * (h - 1) // 8)
        if method["name"] == "ascent" and kind == "cells":
            flags = bits[: s * p * (h - 1)].reshape(s, p, h - 1)
            assert flags[0].mean() < 0.05 and flags[-1].mean() > 0.8


def test_positions_that_are_not_finite_are_marked():
    positions = np.random.default_rng(0).normal(size=(2, 3, 4, 2)) * (1e4, 1.0)
    positions[1, 2, 3] = np.nan
    integers, units = page.quantise(positions)
    assert (integers[1, 2, 3] == page.EMPTY).all() and (integers != page.EMPTY).sum() == positions.size - 2
    kept = np.isfinite(positions)
    error = np.abs(integers * units[:, None, None] - positions)
    assert (error[kept] <= (0.5001 * units[:, None, None] + 0 * error)[kept]).all()  # small coordinates stay sharp


def test_the_page_says_what_tune_chose(tmp_path):
    run = write_run(tmp_path / "run", "few")
    notes = embedded(page.page(run))["notes"]
    validation = {"seeds": 8, "return": 12.5, "gain": 6.0, "low": 5.0, "high": 7.0}
    about = {"method": "guided", "scale": 10.0, "reason": "the weakest of the best", "objective": "delivered"}
    (run / "scale.json").write_text(json.dumps(about | {"validation": validation}))
    *others, said = embedded(page.page(run))["notes"]
    assert others == notes
    assert said.startswith("diffplan tune: guided, scale 10: the weakest of the best. On 8 other seeds")
    (run / "scale.json").write_text('{"method": "guided"}')
    with pytest.raises(TableError, match=r"scale\.json: is damaged \(KeyError: 'scale'\)"):
        page.page(run)


def test_a_config_cannot_break_out_of_the_page(tmp_path):
    run = write_run(tmp_path / "run", "few")
    reconfigure(run, lambda config: config | {"note": "</script><b>"})
    assert embedded(page.page(run))["config"]["note"] == "</script><b>"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
@pytest.mark.parametrize(("kind", "method", "strength"), [("cells", "ascent", 300), ("series", "guided", 100)])
def test_the_page_shows_its_numbers_in_a_browser(pages, tmp_path, kind, method, strength):
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --user-data-dir={tmp_path} --virtual-time-budget=2000"
    command = ["chromium", *flags.split(), "--dump-dom", f"file://{pages[kind]}#{method}/{strength}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    for column, tone in (("proxy", "proxy"), ("promised", "return"), ("delivered", "return")):
        value = cells(pages[kind].parent, method, strength, column).mean()
        assert f'<b class="{tone}">{value:.1f}</b>' in shown
    name = methods_of(kind)[method][0]
    assert f'aria-valuetext="{name} {strength}"' in shown
    assert shown.count("<tr") == 1 + sum(len(points) for _, _, points in methods_of(kind).values())
