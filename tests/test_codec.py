"""The normaliser: an exact round trip, unit variance, and pins that are the data's own first and last observations."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Cells, Codec
from diffplan.types import Trajectory

MEAN, SCALE = np.asarray([2.0, -30.0, 0.0, 0.5, 1.0]), np.asarray([0.1, 4.0, 1.0, 100.0, 1e-3])


def rows(count: int = 4000) -> np.ndarray:
    """Entries of very different size; the first three are observations."""
    return (MEAN + SCALE * np.random.default_rng(0).normal(size=(20, count // 20, 5))).astype(np.float32)


def fitted() -> Codec:
    return Codec.fit(rows()[..., :3], rows()[..., 3:])


def test_encoded_data_have_mean_zero_and_variance_one():
    x = np.asarray(fitted().encode(Trajectory(jnp.asarray(rows()[..., :3]), jnp.asarray(rows()[..., 3:]))), np.float64)
    assert x.shape == (20, 200, 5)
    flat = x.reshape(-1, 5)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose((flat**2).mean(0), 1, atol=1e-3)
    np.testing.assert_allclose(np.corrcoef(flat.T, rows().reshape(-1, 5).T)[:5, 5:].diagonal(), 1, atol=1e-6)


def test_decode_undoes_encode_and_the_other_way_round():
    codec, data = fitted(), rows()
    back = codec.decode(codec.encode(Trajectory(jnp.asarray(data[..., :3]), jnp.asarray(data[..., 3:]))))
    assert back.observations.shape == (20, 200, 3) and back.actions.shape == (20, 200, 2)
    error = np.concatenate([back.observations, back.actions], -1) - data
    assert np.abs(error / SCALE).max() < 1e-3  # float32 at 1000 standard deviations from 0, in standard deviations
    x = jnp.asarray(np.random.default_rng(1).normal(size=(7, 5)), jnp.float32)  # a single plan, without a batch axis
    np.testing.assert_allclose(codec.encode(codec.decode(x)), x, atol=1e-3)


def test_pins_are_the_encoded_start_and_goal():
    codec, plan = fitted(), jnp.asarray(rows()[0, :7])
    x = codec.encode(Trajectory(plan[:, :3], plan[:, 3:]))
    start = codec.pin(7, plan[0, :3])
    assert np.argwhere(start.mask).tolist() == [[0, 0], [0, 1], [0, 2]]
    np.testing.assert_allclose(start.value[0, :3], x[0, :3], rtol=1e-6)
    both = codec.pin(7, plan[0, :3], plan[-1, :3])
    assert np.argwhere(both.mask).tolist() == [[0, 0], [0, 1], [0, 2], [6, 0], [6, 1], [6, 2]]
    np.testing.assert_allclose(both.value[-1, :3], x[-1, :3], rtol=1e-6)
    np.testing.assert_allclose(both.value[0], start.value[0])


@pytest.mark.parametrize("entry", range(5))
def test_an_entry_that_never_changes_has_a_floor_and_plans_pass_through(entry):
    """The floor is a thousandth of the median deviation of the entries that change; encoded, the entry is 0."""
    data = rows()
    data[..., entry] = 0.1  # has no exact binary form, so that its mean is off by a rounding
    codec = Codec.fit(data[..., :3], data[..., 3:])
    others = np.delete(data.reshape(-1, 5).std(axis=0, dtype=np.float64), entry)
    assert float(codec.std[entry]) == pytest.approx(1e-3 * np.median(others), rel=1e-4)
    x = np.asarray(codec.encode(Trajectory(jnp.asarray(data[..., :3]), jnp.asarray(data[..., 3:]))))
    assert np.isfinite(x).all() and np.abs(x[..., entry]).max() < 1e-3
    back = codec.decode(jnp.asarray(x))
    np.testing.assert_allclose(np.concatenate([back.observations, back.actions], -1)[..., entry], 0.1, atol=1e-6)


def test_noise_of_rounding_on_a_large_number_is_no_variation():
    """1000 in float32 has steps of 6e-5: a deviation of that size says nothing, whatever other entries do."""
    rng = np.random.default_rng(0)
    large = (1000 + 1e-4 * rng.normal(size=(500, 1))).astype(np.float32)
    codec = Codec.fit(large, rng.normal(size=(500, 1)).astype(np.float32))
    assert float(codec.std[0]) == pytest.approx(1000e-5, rel=1e-4)
    assert float(codec.std[1]) == pytest.approx(1, abs=0.1)


def test_data_in_which_nothing_changes_are_refused():
    with pytest.raises(ValueError, match="all 40 rows are the same: there is nothing to learn"):
        Codec.fit(np.full((40, 2), 0.1, np.float32), np.ones((40, 1), np.float32))


def test_a_codec_says_how_wide_rows_are_and_whether_actions_are_moves():
    codec = fitted()
    assert (codec.width, codec.observation_dim, codec.action_dim, codec.discrete) == (5, 3, 2, False)
    assert Codec.fit(rows()[..., :3], rows()[..., 3:], discrete=True).discrete
    cells = Cells(jnp.asarray([[0.0, 0.0], [0.0, 1.0]]), jnp.asarray([[0, 1, 0], [1, 1, 0]]))
    assert (cells.width, cells.observation_dim, cells.action_dim, cells.discrete) == (2, 2, 3, True)
