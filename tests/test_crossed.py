"""The crossed comparison: its plan, its worlds and what it makes of rows whose answer is known."""

import json
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffplan.metrics import table
from diffplan.studies.crossed import analysis, protocol, report
from diffplan.studies.crossed.protocol import BUDGETS, METHODS
from diffplan.studies.crossed.worlds import CLOSED, WORLDS

ROOT = Path(__file__).parents[1]


def test_every_level_meets_every_level_of_another_factor_once():
    cells = protocol.cells(WORLDS)
    assert len(cells) == 27 and [cell.number for cell in cells] == list(range(27))
    for world in WORLDS:
        mine = [cell for cell in cells if cell.world == world]
        for one, other in (("reward", "prior"), ("reward", "labels"), ("prior", "labels")):
            pairs = {(getattr(cell, one), getattr(cell, other)) for cell in mine}
            assert len(pairs) == len(mine) == 9


def test_nothing_that_tunes_is_scored():
    assert protocol.TUNING["prior"] not in protocol.PRIORS and protocol.TUNING["labels"] not in protocol.LABELS
    scored = {protocol.SCORED + cell.number for cell in protocol.cells(WORLDS)}
    assert len(scored) == 27 and protocol.TUNING["noise"] not in scored


def rows_with(effect) -> list[dict]:
    """Rows in which a method delivers ``effect(method, budget, world, reward, prior)`` standard deviations."""
    cells = protocol.cells(WORLDS)
    std = {"dense": 2.0, "rare": 0.5, "off_data": 7.0}
    rows = []
    for cell, method, budget, batch in product(cells, METHODS, BUDGETS, (0, 1)):
        size = effect(method, budget, cell.world, cell.reward, cell.prior)
        about = {"world": cell.world, "reward": cell.reward, "prior": cell.prior, "labels": cell.labels}
        returns = {"delivered": std[cell.reward] * (size + batch - 0.5), "promised": std[cell.reward] * (size + 1)}
        rows.append(about | returns | {"method": method, "budget": budget, "behaviour_std": std[cell.reward]})
    return [{name: str(value) for name, value in row.items()} for row in rows]


def test_a_difference_that_was_put_in_comes_out():
    """Noise that cells share drops out; a difference that depends on the cluster gives Student's interval over nine."""
    shift = {name: value for name, value in zip(sorted(WORLDS), (0.9, 1.0, 1.1), strict=True)}

    def effect(method, budget, world, reward, prior):
        return 3 * prior + (2 * shift[world] if method == "mppi" else 0)

    tests = {(each.name, each.budget): each for each in analysis.tests_of(rows_with(effect))}
    assert len(tests) == 2 * 11 + 2
    for budget in BUDGETS:
        mine = tests["mppi", budget]
        assert mine.cells == 27 and len(mine.clusters) == 9 and mine.verdict == "more"
        values = np.repeat([1.8, 2.0, 2.2], 3)
        half = stats.t.ppf(1 - protocol.LEVEL / 24 / 2, 8) * values.std(ddof=1) / 3
        np.testing.assert_allclose((mine.mean, mine.low, mine.high), (2, 2 - half, 2 + half), atol=1e-6)
        assert tests["tds", budget].verdict == "no difference shown" and tests["tds", budget].mean == 0


def test_rows_that_are_missing_leave_their_cells_out():
    rows = rows_with(lambda method, budget, world, reward, prior: float(method == "ppo"))
    kept = [row for row in rows if not (row["method"] == "ppo" and row["world"] == "umaze")]
    (mine,) = [each for each in analysis.tests_of(kept) if (each.name, each.budget) == ("ppo", BUDGETS[0])]
    assert mine.cells == 18 and len(mine.clusters) == 6 and mine.mean == 1
    tests = analysis.tests_of([row for row in rows if row["method"] != "ppo"])
    assert {each.verdict for each in tests if each.name == "ppo"} == {"no difference shown"}
    with pytest.raises(ValueError, match="for every test"):
        analysis.tests_of([row for row in rows if row["world"] == "umaze" and row["reward"] == "rare"])


def test_behaviour_of_the_rooms_never_enters_the_closed_one_and_can():
    task = WORLDS["rooms"].task(0, "off_data")
    rows = np.asarray(task.episodes().observations)
    assert not ((rows[:, 0] > 6) & (rows[:, 1] > 6)).any() and CLOSED.count("\n") == 12
    start = np.array([5.0, 9.0])
    with_door = task.bound(start, 30)
    assert with_door > 20  # the door at (7, 9) is open in the world itself
    stayed = max(float(task.reward(jnp.asarray(row), jnp.zeros(5))) for row in rows[:2000]) * 30
    assert with_door > stayed


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_pays_the_reward_that_it_was_asked_for(name):
    """Simulator and task agree, row by row, and nothing of the old reward is left."""
    for kind in WORLDS[name].rewards:
        task = WORLDS[name].task(0, kind)
        state = task.simulator.reset(jax.random.key(1))
        action = jnp.asarray(task.simulator.action_high, jnp.float32)
        after, moved = task.simulator.step(jax.random.key(2), state, action)
        assert float(moved.reward) == float(task.reward(task.simulator.observe(state), action))
        assert jax.tree.structure(after) == jax.tree.structure(state) and hash(task.simulator)
        assert task.plane is None or task.plane.region is None


@pytest.mark.parametrize("kind", ["dense", "rare", "off_data"])
def test_no_way_through_the_rooms_earns_more_than_the_bound(kind):
    task = WORLDS["rooms"].task(0, kind)
    rows = np.asarray(task.episodes().observations).reshape(500, 500, 2)[:50, :12]
    earned = np.asarray(jax.vmap(jax.vmap(task.reward, (0, None)), (0, None))(jnp.asarray(rows), jnp.zeros(5))).sum(1)
    bounds = [task.bound(row[0], 12) for row in rows]
    assert (earned <= np.asarray(bounds) + 1e-5).all()


def test_verdicts_and_figure_follow_from_the_rows(tmp_path):
    """Ascent is worse and promises more, selection gains most from time, and one rival is better than guidance."""
    rng = np.random.default_rng(0)

    def effect(method, budget, world, reward, prior):
        more = {"best_of_n": 2.0, "guided": 1.0}.get(method, 1.0) if budget == BUDGETS[-1] else 0.0
        return {"ascent_prior": -3.0, "guided_dps": 4.0}.get(method, 0.0) + more + 0.1 * rng.normal()

    rows = rows_with(effect)
    for row in rows:
        extra = 2.0 if row["method"] == "ascent_prior" else 0.0
        row["promised"] = str(float(row["promised"]) + extra * float(row["behaviour_std"]))
    base = [row | {"method": "behaviour", "budget": "0", "delivered": "0"} for row in rows if row["method"] == "tds"]
    table.write(tmp_path / "rows.csv", rows + base, tuple(rows[0]))
    report.write(tmp_path)
    claims = json.loads((tmp_path / "verdict.json").read_text())["claims"]
    assert [claim["verdict"] for claim in claims] == ["falsified", "supported", "supported", "supported"]
    assert len(table.read_rows(tmp_path / "tests.csv")) == 24
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    lines = {(row["method"], float(row["budget"])): row for row in table.read_rows(tmp_path / "summary.csv")}
    assert float(lines["guided_dps", BUDGETS[0]]["delivered"]) == pytest.approx(4.0, abs=0.1)


def test_the_page_says_what_the_protocol_says():
    page = (ROOT / "docs" / "crossed.md").read_text()
    for words in (
        f"Every method gets {protocol.EVALUATIONS} evaluations",
        f"{1000 * BUDGETS[0]:g} and {1000 * BUDGETS[1]:g} milliseconds a plan",
        f"A cell has {protocol.PLANS * protocol.BATCHES} plans",
        "There are 24 tests",
        *(f"`{name}`" for name in METHODS),
        *(f"`{name}`" for name in protocol.INSTEAD.values()),
    ):
        assert words in page, words
