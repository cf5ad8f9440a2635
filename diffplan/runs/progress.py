"""What a user sees while work goes on: plain lines, and a progress bar on a terminal."""

import sys
import time
from types import TracebackType

import rich.console
import rich.progress

console = rich.console.Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
"""As wide as the terminal; in a log wide enough for the tables."""

EVERY = 10.0
"""Seconds between the lines of a log."""


def say(line: str) -> None:
    """Print one plain line."""
    console.print(line, markup=False)


class Progress:
    """A progress bar on a terminal; in a log, a plain line every ten seconds and one at the end."""

    def __init__(self, name: str, total: int, done: int = 0, unit: str = "steps"):
        self.name, self.total, self.done, self.first, self.unit = name, total, done, done, unit
        self.began = self.spoke = time.monotonic()
        self.note = ""
        columns = (
            rich.progress.TextColumn("{task.description:<22}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.completed}/{task.total}  {task.fields[note]}", markup=False),
        )
        self.bar = rich.progress.Progress(*columns, rich.progress.TimeRemainingColumn(), console=console)
        self.task = self.bar.add_task(name, total=total, completed=done, note="")

    def __enter__(self) -> "Progress":
        if console.is_terminal:
            self.bar.start()
        return self

    def advance(self, count: int, **values: float) -> None:
        """Count `count` more units as done; `values` are shown beside the rate."""
        self.done += count
        rate = (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)
        self.note = "  ".join([*(f"{key} {value:.4g}" for key, value in values.items()), f"{rate:.3g} {self.unit}/s"])
        if console.is_terminal:
            self.bar.update(self.task, advance=count, note=self.note)
        elif time.monotonic() - self.spoke > EVERY:
            self.spoke = time.monotonic()
            say(f"{self.name}: {self.done}/{self.total}  {self.note}  {(self.total - self.done) / rate:.0f} s left")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self.bar.stop()
        elif kind is None and self.done > self.first:
            say(f"{self.name}: {self.done}/{self.total}  {self.note}  done in {time.monotonic() - self.began:.1f} s")
