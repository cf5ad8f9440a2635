"""Maze2D's published protocol from nothing to a table, with the maze's own goal, or with random ones (Multi2D).

One planner serves both. Data, training, tuning, episodes in three simulators, the bound, rows. Tuning plays other
starts in JAX's physics by learned actions. Then every method plans the same starts with the same keys.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.benchmarks import bound
from diffplan.benchmarks.published import REFERENCES
from diffplan.benchmarks.rows import Drawing, Episodes, Name, Row, Scores, ScoresSettings, Sheet
from diffplan.benchmarks.tuning import Method, Methods, methods
from diffplan.data import readers
from diffplan.data.readers import Run
from diffplan.data.windows import DataError, Rows
from diffplan.experiment.build import make_data
from diffplan.planner import control, playing, training
from diffplan.planner.control import Physics
from diffplan.planner.planner import PlanOptions
from diffplan.runs import Run as Directory
from diffplan.runs import say
from diffplan.runs.files import digest
from diffplan.tasks import maze2d as tasks
from diffplan.tasks.maze2d import GoldSettings
from diffplan.types import PRNGKey
from envs import experts, maze2d, robotics
from envs.maze2d import Maze2d
from envs.mujoco import Simulator as MujocoMaze
from envs.robotics import Simulator as PointMaze

ARRIVED = 0.4
"""Cells from its goal within which an episode is not planned for: inside the disc that pays."""

FINENESS = {"maze2d": (8, 15), "multi2d": (4, 9)}
"""Grid points of the bound, a cell and a velocity: coarse where there are many goals."""


def draw_episodes(config: ScoresSettings, maze: Maze2d, key: PRNGKey, count: int) -> Episodes:
    """First observations as D4RL draws them, and the maze's goal, or a free cell's location plus U(-0.1, 0.1)^2."""
    key_start, key_goal, key_noise = jax.random.split(key, 3)
    starts = jax.vmap(lambda key: maze.observe(maze.reset(key)))(jax.random.split(key_start, count))
    cells = jax.random.choice(key_goal, jnp.asarray(maze.cells, jnp.float32), (count,))
    random = cells + jax.random.uniform(key_noise, (count, 2), minval=-0.1, maxval=0.1)
    fixed = np.broadcast_to(np.asarray(maze.goal, np.float32), (count, 2))
    return Episodes(np.asarray(starts), np.asarray(random) if config.suite == "multi2d" else fixed)


def at(config: ScoresSettings, task: str) -> Directory:
    """The run of one task."""
    return Directory(config.run / task, config.new_settings)


def behaviour(config: ScoresSettings, task: str, maze: Maze2d) -> tuple[Rows, str]:
    """The rows that the planner learns from, and their identity: simulated here, or read as the configuration says."""
    source = config.behaviour.replace("{task}", task)
    if not source:
        world = tasks.task(replace(config.data, maze=task), GoldSettings())
        return make_data(at(config, task), world)
    if source.endswith(".hdf5"):

        @jax.jit
        @jax.vmap
        def step(observation: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, "4"]:
            return maze.step(jax.random.key(0), maze.state_of(observation), action)[1].observation

        runs = readers.from_d4rl(Path(source), maze, lambda *rows: np.asarray(step(*rows)))
    else:
        episodes = readers.from_minari(source)
        widths = {(run.observations.shape[1], run.actions.shape[1]) for run in episodes}
        if widths != {(4, 2)}:
            raise DataError(f"{source}: observations and actions of {sorted(widths)} numbers: must be of 4 and 2")
        turned = lambda run: Run(robotics.from_pointmaze(maze, run.observations), robotics.from_turned(run.actions))
        runs = [Run(*(field.astype(np.float32) for field in turned(run))) for run in episodes]
    for number, run in enumerate(runs):
        outside = np.flatnonzero(~np.asarray(jax.vmap(maze.is_free)(jnp.asarray(run.observations[:, :2]))))
        if outside.size:
            place = run.observations[outside[0], :2].tolist()
            raise DataError(f"{source}: run {number}, row {outside[0]} is at {place}: must be in free cells of {task}")
    window = config.planner.horizon * config.planner.stride
    longest = max(len(run.actions) for run in runs)
    rows, left = readers.trajectories(runs, max(window, min(longest, 10 * window)))
    say(f"{source}: {rows.actions.shape[0]} trajectories of {rows.actions.shape[1]} steps; {left} rows are left over")
    return rows, digest(rows)


def schedule(config: ScoresSettings, methods: Methods, steps: int) -> Iterator[tuple[str, control.Name, Method, int]]:
    """(simulator, controller, method, steps between plans) of every row."""
    *cold, warm = methods
    for method in cold:
        for name in control.CONTROLLERS[1:]:
            yield "mujoco", name, method, config.every
    yield "mujoco", "actions", cold[-1], config.every
    if config.suite == "multi2d":  # the same planners: what follows is known from Maze2D
        return
    yield "mujoco", "tracking", warm, config.every
    yield "gymnasium-robotics", "tracking", cold[-1], config.every
    for name in control.CONTROLLERS:
        yield "mujoco", name, cold[-1], steps
        yield "jax", name, cold[-1], steps


def rows_of(config: ScoresSettings, task: str) -> Iterator[Row]:
    """All rows of one task, ours."""
    maze, reference, run = maze2d.named(task), REFERENCES[task], at(config, task)
    rows, identity = behaviour(config, task, maze)
    planner, minutes = training.fit(run, config.planner, rows, identity)
    scored, steps = jax.random.key(config.seed), reference.steps
    tuning = jax.random.fold_in(scored, 1)
    episodes = draw_episodes(config, maze, scored, config.episodes)
    trials = draw_episodes(config, maze, tuning, config.tuning)
    simulators: dict[str, Physics] = {
        "mujoco": control.outside(MujocoMaze(maze)),
        "gymnasium-robotics": control.outside(PointMaze(maze)),
        "jax": control.in_jax(maze),
    }
    scores = lambda paths, goals=episodes.goals: reference.score(control.returns(goals, paths))

    def play(
        key: PRNGKey, asked: Episodes, physics: Physics, options: PlanOptions, name: control.Name, every: int
    ) -> control.Outcome:
        plans = playing.plans(planner, options, asked.goals, every, ARRIVED)
        controller = playing.controller(planner, name, every)
        return control.episodes(key, physics, plans, controller, asked.starts, steps)

    def score(options: PlanOptions) -> Scores:
        outcome = play(tuning, trials, simulators["jax"], options, "inverse", config.every)
        return scores(outcome.paths, trials.goals)

    fastest = bound.paths(run, maze, episodes, steps, FINENESS[config.suite])
    best = scores(fastest)
    sheet = Sheet(config, task, episodes.goals, Drawing(maze.walls, (-0.7, -0.7), 1.0, 0.5, turned=False), best.mean())
    yield sheet.rollout(Name("bound (optimal control)", "optimal", "jax"), best, fastest)
    paths = np.asarray(waypoints(maze, scored, *episodes, steps))
    expert = Name("diffplan D4RL's controller, a path for each episode", "waypoints", "jax")
    yield sheet.rollout(expert, scores(paths), paths)
    for simulator, controller, method, every in schedule(config, methods(task, config.candidates, score), steps):
        outcome = play(scored, episodes, simulators[simulator], method.options, controller, every)
        name = Name(method.name, controller, simulator)
        yield sheet.planned(name, every, scores(outcome.paths), outcome, minutes)


@partial(jax.jit, static_argnames=("maze", "steps"))
def waypoints(
    maze: Maze2d, key: PRNGKey, starts: Float[Array, "n 4"], goals: Float[Array, "n 2"], steps: int
) -> Float[Array, "n steps 4"]:
    """Episodes of D4RL's controller, which knows the maze, with a path of cells planned for each episode."""

    def one(key: PRNGKey, start: Float[Array, "4"], goal: Float[Array, "2"]) -> Float[Array, "steps 4"]:
        key_path, key_steps = jax.random.split(key)
        controller = experts.set_target(maze, experts.idle(), start[:2], goal, jax.random.uniform(key_path, (2,)))

        def body(carry: tuple, uniform: Array) -> tuple[tuple, Array]:
            state, controller = carry
            controller, (action, _) = experts.act(maze, controller, maze.observe(state), uniform)
            state, moved = maze.step(key, state, action)
            return (state, controller), moved.observation

        uniform = jax.random.uniform(key_steps, (steps, 2))
        return jax.lax.scan(body, (maze.state_of(start), controller), uniform)[1]

    return jax.vmap(one)(jax.random.split(key, len(starts)), jnp.asarray(starts), jnp.asarray(goals))
