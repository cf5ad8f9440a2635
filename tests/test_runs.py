"""Run directories: what was trained is read back, goes on, or is refused with the reason; nothing is lost."""

import errno
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan import runs
from diffplan.codec import Cells
from diffplan.denoise import Edm
from diffplan.experiment.harness import Begin, Bench, Plan, method_stage
from diffplan.guide import Learned
from diffplan.learn import train
from diffplan.learn.train import TrainSettings
from diffplan.methods import Entry, Plans, Problem
from diffplan.runs import Progress, Run, RunError, keep, stage
from diffplan.runs.checkpoints import Checkpoints
from diffplan.runs.files import difference, digest, file_digest, plain, read_json, write_json
from diffplan.runs.program import program
from diffplan.samplers import Sampler

CONFIG = TrainSettings(steps=40, batch=4, learning_rate=0.01, warmup=5, chunk=10, save_every=20)
CONSTANT = replace(CONFIG, decay="constant")
TASK = train.Task(
    lambda params, key, x: (jnp.sum((params["w"] - x) ** 2 * (1 + jax.random.uniform(key))), {}),
    lambda key, mean: mean + jax.random.normal(key, (3,)),
)


def fit(
    run: Run, config: TrainSettings = CONFIG, name: str = "prior", inputs: dict | None = None, seen: list | None = None
):
    """Train three numbers towards a mean, in a stage. seen: hears of every call of the fit."""

    def whole(recorder: runs.Recorder):
        if seen is not None:
            seen.append(name)
        return train.train(TASK, {"w": jnp.zeros(3)}, jnp.asarray(2.0), config, recorder)

    return stage(run, name, whole, {"train": config}, inputs)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def saved(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def flip(path: Path) -> None:
    """One bit, in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def biggest(folder: Path) -> Path:
    return max(folder.rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """A training that nothing disturbs: (its run, the digest of its model)."""
    run = tmp_path_factory.mktemp("whole")
    return run, fit(Run(run)).identity


@pytest.fixture
def copy(whole, tmp_path) -> tuple[Path, str]:
    """The same, to be damaged."""
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run", whole[1]


# -- the same identity --


def test_a_finished_stage_is_read_back_and_nothing_is_written(copy, capsys):
    run, model = copy
    before = tree(run)
    made = fit(Run(run))
    assert made.identity == model and tree(run) == before and capsys.readouterr().out == ""
    assert made.seconds == json.loads((run / "prior" / "stage.json").read_text())["seconds"] > 0
    assert steps_of(run / "prior") == [10, 20, 30, 40] and saved(run / "prior") == {"20", "40"}
    record = json.loads((run / "prior" / "stage.json").read_text())
    assert {"python", "jax", "numpy", "diffplan", "backend"} <= record["versions"].keys()


@pytest.mark.parametrize("changes", [{"chunk": 7}, {"save_every": 30}, {"chunk": 40, "save_every": 1}])
def test_what_does_not_decide_the_numbers_never_invalidates(copy, changes):
    run, model = copy
    before = tree(run)
    assert fit(Run(run, track="none"), replace(CONFIG, **changes)).identity == model
    assert tree(run) == before
    assert fit(Run(run.with_name("other")), replace(CONFIG, **changes)).identity == model


def test_a_number_may_be_written_as_whole_or_not(tmp_path):
    """3 == 3.0, though a parser gives one and a preset the other."""
    made = [keep(Run(tmp_path), "data", lambda path: None, {"scale": scale}) for scale in (3, 3.0, np.float32(3))]
    assert made[0] == made[1] == made[2]


def test_a_stage_stopped_between_its_last_checkpoint_and_its_record_is_finished(copy, capsys):
    run, model = copy
    record = json.loads((run / "prior" / "stage.json").read_text())
    write_json(run / "prior" / "stage.json", {name: record[name] for name in record if name not in runs.RESULT})
    assert fit(Run(run)).identity == model
    assert steps_of(run / "prior") == [10, 20, 30, 40] and "prior" not in capsys.readouterr().out
    assert json.loads((run / "prior" / "stage.json").read_text()).keys() == record.keys()


@pytest.mark.parametrize("name", ["[/x]", "a b", "ü"])
def test_any_name_of_a_run_works(tmp_path, name, capsys):
    folder = tmp_path / name
    fit(Run(folder))
    with pytest.raises(RunError, match="batch was 4 and is now 5"):
        fit(Run(folder), replace(CONFIG, batch=5))
    assert f"{folder}/prior: 40/40" in capsys.readouterr().out


def test_a_relative_run_is_where_the_command_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = fit(Run(Path("run")))
    assert (tmp_path / "run" / "prior" / "stage.json").exists()
    assert fit(Run(tmp_path / "run")).identity == first.identity


# -- more steps --


def test_more_steps_at_a_constant_rate_go_on_and_equal_that_training_at_once(tmp_path):
    short = fit(Run(tmp_path / "a"), CONSTANT)
    long = fit(Run(tmp_path / "a"), replace(CONSTANT, steps=70))
    assert steps_of(tmp_path / "a" / "prior") == [10, 20, 30, 40, 50, 60, 70]
    at_once = fit(Run(tmp_path / "b"), replace(CONSTANT, steps=70))
    assert long.identity == at_once.identity != short.identity
    assert long.seconds > short.seconds
    assert not list(tmp_path.rglob("*.old-*"))
    before = tree(tmp_path)
    with pytest.raises(RunError, match=r"train.steps=40: must be at least 70, .*name another --run"):
        fit(Run(tmp_path / "a"), CONSTANT)
    assert tree(tmp_path) == before


def test_more_steps_of_a_cosine_are_refused_with_the_reason_and_made_anew_when_asked(copy):
    run, model = copy
    before, longer = tree(run), replace(CONFIG, steps=60)
    with pytest.raises(RunError) as error:
        fit(Run(run), longer)
    assert re.search(
        r"train.steps was 40 and is now 60 \(.*decays.*\); --new-settings .* prior.old-1$", str(error.value)
    )
    assert tree(run) == before
    again = fit(Run(run, new_settings=True), longer)
    assert {name.replace("prior/", "prior.old-1/", 1) for name in before} <= tree(run).keys()
    assert tree(run / "prior.old-1") == {name.removeprefix("prior/"): before[name] for name in before}
    assert again.identity == fit(Run(run.with_name("other")), longer).identity != model


# -- other settings, other inputs --


@pytest.mark.parametrize(
    ("config", "inputs", "words"),
    [
        (replace(CONFIG, batch=5), None, "train.batch was 4 and is now 5"),
        (replace(CONFIG, seed=1, learning_rate=0.02), None, "train.learning_rate was 0.01 and is now 0.02"),
        (CONFIG, {"data": "other"}, "inputs.data was None and is now 'other'"),
    ],
)
def test_another_model_is_refused_and_the_field_named(copy, config, inputs, words):
    run, model = copy
    before, calls = tree(run), []
    with pytest.raises(RunError, match=f"^{re.escape(str(run / 'prior'))}: {words}; --new-settings"):
        fit(Run(run), config, inputs=inputs, seen=calls)
    assert tree(run) == before and calls == []
    assert fit(Run(run)).identity == model


def test_what_is_set_aside_twice_is_kept_twice(copy):
    run, model = copy
    other = fit(Run(run, new_settings=True), replace(CONFIG, batch=5))
    again = fit(Run(run, new_settings=True))
    assert again.identity == model != other.identity
    assert {path.name for path in run.iterdir()} == {"prior", "prior.old-1", "prior.old-2"}
    shutil.rmtree(run / "prior")
    (run / "prior.old-1").rename(run / "prior")
    assert fit(Run(run)).identity == model  # and it can be put back


def test_a_stage_in_the_place_of_another_is_refused(copy):
    run, _ = copy
    shutil.copytree(run / "prior", run / "value")
    with pytest.raises(RunError, match="value: stage was 'prior' and is now 'value'"):
        fit(Run(run), name="value")


def test_swapped_checkpoints_of_two_stages_of_one_shape_are_refused(copy):
    run, _ = copy
    other = fit(Run(run), replace(CONFIG, seed=1), name="reward/clean")
    first, second = run / "prior" / "checkpoints", run / "reward" / "clean" / "checkpoints"
    first.rename(run / "aside")
    second.rename(first)
    (run / "aside").rename(second)
    before = tree(run)
    for name, config in (("prior", CONFIG), ("reward/clean", replace(CONFIG, seed=1))):
        with pytest.raises(RunError, match=r"checkpoints/40 belongs to another stage \(\w+\); move it away"):
            fit(Run(run), config, name=name)
    assert tree(run) == before
    assert fit(Run(run, new_settings=True), replace(CONFIG, seed=1), name="reward/clean").identity == other.identity


# -- deleted, altered, damaged --


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"null", b'{"identity": 3}', b'{"stage": "prior", "sett'])
def test_files_without_a_record_never_pass_as_new(copy, content):
    run, model = copy
    path = run / "prior" / "stage.json"
    path.unlink() if content is None else path.write_bytes(content)
    before = tree(run)
    with pytest.raises(RunError, match=r"holds files, but no readable stage.json says what they are; --new-settings"):
        fit(Run(run))
    assert tree(run) == before
    assert fit(Run(run, new_settings=True)).identity == model
    assert tree(run / "prior.old-1") == {name.removeprefix("prior/"): before[name] for name in before}


def test_a_record_edited_by_hand_is_refused(copy):
    """The settings of what is wanted are written over those of what is there; and every byte is flipped in turn."""
    run, model = copy
    wanted, path = replace(CONFIG, seed=1), run / "prior" / "stage.json"
    record = json.loads(path.read_text())
    edit(path, settings={"train": record["settings"]["train"] | {"seed": 1}})
    with pytest.raises(RunError, match=r"stage.json was altered; --new-settings"):
        fit(Run(run), wanted)
    other = fit(Run(run.with_name("other")), wanted)
    edit(path, identity=json.loads((run.with_name("other") / "prior" / "stage.json").read_text())["identity"])
    with pytest.raises(RunError, match="checkpoints/40 belongs to another stage"):  # a hand that can do the digest too
        fit(Run(run), wanted)
    assert other.identity != model
    write_json(path, record | {"files": 3})
    with pytest.raises(RunError, match=r"stage.json was altered"):
        fit(Run(run))


def test_a_damaged_checkpoint_stays_and_an_older_one_is_used(copy, capsys):
    run, model = copy
    newest = run / "prior" / "checkpoints" / "40"
    flip(biggest(newest / "state"))
    damaged = tree(newest)
    assert fit(Run(run)).identity == model
    out = capsys.readouterr().out
    assert re.search(rf"{newest}: damaged, left there and passed over \(\S+ has changed since it was made\)\n", out)
    assert f"{newest}: damaged, kept as 40.damaged-1\n" in out
    assert tree(newest.with_name("40.damaged-1")) == damaged
    assert steps_of(run / "prior") == [10, 20, 30, 40]
    assert fit(Run(run)).identity == model and capsys.readouterr().out == ""


def test_without_its_record_a_checkpoint_is_passed_over(copy, capsys):
    run, model = copy
    (run / "prior" / "checkpoints" / "40" / "record.json").unlink()
    assert fit(Run(run)).identity == model
    assert "passed over (record.json is missing or damaged)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b'{"files": {}}', b'{"identity": "x"'])
def test_a_damaged_record_of_a_checkpoint_is_no_surprise(copy, content, capsys):
    run, model = copy
    (run / "prior" / "checkpoints" / "40" / "record.json").write_bytes(content)
    assert fit(Run(run)).identity == model
    assert "passed over (record.json is missing or damaged)" in capsys.readouterr().out


def test_an_older_checkpoint_under_a_newer_name_is_passed_over(copy, capsys):
    run, model = copy
    shutil.rmtree(run / "prior" / "checkpoints" / "40")
    shutil.copytree(run / "prior" / "checkpoints" / "20", run / "prior" / "checkpoints" / "40")
    assert fit(Run(run)).identity == model
    assert "checkpoints/40: damaged, left there and passed over (it is of step 20)" in capsys.readouterr().out


def test_an_altered_number_is_noticed_by_its_digest(copy, capsys):
    """A checkpoint that orbax reads without complaint, whose files' digests were written anew."""
    run, model = copy
    checkpoints = run / "prior" / "checkpoints"
    start = train.start(jax.random.key(0), {"w": jnp.zeros(3)}, CONFIG)
    record = json.loads((checkpoints / "40" / "record.json").read_text())
    state = Checkpoints(checkpoints, record["identity"]).restore(start)[1]
    other = Checkpoints(run / "elsewhere", record["identity"])
    other.save(40, state._replace(ema=jax.tree.map(lambda leaf: leaf + 1e-6, state.ema)))
    shutil.rmtree(checkpoints / "40")
    shutil.copytree(run / "elsewhere" / "40", checkpoints / "40")
    edit(checkpoints / "40" / "record.json", sha256=record["sha256"])
    assert fit(Run(run)).identity == model
    assert "40: damaged, left there and passed over (its digest does not match)" in capsys.readouterr().out


def test_whichever_file_is_cut_or_lost_nothing_wrong_is_restored(whole, tmp_path, capsys):
    newest = Path("prior", "checkpoints", "40")
    like = train.start(jax.random.key(0), {"w": jnp.zeros(3)}, CONFIG)
    identity = json.loads((whole[0] / newest / "record.json").read_text())["identity"]
    for number, file in enumerate(tree(whole[0] / newest)):
        folder = tmp_path / str(number)
        shutil.copytree(whole[0] / newest.parent, folder)
        content = (folder / "40" / file).read_bytes()
        (folder / "40" / file).write_bytes(content[: len(content) // 2]) if number % 2 else (
            folder / "40" / file
        ).unlink()
        step = Checkpoints(folder, identity).restore(like)[0]
        assert step == 20 or content[: len(content) // 2] == content, file
        assert "40: damaged, left there" in capsys.readouterr().out or step == 40
        assert (folder / "40").is_dir()


def test_with_no_sound_checkpoint_the_run_stops_and_says_what_to_do(copy, capsys):
    run, model = copy
    for path in (run / "prior" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = tree(run)
    with pytest.raises(RunError, match=r"prior: none of its checkpoints can be read; --new-settings .* prior.old-1$"):
        fit(Run(run))
    assert tree(run) == before and capsys.readouterr().out.count("passed over") == 2
    assert fit(Run(run, new_settings=True)).identity == model
    assert "none of its checkpoints can be read; what was there is kept as prior.old-1" in capsys.readouterr().out
    assert tree(run / "prior.old-1") == {name.removeprefix("prior/"): before[name] for name in before}


def test_a_finished_stage_whose_checkpoints_are_gone_is_not_trained_in_silence(copy):
    run, model = copy
    shutil.rmtree(run / "prior" / "checkpoints")
    with pytest.raises(RunError, match="has no checkpoint of what was trained; --new-settings"):
        fit(Run(run))
    assert fit(Run(run, new_settings=True)).identity == model


def x64():
    return jax.enable_x64(True)


def rbg():
    return jax.default_prng_impl("rbg")


@pytest.mark.parametrize(
    ("other", "words"), [(x64, "float32.* and is now .float64"), (rbg, r"\.key was .key<fry>.* and is now .key<rbg>")]
)
def test_another_dtype_or_key_type_is_refused_and_the_checkpoint_kept(copy, other, words):
    run, model = copy
    before = tree(run)
    with (
        other(),
        pytest.raises(RunError, match=rf"checkpoints/40 is of another kind: .*{words}.*; run as it was made") as error,
    ):
        fit(Run(run))
    assert "\n" not in str(error.value) and "--new-settings" in str(error.value)
    assert tree(run) == before
    assert fit(Run(run)).identity == model


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    def full(path, content):
        if path.name == "record.json" and content["step"] == 40:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_json(path, content)

    monkeypatch.setattr("diffplan.runs.checkpoints.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        fit(Run(tmp_path / "run"))
    assert "40" not in saved(tmp_path / "run" / "prior") and "20" in saved(tmp_path / "run" / "prior")
    monkeypatch.undo()
    assert fit(Run(tmp_path / "run")).identity == fit(Run(tmp_path / "other")).identity
    assert saved(tmp_path / "run" / "prior") == {"20", "40"}
    assert steps_of(tmp_path / "run" / "prior") == [10, 20, 30, 40]


def test_a_loss_that_is_not_finite_names_the_stage(tmp_path):
    task = train.Task(
        lambda params, key, x: (jnp.where(params["w"] < -0.2, jnp.nan, params["w"]), {}), lambda key, data: ()
    )
    fits = lambda recorder: train.train(task, {"w": jnp.zeros(())}, (), replace(CONFIG, learning_rate=0.02), recorder)
    with pytest.raises(
        FloatingPointError, match=rf"^{tmp_path}/prior: the loss is nan at step \d+; lower train.learning_rate"
    ):
        stage(Run(tmp_path), "prior", fits, {})
    assert "files" not in json.loads((tmp_path / "prior" / "stage.json").read_text())


# -- files in the way --


@pytest.mark.parametrize(
    ("file", "name"),
    [("run", "prior"), ("run/prior", "prior"), ("run/reward", "reward/clean"), ("run/prior/notes.txt", "prior")],
)
def test_a_users_file_in_a_stages_place_is_never_touched(tmp_path, file, name):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunError) as error:
        fit(Run(tmp_path / "run"), name=name)
    assert "\n" not in str(error.value) and str(tmp_path / "run") in str(error.value)
    assert tree(tmp_path) == before


def test_a_users_rows_are_never_overwritten(tmp_path):
    path = tmp_path / "data" / "rows.npz"
    path.parent.mkdir()
    path.write_text("mine")
    make = lambda folder: (folder / "rows.npz").write_text("ours") and None
    with pytest.raises(RunError, match=r"data: holds files, but no readable stage.json"):
        keep(Run(tmp_path), "data", make, {}, files=("rows.npz",))
    assert path.read_text() == "mine"
    keep(Run(tmp_path, new_settings=True), "data", make, {}, files=("rows.npz",))
    assert (tmp_path / "data.old-1" / "rows.npz").read_text() == "mine" and path.read_text() == "ours"


def test_a_directory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"run: Read-only file system; name another directory with --run$"):
        fit(Run(tmp_path / "run"))


# -- kept files --


def write_rows(folder: Path) -> None:
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    (folder / "plans.bin").write_bytes(bytes(100))


FILES = ("rows.csv", "plans.bin")


def kept(run: Path, make=write_rows, settings=None, program=None, **options):
    return keep(Run(run, **options), "methods/x", make, settings or {"n": 1}, {"models": "m"}, FILES, program)


def never(folder: Path) -> None:
    raise AssertionError("made again")


def test_kept_files_are_read_back(tmp_path):
    first = kept(tmp_path)
    before = tree(tmp_path)
    assert kept(tmp_path, never) == first == (tmp_path / "methods" / "x", first.identity)
    assert tree(tmp_path) == before and set(before) == {f"methods/x/{name}" for name in (*FILES, "stage.json")}
    other = kept(
        tmp_path / "other", lambda folder: write_rows(folder) or ((folder / "rows.csv").write_text("3") and None)
    )
    assert other.identity != first.identity  # what depends on them sees that they are others


@pytest.mark.parametrize(("damage", "words"), [(flip, "has changed since it was made"), (os.unlink, "is missing")])
@pytest.mark.parametrize("name", FILES)
def test_a_kept_file_that_is_not_as_it_was_made_is_refused(tmp_path, name, damage, words):
    first = kept(tmp_path)
    damage(tmp_path / "methods" / "x" / name)
    before = tree(tmp_path)
    with pytest.raises(RunError, match=rf"methods/x: {name} {words}; --new-settings .* x.old-1$"):
        kept(tmp_path)
    assert tree(tmp_path) == before
    assert kept(tmp_path, new_settings=True) == first
    assert tree(tmp_path / "methods" / "x.old-1") == {Path(name).name: before[name] for name in before}


def test_a_record_that_forgets_a_file_does_not_hide_its_change(tmp_path):
    kept(tmp_path)
    path = tmp_path / "methods" / "x"
    edit(path / "stage.json", files={"plans.bin": file_digest(path / "plans.bin")})
    with pytest.raises(RunError, match=r"rows.csv has changed"):
        kept(tmp_path)


def test_whatever_happens_to_a_record_no_files_pass_that_are_not_those(tmp_path):
    """Every byte flipped in turn, and cuts: the right files, or one line."""
    kept(tmp_path / "whole")
    content = (tmp_path / "whole" / "methods" / "x" / "stage.json").read_bytes()
    rng = np.random.default_rng(0)
    flips = [content[:i] + bytes([content[i] ^ 1 << rng.integers(7)]) + content[i + 1 :] for i in range(len(content))]
    folder = tmp_path / "run" / "methods" / "x"
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    refused = 0
    for version in [*flips, *(content[:end] for end in range(0, len(content), 50))]:
        (folder / "stage.json").write_bytes(version)
        try:
            kept(tmp_path / "run")
        except RunError as error:
            refused += 1
            assert "\n" not in str(error)
        assert (folder / "rows.csv").read_text() == "a,b\n1,2\n" and not (
            tmp_path / "run" / "methods" / "x.old-1"
        ).exists()
    assert refused > 100


def test_files_half_made_are_no_files(tmp_path):
    def half(folder: Path) -> None:
        (folder / "rows.csv").write_text("a,")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, half)
    assert not (tmp_path / "methods" / "x" / "rows.csv").exists()
    assert kept(tmp_path) == kept(tmp_path / "other")._replace(directory=tmp_path / "methods" / "x")
    assert not list(tmp_path.rglob(".part-*"))


def test_files_made_for_a_run_that_was_renamed_do_not_reach_its_successor(tmp_path):
    """The run is renamed while its files are made, and another run of that name finishes the same stage."""
    run = tmp_path / "run"

    def renamed(folder: Path) -> None:
        run.rename(tmp_path / "moved")
        runs.lock._held.clear()  # as in another process
        kept(run)
        (folder / "rows.csv").write_text("not yours")

    with pytest.raises((RunError, OSError)):
        kept(run, renamed)
    assert (run / "methods" / "x" / "rows.csv").read_text() == "a,b\n1,2\n"
    assert not list((tmp_path / "moved").rglob("rows.csv"))


def test_rows_of_another_program_are_kept_aside_and_made_again(tmp_path, capsys):
    first = kept(tmp_path, program="one")
    assert kept(tmp_path, never, program="one") == first and capsys.readouterr().out == ""
    kept(tmp_path, lambda folder: [(folder / name).write_text("new") for name in FILES] and None, program="two")
    assert (
        f"{tmp_path}/methods/x: its program has changed; what was there is kept as x.old-1" in capsys.readouterr().out
    )
    assert (tmp_path / "methods" / "x" / "rows.csv").read_text() == "new"
    assert (tmp_path / "methods" / "x.old-1" / "rows.csv").read_text() == "a,b\n1,2\n"


def test_rows_of_other_versions_are_used_and_that_is_said(tmp_path, capsys):
    first = kept(tmp_path, program="one")
    path = tmp_path / "methods" / "x" / "stage.json"
    edit(path, versions=json.loads(path.read_text())["versions"] | {"jax": "0.0.1"})
    before = tree(tmp_path)
    assert kept(tmp_path, never, program="two") == first
    assert re.search(
        r"methods/x: used as other versions made it \(jax was '0.0.1' and is now '.+'\)\n", capsys.readouterr().out
    )
    assert tree(tmp_path) == before
    assert kept(tmp_path, never, program="one") == first and capsys.readouterr().out == ""


def test_a_program_is_what_is_computed():
    x = jnp.arange(3.0)
    double = lambda x: 2 * x
    assert program(double, x) == program(lambda y: 2 * y, x) == program(double, x + 1)
    offsets = [program(lambda y, offset=offset: y + offset, x) for offset in (np.ones(3), np.ones(3), np.zeros(3))]
    others = [program(lambda y: 3 * y, x), program(double, jnp.arange(4.0)), program(double, jnp.arange(3)), offsets[2]]
    assert offsets[0] == offsets[1] and len({program(double, x), offsets[0], *others}) == 6


def output(params, x, c_noise):
    """A network that says 0."""
    return jnp.zeros(())


def little() -> Problem:
    """As much of a problem as the harness asks for: 4 steps in 2 numbers."""
    proxy = Learned({}, jnp.zeros(()), jnp.ones(()), output, "regression")
    cells = Cells(jnp.zeros((2, 2)), jnp.zeros((2, 1), int))
    return Problem(Edm({}, output), cells, Sampler(jnp.ones(1), (4, 2)), regression=proxy)


@dataclass(frozen=True)
class Toy:
    """Plans whose every entry is what the formula says."""

    name: str = "toy"
    strength_name: str = "strength"
    strengths: tuple[float, ...] = (0.0, 1.0)
    shared: bool = False

    def proxy(self, problem):
        return problem.regression

    def __call__(self, key, problem, starts, strengths):
        shape = (len(strengths), len(starts), *problem.shape)
        return Plans.of(jnp.ones(shape) * self.formula(strengths)[:, None, None, None])

    def formula(self, strengths):
        return 1.0 + strengths


def test_an_edited_method_is_run_again_and_its_old_rows_are_named(tmp_path, monkeypatch, capsys):
    """Its settings are the same; its formula is not."""
    bench = Bench(
        task="toy",
        problem=little(),
        starts=lambda key, count: Begin(None, jnp.zeros((count, 2)), jnp.zeros(count, int)),
        measure=lambda key, proxy, begin, x: {"promised": x.mean()},
        program=lambda proxy: "measures",
        replanned=None,
        pictures=lambda x: {"positions": x[..., :2]},
        identity="bench",
    )
    entry = Entry("own", "", "plans", Toy(), ())
    rows = lambda: method_stage(entry, Plan(1, 2, 0, 0), bench, Run(tmp_path), {}, {"steps": 3})
    promised = lambda: [float(row["promised"]) for row in rows()]
    assert promised() == pytest.approx([1, 2])
    before = tree(tmp_path)
    assert promised() == pytest.approx([1, 2]) and tree(tmp_path) == before
    capsys.readouterr()
    monkeypatch.setattr(Toy, "formula", lambda self, strengths: 1.0 - strengths)
    assert promised() == pytest.approx([1, 0])
    assert "methods/toy: its program has changed; what was there is kept as toy.old-1" in capsys.readouterr().out
    assert tree(tmp_path / "methods" / "toy.old-1") == {Path(name).name: before[name] for name in before}


# -- metrics --


def test_metrics_go_elsewhere_too_and_every_training_is_a_run_of_its_own(tmp_path, monkeypatch):
    calls = []

    class Remote:
        def __init__(self, name):
            self.name = name

        def log(self, values, step):
            calls.append((self.name, step, set(values)))

        def finish(self):
            calls.append((self.name, "finish"))

    def init(project, group, name, dir):
        assert (project, group) == ("diffplan", str(tmp_path)) and Path(name).parent == tmp_path
        return Remote(Path(name).name)

    module = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("prior", "value", "value"):  # read back, the last writes nothing
        fit(Run(tmp_path, track="wandb"), replace(CONFIG, steps=20), name)
    lines = lambda name: [(name, 10, {"loss"}), (name, 20, {"loss"}), (name, "finish")]
    assert calls == lines("prior") + lines("value")


def test_a_cut_line_of_metrics_is_dropped_and_each_step_stands_there_once(copy):
    run, model = copy
    path = run / "prior" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 50, "lo')
    shutil.rmtree(run / "prior" / "checkpoints" / "40")
    assert fit(Run(run)).identity == model
    assert steps_of(run / "prior") == [10, 20, 30, 40]


# -- progress --


def test_progress_in_a_log_is_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(runs.progress.time, "monotonic", lambda: now[0])
    with Progress("prior", total=100, done=40) as progress:
        for _ in range(6):
            now[0] += 4.0
            progress.advance(10, loss=0.12345)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "prior: 70/100  loss 0.1235  2.5 steps/s  12 s left",
        "prior: 100/100  loss 0.1235  2.5 steps/s  0 s left",
        "prior: 100/100  loss 0.1235  2.5 steps/s  done in 24.0 s",
    ]


def test_progress_says_nothing_if_nothing_was_left_to_do_or_it_failed(capsys):
    with Progress("prior", total=10, done=10):
        pass
    with pytest.raises(ZeroDivisionError), Progress("prior", total=10) as progress:
        progress.advance(1)
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


# -- files --


def test_json_is_written_in_one_move(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    assert json.loads(path.read_text()) == {"x": 1}

    def full(self, *args, **kwargs):
        Path.open(self, "w").close()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"x": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"x": 1}
    with pytest.raises(TypeError):  # what JSON cannot hold leaves the file alone
        write_json(path, {"x": object()})
    assert read_json(path) == {"x": 1} and read_json(tmp_path / "none.json") is None


def test_plain_values_are_json():
    value = plain({"config": CONFIG, "path": Path("a/b"), 1: (np.int64(2), np.float32(0.5), None, True)})
    assert value == json.loads(json.dumps(value))
    assert value["path"] == "a/b" and value["1"] == [2, 0.5, None, True] and value["config"]["batch"] == 4


def test_the_first_difference_is_named():
    old = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert difference(old, json.loads(json.dumps(old))) is None
    assert difference(old, {"a": 1, "b": {"c": [1, 3], "d": 0}}) == "b.c was [1, 2] and is now [1, 3]"
    assert difference(old, {"a": 1, "b": 2}) == "b was {'c': [1, 2], 'd': None} and is now 2"
    assert difference(old, old | {"e": 5}) == "e was None and is now 5"


def test_digests_tell_values_apart():
    key = jax.random.key(0)
    values = [
        {"a": jnp.zeros(3)},
        {"a": jnp.ones(3)},
        {"a": key},
        {"a": jax.random.key(1)},
        {"a": jax.random.split(key)},
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": key, "b": 1.5}) == digest({"a": jax.random.key(0), "b": 1.5})
