"""The bound on every score in a maze: optimal control of its known dynamics, by dynamic programming.

With c = 1 for a step that ends outside the goal's disc and 0 inside it, the least time that has to be spent outside is

    V(s) = min over controls of sum_t c(s_t)  =  min_u [ sum over K steps of c + V(s after K steps of u) ]      (125)

for the nine u with entries -1, 0 and 1, at points of a grid over places and velocities, with the real physics from each
and linear interpolation where they lead; iterated from 0, which is below V. The places are those where the ball fits
into a free cell, up to its walls; elsewhere V is that of the nearest such place. Where u leads is the same for all
goals, so it is simulated once, and V is solved for all goals together.

No planner scores more than a player who knows V. `play` is that player: it looks K steps ahead in the real physics at
each step, and its episodes are scored like all others. The error of the grid is unknown, but grids can be compared.
"""

import hashlib
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.benchmarks.episodes import Trials
from diffplan.benchmarks.rows import Paths
from diffplan.envs.maze2d import RADIUS, SPEED_BOUND, Maze2d, State
from diffplan.runs import Progress, Run, keep
from diffplan.types import Scalar

AHEAD = 5
"""K: steps between decisions of (125), and steps that `play` looks ahead."""

FORCES = jnp.asarray(list(product((-1.0, 0.0, 1.0), repeat=2)))
CORNERS = np.asarray(list(product((0, 1), repeat=4)))


@struct.dataclass
class Grid:
    """Where V is known. axes: the coordinates of x, y and each velocity; place: for every (x, y) of the grid, the
    number of the nearest place at which the ball fits.
    """

    axes: tuple[Float[Array, "x"], Float[Array, "y"], Float[Array, "v"]]
    place: Int[Array, "x y"]

    def corners(self, observation: Float[Array, "4"]) -> tuple[Int[Array, "16"], Float[Array, "16"]]:
        """The points round an observation, as numbers of (place, vx, vy), and their weights in interpolation."""
        low, fraction = [], []
        for value, axis in zip(observation, (*self.axes, self.axes[-1]), strict=True):
            i = jnp.clip(jnp.searchsorted(axis, value) - 1, 0, len(axis) - 2)
            low.append(i)
            fraction.append(jnp.clip((value - axis[i]) / (axis[i + 1] - axis[i]), 0, 1))
        x, y, vx, vy = (jnp.stack(low)[None] + CORNERS).T
        speeds = len(self.axes[-1])
        weight = jnp.where(CORNERS == 1, jnp.stack(fraction)[None], 1 - jnp.stack(fraction)[None])
        return (self.place[x, y] * speeds + vx) * speeds + vy, weight.prod(axis=1)


def gridded(maze: Maze2d, positions: int, velocities: int) -> tuple[Grid, Float[Array, "n 4"]]:
    """A grid with so many positions a cell, along each axis, and so many velocities; and all its points in order."""
    inside = np.linspace(RADIUS, 1 - RADIUS, positions)
    x, y = ((np.arange(n)[:, None] - 0.7 + inside).ravel() for n in maze.walls.shape)
    every = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    fits = ~np.kron(maze.walls, np.ones((positions, positions), bool))
    place = np.stack([np.argmin(((every[fits] - row[:, None]) ** 2).sum(-1), axis=1) for row in every])
    speeds = np.linspace(-SPEED_BOUND, SPEED_BOUND, velocities)
    velocity = np.stack(np.meshgrid(speeds, speeds, indexing="ij"), axis=-1).reshape(-1, 2)
    points = np.concatenate([np.repeat(every[fits], len(velocity), 0), np.tile(velocity, (fits.sum(), 1))], axis=1)
    single = partial(jnp.asarray, dtype=jnp.float32)
    return Grid((single(x), single(y), single(speeds)), jnp.asarray(place)), single(points)


def rollout(maze: Maze2d, observation: Float[Array, "4"], force: Float[Array, "2"]) -> Float[Array, "k 4"]:
    """The observations of K steps of one force."""

    def body(state: State, _: None) -> tuple[State, Array]:
        state, moved = maze.step(jax.random.key(0), state, force)
        return state, moved.observation

    return jax.lax.scan(body, maze.state_of(observation), None, length=AHEAD)[1]


def cost(goal: Float[Array, "2"], observations: Float[Array, "k 4"]) -> Int[Array, ""]:
    """How many steps end outside the goal's disc."""
    return (jnp.linalg.norm(observations[:, :2] - goal[None], axis=-1) > 0.5).sum()


def solve(
    maze: Maze2d, goals: Float[np.ndarray, "g 2"], positions: int, velocities: int
) -> tuple[Grid, Float[Array, "n g"]]:
    """V at every point of a grid for every goal, by value iteration until no value changes by a tenth of a step.

    There are at most as many sweeps as an episode has decisions.
    """
    grid, points = gridded(maze, positions, velocities)

    @jax.jit
    def outcomes(force: Float[Array, "2"]) -> tuple[Array, Array, Array]:
        """For every point: the corners of where the force leads, their weights, and the costs on the way."""
        observations = jax.lax.map(lambda point: rollout(maze, point, force), points, batch_size=4096)
        each_goal = lambda way: jax.vmap(lambda goal: cost(goal, way))(jnp.asarray(goals, jnp.float32))
        costs = jax.vmap(each_goal)(observations)
        return *jax.vmap(grid.corners)(observations[:, -1]), costs.astype(jnp.uint8)

    @jax.jit
    def sweep(value: Array, ways: list[tuple[Array, Array, Array]]) -> tuple[Array, Scalar]:
        best = jnp.full_like(value, jnp.inf)
        for corners, weights, costs in ways:
            later = sum(weights[:, c, None] * value[corners[:, c]] for c in range(len(CORNERS)))
            best = jnp.minimum(best, costs + later)
        return best, jnp.abs(best - value).max()

    sweeps = maze.max_steps // AHEAD
    with Progress(f"bound: {len(points)} states, {len(goals)} goals", total=sweeps, unit="sweeps") as progress:
        ways, value = [outcomes(force) for force in FORCES], jnp.zeros((len(points), len(goals)))
        for _ in range(sweeps):
            value, change = sweep(value, ways)
            progress.advance(1, change=float(change))
            if float(change) < 0.1:
                break
    return grid, value


@partial(jax.jit, static_argnames=("maze", "steps"))
def play(
    maze: Maze2d, grid: Grid, value: Float[Array, "p g"], which: Int[Array, "n"], trials: Trials, steps: int
) -> Float[Array, "n steps 4"]:
    """Episodes of the player who knows V. At each step it takes the force whose next K steps are the best.

    which: the column of each episode's goal in `value`.
    """
    starts, goals = map(jnp.asarray, trials)

    def choose(column: Int[Array, ""], goal: Float[Array, "2"], observation: Float[Array, "4"]) -> Float[Array, "2"]:
        def cost_to_go(force: Float[Array, "2"]) -> Scalar:
            observations = rollout(maze, observation, force)
            corners, weights = grid.corners(observations[-1])
            return cost(goal, observations) + weights @ value[corners, column]

        return FORCES[jnp.argmin(jax.vmap(cost_to_go)(FORCES))]

    def body(states: State, _: None) -> tuple[State, Array]:
        forces = jax.vmap(choose)(which, goals, jax.vmap(maze.observe)(states))
        states, moved = jax.vmap(maze.step, (None, 0, 0))(jax.random.key(0), states, forces)
        return states, moved.observation

    states = jax.vmap(maze.state_of)(starts)
    return jnp.swapaxes(jax.lax.scan(body, states, None, length=steps)[1], 0, 1)


def paths(run: Run, maze: Maze2d, trials: Trials, steps: int, fineness: tuple[int, int]) -> Paths:
    """Episodes of the best player, kept in ``RUN/bound``.

    V is solved for the cells of the goals; the player's own steps count the costs of the goals themselves. fineness:
    positions a cell and velocities of the grid.
    """
    digest = hashlib.sha256(trials.starts.tobytes() + trials.goals.tobytes()).hexdigest()
    about = {"drawing": list(maze.rows), "episodes": digest, "steps": steps, "fineness": list(fineness)}

    def make(directory: Path) -> None:
        cells, which = np.unique(np.round(trials.goals), axis=0, return_inverse=True)
        grid, value = solve(maze, cells, *fineness)
        best = play(maze, grid, value, jnp.asarray(which), trials, steps)
        np.save(directory / "paths.npy", np.asarray(best))

    return np.load(keep(run, f"bound/{digest[:8]}", make, about, files=("paths.npy",)).directory / "paths.npy")
