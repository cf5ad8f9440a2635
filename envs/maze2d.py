"""D4RL's Maze2D in JAX: a ball pushed through a maze, with D4RL's coordinates and MuJoCo's physics.

An observation is (x, y, vx, vy) in cells and cells per second; an action is a force (ux, uy) in [-1, 1]. Row index i is
the first coordinate. D4RL puts the ball's frame at 1.2 and the wall boxes at index + 1, so cell (i, j) is not centred
on its index:

    cell (i, j) = [i - 0.7, i + 0.3] x [j - 0.7, j + 0.3],         centre (i - 0.2, j - 0.2)                     (1)

The ball (radius 0.1, mass m = 4/3 pi 0.1^3 1000) has joint damping B = 1 and motor gear 100. A step clips the action to
[-1, 1] and the velocity to [-5, 5], then takes one semi-implicit Euler step of h = 0.01 s, with B treated implicitly as
MuJoCo's Euler integrator does:

    a0 = (100 u - B v) / m                                         acceleration without walls                    (2)
    v' = v + h m / (m + h B) a,         x' = x + h v'              a: acceleration with walls                    (3)

Walls are MuJoCo's soft contacts (MuJoCo documentation, "Computation": constraint model; default solref (0.02, 1) and
solimp). A contact with unit normal n, pointing from wall to ball, at distance r < margin = 0.002 wants the acceleration

    n.a = a_ref = -b n.v - k d (r - margin),     b = 2 / (0.95 tc),     k = 1 / (0.95 tc)^2,     tc = 0.02 s     (4)

but it only pushes and it gives way, with compliance rho; the impedance d rises from 0.9 to 0.95 over the first
millimetre of depth below the margin:

    rho = (1 - d) / d                                              in units of 1 / m                             (5)
    a   = argmin_a |a - a0|^2 / 2 + sum_contacts max(0, a_ref - n.a)^2 / (2 rho)                                 (6)

(6) is the primal form of the complementarity problem that MuJoCo solves. It is piecewise quadratic in two unknowns, so
a few Newton steps with the active set read off the last iterate solve it. Only the four cells round the nearest
categorical corner can touch the ball; two boxes that form one flat wall are two contacts near their seam, as in MuJoCo.

Where this is not D4RL: outside the drawing everything is wall; a ball whose centre is inside a wall is pushed out
through the nearest face (MuJoCo's boxes are 0.2 high and are left upwards); (5) is MuJoCo 4.0.0's, where older versions
(seen in 2.3.7) have 2/3 of it, walls stiffer by an amount that no statistic of the data shows; and rewards pay for the
row (o_t, a_t) that is left, where D4RL pays the same for the observation reached, one row later.

Sources: layouts, coordinates, rewards and bounds from D4RL (Fu et al. 2020, arXiv 2004.07219), written anew from those
facts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import pi
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from . import layout
from .base import Transition

RADIUS = 0.1
MASS = 4 / 3 * pi * RADIUS**3 * 1000
DAMPING = 1.0
GEAR = 100.0
STEP = 0.01
"""Seconds per step."""
MAX_SPEED = 5.0
"""Velocities are clipped to this, per component and before the step, in cells per second."""
SPEED_BOUND = MAX_SPEED + STEP * (GEAR - DAMPING * MAX_SPEED) / (MASS + STEP * DAMPING)
"""The largest velocity component that can be observed, 5.2262554: MAX_SPEED and one step of full force."""

MARGIN, TIME_CONSTANT, IMPEDANCE, WIDTH = 0.002, 0.02, (0.9, 0.95), 0.001
STIFFNESS, DRAG = 1 / (IMPEDANCE[1] * TIME_CONSTANT) ** 2, 2 / (IMPEDANCE[1] * TIME_CONSTANT)
NEWTON_STEPS = 4
REGION = 0.3
"""Radius of a default region, in cells."""
ENDS = 512
"""Cells whose pairs choose a default region, at most."""

Gold = Callable[["Maze2d", Float[Array, "4"], Float[Array, "2"]], Float[Array, ""]]
"""(maze, observation, action) -> reward. Must be hashable: a function, or a frozen dataclass that can be called."""


class State(NamedTuple):
    """Position in cells, velocity in cells per second, steps taken since the reset."""

    position: Float[Array, "2"]
    velocity: Float[Array, "2"]
    time: Int[Array, ""]


def time_near_goal(maze: "Maze2d", observation: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, ""]:
    """D4RL's sparse reward: 1 within 0.5 cells of the goal's integer location.

    Raises:
        ValueError: if the maze has no goal.
    """
    return (jnp.linalg.norm(observation[:2] - np.array(maze.goal, np.float32)) <= 0.5).astype(jnp.float32)


def path_length(maze: "Maze2d", observation: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, ""]:
    """The distance that the velocity covers in one step, |v| h, in cells."""
    return jnp.linalg.norm(observation[2:]) * STEP


@dataclass(frozen=True)
class _Region:
    centre: tuple[float, float]
    radius: float

    def __call__(self, maze: "Maze2d", observation: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, ""]:
        distance = jnp.linalg.norm(observation[:2] - np.array(self.centre, np.float32))
        return ((distance <= self.radius) & maze.is_free(observation[:2])).astype(jnp.float32)


def time_in_region(centre: tuple[float, float], radius: float) -> Gold:
    """A reward of 1 in free space within `radius` cells of `centre`; a point inside a wall earns nothing."""
    return _Region((float(centre[0]), float(centre[1])), float(radius))


@dataclass(frozen=True)
class Maze2d:
    """A maze with its gold reward. Static and hashable; build it with `from_text` or take a named one."""

    rows: layout.Rows
    gold: Gold = time_near_goal
    max_steps: int = 300
    """Steps after which a transition is marked truncated; at least 1."""

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: must be at least 1")

    @classmethod
    def from_text(cls, text: str, gold: Gold = time_near_goal, max_steps: int = 300) -> "Maze2d":
        """A maze from a drawing, one row per line, `#` wall, `O` free, `G` goal. A file's is Maze2d(layout.read(path)).

        Raises:
            ValueError: one line naming what is wrong with the drawing; see `layout.parse`.
        """
        return cls(layout.parse(text), gold, max_steps)

    observation_dim = 4
    action_dim = 2

    @property
    def observation_low(self) -> Float[np.ndarray, "4"]:
        return np.array([-0.7, -0.7, -SPEED_BOUND, -SPEED_BOUND], np.float32)

    @property
    def observation_high(self) -> Float[np.ndarray, "4"]:
        height, width = self.walls.shape
        return np.array([height - 0.7, width - 0.7, SPEED_BOUND, SPEED_BOUND], np.float32)

    @property
    def action_low(self) -> Float[np.ndarray, "2"]:
        return np.full(2, -1, np.float32)

    @property
    def action_high(self) -> Float[np.ndarray, "2"]:
        return np.full(2, 1, np.float32)

    goal = property(lambda self: layout.goal(self.rows))
    """The goal's integer location (i, j), D4RL's target. Raises ValueError where there is none."""

    walls = cached_property(lambda self: layout.walls(self.rows))
    """True where there is wall."""

    cells = cached_property(lambda self: layout.cells(self.rows))
    """The free cells (i, j) in reading order, the goal among them."""

    @cached_property
    def _padded(self) -> Bool[np.ndarray, "rows columns"]:
        return np.pad(self.walls, 1, constant_values=True)

    def cell_centre(self, i: int, j: int) -> Float[np.ndarray, "2"]:
        """The centre of a cell in observation coordinates, equation (1)."""
        return np.array([i - 0.2, j - 0.2], np.float32)

    def cell_of(self, position: Float[Array, "2"]) -> Int[Array, "2"]:
        """The cell (i, j) that holds a point, equation (1); it may lie outside the drawing."""
        return jnp.floor(position + 0.7).astype(jnp.int32)

    def is_free(self, position: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether a point lies in a free cell (the ball's radius is not counted); False outside the drawing."""
        return ~self._wall_at(self.cell_of(position))

    def crosses_wall(self, p: Float[Array, "2"], q: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether the segment from p to q meets the open interior of a wall cell or leaves the drawing.

        Exact up to rounding: the segment is clipped to every wall cell.
        """
        low = np.argwhere(self.walls).astype(np.float32) - np.float32(0.7)
        start, direction = p[None], (q - p)[None]
        inside = (start > low) & (start < low + 1)  # [walls 2]
        moving = direction != 0
        rate = jnp.where(moving, direction, 1)
        first, second = (low - start) / rate, (low + 1 - start) / rate
        enter = jnp.where(moving, jnp.minimum(first, second), jnp.where(inside, -jnp.inf, jnp.inf))
        leave = jnp.where(moving, jnp.maximum(first, second), jnp.where(inside, jnp.inf, -jnp.inf))
        meets = jnp.maximum(enter.max(axis=1), 0) < jnp.minimum(leave.min(axis=1), 1)
        outside = (jnp.minimum(p, q) < self.observation_low[:2]) | (jnp.maximum(p, q) > self.observation_high[:2])
        return meets.any() | outside.any()

    def reset(self, key: Key[Array, ""]) -> State:
        """A uniformly chosen free cell's integer location plus U(-0.1, 0.1)^2, with a velocity from N(0, 0.1^2)."""
        cell_key, noise_key, velocity_key = jax.random.split(key, 3)
        cell = jax.random.choice(cell_key, jnp.asarray(self.cells))
        position = cell + jax.random.uniform(noise_key, (2,), minval=-0.1, maxval=0.1)
        return State(position, 0.1 * jax.random.normal(velocity_key, (2,)), jnp.int32(0))

    def step(self, key: Key[Array, ""], state: State, action: Float[Array, "2"]) -> tuple[State, Transition]:
        """One step of 0.01 s, equations (2) to (6). Deterministic: the key is not used. Never terminates."""
        velocity = jnp.clip(state.velocity, -MAX_SPEED, MAX_SPEED)
        pushed = (GEAR * jnp.clip(action, -1, 1) - DAMPING * velocity) / MASS  # (2)
        acceleration = _resolve(pushed, *self._contacts(state.position, velocity))
        velocity = velocity + STEP * MASS / (MASS + STEP * DAMPING) * acceleration  # (3)
        new = State(state.position + STEP * velocity, velocity, state.time + 1)
        reward = self.reward(self.observe(state), action)
        return new, Transition(self.observe(new), reward, jnp.bool_(False), new.time >= self.max_steps)

    def observe(self, state: State) -> Float[Array, "4"]:
        """(x, y, vx, vy)."""
        return jnp.concatenate([state.position, state.velocity])

    def state_of(self, observation: Float[Array, "4"]) -> State:
        """The state with this position and velocity, at step 0."""
        return State(observation[:2], observation[2:], jnp.int32(0))

    def reward(self, observation: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, ""]:
        """The gold reward of one row."""
        return self.gold(self, observation, action)

    def residual(self, o: Float[Array, "4"], a: Float[Array, "2"], o_next: Float[Array, "4"]) -> Float[Array, ""]:
        """|step(o, a) - o_next|, the one-step prediction error in cells and cells per second.

        0 on real steps up to float32 rounding (1e-6 in flight, 1e-5 in contact, where the wall is stiff). It says that
        the *step* is possible; whether o itself could be reached (a point inside a wall cannot) is for `is_free` and
        `crosses_wall` to say.
        """
        new, _ = self.step(jax.random.key(0), self.state_of(o), a)
        return jnp.linalg.norm(self.observe(new) - o_next)

    def _wall_at(self, cell: Int[Array, "2"]) -> Bool[Array, ""]:
        padded = jnp.asarray(self._padded)
        i, j = jnp.clip(cell + 1, 0, np.array(padded.shape, np.int32) - 1)
        return padded[i, j]

    def _contacts(
        self, position: Float[Array, "2"], velocity: Float[Array, "2"]
    ) -> tuple[Float[Array, "4 2"], Float[Array, "4"], Float[Array, "4"]]:
        """The unit normals, wanted accelerations (4) and stiffnesses 1 / rho (5) of the four cells round a corner.

        A stiffness of 0 means that there is no contact.
        """
        corner = jnp.round(position + 0.7)
        sides = np.array([[-1, -1], [-1, 0], [0, -1], [0, 0]], np.int32)
        wall = jax.vmap(self._wall_at)(corner.astype(jnp.int32)[None] + sides)
        offset = (position + 0.7 - corner)[None] - (sides + np.float32(0.5))  # from each cell's centre
        normal, distance = _nearest(offset)
        depth = jnp.minimum(jnp.abs(distance - MARGIN) / WIDTH, 1.0)
        rise = jnp.where(depth < 0.5, 2 * depth**2, 1 - 2 * (1 - depth) ** 2)
        impedance = IMPEDANCE[0] + (IMPEDANCE[1] - IMPEDANCE[0]) * rise
        wanted = -DRAG * (normal @ velocity) - STIFFNESS * impedance * (distance - MARGIN)  # (4)
        stiffness = impedance / (1 - impedance)  # (5)
        return normal, wanted, jnp.where(wall & (distance < MARGIN), stiffness, 0.0)


def _nearest(offset: Float[Array, "4 2"]) -> tuple[Float[Array, "4 2"], Float[Array, "4"]]:
    """Outward unit normals, and the ball's distances, of unit boxes from whose centres the ball's is `offset` away."""
    beyond = offset - jnp.clip(offset, -0.5, 0.5)
    squared = (beyond**2).sum(axis=1)
    outside = squared > 0
    length = jnp.sqrt(jnp.where(outside, squared, 1.0))
    face = 0.5 - jnp.abs(offset)  # depth below the nearer face of each axis, for a centre inside the box
    first = face[:, 0] <= face[:, 1]
    exit_normal = jnp.where(offset < 0, -1.0, 1.0) * jnp.stack([first, ~first], axis=1)
    normal = jnp.where(outside[:, None], beyond / length[:, None], exit_normal)
    return normal, jnp.where(outside, length, -jnp.min(face, axis=1)) - RADIUS


def _resolve(
    pushed: Float[Array, "2"], normal: Float[Array, "4 2"], wanted: Float[Array, "4"], stiffness: Float[Array, "4"]
) -> Float[Array, "2"]:
    """The acceleration that solves (6), by Newton's method on its active set."""
    nx, ny = normal[:, 0], normal[:, 1]
    acceleration = pushed
    for _ in range(NEWTON_STEPS):
        weight = jnp.where(wanted > nx * acceleration[0] + ny * acceleration[1], stiffness, 0.0)
        xx, xy, yy = 1 + (weight * nx * nx).sum(), (weight * nx * ny).sum(), 1 + (weight * ny * ny).sum()
        bx, by = pushed[0] + (weight * wanted * nx).sum(), pushed[1] + (weight * wanted * ny).sum()
        acceleration = jnp.stack([yy * bx - xy * by, xx * by - xy * bx]) / (xx * yy - xy * xy)
    return acceleration


OPEN = Maze2d.from_text("#######\n#OOOOO#\n#OOGOO#\n#OOOOO#\n#######", max_steps=150)
UMAZE = Maze2d.from_text("#####\n#GOO#\n###O#\n#OOO#\n#####", max_steps=300)
MEDIUM = Maze2d.from_text(
    """
    ########
    #OO##OO#
    #OO#OOO#
    ##OOO###
    #OO#OOO#
    #O#OO#O#
    #OOO#OG#
    ########
    """,
    max_steps=600,
)
LARGE = Maze2d.from_text(
    """
    ############
    #OOOO#OOOOO#
    #O##O#O#O#O#
    #OOOOOO#OOO#
    #O####O###O#
    #OO#O#OOOOO#
    ##O#O#O#O###
    #OO#OOO#OGO#
    ############
    """,
    max_steps=800,
)


NAMED = {"open": OPEN, "umaze": UMAZE, "medium": MEDIUM, "large": LARGE}


def named(name: str, max_steps: int | None = None) -> Maze2d:
    """Returns one of D4RL's training layouts.

    Args:
        name: one of NAMED.
        max_steps: steps of an episode; None for D4RL's own.

    Raises:
        ValueError: if there is no layout of that name; the message lists those there are.
    """
    if name not in NAMED:
        raise ValueError(
            f"unknown maze {name!r}: choose 'open', 'umaze', 'medium' or 'large', or draw one with from_text"
        )
    return NAMED[name] if max_steps is None else replace(NAMED[name], max_steps=max_steps)


def open_place(maze: Maze2d, centre: tuple[float, float], radius: float) -> bool:
    """Says whether the ball can stand anywhere in a disc: RADIUS away from all walls, its centre in the disc.

    Args:
        maze: the walls.
        centre: centre of the disc, in cells (observation coordinates).
        radius: radius of the disc, in cells; 0 asks for the centre alone.
    """
    middle = np.array(centre, np.float64)
    away = min(float(np.linalg.norm(middle - _standing(maze, middle, cell))) for cell in maze.cells)
    return away <= radius + 1e-9


def _standing(maze: Maze2d, place: Float[np.ndarray, "2"], cell: Int[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
    """The nearest of the places in a free cell at which the ball touches no wall."""
    i, j = cell
    low, high = cell - 0.7, cell + 0.3
    sides = np.array([[maze.walls[i - 1, j], maze.walls[i, j - 1]], [maze.walls[i + 1, j], maze.walls[i, j + 1]]])
    nearest = np.clip(place, low + RADIUS * sides[0], high - RADIUS * sides[1])
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        step = np.array([2 * down - 1, 2 * right - 1])
        corner = np.array([(low, high)[down][0], (low, high)[right][1]])
        alone = maze.walls[i + step[0], j + step[1]] and not (sides[down][0] or sides[right][1])
        if alone and np.linalg.norm(nearest - corner) < RADIUS:  # the nearest point of the quarter circle
            inward = (corner - place) * step
            way = np.maximum(inward, 0) if (inward > 0).any() else np.eye(2)[inward.argmax()]
            nearest = corner - step * RADIUS * way / np.linalg.norm(way)
    return nearest


def default_region(maze: Maze2d) -> tuple[tuple[float, float], float]:
    """Chooses a disc of free space that much traffic passes: (centre, radius) in cells, for `time_in_region`.

    In the U-maze the disc is the one of the demo, in the corridor between the arms. Elsewhere it is in the middle of
    the free cell that lies on a shortest path for the most pairs of free cells; the first in reading order of several.
    In mazes of more than ENDS cells, the pairs are of ENDS cells, evenly spaced in reading order.

    Raises:
        ValueError: for more than `layout.MAX_CELLS` free cells.
    """
    if maze.rows == UMAZE.rows:
        return (1.6, 2.7), REGION
    hops = layout.hops(layout.successors(maze.rows, ((-1, 0), (1, 0), (0, -1), (0, 1))))
    ends = np.linspace(0, len(hops) - 1, min(len(hops), ENDS)).astype(int)
    apart = hops[np.ix_(ends, ends)]
    passes = [((hops[ends, c][:, None] + hops[c, ends] == apart) & (apart >= 0)).sum() for c in range(len(hops))]
    i, j = maze.cells[int(np.argmax(passes))].tolist()
    return (round(i - 0.2, 1), round(j - 0.2, 1)), REGION
