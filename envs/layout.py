"""Mazes drawn as text, and the graph of their free cells. Shared by every environment that has cells.

A layout is a tuple of equally long row strings over three tiles: `#` wall, `O` free, `G` free and the goal. Row index i
is the first coordinate and column index j the second. The edge of the drawing must be wall, so nothing can leave it.
Free cells are numbered in reading order,

    cells = ((i_0, j_0), (i_1, j_1), ...)                                                                        (1)

and a list of moves (di, dj) turns them into a deterministic graph, a move into a wall staying where it is:

    successors[c, m] = id(cells[c] + moves[m]) if that is free else c                                            (2)
    hops[c, g]       = length of the shortest path from c to g in (2), by breadth-first search                   (3)

A drawing may spell its tiles in other ways. The rows have one spelling:

    tile    in a drawing
    `#`     `#`; `1` in a drawing without `#`
    `O`     `O`, `o`, `0`; a blank inside a row, as in D4RL
    `G`     `G`, `g`

Everything here is numpy on small tables, computed once when an environment is built, never inside a jitted function.
"""

import codecs
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

Rows = tuple[str, ...]
Moves = Sequence[tuple[int, int]]

TILES = {"#": "#", "1": "#", "O": "O", "0": "O", " ": "O", "G": "G"}
"""The tile of the rows for each tile of a drawing, in upper case."""
MAX_SIDE = 256
"""Tiles: the largest height and width of a drawing."""
MAX_BYTES = 1 << 20
"""Bytes: the largest file of a drawing."""
MAX_CELLS = 4096
"""Cells: the most that a table of all pairs of cells is made for."""


def parse(text: str) -> Rows:
    """Reads a drawing into its rows.

    Args:
        text: one row per line, or rows separated by backslashes as in D4RL. Blank lines, the space around a line and a
            byte-order mark are ignored. The module's docstring lists the tiles.

    Returns:
        The rows, of `#`, `O` and `G` alone.

    Raises:
        ValueError: one line naming the problem: nothing drawn, too large, a ragged row, an unknown tile, an edge that
            is not wall, no free cell, two goals.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").replace("\\", "\n").splitlines()]
    drawn = tuple(line for line in lines if line)
    if not drawn:
        raise ValueError("the layout is empty: draw at least one free cell 'O' inside walls '#'")
    _check_size(drawn)
    _check_tiles(drawn)
    rows = tuple("".join(TILES[tile] for tile in row.upper()) for row in drawn)
    height, width = len(rows), len(rows[0])
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile != "#" and (i in (0, height - 1) or j in (0, width - 1)):
                at = _named(drawn, i, j)
                raise ValueError(f"not enclosed by walls: {at} lies on the edge, where '#' must be")
    goals = [(i, j) for i, row in enumerate(rows) for j, tile in enumerate(row) if tile == "G"]
    if len(goals) > 1:
        raise ValueError(f"more than one goal 'G': at row, column {', '.join(map(str, goals[:9]))}; mark one cell")
    if all(tile == "#" for row in rows for tile in row):
        raise ValueError("no free cell: the layout is all wall; draw at least one 'O'")
    return rows


def read(path: Path | str) -> Rows:
    """Reads the file of a drawing into its rows.

    Args:
        path: a text file in UTF-8 or UTF-16 of at most MAX_BYTES bytes.

    Returns:
        The rows, as of `parse`.

    Raises:
        ValueError: one line naming the file and the problem: no such file, not a text file, too large, or anything that
            `parse` refuses.
    """
    path = Path(path)
    try:
        return parse(_decode(_contents(path)))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _contents(path: Path) -> bytes:
    if not path.exists():
        raise ValueError("there is no such file: give the path of a drawing")
    if path.is_dir():
        raise ValueError("this is a directory: give the path of a drawing")
    if not path.is_file():
        raise ValueError("this is not a regular file: give the path of a drawing")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes: a drawing has at most {MAX_SIDE} x {MAX_SIDE} tiles")
    return data


def _decode(data: bytes) -> str:
    """The text of a file: UTF-16 where a byte-order mark or a zero byte among the first two says so, else UTF-8."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    unmarked = {0: "utf-16-be", 1: "utf-16-le"}.get(data[:2].find(b"\0"), "utf-8-sig")
    problem = "this is not text in UTF-8 or UTF-16: give the path of a drawing"
    try:
        text = data.decode("utf-16" if marked else unmarked)
    except UnicodeDecodeError as error:
        raise ValueError(problem) from error
    if any(not (letter.isspace() or letter.isprintable() or letter == "\ufeff") for letter in text):
        raise ValueError(problem)
    return text


def _check_size(drawn: Rows) -> None:
    if len(drawn) > MAX_SIDE:
        raise ValueError(f"{len(drawn)} rows: a drawing has at most {MAX_SIDE} x {MAX_SIDE} tiles")
    for i, row in enumerate(drawn):
        if len(row) > MAX_SIDE:
            raise ValueError(f"row {i} has {len(row)} tiles: a drawing has at most {MAX_SIDE} x {MAX_SIDE} tiles")


def _check_tiles(drawn: Rows) -> None:
    hashes = any("#" in row for row in drawn)
    for i, row in enumerate(drawn):
        for j, tile in enumerate(row):
            if tile.upper() not in TILES:
                raise ValueError(f"unknown {_named(drawn, i, j)}: use '#' or '1' wall, 'O', '0' or ' ' free, 'G' goal")
            if tile == "1" and hashes:
                raise ValueError(f"{_named(drawn, i, j)}: '1' is wall only in a drawing without '#'")
    for i, row in enumerate(drawn):
        if len(row) != len(drawn[0]):
            raise ValueError(
                f"ragged layout: row {i} has {len(row)} tiles where row 0 has {len(drawn[0])}: "
                "every row must be equally long"
            )


def _named(drawn: Rows, i: int, j: int) -> str:
    return f"tile {drawn[i][j]!r} at row {i}, column {j} (counted from 0)"


def reachable(free: Bool[np.ndarray, "i j"]) -> Bool[np.ndarray, "i j"]:
    """The cells that can be reached from the first free cell by steps up, down, left and right; the rim must be wall.

    Args:
        free: True where there is no wall; at least one cell.
    """
    reached = np.zeros_like(free)
    reached[tuple(np.argwhere(free)[0])] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            return reached
        reached = grown


def check_connected(rows: Rows) -> None:
    """Checks that each free cell can be reached from each other.

    Raises:
        ValueError: if one cannot; the message names it.
    """
    free = ~walls(rows)
    apart = np.argwhere(free & ~reachable(free)).tolist()
    if apart:
        first, cell = tuple(np.argwhere(free)[0].tolist()), tuple(apart[0])
        rest = f", nor can {len(apart) - 1} others" if apart[1:] else ""
        raise ValueError(
            f"the free cells are not connected: cell {cell} cannot be reached from cell {first}{rest}; "
            "rows and columns count from 0"
        )


def check_table(cells: int) -> None:
    """Checks that a table of all pairs of cells fits in memory.

    Raises:
        ValueError: for more than MAX_CELLS cells.
    """
    if cells > MAX_CELLS:
        raise ValueError(f"{cells} cells: a table of all pairs holds at most {MAX_CELLS}: draw a smaller world")


def walls(rows: Rows) -> Bool[np.ndarray, "i j"]:
    """True where there is wall."""
    return _frozen(np.array([[tile == "#" for tile in row] for row in rows]))


def cells(rows: Rows) -> Int[np.ndarray, "cells 2"]:
    """The free cells (row, column) in reading order, the goal among them; equation (1)."""
    return _frozen(np.argwhere(~walls(rows)).astype(np.int32))


def cell_ids(rows: Rows) -> Int[np.ndarray, "i j"]:
    """The number of each free cell in `cells`; -1 on walls."""
    free = ~walls(rows)
    ids = np.full(free.shape, -1, np.int32)
    ids[free] = np.arange(free.sum(), dtype=np.int32)
    return _frozen(ids)


def goal(rows: Rows) -> tuple[int, int]:
    """The (row, column) of the goal.

    Raises:
        ValueError: if the layout has no `G`.
    """
    for i, row in enumerate(rows):
        if "G" in row:
            return i, row.index("G")
    raise ValueError("the layout has no goal: mark one cell 'G', or choose a reward that needs none")


def successors(rows: Rows, moves: Moves) -> Int[np.ndarray, "cells moves"]:
    """The cell that each move leads to; equation (2)."""
    ids, places = cell_ids(rows), cells(rows)
    reached = np.stack([ids[places[:, 0] + di, places[:, 1] + dj] for di, dj in moves], axis=1)
    return _frozen(np.where(reached < 0, np.arange(len(places), dtype=np.int32)[:, None], reached))


def hops(successor: Int[np.ndarray, "cells moves"]) -> Int[np.ndarray, "cells cells"]:
    """Moves on the shortest path from each cell (first axis) to each cell (second), -1 where there is none; (3).

    Raises:
        ValueError: for more than MAX_CELLS cells.
    """
    count = len(successor)
    check_table(count)
    distance = np.where(np.eye(count, dtype=bool), 0, -1).astype(np.int32)
    frontier, steps = np.eye(count, dtype=bool), 0  # frontier[c, g]: c is `steps` moves from g
    while frontier.any():
        steps += 1
        frontier = frontier[successor].any(axis=1) & (distance < 0)
        distance[frontier] = steps
    return _frozen(distance)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
