"""The class that was left out: judges against geometry done another way, the classifier against a vote of plans."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.guide import guided
from diffplan.metrics.table import read
from diffplan.models import build
from diffplan.models.pieces import Pieces
from diffplan.samplers import sample
from diffplan.studies.drawing import draw
from diffplan.studies.frame import StudySettings, execute
from diffplan.studies.held_out_class import figure as report
from diffplan.studies.held_out_class import paths, study

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


def test_half_dose_of_curves_whose_middle_is_known() -> None:
    """A line in log leak through one half at 0.5 % between 0.2 % and 1 %; never, and always."""
    fraction = (np.log(0.5) - np.log(0.2)) / (np.log(1) - np.log(0.2))
    line = [0.0, 0.0, 0.5 - fraction * 0.8, 0.5 + (1 - fraction) * 0.8, 1.0]
    result = study.half_dose(np.array([line, [0.0] * 5, [1.0] * 5]))
    np.testing.assert_allclose(10**result, [0.5, 5.0, 0.05], rtol=1e-3)


@pytest.mark.slow
def test_study_in_small(tmp_path: Path) -> None:
    directory = execute(study.STUDY, StudySettings(run=tmp_path, seeds=2, size=0.05))
    table = read(directory / "study.csv")
    assert len(table["hit"]) == 2 * 4 * 7 * len(study.LEAKS) * len(study.SCALES)
    assert np.all(table["hit"] <= np.minimum(table["shown"], table["valid"]) + 1e-6)
    unguided = table["scale"] == 0
    assert np.all(table["path_kl"][unguided] < 1e-3)
    assert np.all(table["hit"][unguided & (table["network"] == "exact") & (table["leak"] == 0)] < 0.1)
    written = json.loads((directory / "verdict.json").read_text())
    assert len(written["findings"]) == 22
    assert draw(directory, report.compose).stat().st_size > 50_000

    # the same table with every plan a hit: what says "never" is falsified, what says "always" supported
    result = study.verdict(table | {"hit": np.ones_like(table["hit"])})
    never = [finding.verdict for finding in result if finding.threshold == 0.2]
    always = [finding.verdict for finding in result if "density" in finding.statement]
    assert set(never) == {"falsified"} and set(always) == {"supported"}
