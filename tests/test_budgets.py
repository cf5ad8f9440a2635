"""Equal budgets, on a run that is made up so that every answer is known."""

import json

import numpy as np
import pytest

from diffplan.metrics.table import COLUMNS, columns_of, read_rows, write
from diffplan.report import budgets
from diffplan.report.load import read_results
from diffplan.report.summary import curves

ROWS = [
    # method, strength, proxy, promised, delivered, path_kl, exact_kl, infeasible, evaluations, seconds
    ("prior", 0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0, 10, 0.01),
    ("guided", 0, 0.0, 5.0, 5.0, 0.0, None, 0.0, 20, 0.02),
    ("guided", 10, 2.0, 9.0, 9.0, 4.0, None, 0.0, 20, 0.02),
    ("guided", 30, 3.0, 20.0, 6.0, 9.0, None, 0.0, 20, 0.02),  # promises most
    ("guided", 100, 9.0, 30.0, 30.0, 99.0, None, 0.5, 20, 0.02),  # infeasible
    ("best_of_n", 1, 0.0, 5.0, 5.0, None, 0.0, 0.0, 11, 0.01),
    ("best_of_n", 8, 1.0, 8.0, 8.0, None, 1.2, 0.0, 88, 0.08),
    ("best_of_n", 64, 2.0, 12.0, 12.0, None, 3.2, 0.0, 704, 0.64),
    ("ascent", 0, 0.1, 4.0, 4.0, None, None, 0.0, 0, 0.0),
    ("ascent", 50, 20.0, 2.0, 2.0, None, None, 1.0, 50, 0.05),
    ("bound", 0, None, 40.0, 40.0, None, None, 0.0, None, None),
]
FIELDS = ("method", "strength", "proxy", "promised", "delivered", "path_kl", "exact_kl", "infeasible")


@pytest.fixture
def run(tmp_path):
    rows = []
    for *values, evaluations, seconds in ROWS:
        known = dict(zip(FIELDS, values, strict=True))
        known |= {"feasible": 1 - known["infeasible"], "violations.walls": known["infeasible"], "seconds": seconds}
        known |= {"task": "umaze", "plans": 40, "network_evals": evaluations, "finite": 1}
        rows += [known | {"seed": seed, "delivered": known["delivered"] + seed - 1} for seed in range(3)]
    write(tmp_path / "results.csv", rows)
    families = {"prior": "prior", "guided": "guidance", "best_of_n": "selection", "ascent": "ascent"}
    methods = {method: {"strength_name": "strength", "family": family} for method, family in families.items()}
    task = {"name": "umaze", "return": "steps", "observations": ["x", "y"], "violations": {"walls": "through walls"}}
    (tmp_path / "config.json").write_text(json.dumps({"task": task, "methods": methods}))
    return tmp_path


def test_the_best_within_a_budget_delivers_most_and_is_feasible_and_affordable(run):
    every = budgets.rows(curves(read_results(run)))
    result = {(row.method, row.unit, row.budget): row for row in every}
    assert result["best_of_n", "evaluations", 100].strength == 8
    assert result["best_of_n", "evaluations", 1000].delivered == pytest.approx(12)
    assert result["guided", "evaluations", 100].delivered == pytest.approx(9)  # 30 was infeasible, 20 only promised
    assert result["guided", "evaluations", 100].promised == pytest.approx(9)
    assert result["guided", "evaluations", 100].pressure == pytest.approx(4)
    assert np.isnan(result["guided", "evaluations", 10].delivered)  # cannot afford it
    assert result["prior", "evaluations", 10].delivered == pytest.approx(5)
    assert result["ascent", "evaluations", 1000].strength == 0  # the only feasible one
    assert result["best_of_n", "seconds", 0.1].strength == 8
    assert result["guided", "seconds", 0.1].low == pytest.approx(9 - 4.303 / np.sqrt(3), abs=1e-3)  # Student, 3 seeds
    assert "bound" not in {row.method for row in every}


def test_methods_without_pressure_say_so_in_the_table(run, tmp_path):
    by_method = curves(read_results(run))
    header, lines = budgets.table(by_method)
    nats = {line[0]: line[1] for line in lines}
    assert nats["gradient ascent"] == "none" and nats["best of n"] == "3.2" and nats["prior, unguided"] == "0"
    assert lines[0][0] == "best of n"  # the best at the largest budget comes first
    assert header[:2] == ["method", "nats"] and "1000 evals" in header
    assert len(read_rows(budgets.write(run, tmp_path / "out"))) == len(budgets.rows(by_method))


def test_the_table_of_the_test_has_the_columns_of_a_run(run):
    assert set(columns_of(read_rows(run / "results.csv"))) == {*COLUMNS, "violations.walls"}
