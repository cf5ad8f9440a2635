"""Data files: what is saved comes back, what is damaged is refused by name, and windows are fair."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffplan.codec import Codec
from diffplan.data import windows
from diffplan.data.windows import DataError, Rows, Windows

SHAPE = (4, 30)


def random_rows() -> Rows:
    rng = np.random.default_rng(0)
    draw = lambda entries: rng.normal(size=(*SHAPE, entries)).astype(np.float32)
    return Rows(draw(4), draw(2))


def saved(folder: Path, rows: Rows | None = None) -> Path:
    path = folder / "deep" / "rows.npz"
    windows.save(
        path, random_rows() if rows is None else rows, {"seed": 7, "config": {"maze": "umaze"}, "versions": {}}
    )
    return path


def test_what_is_saved_comes_back(tmp_path):
    path = saved(tmp_path)
    rows, description = windows.load(path)
    for ours, theirs in zip(rows, random_rows(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.float32
    assert description["seed"] == 7 and description["config"] == {"maze": "umaze"}
    assert description["shapes"] == {"observations": [4, 30, 4], "actions": [4, 30, 2]}
    assert sorted(file.name for file in path.parent.iterdir()) == ["rows.json", "rows.npz"]
    with np.load(path) as archive:  # without diffplan
        np.testing.assert_array_equal(archive["actions"], random_rows().actions)


def rewritten(path: Path, **fields: np.ndarray | None) -> None:
    """The file with some fields replaced, or left out if None; its description stays."""
    content = {**random_rows()._asdict(), **fields}
    np.savez(path, **{name: value for name, value in content.items() if value is not None})


def with_nan(path: Path) -> None:
    actions = random_rows().actions
    actions[2, 5, 1] = np.nan
    rewritten(path, actions=actions)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def altered(path: Path) -> None:
    """Another number, in a file that is otherwise sound."""
    actions = random_rows().actions
    actions[0, 0, 0] += 1e-3
    rewritten(path, actions=actions)


def described(path: Path, **entries: object) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | entries))


DAMAGE = {
    "the file is missing": (Path.unlink, ["rows.npz", "no such file"]),
    "the description is missing": (lambda path: path.with_suffix(".json").unlink(), ["rows.json", "no such file"]),
    "the description is cut": (lambda path: path.with_suffix(".json").write_text('{"seed": 7, "sha'), ["rows.json"]),
    "the description is of something else": (lambda path: path.with_suffix(".json").write_text("[1]"), ["rows.json"]),
    "the description has other shapes": (
        lambda path: described(path, shapes={"observations": [4, 30, 5], "actions": [4, 30, 2]}),
        ["rows.npz", "'observations'", "[4, 30, 4]", "[4, 30, 5]"],
    ),
    "it is empty": (lambda path: path.write_bytes(b""), ["rows.npz", "truncated"]),
    "it is cut": (cut, ["rows.npz", "truncated"]),
    "it is no archive": (lambda path: path.write_bytes(b"hello\n" * 50), ["rows.npz", "truncated or not"]),
    "a number is NaN": (with_nan, ["rows.npz", "'actions'", "NaN", "trajectory 2", "step 5"]),
    "a field is flat": (
        lambda path: rewritten(path, observations=random_rows().observations.reshape(-1, 4)),
        ["rows.npz", "'observations'", "[120, 4]"],
    ),
    "fields disagree": (
        lambda path: rewritten(path, actions=random_rows().actions[:, :20]),
        ["rows.npz", "'observations'", "'actions'", "[4, 20, 2]"],
    ),
    "a field is missing": (lambda path: rewritten(path, actions=None), ["rows.npz", "'actions'", "missing"]),
    "a field is of another kind": (
        lambda path: rewritten(path, actions=random_rows().actions.astype(np.float64)),
        ["rows.npz", "'actions'", "float64"],
    ),
    "a field holds objects": (
        lambda path: rewritten(path, actions=np.asarray([None, {}], object)),
        ["rows.npz"],
    ),
    "a number has changed": (altered, ["rows.npz", "altered", "sha256", "rows.json"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_in_one_line(tmp_path, damage):
    path = saved(tmp_path)
    act, words = DAMAGE[damage]
    act(path)
    with pytest.raises(DataError) as caught:
        windows.load(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_no_flipped_byte_and_no_cut_goes_unseen(tmp_path):
    """Wherever the damage lies, it ends in DataError, never in another exception, and never in other data."""
    path, rng = saved(tmp_path), np.random.default_rng(0)
    content, sidecar = path.read_bytes(), path.with_suffix(".json")
    headers = [i for i in range(len(content)) if i < 300 or i > len(content) - 300]
    for place in [*headers, *rng.integers(0, len(content), 100)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            windows.load(path)
    for length in rng.integers(0, len(content), 50):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            windows.load(path)
    path.write_bytes(content)
    text = sidecar.read_bytes()
    for place in range(len(text)):
        damaged = bytearray(text)
        damaged[place] ^= 1 << rng.integers(8)
        sidecar.write_bytes(damaged)
        try:
            rows, _ = windows.load(path)
        except DataError:
            continue
        np.testing.assert_array_equal(rows.observations, random_rows().observations)  # a letter of its text


def test_a_trajectory_must_hold_a_window(tmp_path):
    rows = random_rows()
    codec = Codec.fit(rows.observations, rows.actions)
    assert Windows.of(rows, codec, 30).draw(jax.random.key(0)).shape == (30, 6)
    with pytest.raises(DataError, match=r"^trajectories of 30 steps are shorter than the horizon 31$"):
        Windows.of(rows, codec, 31)


def test_held_out_trajectories_are_the_rest():
    rows = random_rows()
    for fraction, count in ((0.1, 1), (0.25, 1), (0.5, 2)):
        kept, held_out = rows.split(fraction)
        assert len(held_out.observations) == len(held_out.actions) == count
        for field in range(2):
            np.testing.assert_array_equal(np.concatenate([kept[field], held_out[field]]), rows[field])


LANES, STEPS, HORIZON = 3, 12, 5


def labelled_windows() -> Windows:
    """Rows that carry their own address: 100 * trajectory + step in the observation, the same negated in the action."""
    address = (100 * np.arange(LANES)[:, None] + np.arange(STEPS)[None]).astype(np.float32)[..., None]
    return Windows.of(Rows(address, -address), Codec(jnp.zeros(2), jnp.ones(2), 1), HORIZON)


def test_windows_stay_in_their_trajectory_and_are_uniform(key):
    x = np.asarray(labelled_windows().draws(key, 6000))
    assert x.shape == (6000, HORIZON, 2)
    np.testing.assert_array_equal(x[..., 1], -x[..., 0])
    trajectory, step = np.divmod(x[..., 0].astype(int), 100)
    assert (trajectory == trajectory[:, :1]).all() and (np.diff(step) == 1).all()
    counts = np.zeros((LANES, STEPS - HORIZON + 1))
    np.add.at(counts, (trajectory[:, 0], step[:, 0]), 1)  # fails on a first step from which the window would run over
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_a_window_is_a_function_of_the_key_alone(key):
    windows = labelled_windows()
    draw = jax.jit(lambda windows, key: windows.draw(key))
    np.testing.assert_array_equal(windows.draw(key), draw(labelled_windows(), key))
    firsts = {float(draw(windows, jax.random.fold_in(key, i))[0, 0]) for i in range(100)}
    assert len(firsts) > 15  # of 24
