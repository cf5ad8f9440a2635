"""The table layer: what is written is read again, errors name their place, and the best strength is feasible."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from diffplan.metrics.table import (
    COLUMNS,
    TableError,
    behaviour_feasible,
    best,
    best_strength,
    columns_of,
    converged,
    feasible,
    headline,
    matching,
    read,
    read_rows,
    write,
)


def test_numbers_text_and_missing_values_come_back(tmp_path):
    rows = [
        {"name": "a, b", "x": 1 / 3, "n": 3, "left out": 1},
        {"name": "", "x": float("nan"), "n": 10**6},
        {"name": "c", "x": np.float32(1e-9), "n": None},
    ]
    path = write(tmp_path / "deep" / "table.csv", rows, ("name", "x", "n", "absent"))
    assert path.read_text() == 'name,x,n,absent\n"a, b",0.333333,3,\n,,1000000,\nc,1e-09,,\n'
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]  # nothing is left beside it
    table = read(path, ("x", "n"))
    assert table["name"].tolist() == ["a, b", "", "c"] and np.isnan(table["absent"]).all()
    np.testing.assert_allclose(table["x"], [1 / 3, np.nan, 1e-9], rtol=1e-5)
    np.testing.assert_array_equal(table["n"], [3, 1e6, np.nan])
    assert read_rows(path)[0] == {"name": "a, b", "x": "0.333333", "n": "3", "absent": ""}
    assert matching(table, name="c").tolist() == [False, False, True]
    assert matching(table, n=3, x=0).tolist() == [False, False, False]


def test_a_table_is_replaced_only_when_it_is_whole(tmp_path):
    path = write(tmp_path / "table.csv", [{"x": 1}], ("x",))

    def broken():
        yield {"x": 2}
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write(path, broken(), ("x",))
    assert path.read_text() == "x\n1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n", "no rows"),
        ("x\n1\n", "column 'y' is missing"),
        ("x,y\n1,2\n3,much\n", "line 3, column 'y': 'much' is not a number"),
        ("x,y\n1,2\n3\n", "line 3 has 1 cells, must have 2"),
    ],
)
def test_an_error_names_file_line_and_column(tmp_path, text, words):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(TableError) as error:
        read(path, ("x", "y"))
    assert str(error.value).startswith(str(path)) and words in str(error.value)
    with pytest.raises(TableError, match="no such file"):
        read(tmp_path / "nowhere.csv")


def test_the_best_strength_is_feasible_where_one_is():
    returns = np.array([1.0, 3.0, 9.0, np.nan])
    assert best(returns, np.array([True, True, False, True])) == 1
    assert best(returns, np.array([True, False, False, True])) == 0
    assert best(returns, np.array([False, False, False, True])) == 2  # the only feasible strength has no return
    assert best(np.array([2.0, 5.0, 5.0]), np.ones(3, bool)) == 1  # the weakest of equals


def test_a_strength_is_feasible_where_enough_of_its_plans_surely_are():
    """Wilson's limit by scipy says so too; one plan of 96 decides nothing, and fewer plans never make feasible."""
    surely = lambda good, plans, own=1.0: bool(feasible(np.array([good / plans]), np.array([plans]), own)[0])
    limit = lambda good, plans: stats.binomtest(good, plans).proportion_ci(0.9, method="wilson").low
    for plans in (8, 16, 24, 25, 96, 1000):
        for good in range(plans + 1):
            assert surely(good, plans) == (limit(good, plans) >= 0.9)
    assert surely(96, 96) and surely(95, 96) and surely(92, 96) and not surely(88, 96)
    assert surely(25, 25) and not surely(24, 24)
    assert not surely(870, 1000) and surely(870, 1000, own=0.93)  # behaviour itself is infeasible now and then
    assert feasible(np.array([np.nan]), np.array([10]), 1.0).all()  # nothing is known
    for fraction in (0.5, 0.95, 1.0):
        passes = [surely(fraction * plans, plans) for plans in range(20, 2000, 20)]
        assert passes == sorted(passes)


def rows_at(promised: list[float], finer: list[float], **others: float) -> list[dict[str, float]]:
    return [{"promised": a, "finer_promised": b, "finite": 1.0} | others for a, b in zip(promised, finer, strict=True)]


def test_a_strength_has_converged_where_its_change_is_small_or_within_its_interval():
    assert converged(rows_at([10, 12], [10.5, 12.6]))  # 5 %
    assert converged(rows_at([10, 12], [11, 13]))  # 1 of 12 is less than a tenth
    assert not converged(rows_at([10, 12], [11.5, 13.5]))  # 1.5 of 12.5, surely
    assert converged(rows_at([10, 12], [11, 14]))  # 1.5 of 12.5, but of 1 and 2 the interval is 6.4 wide
    assert not converged(rows_at([10], [11.5]))  # one seed has no interval
    assert not converged(rows_at([10, 10], [10, 10], finite=0.5))
    assert converged(rows_at([0, 0], [0, 0]))


def test_a_tenth_of_all_plans_may_change_whether_they_are_feasible():
    of = lambda before, after: rows_at([5, 5], [5, 5], feasible=before, finer_feasible=after)
    assert converged(of(0.05, 0.14))
    assert not converged(of(0.5, 0.61))


def test_what_is_not_known_says_nothing_of_convergence():
    assert converged([{"finite": 1.0, "promised": 1.0}])
    assert converged(rows_at([10, 12], [10, 12], delivered=np.nan, finer_delivered=np.nan))  # nothing is carried out


def test_a_return_that_is_lost_has_not_converged():
    """Of one seed, no plan is finite that was drawn again; without it the other's interval is unknown."""
    assert not converged(rows_at([10, 12], [10, np.nan]))


def test_behaviour_says_what_fraction_is_its_own():
    rows = [{"method": "behaviour", "feasible": "0.9"}, {"method": "behaviour", "feasible": 0.8}, {"method": "prior"}]
    assert behaviour_feasible(rows) == pytest.approx(0.85)
    assert behaviour_feasible([{"method": "prior", "feasible": 0.1}, {"method": "behaviour", "feasible": ""}]) == 1.0


def test_the_best_strength_of_rows_is_by_means_over_seeds():
    """A strength whose return is missing in one seed is not compared."""
    row = {"feasible": 1.0, "plans": 48}
    of = lambda strength, *returns: [row | {"strength": strength, "promised": r} for r in returns]
    assert best_strength(of(0.0, 3.0, 3.0) + of(1.0, 9.0, 1.0) + of(2.0, 0.0, 2.0)) == 1.0
    assert best_strength(of(0.0, 3.0, 3.0) + of(1.0, 9.0, np.nan)) == 0.0
    infeasible = [row | {"feasible": 0.0} for row in of(1.0, 9.0, 1.0)]
    assert best_strength(of(0.0, 3.0, 3.0) + infeasible) == 0.0


def test_the_headline_is_the_first_that_is_known():
    """What is delivered, else promised, else the proxy: NaN or a missing column is not known."""
    nan, one = np.array([np.nan, np.nan]), np.array([np.nan, 1.0])
    assert headline({"delivered": one, "promised": one}.get) == "delivered"
    assert headline({"delivered": nan, "promised": one, "proxy": one}.get) == "promised"
    assert headline({"proxy": one}.get) == headline({}.get) == "proxy"
    row = {"feasible": 1.0, "plans": 48}
    rows = [row | {"strength": s, "delivered": d, "promised": s} for s, d in ((0.0, 2.0), (1.0, 1.0))]
    assert best_strength(rows) == 0.0
    assert best_strength([row | {"delivered": np.nan} for row in rows]) == 1.0


def test_a_column_stands_for_every_way_to_be_infeasible(tmp_path):
    """After `feasible`, by name; where rows differ, cells are empty."""
    rows = [{"feasible": 1.0, "violations.walls": 0.5}, {"violations.bounds": 0.0}]
    at = COLUMNS.index("feasible")
    wide = (*COLUMNS[: at + 1], "violations.bounds", "violations.walls", *COLUMNS[at + 1 :])
    assert columns_of(rows) == wide and columns_of([]) == COLUMNS
    path = write(tmp_path / "results.csv", rows)
    assert tuple(path.read_text().splitlines()[0].split(",")) == wide
    assert [row["violations.walls"] for row in read_rows(path)] == ["0.5", ""]
    assert len(set(COLUMNS)) == len(COLUMNS) and COLUMNS[:4] == ("task", "method", "strength", "seed")


def test_every_column_is_documented():
    text = (Path(__file__).parents[1] / "results" / "README.md").read_text()
    lines = text.partition("The columns of `results.csv`")[2].splitlines()
    named = [name for line in lines if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert set(named) == set(COLUMNS) and len(named) == len(COLUMNS)
