"""Behaviour from files, whoever wrote them: .npz, HDF5, Minari. The suffix decides.

Two consecutive rows of an episode are one true step of the environment: the action of row t, taken at the observation
of row t, led to the observation of row t + 1. Nothing here opens a connection.
"""

import re
from pathlib import Path

from diffplan.data import hdf5, minari, npz
from diffplan.data.errors import DataError
from diffplan.data.fields import Limits, Read

FORMATS = {".npz": npz.read, ".hdf5": hdf5.read, ".h5": hdf5.read, ".hdf": hdf5.read}


def read(source: str | Path, skip_bad: bool = False, limits: Limits | None = None) -> Read:
    """Episodes of a file or a Minari data set, and notes: what was left out, put right, or looks odd, a line each.

    Args:
        source: a file (.npz, .hdf5, .h5 or .hdf), the folder of a Minari data set, or its id, such as
            ``namespace/name-v2``.
        skip_bad: leave bad episodes out and say so in notes, instead of raising an error.
        limits: what numbers are allowed; None: all that are finite.

    Raises:
        DataError: in one line that names the file, the field, the episode, the value, and what is allowed.
        ModuleNotFoundError: if the format needs the `data` extra, which is not installed.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() in FORMATS:
        return FORMATS[path.suffix.lower()](path, skip_bad, limits)
    if path.is_dir():
        return minari.read(path, skip_bad, limits)
    if path.is_file():
        raise DataError(f"{source}: the suffix is {path.suffix!r}: must be one of {', '.join(FORMATS)}")
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", str(source)):
        raise DataError(f"{source}: no such file, and no id of a Minari data set, such as namespace/name-v2")
    return minari.read(str(source), skip_bad, limits)
