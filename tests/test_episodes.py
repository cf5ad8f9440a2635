"""Episodes of any lengths, and their windows, against brute force in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffplan.codec import Codec
from diffplan.data.errors import DataError
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes, EpisodesError, from_arrays, from_stacked, joined

LENGTHS = (12, 3, 5, 1, 9)


def labelled(lengths: tuple[int, ...] = LENGTHS) -> Episodes:
    """Rows with their own address, 100 * episode + row, as observation; negated as action; squared as reward."""
    address = np.concatenate([100 * e + np.arange(n) for e, n in enumerate(lengths)]).astype(np.float32)[:, None]
    return Episodes(address, -address, np.array(lengths), (address[:, 0] / 100) ** 2)


def unit() -> Codec:
    """The codec that changes nothing."""
    return Codec(jnp.zeros(2), jnp.ones(2), 1)


def same(one: Episodes, other: Episodes) -> None:
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# -- episodes --


def test_parts_are_the_episodes_and_join_again():
    episodes = labelled()
    parts = list(episodes.parts())
    assert [len(part.actions) for part in parts] == list(LENGTHS) and episodes.count == 5
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part.observations[:, 0] // 100, number)
        np.testing.assert_array_equal(part.observations[:, 0] % 100, np.arange(LENGTHS[number]))
    same(joined(parts), episodes)
    assert joined([*parts[:2], parts[2]._replace(rewards=None)]).rewards is None


def test_some_episodes_keep_all_their_rows():
    kept = labelled().select(np.array([True, False, True, False, False]))
    assert kept.lengths.tolist() == [12, 5]
    np.testing.assert_array_equal(kept.observations[:, 0], [*range(12), *range(200, 205)])
    np.testing.assert_array_equal(kept.actions, -kept.observations)


@pytest.mark.parametrize(
    ("lengths", "held_out", "aside"),
    [((5,) * 20, 0.1, 2), ((5,) * 20, 0.01, 1), ((9, 2), 0.1, 1), ((2, 3), 0.9, 1), (LENGTHS, 0.4, 2)],
)
def test_the_last_episodes_are_held_out_and_no_row_is_in_both_parts(lengths, held_out, aside):
    episodes = labelled(lengths)
    train, rest = episodes.split(held_out)
    assert rest.count == aside and train.count == len(lengths) - aside
    same(joined([train, rest]), episodes)


def test_a_single_episode_is_cut_in_two():
    train, rest = labelled((20,)).split(0.1)
    assert train.lengths.tolist() == [18] and rest.lengths.tolist() == [2]
    same(joined([train, rest])._replace(lengths=np.array([20])), labelled((20,)))
    assert labelled((2,)).split(0.1)[1].lengths.tolist() == [1]
    with pytest.raises(EpisodesError, match="1 of 1 rows: must be 2 or more"):
        labelled((1,)).split(0.1)


def test_flat_arrays_are_split_where_flags_say():
    terminals, timeouts = np.zeros(10), np.zeros(10, bool)
    terminals[2], timeouts[[4, 9]] = 1, True
    rows = np.arange(10.0)
    episodes = from_arrays(rows, np.stack([rows, rows], axis=1), rows[:, None], terminals[:, None], timeouts)
    assert episodes.lengths.tolist() == [3, 2, 5]
    assert episodes.observations.shape == (10, 1) and episodes.actions.shape == (10, 2)
    np.testing.assert_array_equal(episodes.rewards, rows)
    assert {array.dtype for array in episodes[:2]} == {np.dtype(np.float32)}
    assert from_arrays(rows, rows).lengths.tolist() == [10]
    assert from_arrays([[1, 2]], [[0]]).lengths.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observations": np.zeros((0, 2))}, ["'observations'", "[0, 2]"]),
        ({"observations": np.zeros((5, 3, 3))}, ["'observations'", "[5, 3, 3]", "[rows, entries]"]),
        ({"actions": np.zeros((5, 0))}, ["'actions'", "[5, 0]"]),
        ({"actions": np.zeros((4, 2))}, ["'actions'", "[4]", "5 rows"]),
        ({"actions": np.full((5, 2), "left")}, ["'actions'", "must be numbers"]),
        ({"observations": np.full((5, 2), 1e300)}, ["'observations'", "1e+300", "finite as float32"]),
        ({"rewards": [0, 1, np.nan, 0, 0]}, ["'rewards'", "nan", "row 2"]),
        ({"rewards": np.zeros(6)}, ["'rewards'", "[6]"]),
        ({"terminals": [0, 0, 0.5, 0, 1]}, ["'terminals'", "0.5 at row 2", "0 or 1"]),
        ({"timeouts": [0, np.nan, 0, 0, 1]}, ["'timeouts'", "nan at row 1"]),
    ],
)
def test_arrays_that_are_no_episodes_are_refused_by_name(change, words):
    with pytest.raises(EpisodesError) as caught:
        from_arrays(**({"observations": np.ones((5, 2)), "actions": np.ones((5, 2))} | change))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_reset_that_is_not_recorded_is_a_jump():
    """A walk of unit steps, whose second episode begins far away after row 60 of the file; recorded, it is none."""
    walk = np.cumsum(np.random.default_rng(0).choice([-1.0, 1.0], (200, 2)), axis=0)
    walk[60:] += 500
    flags = np.arange(200) == 59
    (jump,) = from_arrays(walk, walk).jumps()
    assert jump[:2] == (0, 60) and jump[2] == pytest.approx(500, rel=0.05)
    assert list(from_arrays(walk, walk, terminals=flags).jumps()) == []
    earlier = np.arange(200) == 29
    assert [jump[:2] for jump in from_arrays(walk, walk, terminals=earlier).jumps()] == [(1, 30)]


def test_one_hot_actions_are_discrete():
    moves = np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
    assert from_arrays(moves, moves).discrete
    assert not from_arrays(moves, moves[:, :2]).discrete and not from_arrays(moves, np.ones(4)).discrete


# -- windows --


@pytest.mark.parametrize(("horizon", "stride"), [(3, 1), (5, 1), (2, 2), (1, 4)])
def test_windows_stay_in_their_episode_and_all_are_as_likely(key, horizon, stride):
    span = horizon * stride
    windows = Windows.of(labelled(), unit(), horizon, stride)
    places = [100 * e + t for e, n in enumerate(LENGTHS) for t in range(n - span + 1)]
    assert len(windows.first) == len(places) and windows.span == span
    first = np.asarray(windows.observations)[np.asarray(windows.places(key, 8000)), 0]
    counts = np.array([(first == place).sum() for place in places])
    assert counts.sum() == 8000  # no window begins elsewhere
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("horizon", "stride"), [(4, 1), (3, 3), (2, 4)])
def test_a_window_is_what_its_equation_says(horizon, stride):
    """Equation (131), by hand, for every window."""
    rng = np.random.default_rng(0)
    lengths = np.array([13, 9, 4, 16])
    rows = int(lengths.sum())
    episodes = from_arrays(
        rng.normal(size=(rows, 3)),
        rng.normal(size=(rows, 2)),
        rng.normal(size=rows),
        np.isin(np.arange(rows) + 1, np.cumsum(lengths)),
    )
    codec = Codec.fit(episodes.observations, episodes.actions)
    windows, number = Windows.of(episodes, codec, horizon, stride), 0
    for part in episodes.parts():
        for k in range(len(part.actions) - horizon * stride + 1):
            first = windows.first[number]
            trajectory = windows.trajectory(first)
            for t in range(horizon):
                at = slice(k + t * stride, k + (t + 1) * stride)
                np.testing.assert_array_equal(trajectory.observations[t], part.observations[k + t * stride])
                np.testing.assert_allclose(trajectory.actions[t], part.actions[at].mean(axis=0), atol=1e-6)
            total = part.rewards[k : k + horizon * stride].sum()
            assert float(windows.recorded(first)) == pytest.approx(total, abs=1e-5)
            np.testing.assert_allclose(windows.at(first), codec.encode(trajectory), atol=1e-6)
            number += 1
    assert number == len(windows.first)


def test_episodes_of_any_lengths_are_all_used(key):
    """1,000 episodes of 50 to 90 rows beside one of 120: no row of theirs is cut, and the short ones count by rows."""
    lengths = np.append(np.random.default_rng(0).integers(50, 91, 1000), 120)
    episodes = from_stacked(np.zeros((1, lengths.sum(), 1), np.float32), np.zeros((1, lengths.sum(), 1), np.float32))
    windows = Windows.of(episodes._replace(lengths=lengths), unit(), 40)
    first = np.asarray(windows.first)
    begins = np.cumsum(lengths) - lengths
    episode = np.searchsorted(begins, first, side="right") - 1
    assert set(episode) == set(range(1001))
    assert (first + 40 <= (begins + lengths)[episode]).all() and len(first) == (lengths - 39).sum()


def test_a_window_is_a_function_of_the_key_alone(key):
    windows = Windows.of(labelled(), unit(), 3)
    draw = jax.jit(lambda windows, key: windows.draw(key))
    np.testing.assert_array_equal(windows.draw(key), draw(Windows.of(labelled(), unit(), 3), key))
    np.testing.assert_array_equal(windows.draws(key, 4)[2], windows.draw(jax.random.split(key, 4)[2]))


def test_an_episode_must_hold_a_window():
    assert Windows.of(labelled(), unit(), 4, 3).draw(jax.random.key(0)).shape == (4, 2)
    with pytest.raises(DataError, match=r"longest of 5 episodes has 12 steps: a window of 13 rows, 1 steps apart"):
        Windows.of(labelled(), unit(), 13)
