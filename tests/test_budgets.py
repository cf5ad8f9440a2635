"""Equal budgets and the three axes, on a run that is made up so that every answer is known."""

import json

import numpy as np
import pytest

from diffplan.metrics.table import COLUMNS
from diffplan.report import axes, budgets
from diffplan.report.load import read_results
from diffplan.report.summary import curves

ROWS = [
    # method, strength, proxy, gold, path_kl, exact_kl, in walls, evaluations, seconds
    ("prior", 0, 0.0, 5.0, 0.0, 0.0, 0.0, 10, 0.01),
    ("guided", 0, 0.0, 5.0, 0.0, None, 0.0, 20, 0.02),
    ("guided", 10, 2.0, 9.0, 4.0, None, 0.0, 20, 0.02),
    ("guided", 100, 9.0, 30.0, 99.0, None, 0.5, 20, 0.02),  # through walls
    ("best_of_n", 1, 0.0, 5.0, None, 0.0, 0.0, 11, 0.01),
    ("best_of_n", 8, 1.0, 8.0, None, 1.2, 0.0, 88, 0.08),
    ("best_of_n", 64, 2.0, 12.0, None, 3.2, 0.0, 704, 0.64),
    ("ascent", 0, 0.1, 4.0, None, None, 0.0, 0, 0.0),
    ("ascent", 50, 20.0, 2.0, None, None, 1.0, 50, 0.05),
]


@pytest.fixture
def run(tmp_path):
    lines = [",".join(COLUMNS)]
    for method, strength, proxy, gold, path, exact, walls, evals, seconds in ROWS:
        for seed in range(3):
            known = {
                "method": method,
                "strength": strength,
                "seed": seed,
                "plans": 4,
                "proxy": proxy,
                "seconds": seconds,
            }
            known |= {"promised": gold + seed - 1, "path_kl": path, "exact_kl": exact, "violations.walls": walls}
            known |= {"network_evals": evals, "proxy_evals": 0, "env_steps": 0, "open_loop": 1, "tracked": 2}
            lines.append(",".join("" if known.get(name) is None else str(known[name]) for name in COLUMNS))
    (tmp_path / "results.csv").write_text("\n".join(lines))
    families = {"prior": "prior", "guided": "guidance", "best_of_n": "selection", "ascent": "ascent"}
    methods = {method: {"strength_name": "strength_name", "family": family} for method, family in families.items()}
    (tmp_path / "config.json").write_text(json.dumps({"environment": "umaze", "methods": methods}))
    return tmp_path


def test_the_best_within_a_budget_is_valid_and_affordable(run):
    result = {(row.method, row.unit, row.budget): row for row in budgets.rows(run)}
    assert result["best_of_n", "evaluations", 100].strength == 8
    assert result["best_of_n", "evaluations", 1000].promised == pytest.approx(12)
    assert result["guided", "evaluations", 100].promised == pytest.approx(9)  # 30 was through walls
    assert result["guided", "evaluations", 100].pressure == pytest.approx(4)
    assert np.isnan(result["guided", "evaluations", 10].promised)  # cannot afford it
    assert result["prior", "evaluations", 10].promised == pytest.approx(5)
    assert result["ascent", "evaluations", 1000].strength == 0  # the only valid one
    assert result["best_of_n", "seconds", 0.1].strength == 8
    assert result["guided", "seconds", 0.1].low == pytest.approx(9 - 4.303 / np.sqrt(3), abs=1e-3)  # Student, 3 seeds


def test_methods_without_pressure_say_so_in_the_table(run):
    header, lines = budgets.table(run)
    nats = {line[0]: line[1] for line in lines}
    assert nats["gradient ascent"] == "none" and nats["best of n"] == "3.2" and nats["prior: no push"] == "0"
    assert lines[0][0] == "best of n"  # the best at the largest budget comes first
    assert header[:2] == ["method", "nats"] and "1000 evals" in header
    assert (budgets.write(run)).read_text().count("\n") == 1 + len(budgets.rows(run))


def test_no_method_is_left_off_the_axis_of_proxy_gain(run):
    result = curves(read_results(run))
    for curve in result.values():
        assert np.isfinite(axes.where(curve, 1)).all() and np.isfinite(axes.where(curve, 2)).all()
    assert np.isnan(axes.where(result["ascent"], 0)).all()
    np.testing.assert_allclose(axes.where(result["best_of_n"], 0), [0, 1.2, 3.2])
    np.testing.assert_allclose(axes.where(result["guided"], 1), [0, 2, 9])
    np.testing.assert_allclose(axes.relative(np.array([0, 1, 10, 100.0])), [0, 0.1, 0.55, 1])
    png, pdf = axes.axes_figure(run)
    assert png.stat().st_size > 10_000 and pdf.exists()
