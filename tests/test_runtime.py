"""What surrounds a run: stages that are done once, files that are never half there, lines that a user can read."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffplan import config, runtime
from diffplan.config import CompareSettings, ConfigError
from diffplan.runtime import Metrics, Progress, Stage

SETTING = {"rows": 10, "maze": "umaze", "train": {"steps": 5, "rate": 0.1}}


def finished(folder: Path, setting: dict | None = None) -> Stage:
    stage = Stage(folder / "data", SETTING if setting is None else setting)
    assert not stage.ready()
    (stage.directory / "rows.bin").write_bytes(bytes(range(100)))
    (stage.directory / "text.txt").write_text("hello")
    stage.finish("rows.bin", "text.txt")
    return stage


def test_a_finished_stage_is_reused_in_silence(tmp_path, capsys):
    stage = finished(tmp_path)
    again = Stage(tmp_path / "data", json.loads(json.dumps(SETTING)))
    assert again.ready() and again.identity() == stage.identity()
    assert json.loads((tmp_path / "data" / "config.json").read_text()) == SETTING
    assert {"python", "jax", "numpy", "diffplan"} <= set(
        json.loads((tmp_path / "data" / "stage.json").read_text())["versions"]
    )
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_unfinished_stage_is_done_again_where_it_was(tmp_path, capsys):
    stage = Stage(tmp_path / "data", SETTING)
    assert not stage.ready()
    (stage.directory / "half").write_text("half of a file")
    assert not Stage(tmp_path / "data", SETTING).ready()
    assert (stage.directory / "half").exists()  # such as a checkpoint, to go on from
    assert capsys.readouterr().out == ""


CHANGES = [
    ({**SETTING, "rows": 11}, "rows was 10 and is now 11"),
    ({**SETTING, "train": {"steps": 5, "rate": 0.2}}, "train.rate was 0.1 and is now 0.2"),
    ({**SETTING, "more": True}, "more was None and is now True"),
    ({"rows": 10, "train": SETTING["train"]}, "maze was 'umaze' and is now None"),
]


@pytest.mark.parametrize(("setting", "words"), CHANGES)
def test_a_stage_of_other_settings_is_kept_aside_and_the_field_named(tmp_path, capsys, setting, words):
    finished(tmp_path)
    changed = Stage(tmp_path / "data", setting)
    assert not changed.ready()
    assert capsys.readouterr().out == f"{tmp_path / 'data'}: {words}; what was there is kept in data.old-1\n"
    assert (tmp_path / "data.old-1" / "rows.bin").read_bytes() == bytes(range(100))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["config.json"]
    assert Stage(tmp_path / "data.old-1", SETTING).ready()
    # and what is there now makes room in turn
    assert not Stage(tmp_path / "data", SETTING).ready()
    assert (tmp_path / "data.old-2").exists() and (tmp_path / "data.old-1").exists()


def test_the_identity_of_a_stage_changes_with_its_settings_and_its_files(tmp_path):
    identities = set()
    for name, setting, content in (("a", {"x": 1}, "u"), ("b", {"x": 2}, "u"), ("c", {"x": 1}, "v")):
        stage = Stage(tmp_path / name, setting)
        stage.ready()
        (stage.directory / "file").write_text(content)
        stage.finish("file")
        identities.add(stage.identity())
    assert len(identities) == 3


@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_damaged_file_is_named_and_the_stage_redone(tmp_path, capsys, damage):
    stage, file = finished(tmp_path), tmp_path / "data" / "rows.bin"
    match damage:
        case "altered":
            file.write_bytes(bytes(range(1, 101)))
        case "cut":
            file.write_bytes(bytes(range(50)))
        case "missing":
            file.unlink()
    assert not stage.ready()
    out = capsys.readouterr().out
    assert (
        out.startswith(f"{file}: ")
        and ("missing" if damage == "missing" else "damaged") in out
        and out.count("\n") == 1
    )
    assert not (tmp_path / "data" / "stage.json").exists()  # so that a kill from here on cannot bring it back
    assert not stage.ready() and capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["stage.json", "config.json"])
def test_whatever_happens_to_a_record_no_stage_is_ready_with_other_files(tmp_path, name):
    """Every byte flipped in turn, and cuts: an answer, never an exception; and True only if the files are right."""
    rng = np.random.default_rng(0)
    content = (finished(tmp_path).directory / name).read_bytes()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    versions = [
        content[:i] + bytes([content[i] ^ 1 << rng.integers(7)]) + content[i + 1 :] for i in range(len(content))
    ]
    folder = tmp_path / "data"
    for number, version in enumerate(
        [*versions, b"", b"[]", b"{}", b"null", b'{"files": 3}', b'{"files": ["rows.bin"]}', content[:30]]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, data in kept.items():
            (folder / file).write_bytes(version if file == name else data)
        if Stage(folder, SETTING).ready():
            assert (folder / "rows.bin").read_bytes() == bytes(range(100))
            assert json.loads((folder / "config.json").read_text()) == SETTING


def test_json_is_written_in_one_move(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    runtime.write_json(path, {"x": 1})
    assert json.loads(path.read_text()) == {"x": 1}

    def full(self, *args, **kwargs):
        Path.open(self, "w").close()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        runtime.write_json(path, {"x": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"x": 1}
    runtime.write_json(path, {"x": 3})
    assert json.loads(path.read_text()) == {"x": 3} and [file.name for file in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(TypeError):  # what JSON cannot hold leaves the file alone
        runtime.write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"x": 3}


def test_a_configuration_becomes_plain_json():
    plain = runtime.plain(CompareSettings())
    assert plain == json.loads(json.dumps(plain))
    assert plain["run"] == "runs/demo" and plain["gold"]["centre"] == list(CompareSettings().gold.centre)


def test_metrics_are_lines_of_json_and_reach_every_sink(tmp_path):
    observed = []
    metrics = Metrics(tmp_path / "metrics.jsonl", lambda step, values: observed.append((step, dict(values))))
    metrics.write(10, {"loss": 0.5})
    Metrics(tmp_path / "metrics.jsonl").write(20, {"loss": 0.25, "rate": 3.0})  # a resumed run appends
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(10, 0.5), (20, 0.25)]
    assert all(line["seconds"] >= 0 for line in lines) and lines[1]["rate"] == 3.0
    assert observed == [(10, {"loss": 0.5})]


class Clock:
    """A stand-in for the time module, moved by hand."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_progress_in_a_log_is_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(runtime, "time", clock)
    with Progress("prior", total=100, done=40) as progress:
        for _ in range(6):
            clock.now += 4.0
            progress.advance(10, loss=0.12345)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "prior: 70/100  loss 0.1235  2.5 steps/s  12 s left",
        "prior: 100/100  loss 0.1235  2.5 steps/s  0 s left",
        "prior: 100/100  loss 0.1235  2.5 steps/s  done in 24.0 s",
    ]
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_progress_says_nothing_if_nothing_was_left_to_do_or_it_failed(capsys):
    with Progress("prior", total=10, done=10):
        pass
    with pytest.raises(ZeroDivisionError), Progress("prior", total=10) as progress:
        progress.advance(1)
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


REFUSED = [
    (config.DataSettings, {"rows": 0}, "data.rows=0: must be at least 1"),
    (
        config.DataSettings,
        {"rows": 10, "trajectories": 11},
        "data.trajectories=11: must be between 1 and data.rows (10)",
    ),
    (config.DataSettings, {"noise": -0.1}, "data.noise=-0.1: must be 0 or more"),
    (config.GoldSettings, {"radius": 0.0}, "gold.radius=0.0: must be more than 0"),
    (config.TrainSettings, {"steps": 0}, "train.steps=0: must be at least 1"),
    (config.TrainSettings, {"steps": 1, "save_every": 0}, "train.save_every=0: must be at least 1"),
    (config.TrainSettings, {"steps": 1, "learning_rate": 0.0}, "train.learning_rate=0.0: must be more than 0"),
    (config.TrainSettings, {"steps": 1, "learning_rate": float("nan")}, "train.learning_rate=nan: must be more than 0"),
    (config.TrainSettings, {"steps": 1, "ema": 1.0}, "train.ema=1.0: must be in [0, 1)"),
    (config.TrainSettings, {"steps": 1, "warmup": -1}, "train.warmup=-1: must be 0 or more"),
    (config.NoiseSettings, {"low": 0.0}, "noise.low=0.0: must be between 0 and noise.high (10.0)"),
    (config.NoiseSettings, {"high": 0.01}, "noise.low=0.02: must be between 0 and noise.high (0.01)"),
    (config.PriorSettings, {"horizon": 33}, "prior.horizon=33: must be a multiple of 8"),
    (config.PriorSettings, {"horizon": 30, "network": "unet"}, "prior.horizon=30: must be a multiple of 4"),
    (config.PriorSettings, {"goal_fraction": 1.1}, "prior.goal_fraction=1.1: must be in [0, 1]"),
    (config.PriorSettings, {"held_out": 1.0}, "prior.held_out=1.0: must be between 0 and 1"),
    (config.ProxySettings, {"labels": 1}, "proxy.labels=1: must be at least 2"),
    (config.ProxySettings, {"quantile": 2.0}, "proxy.quantile=2.0: must be between 0 and 1"),
    (config.SamplerSettings, {"steps": 1}, "sampler.steps=1: must be at least 2"),
    (config.StrengthSettings, {"points": 0}, "strengths.points=0: must be at least 1"),
    (config.StrengthSettings, {"refine": -1}, "strengths.refine=-1: must be 0 or more"),
    (
        config.StrengthSettings,
        {"scale": (3, 1)},
        "strengths.scale=(3, 1): must be two numbers above 0, the smaller first",
    ),
    (config.StrengthSettings, {"pool": 0}, "strengths.pool=0: must be at least 1"),
    (config.StrengthSettings, {"ascent_rate": 0.0}, "strengths.ascent_rate=0.0: must be more than 0"),
    (CompareSettings, {"seeds": 0}, "seeds=0: must be at least 1"),
    (CompareSettings, {"plans": 1}, "plans=1: must be at least 2 (diversity is over pairs)"),
    (CompareSettings, {"reference": 1}, "reference=1: must be at least 2"),
]


@pytest.mark.parametrize(("kind", "values", "line"), REFUSED, ids=[line.split(":")[0] for _, _, line in REFUSED])
def test_a_value_that_cannot_work_is_refused_in_one_line(kind, values, line):
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}$"):
        kind(**values)


def test_trajectories_must_be_longer_than_a_plan():
    with pytest.raises(
        ConfigError, match=r"^data.rows=6400: must be more than data.trajectories \* prior.horizon \(6400\)$"
    ):
        CompareSettings(
            data=config.DataSettings(rows=6400, trajectories=100), prior=replace(CompareSettings().prior, horizon=64)
        )


def test_the_widest_values_are_allowed():
    config.TrainSettings(steps=1, batch=1, warmup=0, ema=0.0, chunk=1, save_every=1)
    config.PriorSettings(goal_fraction=0.0)
    config.StrengthSettings(points=1, refine=0, pool=1, ascent_steps=1)
    config.DataSettings(rows=1, trajectories=1, noise=0.0)


@pytest.mark.parametrize(
    "error", [ConfigError, ValueError, FileNotFoundError, FloatingPointError, PermissionError, ImportError]
)
def test_a_command_ends_in_one_line_and_exit_code_two(error, capsys, monkeypatch):
    def main(setting: config.SamplerSettings) -> None:
        raise error("steps=3: not today")

    monkeypatch.setattr("sys.argv", ["command", "--steps", "3"])
    monkeypatch.delenv("DIFFPLAN_TRACE", raising=False)
    with pytest.raises(SystemExit) as ended:
        runtime.command(main, config.SamplerSettings)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: steps=3: not today\n"
    monkeypatch.setenv("DIFFPLAN_TRACE", "1")
    with pytest.raises(error):
        runtime.command(main, config.SamplerSettings)


def test_an_interrupted_command_says_how_to_go_on(capsys, monkeypatch):
    def main(setting: config.SamplerSettings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as ended:
        runtime.command(main, config.SamplerSettings)
    assert ended.value.code == 2 and "run the same command again" in capsys.readouterr().err
