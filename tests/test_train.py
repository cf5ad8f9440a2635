"""Training: it finds what closed forms say it must, and resumes bit by bit (what else a run survives: test_runs)."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan import denoise
from diffplan.denoise import CLEAN, Edm, scaled
from diffplan.learn import reward, reward_models, train
from diffplan.learn.reward_models import RewardModelSettings
from diffplan.learn.train import TrainSettings
from diffplan.oracle.gaussian import Gaussian
from diffplan.runs import Run, signals, stage
from diffplan.runs.checkpoints import Checkpoints
from diffplan.runs.files import digest, read_json

SHAPE = (3, 2)
SIGMA = 0.7


class Fixed:
    """The one noise level at which a linear network can be exact."""

    def draw(self, key):
        return jnp.asarray(SIGMA)


def gaussian() -> Gaussian:
    """A correlated prior away from the origin, with standard deviations near 1."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) / 2.5
    return Gaussian.of(jnp.asarray(rng.normal(size=6)), jnp.asarray(root @ root.T + 0.2 * np.eye(6)), SHAPE)


def draws(key, distribution: Gaussian):
    """One plan from the distribution."""
    unit = jnp.sqrt(distribution.eigenvalues) * jax.random.normal(key, distribution.mean.shape)
    return (distribution.mean + distribution.eigenvectors @ unit).reshape(SHAPE)


def linear(params, x, c_noise):
    """A linear 'network' from plans to plans, or to one number."""
    return jnp.squeeze(params["weight"] @ x.ravel() + params["bias"]).reshape(SHAPE if len(params["bias"]) > 1 else ())


def zeros(outputs: int):
    return {"weight": jnp.zeros((outputs, 6)), "bias": jnp.zeros(outputs)}


def trained(task, data, outputs, steps=1500, batch=256, rate=0.03):
    """The averaged parameters after training a linear network from zero."""
    config = TrainSettings(steps=steps, batch=batch, learning_rate=rate, warmup=20, ema=0.98)
    state = train.start(jax.random.key(0), zeros(outputs), config)
    return jax.jit(lambda state: train.chunk(task, config, state, data, steps))(state)[0].ema


def noisy(distribution: Gaussian, mask, count: int = 500):
    """(clean plans, the same at level SIGMA except under the mask), as float64 arrays [count, 6]."""
    x0 = np.asarray(
        jax.vmap(lambda key: draws(key, distribution))(jax.random.split(jax.random.key(9), count)), np.float64
    )
    noise = np.random.default_rng(3).normal(size=x0.shape)
    x = np.where(np.asarray(mask), x0, x0 + SIGMA * noise)
    return x0.reshape(count, 6), x.reshape(count, 6)


def conditional_means(distribution: Gaussian, mask, x):
    """E[x0 | x] when entries under the mask are seen exactly and the others at level SIGMA, by conditioning once."""
    s, m = np.asarray(distribution.covariance, np.float64), np.asarray(distribution.mean, np.float64)
    variance = np.where(np.asarray(mask).ravel(), 0.0, SIGMA**2)
    return m + (x - m) @ np.linalg.solve(s + np.diag(variance), s)


MASKS = {"free": jnp.zeros(SHAPE, bool), "pinned": jnp.zeros(SHAPE, bool).at[0].set(True)}


@pytest.mark.parametrize("name", MASKS)
def test_a_linear_network_becomes_the_exact_denoiser(name):
    distribution, mask = gaussian(), MASKS[name]
    loss = lambda params, key, x0: denoise.loss(key, Edm(params, linear), x0, mask, Fixed())
    params = trained(train.Task(loss, draws), distribution, 6)
    x0, x = noisy(distribution, mask)
    level = jnp.where(mask, 0.0, SIGMA)
    result = np.asarray(jax.vmap(lambda x: Edm(params, linear)(x, level))(x.reshape(-1, *SHAPE).astype(np.float32)))
    exact = conditional_means(distribution, mask, x)
    if name == "free":  # brute force and the oracle agree
        oracle = jax.vmap(lambda x: distribution.denoise(x, jnp.asarray(SIGMA)))(
            x.reshape(-1, *SHAPE).astype(np.float32)
        )
        np.testing.assert_allclose(oracle.reshape(-1, 6), exact, atol=1e-4)
    excess = np.mean((result.reshape(-1, 6) - exact) ** 2) / np.mean((exact - x0) ** 2)
    assert excess < 2e-3


CHOICE = jnp.asarray([[1.0, -0.5], [0.3, 0.0], [0.0, 0.8]])


@pytest.mark.parametrize("name", [*MASKS, "clean"])
def test_a_regression_becomes_the_conditional_mean_of_the_reward(name):
    """E[c.x0 | x] = c.E[x0 | x] for Gaussian data; a proxy of clean plans becomes c.x itself."""
    distribution, mask = gaussian(), MASKS.get(name, MASKS["free"])
    plans = jax.vmap(lambda key: draws(key, distribution))(jax.random.split(jax.random.key(5), 20_000))
    labelled = reward.Labelled(plans, jnp.sum(plans * CHOICE[None], axis=(1, 2)), mask)
    task = reward.task(linear, reward.regression_error, None if name == "clean" else Fixed())
    params = trained(task, labelled, 1)
    x0, x = noisy(distribution, mask)
    if name == "clean":
        exact, read, level = x0 @ np.asarray(CHOICE).ravel(), x0, jnp.asarray(CLEAN)
    else:
        exact, read = conditional_means(distribution, mask, x) @ np.asarray(CHOICE).ravel(), x
        level = jnp.where(mask, 0.0, SIGMA)
    plans = read.reshape(-1, *SHAPE).astype(np.float32)
    result = np.asarray(jax.vmap(lambda x: scaled(linear, params, x, level))(plans))
    assert np.std(result - exact) < 0.03 * np.std(exact) and abs(np.mean(result - exact)) < 0.03 * np.std(exact)


def test_a_classifier_becomes_the_log_odds():
    """Two Gaussian classes at +-u with variance v: at level sigma the log odds are 2 u.x / (v + sigma^2), by Bayes."""
    centre, variance, count = 0.8 * np.asarray(CHOICE), 0.3, 20_000
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    plans = (2 * y - 1)[:, None, None] * centre + np.sqrt(variance) * rng.normal(size=(count, *SHAPE))
    labelled = reward.Labelled(jnp.asarray(plans, jnp.float32), jnp.asarray(y, jnp.float32), MASKS["free"])
    params = trained(reward.task(linear, reward.classifier_error, Fixed()), labelled, 1)
    x = (np.linspace(-1.5, 1.5, 13)[:, None, None] * centre).astype(np.float32)
    result = np.asarray(jax.vmap(lambda x: scaled(linear, params, x, jnp.asarray(SIGMA)))(x))
    exact = 2 * np.sum(centre * x, axis=(1, 2)) / (variance + SIGMA**2)
    np.testing.assert_allclose(result, exact, atol=0.06 * exact.max())


def test_targets():
    returns = jnp.asarray([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_array_equal(reward.top_class(returns, 0.9), [1, 0, 0, 0])
    np.testing.assert_array_equal(reward.top_class(jnp.arange(10.0), 0.7), [0] * 7 + [1] * 3)
    with pytest.raises(ValueError, match=r"^labels: all 4 windows have the same return[^\n]*$"):
        reward.top_class(jnp.ones(4), 0.5)
    labels = lambda gains: reward_models.labels(jax.random.key(0), gains[:, None], (False, 0.9), RewardModelSettings())
    np.testing.assert_allclose(labels(returns), np.sqrt([2.0, 2.0, 0, 0]) * [1, -1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(labels(jnp.ones(5)), np.zeros(5))


# -- the loop --

CONFIG = TrainSettings(steps=40, batch=8, learning_rate=0.01, warmup=5, chunk=10, save_every=20)
TASK = train.Task(lambda params, key, x0: denoise.loss(key, Edm(params, linear), x0, MASKS["free"], Fixed()), draws)


def fit(folder: Path, config: TrainSettings = CONFIG, task: train.Task = TASK, around=lambda recorder: recorder) -> str:
    """Train in a folder as a new process would, from nothing or from what lies there; returns the model's digest.

    around: what stands between the training and the recorder.
    """
    learn = lambda recorder: train.train(task, zeros(6), gaussian(), config, around(recorder))
    return stage(Run(folder), "toy", learn, config).identity


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs: (folder, digest of its model)."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit(folder)


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "toy" / "metrics.jsonl").read_text().splitlines()]


def saved_steps(folder: Path) -> set[str]:
    return {path.name for path in (folder / "toy" / "checkpoints").iterdir()}


def state_of(folder: Path) -> str:
    """The digest of the whole state after the last step, as its checkpoint has recorded it."""
    return read_json(folder / "toy" / "checkpoints" / "40" / "record.json")["sha256"]


def restored(checkpoints: Path, config: TrainSettings = CONFIG) -> train.TrainState:
    """The state that training would go on from."""
    identity = read_json(checkpoints.parent / "stage.json")["identity"]
    return Checkpoints(checkpoints, identity).restore(train.start(jax.random.key(0), zeros(6), config))[1]


def test_training_without_a_directory_is_the_same_to_the_bit(whole):
    assert digest(train.train(TASK, zeros(6), gaussian(), CONFIG)) == whole[1]


def test_the_record_is_one_json_object_a_chunk(whole):
    lines = [json.loads(line) for line in (whole[0] / "toy" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert all(np.isfinite(line["loss"]) and line["seconds"] >= 0 for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert saved_steps(whole[0]) == {"20", "40"}


class Interrupted:
    """A recorder whose process ends before it hears of a step."""

    def __init__(self, recorder, step: int):
        self.restore, self.own, self.step = recorder.restore, recorder, step

    def record(self, step, losses, state, due):
        if step == self.step:
            raise KeyboardInterrupt
        self.own.record(step, losses, state, due)


@pytest.mark.parametrize("save_every", [20, 13])
def test_a_run_that_is_stopped_and_resumed_is_the_same_to_the_bit(whole, tmp_path, save_every):
    config = replace(CONFIG, save_every=save_every)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, config, TASK, lambda recorder: Interrupted(recorder, 30))
    assert max(map(int, saved_steps(tmp_path))) == 20 and steps_of(tmp_path) == [10, 20]
    assert fit(tmp_path, config) == whole[1] and state_of(tmp_path) == state_of(whole[0])
    assert steps_of(tmp_path) == [10, 20, 30, 40]
    assert fit(tmp_path, config) == whole[1]  # and a third start has nothing left to do
    assert steps_of(tmp_path) == [10, 20, 30, 40]


class Asked(Interrupted):
    """A recorder whose process is asked to stop while a chunk is computed."""

    def record(self, step, losses, state, due):
        if step == self.step:
            signals._State.code = 143
        self.own.record(step, losses, state, due)


def test_a_run_that_is_asked_to_stop_saves_first(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(signals._State, "code", None)
    with pytest.raises(signals.Stopped):
        fit(tmp_path, CONFIG, TASK, lambda recorder: Asked(recorder, 30))
    assert saved_steps(tmp_path) == {"20", "30"} and steps_of(tmp_path) == [10, 20, 30]
    monkeypatch.setattr(signals._State, "code", None)
    assert fit(tmp_path) == whole[1] and state_of(tmp_path) == state_of(whole[0])
    assert steps_of(tmp_path) == [10, 20, 30, 40]


def falling(edge: float) -> train.Task:
    """The loss is p itself, gradient 1, until p falls below the edge, where it is not a number."""

    def loss(params, key, example):
        p = params["bias"][0]
        return jnp.where(p > edge, p, jnp.nan), {}

    return train.Task(loss, lambda key, data: ())


def test_a_loss_that_is_not_finite_stops_with_the_step_named(tmp_path):
    """Adam on a constant gradient moves by exactly its rate: linear warm-up from 0, then a cosine to a hundredth."""
    config = TrainSettings(steps=60, batch=2, learning_rate=0.1, warmup=10, chunk=8, save_every=8)
    t = np.arange(60)
    cosine = 0.001 + (0.1 - 0.001) * (1 + np.cos(np.pi * (t - 10) / 50)) / 2
    position = -np.concatenate([[0.0], np.cumsum(np.where(t < 10, 0.1 * t / 10, cosine))])  # before step t
    edge = (position[36] + position[37]) / 2
    with pytest.raises(FloatingPointError) as raised:
        fit(tmp_path, config, falling(edge))
    assert str(raised.value) == f"{tmp_path / 'toy'}: the loss is nan at step 37; lower train.learning_rate"
    assert steps_of(tmp_path) == [8, 16, 24, 32]
    assert max(map(int, saved_steps(tmp_path))) == 32
    state = restored(tmp_path / "toy" / "checkpoints", config)
    assert int(state.step) == 32 and all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
    assert float(state.params["bias"][0]) == pytest.approx(position[32], rel=1e-3)


def test_the_average_lags_as_a_geometric_mean_of_the_path_does():
    """On a straight descent the average is behind by sum_j ema^j rate(j steps before the end); ema = 0: by none."""
    steps, behind = 200, {}
    for ema in (0.0, 0.9):
        config = TrainSettings(steps=steps, batch=1, learning_rate=0.1, warmup=0, ema=ema)
        state = train.start(jax.random.key(0), zeros(6), config)
        state, losses = jax.jit(lambda state, c=config: train.chunk(falling(-1e9), c, state, (), steps))(state)
        assert losses.shape == (steps,)
        behind[ema] = float(state.ema["bias"][0] - state.params["bias"][0])
    ago = np.arange(1, steps + 1)
    rate = 0.001 + (0.1 - 0.001) * (1 - np.cos(np.pi * ago / steps)) / 2
    assert behind[0.0] == 0
    assert behind[0.9] == pytest.approx(np.sum(0.9**ago * rate), rel=1e-2)


def test_muon_moves_every_direction_of_a_matrix_alike():
    """A gradient whose singular values span a factor of 20 becomes an update whose span less than 2."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(2))
    gradient = {"matrix": jnp.asarray(u @ np.diag(np.linspace(0.05, 1, 8)) @ v), "vector": jnp.asarray([1.0, 0.1])}
    rule = train.optimiser(TrainSettings(steps=10, warmup=0, optimiser="muon", learning_rate=1.0))
    update, _ = rule.update(gradient, rule.init(gradient), gradient)
    stretch = np.linalg.svd(update["matrix"], compute_uv=False)
    assert stretch.max() < 2 * stretch.min()
    np.testing.assert_allclose(*update["vector"], rtol=1e-3)  # a vector is Adam's: every entry by itself


def test_what_is_trained_beside_a_network_does_not_leave_training():
    """The network follows a number that goes to 3: both are trained, and the network alone comes back."""
    loss = lambda params, key, x: ((params[0] - params[1]) ** 2 + (params[1] - x) ** 2, {})
    task = train.Task(loss, lambda key, data: data, lambda network: (network, jnp.zeros(())), lambda both: both[0])
    config = TrainSettings(steps=1500, batch=1, learning_rate=2e-2, warmup=10, chunk=500)
    network, data = jnp.ones(()), jnp.asarray(3.0)
    assert float(train.train(task, network, data, config)) == pytest.approx(3, abs=0.02)
    assert float(train.train_whole(jax.random.key(0), task, network, data, config)) == pytest.approx(3, abs=0.02)
