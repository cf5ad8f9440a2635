"""The studies of pressure and of two rewards: their pieces against what is known, and a small run of each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.methods import Ascent, Prior
from diffplan.methods.shooting import Shooting
from diffplan.metrics.table import TableError, read
from diffplan.studies import frame, grids
from diffplan.studies.drawing import draw
from diffplan.studies.frame import StudySettings
from diffplan.studies.pareto import figure as pareto_figure
from diffplan.studies.pareto import study as pareto
from diffplan.studies.pressure import figure as pressure_figure
from diffplan.studies.pressure import study as pressure
from diffplan.studies.pressure import verdict as judged

WALK = pressure.chain()
KL = np.linspace(0.2, 3.1, 20) ** 2


@pytest.mark.parametrize(("form", "bend"), [("best of n", lambda d: d), ("RL", np.log)])
def test_each_form_is_found_where_it_holds(form, bend):
    d = np.sqrt(KL)
    result = judged.fits(KL, d * (2 - 0.4 * bend(d)))
    a, b, errors = result.pop(form)
    assert (a, b) == (pytest.approx(2, abs=1e-6), pytest.approx(0.4, abs=1e-6)) and np.abs(errors).max() < 1e-6
    assert np.abs(next(iter(result.values()))[2]).max() > 0.01  # the other form misses the held-out part
    gap = judged.form_gap({"kl": KL, "gold_gain": d * (2 - 0.4 * bend(d))})
    assert gap is not None and (gap < 0) == (form == "best of n")
    assert judged.form_gap({"kl": KL[KL < 4], "gold_gain": d[KL < 4]}) is None


GAINS = np.linspace(0, 5, 11)


def curves(offset: float, seeds: int = 4) -> dict[str, np.ndarray]:
    """A table of a tilt whose gold is half its proxy gain, and of methods that are `offset` below it.

    best of n: from the prior, at n = 1, on. slow: at strengths 0 to 3, within the tilt's range but for the last. wild:
    beyond the range, but in the last seed.
    """
    rows = []
    for labels in (300, 30_000):
        for seed in range(seeds):
            about = {"seed": float(seed), "labels": labels, "a": 0.5, "b": 0.0}
            for k, gain in enumerate(GAINS):
                along = about | {"kl": float(k), "proxy_gain": gain}
                rows.append(along | {"method": "exact tilt", "strength": k, "gold": gain / 2})
                gold = 99.0 if k == 0 else gain / 2 - offset
                rows.append(along | {"method": "best of n", "strength": k + 1, "gold": gold})
            for strength, gain in ((0, 2.0), (1, 0.3), (2, 3.3), (3, 9.0)):
                gold = 99.0 if strength == 0 else gain / 2 - offset
                rows.append(about | {"method": "slow", "strength": strength, "proxy_gain": gain, "gold": gold})
            for strength, gain in ((0, 0.0), (1, 2.2 if seed == seeds - 1 else 40.0)):
                rows.append(about | {"method": "wild", "strength": strength, "proxy_gain": gain, "gold": 0.0})
    names = ("seed", "labels", "method", "strength", "kl", "proxy_gain", "gold", "a", "b")
    table = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    gold = table.pop("gold")
    return table | {"gold_gain": gold, "gold_delivered": gold.copy(), "finite": np.ones(len(rows))}


def matched(table):
    return judged.matched(table, partial(judged.curve, table), 300)


@pytest.mark.parametrize("offset", [0.4, -0.4])
def test_a_constant_offset_is_the_lead_at_equal_proxy(offset):
    """Strength 0, far off, says nothing, and neither does a gain that the tilt does not have."""
    samples, mean = matched(curves(offset))
    best, slow, wild = samples
    np.testing.assert_allclose(best.values, [offset] * 4, atol=1e-12)  # n = 1 is the prior
    np.testing.assert_allclose(slow.values, [offset] * 4, atol=1e-12)
    assert (slow.missing, slow.beside) == (0, {"points": 8})
    np.testing.assert_allclose(wild.values, [1.1])
    assert (wild.missing, wild.beside) == (3, {"points": 1})
    np.testing.assert_allclose(mean.values, [offset] * 3 + [(2 * offset + 1.1) / 3])


def test_the_direction_of_the_lead_is_said_for_every_method_and_number_of_labels():
    result = {one.statement: one for one in judged.verdict(curves(-0.4))}
    one = next(one for words, one in result.items() if "(167)" in words)
    verdicts = {(cell.where["labels"], cell.where["method"]): (cell.verdict, cell.n) for cell in one.cells}
    assert verdicts[300, "slow"] == verdicts[30_000, "slow"] == ("falsified", 4)
    assert verdicts[300, "wild"] == ("inconclusive", 1)
    assert one.counts() == {"holds": 0, "falsified": 4, "open": 2} and one.verdict == "falsified"


@pytest.mark.parametrize(("column", "method"), [("gold_delivered", "slow"), ("proxy_gain", "exact tilt")])
def test_a_hole_in_a_curve_is_refused(column, method):
    table = curves(0.4)
    table[column][np.flatnonzero((table["method"] == method) & (table["seed"] == 2))[1]] = np.nan
    with pytest.raises(TableError, match=f"column '{column}': 1 of .* where method={method}, labels=300, seed=2"):
        matched(table)


def test_a_turn_is_measured_from_the_peak_to_ten_nats():
    kl = np.array([0.0, 2.0, 5.0, 9.0, 20.0])
    assert judged.turn({"kl": kl, "gold_gain": np.array([0.0, 1.0, 3.0, 2.5, -8.0])}) == pytest.approx(0.5)
    assert judged.turn({"kl": kl, "gold_gain": np.array([0.0, -1.0, -2.0, -3.0, 9.0])}) == pytest.approx(3.0)
    assert judged.turn({"kl": kl, "gold_gain": np.arange(5.0)}) == 0


@pytest.fixture(scope="module")
def given() -> pressure.Case:
    return pressure.make_case(jax.random.key(3), WALK, 1000)


def test_a_proxy_is_standardised_and_its_tilt_has_the_nats_asked_for(given):
    mean, std = grids.moments(WALK, given.proxy)
    assert float(mean) == pytest.approx(float(given.proxy_mean), abs=1e-4)
    assert float(std) == pytest.approx(1, abs=1e-3)
    result = jax.jit(partial(pressure.tilted, WALK, given))(jnp.asarray([0.01, 1.0, 9.0]))
    np.testing.assert_allclose(result["kl"], [0.01, 1.0, 9.0], rtol=2e-3)
    assert (np.diff(result["proxy_gain"]) > 0).all()


def test_a_is_the_slope_of_the_exact_curve_at_the_prior(given):
    """Draws of the prior foretell R / d for d to 0, whatever the distribution of the proxy."""
    paths = jax.vmap(WALK.draw)(jax.random.split(jax.random.key(0), 20_000))
    a, _ = pressure.slope_and_bend(given, grids.visits(paths, pressure.SIDE**2))
    result = pressure.tilted(WALK, given, jnp.asarray([1e-3]))
    assert float(a) == pytest.approx(float(result["gold_gain"][0]) / np.sqrt(1e-3), rel=0.05)


@pytest.mark.slow
def test_a_rater_of_many_labels_is_right_and_one_of_few_is_not():
    fit = lambda labels: pressure.make_case(jax.random.key(5), WALK, labels)
    gain = lambda given: float(pressure.tilted(WALK, given, jnp.asarray([4.0]))["gold_gain"][0])
    assert gain(fit(30_000)) > gain(fit(300)) + 0.2 > gain(fit(100)) + 0.2


@pytest.mark.slow
def test_the_study_of_pressure_in_small(tmp_path, monkeypatch):
    ascent = Ascent((0, 5), proxy=pressure.undenoised, rate=0.3, anneal=0)
    few = ((Prior(), "exact"), (ascent, "none"), (Shooting("cross-entropy method", (0, 1), population=8), "none"))
    monkeypatch.setattr(pressure, "quick", lambda walk, config: few)
    monkeypatch.setattr(pressure, "slow", lambda walk, config: ())
    monkeypatch.setattr(pressure, "LABELS", (100, 300, 1000, 30_000))
    directory = frame.execute(pressure.STUDY, StudySettings(run=tmp_path, seeds=2, exact_seeds=60, size=0.05))
    result = frame.conclude(pressure.STUDY, directory)
    assert [one.verdict for one in result if one.kind == "check"] == ["passes"]
    cells = [cell for one in result for cell in one.cells]
    assert all(np.isfinite(cell.estimate) or cell.missing for cell in cells)
    methods = {cell.where.get("method") for cell in cells}
    assert {"ascent", "cross-entropy method", "best of n"} <= methods and "prior" not in methods
    table = read(directory / "study.csv")
    assert len(np.unique(table["seed"])) == 3 and len(np.unique(table["seed"][table["method"] == "ascent"])) == 2
    one = (table["labels"] == 100) & (table["method"] == "best of n") & (table["strength"] == 1)
    assert len(np.unique(table["gold_gain"][one])) == 3  # every seed has a pool of its own
    assert draw(directory, pressure_figure.compose).stat().st_size > 20_000


@pytest.mark.slow
def test_the_front_of_the_sum_has_its_ends_in_common_with_the_mixture_and_bulges():
    given = pareto.make_pair(jax.random.key(0), WALK, None)
    fractions = jnp.linspace(0, 1, 5)
    both = jax.jit(lambda given: pareto.fronts(WALK, given, fractions))(given)
    np.testing.assert_allclose(both["sum"]["kl"], pareto.NATS, rtol=5e-3)
    for name in ("gold_1", "gold_2"):
        np.testing.assert_allclose(both["sum"][name][::4], both["mixture"][name][::4], atol=1e-5)
    # of all distributions within these nats, and the mixture is one, the tilt by the weighted sum has most of that sum
    weigh = lambda front: (1 - fractions) * front["gold_1"] + fractions * front["gold_2"]
    summed, mixed = weigh(both["sum"]), weigh(both["mixture"])
    assert (summed >= mixed - 1e-4).all() and summed[2] > mixed[2]


@pytest.mark.slow
def test_the_study_of_two_rewards_in_small(tmp_path, monkeypatch):
    monkeypatch.setattr(pareto, "GUIDED", (0.0, 1.0))
    directory = frame.execute(pareto.STUDY, StudySettings(run=tmp_path, seeds=2, size=0.05))
    verdicts = [one.verdict for one in frame.conclude(pareto.STUDY, directory) if one.kind == "check"]
    assert verdicts == ["passes", "passes"]
    assert draw(directory, pareto_figure.compose).stat().st_size > 10_000


def front(scale: float) -> dict[str, np.ndarray]:
    """A quarter of a circle for the sum, the line between its ends for the mixture, and guidance at `scale` of it."""
    rows = []
    for seed in range(4):
        for model in ("perfect", "learned"):
            for angle, fraction in zip(np.linspace(0, np.pi / 2, 5), np.linspace(0, 1, 5), strict=True):
                arc = np.array([np.cos(angle), np.sin(angle)]) * (1 + 0.01 * seed)
                line = np.array([1 - fraction, fraction]) * (1 + 0.01 * seed)
                for method, point in {"sum": arc, "mixture": line, "guided": scale * arc}.items():
                    rows.append((float(seed), model, method, fraction, *point, *point, 1.0))
    columns = ("seed", "reward_model", "method", "fraction", *pareto.VALUES, "finite")
    return dict(zip(columns, map(np.array, zip(*rows, strict=True)), strict=True))


def test_a_front_that_breaks_the_theorem_fails_the_check():
    table = front(0.5)
    first = pareto.verdict(table)[0]
    assert (first.kind, first.verdict) == ("check", "passes")
    table["proxy_1"] = np.where(table["method"] == "mixture", 1.2 * table["proxy_1"], table["proxy_1"])
    assert pareto.verdict(table)[0].verdict == "fails"


def test_the_area_of_guidance_is_that_of_the_exact_front_at_its_fractions():
    """Half of every point has a quarter of the area, although guidance has fewer fractions than the exact front."""
    table = front(0.5)
    kept = (table["method"] != "guided") | np.isin(table["fraction"], (0.0, 0.5, 1.0))
    samples = pareto.guided_over_exact({name: values[kept] for name, values in table.items()}, "perfect", "gold")
    np.testing.assert_allclose(samples.values, [0.25] * 4, rtol=1e-5)
