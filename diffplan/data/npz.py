"""Episodes of .npz files: the project's own and OGBench's.

Flat rows, episode after episode. `observations` and `actions` must be there. `terminals` and `timeouts` are 1 at the
last row of an episode, or `lengths` has the rows of each. `rewards` are kept. Members are read one by one, and only
those that are asked for, so that nothing else in the file is ever unpacked.
"""

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from diffplan.data.errors import reading
from diffplan.data.fields import Header, Limits, Read, finish, gather, judge
from diffplan.episodes import EpisodesError

KIND = "an .npz file"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Archive:
    """The arrays of an open .npz file."""

    def __init__(self, file: IO[bytes]):
        self._zip = zipfile.ZipFile(file)

    def names(self) -> list[str]:
        """The names of all arrays."""
        return [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]

    def header(self, name: str) -> Header:
        """What an array is, by the header of its member.

        Raises:
            EpisodesError: if the member is not as long as its header says.
        """
        with self._zip.open(f"{name}.npy") as member:
            shape, _, dtype = HEADERS[np.lib.format.read_magic(member)](member)
            begins = member.tell()
        header, size = Header(shape, dtype), self._zip.getinfo(f"{name}.npy").file_size - begins
        if not dtype.hasobject and header.nbytes != size:
            raise EpisodesError(f"field {name!r}: {list(shape)} of {dtype} are {header.nbytes} bytes, found {size}")
        return header

    def get(self, name: str) -> np.ndarray:
        """The array; its checksum is checked."""
        with self._zip.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def read(path: Path, skip_bad: bool = False, limits: Limits | None = None) -> Read:
    """Episodes of an .npz file, and notes.

    Args:
        path: the file.
        skip_bad: leave bad episodes out and say so in notes, instead of raising an error.
        limits: what numbers are allowed; None: all that are finite.

    Raises:
        DataError: naming the file, the field and the episode, if the file cannot be read or is not as this module says.
    """
    with reading(path, KIND), path.open("rb") as file:
        recording, notes = gather(Archive(file))
        return finish(judge(recording, limits, skip_bad), notes)
