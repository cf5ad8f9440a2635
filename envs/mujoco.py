"""The same mazes in MuJoCo itself, for scores in the simulator that others use; needs the `simulators` extra.

A maze is built as D4RL describes its own: a sphere of radius 0.1 and density 1000 on two damped slides, its body at
(1.2, 1.2) and the wall boxes at index + 1, motors of gear 100, one Euler step of 0.01 s an action, velocities clipped
to [-5, 5] before it. Observations are the slides' positions and velocities, so that they are those of `envs.maze2d`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from .maze2d import DAMPING, GEAR, MARGIN, MAX_SPEED, RADIUS, STEP, Maze2d

Act = Callable[[Float[np.ndarray, "n 4"]], Float[np.ndarray, "n 2"]]
"""Observations of all episodes -> an action for each; called once a step."""

WALL = '<geom type="box" pos="{} {} 0" size=".5 .5 .2" contype="1" conaffinity="1"/>'
MODEL = f"""
<mujoco>
  <option timestep="{STEP}" gravity="0 0 0" integrator="Euler" iterations="100" tolerance="1e-12"/>
  <default><geom density="1000" condim="1"/><joint type="slide" damping="{DAMPING}"/></default>
  <worldbody>
    <body pos="1.2 1.2 0">
      <joint name="x" axis="1 0 0"/><joint name="y" axis="0 1 0"/>
      <geom type="sphere" size="{RADIUS}" margin="{MARGIN}" contype="1" conaffinity="1"/>
    </body>
    WALLS
  </worldbody>
  <actuator>
    <motor joint="x" gear="{GEAR}" ctrlrange="-1 1" ctrllimited="true"/>
    <motor joint="y" gear="{GEAR}" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>
"""


class Simulator:
    """Episodes of one maze, side by side, each with its own MuJoCo state.

    Raises:
        ModuleNotFoundError: if MuJoCo is not installed.
    """

    def __init__(self, maze: Maze2d):
        mujoco: Any = import_module("mujoco")
        self._step: Callable[[Any, Any], None] = mujoco.mj_step
        self._new: Callable[[Any], Any] = mujoco.MjData
        walls = "".join(WALL.format(i + 1, j + 1) for i, j in np.argwhere(maze.walls))
        self.model: Any = mujoco.MjModel.from_xml_string(MODEL.replace("WALLS", walls))
        self.model.body_invweight0[1, 0] = 1 / self.model.body_mass[1]  # as MuJoCo 4 has it; 2 / (3 m) in 2.3.7

    def step(
        self, observation: Float[np.ndarray, "4"], action: Float[np.ndarray, "2"]
    ) -> tuple[Float[np.ndarray, "4"], int]:
        """One step from a state set afresh: (next observation, number of contacts)."""
        data = self._new(self.model)
        data.qpos[:], data.qvel[:] = observation[:2], np.clip(observation[2:], -MAX_SPEED, MAX_SPEED)
        data.ctrl[:] = action
        self._step(self.model, data)
        return np.concatenate([data.qpos, data.qvel]), data.ncon

    def start(self, observations: Float[np.ndarray, "n 4"]) -> list[Any]:
        """A state for every episode."""
        states = [self._new(self.model) for _ in observations]
        for data, observation in zip(states, np.asarray(observations, np.float64), strict=True):
            data.qpos[:], data.qvel[:] = observation[:2], observation[2:]
        return states

    def run(self, states: list[Any], act: Act, steps: int) -> Float[np.ndarray, "n steps 4"]:
        """Moves all episodes on by `steps`, in place; returns what is seen after each."""
        observed = np.empty((len(states), steps + 1, 4), np.float32)
        look = lambda t: np.stack([np.concatenate([data.qpos, data.qvel]) for data in states], out=observed[:, t])
        look(0)
        for t in range(steps):
            actions = np.asarray(act(observed[:, t]), np.float64)
            for data, action in zip(states, actions, strict=True):
                np.clip(data.qvel, -MAX_SPEED, MAX_SPEED, out=data.qvel)
                data.ctrl[:] = action
                self._step(self.model, data)
            look(t + 1)
        return observed[:, 1:]
