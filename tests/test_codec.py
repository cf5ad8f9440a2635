"""The normaliser: an exact round trip, unit variance, and pins that are the data's own first and last observations."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
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
def test_an_entry_that_never_changes_is_refused_by_number(entry):
    data = rows()
    data[..., entry] = 0.1  # has no exact binary form: its mean must still come out exactly
    with pytest.raises(ValueError, match=f"^entry {entry} of observation \\+ action is constant[^\n]*$"):
        Codec.fit(data[..., :3], data[..., 3:])
