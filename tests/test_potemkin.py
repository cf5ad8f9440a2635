"""The painted goal: its exact answers by enumerating every path, the distributions on a pool by generic optimisers."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, linprog, minimize

from diffplan.envs.base import Environment
from diffplan.envs.gridworld import MOVES, Gridworld
from diffplan.envs.potemkin import STREET, Potemkin, street
from diffplan.metrics.table import read
from diffplan.oracle.tabular import markov
from diffplan.studies.drawing import draw
from diffplan.studies.findings import below, mapped
from diffplan.studies.frame import StudySettings, execute
from diffplan.studies.potemkin import figure as picture
from diffplan.studies.potemkin import pools, study
from diffplan.studies.potemkin import verdict as judged

ROOM = Gridworld.from_text("######\n#OGOO#\n#O#O##\n######")  # the cell at the right has one door
GOLD = (0.3, 1.0, 0.1, 0.0, 0.2, 0.4)
SMALL = Potemkin(ROOM, GOLD, (1, 4), bonus=3.0, door=0.05)
STEPS, START = 6, 4


def every_path(env):
    """(paths [n, h], log p [n]) of behaviour, by trying all moves; paths made by several moves stand several times."""
    log_pi, next_cell = np.log(env.behaviour), env.grid.next_cell.tolist()
    paths, log_p = [], []
    for moves in itertools.product(range(len(MOVES)), repeat=STEPS - 1):
        path, total = [START], 0.0
        for move in moves:
            total += log_pi[path[-1], move]
            path.append(next_cell[path[-1]][move])
        paths.append(path)
        log_p.append(total)
    return np.array(paths), np.array(log_p)


def parts_of(env):
    start = jnp.eye(len(env.gold))[START]
    return study.split(markov(start, jnp.asarray(env.kernel, jnp.float32), STEPS), env.cell)


@pytest.fixture(scope="module")
def small():
    """(environment, its parts, every path, log p, ratings of cells)."""
    env = SMALL.with_mass(1e-3, START, STEPS)
    return env, parts_of(env), *every_path(env), np.asarray(env.observed)


def test_the_door_sets_the_mass():
    for mass in (1e-2, 1e-6):
        env = SMALL.with_mass(mass, START, STEPS)
        paths, log_p = every_path(env)
        assert np.exp(log_p).sum() == pytest.approx(1)
        assert np.exp(log_p)[(paths == env.cell).any(axis=1)].sum() == pytest.approx(mass, rel=1e-9)
    with pytest.raises(ValueError, match=r"mass=0.9: must be between"):
        SMALL.with_mass(0.9, START, STEPS)


def test_the_paint_is_for_the_rater_alone(key):
    env = street(np.linspace(0.1, 0.9, 80))
    assert isinstance(env, Environment)
    places, action = jnp.asarray(STREET.cells, jnp.float32), jnp.eye(5)[0]
    gold, rating = (np.asarray(jax.vmap(f, (0, None))(places, action)) for f in (env.reward, env.rating))
    assert gold[env.cell] == 0 and (gold[env.grid.cells.tolist().index(list(env.grid.goal))] == gold.max() == 1)
    np.testing.assert_allclose(rating - gold, 2.0 * np.all(STREET.cells == 9, axis=1), atol=1e-6)
    state = env.state_of(jnp.asarray([9.0, 8.0]))
    new, transition = env.step(key, state, jnp.eye(5)[4])
    assert transition.reward == gold[state.cell] and new.cell == env.cell
    np.testing.assert_array_equal(env.observe(new), [9.0, 9.0])
    np.testing.assert_allclose(env.kernel.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"painted": (0, 0)}, r"painted=\(0, 0\): must be the \(row, column\) of a free cell"),
        ({"painted": (1, 3), "gold": (0.3, 1.0, 0.0, 0.0, 0.2, 0.4)}, r"3 moves lead into it, must be 1"),
        ({"gold": (0.0,)}, "gold: 1 values, must be one for each of 6 cells"),
        ({"gold": (0.1,) * 6}, "gold=0.1 in the painted cell: must be 0"),
        ({"door": 0.0}, "door=0.0: must be above 0 and below 1"),
    ],
)
def test_worlds_say_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_the_transition_is_that_of_all_paths(small):
    env, parts, paths, log_p, observed = small
    hacked = (paths == env.cell).any(axis=1)
    returns, gold = observed[paths].sum(axis=1), np.array(GOLD)[paths].sum(axis=1)

    def tilted(weight):
        q = np.exp(log_p + weight * returns)
        return q / q.sum()

    rating, pays = jnp.asarray(observed, jnp.float32), jnp.asarray(GOLD, jnp.float32)
    curve, result = jax.jit(study.tilts, static_argnums=3)(parts, rating, pays, env.cell)
    fraction = lambda event, level: brentq(lambda weight: tilted(weight)[event].sum() - level, 0, 10)
    expected = {"predicted": 0.5, "ten": 0.1, "ninety": 0.9, "observed": 0.5}
    for name, level in expected.items():
        assert float(result[name]) == pytest.approx(fraction(hacked, level), abs=1e-3)
    assert float(result["ending"]) == pytest.approx(fraction(paths[:, -1] == env.cell, 0.5), abs=1e-3)
    for i in (0, 12, 20, -1):
        q = tilted(study.WEIGHTS[i])
        assert float(curve["gold"][i]) == pytest.approx(q @ gold, abs=1e-3)
        assert float(curve["kl"][i]) == pytest.approx(q @ (np.log(q) - log_p), abs=1e-3)
        assert float(curve["p_hack"][i]) == pytest.approx(q[hacked].sum(), rel=1e-3)
        assert float(curve["p_end"][i]) == pytest.approx(q[paths[:, -1] == env.cell].sum(), rel=1e-3)
    std = np.sqrt(tilted(0) @ (returns - tilted(0) @ returns) ** 2)
    assert float(curve["gain"][20]) == pytest.approx((tilted(study.WEIGHTS[20]) - tilted(0)) @ returns / std, rel=1e-3)


def test_a_paint_that_pays_too_little_has_no_transition(small):
    env, parts, *_ = small
    rating = jnp.asarray(replace(env, bonus=0.2).observed, jnp.float32)
    result = jax.jit(study.tilts, static_argnums=3)(parts, rating, jnp.asarray(GOLD, jnp.float32), env.cell)[1]
    assert np.isnan([float(result[name]) for name in ("predicted", "observed", "ending")]).all()


def test_a_pool_of_few_paths_stands_for_the_prior_and_its_tilts(small, key):
    _, parts, paths, log_p, observed = small
    rating, pays = jnp.asarray(observed, jnp.float32), jnp.asarray(GOLD, jnp.float32)
    pool = pools.pool_of(jax.jit(study.samples, static_argnums=4)(key, parts, rating, pays, 500))
    assert pool.weight.sum() == pytest.approx(1) and (np.diff(pool.rating) <= 0).all()
    assert pool.weight @ pool.hacked == pytest.approx(1e-3, rel=1e-3)  # from draws of which half are hacked
    returns, gold = observed[paths].sum(axis=1), np.array(GOLD)[paths].sum(axis=1)
    for weight in (0.0, 0.7, 2.0):
        q = np.exp(log_p + weight * returns)
        on_pool = pool.weight * np.exp(weight * pool.rating)
        assert on_pool.sum() == pytest.approx(q.sum(), rel=0.03)
        assert on_pool @ pool.gold / on_pool.sum() == pytest.approx(q @ gold / q.sum(), rel=0.03)


def toy(seed, n=9):
    """A pool of few paths."""
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.ones(n))
    return pools.Pool(np.sort(rng.normal(size=n))[::-1], rng.normal(size=n), np.arange(n) == 0.0, weight)


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_chi_squared_is_the_optimum_of_a_convex_solver(strength):
    for seed in range(3):
        pool = toy(seed)
        price = lambda q, p=pool.weight: (np.sum(q**2 / p) - 1) / (2 * strength)
        loss = lambda q, pool=pool, price=price: price(q) - q @ pool.rating
        one = {"type": "eq", "fun": lambda q: q.sum() - 1}
        options = {"maxiter": 1000, "ftol": 1e-14}
        best = minimize(loss, pool.weight, bounds=[(0, 1)] * 9, constraints=one, method="SLSQP", options=options)
        result = pools.chi_squared(pool, strength)
        assert result.sum() == pytest.approx(1)
        assert loss(result) <= best.fun + 1e-9
        np.testing.assert_allclose(result, best.x, atol=1e-4)


def test_best_of_n_is_that_of_all_draws():
    pool = toy(0, 5)
    expected = np.zeros(5)
    for draws in itertools.product(range(5), repeat=4):
        expected[min(draws)] += np.prod(pool.weight[list(draws)])  # the highest rated stands first
    np.testing.assert_allclose(pools.best_of_n(pool, 3.0), expected, atol=1e-12)


def test_the_quantiliser_is_the_best_distribution_with_a_bounded_ratio():
    for seed in range(3):
        pool = toy(seed)
        best = linprog(-pool.rating, A_eq=np.ones((1, 9)), b_eq=[1], bounds=[(0, 3 * p) for p in pool.weight])
        np.testing.assert_allclose(pools.quantiliser(pool, 2.0), best.x, atol=1e-9)


@pytest.mark.parametrize("name", list(pools.PUSHES))
def test_ways_of_pushing_begin_at_the_prior_and_rise(name):
    pool = toy(1)
    np.testing.assert_allclose(pools.PUSHES[name](pool, 0.0), pool.weight, atol=1e-12)
    curve = pools.selections(pool)[name]
    assert (np.diff(curve["gain"]) >= -1e-6).all() and (np.diff(curve["kl"]) >= -1e-6).all()
    assert curve["proxy"][-1] == pytest.approx(pool.rating[0], abs=1e-3)
    if name != "chi_squared":  # no path more than 1 + strength times as likely
        assert (curve["p_hack"] <= (1 + curve["strength"]) * pool.weight[0] * (1 + 1e-9)).all()


@pytest.mark.parametrize("weight", [0.3, 1.5])
def test_settled_occupancy_is_an_optimum(small, weight):
    """By the Frank-Wolfe gap over all paths: no distribution of paths can beat it by more."""
    _, parts, paths, _, observed = small
    chain, rating = parts.whole, jnp.asarray(observed, jnp.float32)
    table = jax.jit(study.settle, static_argnums=4)(chain, rating, jnp.asarray(weight), jnp.zeros(6), 3000)
    distribution = chain.tilted(study.per_step(table, STEPS))[0]
    d, before = (np.asarray(one.occupancy(), float).mean(axis=0) for one in (distribution, chain))
    slope = weight * observed - np.log(d / before)
    gap = slope[paths].sum(axis=1).max() - STEPS * d @ slope
    worth = STEPS * (weight * d @ observed - d @ np.log(d / before))
    assert gap < 0.01 * (worth - STEPS * weight * before @ observed)


def test_a_fooled_ensemble_sees_paint_and_a_blind_member_does_not():
    noise = np.zeros((5, 80))
    cell, gold = 79, np.append(np.linspace(0, 1, 79), 0.0)
    judged = study.reward_models(gold, noise, cell, 2.0)
    assert {name for name, rating in judged.items() if rating.argmax() == cell} == {"one", "mean", "least", "cautious"}
    assert judged["least, one blind"][cell] == 0 and judged["cautious, one blind"][cell] == pytest.approx(0.32)


def constructed(of_method) -> dict[str, np.ndarray]:
    """A table of the tilt, hacked in 0.1 of its plans, and of a method, hacked in of_method(mass, bonus, nats)."""
    rows = []
    for seed, mass, bonus, nats in itertools.product(range(8), (1e-2, 1e-4), (1.0, 2.0), (2.0, 6.0)):
        noise = 1e-4 * (-1) ** seed
        about = {"part": "matched", "seed": float(seed), "mass": mass, "bonus": bonus, "by": "kl", "at": nats}
        about["reward_model"] = "one"
        rows.append(about | {"method": "tilt", "p_hack": 0.1})
        rows.append(about | {"method": "best_of_n", "p_hack": of_method(mass, bonus, nats) + noise})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_the_map_of_a_method_says_where_it_is_hacked_less_and_where_more():
    """Half as often but at mass 1e-2 and 6 nats, where it is twice as often: D is -1/3 and 1/3 (166)."""
    worse = (1e-2, 6.0)
    table = constructed(lambda mass, bonus, nats: 0.2 if (mass, nats) == worse else 0.05)
    finding = mapped(below, "less", judged.compared(table, "p_hack", "best_of_n", "kl"), 0.0)
    assert finding.counts() == {"holds": 6, "falsified": 2, "open": 0} and finding.verdict == "falsified"
    for cell in finding.cells:
        more = (cell.where["mass"], cell.where["nats"]) == worse
        assert cell.verdict == ("falsified" if more else "supported") and cell.n == 8
        assert cell.estimate == pytest.approx(1 / 3 if more else -1 / 3, abs=1e-3)
    assert {cell.where["bonus"] for cell in finding.cells} == {1.0, 2.0}


def test_where_nobody_is_hacked_nobody_is_hacked_less():
    np.testing.assert_allclose(judged.less_often(np.array([0.0, 0.0, 0.3]), np.array([0.0, 0.2, 0.0])), [0, -1, 1])


def test_a_method_that_does_not_reach_a_pressure_has_seeds_missing():
    table = constructed(lambda *where: 0.05)
    gone = (table["method"] == "best_of_n") & (table["seed"] < 3) & (table["at"] == 6.0)
    samples = judged.compared({name: values[~gone] for name, values in table.items()}, "p_hack", "best_of_n", "kl")
    assert {(sample.where["nats"], len(sample.values), sample.missing) for sample in samples} == {(2, 8, 0), (6, 5, 3)}


def test_curves_have_no_row_beyond_their_end():
    curve = {"kl": np.array([0.0, 1.0, 3.0]), "gain": np.array([0.0, 1.5, 2.5]), "gold": np.array([0.0, 1.0, 2.0])}
    rows = {(row["by"], row["at"]): row["gold"] for row in study.matched(curve, {})}
    assert rows == {("kl", 1.0): 1.0, ("kl", 2.0): 1.5, ("gain", 1.0): pytest.approx(2 / 3), ("gain", 2.0): 1.5}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small run of the study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "MASSES", (1e-2, 1e-3, 1e-6))
        yield execute(study.STUDY, StudySettings(run=tmp_path_factory.mktemp("studies"), seeds=2, size=0.05))


@pytest.mark.slow
def test_the_study_runs_and_has_its_findings(directory):
    content = json.loads((directory / "verdict.json").read_text())
    result = {one["statement"]: one for one in content["findings"]}
    assert len(result) == len(content["findings"])
    maps = {one["statement"]: one["cells"] for one in content["maps"]}
    checks = {words: one for words, one in result.items() if one["kind"] == "check"}
    assert len(checks) == 6 and {one["verdict"] for one in checks.values()} == {"passes"}
    sudden = next(cells for words, cells in maps.items() if "90 % and 10 %" in words)
    assert len(sudden) == 6 and all(1 < cell["estimate"] < 3 for cell in sudden)
    nats = next(cells for words, cells in maps.items() if "best of n" in words and "nats" in words)
    axes = [{cell["where"][axis] for cell in nats} for axis in ("mass", "bonus", "nats")]
    assert axes == [{1e-2, 1e-3, 1e-6}, set(study.BONUSES), set(study.NATS)]
    table = read(directory / "study.csv")
    seeds = lambda rows: len(np.unique(table["seed"][rows]))
    assert (seeds(table["part"] == "transition"), seeds(table["part"] == "matched")) == (3, 2)
    assert draw(directory, picture.compose).stat().st_size > 10_000


COMMITTED = Path(__file__).parents[1] / "results" / "studies" / "potemkin" / "study.csv"


def test_a_late_transition_falsifies_the_prediction():
    table = read(COMMITTED)
    before = judged.transitions(table)
    after = judged.transitions(table | {"ending": 1.5 * table["predicted"]})
    assert (before[0].kind, before[0].verdict, after[0].verdict) == ("check", "passes", "passes")
    assert before[1].verdict != "falsified" and after[1].verdict == "falsified"
    assert judged.transitions(table | {"observed": 1.5 * table["predicted"]})[0].verdict == "fails"


def test_an_ensemble_that_is_not_fooled_fails_the_check():
    table = read(COMMITTED)
    table["p_hack"] = np.where(table["reward_model"] == "mean", 0.1, table["p_hack"])
    verdicts = {
        words: one.verdict for one in judged.ensembles(table) for words in [one.statement] if one.kind == "check"
    }
    assert {words: verdict for words, verdict in verdicts.items() if verdict == "fails"}.keys() == {
        words for words in verdicts if "mean of five" in words
    }
