"""The table layer: what is written is read again, errors name their place, and the best strength is feasible."""

import numpy as np
import pytest

from diffplan.metrics.table import COLUMNS, TableError, best, matching, read, read_rows, write


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
    assert best(returns, np.array([0.0, 0.02, 0.5, 0.0])) == 1
    assert best(returns, np.array([0.3, 0.3, 0.5, 0.0])) == 2  # the only feasible strength has no return
    assert len(set(COLUMNS)) == len(COLUMNS) and COLUMNS[:3] == ("method", "strength", "seed")
