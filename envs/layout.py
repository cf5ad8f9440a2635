"""Mazes drawn as text, and the graph of their free cells. Shared by every environment that has cells.

A layout is a tuple of equally long row strings over three tiles: `#` wall, `O` free, `G` free and the goal. Row index i
is the first coordinate and column index j the second. The edge of the drawing must be wall, so nothing can leave it.
Free cells are numbered in reading order,

    cells = ((i_0, j_0), (i_1, j_1), ...)                                                                        (1)

and a list of moves (di, dj) turns them into a deterministic graph, a move into a wall staying where it is:

    successors[c, m] = id(cells[c] + moves[m]) if that is free else c                                            (2)
    hops[c, g]       = length of the shortest path from c to g in (2), by breadth-first search                   (3)

Everything here is numpy on small tables, computed once when an environment is built, never inside a jitted function.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

Rows = tuple[str, ...]
Moves = Sequence[tuple[int, int]]

TILES = "#OG"


def parse(text: str) -> Rows:
    """Reads a drawing into its rows, one per line; blank lines and the space around a line are ignored.

    Raises:
        ValueError: one line naming the problem: nothing drawn, a ragged row, an unknown tile, an edge that is not wall,
            no free cell, two goals.
    """
    rows = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not rows:
        raise ValueError("the layout is empty: draw at least one free cell 'O' inside walls '#'")
    _check_tiles(rows)
    height, width = len(rows), len(rows[0])
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile != "#" and (i in (0, height - 1) or j in (0, width - 1)):
                raise ValueError(f"not enclosed by walls: tile '{tile}' at row {i}, column {j} lies on the edge")
    goals = [(i, j) for i, row in enumerate(rows) for j, tile in enumerate(row) if tile == "G"]
    if len(goals) > 1:
        raise ValueError(f"more than one goal 'G': at row, column {', '.join(map(str, goals))}")
    if all(tile == "#" for row in rows for tile in row):
        raise ValueError("no free cell: the layout is all wall")
    return rows


def _check_tiles(rows: Rows) -> None:
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile not in TILES:
                raise ValueError(f"unknown tile {tile!r} at row {i}, column {j}: use '#' wall, 'O' free or 'G' goal")
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"ragged layout: row {i} has {len(row)} tiles where row 0 has {len(rows[0])}")


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
    raise ValueError("the layout has no goal: mark one cell 'G'")


def successors(rows: Rows, moves: Moves) -> Int[np.ndarray, "cells moves"]:
    """The cell that each move leads to; equation (2)."""
    ids, places = cell_ids(rows), cells(rows)
    reached = np.stack([ids[places[:, 0] + di, places[:, 1] + dj] for di, dj in moves], axis=1)
    return _frozen(np.where(reached < 0, np.arange(len(places), dtype=np.int32)[:, None], reached))


def hops(successor: Int[np.ndarray, "cells moves"]) -> Int[np.ndarray, "cells cells"]:
    """Moves on the shortest path from each cell (first axis) to each cell (second), -1 where there is none; (3)."""
    count = len(successor)
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
