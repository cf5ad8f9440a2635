"""How a command ends early: SIGTERM saves and exits 143 within five seconds, SIGINT saves and exits 130, and a second
signal exits at once.

Python runs a signal's handler only when the main thread comes back from compiled code. So a thread of its own reads
each signal from a pipe, and ends the process where the main thread has not done so in time; what was saved stays.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

PATIENCE = 4.0
"""Seconds that the main thread has after SIGTERM."""

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Stopped(BaseException):
    """The process was asked to stop; `code` is its exit status."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class _State:
    code: int | None = None  # of the first signal
    deferred = 0  # how many blocks end at a point of their own choice
    at_exit: ClassVar[list[Callable[[], None]]] = []


def requested() -> int | None:
    """The exit status that a signal has asked for; None if there was none."""
    return _State.code


@contextmanager
def deferred() -> Iterator[None]:
    """A block that a signal does not interrupt. The block asks `requested` where it can stop, and calls `stop`."""
    _State.deferred += 1
    try:
        yield
    finally:
        _State.deferred -= 1


def stop() -> None:
    """Stop here, if a signal has asked for it.

    Raises:
        Stopped: with the exit status.
    """
    if _State.code is not None:
        raise Stopped(_State.code)


def before_exit(action: Callable[[], None]) -> Callable[[], None]:
    """A decorator: what is done, such as giving up locks, when the process ends without unwinding."""
    _State.at_exit.append(action)
    return action


@contextmanager
def handled() -> Iterator[None]:
    """Handle SIGTERM and SIGINT, as this module says, for the time of a command. The main thread alone may enter."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _handler) for number in CODES}
    threading.Thread(target=_watch, args=(read,), daemon=True).start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(write)  # the thread reads the end of the pipe
        _State.code = None


def _handler(number: int, frame: object) -> None:
    if _State.code is None:
        _State.code = CODES[signal.Signals(number)]
    if _State.deferred == 0:
        raise Stopped(_State.code)


def _watch(pipe: int) -> None:
    """Ends the process at the second signal, or when SIGTERM has had its time."""
    count, timers = 0, []
    while received := os.read(pipe, 1):
        number = signal.Signals(received[0])
        if number not in CODES:
            continue
        count += 1
        if count > 1:
            _end(CODES[number])
        if number == signal.SIGTERM:
            timers.append(threading.Timer(PATIENCE, _end, (CODES[number],)))
            timers[-1].daemon = True
            timers[-1].start()
    for timer in timers:  # the command has ended, and the process lives on
        timer.cancel()
    os.close(pipe)


def _end(code: int) -> None:
    for action in _State.at_exit:
        action()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
