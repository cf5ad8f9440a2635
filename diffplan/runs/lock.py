"""One process at a time writes into a run directory.

The lock is a file, ``lock.json``, made in one step that fails if it is there, on network file systems too. It names the
process, its host and a token. A process of this host that is gone, or one elsewhere whose heartbeat has stopped, has
left a stale lock, which is taken over. Who holds the lock checks before every write that it is still its own: the
directory may have been renamed meanwhile.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffplan.runs import signals
from diffplan.runs.files import RunError

FILE = "lock.json"
HEARTBEAT = 20.0
"""Seconds between the heartbeats of a lock."""
STALE = 300.0
"""Seconds without a heartbeat after which a process of another host counts as gone."""

GRACE = 5.0
"""Seconds in which a lock that cannot be read may still be being written."""

_held: dict[str, "Lock"] = {}


class Lock:
    """A held lock. Entering `locked` again in the same process is free."""

    def __init__(self, directory: Path):
        self.directory, self.path, self.depth = directory, directory / FILE, 0
        self.token = uuid.uuid4().hex
        self._done = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunError: if another process holds it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "token": self.token,
            "started": _started(os.getpid()),
        }
        own = self.path.with_name(f"{FILE}.{self.token}")
        own.write_text(json.dumps(about))
        try:
            while True:
                try:
                    _link(own, self.path)
                    break
                except FileExistsError:
                    holder = read(self.path)
                    if holder is None and self.path.exists() and _age(self.path) < GRACE:
                        time.sleep(0.1)
                        continue
                    if holder is not None and not _stale(self.path, holder):
                        raise RunError(
                            f"{self.directory}: in use by process {holder['pid']} on {holder['host']}; "
                            "wait until it ends, or name another directory with --run"
                        ) from None
                    _remove_stale(self.path, holder)
        finally:
            own.unlink()
        threading.Thread(target=self._beat, daemon=True).start()
        signals.before_exit(self.release)

    def release(self) -> None:
        """Give the lock up, if it is still there."""
        self._done.set()
        if self.mine():
            self.path.unlink(missing_ok=True)

    def mine(self) -> bool:
        """Whether the directory still holds this very lock."""
        holder = read(self.path)
        return holder is not None and holder.get("token") == self.token

    def check(self) -> None:
        """Raise RunError unless the lock is still held: then nothing may be written."""
        if not self.mine():
            raise RunError(f"{self.directory}: was renamed, or its {FILE} removed, during the run; nothing is written")

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            try:
                os.utime(self.path)
            except OSError:
                return


@contextmanager
def locked(directory: Path) -> Iterator[Lock]:
    """Hold the lock of a run directory for the time of a block."""
    key = str(directory.absolute())
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


def _link(own: Path, path: Path) -> None:
    """Make a file of the same content, whole at once; FileExistsError if there is one already."""
    try:
        os.link(own, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("x") as file:
            file.write(own.read_text())


def read(path: Path) -> dict[str, Any] | None:
    """Who holds a lock; None if there is none, or if it cannot be read."""
    try:
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) and {"pid", "host", "token"} <= content.keys() else None
    except (OSError, ValueError):
        return None


def _started(pid: int) -> str | None:
    """When a process of this host began, where the system tells: a process number is used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _stale(path: Path, holder: dict[str, Any]) -> bool:
    """Whether the process that made a lock is gone."""
    if holder["host"] != socket.gethostname():
        return _age(path) > STALE
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
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


def _remove_stale(path: Path, holder: dict[str, Any] | None) -> None:
    """Remove a stale lock, and no other: it is renamed first, which one process alone can do."""
    aside = path.with_name(f"{FILE}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = read(aside)
    if found is not None and holder is not None and found["token"] != holder["token"]:
        _link(aside, path)  # a new one, made in between: put back
    elif holder is None and found is not None:
        _link(aside, path)
    aside.unlink()
    time.sleep(0.01)
