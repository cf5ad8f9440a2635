"""The limit of every score in a maze: optimal control of its known dynamics, by dynamic programming.

With c = 1 for a step that ends outside the goal's disc and 0 inside it, the least time that has to be spent outside is

    V(s) = min over controls of sum_t c(s_t)  =  min_u [ sum over K steps of c + V(s after K steps of u) ]      (125)

for the nine u with entries -1, 0 and 1, on a grid over positions and velocities, with the real physics between grid
points and linear interpolation at their ends; iterated from 0, which is below V. Nobody scores more than a player who
knows V: here `play`, which looks K steps ahead in the real physics at each step and is measured like everyone else.
What the grid costs it is not known, but grids can be compared.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from diffplan import runtime
from diffplan.types import Scalar
from envs.maze2d import SPEED_BOUND, Maze2d, State

AHEAD = 5
"""K, steps between decisions of (125), and that `play` looks ahead."""

FORCES = jnp.asarray([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])


class Grid(NamedTuple):
    """V on a grid over (x, y, vx, vy). Also inside walls, whence the physics push the ball out."""

    value: Float[Array, "i j k l"]
    low: Float[Array, "4"]
    spacing: Float[Array, "4"]

    def at(self, observation: Float[Array, "4"]) -> Scalar:
        """V between grid points."""
        return map_coordinates(self.value, list((observation - self.low) / self.spacing), order=1, mode="nearest")


def after(maze: Maze2d, observation: Float[Array, "4"], force: Float[Array, "2"]) -> tuple[Float[Array, "4"], Scalar]:
    """What K steps of one force lead to, and how many of them end outside the disc."""
    goal = jnp.asarray(maze.goal, jnp.float32)

    def body(state: State, _: None) -> tuple[State, Array]:
        state, moved = maze.step(jax.random.key(0), state, force)
        return state, jnp.linalg.norm(moved.observation[:2] - goal) > 0.5

    state, outside = jax.lax.scan(body, maze.state_of(observation), None, length=AHEAD)
    return maze.observe(state), outside.sum().astype(jnp.float32)


def blank(maze: Maze2d, positions: int, velocities: int) -> Grid:
    """V = 0, with so many points a cell, and so many for each velocity."""
    (height, width), low = maze.walls.shape, maze.observation_low
    spacing = np.array([1 / positions] * 2 + [2 * SPEED_BOUND / (velocities - 1)] * 2, np.float32)
    shape = (height * positions + 1, width * positions + 1, velocities, velocities)
    return Grid(jnp.zeros(shape), jnp.asarray(low), jnp.asarray(spacing))


def solve(maze: Maze2d, positions: int = 8, velocities: int = 15) -> Grid:
    """Value iteration until no point of a free cell changes by a tenth of a step; to the time limit at most."""
    grid = blank(maze, positions, velocities)
    axes = [low + step * jnp.arange(n) for low, step, n in zip(grid.low, grid.spacing, grid.value.shape, strict=True)]
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 4)
    free = jax.vmap(maze.is_free)(points[:, :2]).reshape(
        grid.value.shape
    )  # from other cells the goal may be out of reach
    ahead = jax.jit(jax.vmap(partial(after, maze), (0, None)))
    ends = [ahead(points, force) for force in FORCES]

    @jax.jit
    def backed_up(best: Array, value: Array, end: Array, cost: Array) -> Array:
        return jnp.minimum(best, cost + jax.vmap(grid._replace(value=value).at)(end).reshape(value.shape))

    with runtime.Progress(
        f"limit of {maze.walls.shape} cells", total=maze.max_steps // AHEAD, unit="sweeps"
    ) as progress:
        for _ in range(maze.max_steps // AHEAD):
            best = jnp.full(grid.value.shape, jnp.inf)
            for end, cost in ends:
                best = backed_up(best, grid.value, end, cost.reshape(best.shape))
            change = float(jnp.max(jnp.where(free, jnp.abs(best - grid.value), 0.0)))
            grid = grid._replace(value=best)
            progress.advance(1, change=change)
            if change < 0.1:
                break
    return grid


@partial(jax.jit, static_argnames=("maze", "steps"))
def play(maze: Maze2d, grid: Grid, starts: Float[Array, "n 4"], steps: int) -> Float[Array, "n steps 4"]:
    """Episodes of the player who knows V: at each step the force whose next K steps are the best."""

    def choose(observation: Float[Array, "4"]) -> Float[Array, "2"]:
        ends, costs = jax.vmap(lambda force: after(maze, observation, force))(FORCES)
        return FORCES[jnp.argmin(costs + jax.vmap(grid.at)(ends))]

    def body(states: State, _: None) -> tuple[State, Array]:
        forces = jax.vmap(lambda state: choose(maze.observe(state)))(states)
        states, moved = jax.vmap(maze.step, (None, 0, 0))(jax.random.key(0), states, forces)
        return states, moved.observation

    return jnp.swapaxes(jax.lax.scan(body, jax.vmap(maze.state_of)(starts), None, length=steps)[1], 0, 1)
