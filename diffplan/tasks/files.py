"""A data file as a task: episodes that others recorded, and nothing else."""

from pathlib import Path

from diffplan.data import readers
from diffplan.runs.files import file_digest
from diffplan.settings import ConfigError, settings
from diffplan.task import Task

SUFFIXES = (".npz", ".hdf5", ".h5", ".hdf")


@settings("task")
class FileSettings:
    """A file with observations, actions and perhaps rewards: the project's or OGBench's npz, D4RL's HDF5, Minari."""

    path: str = ""
    """The file, or the id or folder of a local Minari data set."""
    skip_bad: bool = False
    """Leave out episodes that are damaged or too short to be one, and say which; else the first is refused by name."""


def make(config: FileSettings) -> Task:
    """The file as a task.

    Raises:
        ConfigError: if there is no such file.
        DataError: naming the file, the field and the value, if it is not what it must be.
    """
    path = Path(config.path).expanduser()
    if path.suffix in SUFFIXES and not path.is_file():
        raise ConfigError(f"task.path={config.path!r}: no such file")
    source = path if path.exists() else config.path
    episodes, notes = readers.read(source, skip_bad=config.skip_bad)
    content = {"file": file_digest(path)} if path.is_file() else {"data": str(config.path)}
    name = path.stem if path.exists() else config.path
    return Task.from_episodes(episodes, name, settings=content | {"skip_bad": config.skip_bad}, notes=notes)
