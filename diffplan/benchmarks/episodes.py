"""Episodes of a planner's agent in any simulator: all side by side, planned anew every so many steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from diffplan.planner.agent import Agent, Way
from diffplan.planner.model import PlanOptions
from diffplan.planner.planner import Planner
from diffplan.planner.play import InJax as World

Controller = Literal["actions", "inverse", "tracking"]
WAYS: dict[Controller, Way] = {"actions": "open_loop", "inverse": "inverse", "tracking": "tracked"}
"""How a plan is carried out, as the tables name it, and as agents do."""


class Trials(NamedTuple):
    """Where the episodes that are scored start, as observations, and their goals, as places."""

    starts: Float[np.ndarray, "n o"]
    goals: Float[np.ndarray, "n 2"]


class Manner(NamedTuple):
    """How a world's agents act. near: the distance from its goal within which an episode is not planned for; pace: that
    at which tracking goes on to the next point.
    """

    near: float
    pace: float
    seed: int


@runtime_checkable
class Simulator(Protocol):
    """Physics, for episodes side by side: `envs.mujoco`, `envs.robotics`, OGBench's, or `InJax`."""

    def start(self, observations: Float[np.ndarray, "n o"]) -> Any: ...

    def run(self, states: Any, act: Callable[[np.ndarray], np.ndarray], steps: int) -> np.ndarray: ...


class InJax:
    """A deterministic environment of this project as a `Simulator`."""

    def __init__(self, environment: Any):
        self.world = World(environment, jax.random.key(0))

    def start(self, observations: Float[np.ndarray, "n o"]) -> Float[np.ndarray, "n o"]:
        """First observations of episodes that begin there."""
        return self.world.place(observations)

    def run(self, states: Float[np.ndarray, "n o"], act: Callable[[np.ndarray], np.ndarray], steps: int) -> np.ndarray:
        """Moves all episodes on; returns what is seen after each step."""
        path = [states]
        for _ in range(steps):
            path.append(self.world.step(act(path[-1]))[0])
        return np.stack(path[1:], axis=1)


@dataclass(frozen=True)
class Outcome:
    """Episodes as they went. paths: ``[n, T, o]``; plans: the points of every plan ``[n, plans, h, o]``."""

    paths: Float[np.ndarray, "n steps o"]
    plans: Float[np.ndarray, "n m h o"]
    seconds_per_plan: float
    """In full batches: the median over the times at which plans were made, so without compilation."""


def agent_of(planner: Planner, options: PlanOptions, controller: Controller, every: int, manner: Manner) -> Agent:
    """The planner's agent at these options, planning every so many steps."""
    scale = None if options.scale is None else float(options.scale)
    how = {"way": WAYS[controller], "near": manner.near, "seed": manner.seed}
    agent = planner.agent(scale, options.candidates, every, options.warm, **how)
    return replace(agent, pace=manner.pace)


def episodes(simulator: Simulator, agent: Agent, trials: Trials, steps: int) -> Outcome:
    """All episodes to their end."""
    agent.reset(goal=trials.goals)
    plans, times = [], []

    def act(observations: np.ndarray) -> np.ndarray:
        began, before = perf_counter(), agent.planned
        actions = agent.act(observations)
        if agent.t == 1 and agent.plan is not None:
            plans.append(np.asarray(agent.plan.observations))
        if agent.planned > before:
            times.append((perf_counter() - began) / (agent.planned - before))
        return actions

    paths = simulator.run(simulator.start(trials.starts), act, steps)
    return Outcome(paths, np.stack(plans, axis=1), float(np.median(times)) if times else np.nan)
