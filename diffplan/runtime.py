"""What surrounds a run: its directory, its stages, progress, metrics, and the command line's manners."""

import dataclasses
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import jax
import rich.console
import rich.progress
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffplan.config import ConfigError

Config = TypeVar("Config")
Tree = TypeVar("Tree")
Sink = Callable[[int, Mapping[str, float]], Any]
"""``sink(step, values)``: somewhere else that metrics go."""

console = rich.console.Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
"""As wide as the terminal; in a log wide enough for the tables."""


def say(line: str) -> None:
    """One plain line to the user."""
    console.print(line, markup=False)


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one move, so that a reader never meets half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def plain(config: Any) -> Any:
    """A dataclass as JSON would give it back: dicts, lists, strings, numbers."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    return json.loads(json.dumps(config, default=str))


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    names = ("diffplan", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def shard(batch: Tree) -> Tree:
    """Lay the leading axis of every array over all devices; programs then run on all of them, each on its share.

    Raises:
        ValueError: from jax, if the number of devices does not divide an axis.
    """
    devices = jax.devices()
    if len(devices) == 1:
        return batch
    mesh = jax.make_mesh((len(devices),), ("plans",), axis_types=(AxisType.Auto,))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("plans")))


def use_cores() -> None:
    """Count every CPU core as a device, so that `shard` uses all: small programs run on one core each.

    Before anything asks for a device; without effect on accelerators.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def file_digest(path: Path) -> str:
    """sha256 of a file, as hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run, in its own directory: done once, and then reused as long as nothing it depends on changes.

    A stage is done when `stage.json` stands in its directory, written last, with the configuration that it was made
    from and the digests of its files. A stage made from another configuration is moved aside, never overwritten.
    """

    directory: Path
    config: Mapping[str, Any]

    @property
    def _record(self) -> Path:
        return self.directory / "stage.json"

    def ready(self) -> bool:
        """Whether it is done and sound; if not, its directory is ready to work in and what happened is said."""
        begun = self.directory / "config.json"
        if begun.exists() and (difference := _difference(_read(begun), plain(self.config))):
            aside = _free_name(self.directory)
            self.directory.rename(aside)
            say(f"{self.directory}: {difference}; what was there is kept in {aside.name}")
        self.directory.mkdir(parents=True, exist_ok=True)
        if not begun.exists():
            write_json(begun, plain(self.config))
        if not self._record.exists():
            return False
        if broken := self._broken():
            say(f"{broken}; making it again")
            self._record.unlink()
        return not broken

    def _broken(self) -> str | None:
        """The first file that is not as it was when the stage was finished, in words; None if all are."""
        record = _read(self._record)
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            return f"{self._record}: damaged (not a stage's record)"
        for name, digest in record["files"].items():
            file = self.directory / name
            if not file.exists():
                return f"{file}: missing"
            if file_digest(file) != digest:
                return f"{file}: damaged (its sha256 has changed)"
        return None

    def finish(self, *files: str) -> None:
        """Mark it done: record the digests of its files."""
        digests = {name: file_digest(self.directory / name) for name in files}
        write_json(self._record, {"files": digests, "versions": versions()})

    def identity(self) -> str:
        """A digest of the configuration and files, for the stages that build on this one."""
        content = json.dumps([plain(self.config), _read(self._record)["files"]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def _difference(old: Any, new: dict[str, Any]) -> str | None:
    """The first field in which two configurations differ, in words; None if they are equal."""
    if not isinstance(old, dict):
        return "config.json is damaged"
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            if inner := _difference(before, after):
                return f"{name}.{inner}"
        elif before != after:
            return f"{name} was {before!r} and is now {after!r}"
    return None


def _free_name(directory: Path) -> Path:
    number = 1
    while (aside := directory.with_name(f"{directory.name}.old-{number}")).exists():
        number += 1
    return aside


class Metrics:
    """`metrics.jsonl`: one JSON object a line, appended and flushed; the record that plots read."""

    def __init__(self, path: Path, *sinks: Sink):
        self.path, self.sinks, self.began = path, sinks, time.time()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, and pass it on to every sink."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(time.time() - self.began, 2), **values}) + "\n")
        for sink in self.sinks:
            sink(step, values)


def sinks(track: str, directory: Path) -> list[Sink]:
    """The sinks that a configuration asks for, from the `track` extra: "none", "wandb" or "tensorboard"."""
    match track:
        case "wandb":
            import wandb

            run = wandb.init(project="diffplan", name=str(directory), dir=directory)
            return [lambda step, values: run.log(dict(values), step=step)]
        case "tensorboard":
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(directory / "tensorboard"))
            return [lambda step, values: [writer.add_scalar(name, value, step) for name, value in values.items()]]
    return []


class Progress:
    """A progress bar on a terminal; in a log, a plain line every ten seconds and one at the end."""

    def __init__(self, name: str, total: int, done: int = 0, unit: str = "steps"):
        self.name, self.total, self.done, self.first, self.unit = name, total, done, done, unit
        self.began = self.spoke = time.monotonic()
        self.note = ""
        columns = (
            "{task.description:<22}",
            rich.progress.BarColumn(),
            "{task.completed}/{task.total}  {task.fields[note]}",
        )
        self.bar = rich.progress.Progress(*columns, rich.progress.TimeRemainingColumn(), console=console)
        self.task = self.bar.add_task(name, total=total, completed=done, note="")

    def __enter__(self) -> "Progress":
        if console.is_terminal:
            self.bar.start()
        return self

    def advance(self, count: int, **values: float) -> None:
        """`count` more units are done; `values` are shown beside the rate."""
        self.done += count
        rate = (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)
        self.note = "  ".join([*(f"{key} {value:.4g}" for key, value in values.items()), f"{rate:.3g} {self.unit}/s"])
        if console.is_terminal:
            self.bar.update(self.task, advance=count, note=self.note)
        elif time.monotonic() - self.spoke > 10:
            self.spoke = time.monotonic()
            say(f"{self.name}: {self.done}/{self.total}  {self.note}  {(self.total - self.done) / rate:.0f} s left")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self.bar.stop()
        elif kind is None and self.done > self.first:
            say(f"{self.name}: {self.done}/{self.total}  {self.note}  done in {time.monotonic() - self.began:.1f} s")


def fail(line: str) -> NoReturn:
    """One line on standard error, exit code 2."""
    sys.stderr.write(f"error: {line}\n")
    raise SystemExit(2)


def command(
    main: Callable[[Config], None],
    config: type[Config] | Any,
    presets: Mapping[str, tuple[str, Config]] | None = None,
    default: Config | None = None,
) -> None:
    """Run `main` on a configuration read from the command line, with errors as one line and exit code 2.

    Presets are subcommands; without them, flags change `default`, if there is one.

    Wrong flags and types are tyro's to report, with a hint; a configuration that refuses its values, or a file that is
    not what it should be, is reported by the line its error carries.
    """
    import tyro

    description = sys.modules[main.__module__].__doc__
    try:
        if presets is not None:
            parsed = tyro.extras.overridable_config_cli(dict(presets), description=description)
        elif default is not None:
            parsed = tyro.cli(config, description=description, default=default)
        else:
            parsed = tyro.cli(config, description=description)
        main(parsed)
    except (ConfigError, ValueError, FloatingPointError, OSError, ImportError) as error:
        if os.environ.get("DIFFPLAN_TRACE"):
            raise
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on from here")
