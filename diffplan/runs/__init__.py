"""Run directories: the only place where a fit meets a directory.

A run is made of stages, each in its own directory and each done once. `stage` trains a model, or reads it back; `keep`
does the same for files. What a stage is made from is its identity: its name, the settings that decide its content, and
the identities of its inputs. ``stage.json`` records it, and every checkpoint carries it.

Whatever stands in a directory is never deleted or overwritten, and never passes for something else:

    the same identity             goes on, or is read back
    other settings or inputs      refused, with the first field that differs
    damaged, altered, no record   refused, with the reason; an older sound checkpoint is used where there is one
    another program (`keep`)      kept as NAME.old-1 and made anew; where versions of libraries differ too, nothing
                                  tells whether the program does: it is used, and that is said
    a file in a stage's place     refused

With `new_settings`, what was refused is kept as NAME.old-1, and the stage is made anew; a file still is refused. One
process at a time writes into a run (`diffplan.runs.lock`).
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from diffplan.runs import signals
from diffplan.runs.checkpoints import Checkpoints, free_name
from diffplan.runs.files import (
    RunError,
    altered,
    content,
    difference,
    digest,
    file_digest,
    identity_of,
    plain,
    read_json,
    text_digest,
    versions,
    write_json,
)
from diffplan.runs.lock import Lock, locked
from diffplan.runs.metrics import Metrics
from diffplan.runs.progress import Progress, console, say

__all__ = ["Kept", "Made", "Progress", "Recorder", "Run", "RunError", "console", "keep", "say", "signals", "stage"]

Model = TypeVar("Model")
State = TypeVar("State")

RECORD = "stage.json"
RESULT = ("files", "versions", "seconds")
"""What stage.json holds once the stage is done."""


@dataclass(frozen=True)
class Run:
    """A run directory, and how it may be used.

    read_only: whether what is there is read, and anything that would be made is refused; no file is written or moved.

    new_settings: whether a stage that was made from other settings may be set aside and made anew. track: where metrics
    go beside metrics.jsonl (`metrics.sinks`).
    """

    directory: Path
    new_settings: bool = False
    track: str = "none"
    read_only: bool = False


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


@dataclass
class _Stage:
    """An open stage. record: as stage.json holds it."""

    run: Run
    directory: Path
    record: dict[str, Any]
    lock: Lock | None

    @property
    def done(self) -> bool:
        return "files" in self.record

    def check(self) -> None:
        """Raise RunError unless this is still the stage that was opened, in a run that is still locked."""
        self.refuse("would be written")
        assert self.lock is not None
        self.lock.check()
        there = read_json(self.directory / RECORD)
        if not isinstance(there, dict) or there.get("identity") != self.record["identity"]:
            raise RunError(f"{self.directory}: was renamed or replaced while it was made; nothing is written")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block that writes into the stage. An error of the file system may mean that the stage is gone."""
        self.check()
        try:
            yield
        except OSError:
            self.check()
            raise

    def begin(self) -> None:
        """Record the stage as one that is not done yet."""
        self.refuse("is not there")
        self.record = {name: value for name, value in self.record.items() if name not in RESULT}
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / RECORD, self.record)

    def refuse(self, reason: str) -> None:
        """Raise RunError in a run that is only read."""
        if self.run.read_only:
            raise RunError(f"{self.directory}: {reason}; reading a run makes nothing: `Planner.fit` or a command does")

    def finish(self, files: tuple[str, ...] = (), **about: Any) -> None:
        """Mark the stage as done."""
        self.check()
        digests = {name: file_digest(self.directory / name) for name in files}
        self.record |= about | {"files": digests, "versions": versions()}
        write_json(self.directory / RECORD, self.record)

    def set_aside(self, reason: str, always: bool = False) -> None:
        """Keep what is there under another name, and begin anew.

        Raises:
            RunError: unless the run asks for it, or it is done `always`.
        """
        self.refuse(reason)
        aside = free_name(self.directory, "old")
        if not (always or self.run.new_settings):
            again = f"--new-settings makes it anew and keeps what is there as {aside.name}"
            raise RunError(f"{self.directory}: {reason}; {again}")
        assert self.lock is not None
        self.lock.check()
        self.directory.rename(aside)
        say(f"{self.directory}: {reason}; what was there is kept as {aside.name}")
        self.begin()


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
    with _entered(run) as lock:
        opened = _open(run, name, settings, inputs or {}, None, lock)
        recorder = Training(opened)
        try:
            model = fit(recorder)
        except FloatingPointError as error:
            raise FloatingPointError(f"{opened.directory}: {error}") from None
        finally:
            recorder.close()
        if recorder.metrics is not None or not opened.done:
            opened.finish(seconds=recorder.seconds)
        return Made(model, digest(model), opened.record.get("seconds", 0.0))


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
        make: ``make(directory)`` writes `files` into a directory of its own; whole, they are moved into the stage.
        settings: what decides the content, as in `stage`.
        inputs: identities of what else decides it, by name.
        files: names of what is made; their digests are recorded, and checked when they are read.
        program: a digest of the program that makes them (`diffplan.runs.program`).

    Raises:
        RunError: as this module says.
    """
    with _entered(run) as lock:
        opened = _open(run, name, settings, inputs or {}, program, lock)
        known = {file: opened.record["files"].get(file) for file in files if opened.done}
        if reason := altered(opened.directory, known):
            opened.set_aside(reason)
        if not opened.done:
            opened.refuse("is not finished")
            for part in opened.directory.glob(".part-*"):
                shutil.rmtree(part)
            with opened.writing():
                part = Path(tempfile.mkdtemp(prefix=".part-", dir=opened.directory))
                make(part)
                opened.check()
                for path in part.iterdir():
                    path.replace(opened.directory / path.name)
                part.rmdir()
            opened.finish(files)
        digests = sorted(opened.record["files"].items())
        return Kept(opened.directory, text_digest(f"{opened.record['identity']} {digests}"))


def _entered(run: Run) -> AbstractContextManager[Lock | None]:
    """The lock of a run, for the time of a block; a run that is only read has none."""
    return nullcontext() if run.read_only else locked(run.directory)


def _open(
    run: Run, name: str, settings: Any, inputs: Mapping[str, str], program: str | None, lock: Lock | None
) -> _Stage:
    """The stage of a name, ready to go on or to be read back."""
    directory = run.directory / name
    for place in (directory, *directory.parents):
        if place.exists() and not place.is_dir():
            raise RunError(f"{place}: is a file where a directory should be; move it away, or name another --run")
    decided = {"stage": name, "settings": content(settings), "inputs": dict(inputs)}
    now = {"all": plain(settings), "program": program}
    opened = _Stage(run, directory, decided | {"identity": identity_of(decided)} | now, lock)
    if not directory.exists() or not any(directory.iterdir()):
        opened.begin()
        return opened
    there = read_json(directory / RECORD)
    if reason := _unlike(there, decided):
        opened.set_aside(reason)
    elif "files" not in there or there.get("program") == program:
        opened.record = there | now  # with the identity that is there: 3 and 3.0 are equal, and written differently
    elif there.get("versions") != versions():
        say(f"{directory}: used as other versions made it ({difference(there.get('versions'), versions())})")
        opened.record = there
    else:
        opened.set_aside("its program has changed", always=True)
    return opened


def _unlike(there: Any, decided: dict[str, Any]) -> str | None:
    """Why the record that is there is not one of this stage; None if it is."""
    if not isinstance(there, dict) or not {"identity", *decided} <= there.keys():
        return f"holds files, but no readable {RECORD} says what they are"
    own = {part: there[part] for part in decided}
    if words := difference(own, decided):
        return words.removeprefix("settings.")
    if there["identity"] != identity_of(own) or not isinstance(there.get("files", {}), dict):
        return f"{RECORD} was altered"
    return None


@dataclass
class Training:
    """A `Recorder` that keeps a training in its stage: checkpoints, metrics, progress; it stops when asked to."""

    opened: _Stage
    checkpoints: Checkpoints = field(init=False)
    metrics: Metrics | None = None
    progress: Progress | None = None
    before: float = 0.0
    """Seconds of training before this process went on with it."""
    began: float = field(default_factory=perf_counter)

    def restore(self, state: State, total: int) -> State:
        """The newest checkpoint, if there is one.

        Raises:
            RunError: if none of those that there are can be used, or if a finished stage has none.
        """
        where = self.opened.directory
        self.checkpoints = Checkpoints(where / "checkpoints", self.opened.record["identity"])
        step = 0
        try:
            step, state, self.before = self.checkpoints.restore(state)
            if self.opened.done and step == 0:
                raise RunError("has no checkpoint of what was trained")
        except RunError as error:
            self.opened.set_aside(str(error))
        if step > total:
            allowed = f"at least {step}, for so long it has been trained; or name another --run"
            raise RunError(f"{where}: train.steps={total}: must be {allowed}")
        if step < total:
            self.opened.refuse(f"is trained for {step} of {total} steps")
            self.metrics = Metrics(where, step, self.opened.run.track)
            self.progress = Progress(str(where), total=total, done=step)
            self.progress.__enter__()
        return state

    def record(self, step: int, losses: np.ndarray, state: Any, due: bool) -> None:
        """A line of metrics; a checkpoint, if it is due or if the process was asked to stop."""
        assert self.metrics is not None and self.progress is not None
        with self.opened.writing():
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
        """End the progress line, and what the metrics opened."""
        if self.progress is not None:
            self.progress.__exit__(*sys.exc_info())
        if self.metrics is not None:
            self.metrics.close()
