"""Maze2D's published protocol from nothing to a table, with the maze's own goal, or with random ones (Multi2D).

One planner serves both. Data, training, tuning, episodes in three simulators, the bound, rows. Tuning plays other
starts in JAX's physics by learned actions. Then every method plans the same starts with the same keys.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.benchmarks import bound
from diffplan.benchmarks.episodes import WAYS, Controller, InJax, Manner, Simulator, Trials, agent_of, episodes
from diffplan.benchmarks.published import REFERENCES
from diffplan.benchmarks.rows import Drawing, Name, Row, Scores, ScoresSettings, Sheet
from diffplan.benchmarks.tuning import Method, Methods, methods
from diffplan.data import hdf5, readers
from diffplan.data.errors import DataError
from diffplan.envs import experts, maze2d, robotics
from diffplan.envs.maze2d import Maze2d
from diffplan.envs.mujoco import Simulator as MujocoMaze
from diffplan.envs.robotics import Simulator as PointMaze
from diffplan.episodes import Episodes
from diffplan.planner import reaching
from diffplan.planner.build import make_data
from diffplan.planner.model import PlanOptions
from diffplan.planner.planner import Planner
from diffplan.runs import Run as Directory
from diffplan.runs import say
from diffplan.runs.files import digest
from diffplan.task import Task
from diffplan.tasks import maze2d as tasks
from diffplan.tasks.maze2d import Maze2dSettings
from diffplan.types import PRNGKey

ARRIVED = 0.4
"""Cells from its goal within which an episode is not planned for: inside the disc that pays."""

FINENESS = {"maze2d": (8, 15), "multi2d": (4, 9)}
"""Grid points of the bound, a cell and a velocity: coarse where there are many goals."""


PACE = 0.75
"""Cells from a point of the plan within which tracking goes on to the next. With points further ahead the ball is
faster: at 0.4 cells the same plans score 2 to 7 % less."""


def spring(observation: Float[Array, "4"], point: Float[Array, "4"]) -> Float[Array, "2"]:
    """D4RL's rule of tracking, with points for waypoints."""
    return 10 * (point[:2] - observation[:2]) - observation[2:]


def draw_trials(config: ScoresSettings, maze: Maze2d, key: PRNGKey, count: int) -> Trials:
    """First observations as D4RL draws them, and the maze's goal, or a free cell's location plus U(-0.1, 0.1)^2."""
    key_start, key_goal, key_noise = jax.random.split(key, 3)
    starts = jax.vmap(lambda key: maze.observe(maze.reset(key)))(jax.random.split(key_start, count))
    cells = jax.random.choice(key_goal, jnp.asarray(maze.cells, jnp.float32), (count,))
    random = cells + jax.random.uniform(key_noise, (count, 2), minval=-0.1, maxval=0.1)
    fixed = np.broadcast_to(np.asarray(maze.goal, np.float32), (count, 2))
    return Trials(np.asarray(starts), np.asarray(random) if config.suite == "multi2d" else fixed)


def at(config: ScoresSettings, task: str) -> Directory:
    """The run of one task."""
    return Directory(config.run / task, config.new_settings)


def task_of(config: ScoresSettings, task: str) -> Task:
    """The maze as a task, with D4RL's tracking."""
    made = tasks.make(Maze2dSettings(maze=task, reward="goal", **dataclasses.asdict(config.data)))
    return dataclasses.replace(made, tracker=spring)


def behaviour(config: ScoresSettings, task: str, maze: Maze2d) -> tuple[Episodes, str]:
    """The episodes that the planner learns from, and their identity: simulated here, or read as the settings say."""
    source = config.behaviour.replace("{task}", task)
    if not source:
        return make_data(at(config, task), task_of(config, task))
    path = Path(source).expanduser()
    reader = readers.FORMATS.get(path.suffix.lower())
    if reader is hdf5.read:

        @jax.jit
        @jax.vmap
        def step(observation: Float[Array, "4"], action: Float[Array, "2"]) -> Float[Array, "4"]:
            return maze.step(jax.random.key(0), maze.state_of(observation), action)[1].observation

        episodes, notes = hdf5.read(path, config.skip_bad, maze, lambda *rows: np.asarray(step(*rows)))
    elif reader:
        episodes, notes = reader(path, config.skip_bad, maze)
    else:
        episodes, notes = readers.read(source, config.skip_bad)
        episodes = from_pointmaze(source, episodes, maze)
    check_free(source, episodes, task, maze)
    say(f"{source}: {episodes.count} episodes, {len(episodes.actions)} steps")
    for note in notes:
        say(f"{source}: {note}")
    return episodes, digest(episodes)


def from_pointmaze(source: str, episodes: Episodes, maze: Maze2d) -> Episodes:
    """Minari's PointMaze episodes in Maze2D's coordinates. Raises DataError unless observations have 4 entries."""
    widths = episodes.observations.shape[1], episodes.actions.shape[1]
    if widths != (4, 2):
        raise DataError(f"{source}: observations and actions of {widths} numbers: must be of 4 and 2")
    observations = robotics.from_pointmaze(maze, episodes.observations).astype(np.float32)
    actions = robotics.from_turned(episodes.actions).astype(np.float32)
    return episodes._replace(observations=observations, actions=actions)


def check_free(source: str, episodes: Episodes, task: str, maze: Maze2d) -> None:
    """Raise DataError, naming the first place, unless all places are in free cells of the maze."""
    places = episodes.observations[:, :2]
    outside = np.flatnonzero(~np.asarray(jax.vmap(maze.is_free)(jnp.asarray(places))))
    if outside.size:
        number = int(np.searchsorted(episodes.begins, outside[0], side="right")) - 1
        at = f"episode {number}, row {outside[0] - episodes.begins[number]} is at {places[outside[0]].tolist()}"
        raise DataError(f"{source}: {at}: must be in free cells of {task}")


def schedule(config: ScoresSettings, methods: Methods, steps: int) -> Iterator[tuple[str, Controller, Method, int]]:
    """(simulator, controller, method, steps between plans) of every row."""
    *cold, warm = methods
    for method in cold:
        for name in ("inverse", "tracking"):
            yield "mujoco", name, method, config.every
    yield "mujoco", "actions", cold[-1], config.every
    if config.suite == "multi2d":  # the same planners: what follows is known from Maze2D
        return
    yield "mujoco", "tracking", warm, config.every
    yield "gymnasium-robotics", "tracking", cold[-1], config.every
    for name in WAYS:
        yield "mujoco", name, cold[-1], steps
        yield "jax", name, cold[-1], steps


def rows_of(config: ScoresSettings, task: str) -> Iterator[Row]:
    """All rows of one task, ours."""
    maze, reference, run = maze2d.named(task), REFERENCES[task], at(config, task)
    data, identity = behaviour(config, task, maze)
    ways, minutes = reaching.fit(run, config.planner, data, identity)
    planner = Planner.of_ways(task_of(config, task), ways, config.planner, data)
    scored, steps = jax.random.key(config.seed), reference.steps
    tuning = jax.random.fold_in(scored, 1)
    trials = draw_trials(config, maze, scored, config.episodes)
    others = draw_trials(config, maze, tuning, config.tuning)
    simulators: dict[str, Simulator] = {
        "mujoco": MujocoMaze(maze),
        "gymnasium-robotics": PointMaze(maze),
        "jax": InJax(maze),
    }
    scores = lambda paths, goals=trials.goals: reference.score(returns(goals, paths))
    manner = Manner(ARRIVED, PACE, config.seed)

    def score(options: PlanOptions) -> Scores:
        agent = agent_of(planner, options, "inverse", config.every, manner._replace(seed=config.seed + 1))
        return scores(episodes(simulators["jax"], agent, others, steps).paths, others.goals)

    fastest = bound.paths(run, maze, trials, steps, FINENESS[config.suite])
    best = scores(fastest)
    sheet = Sheet(config, task, trials.goals, Drawing(maze.walls, (-0.7, -0.7), 1.0, 0.5, turned=False), best.mean())
    yield sheet.rollout(Name("bound (optimal control)", "optimal", "jax"), best, fastest)
    paths = np.asarray(waypoints(maze, scored, *trials, steps))
    expert = Name("diffplan D4RL's controller, a path for each episode", "waypoints", "jax")
    yield sheet.rollout(expert, scores(paths), paths)
    for simulator, controller, method, every in schedule(config, methods(task, config.candidates, score), steps):
        agent = agent_of(planner, method.options, controller, every, manner)
        outcome = episodes(simulators[simulator], agent, trials, steps)
        name = Name(method.name, controller, simulator)
        yield sheet.planned(name, every, scores(outcome.paths), outcome, minutes)


def returns(goals: Float[np.ndarray, "*n 2"], paths: Float[np.ndarray, "n steps o"]) -> Float[np.ndarray, "n"]:
    """D4RL's return of each episode: steps that ended within 0.5 cells of the goal."""
    goals = np.broadcast_to(np.asarray(goals, np.float32), (len(paths), 2))
    return (np.linalg.norm(paths[..., :2] - goals[:, None], axis=-1) <= 0.5).sum(axis=1).astype(np.float64)


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
