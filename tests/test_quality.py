"""How good a learned reward is: rank correlation and calibration of proxies whose answers are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import struct
from scipy import stats

from diffplan.episodes import from_stacked
from diffplan.experiment.quality import quality, rank
from diffplan.learn.prior import PriorSettings
from diffplan.methods import Problem
from diffplan.noise import karras
from diffplan.planner.build import Builder, split
from diffplan.planner.decide import decide
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.samplers import Sampler
from diffplan.task import Task

KEY = jax.random.key(3)
CONFIG = PlannerSettings(prior=PriorSettings(horizon=8, stride=1, patch=4))


def builder(rewarded: bool = True) -> Builder:
    """White noise, whose reward is the cube of the first entry."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 60, 3)).astype(np.float32)
    reward = (lambda observation, action: observation[0] ** 3) if rewarded else None
    task = Task.from_episodes(from_stacked(rows[..., :2], rows[..., 2:]), "noise", reward=reward)
    episodes = task.episodes()
    decided = decide(CONFIG, task, episodes)
    return Builder(Run(Path()), task, decided, split(task, decided, episodes, "noise"), reward)


@struct.dataclass
class Scored:
    """A proxy that is a function of plans, clean or noisy."""

    score: Callable[[jax.Array], jax.Array] = struct.field(pytree_node=False)

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        """The energy, at any level the score."""
        return self.score(x)

    def reward(self, x: jax.Array) -> jax.Array:
        """The score."""
        return self.score(x)


def problem(build: Builder, **proxies: Scored) -> Problem:
    identity = jax.tree_util.Partial(lambda x, sigma: x)
    sampler = Sampler(karras(6, 0.02, 10.0), (8, build.data.codec.width))
    return replace(Problem(denoise=identity, codec=build.data.codec, sampler=sampler), **proxies)


def measured(build: Builder, **proxies: Scored) -> dict:
    """The quality of these proxies, on 512 windows."""
    return quality(KEY, build, problem(build, **proxies), 512)


def returns_of(build: Builder) -> tuple[np.ndarray, jax.Array]:
    """(returns of the windows that are looked at, these windows)."""
    held_out = build.data.held_out
    first = held_out.places(KEY, 512)
    return np.asarray(build.returns(held_out, first)), jax.vmap(held_out.at)(first)


def test_a_proxy_is_ranked_as_scipy_ranks_it(capsys):
    """The score is the sum of the first entries, not of their cubes: related, but not the same."""
    build = builder()
    score = lambda x: x[:, 0].sum()
    table = measured(build, clean=Scored(score))
    returns, x = returns_of(build)
    scores = np.asarray(jax.vmap(score)(x))
    assert set(table) == {"clean"}
    expected = float(stats.spearmanr(scores, returns)[0])  # pyright: ignore
    assert table["clean"]["rank_correlation"] == pytest.approx(expected, abs=1e-4) and 0.3 < expected < 0.95
    slope = np.cov(scores, returns)[0, 1] / scores.var(ddof=1) / returns.std()
    assert table["clean"]["calibration"] == pytest.approx(slope, rel=1e-3)
    assert table["clean"]["windows"] == 512
    assert f"rank correlation {expected:.2f}" in capsys.readouterr().out


def test_a_perfect_and_a_perverse_proxy():
    """The return itself, in standard deviations, promises what it should; its opposite promises the opposite."""
    build = builder()
    returns, _ = returns_of(build)
    mean, std = float(returns.mean()), float(returns.std())

    def score(x):
        plan = build.data.codec.decode(x)
        return ((plan.observations[:, 0] ** 3).sum() - mean) / std

    good = measured(build, clean=Scored(score))["clean"]
    bad = measured(build, clean=Scored(lambda x: -score(x)))["clean"]
    half = measured(build, clean=Scored(lambda x: score(x) / 2))["clean"]
    assert good["rank_correlation"] == pytest.approx(1) and good["calibration"] == pytest.approx(1, abs=1e-3)
    assert bad["rank_correlation"] == pytest.approx(-1) and bad["calibration"] == pytest.approx(-1, abs=1e-3)
    assert half["rank_correlation"] == pytest.approx(1) and half["calibration"] == pytest.approx(2, abs=1e-3)


def test_noise_takes_the_rank_correlation_away():
    """Noise-conditioned proxies are looked at from the largest level down; only clean plans say anything at the end."""
    build = builder()
    table = measured(build, regression=Scored(lambda x: x[:, 0].sum()))["regression"]
    levels, correlations = np.asarray(table["levels"]), np.asarray(table["rank_correlation_at_levels"])
    sigmas = np.asarray(karras(6, 0.02, 10.0))
    assert len(levels) == 5 and levels[0] == pytest.approx(sigmas[0]) and np.isin(levels, sigmas).all()
    clean = table["rank_correlation"]
    assert abs(correlations[0]) < 0.25 * clean  # noise of 10 standard deviations
    assert correlations[-1] == pytest.approx(clean, abs=0.02)
    assert (np.diff(correlations) > -0.1).all()


def test_what_is_constant_has_no_rank_and_no_reward_no_table():
    assert np.isnan(rank(np.zeros(5), np.arange(5.0)))
    build = builder()
    flat = measured(build, clean=Scored(lambda x: x[0, 0] * 0))["clean"]
    assert np.isnan(flat["rank_correlation"]) and np.isnan(flat["calibration"])
    bare = builder(rewarded=False)
    assert measured(bare, clean=Scored(lambda x: x.sum())) == {}
