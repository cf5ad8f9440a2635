"""A published protocol from nothing to a table: data, training, tuning, episodes in two simulators, the limit, rows.

Guidance and selection are both tuned, each on its own dial, by the rule `not_below_best` of `measure.selection` on
episodes that are not scored: other starts, in JAX's physics, carried out by learned actions. Then every method plans
the same starts with the same keys.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import runtime
from diffplan.config import require
from diffplan.measure import selection
from diffplan.studies import stages
from diffplan.studies.harness import log_grid, write_csv
from diffplan.studies.scores import control, limit, planner
from diffplan.studies.scores.control import Name, Outcome, Physics
from diffplan.studies.scores.planner import Planner, PlannerConfig
from diffplan.studies.scores.published import MAZE2D, REFERENCES, Reference
from diffplan.types import PRNGKey, Trajectory
from envs import maze2d
from envs.maze2d import Maze2d

COLUMNS = (
    *("suite", "task", "simulator", "method", "controller", "episodes", "mean", "sem", "limit_fraction"),
    *("seconds_per_plan", "train_minutes", "source"),
)


@dataclass(frozen=True)
class ScoresConfig:
    """Which suite, and how much of it."""

    run: Path = field(default_factory=lambda: Path("runs/scores"))
    """Directory of everything that is made."""
    suite: Literal["maze2d"] = "maze2d"
    """Which protocol."""
    tasks: tuple[str, ...] = tuple(REFERENCES)
    """Mazes."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """What is trained; the same for all mazes."""
    episodes: int = 500
    """Episodes of each row."""
    every: int = 45
    """Steps between plans where planned anew."""
    candidates: int = 32
    """The most candidates that selection may draw."""
    tuning: int = 100
    """Episodes a setting in tuning, in five batches."""
    seed: int = 0
    """Of starts and plans."""

    def __post_init__(self) -> None:
        for name in ("episodes", "every", "candidates"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.tuning >= BATCHES, "tuning", self.tuning, f"at least {BATCHES}")
        for task in self.tasks:
            require(task in REFERENCES, "tasks", task, f"some of {', '.join(REFERENCES)}")


BATCHES = 5
SCALES = log_grid(0.3, 30, 7)
"""Guidance scales that are tried, per standard deviation of the value."""


class Method(NamedTuple):
    """(123) with its two dials. No scale: no guide is evaluated."""

    name: str
    scale: float | None
    candidates: int


class Bench(NamedTuple):
    """One task with all that is scored on it."""

    task: str
    maze: Maze2d
    planner: Planner
    horizon: int
    minutes: float

    def plans(self, method: Method) -> control.Plans:
        """The method as a compiled function of observations."""
        scale = None if method.scale is None else jnp.asarray(method.scale)
        return partial(_plans, self.planner, self.horizon, method.candidates, scale)


@partial(jax.jit, static_argnums=(1, 2))
def _plans(
    planner: Planner, horizon: int, candidates: int, scale: Array | None, key: PRNGKey, starts: Float[Array, "n o"]
) -> Trajectory:
    x, _ = planner.best(key, starts, horizon, scale, candidates)
    return jax.vmap(planner.pays.held)(planner.codec.decode(x))


def starts_of(maze: Maze2d, key: PRNGKey, count: int) -> Float[np.ndarray, "n o"]:
    """First observations as D4RL draws them."""
    return np.asarray(jax.vmap(lambda key: maze.observe(maze.reset(key)))(jax.random.split(key, count)))


def bench(config: ScoresConfig, task: str) -> Bench:
    """Data and training of one task."""
    maze, directory = maze2d.named(task), config.run / task
    rows, identity = stages.make_data(directory, replace(config.planner.data, maze=task), maze)
    trained, minutes = planner.fit(directory, config.planner, maze, rows, identity)
    return Bench(task, maze, trained, config.planner.horizon, minutes)


def score(reference: Reference, maze: Maze2d, paths: Float[np.ndarray, "n steps o"]) -> Float[np.ndarray, "n"]:
    """Normalised scores of episodes."""
    return np.asarray([reference.score(value) for value in control.returns(maze, paths)])


def tuned(config: ScoresConfig, bench: Bench) -> tuple[Method, ...]:
    """Selection, guidance, and both, each at the setting that tuning finds; and the prior."""
    physics, reference = control.in_jax(bench.maze), REFERENCES[bench.task]
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    starts = starts_of(bench.maze, key, config.tuning)

    def swept(methods: list[Method], values: tuple[float, ...], what: str) -> float:
        table = []
        with runtime.Progress(f"{bench.task}: tuning {what}", total=len(methods), unit="settings") as progress:
            for method in methods:
                found = control.episodes(
                    key,
                    physics,
                    bench.plans(method),
                    "inverse",
                    bench.planner.inverse,
                    starts,
                    reference.steps,
                    config.every,
                )
                batches = np.array_split(score(reference, bench.maze, found.paths), BATCHES)
                table.append([batch.mean() for batch in batches])
                progress.advance(1, setting=values[len(table) - 1], score=float(np.mean(table[-1])))
        choice = selection.largest_not_below_best(np.asarray(values, float), np.asarray(table))
        runtime.say(f"{bench.task}: {what} {choice.scale:g}: {choice.reason}")
        return choice.scale

    counts = tuple(2**k for k in range(config.candidates.bit_length()) if 2**k <= config.candidates)
    n = int(swept([Method("", None, count) for count in counts], counts, "candidates"))
    alone = swept([Method("", scale, 1) for scale in SCALES], SCALES, "guidance scale")
    both = swept([Method("", scale, n) for scale in SCALES], SCALES, f"guidance scale with {n} candidates")
    return (
        Method("prior", None, 1),
        Method(f"selection, n = {n}", None, n),
        Method(f"guidance, scale {alone:g}", alone, 1),
        Method(f"guidance, scale {both:g}, and selection, n = {n}", both, n),
    )


def rows_of(config: ScoresConfig, bench: Bench) -> Iterator[dict[str, Any]]:
    """All rows of one task, ours."""
    reference, maze = REFERENCES[bench.task], bench.maze
    starts = starts_of(maze, jax.random.key(config.seed), config.episodes)
    simulators: dict[str, Physics] = {"mujoco": control.in_mujoco(maze), "jax": control.in_jax(maze)}
    grid = limit.solve(maze)
    best = score(reference, maze, np.asarray(limit.play(maze, grid, jnp.asarray(starts), reference.steps)))
    about = {"suite": config.suite, "task": bench.task, "episodes": config.episodes, "source": "measured here"}
    top = best.mean()

    def row(method: str, controller: str, simulator: str, scores: np.ndarray, **more: Any) -> dict[str, Any]:
        error = scores.std(ddof=1) / np.sqrt(len(scores))
        numbers = {"mean": scores.mean(), "sem": error, "limit_fraction": scores.mean() / top}
        return about | {"simulator": simulator, "method": method, "controller": controller} | numbers | more

    yield row("diffplan limit (optimal control)", "optimal", "jax", best)
    for method in tuned(config, bench):
        for simulator, name, every in schedule(config, method, reference.steps):
            found = control.episodes(
                jax.random.key(config.seed),
                simulators[simulator],
                bench.plans(method),
                name,
                bench.planner.inverse,
                starts,
                reference.steps,
                every,
            )
            when = f"every {every} steps" if every < reference.steps else "one plan"
            keep(config.run / bench.task / "rollouts", method.name, name, simulator, when, found)
            scores = score(reference, maze, found.paths)
            runtime.say(f"{bench.task}: {method.name}, {name}, {when}, {simulator}: {scores.mean():.1f}")
            yield row(
                f"diffplan {method.name}, {when}",
                name,
                simulator,
                scores,
                seconds_per_plan=found.seconds_per_plan,
                train_minutes=bench.minutes,
            )


def schedule(config: ScoresConfig, method: Method, steps: int) -> Iterator[tuple[str, Name, int]]:
    """(simulator, controller, steps between plans) of every row of a method."""
    names = control.CONTROLLERS if config.planner.actions else control.CONTROLLERS[1:]
    for name in names:
        yield "mujoco", name, config.every
    if method.candidates > 1 and method.scale is None:
        for name in names:
            yield "mujoco", name, steps
            yield "jax", name, steps


KEPT = 16
"""Episodes whose paths and plans are kept for pictures."""


def keep(directory: Path, method: str, name: str, simulator: str, when: str, found: Outcome) -> None:
    """Some episodes, for `scripts/benchmark.py --do render`."""
    directory.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{method}|{name}|{simulator}|{when}".encode()).hexdigest()[:12]
    about = np.asarray([method, name, simulator, when])
    np.savez(directory / f"{digest}.npz", paths=found.paths[:KEPT], plans=found.plans[:KEPT], about=about)


def published(config: ScoresConfig) -> Iterator[dict[str, Any]]:
    """The rows of others."""
    for task in config.tasks:
        place = list(REFERENCES).index(task)
        for one in MAZE2D:
            about = {"suite": config.suite, "task": task, "simulator": "mujoco", "method": one.method}
            numbers = {"mean": one.means[place], "sem": one.errors[place] if one.errors else None}
            yield about | {"controller": one.controller, "source": one.source} | numbers


def run(config: ScoresConfig) -> Path:
    """The whole suite; returns the path of ``scores.csv``."""
    config.run.mkdir(parents=True, exist_ok=True)
    rows = [row for task in config.tasks for row in rows_of(config, bench(config, task))]
    write_csv(config.run / "scores.csv", [*rows, *published(config)], COLUMNS)
    return config.run / "scores.csv"
