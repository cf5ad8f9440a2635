"""OGBench's point mazes, read off the package itself, and their data made again; needs the `simulators` extra.

An observation is a ball's place (x, y), an action u in [-1, 1]^2 a displacement. One step throws the ball's velocity
away, moves it, and lets MuJoCo (5 steps of 0.02 s) push it out of the walls that it was moved into:

    x' = x + s u,     s = 0.2                                      in free space                                (1)

Row index i of a drawing is the second coordinate. Cells are squares of side L = 4 about their centres,

    centre(i, j) = origin + L (j, i)                                                                            (2)

and the origin (-4, -4) puts the first free cell's centre at (0, 0). Nothing of this is written down below: `named` asks
OGBench's environment for its drawing, sizes, limit of steps and tasks, and measures s.

OGBench's generator of data is in its repository, not in its package; `generate` follows the same rules with random
numbers of its own. In every step the ball heads for the centre c of the next cell on the shortest path to the goal's
cell (for that cell's own centre once it is there), with noise:

    u = clip((c - x) / |c - x| + noise * eps, -1, 1),     eps ~ N(0, 1)^2,     noise = 0.5                      (3)

Starts and goals are centres plus U(-1, 1)^2. An episode starts in any free cell.

    navigate    goals are cells that are no corridor (walls on two sides, facing each other, and on no other); once the
                ball is within 1.0 of the goal, another is drawn
    stitch      the goal is one of the cells that are exactly 4 moves away, the start's own if there is none, and stays

Row t of an episode is what was seen, and what was done then; the last row's action leads to nothing recorded.

Source: OGBench (Park et al. 2025, arXiv 2410.20092), its rules written anew.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from unittest import mock

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from . import layout
from .maze2d import Maze2d

Cell = tuple[int, int]
NAMES = ("medium", "large", "giant")
KINDS = ("navigate", "stitch")
STITCH = 4
"""Moves from start to goal in `stitch`."""
MOVES = ((-1, 0), (0, -1), (1, 0), (0, 1))


@dataclass(frozen=True)
class PointMaze:
    """A maze of OGBench's. Static and hashable; lengths are in its own unit."""

    name: str
    rows: layout.Rows
    unit: float
    """Side of a cell."""
    origin: tuple[float, float]
    """(x, y) of the centre of cell (0, 0), a wall."""
    radius: float
    """Of the ball."""
    stride: float
    """How far an action of 1 moves the ball, s in (1)."""
    jitter: float
    """Starts and goals are a cell's centre plus U(-jitter, jitter)^2."""
    tolerance: float
    """A goal is reached within this distance."""
    max_steps: int
    """Steps of an episode in evaluation."""
    tasks: tuple[tuple[Cell, Cell], ...]
    """(start, goal) cells that evaluation asks for."""

    observation_dim = 2
    action_dim = 2

    @property
    def observation_low(self) -> Float[np.ndarray, "2"]:
        return np.array(self.origin) - self.unit / 2

    @property
    def observation_high(self) -> Float[np.ndarray, "2"]:
        return self.observation_low + self.unit * np.array(self.walls.shape[::-1])

    @property
    def action_low(self) -> Float[np.ndarray, "2"]:
        return np.full(2, -1.0)

    @property
    def action_high(self) -> Float[np.ndarray, "2"]:
        return np.full(2, 1.0)

    walls = cached_property(lambda self: layout.walls(self.rows))
    """True where there is wall."""

    cells = cached_property(lambda self: layout.cells(self.rows))
    """The free cells (i, j) in reading order."""

    @cached_property
    def junctions(self) -> Int[np.ndarray, "some 2"]:
        """The free cells that are no corridor, in reading order: the goals of `navigate`."""
        i, j = self.cells.T
        up, left, down, right = (self.walls[i + di, j + dj] for di, dj in MOVES)
        corridor = (up & down & ~left & ~right) | (left & right & ~up & ~down)
        return self.cells[~corridor]

    def centre(self, cell: Sequence[int] | Int[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
        """(x, y) of a cell's centre, equation (2)."""
        return np.array(self.origin) + self.unit * np.array([cell[1], cell[0]])

    def cell_of(self, place: Float[np.ndarray, "2"]) -> Cell:
        """The cell that holds a point; it may lie outside the drawing."""
        j, i = np.floor((place - self.observation_low) / self.unit).astype(int)
        return int(i), int(j)

    def is_free(self, place: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether a point lies in a free cell (the ball's radius is not counted). In JAX, as in `envs.maze2d`."""
        return self._drawn.is_free(self._to_drawn(place))

    def crosses_wall(self, p: Float[Array, "2"], q: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether the segment from p to q meets the interior of a wall. In JAX, as in `envs.maze2d`."""
        return self._drawn.crosses_wall(self._to_drawn(p), self._to_drawn(q))

    @cached_property
    def _drawn(self) -> Maze2d:
        return Maze2d(self.rows)

    def _to_drawn(self, place: Float[Array, "2"]) -> Float[Array, "2"]:
        """A point in the coordinates of `envs.maze2d`, in which cell (i, j) begins at (i, j) + observation_low."""
        cells = (place - self.observation_low.astype(np.float32)) / self.unit
        return cells[::-1] + self._drawn.observation_low[:2]


def environment(name: str) -> Any:
    """OGBench's own environment of a maze, as gymnasium makes it.

    Raises:
        ValueError: if there is no maze of that name.
        ModuleNotFoundError: if OGBench is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"unknown point maze {name!r}: choose {', '.join(map(repr, NAMES))}")
    import_module("ogbench")  # which registers it
    left, mkstemp = [], tempfile.mkstemp

    def noted(*args: Any, **settings: Any) -> tuple[int, str]:
        left.append(mkstemp(*args, **settings))
        return left[-1]

    with mock.patch("tempfile.mkstemp", noted):
        env = import_module("gymnasium").make(f"pointmaze-{name}-v0")
    for descriptor, path in left:  # its drawing for MuJoCo, which OGBench leaves open and on the disk
        os.close(descriptor)
        Path(path).unlink()
    return env


@cache
def named(name: str) -> PointMaze:
    """The description of a maze, asked of OGBench's environment; raises what `environment` does."""
    env = environment(name)
    world = env.unwrapped
    begin(world, np.zeros(2))  # the centre of cell (1, 1): nothing is near
    world.step(np.array([1.0, 0.0]))
    return PointMaze(
        name=name,
        rows=tuple("".join("#" if wall else "O" for wall in row) for row in world.maze_map),
        unit=float(world._maze_unit),
        origin=(float(world.ij_to_xy((0, 0))[0]), float(world.ij_to_xy((0, 0))[1])),
        radius=float(world.model.geom("pointbody").size[0]),
        stride=round(float(world.get_xy()[0]), 6),
        jitter=world._noise * world._maze_unit / 4,
        tolerance=float(world._goal_tol),
        max_steps=int(env.spec.max_episode_steps),
        tasks=tuple((tuple(task["init_ij"]), tuple(task["goal_ij"])) for task in world.task_infos),
    )


def begin(world: Any, place: Float[np.ndarray, "2"]) -> None:
    """Puts the ball of an unwrapped environment at rest in a place, with nothing left over from before."""
    import_module("mujoco").mj_resetData(world.model, world.data)
    world.set_state(np.asarray(place, np.float64), np.zeros(2))


class Episode(NamedTuple):
    """Rows of one episode, float32."""

    observations: Float[np.ndarray, "steps 2"]
    actions: Float[np.ndarray, "steps 2"]
    velocities: Float[np.ndarray, "steps 2"]
    """What the walls left the ball with in the step before; without effect, and 0 in the first row."""
    goals: Float[np.ndarray, "steps 2"]
    """The goal in force, (x, y)."""


def published(name: str, kind: str) -> tuple[int, int]:
    """(training episodes, rows an episode) of the published data; there is a tenth as many episodes beside to validate.

    A million rows each.
    """
    if kind == "stitch":
        return 5000, 201
    return (500, 2001) if name == "giant" else (1000, 1001)


def generate(name: str, kind: str, episodes: int, steps: int, noise: float = 0.5, seed: int = 0) -> Iterator[Episode]:
    """Yields `episodes` episodes of `steps` rows each, by OGBench's rules in its simulator; about 10,000 rows a second.

    `noise` is that of (3). Episode n is a function of (seed, n), so a longer data set begins with a shorter one.

    Raises:
        ValueError: if there is no maze of that name, or no such kind.
        ModuleNotFoundError: if OGBench is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of data {kind!r}: choose {' or '.join(map(repr, KINDS))}")
    maze, world = named(name), environment(name).unwrapped
    hops = layout.hops(layout.successors(maze.rows, MOVES))

    @cache
    def towards(cell: Cell, goal: Cell) -> Float[np.ndarray, "2"]:
        """The centre of the next cell on the way, which OGBench searches for anew in every step."""
        return world.get_oracle_subgoal(maze.centre(cell), maze.centre(goal))[0]

    def draw(rng: np.random.Generator, cells: Int[np.ndarray, "some 2"]) -> Float[np.ndarray, "2"]:
        """A place near the centre of one of the cells."""
        return maze.centre(rng.choice(cells)) + rng.uniform(-maze.jitter, maze.jitter, 2)

    for number in range(episodes):
        rng = np.random.default_rng((seed, number))
        start = rng.integers(len(maze.cells))
        apart = maze.cells[hops[start] == STITCH]
        goals = maze.junctions if kind == "navigate" else apart if len(apart) else maze.cells[[start]]
        begin(world, draw(rng, maze.cells[[start]]))
        goal = draw(rng, goals)
        rows = Episode(*np.empty((4, steps, 2), np.float32))
        for t in range(steps):
            place = world.get_xy()
            way = towards(world.xy_to_ij(place), world.xy_to_ij(goal)) - place
            action = np.clip(way / (np.linalg.norm(way) + 1e-6) + noise * rng.normal(size=2), -1, 1)
            for field, value in zip(rows, (place, action, world.data.qvel, goal), strict=True):
                field[t] = value
            world.step(action)
            if kind == "navigate" and np.linalg.norm(world.get_xy() - goal) <= maze.tolerance:
                goal = draw(rng, goals)
        yield rows


def save(path: Path, episodes: Sequence[Episode]) -> None:
    """Write an .npz file that OGBench reads as its own: episodes end to end, `terminals` at the last row of each."""
    flat = Episode(*(np.concatenate(parts) for parts in zip(*episodes, strict=True)))
    terminals = np.zeros(len(flat.actions), bool)
    terminals[np.cumsum([len(episode.actions) for episode in episodes]) - 1] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            observations=flat.observations,
            actions=flat.actions,
            terminals=terminals,
            qpos=flat.observations,
            qvel=flat.velocities,
        )
    part.replace(path)


@runtime_checkable
class Recorded(Protocol):
    """An `Episode`, or anything else with these fields."""

    @property
    def observations(self) -> Float[np.ndarray, "steps 2"]: ...
    @property
    def actions(self) -> Float[np.ndarray, "steps 2"]: ...


class Statistics(NamedTuple):
    """What data are like, in numbers that can be compared."""

    episodes: int
    rows: int
    observation_mean: Float[np.ndarray, "2"]
    observation_std: Float[np.ndarray, "2"]
    action_mean: Float[np.ndarray, "2"]
    action_std: Float[np.ndarray, "2"]
    touching: float
    """Share of steps that a wall cut short: those that end more than 1e-4 from where (1) says."""
    visited: float
    """Share of the free cells that the ball has been in."""


def statistics(maze: PointMaze, runs: Sequence[Recorded]) -> Statistics:
    """Of a data set, run by run."""
    observations = np.concatenate([run.observations for run in runs]).astype(np.float64)
    actions = np.concatenate([run.actions for run in runs]).astype(np.float64)
    missed = [np.diff(run.observations, axis=0) - maze.stride * run.actions[:-1] for run in runs]
    cells = np.unique(np.floor((observations - maze.observation_low) / maze.unit), axis=0)
    return Statistics(
        episodes=len(runs),
        rows=len(actions),
        observation_mean=observations.mean(0),
        observation_std=observations.std(0),
        action_mean=actions.mean(0),
        action_std=actions.std(0),
        touching=float((np.abs(np.concatenate(missed)) > 1e-4).any(axis=1).mean()),
        visited=len(cells) / len(maze.cells),
    )


def table(result: Mapping[str, Statistics]) -> str:
    """Statistics of several data sets by name, one a line."""
    lines = [f"{'':<22}{'rows':>9}  {'observation mean, std':<32}{'action mean, std':<32}{'touching':>9}{'visited':>9}"]
    pair = lambda values: " ".join(f"{value:7.3f}" for value in values)
    for name, one in result.items():
        observed = f"{pair(one.observation_mean)} {pair(one.observation_std)}"
        done = f"{pair(one.action_mean)} {pair(one.action_std)}"
        lines.append(f"{name:<22}{one.rows:>9}  {observed:<32}{done:<32}{one.touching:>9.3f}{one.visited:>9.3f}")
    return "\n".join(lines)
