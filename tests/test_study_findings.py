"""Findings, checks and claims about several conditions, on numbers whose verdict is known by hand."""

import numpy as np
import pytest

from diffplan.metrics.table import TableError
from diffplan.studies.findings import (
    Sample,
    above,
    all_finite,
    below,
    by_seed,
    check,
    collect,
    mapped,
    seeds_of,
    summary,
)

SPREAD = np.array([-1.0, 1, -1, 1, -1, 1, -1, 1]) / 10  # of eight seeds: mean 0


def around(mean: float) -> np.ndarray:
    return mean + SPREAD


@pytest.mark.parametrize("missing", [np.nan, np.inf])
@pytest.mark.parametrize("judge", [above, below])
def test_a_number_that_is_not_there_is_refused(judge, missing):
    with pytest.raises(TableError, match="a claim: 2 of 3 numbers are missing or not finite"):
        judge("a claim", np.array([missing, 5.0, missing]), 0.0)
    with pytest.raises(TableError, match="1 of 2 numbers"):
        check("a theorem", np.array([missing, 5.0]), least=0)
    with pytest.raises(TableError, match="beside a finding"):
        summary(np.array([missing]))


def test_a_finding_says_of_how_many_seeds_it_is():
    finding = above("a claim", around(1.0), 0.0, missing=3)
    assert (finding.n, finding.missing, finding.verdict, finding.kind) == (8, 3, "supported", "finding")
    # more seeds without a number than with one: what is left may be a choice of seeds
    assert above("a claim", around(1.0), 0.0, missing=9).verdict == "inconclusive"
    assert above("a claim", np.array([3.0]), 0.0).verdict == "inconclusive"
    assert above("a claim", np.array([]), 0.0).n == 0


def test_seeds_that_cannot_have_a_number_are_counted():
    sample = collect({"at": 1}, [0, 1, 2, 3], lambda seed: None if seed == 2 else float(seed))
    np.testing.assert_array_equal(sample.values, [0, 1, 3])
    assert (sample.missing, sample.where) == (1, {"at": 1})


def test_a_check_passes_or_fails_and_one_seed_is_enough_to_fail():
    result = check("never below nothing", np.array([0.0, 2.0, 4.0]), least=0)
    assert (result.verdict, result.kind, result.threshold) == ("passes", "check", 0)
    assert (result.estimate, result.low, result.high, result.n) == (2, 0, 4, 3)
    assert check("never below nothing", np.array([-0.01, *[9.0] * 99]), least=0).verdict == "fails"
    assert check("never above one", np.array([0.5, 1.01]), most=1).verdict == "fails"
    assert check("of nothing", np.array([]), least=0).verdict == "fails"


def test_plans_that_are_not_finite_fail_the_check_and_exact_rows_have_none():
    assert all_finite({"finite": np.array([1.0, np.nan, 1.0])}).verdict == "passes"
    one = all_finite({"finite": np.array([1.0, np.nan, 0.75])})
    assert (one.verdict, one.low, one.n) == ("fails", 0.75, 2)
    assert all_finite({"seed": np.array([0.0])}).verdict == "fails"  # nothing says so


def test_the_map_of_a_constructed_table():
    """Means 1, 0 and -1 with a standard error of 0.04: holds, is open, is falsified."""
    means = {"a": 1.0, "b": 0.0, "c": -1.0}
    table = {
        "seed": np.tile(np.arange(8.0), 3),
        "place": np.repeat(list(means), 8),
        "value": np.concatenate([around(mean) for mean in means.values()]),
    }
    samples = [Sample({"place": name}, by_seed(table, "value", place=name)) for name in means]
    result = mapped(above, "it is above 0", samples, 0.0)
    assert [cell.verdict for cell in result.cells] == ["supported", "inconclusive", "falsified"]
    assert [cell.where["place"] for cell in result.cells] == ["a", "b", "c"]
    np.testing.assert_allclose([cell.estimate for cell in result.cells], [1, 0, -1], atol=1e-12)
    assert result.counts() == {"holds": 1, "falsified": 1, "open": 1}
    assert (result.verdict, result.n) == ("falsified", 8)
    assert mapped(above, "it", samples[:1], 0.0).verdict == "supported"
    assert mapped(above, "it", samples[:2], 0.0).verdict == "inconclusive"
    assert mapped(below, "it", samples[:1], 0.0).verdict == "falsified"


def test_a_cell_that_is_decided_alone_may_be_open_among_many():
    weak = around(0.0) + 0.09  # p = 0.04
    assert above("alone", weak, 0.0).verdict == "supported"
    many = [Sample({"k": k}, weak if k == 0 else around(0.0)) for k in range(10)]
    assert mapped(above, "among many", many, 0.0).counts() == {"holds": 0, "falsified": 0, "open": 10}


def table_of(values: list[float]) -> dict[str, np.ndarray]:
    return {"seed": np.array([0.0, 0, 1, 1]), "part": np.array(["x", "x", "x", "y"]), "value": np.array(values)}


def test_columns_are_averaged_within_seeds_and_a_hole_is_named():
    table = table_of([1.0, 3.0, 5.0, np.nan])
    np.testing.assert_array_equal(by_seed(table, "value", part="x"), [2, 5])
    np.testing.assert_array_equal(by_seed(table, "value", np.array([1.0]), part="x"), [5])
    np.testing.assert_array_equal(seeds_of(table, part="y"), [1])
    with pytest.raises(TableError, match="column 'value': 1 of 1 numbers are missing or not finite, where part=y"):
        by_seed(table, "value", part="y")
    with pytest.raises(TableError, match="seed 0 has no row where part=y"):
        by_seed(table, "value", np.array([0.0, 1.0]), part="y")
    with pytest.raises(TableError, match="1 of 3 numbers"):
        by_seed(table_of([1.0, np.nan, 5.0, 1.0]), "value", part="x")
