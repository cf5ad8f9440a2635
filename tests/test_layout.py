"""Drawings: everything that should be read is read as the same rows, everything else is refused in one line."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs import experts, layout
from diffplan.envs.gridworld import Gridworld
from diffplan.envs.maze2d import Maze2d

ROWS = ("#####", "#GOO#", "###O#", "#OOO#", "#####")
TEXT = "\n".join(ROWS)

SPELLINGS = {
    "lines": TEXT,
    "final newline": TEXT + "\n",
    "Windows": TEXT.replace("\n", "\r\n") + "\r\n",
    "old Macintosh": TEXT.replace("\n", "\r"),
    "D4RL's backslashes": TEXT.replace("\n", "\\"),
    "backslashes and newlines": TEXT.replace("\n", "\\\n") + "\\",
    "trailing blanks": TEXT.replace("\n", "  \t\n") + "   ",
    "indented": "\n\n" + TEXT.replace("\n", "\n    ") + "\n\n",
    "byte-order mark": "\ufeff" + TEXT,
    "lower case": TEXT.lower(),
    "D4RL's zeros": TEXT.replace("O", "0"),
    "D4RL's blanks": TEXT.replace("O", " "),
    "zeros and ones": TEXT.replace("O", "0").replace("#", "1"),
    "ones beside letters": TEXT.replace("#", "1"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_the_same_rows(name):
    assert layout.parse(SPELLINGS[name]) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "ascii"])
@pytest.mark.parametrize("name", ["lines", "Windows", "D4RL's backslashes"])
def test_a_file_is_read_in_every_usual_encoding(name, encoding, tmp_path):
    path = tmp_path / "maze.txt"
    path.write_bytes(SPELLINGS[name].encode(encoding))
    assert layout.read(path) == layout.read(str(path)) == ROWS


ALLOWED = "use '#' or '1' wall, 'O', '0' or ' ' free, 'G' goal"
BAD = {
    "empty": ("", "the layout is empty: draw at least one free cell 'O' inside walls '#'"),
    "blank": (" \n\\\n", "the layout is empty"),
    "ragged": ("####\n#OO#\n###", "row 2 has 3 tiles where row 0 has 4: every row must be equally long"),
    "unknown": ("####\n#Ox#\n####", f"unknown tile 'x' at row 1, column 2 (counted from 0): {ALLOWED}"),
    "tab": ("####\n#O\tO#\n####", "unknown tile '\\t' at row 1, column 2"),
    "two walls": ("####\n#1O#\n####", "tile '1' at row 1, column 1 (counted from 0): '1' is wall only in a drawing w"),
    "open": ("####\n#OOO\n####", "tile 'O' at row 1, column 3 (counted from 0) lies on the edge, where '#' must be"),
    "blank edge": ("## #\n#OO#\n####", "tile ' ' at row 0, column 2"),
    "ones free": ("0000\n0110\n0000", "tile '0' at row 0, column 0"),
    "wall": ("####\n####", "no free cell"),
    "goals": ("####\n#Gg#\n####", "more than one goal 'G': at row, column (1, 1), (1, 2)"),
    "wide": ("#" * 257, "row 0 has 257 tiles: a drawing has at most 256 x 256"),
    "high": ("#\n" * 257, "257 rows: a drawing has at most 256 x 256"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_drawing_is_refused_with_its_file(name, tmp_path):
    text, message = BAD[name]
    path = tmp_path / "maze.txt"
    path.write_text(text)
    for prefix, call in (("", lambda: layout.parse(text)), (f"{path}: ", lambda: layout.read(path))):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value).startswith(prefix) and message in str(error.value)
        assert str(error.value).isprintable()


def make_pipe(path):
    os.mkfifo(path)


FILES = {
    "missing": (lambda path: None, "there is no such file"),
    "directory": (lambda path: path.mkdir(), "this is a directory"),
    "pipe": (make_pipe, "this is not a regular file"),
    "empty": (lambda path: path.touch(), "the layout is empty"),
    "image": (
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
        "this is not text in UTF-8 or UTF",
    ),
    "nulls": (lambda path: path.write_bytes(bytes(100)), "this is not text in UTF-8 or UTF-16"),
    "program": (lambda path: path.write_bytes(b"\x7fELF\x02\x01\x01\x00\x00"), "this is not text in UTF-8 or UTF-16"),
    "utf-32": (lambda path: path.write_bytes(TEXT.encode("utf-32")), "this is not text in UTF-8 or UTF-16"),
    "half a tile": (lambda path: path.write_bytes(TEXT.encode("utf-16")[:-1]), "this is not text in UTF-8 or UTF-16"),
    "huge": (lambda path: path.write_bytes(b"#" * 2_000_000), "more than 1,048,576 bytes: a drawing has at most 256 x"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_drawing_is_refused_in_one_line(name, tmp_path):
    make, message = FILES[name]
    path = tmp_path / "maze.txt"
    make(path)
    with pytest.raises(ValueError) as error:
        layout.read(path)
    assert str(error.value).startswith(f"{path}: {message}") and str(error.value).isprintable()


def test_the_largest_drawing_is_read_and_its_tables_are_refused():
    rows = ("#" * 256, *["#" + "O" * 254 + "#"] * 254, "#" * 256)
    assert layout.parse("\n".join(rows)) == rows
    for table in (
        lambda: layout.hops(layout.successors(rows, experts.MOVES)),
        lambda: experts.routes(Maze2d(rows)),
        lambda: Gridworld(rows).distribution,
    ):
        with pytest.raises(ValueError, match="a table of all pairs holds at most 4096: draw a smaller world"):
            table()


def test_cells_that_cannot_be_reached_are_named(key):
    parts = "#######\n#OO#GO#\n####OO#\n#######"
    message = (
        r"not connected: cell \(1, 4\) cannot be reached from cell \(1, 1\), nor can 3 others; rows and columns count"
    )
    with pytest.raises(ValueError, match=message):
        layout.check_connected(layout.parse(parts))
    with pytest.raises(ValueError, match=message):
        experts.routes(Maze2d.from_text(parts))
    with pytest.raises(ValueError, match=message):
        experts.wander(Gridworld.from_text(parts), key, 2, 5)
    with pytest.raises(ValueError, match=r"cell \(1, 3\) cannot be reached from cell \(1, 1\); rows"):
        layout.check_connected(("#####", "#O#G#", "#####"))
    layout.check_connected(ROWS)


@pytest.mark.parametrize("text", ["###\n#G#\n###", "###\n#O#\n#O#\n#G#\n###", "######\n#OOOG#\n######"])
def test_single_cells_and_corridors_hold_behaviour(text, key):
    """The ball and the walker stay in the free cells; a world of one cell has one place to be."""
    maze, world = Maze2d.from_text(text, max_steps=20), Gridworld.from_text(text, max_steps=20)
    rows = experts.collect(maze, key, trajectories=4, steps=60)
    assert jax.vmap(jax.vmap(maze.is_free))(rows.observations[..., :2]).all()
    walks = experts.wander(world, key, trajectories=4, steps=60)
    places = {tuple(place) for place in np.asarray(walks.observations, int).reshape(-1, 2)}
    assert places == {tuple(cell) for cell in world.cells}
    assert walks.rewards.max() == 1
    assert layout.hops(world.next_cell).max() == len(world.cells) - 1


def test_a_goal_is_asked_for_where_it_is_needed():
    message = "the layout has no goal: mark one cell 'G', or choose a reward that needs none"
    for world in (Maze2d.from_text("###\n#O#\n###"), Gridworld.from_text("###\n#O#\n###")):
        with pytest.raises(ValueError, match=message):
            world.reward(jnp.zeros(world.observation_dim), jnp.zeros(world.action_dim))
