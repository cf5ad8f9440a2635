"""The reward of single rows: a linear reward is recovered, noise bounds what is explained, episodes are kept apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.learn import row_reward
from diffplan.learn.row_reward import RowReward, RowRewardSettings
from diffplan.learn.train import TrainSettings

SETTINGS = RowRewardSettings(TrainSettings(steps=600, batch=128, learning_rate=1e-2, chunk=100), width=32, depth=1)
WEIGHTS = np.array([0.5, -3.0, 20.0])
"""Of a position of some hundreds, a speed of about 1, and an action of about 0.1: what each says is of one size."""


def episodes(noise: float, seed: int = 0) -> Episodes:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2000, 3)) * [6.0, 1.0, 0.15] + [300.0, 0.0, 0.0]
    rewards = rows @ WEIGHTS + 7 + noise * rng.normal(size=2000)
    rows = rows.astype(np.float32)
    return Episodes(rows[:, :2], rows[:, 2:], np.full(20, 100), rewards.astype(np.float32))


def windows(data: Episodes, codec: Codec) -> Windows:
    return Windows.of(data, codec, 1)


def fit(data: Episodes) -> tuple[RowReward, Codec]:
    codec = Codec.fit(data.observations, data.actions)
    return row_reward.fit(windows(data, codec), codec, SETTINGS), codec


@pytest.fixture(scope="module")
def exact() -> tuple[RowReward, Codec]:
    """Learned from rewards without noise."""
    return fit(episodes(0.0))


def test_a_linear_reward_is_recovered(exact):
    """On rows of other episodes, in the environment's units."""
    reward, codec = exact
    other = episodes(0.0, seed=1)
    guess = np.asarray(jax.vmap(reward)(jnp.asarray(other.observations), jnp.asarray(other.actions)))
    assert other.rewards is not None
    assert np.abs(guess - other.rewards).mean() < 0.1 * other.rewards.std()
    assert guess.mean() == pytest.approx(300 * WEIGHTS[0] + 7, rel=0.01)
    assert row_reward.explained(reward, windows(other, codec)) > 0.98


def test_its_gradient_is_the_weights(exact):
    """At the middle of the data: each entry's own weight, whatever its unit."""
    reward, _ = exact
    slope = jax.grad(lambda row: reward(row[:2], row[2:]))(jnp.asarray([300.0, 0.0, 0.0]))
    np.testing.assert_allclose(slope, WEIGHTS, rtol=0.15)


def test_noise_on_rewards_bounds_what_is_explained():
    """Half of the variance is noise, that nobody can explain: 50 % of it is, on rows that were not learned from."""
    signal = np.sqrt(np.sum((WEIGHTS * [6.0, 1.0, 0.15]) ** 2))
    reward, codec = fit(episodes(float(signal)))
    assert row_reward.explained(reward, windows(episodes(float(signal), seed=1), codec)) == pytest.approx(0.5, abs=0.08)


def test_what_is_explained_is_one_less_the_error_over_the_variance():
    """A constant guess explains nothing, a guess that is off by a standard deviation less than nothing."""
    data = episodes(0.0)
    assert data.rewards is not None
    codec = Codec.fit(data.observations, data.actions)
    guess = lambda value: RowReward(
        (), codec, jnp.asarray(value, jnp.float32), jnp.zeros(()), lambda params, z: jnp.zeros(1)
    )
    mean, std = float(data.rewards.mean()), float(data.rewards.std())
    assert row_reward.explained(guess(mean), windows(data, codec)) == pytest.approx(0, abs=1e-3)
    assert row_reward.explained(guess(mean + std), windows(data, codec)) == pytest.approx(-1, abs=1e-2)


def test_rewards_that_never_change_are_learned_at_once():
    data = episodes(0.0)
    data = data._replace(rewards=np.full(2000, 4.0, np.float32))
    codec = Codec.fit(data.observations, data.actions)
    short = RowRewardSettings(TrainSettings(steps=2, batch=8, chunk=2), width=4, depth=1)
    reward = row_reward.fit(windows(data, codec), codec, short)
    assert float(reward(jnp.asarray([300.0, 0.0]), jnp.zeros(1))) == pytest.approx(4.0, abs=1e-4)
