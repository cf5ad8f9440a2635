"""Gridworlds: the same planner where the bound is the shortest path. A score is the number of steps on the goal.

With d the moves from start to goal, at least 1 for a first step that stays, and T the steps of an episode,

    bound = T - max(d, 1) + 1                                                                        (127)

Nobody else publishes scores in these worlds, so every row is ours.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.benchmarks.rows import Drawing, Episodes, Name, Row, Scores, ScoresSettings, Sheet
from diffplan.benchmarks.tuning import methods
from diffplan.data.windows import Rows
from diffplan.planner import control, playing, training
from diffplan.planner.control import Tracker
from diffplan.planner.planner import PlanOptions
from diffplan.runs import Run
from diffplan.runs.files import plain
from envs import experts, gridworld, layout
from envs.gridworld import MOVES, Gridworld

WORLDS = {"fourrooms": gridworld.FOUR_ROOMS, "corridors": gridworld.CORRIDORS}


ONE_MOVE = 1.25
"""Cells: from this near, tracking's next move leads to a point, and the one after it to the next."""


def returns(goals: Float[np.ndarray, "n 2"], paths: Float[np.ndarray, "n steps 2"]) -> Float[np.ndarray, "n"]:
    """How many steps of each episode ended on its goal."""
    return (paths == goals[:, None]).all(axis=-1).sum(axis=1).astype(np.float64)


def bound(world: Gridworld, starts: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """(127) for the world's own goal."""
    number = {tuple(cell): i for i, cell in enumerate(world.cells.tolist())}
    hops = layout.hops(world.next_cell)[:, number[world.goal]]
    apart = hops[[number[tuple(cell)] for cell in starts.astype(int).tolist()]]
    return (world.max_steps + 1 - np.maximum(apart, 1)).astype(np.float64)


def nearest_move(observation: Float[Array, "2"], place: Float[Array, "2"]) -> Float[Array, "5"]:
    """(124) in a gridworld: the move that leads nearest to a place, as one-hot; staying if no move leads nearer."""
    apart = jnp.asarray(MOVES, jnp.float32) + (observation - place)[None]
    return jax.nn.one_hot(jnp.argmin((apart**2).sum(axis=-1)), len(MOVES))


def rows_of(config: ScoresSettings, task: str) -> Iterator[Row]:
    """All rows of one world, ours."""
    world, data = WORLDS[task], config.data
    steps = data.rows // data.trajectories
    walks = experts.wander(world, jax.random.key(data.seed), data.trajectories, steps, data.noise)
    rows, identity = Rows(np.asarray(walks.observations), np.asarray(walks.actions)), f"{task} {plain(data)}"
    run = Run(config.run / "gridworld" / task, config.new_settings)
    planner, minutes = training.fit(run, config.planner, rows, identity)
    physics = control.in_jax(world, Tracker(nearest_move, ONE_MOVE))

    def episodes(part: int, count: int) -> Episodes:
        """Starts in random cells, and the world's goal; part 0 is scored, part 1 is for tuning."""
        starts = np.random.default_rng((config.seed, part)).choice(world.cells.astype(np.float32), count)
        return Episodes(starts, np.broadcast_to(np.asarray(world.goal, np.float32), starts.shape))

    def play(part: int, count: int, options: PlanOptions, name: control.Name, every: int) -> control.Outcome:
        starts, goals = episodes(part, count)
        plans = playing.plans(planner, options, goals, every, near=0.5)
        controller = playing.controller(planner, name, every)
        key = jax.random.fold_in(jax.random.key(config.seed), part)
        return control.episodes(key, physics, plans, controller, starts, world.max_steps)

    def score(options: PlanOptions) -> Scores:
        return returns(episodes(1, config.tuning).goals, play(1, config.tuning, options, "inverse", config.every).paths)

    starts, goals = episodes(0, config.episodes)
    best = bound(world, starts)
    sheet = Sheet(config, task, goals, Drawing(world.walls, (-0.5, -0.5), 1.0, 0.4, turned=False), best.mean())
    yield sheet.measured(Name("bound (shortest path)", "optimal", "jax"), best)
    for method in methods(task, config.candidates, score):
        schedule: list[tuple[control.Name, int]] = [(name, config.every) for name in control.CONTROLLERS]
        if not method.options.warm:  # which begins with the second plan
            schedule.append(("inverse", world.max_steps))
        for controller, every in schedule:
            outcome = play(0, config.episodes, method.options, controller, every)
            name, scores = Name(method.name, controller, "jax"), returns(goals, outcome.paths)
            yield sheet.planned(name, every, scores, outcome, minutes)
