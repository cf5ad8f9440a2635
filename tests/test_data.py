"""The project's own data files: what is saved comes back, and what is damaged is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffplan.data import files, readers
from diffplan.data.errors import DataError
from diffplan.episodes import Episodes

LENGTHS = (40, 3, 77)


def some(rewards: bool = True) -> Episodes:
    rng = np.random.default_rng(0)
    draw = lambda *entries: rng.normal(size=(120, *entries)).astype(np.float32)
    return Episodes(draw(4), draw(2), np.array(LENGTHS), draw() if rewards else None)


def saved(folder: Path, episodes: Episodes | None = None) -> Path:
    path = folder / "deep" / "rows.npz"
    files.save(path, episodes or some(), {"seed": 7, "config": {"maze": "umaze"}})
    return path


@pytest.mark.parametrize("rewards", [True, False])
def test_what_is_saved_comes_back(tmp_path, rewards):
    path = saved(tmp_path, some(rewards))
    episodes, description = files.load(path)
    for ours, theirs in zip(episodes, some(rewards), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {ours.dtype.name for ours in episodes if ours is not None} == {"float32", "int64"}
    assert description["seed"] == 7 and description["config"] == {"maze": "umaze"}
    shapes = {"observations": [120, 4], "actions": [120, 2], "lengths": [3]} | ({"rewards": [120]} if rewards else {})
    assert description["shapes"] == shapes
    assert sorted(file.name for file in path.parent.iterdir()) == ["rows.json", "rows.npz"]
    with np.load(path) as archive:  # without diffplan
        np.testing.assert_array_equal(archive["actions"], some().actions)
    again, notes = readers.read(path)
    assert again.lengths.tolist() == list(LENGTHS) and notes == ()


def rewritten(path: Path, **fields: np.ndarray | None) -> None:
    """The file with some fields replaced, or left out if None; its description stays."""
    content = {**some()._asdict(), **fields}
    np.savez(path, **{name: value for name, value in content.items() if value is not None})


def changed(path: Path, value: float) -> None:
    """Another action in row 2 of episode 2, in a file that is otherwise valid."""
    actions = some().actions
    actions[45, 1] = value
    rewritten(path, actions=actions)


def described(path: Path, **entries: object) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | entries))


def shapes(**entries: list[int]) -> dict:
    return {"shapes": {"observations": [120, 4], "actions": [120, 2], "lengths": [3], "rewards": [120]} | entries}


DAMAGE = {
    "the file is missing": (Path.unlink, ["rows.npz", "no such file"]),
    "the description is missing": (lambda path: path.with_suffix(".json").unlink(), ["rows.json", "no such file"]),
    "the description is cut": (lambda path: path.with_suffix(".json").write_text('{"seed": 7, "sha'), ["rows.json"]),
    "the description is of something else": (lambda path: path.with_suffix(".json").write_text("[1]"), ["rows.json"]),
    "the description has other shapes": (
        lambda path: described(path, **shapes(observations=[120, 5])),
        ["rows.npz", "'observations'", "[120, 4]", "[120, 5]"],
    ),
    "the description has another field": (
        lambda path: described(path, **shapes(goals=[120, 2])),
        ["rows.npz", "'goals'", "described"],
    ),
    "it is a directory": (lambda path: (path.unlink(), path.mkdir()), ["rows.npz", "is a directory"]),
    "it is empty": (lambda path: path.write_bytes(b""), ["rows.npz", "truncated"]),
    "it is cut": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), ["rows.npz", "truncated"]),
    "it is no archive": (lambda path: path.write_bytes(b"hello\n" * 50), ["rows.npz", "truncated, damaged or not"]),
    "a number is NaN": (
        lambda path: changed(path, np.nan),
        ["rows.npz: episode 2", "'actions'", "nan", "row 2", "entry 1"],
    ),
    "a field has another shape": (
        lambda path: rewritten(path, observations=some().observations.reshape(4, 30, 4)),
        ["rows.npz", "'observations'", "[4, 30, 4]"],
    ),
    "lengths do not fit": (lambda path: rewritten(path, lengths=np.array([40, 3, 78])), ["'lengths'", "121", "120"]),
    "a field is missing": (lambda path: rewritten(path, actions=None), ["rows.npz", "'actions'", "described"]),
    "a field is of another type": (
        lambda path: rewritten(path, actions=some().actions.astype(np.float64)),
        ["rows.npz", "'actions'", "float64"],
    ),
    "a field holds objects": (
        lambda path: rewritten(path, actions=np.asarray([None, {}], object)),
        ["rows.npz", "'actions'", "object"],
    ),
    "a number has changed": (lambda path: changed(path, 0.5), ["rows.npz", "altered", "sha256", "rows.json"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_in_one_line(tmp_path, damage):
    path = saved(tmp_path)
    act, words = DAMAGE[damage]
    act(path)
    with pytest.raises(DataError) as caught:
        files.load(path)
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
            files.load(path)
    for length in rng.integers(0, len(content), 50):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            files.load(path)
    path.write_bytes(content)
    text = sidecar.read_bytes()
    for place in range(len(text)):
        damaged = bytearray(text)
        damaged[place] ^= 1 << rng.integers(8)
        sidecar.write_bytes(damaged)
        try:
            episodes, _ = files.load(path)
        except DataError:
            continue
        np.testing.assert_array_equal(episodes.observations, some().observations)  # a letter of its text
