"""One process at a time writes into a run directory.

The lock is a file, ``lock.json``, made in one step that fails if it is there, on network file systems too. It names the
process, its host and a token. A process of this host that is gone, or one elsewhere whose heartbeat has stopped, has
left a stale lock, which is taken over. Who holds the lock checks before every write that it is still its own: the
directory may have been renamed meanwhile.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffplan.runs import signals
from diffplan.runs.files import RunError, read_json

FILE = "lock.json"
HEARTBEAT = 20.0
"""Seconds between the heartbeats of a lock."""
STALE = 300.0
"""Seconds without a heartbeat after which a process of another host counts as gone."""
GRACE = 5.0
"""Seconds in which a lock that cannot be read may still be being written. An empty one is stale after them."""

_held: dict[str, "Lock"] = {}
_tokens: set[str] = set()
"""Of the locks that this process holds, or is about to."""


class Lock:
    """A held lock. Entering `locked` again in the same process is free."""

    def __init__(self, directory: Path):
        self.directory, self.path, self.depth = directory, directory / FILE, 0
        self.token = uuid.uuid4().hex
        self._done = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunError: if another process holds it, or if the directory cannot be written.
        """
        about = {"pid": os.getpid(), "started": _started(os.getpid()), **_where(), "token": self.token}
        _tokens.add(self.token)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            while not _create(self.path, json.dumps(about)):
                self._wait_or_remove()
        except OSError as error:
            raise RunError(f"{self.directory}: {error.strerror}; name another directory with --run") from None
        threading.Thread(target=self._beat, daemon=True).start()

    def _wait_or_remove(self) -> None:
        """Remove the lock that is there if it is stale; wait a little if it is being written."""
        with contextlib.suppress(FileNotFoundError):  # it has been given up meanwhile
            holder = read(self.path)
            if _stale(self.path, holder):
                return _remove_stale(self.path)
            if holder:
                raise RunError(
                    f"{self.directory}: in use by process {holder['pid']} on {holder['host']}; wait until it ends, or "
                    f"name another directory with --run (if that process is gone, remove {FILE})"
                )
            if self.path.is_dir() or _age(self.path) > GRACE:
                another = "move it away, or name another directory with --run"
                raise RunError(f"{self.path}: is no lock of a run; {another}")
            time.sleep(0.1)

    def release(self) -> None:
        """Give the lock up, if it is still there."""
        self._done.set()
        _tokens.discard(self.token)
        if self.mine():
            self.path.unlink(missing_ok=True)

    def mine(self) -> bool:
        """Whether the directory still holds this very lock."""
        holder = read(self.path)
        return holder is not None and holder["token"] == self.token

    def check(self) -> None:
        """Raise RunError unless the lock is still held: then nothing may be written."""
        if not self.mine():
            raise RunError(f"{self.directory}: was renamed, or its {FILE} removed, during the run; nothing is written")

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT) and self.mine():
            with contextlib.suppress(OSError):
                os.utime(self.path)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[Lock]:
    """Hold the lock of a run directory for the time of a block."""
    key = os.path.realpath(directory)
    lock = _held.get(key)
    if lock is None:
        lock = Lock(directory.absolute())
        lock.acquire()
        _held[key] = lock
    lock.depth += 1
    try:
        yield lock
    finally:
        lock.depth -= 1
        if lock.depth == 0:
            _held.pop(key, None)
            lock.release()


@signals.before_exit
def release_all() -> None:
    """Give up every lock of this process."""
    for lock in list(_held.values()):
        lock.release()


def _create(path: Path, text: str) -> bool:
    """Make a file; False if something is there already."""
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def read(path: Path) -> dict[str, Any] | None:
    """Who holds a lock; None if there is none, or if it cannot be read."""
    content = read_json(path)
    return content if isinstance(content, dict) and {"pid", "host", "token"} <= content.keys() else None


def _where() -> dict[str, str]:
    """The host and its process numbers' namespace: those of another container mean other processes."""
    try:
        return {"host": socket.gethostname(), "namespace": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {"host": socket.gethostname()}


def _started(pid: int) -> str | None:
    """When a process of this host began, where the system tells: a process number is used again.

    None for a process that has ended, and whose parent has not asked for its status yet.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        return None


def _stale(path: Path, holder: dict[str, Any] | None) -> bool:
    """Whether the process that made a lock is gone."""
    if holder is None:
        return path.stat().st_size == 0 and _age(path) > GRACE
    where = _where()
    if {name: holder.get(name) for name in where} != where:
        return _age(path) > STALE
    if holder["pid"] == os.getpid():
        return holder["token"] not in _tokens
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, TypeError, OverflowError):
        return False
    return _started(int(holder["pid"])) != holder.get("started")


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its own file system."""
    probe = path.with_name(f"{FILE}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove a lock if it still is stale. A guard lets one process at a time look and remove."""
    guard = path.with_name(f"{FILE}.stale")
    if _create(guard, ""):
        try:
            if _stale(path, read(path)):
                path.unlink()
        finally:
            guard.unlink(missing_ok=True)
    elif _age(guard) > GRACE:  # its maker was killed
        guard.unlink(missing_ok=True)
    else:
        time.sleep(0.01)
