"""Episodes of a planner's agent, beside an unguided one: returns with intervals, and a film.

    diffplan play maze2d-umaze --scale 18                 # trains first what is not there; 32 episodes
    diffplan play --run runs/mine --scale 5 --every 16    # with the settings that the run was made with
    diffplan play maze2d-umaze --pretrained --candidates 4 --world PointMaze_UMaze-v3

Writes RUN/play.json and RUN/play.gif. A goal environment gives the agent its goals.
"""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffplan.cli import command, experiment
from diffplan.cli.experiment import Experiment, extended
from diffplan.settings import SEED, at_least, settings


@settings("")
class PlaySettings:
    """How the agent plans and acts, and for how long."""

    scale: Annotated[float | None, at_least(0)] = None
    """Guidance scale, per standard deviation of the learned reward; unguided, if not given."""
    candidates: Annotated[int, at_least(1, 4096)] = 1
    """Draws that each plan is selected from."""
    every: Annotated[int | None, at_least(1)] = None
    """Steps from plan to plan; a quarter of a plan, if not given."""
    way: Literal["inverse", "open_loop", "tracked"] = "inverse"
    """How actions are found: learned inverse dynamics, the plan's own actions, the task's tracker."""
    episodes: Annotated[int, at_least(1, 100_000)] = 32
    """Episodes to play."""
    steps: Annotated[int | None, at_least(1, 1_000_000)] = None
    """Longest episode; the simulator's own limit, or 500, if not given."""
    world: str | None = None
    """A gymnasium id to play in, in place of the task's simulator."""
    pretrained: bool = False
    """Whether the planner that ships is used in place of the run's."""
    seed_play: Annotated[int, SEED] = 0
    """Seed of the episodes, and of the noise of plans."""
    film: bool = True
    """Whether a film is written."""


@settings("")
class Playing:
    """The episodes, and the run whose planner plays them (`playing_of`)."""

    play: Annotated[PlaySettings, tyro.conf.arg(name="")] = field(default_factory=PlaySettings)


def playing_of(run: Experiment) -> Any:
    """The episodes of the run of an experiment."""
    return extended(Playing, "run_of", Annotated[type(run), tyro.conf.arg(name="")])(run_of=run)


def action(config: Any) -> None:
    """Play, print returns, write them down, and film them."""
    import jax

    from diffplan.planner.play import play, play_gymnasium
    from diffplan.runs import say
    from diffplan.runs.files import plain, write_json
    from diffplan.runs.lock import locked

    how, of = config.play, config.run_of
    planner = planner_of(how, of)
    env = None if how.world is None else make_world(how.world)
    simulator = planner.task.simulator
    steps = how.steps or getattr(simulator, "max_steps", None) or 500
    results = {}
    for name, scale, candidates in (("agent", how.scale, how.candidates), ("unguided", None, 1)):
        if name == "unguided" and scale == how.scale and candidates == how.candidates:
            continue  # the agent itself is
        agent = planner.agent(scale, candidates, how.every, way=how.way, world=env, seed=how.seed_play)
        if env is None:
            results[name] = play(jax.random.key(how.seed_play), planner.task, agent, how.episodes, steps, name)
        else:
            results[name] = play_gymnasium(env, agent, how.episodes, steps, how.seed_play, name)
        say(f"{name}: {in_words(results[name].returns, planner.task.words.returns)}{ends_of(results[name])}")
    with locked(of.run):
        about = {"settings": plain(how), "task": planner.task.name}
        rows = {name: {"returns": list(map(float, r.returns)), "ended": r.ended} for name, r in results.items()}
        write_json(of.run / "play.json", about | {"results": rows})
        say(str(of.run / "play.json"))
        if how.film:
            say(str(film_of(planner.task, results["agent"], how.scale, of.run / "play.gif")))


def planner_of(how: PlaySettings, of: Experiment) -> Any:
    """The planner that ships, or that of the run, trained where it is not there."""
    from diffplan.planner.planner import Planner
    from diffplan.runs.lock import locked

    if how.pretrained:
        of.run.mkdir(parents=True, exist_ok=True)
        return Planner.pretrained(of.name)
    run, task = of.open()
    with locked(run.directory):
        return Planner.assemble(run, task, of.planner)


def make_world(name: str) -> Any:
    """A gymnasium environment.

    Raises:
        ConfigError: naming the extra, if gymnasium is missing, or if it has no such environment.
    """
    from importlib import import_module

    from diffplan.settings import ConfigError

    try:
        gymnasium = import_module("gymnasium")
    except ModuleNotFoundError:
        raise ConfigError(f"world={name!r}: needs gymnasium: pip install 'diffplan[gym]'") from None
    if name.startswith(("PointMaze", "AntMaze")):
        try:
            gymnasium.register_envs(import_module("gymnasium_robotics"))
        except ModuleNotFoundError:
            raise ConfigError(f"world={name!r}: needs its simulator: pip install 'diffplan[simulators]'") from None
        return gymnasium.make(name, continuing_task=False)
    if name.startswith("diffplan/"):
        import_module("diffplan.envs.gym")  # registers the ids
    try:
        return gymnasium.make(name)
    except Exception as error:  # gymnasium's own, of many kinds
        raise ConfigError(f"world={name!r}: cannot be made: {' '.join(str(error).split())}") from None


def in_words(returns: Any, unit: str) -> str:
    """A mean with its 95 % interval."""
    import numpy as np
    from scipy import stats

    mean, n = float(np.mean(returns)), len(returns)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(returns, ddof=1) / n**0.5) if n > 1 else float("nan")
    return f"{n} episodes, return {mean:.2f} ± {half:.2f} at 95 % ({unit})"


def ends_of(rollout: Any) -> str:
    """How many episodes ended by themselves, if any did."""
    return f", {100 * rollout.ended:.0f} % ended after {rollout.lengths.mean():.0f} steps" if rollout.ended else ""


def film_of(task: Any, rollout: Any, scale: float | None, path: Path) -> Path:
    """A film of the first twelve episodes of an agent at a guidance scale."""
    import jax.numpy as jnp
    import numpy as np

    from diffplan.report.film import Scene, write
    from diffplan.report.load import Grid

    shown, plane, words = rollout.observations[:12], task.plane, task.words
    guidance = "unguided" if scale is None else f"scale {scale:g}"
    title = f"{task.name}, {guidance}: mean return {rollout.returns.mean():.1f}"
    if plane is None:
        labels = words.observations or [f"observation {k}" for k in range(task.observation_dim)]
        return write(Scene(title, shown[..., :3], tuple(labels[:3]), False), path)
    grid = None if plane.solid is None else Grid(plane.solid, np.asarray(plane.origin), plane.size)
    region = None if plane.region is None else np.asarray(plane.region)
    return write(Scene(title, np.asarray(plane.place(jnp.asarray(shown))), plane.labels, True, grid, region), path)


def main(arguments: Sequence[str]) -> None:
    """The command."""

    def read() -> Any:
        default, rest = experiment.begin(arguments)
        playing = playing_of(default)
        return command.parse(type(playing), rest, "diffplan play", __doc__, playing)

    command.run(lambda: action(read()))
