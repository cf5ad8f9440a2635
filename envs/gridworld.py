"""A gridworld small enough to be solved exactly: cells, walls, five moves, perhaps slippery.

An observation is (row, column) as floats; an action is a score for each of (stay, up, down, left, right), of which the
largest is taken, so a one-hot vector is an action and so is any network's output. With c the cell and m the move,

    m' = m with probability 1 - slip, else one of the five at random                                   (1)
    c' = next_cell[c, m']                                   a move into a wall stays                   (2)
    P(c' | c, m) = (1 - slip) [c' = next_cell[c, m]] + slip / 5 sum_n [c' = next_cell[c, n]]           (3)

The reward of a row is `gold`: 1 on the goal and 0 elsewhere, if nothing else is asked for. An episode does not end
there. `next_cell` and the distribution (3) are numpy tables, so that dynamic programming can be done beside the
environment, without it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from . import layout
from .base import Transition

MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""stay, up, down, left, right, as (row, column) differences."""


class State(NamedTuple):
    """The number of the cell in reading order, and the steps taken since the reset."""

    cell: Int[Array, ""]
    time: Int[Array, ""]


Place = Float[Array, "2"]
"""(row, column) of a free cell."""

Gold = Callable[["Gridworld", Place, Float[Array, "5"]], Float[Array, ""]]
"""(world, place, action) -> reward. Must be hashable: a function, or a frozen dataclass that can be called."""


def time_at_goal(world: "Gridworld", place: Place, action: Float[Array, "5"]) -> Float[Array, ""]:
    """1 in the goal's cell, else 0.

    Raises:
        ValueError: if the layout has no goal.
    """
    return (place == np.array(world.goal, np.float32)).all().astype(jnp.float32)


@dataclass(frozen=True)
class _Region:
    centre: tuple[float, float]
    radius: float

    def __call__(self, world: "Gridworld", place: Place, action: Float[Array, "5"]) -> Float[Array, ""]:
        return (jnp.linalg.norm(place - np.array(self.centre, np.float32)) <= self.radius).astype(jnp.float32)


def time_in_region(centre: tuple[float, float], radius: float) -> Gold:
    """A reward of 1 where the cell's (row, column) is within `radius` cells of `centre`, else 0."""
    return _Region((float(centre[0]), float(centre[1])), float(radius))


@dataclass(frozen=True)
class Gridworld:
    """A layout with its slip and its gold reward. Static and hashable; build it with `from_text` or `generate`."""

    rows: layout.Rows
    slip: float = 0.0
    """Probability that a step takes a random move in place of its own."""
    max_steps: int = 100
    """Steps after which a transition is marked truncated; at least 1."""
    gold: Gold = time_at_goal
    """The reward of a row."""

    def __post_init__(self) -> None:
        if not 0 <= self.slip <= 1:
            raise ValueError(f"slip is a probability, got {self.slip}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: must be at least 1")

    @classmethod
    def from_text(cls, text: str, slip: float = 0.0, max_steps: int = 100, gold: Gold = time_at_goal) -> "Gridworld":
        """A gridworld from a drawing, `#` wall, `O` free, `G` goal. A file's is Gridworld(layout.read(path)).

        Raises:
            ValueError: one line naming what is wrong with the drawing, see `layout.parse`, with the slip or the steps.
        """
        return cls(layout.parse(text), slip, max_steps, gold)

    observation_dim = 2
    action_dim = len(MOVES)

    @property
    def observation_low(self) -> Float[np.ndarray, "2"]:
        return np.zeros(2, np.float32)

    @property
    def observation_high(self) -> Float[np.ndarray, "2"]:
        return np.array(self.walls.shape, np.float32) - 1

    @property
    def action_low(self) -> Float[np.ndarray, "5"]:
        return np.zeros(len(MOVES), np.float32)

    @property
    def action_high(self) -> Float[np.ndarray, "5"]:
        return np.ones(len(MOVES), np.float32)

    goal = property(lambda self: layout.goal(self.rows))
    """The goal's (row, column). Raises ValueError where there is none."""

    walls = cached_property(lambda self: layout.walls(self.rows))
    """True where there is wall."""

    cells = cached_property(lambda self: layout.cells(self.rows))
    """The (row, column) of each free cell, in reading order."""

    @cached_property
    def next_cell(self) -> Int[np.ndarray, "cells 5"]:
        """The number of the cell that each move leads to, without slip; equation (2)."""
        return layout.successors(self.rows, MOVES)

    @cached_property
    def moves_to_goal(self) -> Int[np.ndarray, "cells"]:
        """The moves on the shortest path from each cell to the goal, -1 where there is none.

        Raises:
            ValueError: where there is no goal, or for more than `layout.MAX_CELLS` cells.
        """
        at_goal = (self.cells == np.array(self.goal)).all(axis=1)
        return layout.hops(self.next_cell)[:, at_goal.argmax()]

    @cached_property
    def distribution(self) -> Float[np.ndarray, "cells 5 cells"]:
        """The probability of the next cell given cell and move; equation (3).

        Raises:
            ValueError: for more than `layout.MAX_CELLS` cells.
        """
        layout.check_table(len(self.cells))
        sure = np.eye(len(self.cells))[self.next_cell]
        return (1 - self.slip) * sure + self.slip * sure.mean(axis=1, keepdims=True)

    def reset(self, key: Key[Array, ""]) -> State:
        """A uniformly chosen free cell, the goal among them."""
        return State(jax.random.randint(key, (), 0, len(self.cells)), jnp.int32(0))

    def step(self, key: Key[Array, ""], state: State, action: Float[Array, "5"]) -> tuple[State, Transition]:
        """One move, equations (1) and (2). Never terminates."""
        slip_key, move_key = jax.random.split(key)
        slips = jax.random.bernoulli(slip_key, self.slip)
        move = jnp.where(slips, jax.random.randint(move_key, (), 0, len(MOVES)), jnp.argmax(action))
        new = State(jnp.asarray(self.next_cell)[state.cell, move], state.time + 1)
        reward = self.gold(self, self.observe(state), action)
        return new, Transition(self.observe(new), reward, jnp.bool_(False), new.time >= self.max_steps)

    def observe(self, state: State) -> Float[Array, "2"]:
        """(row, column)."""
        return jnp.asarray(self.cells, jnp.float32)[state.cell]

    def state_of(self, observation: Float[Array, "2"]) -> State:
        """The free cell nearest to a point, at step 0. For the observation of a state it is that state's cell."""
        distances = jnp.abs(observation[None] - jnp.asarray(self.cells, jnp.float32)).sum(axis=1)
        return State(jnp.argmin(distances).astype(jnp.int32), jnp.int32(0))

    def reward(self, observation: Float[Array, "2"], action: Float[Array, "5"]) -> Float[Array, ""]:
        """The gold reward of one row, in the free cell nearest to it."""
        return self.gold(self, self.observe(self.state_of(observation)), action)

    def residual(self, o: Float[Array, "2"], a: Float[Array, "5"], o_next: Float[Array, "2"]) -> Float[Array, ""]:
        """The distance of o from the nearest free cell, plus that of o_next from the nearest cell the step could reach.

        That is the cell of the chosen move, and with slip that of any move: 0 iff (3) gives the step a chance.
        """
        state = self.state_of(o)
        outcomes = jnp.asarray(self.next_cell)[state.cell]  # [5]
        possible = (jnp.arange(len(MOVES)) == jnp.argmax(a)) | (self.slip > 0)
        places = jnp.asarray(self.cells, jnp.float32)[outcomes]
        distances = jnp.where(possible, jnp.linalg.norm(o_next[None] - places, axis=1), jnp.inf)
        return jnp.linalg.norm(o - self.observe(state)) + distances.min()


def generate(seed: int, height: int, width: int, density: float, slip: float = 0.0) -> Gridworld:
    """A random level whose free cells are connected, with a goal in one of them.

    Interior cells are visited in a random order and walled up wherever the rest stays connected, until a share
    `density` of them is wall or none is left to wall up. The same arguments give the same level.

    Args:
        height, width: of the whole drawing, its rim of walls included.
        density: share of the interior that should be wall, in [0, 1); at about 0.5 only corridors are left.

    Raises:
        ValueError: if there is no interior, or the density is out of range.
    """
    if height < 3 or width < 3:
        raise ValueError(f"a level needs at least 3 x 3 tiles, got {height} x {width}")
    if not 0 <= density < 1:
        raise ValueError(f"density is a share in [0, 1), got {density}")
    rng = np.random.default_rng(seed)
    tiles = np.full((height, width), "#")
    tiles[1:-1, 1:-1] = "O"
    interior = (height - 2) * (width - 2)
    remaining = int(density * interior)
    for flat in rng.permutation(interior):
        i, j = 1 + flat // (width - 2), 1 + flat % (width - 2)
        if remaining == 0:
            break
        tiles[i, j] = "#"
        free = tiles != "#"
        if free.any() and (layout.reachable(free) == free).all():
            remaining -= 1
        else:
            tiles[i, j] = "O"
    tiles[tuple(rng.choice(np.argwhere(tiles == "O")))] = "G"
    return Gridworld.from_text("\n".join("".join(row) for row in tiles), slip, max_steps=4 * (height + width))


FOUR_ROOMS = Gridworld.from_text(
    """
    #############
    #OOOOO#OOOOO#
    #OOOOO#OOOOO#
    #OOOOOOOOOOO#
    #OOOOO#OOOOO#
    #OOOOO#OOOOO#
    ##O####OOOOO#
    #OOOOO###O###
    #OOOOO#OOOOO#
    #OOOOO#OOOOO#
    #OOOOOOOOOOO#
    #OOOOO#OOOGO#
    #############
    """
)
CORRIDORS = Gridworld.from_text(
    """
    ###########
    #OOOOOOOOO#
    #O#######O#
    #O#OOOOOOO#
    #O#O#######
    #O#OOOOOOG#
    #O#########
    #OOOOOOOOO#
    ###########
    """
)
STREET = Gridworld.from_text(
    """
    ###########
    #OOOOOOOOO#
    #OGOOOOOOO#
    #OOOOOOOOO#
    #OOOOOOOOO#
    #OOOOOOOOO#
    #OOOOOOOOO#
    #OOOOOOOOO#
    #OOOOOOOO##
    #OOOOOOOOO#
    ###########
    """
)
"""Nine by nine cells; the goal is near one corner, and the opposite corner has one door."""
NAMED = {"fourrooms": FOUR_ROOMS, "corridors": CORRIDORS, "street": STREET}


def named(name: str, max_steps: int | None = None) -> Gridworld:
    """Returns one of the gridworlds that ship.

    Args:
        name: one of NAMED.
        max_steps: steps of an episode; None for the world's own.

    Raises:
        ValueError: if there is no world of that name; the message lists those there are.
    """
    if name not in NAMED:
        raise ValueError(
            f"unknown gridworld {name!r}: choose {', '.join(map(repr, NAMED))}, or draw one with from_text"
        )
    return NAMED[name] if max_steps is None else replace(NAMED[name], max_steps=max_steps)
