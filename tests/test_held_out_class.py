"""The class that was left out: judges against geometry done another way, the classifier against a vote of plans."""

import json
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.guide import guided
from diffplan.metrics.table import TableError, read
from diffplan.models import build
from diffplan.models.pieces import Pieces
from diffplan.samplers import sample
from diffplan.studies.drawing import draw
from diffplan.studies.frame import StudySettings, execute
from diffplan.studies.held_out_class import figure as report
from diffplan.studies.held_out_class import paths, study, verdict

GEOMETRIES = pytest.mark.parametrize("geometry", paths.GEOMETRIES, ids=lambda geometry: geometry.name)


def plans(key: jax.Array, geometry: paths.Geometry, label: int, count: int) -> jax.Array:
    waypoints = jnp.asarray(geometry.waypoints[label], jnp.float32)
    return jax.vmap(lambda key: paths.behave(key, waypoints))(jax.random.split(key, count))


def fine(x: np.ndarray) -> np.ndarray:
    """The path between its steps as well: a hundred points a step."""
    fraction = np.linspace(0, 1, 100)[:, None, None]
    return ((1 - fraction) * x[:-1] + fraction * x[1:]).transpose(1, 0, 2).reshape(-1, 2)


def judged(geometry: paths.Geometry, x: np.ndarray) -> tuple[bool, bool]:
    """(clear, shows) from the path between its steps, by other rules than the study's."""
    points, start, end = fine(x), x[0], x[-1]
    match geometry.name:
        case "composition":
            clear = np.min(np.abs(points), axis=1).max() < paths.CORRIDOR
            ends = np.subtract(start, (2, 0)), np.subtract(end, (0, 2))
        case "homotopy":
            below = points[np.argmin(np.abs(points[:, 0])), 1] < 0  # where it passes the obstacle
            clear = np.hypot(*points.T).min() > paths.OBSTACLE
            ends = np.subtract(start, (-1.6, 0)), np.subtract(end, (1.6, 0))
            return bool(clear), bool(below) and max(np.hypot(*end) for end in ends) < paths.NEAR
        case _:
            speed = 4 if geometry.name == "near speed" else 6
            return bool(np.abs(points[:, 1]).max() < paths.CORRIDOR), round(np.hypot(*(end - start))) == speed
    return bool(clear), max(np.hypot(*end) for end in ends) < paths.NEAR


@GEOMETRIES
def test_behaviour_is_valid_and_shows_its_class_alone(key: jax.Array, geometry: paths.Geometry) -> None:
    for label in range(paths.CLASSES):
        x = plans(jax.random.fold_in(key, label), geometry, label, 400)
        shown, valid = geometry.judge(x)
        assert float(valid.mean()) > 0.97
        assert float(shown.mean()) > 0.93 if label == study.HELD_OUT else float(shown.mean()) < 0.04


@GEOMETRIES
def test_judges_agree_with_geometry_done_another_way(key: jax.Array, geometry: paths.Geometry) -> None:
    """On behaviour bent and shrunk out of shape, so that every judge says both yes and no."""
    keys = jax.random.split(key, paths.CLASSES)
    x = jnp.concatenate([plans(keys[y], geometry, y, 60) for y in range(paths.CLASSES)])
    bend = 0.5 * jax.random.normal(key, (len(x), 1, 2)) * jnp.linspace(-1, 1, paths.STEPS)[None, :, None] ** 2
    x = (x + bend) * jnp.tile(jnp.linspace(0.5, 1.1, 60), paths.CLASSES)[:, None, None]
    clear, shows = np.array([judged(geometry, path) for path in np.asarray(x)]).T
    assert 0 < clear.mean() < 1 and 0 < shows.mean() < 1
    assert np.mean(np.asarray(jax.vmap(geometry.clear)(x)) == clear) > 0.98  # a hundred points a step can miss a corner
    np.testing.assert_array_equal(geometry.judge(x)[0], shows)


@GEOMETRIES
def test_perfect_classifier_is_a_vote_of_plans(key: jax.Array, geometry: paths.Geometry) -> None:
    """p(y | x_sigma) is Bayes' rule over clean plans of all classes in equal parts, each weighed by its kernel."""
    sigma, count = 1.5, 4000
    bank = np.stack([np.asarray(plans(jax.random.fold_in(key, y), geometry, y, count)) for y in range(4)])
    distribution = paths.distribution(geometry.waypoints)
    classify = jax.jit(lambda x: study.energies(distribution, {})["perfect"](x, jnp.asarray(sigma)))
    result, voted = [], []
    for i in range(12):
        x = bank[i % 4, i] + sigma * np.random.default_rng(i).normal(size=(16, 2)).astype(np.float32)
        weights = np.exp(-((bank - x) ** 2).sum(axis=(2, 3)) / (2 * sigma**2)).mean(axis=1)
        voted.append(weights[3] / weights.sum())
        result.append(float(jnp.exp(classify(jnp.asarray(x, jnp.float32)))))
    assert np.ptp(voted) > 0.5
    np.testing.assert_allclose(result, voted, atol=0.04)


def test_the_control_draws_the_class_where_the_prior_has_none(key: jax.Array) -> None:
    """(114) at a large scale is the class's own denoiser, so its plans have the class's mean and spread."""
    distribution = paths.distribution(paths.GEOMETRIES[0].waypoints)
    prior = study.prior("exact", jnp.asarray(study.log_odds(0.0)), distribution)
    energy = study.energies(distribution, {})["density"]
    pushed = guided(prior, energy, study.strengths("density", jnp.asarray(1e4)))
    x = jax.jit(jax.vmap(lambda key: sample(key, pushed, study.sampler())[0]))(jax.random.split(key, 200))
    draws = plans(jax.random.fold_in(key, 1), paths.GEOMETRIES[0], study.HELD_OUT, 4000)
    np.testing.assert_allclose(x.mean(axis=0), draws.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(x.std(axis=0).mean(), draws.std(axis=0).mean(), rtol=0.1)


def test_shares_of_training(key: jax.Array) -> None:
    waypoints = jnp.asarray(paths.GEOMETRIES[0].waypoints, jnp.float32)
    for leak in (0.0, 0.05):
        behaviour = study.Behaviour(waypoints, jnp.asarray(study.log_odds(leak)))
        _, asked, free = jax.vmap(behaviour.labelled)(jax.random.split(key, 20_000))
        assert float(asked.mean()) == pytest.approx(leak, abs=0.006)
        assert not bool(free.any())


def test_pieces_are_blind_to_each_other(key: jax.Array) -> None:
    x, level = jax.random.normal(key, (16, 2)), jnp.zeros(())
    for pieces, blind in ((1, False), (2, True), (4, True)):
        apply, params = build(key, lambda rngs, k=pieces: Pieces(16, 2, pieces=k, width=8, rngs=rngs))
        slopes = jax.jacobian(apply, argnums=1)(params, x, level)
        assert bool(jnp.any(slopes[:4, :, :4] != 0))
        assert bool(jnp.all(slopes[:8, :, 8:] == 0) & jnp.all(slopes[8:, :, :8] == 0)) == blind
    with pytest.raises(ValueError, match="pieces=3"):
        build(key, lambda rngs: Pieces(16, 2, pieces=3, rngs=rngs))


def constructed(hit: dict[tuple[str, str], float]) -> dict[str, np.ndarray]:
    """A table in which the fraction of plans that hit depends on the prior and the guide alone."""
    rows = []
    for geometry, network, guide in product(("composition", "homotopy"), study.NETWORKS, study.GUIDES):
        for leak, scale in product(study.LEAKS, study.SCALES):
            for seed in range(12 if network == "exact" else 4):
                near = 0.01 * (-1) ** seed
                values = {"hit": hit.get((network, guide), 0.1) + near, "score": 0.9 + near, "finite": 1.0}
                where = {"geometry": geometry, "network": network, "guide": guide, "leak": leak, "scale": scale}
                rows.append(where | values | {"seed": float(seed)})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_a_learned_prior_stands_beside_the_exact_prior_of_its_data() -> None:
    """The joint prior hits in 0.1 of its plans and the exact one in 0.4, guided by the perfect classifier alone."""
    table = constructed({("exact", "perfect"): 0.4, ("local", "perfect"): 0.9, ("joint", "density"): 0.95})
    result = {one.statement: one for one in verdict.verdict(table)}
    words = "class not in the data, joint prior, classifiers: fraction of plans that hit, at scale 10"
    first = next(cell for cell in result[words].cells if cell.where["guide"] == "perfect")
    assert (first.verdict, first.n, first.estimate) == ("supported", 4, pytest.approx(0.1))
    assert (first.beside["exact"]["estimate"], first.beside["exact"]["n"]) == (pytest.approx(0.4), 12)
    learned = next(cell for cell in result[words].cells if cell.where["guide"] == "learned")
    assert learned.beside["exact"]["estimate"] == pytest.approx(0.1)
    exact = result[words.replace("joint", "exact")]
    verdicts = {(cell.where["geometry"], cell.where["guide"]): cell.verdict for cell in exact.cells}
    assert verdicts["homotopy", "perfect"] == "falsified" and verdicts["homotopy", "learned"] == "supported"
    assert result[words.replace("joint", "local").replace("classifiers", "other geometries, classifiers")].counts() == {
        "holds": 1,
        "falsified": 1,
        "open": 0,
    }
    every = [cell for one in result.values() for cell in one.cells]
    assert all("exact" in cell.beside for cell in every) and all(not cell.missing for cell in every)


def test_a_control_that_does_not_show_its_class_fails_its_check() -> None:
    for hits, expected in ((0.95, "passes"), (0.805, "fails")):  # in the first, every seed is above 0.8
        table = constructed({("joint", "density"): hits})
        checks = [one.verdict for one in verdict.controls(table, ["composition", "homotopy"])]
        assert checks == [expected] * 2


def test_a_score_that_is_missing_is_refused() -> None:
    table = constructed({})
    table["score"][(table["network"] == "joint") & (table["seed"] == 1)] = np.nan
    with pytest.raises(TableError, match=r"column 'score': 1 of 4 numbers are missing or not finite, where .*joint"):
        verdict.verdict(table)


def test_plans_that_are_not_finite_have_no_score_and_count_as_misses() -> None:
    x = np.tile(np.asarray(plans(jax.random.key(0), paths.GEOMETRIES[0], study.HELD_OUT, 4)), (1, 1, 1, 1, 1, 1))
    x = np.concatenate([x, np.full_like(x, np.nan)], axis=2)
    x[0, 0, 0, 0] = np.nan
    sampled = study.Sampled(jnp.asarray(x), jnp.full(x.shape[:-2], 0.7), jnp.ones(x.shape[:-2]))
    result = study.measures(paths.GEOMETRIES[0], sampled)
    np.testing.assert_allclose(result["finite"][0, 0], [0.75, 0])
    np.testing.assert_allclose(result["score"][0, 0], [0.7, np.nan], rtol=1e-6)
    assert result["hit"][0, 0, 0] <= 0.75 and result["hit"][0, 0, 1] == 0


@pytest.mark.slow
def test_study_in_small(tmp_path: Path) -> None:
    directory = execute(study.STUDY, StudySettings(run=tmp_path, seeds=2, size=0.05))
    table = read(directory / "study.csv")
    conditions = len(study.LEAKS) * len(study.SCALES)
    assert len(table["hit"]) == 4 * conditions * (2 * 7 + 3 * 2)  # seeds of what is trained, and of what is exact
    assert np.all(table["hit"] <= np.minimum(table["shown"], table["valid"]) + 1e-6)
    unguided = table["scale"] == 0
    assert np.all(table["path_kl"][unguided] < 1e-3)
    assert np.all(table["hit"][unguided & (table["network"] == "exact") & (table["leak"] == 0)] < 0.3)
    written = json.loads((directory / "verdict.json").read_text())
    assert all(cell["exact"]["n"] >= 2 for one in written["maps"] for cell in one["cells"])
    assert draw(directory, report.compose).stat().st_size > 50_000

    # the same table with every plan a hit: what says "never" is falsified, what says "always" supported
    result = study.verdict(table | {"hit": np.ones_like(table["hit"])})
    never = [finding.verdict for finding in result if finding.threshold == 0.2]
    always = [finding.verdict for finding in result if "density" in finding.statement]
    assert set(never) == {"falsified"} and set(always) == {"supported", "passes"}
