"""Data larger than the device: blocks are fair, a function of their number, and training resumes with the same ones."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffplan.codec import Codec
from diffplan.data import stream
from diffplan.data.errors import DataError
from diffplan.data.stream import Stream
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.learn import dynamics, train
from diffplan.learn.train import TrainSettings
from tests.test_episodes import LENGTHS, labelled, unit


@pytest.mark.parametrize(("horizon", "stride"), [(3, 1), (2, 2)])
def test_blocks_hold_whole_windows_and_all_are_as_likely(horizon, stride):
    """Windows of many blocks are counted; each is the window of the device's own `Windows` at the same row."""
    episodes, span = labelled(), horizon * stride
    everything = Windows.of(episodes, unit(), horizon, stride)
    places = {float(everything.at(first)[0, 0]): first for first in everything.first}
    with Stream(episodes, unit(), horizon, stride, windows=500) as source:
        blocks = [source.block(number) for number in range(16)]
    x = np.concatenate([jax.vmap(block.at)(block.first) for block in blocks])
    counts = np.array([(x[:, 0, 0] == place).sum() for place in places])
    assert counts.sum() == 16 * 500 and stats.chisquare(counts).pvalue > 1e-3
    for one in x[:200]:
        np.testing.assert_array_equal(one, everything.at(places[float(one[0, 0])]))
    first = blocks[0].first[7]
    there = places[float(blocks[0].at(first)[0, 0])]
    assert float(blocks[0].recorded(first)) == pytest.approx(float(everything.recorded(there)), rel=1e-5)
    assert blocks[0].observations.shape == (500 * span, 1)


def test_a_block_is_a_function_of_seed_and_number():
    def content(seed, numbers):
        with Stream(labelled(), unit(), 3, windows=50, seed=seed) as source:
            return {number: np.asarray(source.block(number).observations) for number in numbers}

    one, other = content(0, [0, 1, 2]), content(0, [2, 0])  # one ahead as foreseen, one out of turn
    np.testing.assert_array_equal(one[2], other[2])
    np.testing.assert_array_equal(one[0], other[0])
    assert (one[0] != one[1]).any() and (one[0] != content(1, [0])[0]).any()


def test_draws_have_the_law_of_the_device_s_windows(key):
    with Stream(labelled(), unit(), 3) as source:
        ours, theirs = source.draws(key, 4000), Windows.of(labelled(), unit(), 3).draws(key, 4000)
        assert ours.shape == theirs.shape == (4000, 3, 2) and source.width == 2
        assert stats.ks_2samp(ours[:, 0, 0], theirs[:, 0, 0]).pvalue > 1e-3
        np.testing.assert_array_equal(ours, source.draws(key, 4000))
        assert len(dynamics.transitions(key, Stream(labelled(), unit(), 2), 100).after) == 100


def test_rows_may_lie_in_a_file(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=(1000, 3))
    codec, lengths = Codec.fit(rows, rows[:, :2]), np.array([600, 400])
    blocks = []
    for values in (rows, mapped):
        with Stream(Episodes(values, values[:, :2], lengths), codec, 8, windows=30) as source:
            blocks.append(source.block(0))
    for one, other in zip(jax.tree.leaves(blocks[0]), jax.tree.leaves(blocks[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_episode_must_hold_a_window():
    with pytest.raises(DataError, match="longest of 5 episodes has 12 steps"):
        Stream(labelled(), unit(), 13)


def test_the_next_block_is_gathered_meanwhile_and_no_thread_is_left(monkeypatch):
    gathered, done, whole = [], threading.Event(), Stream.gather

    def gather(self, seed, count):
        gathered.append((seed[1], threading.current_thread() is threading.main_thread()))
        if seed[1] == 1:
            done.set()
        return whole(self, seed, count)

    monkeypatch.setattr(Stream, "gather", gather)
    before = threading.active_count()
    with Stream(labelled(), unit(), 3, windows=10) as source:
        source.block(0)
        assert done.wait(10)  # though nobody has asked for it
        source.block(0)
        source.block(1)
    assert sorted(gathered[:2]) == [(0, True), (1, False)] and all(not main for _, main in gathered[1:])
    assert threading.active_count() == before


def test_an_error_of_the_thread_is_raised_where_the_block_is_asked_for(monkeypatch):
    whole = Stream.gather

    def gather(self, seed, count):
        if seed[1] == 1:
            raise OSError("the disk is gone")
        return whole(self, seed, count)

    monkeypatch.setattr(Stream, "gather", gather)
    with Stream(labelled(), unit(), 3, windows=10) as source:
        source.block(0)
        with pytest.raises(OSError, match="the disk is gone"):
            source.block(1)


# -- training on blocks --

MEAN = train.Task(lambda params, key, x: (jnp.mean((params - x) ** 2), {}), lambda key, windows: windows.draw(key))


class Restored:
    """A recorder that keeps the last state, and goes on from another."""

    def __init__(self, state=None):
        self.state = state

    def restore(self, state, total):
        return self.state or state

    def record(self, step, losses, state, due):
        self.state = jax.tree.map(jnp.copy, state)
        if step == getattr(self, "until", None):
            raise KeyboardInterrupt


@pytest.mark.parametrize(("until", "chunk", "again"), [(20, 10, 10), (18, 8, 25), (7, 1, 3)])
def test_training_that_is_stopped_and_resumed_is_the_same_whatever_the_chunks(until, chunk, again):
    """Blocks serve 10 steps each; training stops between two, or within one, and goes on in chunks of another size."""

    def fit(chunk, recorder):
        settings = TrainSettings(steps=40, batch=4, learning_rate=0.1, warmup=0, chunk=chunk, save_every=40)
        with Stream(labelled(), unit(), 3, windows=20, every=10) as source:
            return train.train(MEAN, jnp.zeros((3, 2)), source, settings, recorder)

    whole, stopped = fit(10, Restored()), Restored()
    stopped.until = until
    with pytest.raises(KeyboardInterrupt):
        fit(chunk, stopped)
    assert int(stopped.state.step) == until
    np.testing.assert_array_equal(fit(again, Restored(stopped.state)), whole)


def test_every_step_draws_from_its_own_block():
    asked = []

    class Numbers:
        every = 4

        def block(self, number):
            asked.append(number)
            return jnp.asarray(float(number))

    task = train.Task(lambda params, key, x: (x + 0.0 * params, {}), lambda key, x: x)
    losses = []
    recorder = Restored()
    recorder.record = lambda step, values, state, due: losses.extend(values)
    config = TrainSettings(steps=10, batch=2, chunk=3, warmup=0)
    for data, offset in ((Numbers(), 0), (train.mapped(Numbers(), lambda x: x + 1), 1)):
        losses.clear()
        train.train(task, jnp.zeros(()), data, config, recorder)
        np.testing.assert_array_equal(losses, np.arange(10) // 4 + offset)
    assert asked[:5] == [0, 0, 1, 1, 2]
    assert train.mapped(3, lambda x: x + 1) == 4


def test_a_mean_is_learned_from_blocks_as_from_the_device():
    config = TrainSettings(steps=600, batch=64, learning_rate=0.05, warmup=10, ema=0.98)
    wide = labelled()._replace(observations=labelled().observations / 400, actions=labelled().actions / 400)
    with Stream(wide, unit(), 3, windows=256, every=10) as source:
        streamed = train.train(MEAN, jnp.zeros((3, 2)), source, config)
    placed = train.train(MEAN, jnp.zeros((3, 2)), Windows.of(wide, unit(), 3), config)
    np.testing.assert_allclose(streamed, placed, atol=0.03)


# -- memory --


def test_data_go_to_the_device_if_they_fit(monkeypatch):
    assert stream.memory_limit(123) == 123  # a CPU does not say
    assert stream.fits(123, 123) and not stream.fits(124, 123)
    assert isinstance(stream.windows_of(labelled(), unit(), 3), Windows)
    needed = labelled().nbytes + 4 * sum(LENGTHS)
    assert isinstance(stream.windows_of(labelled(), unit(), 3, default=needed), Windows)
    assert isinstance(stream.windows_of(labelled(), unit(), 3, default=needed - 1), Stream)

    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000}

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert stream.memory_limit() == 500
