"""The same mazes in gymnasium-robotics' PointMaze, stepped by its own code; needs the `simulators` extra.

PointMaze is centred on the middle of its map and has x to the right and y upward. In a maze of H rows and W columns,
with (p, q, p', q') the observation of `envs.maze2d` and (x, y, x', y') that of PointMaze,

    x = q + 0.7 - W / 2,      y = H / 2 - 0.7 - p,      x' = q',      y' = -p'                                   (1)
    u_x = u_q,                u_y = -u_p                                               actions alike             (2)

a quarter turn, which takes the centre (i - 0.2, j - 0.2) of Maze2d's cell (i, j) to that of PointMaze's,
(j + 0.5 - W / 2, H / 2 - i - 0.5). Map rows are rows of the drawing and map columns its columns in both.

What is the same: the layouts, mass, damping, gear, radius, one Euler step of 0.01 s an action, actions clipped to
[-1, 1] and velocities to [-5, 5] before it, soft walls with MuJoCo's default constants. Away from walls a step agrees
with `envs.maze2d` to rounding.

What is not: the walls have a margin of 0.002 like the ball's. MuJoCo 4 adds the two (3.2 takes the larger), so contact
begins at 0.004 in place of 0.002, and a ball that is pushed against a wall rests 2 mm further from it. After 100 steps
of random forces in the large maze that moves the ball by 0.006 cells in the median, by 0.14 at most; without the walls'
margin nothing but rounding is left, 4e-5. And a ball whose centre is started inside a wall feels no wall at all, since
it stands at the height of the walls' lower faces; Maze2d pushes it out. Balls do not get there by themselves.

The tasks differ more than the physics. PointMaze draws its goal near a cell's centre (plus U(-0.25, 0.25)^2; any free
cell unless the map marks some), pays for the observation reached if that is within 0.45 of it, and starts at rest near
a cell's centre, again plus U(-0.25, 0.25)^2, more than 0.5 from the goal. Maze2d's goal is the integer location, which
is (0.2, 0.2) from its cell's centre, it pays for the row left within 0.5, and starts within 0.1 of an integer location
with velocities from N(0, 0.1^2). Nothing of the task is used here: a state is what was started from, and observations
are paid by whoever looks at them.
"""

from collections.abc import Callable
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .maze2d import Maze2d
from .mujoco import Act

TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
"""(x, y) from (p, q), without the shift: equation (2)."""


def to_pointmaze(maze: Maze2d, observations: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """PointMaze's (x, y, x', y') for Maze2d's (p, q, p', q'), in cells and cells per second; equation (1)."""
    position, velocity = np.split(np.asarray(observations, np.float64), 2, axis=-1)
    return np.concatenate([position @ TURN.T + _shift(maze), velocity @ TURN.T], axis=-1)


def from_pointmaze(maze: Maze2d, observations: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """The inverse of `to_pointmaze`: what PointMaze shows, or a data set of it holds, in Maze2d's coordinates."""
    position, velocity = np.split(np.asarray(observations, np.float64), 2, axis=-1)
    return np.concatenate([(position - _shift(maze)) @ TURN, velocity @ TURN], axis=-1)


def from_turned(actions: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    """Maze2d's actions for PointMaze's; the inverse of equation (2)."""
    return np.asarray(actions, np.float64) @ TURN


def to_turned(actions: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    """PointMaze's actions for Maze2d's; equation (2)."""
    return np.asarray(actions, np.float64) @ TURN.T


def _shift(maze: Maze2d) -> Float[np.ndarray, "2"]:
    height, width = maze.walls.shape
    return np.array([0.7 - width / 2, height / 2 - 0.7])


class Simulator:
    """Episodes of one maze, side by side, each with its own MuJoCo state; used as `envs.mujoco.Simulator` is.

    There is one PointMaze, built on the maze's own map. Each episode's state is put into it in turn and moved on by its
    own `step`, so that nothing of it is written a second time.

    Raises:
        ModuleNotFoundError: if gymnasium-robotics or MuJoCo is not installed.
    """

    def __init__(self, maze: Maze2d):
        new: Any = import_module("mujoco").MjData
        with redirect_stderr(StringIO()):  # the package greets with a notice about its robot hands
            module: Any = import_module("gymnasium_robotics.envs.maze.point_maze")
        walls = maze.walls.astype(int).tolist()
        env = module.PointMazeEnv(maze_map=walls, continuing_task=True, reset_target=False)
        Path(env.tmp_xml_file_path).unlink(missing_ok=True)  # it is read, and the package leaves it behind
        self.maze = maze
        self.model: Any = env.point_env.model
        self._point: Any = env.point_env
        self._new: Callable[[], Any] = lambda: new(self.model)

    def start(self, observations: Float[np.ndarray, "n 4"]) -> list[Any]:
        """A state for every episode; observations in Maze2d's coordinates."""
        states = [self._new() for _ in observations]
        for data, observation in zip(states, to_pointmaze(self.maze, observations), strict=True):
            self._point.data = data
            self._point.set_state(observation[:2], observation[2:])
        return states

    def run(self, states: list[Any], act: Act, steps: int) -> Float[np.ndarray, "n steps 4"]:
        """Moves all episodes on by `steps`, in place; returns what is seen after each, in Maze2d's coordinates."""
        observed = np.empty((len(states), steps + 1, 4), np.float32)
        result = np.stack([np.concatenate([data.qpos, data.qvel]) for data in states])
        observed[:, 0] = from_pointmaze(self.maze, result)
        for t in range(steps):
            actions = to_turned(act(observed[:, t]))
            for i, (data, action) in enumerate(zip(states, actions, strict=True)):
                self._point.data = data
                result[i] = self._point.step(action)[0]
            observed[:, t + 1] = from_pointmaze(self.maze, result)
        return observed[:, 1:]
