"""Run directories: the only place where a fit meets a directory.

A run is made of stages, each in its own directory and each done once. `stage` trains a model, or reads it back; `keep`
does the same for files. What a stage is made from is its identity: its name, the settings that decide its content, and
the identities of its inputs. ``stage.json`` records it, and every checkpoint carries it.

Whatever stands in a directory is never deleted or overwritten, and never passes for something else:

    the same identity                    goes on, or is read back
    other settings, or other inputs      refused, with the first field that differs; with `new_settings` what was there
                                         is kept as NAME.old-1 and the stage is made anew
    another program (`keep`)             kept as NAME.old-1 and made anew; where versions of libraries differ too,
                                         nothing tells whether the program does: it is used, and that is said
    files of no stage, a file            refused

One process at a time writes into a run (`diffplan.runs.lock`).
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from diffplan.runs import signals
from diffplan.runs.checkpoints import Checkpoints, free_name
from diffplan.runs.files import (
    RunError,
    content,
    difference,
    digest,
    file_digest,
    plain,
    read_json,
    text_digest,
    versions,
    write_json,
)
from diffplan.runs.lock import Lock, locked
from diffplan.runs.metrics import Metrics, sinks
from diffplan.runs.progress import Progress, console, say

__all__ = ["Kept", "Made", "Progress", "Recorder", "Run", "RunError", "console", "keep", "say", "signals", "stage"]

Model = TypeVar("Model")
State = TypeVar("State")

RECORD = "stage.json"
AGAIN = "--new-settings makes it anew and keeps what is there as"


@dataclass(frozen=True)
class Run:
    """A run directory, and how it may be used.

    new_settings: whether a stage that was made from other settings may be set aside and made anew. track: where metrics
    go beside metrics.jsonl (`metrics.sinks`).
    """

    directory: Path
    new_settings: bool = False
    track: str = "none"


@runtime_checkable
class Recorder(Protocol):
    """What a training loop tells of itself; `diffplan.learn.train` takes one, by default one that does nothing."""

    def restore(self, state: State, total: int) -> State:
        """The state to go on from, of `total` steps: `state` itself, or what was saved."""
        ...

    def record(self, step: int, losses: np.ndarray, state: Any, due: bool) -> None:
        """After the losses of some steps, the last of them `step`. due: whether the state should be saved."""
        ...


class Made(NamedTuple):
    """A model, its identity, a digest of its parameters, and the seconds that its training took."""

    model: Any
    identity: str
    seconds: float


class Kept(NamedTuple):
    """A directory of files, and their identity: a digest of the stage's identity and of their content."""

    directory: Path
    identity: str


@dataclass(frozen=True)
class _Stage:
    """An open stage. record: as stage.json holds it."""

    directory: Path
    record: dict[str, Any]
    lock: Lock

    @property
    def done(self) -> bool:
        return "files" in self.record

    def check(self) -> None:
        """Raise RunError unless this is still the stage that was opened, in a run that is still locked."""
        self.lock.check()
        there = read_json(self.directory / RECORD)
        if not isinstance(there, dict) or there.get("identity") != self.record["identity"]:
            raise RunError(f"{self.directory}: was renamed or replaced while it was made; nothing is written")

    def finish(self, files: tuple[str, ...] = (), **about: Any) -> dict[str, str]:
        """Mark the stage as done; returns the digests of its files."""
        self.check()
        digests = {name: file_digest(self.directory / name) for name in files}
        write_json(self.directory / RECORD, self.record | about | {"files": digests, "versions": versions()})
        return digests


def stage(
    run: Run,
    name: str,
    fit: Callable[[Recorder], Model],
    settings: Any,
    inputs: Mapping[str, str] | None = None,
) -> Made:
    """Train a model in the stage ``RUN/NAME``, go on with it, or read it back.

    Args:
        run: the run.
        name: of the stage, and of its directory.
        fit: ``fit(recorder) -> model``. It trains once, with this recorder (`diffplan.learn.train.train`).
        settings: dataclasses, dicts of them, plain values: what decides the content.
        inputs: identities of what else decides it, by name.

    Raises:
        RunError: as this module says.
    """
    with locked(run.directory) as lock:
        opened = _open(run, name, settings, inputs or {}, None, lock)
        recorder = Training(opened, run.track)
        try:
            model = fit(recorder)
        except FloatingPointError as error:
            raise FloatingPointError(f"{opened.directory}: {error}") from None
        finally:
            recorder.close()
        if not opened.done:
            opened.finish(seconds=recorder.seconds)
        return Made(model, digest(model), opened.record.get("seconds", recorder.seconds))


def keep(
    run: Run,
    name: str,
    make: Callable[[Path], None],
    settings: Any,
    inputs: Mapping[str, str] | None = None,
    files: tuple[str, ...] = (),
    program: str | None = None,
) -> Kept:
    """Make files in the stage ``RUN/NAME``, unless they are there.

    Args:
        run: the run.
        name: of the stage, and of its directory.
        make: ``make(directory)`` writes `files`.
        settings: what decides the content, as in `stage`.
        inputs: identities of what else decides it, by name.
        files: names of what is made; their digests are recorded, and checked when they are read.
        program: a digest of the program that makes them (`diffplan.runs.program`).

    Raises:
        RunError: as this module says, or if a file has changed since it was made.
    """
    with locked(run.directory) as lock:
        opened = _open(run, name, settings, inputs or {}, program, lock)
        if not opened.done:
            make(opened.directory)
            digests = opened.finish(files)
        else:
            digests = opened.record["files"]
            for file, expected in digests.items():
                path = opened.directory / file
                if not path.is_file() or file_digest(path) != expected:
                    what = "has changed since it was made" if path.is_file() else "is missing"
                    aside = free_name(opened.directory, "old").name
                    raise RunError(f"{path}: {what}; left as it is. Move the stage away, or {AGAIN} {aside}")
        return Kept(opened.directory, text_digest(f"{opened.record['identity']} {sorted(digests.items())}"))


def _open(run: Run, name: str, settings: Any, inputs: Mapping[str, str], program: str | None, lock: Lock) -> _Stage:
    """The stage of a name, ready to go on or to be read back."""
    directory = run.directory / name
    decided = {"stage": name, "settings": content(settings), "inputs": dict(inputs)}
    identity = text_digest(str(sorted(_flat(decided))))
    record = decided | {"all": plain(settings), "identity": identity, "program": program}
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory}: is a file where a stage should be; move it away, or name another --run")
    if directory.is_dir() and any(directory.iterdir()):
        there = read_json(directory / RECORD)
        reason, quiet = _unlike(there, record)
        if reason is None:
            return _Stage(
                directory, record | {k: v for k, v in there.items() if k in ("files", "versions", "seconds")}, lock
            )
        if quiet and there["versions"] != versions():
            say(f"{directory}: used as other versions made it ({difference(there['versions'], versions())})")
            return _Stage(directory, record | {"files": there["files"]}, lock)
        aside = free_name(directory, "old")
        if not (run.new_settings or quiet):
            raise RunError(f"{directory}: {reason}; {AGAIN} {aside.name}")
        lock.check()
        directory.rename(aside)
        say(f"{directory}: {reason}; what was there is kept as {aside.name}")
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / RECORD, record)
    return _Stage(directory, record, lock)


def _unlike(there: Any, record: dict[str, Any]) -> tuple[str | None, bool]:
    """Why what is there is not this stage, and whether its program alone differs; (None, False) if it is."""
    if not isinstance(there, dict) or not {"identity", "settings", "inputs", "stage"} <= there.keys():
        return f"holds files, but no readable {RECORD} says what they are", False
    for part in ("stage", "settings", "inputs"):
        if words := difference(there[part], record[part]):
            more = "; the decay of its learning rate ends at the last step, so that training starts anew"
            return words + (more if "steps was" in words else ""), False
    if there["identity"] != record["identity"]:
        return f"{RECORD} was altered", False
    if "files" in there and there.get("program") != record["program"]:
        return "its program has changed", True
    return None, False


def _flat(tree: Any, path: str = "") -> list[str]:
    """One text for each leaf of nested dicts."""
    if isinstance(tree, dict):
        return [line for key, value in tree.items() for line in _flat(value, f"{path}.{key}")]
    return [f"{path}={tree!r}"]


@dataclass
class Training:
    """A `Recorder` that keeps a training in its stage: checkpoints, metrics, progress; it stops when asked to."""

    opened: _Stage
    track: str
    checkpoints: Checkpoints = field(init=False)
    metrics: Metrics | None = None
    progress: Progress | None = None
    before: float = 0.0
    """Seconds of training before this process went on with it."""
    began: float = field(default_factory=perf_counter)

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.opened.directory / "checkpoints", self.opened.record["identity"])

    def restore(self, state: State, total: int) -> State:
        """The newest checkpoint, if there is one.

        Raises:
            RunError: if none of those that there are can be used, or if a finished stage has none.
        """
        step, state, self.before = self.checkpoints.restore(state)
        if self.opened.done and step == 0:
            raise RunError(f"{self.checkpoints.directory}: has no checkpoint of a finished stage; {AGAIN} the rest")
        if step > total:
            raise RunError(f"{self.opened.directory}: has been trained for {step} steps, and train.steps={total}")
        if step < total:
            where = self.opened.directory
            self.metrics = Metrics(where / "metrics.jsonl", step, *sinks(self.track, where))
            self.progress = Progress(str(where), total=total, done=step)
            self.progress.__enter__()
        return state

    def record(self, step: int, losses: np.ndarray, state: Any, due: bool) -> None:
        """A line of metrics; a checkpoint, if it is due or if the process was asked to stop."""
        assert self.metrics is not None and self.progress is not None
        self.opened.check()
        loss = float(losses.mean())
        self.progress.advance(len(losses), loss=loss)
        self.metrics.write(step, {"loss": loss})
        if due or signals.requested() is not None:
            self.checkpoints.save(step, state, self.seconds)
        signals.stop()

    @property
    def seconds(self) -> float:
        """Of training, in all processes that had a part in it."""
        return self.before + perf_counter() - self.began

    def close(self) -> None:
        """End the progress line."""
        if self.progress is not None:
            self.progress.__exit__(*sys.exc_info())
