"""Gridworlds: the same planner where the limit is the shortest path. A score is how many steps end on the goal.

With d the moves from start to goal, at least 1 for a first step that stays, and T the steps of an episode,

    limit = T - max(d, 1) + 1                                                                        (127)

Nobody else publishes scores in these worlds, so every row is ours.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import runtime
from diffplan.learn.data import Rows
from diffplan.studies.scores import control, playing, training
from diffplan.studies.scores.control import Name, Tracker
from diffplan.studies.scores.planner import Dials
from diffplan.studies.scores.rows import Drawn, Row, ScoresConfig, keep, measured
from diffplan.studies.scores.tuning import methods
from envs import experts, gridworld, layout
from envs.gridworld import MOVES, Gridworld

WORLDS = {"fourrooms": gridworld.FOUR_ROOMS, "corridors": gridworld.CORRIDORS}


A_MOVE_AWAY = 1.25
"""Cells: from this near, tracking's next move leads to a point, and the one after it to the next."""


def returns(goals: Float[np.ndarray, "n 2"], paths: Float[np.ndarray, "n steps 2"]) -> Float[np.ndarray, "n"]:
    """How many steps of each episode ended on its goal."""
    return (paths == goals[:, None]).all(axis=-1).sum(axis=1).astype(np.float64)


def limit(world: Gridworld, starts: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """(127) for the world's own goal."""
    number = {tuple(cell): i for i, cell in enumerate(world.cells.tolist())}
    hops = layout.hops(world.next_cell)[:, number[world.goal]]
    apart = hops[[number[tuple(cell)] for cell in starts.astype(int).tolist()]]
    return (world.max_steps + 1 - np.maximum(apart, 1)).astype(np.float64)


def nearest_move(observation: Float[Array, "2"], place: Float[Array, "2"]) -> Float[Array, "5"]:
    """(124) in a gridworld: the move that comes nearest to a place, as one-hot; staying, where none comes nearer."""
    apart = jnp.asarray(MOVES, jnp.float32) + (observation - place)[None]
    return jax.nn.one_hot(jnp.argmin((apart**2).sum(axis=-1)), len(MOVES))


def schedule(config: ScoresConfig, steps: int) -> Iterator[tuple[Name, int]]:
    """(controller, steps between plans) of every row of a method."""
    for name in control.CONTROLLERS:
        yield name, config.every
    yield "inverse", steps


def rows_of(config: ScoresConfig, task: str) -> Iterator[Row]:
    """All rows of one world, ours."""
    world, data = WORLDS[task], config.planner.data
    found = experts.wander(world, jax.random.key(data.seed), data.lanes, data.rows // data.lanes, data.noise)
    rows, identity = Rows(np.asarray(found.observations), np.asarray(found.actions)), f"{task} {runtime.plain(data)}"
    planner, minutes = training.fit(config.run / "gridworld" / task, config.planner, rows, identity)
    physics, about = control.in_jax(world, Tracker(nearest_move, A_MOVE_AWAY)), {"suite": config.suite, "task": task}

    def drawn(seed: int, count: int) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
        """Starts in random cells, and the world's goal."""
        starts = np.random.default_rng(seed).choice(world.cells.astype(np.float32), count)
        return starts, np.broadcast_to(np.asarray(world.goal, np.float32), starts.shape)

    def play(seed: int, count: int, dials: Dials, name: Name, every: int) -> control.Outcome:
        starts, goals = drawn(seed, count)
        plans = playing.plans(planner, dials, goals, every, near=0.5)
        how = playing.carried(planner, name, every)
        return control.episodes(jax.random.key(seed), physics, plans, how, starts, world.max_steps)

    def tuned(dials: Dials) -> Float[np.ndarray, "n"]:
        seed, count = config.seed + 1, config.tuning
        return returns(drawn(seed, count)[1], play(seed, count, dials, "inverse", config.every).paths)

    starts, goals = drawn(config.seed, config.episodes)
    best = limit(world, starts)
    yield measured(about, "jax", "limit (shortest path)", "optimal", best, best.mean())
    for method in methods(task, config.candidates, tuned):
        for name, every in schedule(config, world.max_steps):
            seen = play(config.seed, config.episodes, method.dials, name, every)
            scores = returns(goals, seen.paths)
            when = f"every {every} steps" if every < world.max_steps else "one plan"
            cost = {"seconds_per_plan": seen.seconds_per_plan, "train_minutes": minutes}
            row = measured(about, "jax", f"{method.name}, {when}", name, scores, best.mean(), **cost)
            drawing = Drawn(world.walls, (-0.5, -0.5), 1.0, 0.4, turned=False)
            keep(config.run / config.suite / "rollouts" / task, row, seen, goals, drawing)
            runtime.say(f"{task}: {method.name}, {name}, {when}: {scores.mean():.1f} of {best.mean():.1f}")
            yield row
