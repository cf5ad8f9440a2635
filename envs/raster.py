"""An observation as pixels, in numpy alone: fast enough for a video, for `envs.gym` and whoever wants a frame.

A maze or a gridworld is drawn as its text stands, row index downward and column index to the right, each cell as
PIXELS x PIXELS pixels. The centre of pixel (r, c) lies at

    (low + (r + 1/2) / PIXELS,  low + (c + 1/2) / PIXELS)                                                        (1)

in observation coordinates, where low is the edge of the first cell: -0.7 in mazes (`envs.maze2d`, equation (1)), -0.5
in gridworlds, whose cells are centred on their index. A pendulum is drawn as its rod, a positive angle to the left, as
gymnasium draws it; the goal is the place of the rod's upright end. Any other observation is drawn as one bar for each
entry, with a mark where the value lies between its bounds.
"""

import numpy as np
from jaxtyping import Float, UInt8

from .base import Environment
from .gridworld import Gridworld
from .maze2d import RADIUS, Maze2d
from .pendulum import Pendulum
from .potemkin import Potemkin

PIXELS = 32
"""The side of a cell, and the height of a bar."""
FREE, WALL, GOAL, AGENT = (255, 255, 255), (64, 64, 64), (170, 221, 170), (200, 48, 48)


def picture(environment: Environment, observation: Float[np.ndarray, "o"]) -> UInt8[np.ndarray, "height width 3"]:
    """One observation as red, green and blue; the agent covers the goal (a disc of radius 0.5), the goal the cells."""
    match environment:
        case Maze2d():
            return _map(environment, observation, low=-0.7, radius=RADIUS)
        case Gridworld():
            return _map(environment, observation, low=-0.5, radius=0.3)
        case Potemkin():
            return _map(environment.grid, observation, low=-0.5, radius=0.3)
        case Pendulum():
            return _rod(observation)
    return _bars(environment, observation)


def _map(
    world: Maze2d | Gridworld, observation: Float[np.ndarray, "o"], low: float, radius: float
) -> UInt8[np.ndarray, "height width 3"]:
    wall = np.kron(world.walls, np.ones((PIXELS, PIXELS), bool))
    frame = np.where(wall[..., None], np.array(WALL, np.uint8), np.array(FREE, np.uint8))
    rows, columns = (low + (np.arange(side) + 0.5) / PIXELS for side in wall.shape)  # (1)
    distance = lambda place: np.hypot(rows[:, None] - place[0], columns[None] - place[1])
    if any("G" in row for row in world.rows):
        frame[~wall & (distance(world.goal) <= 0.5)] = GOAL
    frame[distance(observation) <= radius] = AGENT
    return frame


def _rod(observation: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "height width 3"]:
    """A rod of 3 cells that hangs in the middle of 8 x 8 cells; (row, column) offsets from the hinge, in cells."""
    offset = (np.arange(8 * PIXELS) + 0.5) / PIXELS - 4
    place = np.stack(np.meshgrid(offset, offset, indexing="ij"), axis=-1)
    way = -observation[:2] / max(float(np.hypot(*observation[:2])), 1e-6)
    along = np.clip(place @ way, 0, 3)
    frame = np.full((*place.shape[:2], 3), FREE, np.uint8)
    frame[np.linalg.norm(place - (-3, 0), axis=-1) <= 0.5] = GOAL
    frame[np.linalg.norm(place - along[..., None] * way, axis=-1) <= 0.2] = AGENT
    return frame


def _bars(environment: Environment, observation: Float[np.ndarray, "o"]) -> UInt8[np.ndarray, "height width 3"]:
    width = 8 * PIXELS
    frame = np.full((PIXELS * environment.observation_dim, width, 3), FREE, np.uint8)
    frame[::PIXELS] = WALL
    low, high = environment.observation_low, environment.observation_high
    fraction = np.clip((observation - low) / (high - low), 0, 1)
    for i, centre in enumerate(np.rint(fraction * (width - 1)).astype(int)):
        frame[i * PIXELS + 1 : (i + 1) * PIXELS, max(centre - 2, 0) : centre + 3] = AGENT
    return frame
