"""What a world must say of itself. This module imports no world; those that ship stand in `diffplan.tasks`.

A task is made in four ways: from a world that ships (`diffplan.tasks.make_task`), from an environment and a behaviour
policy (`Task.of`), from arrays (`Task.from_arrays`), or field by field.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from diffplan import episodes as arrays
from diffplan.codec import Cells
from diffplan.episodes import Episodes
from diffplan.runs import Progress
from diffplan.runs.files import digest
from diffplan.runs.program import program
from diffplan.settings import ConfigError
from diffplan.simulators import Policy, Rewarded, Track, behave, is_host
from diffplan.types import PRNGKey, Scalar, Trajectory

Reward = Callable[[Float[Array, "o"], Float[Array, "a"]], Scalar]
"""``reward(observation, action)`` of one row, in the environment's units."""

Violation = Callable[[Trajectory], Scalar]
"""``violation(plan)``: 0 where a plan is feasible."""

Starts = Callable[[PRNGKey, int], tuple[Any, Float[Array, "n o"]]]
"""``starts(key, n) -> (states, observations)``: where plans begin. Of a `Host`, the states are seeds."""

Disc = tuple[float, float, float]
"""x, y and radius of a place."""


class Adapter(NamedTuple):
    """Between a foreign simulator of a task's world and the task: its coordinates, its goals, its actions."""

    observation: Callable[[Any], Float[np.ndarray, "*n o"]]
    """The task's observation, from what the simulator shows."""
    goal: Callable[[Any], Float[np.ndarray, "*n g"] | None]
    """The entries of an observation that `Task.goal` names, from what the simulator shows; None where it has none."""
    action: Callable[[Float[np.ndarray, "*n a"]], Any]
    """What the simulator takes, from the task's action."""


CHUNK = 64
"""Episodes simulated per compiled call."""


class Plane(NamedTuple):
    """Where plans are drawn, if the world has a plane.

    place: from observations to points. labels: of both axes, with units. solid: cells ``[i, j]`` that cannot be
    entered, of side `size`, the lower corner of cell (0, 0) at `origin`. region: the disc that is rewarded, if one is.
    """

    place: Callable[[Float[Array, "*b o"]], Float[Array, "*b 2"]]
    labels: tuple[str, str] = ("x", "y")
    solid: Bool[np.ndarray, "i j"] | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    size: float = 1.0
    region: Disc | None = None


class Words(NamedTuple):
    """How tables and figures speak of a task. Empty fields are filled with plain names.

    observations, actions: a label of each entry, with its unit. returns: the unit of a return. violations: what plans
    do, by violation, as in "fraction of plans ...". step: the unit of time.
    """

    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    returns: str = "units of reward"
    violations: Mapping[str, str] = {}
    step: str = "steps"


PLAIN = Words()


@dataclass(frozen=True)
class Task:
    """A world and a question. What a world does not have is left out, and is not needed.

    Every function is for one plan or one row, in the environment's units; callers batch with `jax.vmap`.
    """

    name: str
    """As it stands in tables and figures."""
    observation_dim: int
    action_dim: int
    episodes: Callable[[], Episodes]
    """Behaviour, simulated or read."""
    settings: Any = None
    """What decides the episodes: part of the identity of everything that is learned from them."""
    discrete: bool = False
    """Whether an action is a score for each of `action_dim` moves, of which the largest is taken."""
    reward: Reward | None = None
    """The true reward of a row. No optimiser sees it; labels of it train the learned rewards. If there is none, the
    rewards that the episodes record are learned."""
    reward_settings: Any = None
    """What decides the reward."""
    simulator: Any = None
    """What plans are carried out in: a `diffplan.simulators.Environment` or `Host`."""
    starts: Starts | None = None
    """Where plans begin; by default at first observations of held-out windows."""
    violations: Mapping[str, Violation] = field(default_factory=dict)
    """What makes a plan infeasible, by name, beside what physics or the data do not allow (`planner.feasible`)."""
    residual: Callable[[Float[Array, "o"], Float[Array, "a"], Float[Array, "o"]], Scalar] | None = None
    """How far a step of the simulator is from what it could have done."""
    tracker: Track | None = None
    """A controller that follows the observations of plans, if the world has one."""
    bound: Callable[[Float[np.ndarray, "o"], int], float] | None = None
    """``bound(start, steps)``: the optimal return, where it can be computed."""
    goal: tuple[int, ...] | None = None
    """The entries of an observation that a goal gives, if the world has goals; at the goal all others are 0."""
    adapter: Callable[[Any], Adapter | None] | None = None
    """``adapter(env)``: between a foreign simulator, such as a gymnasium environment, and this task; None where it
    needs none."""
    origin: tuple[str, Any] | None = None
    """The name that `make_task` makes it from, and its settings; None for a task that was made in a program."""
    cells: Cells | None = None
    """The cells of a gridworld, of which plans are one-hot; else plans are continuous."""
    horizon: int | None = None
    """Rows of a plan; by default from the episodes."""
    stride: int | None = None
    """Steps from one row of a plan to the next; by default from the episodes."""
    plane: Plane | None = None
    """Where plans are drawn; else they are drawn as time series."""
    words: Words = PLAIN
    notes: tuple[str, ...] = ()
    """What is to be said of the episodes, a line each: what was left out, or looks odd."""

    def __post_init__(self) -> None:
        """Raise ConfigError unless the dimensions are some."""
        for name in ("observation_dim", "action_dim"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ConfigError(f"task {self.name!r}: {name}={value!r}: must be a whole number of at least 1")

    def __repr__(self) -> str:
        """Its name and dimensions; the rest is functions."""
        actions = "choices" if self.discrete else "actions"
        return f"Task({self.name}: {self.observation_dim} observations, {self.action_dim} {actions})"

    def asking(self, reward: Reward, settings: Any, returns: str = "units of reward", **more: Any) -> "Task":
        """The same world and behaviour with another true reward of a row.

        Args:
            reward: hashable: a function, or a frozen dataclass that can be called.
            settings: what decides the reward.
            returns: the unit of a return, in words.
            more: any other field of a task that the question changes, such as `bound`, which is left out otherwise.

        Raises:
            ConfigError: if the simulator pays its own rewards, as a `Host` does.
        """
        if self.simulator is not None and is_host(self.simulator):
            raise ConfigError(f"task {self.name!r}: its simulator pays rewards of its own: they cannot be replaced")
        plane = None if self.plane is None else self.plane._replace(region=None)
        fields: dict[str, Any] = {"bound": None, "plane": plane, "words": self.words._replace(returns=returns)}
        simulator = None if self.simulator is None else Rewarded(self.simulator, reward)
        fields |= {"reward": reward, "reward_settings": settings, "simulator": simulator, "origin": None}
        return replace(self, **(fields | more))

    @classmethod
    def of(
        cls,
        environment: Any,
        behaviour: Policy,
        episodes: int = 500,
        name: str = "own",
        steps: int | None = None,
        seed: int = 0,
        **more: Any,
    ) -> "Task":
        """A task from an environment in JAX and a behaviour policy.

        Args:
            environment: has `reset`, `step`, `observe` and `state_of` (`diffplan.simulators.Environment`), and bounds
                of observations and actions. `reward` and `residual` are used if it has them.
            behaviour: ``behaviour(key, observation, step) -> action``.
            episodes: how many are simulated, at least 2.
            name: as it stands in tables and figures.
            steps: the longest episode; `environment.max_steps` if not given.
            seed: of the episodes.
            more: any other field of a task, such as `violations`, `plane`, `words`, `tracker`, `bound`.

        Raises:
            ConfigError: naming what the environment lacks, or a value that is not allowed.
        """
        needed = ("observation_dim", "action_dim", "action_low", "action_high", "reset", "step", "observe", "state_of")
        for attribute in needed:
            if not hasattr(environment, attribute):
                raise ConfigError(
                    f"task {name!r}: the environment has no {attribute}; it must have {', '.join(needed)}"
                )
        steps = steps or getattr(environment, "max_steps", None)
        if not isinstance(steps, int) or steps < 2:
            raise ConfigError(f"task {name!r}: steps={steps!r}: must be a whole number of at least 2")
        if not isinstance(episodes, int) or episodes < 2:
            raise ConfigError(f"task {name!r}: episodes={episodes!r}: must be at least 2, for one is held out")
        try:
            hash(environment)
        except TypeError as error:
            raise ConfigError(f"task {name!r}: the environment must be hashable, as a frozen dataclass is") from error
        key = jax.random.key(seed)
        check_shapes(name, environment, behaviour, key)
        run = lambda key: behave(environment, behaviour, key, 1, 2)
        fields: dict[str, Any] = {
            "settings": {"simulated": f"{program(run, key)} {episodes} {steps} {seed}"},
            "reward": getattr(environment, "reward", None),
            "residual": getattr(environment, "residual", None),
            "simulator": environment,
        }
        simulated = lambda: simulate(environment, behaviour, key, episodes, steps, f"{name}: episodes")
        dims = environment.observation_dim, environment.action_dim
        return cls(name, *dims, simulated, **(fields | more))

    @classmethod
    def from_arrays(
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike | None = None,
        terminals: ArrayLike | None = None,
        timeouts: ArrayLike | None = None,
        name: str = "arrays",
        **more: Any,
    ) -> "Task":
        """A task from data alone: flat arrays, one episode after another (`diffplan.episodes.from_arrays`).

        Args:
            observations: ``[rows, o]``.
            actions: ``[rows, a]``.
            rewards: ``[rows]``; what is learned. Without rewards, and without a `reward` among `more`, plans can only
                be drawn from the prior.
            terminals: ``[rows]``, true at the last row of an episode that ended by itself.
            timeouts: ``[rows]``, true at the last row of an episode that was cut off.
            name: as it stands in tables and figures.
            more: any other field of a task, such as `reward`, `plane`, `words`, `simulator`.

        Raises:
            EpisodesError: naming the field, if an array is not what it must be.
        """
        read = arrays.from_arrays(observations, actions, rewards, terminals, timeouts)
        return cls.from_episodes(read, name, **({"notes": arrays.jump_note(read)} | more))

    @classmethod
    def from_episodes(cls, read: Episodes, name: str, **more: Any) -> "Task":
        """A task from episodes that are there already."""
        dims = read.observations.shape[1], read.actions.shape[1]
        content = {"arrays": digest(tuple(part for part in read if part is not None))}
        fields: dict[str, Any] = {"settings": content, "discrete": read.discrete}
        return cls(name, *dims, lambda: read, **(fields | more))


def check_shapes(name: str, environment: Any, behaviour: Policy, key: PRNGKey) -> None:
    """Raise ConfigError unless the functions of an environment and a policy fit one another; nothing is computed."""
    o, a = environment.observation_dim, environment.action_dim
    state = jax.eval_shape(environment.reset, key)
    seen = jax.eval_shape(environment.observe, state)
    action = jax.ShapeDtypeStruct((a,), jnp.float32)
    moved = lambda state: jax.eval_shape(environment.step, key, state, action)
    shapes = {
        "observe": (jnp.shape(seen), (o,)),
        "behaviour": (jnp.shape(jax.eval_shape(behaviour, key, seen, jnp.zeros((), int))), (a,)),
        "the reward of step": (jnp.shape(moved(state)[1].reward), ()),
        "action_low": (np.shape(environment.action_low), (a,)),
        "action_high": (np.shape(environment.action_high), (a,)),
    }
    for what, (given, needed) in shapes.items():
        if given != needed:
            raise ConfigError(f"task {name!r}: {what} has shape {list(given)}: must be {list(needed)}")
    begun = jax.eval_shape(environment.state_of, seen)
    kind = lambda state: jax.tree.map(lambda part: (part.shape, part.dtype), state)
    if kind(begun) != kind(after := moved(begun)[0]):
        raise ConfigError(f"task {name!r}: state_of makes {begun}, and a step from there {after}: must be alike")


def simulate(
    environment: Any, policy: Policy, key: PRNGKey, count: int, steps: int, words: str, chunk: int = CHUNK
) -> Episodes:
    """Episodes of a policy, ended where the environment ends or truncates them; the key is consumed.

    Raises:
        FloatingPointError: naming the episode and the row, if the environment gives a number that is not finite.
    """
    parts = []
    with Progress(words, total=count, unit="episodes") as progress:
        for number in range(ceil(count / chunk)):
            size = min(chunk, count)
            runs = jax.tree.map(np.asarray, behave(environment, policy, jax.random.fold_in(key, number), size, steps))
            inside = np.concatenate([np.ones((size, 1), bool), ~runs.ended[:, :-1]], axis=1)
            float32 = lambda rows, inside=inside: np.asarray(rows[inside], np.float32)
            rows = float32(runs.observations), float32(runs.actions), inside.sum(axis=1), float32(runs.rewards)
            parts.append(Episodes(*rows))
            progress.advance(min(size, count - number * chunk))
    whole = arrays.joined(parts).select(np.arange(len(parts) * min(chunk, count)) < count)
    for name in ("observations", "actions", "rewards"):
        bad = np.argwhere(~np.isfinite(getattr(whole, name)))
        if bad.size:
            episode = int(np.searchsorted(whole.begins, bad[0][0], side="right")) - 1
            row = bad[0][0] - whole.begins[episode]
            raise FloatingPointError(f"{words}: {name} are not finite, first at episode {episode}, row {row}")
    return whole


def bounds_of(simulator: Any, data: Episodes) -> tuple[Float[Array, "a"], Float[Array, "a"]]:
    """The least and the greatest action: the simulator's, or those of the data where there is none."""
    if simulator is not None:
        return jnp.asarray(simulator.action_low, jnp.float32), jnp.asarray(simulator.action_high, jnp.float32)
    return jnp.asarray(data.actions.min(axis=0)), jnp.asarray(data.actions.max(axis=0))
