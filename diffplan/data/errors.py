"""What may go wrong with data files, each in one line: the file, what is wrong, what is allowed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from diffplan.episodes import EpisodesError


class DataError(ValueError):
    """Data are missing, damaged or not what they say; the message names the file and the field."""


@contextmanager
def reading(source: object, kind: str) -> Iterator[None]:
    """Turn every failure to read a source into a DataError of one line that begins with the source.

    Args:
        source: the file or data set.
        kind: what the source should be, such as "an HDF5 file".
    """
    try:
        yield
    except (DataError, ModuleNotFoundError):
        raise
    except EpisodesError as error:
        raise DataError(f"{source}: {error}") from error
    except Exception as error:  # libraries raise whatever they trip over first
        raise DataError(f"{source}: {_reason(error, kind)}") from error


def _reason(error: Exception, kind: str) -> str:
    """Why a source of some kind cannot be read."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "no such file"
        case IsADirectoryError():
            return f"is a directory: must be {kind}"
        case PermissionError():
            return "no permission to read this file"
        case MemoryError():
            return f"out of memory ({one_line(error)})"
    if isinstance(error, BlockingIOError) or "unable to lock file" in str(error):
        return "is locked by another process: close the program that writes this file"
    return f"truncated, damaged or not {kind} ({one_line(error)})"


def one_line(error: Exception) -> str:
    """What an exception says, or its kind, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def library(name: str) -> Any:
    """A library of the `data` extra.

    Raises:
        ModuleNotFoundError: naming the extra, if the library is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is missing: pip install 'diffplan[data]'") from error
