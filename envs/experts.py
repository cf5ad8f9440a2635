"""Behaviour to learn from: D4RL's waypoint controller, a plan tracker, noisy grid paths, and random actions.

The waypoint controller walks the shortest path of grid cells to a target and steers by a spring and a damper from
waypoint w to waypoint,

    u = clip(10 (w - p) - v, -1, 1)                                                                              (1)

The path descends the number of hops to the target's cell, trying the moves (0, 0), (0, -1), (0, 1), (-1, 0), (1, 0) in
this order, which is what value iteration with a discount and first-best ties gives. A waypoint is its cell's integer
location minus U(0, 0.2)^2, and the integer location itself for the target's cell. The next waypoint is taken when the
ball is within 0.1 of the current one and has moved less than 0.1 since the last call; the target is solved under the
same condition on the target's integer location, and is then steered to. Positions become cells by rounding, as in
D4RL.

The data are one long run per trajectory. In each step the row (observation, action) is recorded, where the action is
(1) plus N(0, noise^2), clipped again; the environment steps; and if the target was solved or `max_steps` have passed
since it was set, a new target is drawn: a free cell's integer location plus U(-0.1, 0.1)^2. A target in the same cell
as the last leaves the controller as it is. D4RL's script has a slip: after a row that is done, the ball moves on but
the recorded observation, which the controller sees too, is repeated. `repeat_rows=True` reproduces it (the published
statistics include it); by default it is off, so that every recorded pair of rows is one true step.

The first `burn_in` steps are thrown away so that each trajectory starts from the distribution of a long run.

D4RL's published scores of this controller (161.86, 277.39, 273.99 in umaze, medium, large) come from one controller
kept for all episodes: the target stays, so it plans once and later steers straight at the goal, into walls if need be.
That gives 173, 242, 301 here; a plan for each episode, with `idle` and `set_target`, gives 224, 419, 554.

Sources: D4RL (Fu et al. 2020, arXiv 2004.07219), Diffuser's tracking rule (Janner et al. 2022, arXiv 2205.09991),
written anew.
"""

from functools import cache, partial
from math import ceil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from . import layout, maze2d
from .gridworld import Gridworld
from .maze2d import Maze2d

MOVES = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
NEAR = 0.1
"""Cells: within this of a waypoint or target, and moving less than this per step, counts as there."""


class Behaviour(NamedTuple):
    """Recorded rows, trajectories first. Row t of a trajectory is followed by row t + 1 of the same trajectory,
    through `done` as well.
    """

    observations: Float[Array, "trajectories steps o"]
    actions: Float[Array, "trajectories steps a"]
    rewards: Float[Array, "trajectories steps"]
    """The maze's gold reward of each row."""
    goals: Float[Array, "trajectories steps 2"]
    """The target in force, in cells."""
    done: Bool[Array, "trajectories steps"]
    """The last row of a target: it was solved, or its time was up."""


class Controller(NamedTuple):
    """What the waypoint controller remembers. Cells are numbered i * columns + j."""

    goal: Int[Array, ""]
    """The target's cell."""
    cell: Int[Array, ""]
    """The cell of the current waypoint."""
    waypoint: Float[Array, "2"]
    previous: Float[Array, "2"]
    """The location at the last call; after a new target, the integer location of the cell that it was set in."""


class Lane(NamedTuple):
    """One running simulation. `init` and `advance` give every field a leading axis of trajectories."""

    key: Key[Array, ""]
    state: maze2d.State
    observed: Float[Array, "4"]
    """The observation to be recorded next; not that of `state` only in a repeated row."""
    controller: Controller
    target: Float[Array, "2"]
    waited: Int[Array, ""]
    """Steps since the target was set."""


@cache
def routes(maze: Maze2d) -> Int[np.ndarray, "all all"]:
    """The next cell on the way from one cell (first axis) to another (second), cells numbered i * columns + j.

    Walls are numbered too: from a wall cell next to free ones the way leads out of the wall (a position beside a wall
    may round to it), every other way from or to a wall stays where it is.

    Raises:
        ValueError: if the free cells are not connected, or the drawing has more than `layout.MAX_CELLS` tiles.
    """
    height, width = maze.walls.shape
    layout.check_table(height * width)
    layout.check_connected(maze.rows)
    hops = layout.hops(layout.successors(maze.rows, MOVES))
    free = maze.cells[:, 0] * width + maze.cells[:, 1]
    far = height * width
    # with a rim of walls, so that every move has somewhere to look
    distance = np.full((height + 2, width + 2, height * width), far, np.int32)
    distance[maze.cells[:, 0][:, None] + 1, maze.cells[:, 1][:, None] + 1, free[None, :]] = hops
    around = np.stack([distance[1 + di : 1 + di + height, 1 + dj : 1 + dj + width] for di, dj in MOVES])
    best = around.argmin(axis=0).reshape(height * width, height * width)
    offset = np.array([di * width + dj for di, dj in MOVES])
    return (np.arange(height * width)[:, None] + offset[best]).astype(np.int32)


def idle() -> Controller:
    """A controller without a target: give it one with `set_target` before the first `act`."""
    return Controller(jnp.int32(-1), jnp.int32(0), jnp.zeros(2), jnp.zeros(2))


def set_target(
    maze: Maze2d,
    controller: Controller,
    position: Float[Array, "2"],
    target: Float[Array, "2"],
    uniform: Float[Array, "2"],
) -> Controller:
    """Plans from a position to a target; returns the controller unchanged where the target's cell is the one it already
    has.

    `uniform` is a draw from U(0, 1)^2, which places the first waypoint.
    """
    start, goal = _cell(maze, position), _cell(maze, target)
    cell = jnp.asarray(routes(maze))[start, goal]
    planned = Controller(goal, cell, _waypoint(maze, cell, goal, uniform), _place(maze, start))
    return jax.tree.map(partial(jnp.where, goal == controller.goal), controller, planned)


def act(
    maze: Maze2d, controller: Controller, observation: Float[Array, "4"], uniform: Float[Array, "2"]
) -> tuple[Controller, tuple[Float[Array, "2"], Bool[Array, ""]]]:
    """One call of the waypoint controller.

    `uniform` is a draw from U(0, 1)^2, which places the next waypoint if one is taken.

    Returns:
        The controller to carry on with, and (the action of equation (1), whether the target is solved).
    """
    position, velocity = observation[:2], observation[2:]
    goal = _place(maze, controller.goal)
    slow = jnp.linalg.norm(controller.previous - position) < NEAR
    solved = slow & (jnp.linalg.norm(position - goal) < NEAR)
    aim = jnp.where(solved, goal, controller.waypoint)
    action = jnp.clip(10 * (aim - position) - velocity, -1, 1)
    arrived = ~solved & slow & (jnp.linalg.norm(position - aim) < NEAR)
    following = jnp.asarray(routes(maze))[controller.cell, controller.goal]
    waypoint = _waypoint(maze, following, controller.goal, uniform)
    controller = Controller(
        goal=controller.goal,
        cell=jnp.where(arrived, following, controller.cell),
        waypoint=jnp.where(arrived, waypoint, controller.waypoint),
        previous=position,
    )
    return controller, (action, solved)


@partial(jax.jit, static_argnames=("maze", "trajectories"))
def init(maze: Maze2d, key: Key[Array, ""], trajectories: int) -> Lane:
    """Fresh trajectories: a reset and a first target each. Burn in with `advance` before rows are those of a long
    run.
    """

    def one(key: Key[Array, ""]) -> Lane:
        key, reset_key, draw_key = jax.random.split(key, 3)
        state = maze.reset(reset_key)
        uniform = jax.random.uniform(draw_key, (5,))
        target = _target(maze, uniform[:3])
        controller = set_target(maze, idle(), state.position, target, uniform[3:])
        return Lane(key, state, maze.observe(state), controller, target, jnp.int32(0))

    return jax.vmap(one)(jax.random.split(key, trajectories))


@partial(jax.jit, static_argnames=("maze", "steps", "repeat_rows"))
def advance(
    maze: Maze2d, trajectory: Lane, steps: int, noise: float | Float[Array, ""] = 0.5, repeat_rows: bool = False
) -> tuple[Lane, Behaviour]:
    """Runs all trajectories on by `steps`. Call it again with the trajectories it returns: the rows go on where they
    stopped.

    `noise` is the standard deviation of the normal noise on the controller's action; 0 gives the controller itself.
    `repeat_rows` reproduces D4RL's repeated row after each target, see the module's docstring.
    """

    def body(trajectory: Lane, _: None) -> tuple[Lane, Behaviour]:
        return jax.vmap(lambda one: _record(maze, one, noise, repeat_rows))(trajectory)

    trajectory, rows = jax.lax.scan(body, trajectory, None, length=steps)
    return trajectory, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)


def collect(
    maze: Maze2d,
    key: Key[Array, ""],
    trajectories: int,
    steps: int,
    noise: float = 0.5,
    burn_in: int | None = None,
    repeat_rows: bool = False,
) -> Behaviour:
    """A data set of `trajectories` stationary runs of `steps` rows each.

    `burn_in` is the number of steps that are simulated and thrown away first, rounded up to whole runs of `steps`; by
    default twice the maze's `max_steps`. `noise` and `repeat_rows` are those of `advance`.

    Raises:
        ValueError: if the maze's free cells are not connected; the message names one.
    """
    trajectory = init(maze, key, trajectories)
    burn_in = 2 * maze.max_steps if burn_in is None else burn_in
    for _ in range(ceil(burn_in / steps)):  # in runs of `steps`, so that one compiled program serves
        trajectory, _ = advance(maze, trajectory, steps, noise, repeat_rows)
    return advance(maze, trajectory, steps, noise, repeat_rows)[1]


def tracking_action(observation: Float[Array, "4"], next_observation: Float[Array, "4"]) -> Float[Array, "2"]:
    """Diffuser's rule for following planned states in a maze: clip((p' - p) + (v' - v), -1, 1)."""
    difference = next_observation - observation
    return jnp.clip(difference[:2] + difference[2:], -1, 1)


@partial(jax.jit, static_argnames=("world", "trajectories", "steps"))
def wander(
    world: Gridworld, key: Key[Array, ""], trajectories: int, steps: int, noise: float | Float[Array, ""] = 0.2
) -> Behaviour:
    """Shortest paths in a gridworld from one random goal to the next, with moves at random at a probability of `noise`.

    Any free cell may be a goal; it is done in the row in which it is reached. Rewards are the world's.

    Raises:
        ValueError: if the world's free cells are not connected; the message names one.
    """
    best = jnp.asarray(_best_moves(world))

    def record(carry: tuple[Array, Array], key: Key[Array, ""]) -> tuple[tuple[Array, Array], Behaviour]:
        cell, goal = carry
        slip_key, move_key, goal_key = jax.random.split(key, 3)
        other = jax.random.randint(move_key, (), 0, world.action_dim)
        move = jnp.where(jax.random.bernoulli(slip_key, noise), other, best[cell, goal])
        observed, action = jnp.asarray(world.cells, jnp.float32)[cell], jax.nn.one_hot(move, world.action_dim)
        done = cell == goal
        row = Behaviour(
            observed, action, world.reward(observed, action), jnp.asarray(world.cells, jnp.float32)[goal], done
        )
        draws = jax.random.randint(goal_key, (), 0, len(world.cells))
        return (jnp.asarray(world.next_cell)[cell, move], jnp.where(done, draws, goal)), row

    def trajectory(key: Key[Array, ""]) -> Behaviour:
        first_key, steps_key = jax.random.split(key)
        first = jax.random.randint(first_key, (2,), 0, len(world.cells))
        return jax.lax.scan(record, (first[0], first[1]), jax.random.split(steps_key, steps))[1]

    return jax.vmap(trajectory)(jax.random.split(key, trajectories))


def _best_moves(world: Gridworld) -> Int[np.ndarray, "cells cells"]:
    """The first of the moves that shorten the way from a cell (first axis) to another (second)."""
    hops = layout.hops(world.next_cell)
    layout.check_connected(world.rows)
    left = hops[world.next_cell]  # [cells 5 cells]
    return left.argmin(axis=1).astype(np.int32)


def _record(
    maze: Maze2d, trajectory: Lane, noise: float | Float[Array, ""], repeat_rows: bool
) -> tuple[Lane, Behaviour]:
    """One trajectory by one row: act, record, step, and set a new target where the last is done."""
    key, uniform_key, noise_key, step_key = jax.random.split(trajectory.key, 4)
    uniform = jax.random.uniform(uniform_key, (7,))  # one draw: seven small ones compile and run several times slower
    controller, (action, solved) = act(maze, trajectory.controller, trajectory.observed, uniform[:2])
    action = jnp.clip(action + noise * jax.random.normal(noise_key, (2,)), -1, 1)
    done = solved | (trajectory.waited >= maze.max_steps)
    row = Behaviour(trajectory.observed, action, maze.reward(trajectory.observed, action), trajectory.target, done)
    state, transition = maze.step(step_key, trajectory.state, action)
    observed = jnp.where(done, trajectory.observed, transition.observation) if repeat_rows else transition.observation
    target = jnp.where(done, _target(maze, uniform[2:5]), trajectory.target)
    planned = set_target(maze, controller, observed[:2], target, uniform[5:])
    controller = jax.tree.map(partial(jnp.where, done), planned, controller)
    return Lane(key, state, observed, controller, target, jnp.where(done, 0, trajectory.waited + 1)), row


def _target(maze: Maze2d, uniform: Float[Array, "3"]) -> Float[Array, "2"]:
    """A free cell's integer location plus U(-0.1, 0.1)^2, from a draw of U(0, 1)^3."""
    count = len(maze.cells)
    chosen = jnp.minimum((uniform[0] * count).astype(jnp.int32), count - 1)
    return jnp.asarray(maze.cells)[chosen] + 0.2 * (uniform[1:] - 0.5)


def _cell(maze: Maze2d, position: Float[Array, "2"]) -> Int[Array, ""]:
    """The number of the cell whose integer location is nearest."""
    height, width = maze.walls.shape
    i, j = jnp.clip(jnp.round(position).astype(jnp.int32), 0, np.array([height - 1, width - 1], np.int32))
    return i * width + j


def _place(maze: Maze2d, cell: Int[Array, ""]) -> Float[Array, "2"]:
    """A cell's integer location, D4RL's point of reference in it."""
    width = maze.walls.shape[1]
    return jnp.stack([cell // width, cell % width]).astype(jnp.float32)


def _waypoint(
    maze: Maze2d, cell: Int[Array, ""], goal: Int[Array, ""], uniform: Float[Array, "2"]
) -> Float[Array, "2"]:
    return _place(maze, cell) - jnp.where(cell == goal, 0.0, 0.2 * uniform)
