"""Gridworlds: the same planner where the bound is the shortest path. A score is the number of steps on the goal.

With d the moves from start to goal, at least 1 for a first step that stays, and T the steps of an episode,

    bound = T - max(d, 1) + 1                                                                        (127)

Nobody else publishes scores in these worlds, so every row is ours.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from diffplan.benchmarks.episodes import WAYS, Controller, InJax, Manner, Outcome, Trials, agent_of, episodes
from diffplan.benchmarks.rows import Drawing, Name, Row, Scores, ScoresSettings, Sheet
from diffplan.benchmarks.tuning import methods
from diffplan.envs.gridworld import Gridworld
from diffplan.planner import reaching
from diffplan.planner.model import PlanOptions
from diffplan.planner.planner import Planner
from diffplan.runs import Run
from diffplan.runs.files import plain
from diffplan.tasks import gridworld as tasks
from diffplan.tasks.gridworld import GridworldSettings, ShortestPath

ONE_MOVE = 1.25
"""Cells: from this near, tracking's next move leads to a point, and the one after it to the next."""


def returns(goals: Float[np.ndarray, "n 2"], paths: Float[np.ndarray, "n steps 2"]) -> Float[np.ndarray, "n"]:
    """How many steps of each episode ended on its goal."""
    return (paths == goals[:, None]).all(axis=-1).sum(axis=1).astype(np.float64)


def bound(world: Gridworld, starts: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """(127) for the world's own goal.

    The task's bound counts the T + 1 observations of an episode; the first of them is no step and counts for nothing.
    """
    best, steps = ShortestPath(world), world.max_steps
    return np.asarray([min(steps, best(start, steps + 1)) for start in starts], np.float64)


def rows_of(config: ScoresSettings, task: str) -> Iterator[Row]:
    """All rows of one world, ours."""
    settings = GridworldSettings(layout=task, **dataclasses.asdict(config.data))
    world = tasks.environment(settings)
    behaviour = tasks.simulate(world, settings)
    run = Run(config.run / "gridworld" / task, config.new_settings)
    ways, minutes = reaching.fit(run, config.planner, behaviour, f"{task} {plain(config.data)}")
    planner = Planner.of_ways(tasks.make(settings), ways, config.planner, behaviour)

    def trials(part: int, count: int) -> Trials:
        """Starts in random cells, and the world's goal; part 0 is scored, part 1 is for tuning."""
        starts = np.random.default_rng((config.seed, part)).choice(world.cells.astype(np.float32), count)
        return Trials(starts, np.broadcast_to(np.asarray(world.goal, np.float32), starts.shape))

    def play(part: int, count: int, options: PlanOptions, controller: Controller, every: int) -> Outcome:
        manner = Manner(0.5, ONE_MOVE, 2 * config.seed + part)
        agent = agent_of(planner, options, controller, every, manner)
        return episodes(InJax(world), agent, trials(part, count), world.max_steps)

    def score(options: PlanOptions) -> Scores:
        return returns(trials(1, config.tuning).goals, play(1, config.tuning, options, "inverse", config.every).paths)

    starts, goals = trials(0, config.episodes)
    best = bound(world, starts)
    sheet = Sheet(config, task, goals, Drawing(world.walls, (-0.5, -0.5), 1.0, 0.4, turned=False), best.mean())
    yield sheet.measured(Name("bound (shortest path)", "optimal", "jax"), best)
    for method in methods(task, config.candidates, score):
        schedule: list[tuple[Controller, int]] = [(name, config.every) for name in WAYS]
        if not method.options.warm:  # which begins with the second plan
            schedule.append(("inverse", world.max_steps))
        for controller, every in schedule:
            outcome = play(0, config.episodes, method.options, controller, every)
            name, scores = Name(method.name, controller, "jax"), returns(goals, outcome.paths)
            yield sheet.planned(name, every, scores, outcome, minutes)
