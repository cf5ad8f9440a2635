"""Measures ways to plan anew: from noise or warm, at all noise levels or until the plan has settled, by a flow map.

    python scripts/replanning.py maze2d-umaze         # results/replanning.csv: 7 minutes on two idle CPU cores

A row is a way of planning. `tolerance`: where the plan has settled (`Planner.early`); `evaluations`: of the flow map.
Warm plans start from the last one. Every way plays the same episodes; all but two are guided at the same scale. The
other columns:

    delivered, sem      return of an episode, and its standard error
    gain, low, high     over the first way, episode by episode, with the ends of its 95 % interval
    milliseconds, fastest, slowest      of one decision for one episode, where a plan is made at every step: the median
                                        of the decisions along an episode, made in turn with the other ways; the ends of
                                        the middle half

Trains what is not there. A task's rows take the place of those that are in the table already.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from scipy import stats

from diffplan.metrics.table import read_rows, write
from diffplan.planner.agent import Agent
from diffplan.planner.planner import Planner
from diffplan.planner.play import Rollout, play
from diffplan.runs import say
from diffplan.settings import ConfigError, require
from diffplan.tasks import make_task

WAYS: dict[str, dict[str, Any]] = {
    "12 levels": {},
    "12 levels, warm": {"warm": True},
    "12 levels, unguided": {"unguided": True},
    "12 levels, unguided, warm": {"unguided": True, "warm": True},
    "until settled at 0.05": {"tolerance": 0.05},
    "until settled at 0.1": {"tolerance": 0.1},
    "until settled at 0.2": {"tolerance": 0.2},
    "until settled at 0.1, warm": {"tolerance": 0.1, "warm": True},
    "flow map, 8 evaluations": {"evaluations": 8},
    "flow map, 4 evaluations": {"evaluations": 4},
    "flow map, 4 evaluations, warm": {"evaluations": 8, "warm": True},
    "flow map, 2 evaluations, warm": {"evaluations": 4, "warm": True},
}
"""How plans are made; a flow map's warm start takes half of its evaluations."""

COLUMNS = ("task", "way", "scale", "every", "episodes", "delivered", "sem", "gain", "low", "high")
SECONDS = ("milliseconds", "fastest", "slowest")
DECISIONS = 60
"""Decisions that are timed of each way."""


@dataclass(frozen=True)
class Config:
    """What is measured."""

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of tasks with a simulator and continuous plans."""
    scale: float = 5.7
    """Guidance scale."""
    every: int = 16
    """Steps from plan to plan."""
    episodes: int = 128
    """Episodes of each way, the same for all."""
    steps: int = 300
    """Steps of an episode."""
    run: Path = Path("runs/few_steps")
    """Where planners are trained, a folder a task; `scripts/few_steps.py` uses the same."""
    out: Path = Path("results/replanning.csv")
    """Where the rows go."""


def agent_of(planner: Planner, config: Config, every: int, way: dict[str, Any]) -> Agent:
    """An agent that plans in a way."""
    planner = planner.fast(way["evaluations"]) if "evaluations" in way else planner
    planner = planner.early(way["tolerance"]) if "tolerance" in way else planner
    scale = None if way.get("unguided") else config.scale
    return planner.agent(scale, every=every, warm=way.get("warm", False))


def decisions(agents: dict[str, Agent], path: np.ndarray) -> dict[str, np.ndarray]:
    """Seconds of each decision along an episode ``[t, o]``, the agents in turn. The first two compile."""
    seconds: dict[str, list[float]] = {name: [] for name in agents}
    for observation in path[: DECISIONS + 2]:
        for name, agent in agents.items():
            begun = time.perf_counter()
            agent.act(observation)
            seconds[name].append(time.perf_counter() - begun)
    return {name: np.asarray(each[2:]) for name, each in seconds.items()}


def measure(name: str, config: Config) -> list[dict[str, Any]]:
    """All ways on a task."""
    task = make_task(name)
    planner = Planner.fit(task, config.run / name, few_steps=True)
    rollouts: dict[str, Rollout] = {}
    for words, way in WAYS.items():
        agent = agent_of(planner, config, config.every, way)
        rollouts[words] = play(jax.random.key(0), task, agent, config.episodes, config.steps, words)
        say(f"{name}, {words}: delivers {rollouts[words].returns.mean():.2f}")
    first = next(iter(rollouts.values()))
    always = {words: agent_of(planner, config, 1, way) for words, way in WAYS.items()}
    seconds = decisions(always, first.observations[int(np.argsort(first.returns)[config.episodes // 2])])
    rows = []
    for words, rollout in rollouts.items():
        gain = rollout.returns - first.returns
        half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
        scale = 0.0 if WAYS[words].get("unguided") else config.scale
        about = {"task": name, "way": words, "scale": scale, "every": config.every, "episodes": len(gain)}
        values = {"delivered": rollout.returns.mean(), "sem": stats.sem(rollout.returns), "gain": gain.mean()}
        quarters = dict(zip(SECONDS, 1e3 * np.quantile(seconds[words], (0.5, 0.25, 0.75)), strict=True))
        rows.append(about | values | {"low": gain.mean() - half, "high": gain.mean() + half} | quarters)
    return rows


def main(config: Config) -> None:
    """Measure, and write after every task."""
    require(config.episodes > 1, "episodes", config.episodes, "at least 2")
    rows: list[Any] = [*read_rows(config.out)] if config.out.exists() else []
    for name in config.tasks:
        rows = [row for row in rows if row["task"] != name] + measure(name, config)
        write(config.out, rows, (*COLUMNS, *SECONDS))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
