"""Episodes of any gymnasium environment, side by side: the adapter from gymnasium's interface to arrays.

    host = Host("CartPole-v1")
    handles, observations = host.reset(np.arange(8))               # 8 episodes, one seed each
    observations, rewards, terminated, truncated = host.step(handles, actions)
    host.release(handles)                                          # the next reset uses their environments again

An observation is a float32 vector: a Box of one axis as it is; a goal environment's dictionary as `observation`
followed by `desired_goal`. An action is a vector too: of a Box as it is, clipped to the bounds; of Discrete(k) as k
scores, of which the largest is taken. Other spaces are refused.

`envs.gym` is the other direction: this project's environments under gymnasium's interface. Needs the `gym` extra.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Policy = Callable[[np.random.Generator, Float[np.ndarray, "n o"], int], Float[np.ndarray, "n a"]]
"""(random numbers, observations, step number) -> actions, for n episodes side by side; step 0 begins new episodes."""


class Episode(NamedTuple):
    """Rows of one episode, float32. Row t is the observation, the action taken then and the reward of that step."""

    observations: Float[np.ndarray, "t o"]
    actions: Float[np.ndarray, "t a"]
    """The actions as executed: clipped, or one-hot."""
    rewards: Float[np.ndarray, "t"]
    terminated: bool
    """Whether the last row's step ended the process; False where a limit of steps did."""


class Step(NamedTuple):
    """What one step of n episodes returns."""

    observations: Float[np.ndarray, "n o"]
    """float32."""
    rewards: Float[np.ndarray, "n"]
    """float32."""
    terminated: Bool[np.ndarray, "n"]
    truncated: Bool[np.ndarray, "n"]


class Host:
    """Runs episodes of one gymnasium id. Environments are kept in a pool and used again.

    Args:
        id: gymnasium's id, perhaps with the module that registers it: "module:Name-v0".
        **settings: keyword arguments of `gymnasium.make`.

    Raises:
        ImportError: if gymnasium is not installed.
        ValueError: if gymnasium cannot make the environment, or one of its spaces is of another kind than above.
    """

    def __init__(self, id: str, **settings: Any) -> None:
        self.id = id
        self._settings = {"disable_env_checker": True} | settings
        first = self._make()
        self._envs: list[Any] = [first]
        self._idle: list[int] = [0]
        self._ended: dict[int, tuple[Any, bool, bool]] = {}
        self._parts = _observation_parts(id, first.observation_space)
        self._actions = _checked_actions(id, first.action_space)
        self.discrete: bool = hasattr(self._actions, "n")
        """Whether an action is a choice, given as scores."""
        self.max_steps: int | None = getattr(first.spec, "max_episode_steps", None)
        """Steps after which gymnasium truncates an episode, or None."""

    def __repr__(self) -> str:
        return f"Host({self.id!r}, {self._settings})"

    @property
    def observation_dim(self) -> int:
        return len(self.observation_low)

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @property
    def observation_low(self) -> Float[np.ndarray, "o"]:
        """Lower bounds, float32; -inf where there is none."""
        return np.concatenate([part.low for _, part in self._parts]).astype(np.float32)

    @property
    def observation_high(self) -> Float[np.ndarray, "o"]:
        """Upper bounds, float32; inf where there is none."""
        return np.concatenate([part.high for _, part in self._parts]).astype(np.float32)

    @property
    def action_low(self) -> Float[np.ndarray, "a"]:
        """Lower bounds, float32; 0 for the scores of choices."""
        return np.zeros(int(self._actions.n), np.float32) if self.discrete else self._actions.low.astype(np.float32)

    @property
    def action_high(self) -> Float[np.ndarray, "a"]:
        """Upper bounds, float32; 1 for the scores of choices."""
        return np.ones(int(self._actions.n), np.float32) if self.discrete else self._actions.high.astype(np.float32)

    @property
    def opened(self) -> int:
        """The number of environments made so far."""
        return len(self._envs)

    def reset(self, seeds: Int[np.ndarray, "n"]) -> tuple[list[int], Float[np.ndarray, "n o"]]:
        """Begins one episode for each seed.

        Returns:
            (a handle of each episode, for `step` and `release`; the first observations, float32).
        """
        while len(self._idle) < len(seeds):
            self._idle.append(len(self._envs))
            self._envs.append(self._make())
        handles, self._idle = self._idle[: len(seeds)], self._idle[len(seeds) :]
        observations = np.empty((len(seeds), self.observation_dim), np.float32)
        for row, (handle, seed) in enumerate(zip(handles, seeds.tolist(), strict=True)):
            self._ended.pop(handle, None)
            observations[row] = self._vector(self._envs[handle].reset(seed=seed)[0])
        return handles, observations

    def step(self, handles: Sequence[int], actions: Float[np.ndarray, "n a"]) -> Step:
        """Moves each episode on by one step.

        An episode that has ended stays where it is: its last observation and flags again, and a reward of 0.

        Args:
            handles: the episodes, as of `reset`; any of them, in any order.
            actions: one row an episode, see the module's docstring.

        Raises:
            ValueError: for actions of another shape, or that are not finite.
        """
        rows = [self._step(*each) for each in zip(handles, self.executed(actions), strict=True)]
        observations, rewards, terminated, truncated = zip(*rows, strict=True)
        return Step(np.stack(observations), np.array(rewards, np.float32), np.array(terminated), np.array(truncated))

    def executed(self, actions: Float[np.ndarray, "n a"]) -> Float[np.ndarray, "n a"]:
        """The actions that `step` executes, float32: clipped to the bounds, or the largest score as one-hot.

        Raises:
            ValueError: for actions of another shape, or that are not finite.
        """
        if actions.ndim != 2 or actions.shape[1] != self.action_dim:
            raise ValueError(f"actions of shape {actions.shape}: {self.id} takes rows of {self.action_dim}")
        if not np.isfinite(actions).all():
            rows = np.flatnonzero(~np.isfinite(actions).all(axis=1)).tolist()
            raise ValueError(f"actions of {self.id}: not finite in rows {rows[:9]}")
        if self.discrete:
            return np.eye(self.action_dim, dtype=np.float32)[actions.argmax(axis=1)]
        return np.clip(actions, self.action_low, self.action_high).astype(np.float32)

    def release(self, handles: Sequence[int]) -> None:
        """Ends episodes: the next reset may use their environments."""
        self._idle = sorted({*self._idle, *handles})

    def close(self) -> None:
        """Closes all environments; the host cannot be used afterwards."""
        for env in self._envs:
            env.close()

    def _make(self) -> Any:
        gymnasium = _gymnasium()
        try:
            return gymnasium.make(self.id, **self._settings)
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"environment {self.id!r}: gymnasium cannot make it: {reason}") from error

    def _step(self, handle: int, action: Float[np.ndarray, "a"]) -> tuple[Float[np.ndarray, "o"], float, bool, bool]:
        if handle in self._ended:
            observation, terminated, truncated = self._ended[handle]
            return observation, 0.0, terminated, truncated
        space = self._actions
        act = int(space.start) + int(action.argmax()) if self.discrete else action.astype(space.dtype)
        seen, reward, terminated, truncated, _ = self._envs[handle].step(act)
        observation = self._vector(seen)
        if terminated or truncated:
            self._ended[handle] = observation, bool(terminated), bool(truncated)
        return observation, float(reward), bool(terminated), bool(truncated)

    def _vector(self, seen: Any) -> Float[np.ndarray, "o"]:
        return np.concatenate([seen if key is None else seen[key] for key, _ in self._parts]).astype(np.float32)


def random_policy(host: Host, hold: float = 4) -> Policy:
    """Uniform random actions, each held for a random number of steps: geometric, of mean `hold`.

    Args:
        host: the environment, whose action bounds must be finite.
        hold: mean steps of an action; at least 1, which draws anew in each step.

    Returns:
        A policy that remembers the actions it holds: call it for one batch of episodes at a time.

    Raises:
        ValueError: for unbounded actions, or `hold` below 1.
    """
    if hold < 1:
        raise ValueError(f"hold={hold}: must be at least 1")
    low, high = host.action_low, host.action_high
    if not np.isfinite([low, high]).all():
        raise ValueError(
            f"{host.id}: its actions have no finite bounds, so none are uniform; give a policy of your own"
        )
    held = np.empty((0, host.action_dim))

    def act(rng: np.random.Generator, observations: Float[np.ndarray, "n o"], t: int) -> Float[np.ndarray, "n a"]:
        nonlocal held
        drawn = rng.uniform(low, high, (len(observations), len(low)))
        anew = rng.random(len(observations)) < 1 / hold
        held = drawn if t == 0 else np.where(anew[:, None], drawn, held)
        return held

    return act


def collect(
    host: Host, policy: Policy, episodes: int, seed: int, max_steps: int | None = None, batch: int = 16
) -> list[Episode]:
    """Records episodes until each ends, terminated or truncated.

    Args:
        host: the environment.
        policy: chooses the actions.
        episodes: number of episodes. Each begins with a seed of its own, drawn from `seed`.
        seed: the same seed, policy and batch give the same episodes.
        max_steps: rows of an episode at most; None for the host's own limit.
        batch: episodes side by side.

    Returns:
        One record an episode, of different lengths.

    Raises:
        ValueError: if neither `max_steps` nor gymnasium limits an episode, or the limit is below 1.
    """
    limit = host.max_steps if max_steps is None else max_steps
    if limit is None:
        raise ValueError(f"{host.id}: gymnasium sets no limit of steps; give max_steps")
    if limit < 1:
        raise ValueError(f"max_steps={limit}: must be at least 1")
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**31, size=episodes)
    result = []
    for begin in range(0, episodes, batch):
        result += _record(host, policy, seeds[begin : begin + batch], rng, limit)
    return result


def _record(
    host: Host, policy: Policy, seeds: Int[np.ndarray, "n"], rng: np.random.Generator, limit: int
) -> list[Episode]:
    """The episodes of one batch."""
    handles, observations = host.reset(seeds)
    rows: list[tuple[np.ndarray, ...]] = []
    running, terminated = np.ones(len(seeds), bool), np.zeros(len(seeds), bool)
    lengths = np.zeros(len(seeds), int)
    while running.any() and len(rows) < limit:
        actions = host.executed(policy(rng, observations, len(rows)))
        step = host.step(handles, actions)
        rows.append((observations, actions, step.rewards))
        lengths += running
        observations, terminated = step.observations, step.terminated
        running = ~(step.terminated | step.truncated)
    host.release(handles)
    columns = [np.stack(column, axis=1) for column in zip(*rows, strict=True)]
    record = lambda i: (column[i, : lengths[i]] for column in columns)
    return [Episode._make((*record(i), bool(ended))) for i, ended in enumerate(terminated)]


def _gymnasium() -> ModuleType:
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError("gymnasium is missing: pip install 'diffplan[gym]'") from error
    return gymnasium


def _observation_parts(id: str, space: Any) -> list[tuple[str | None, Any]]:
    """The boxes that an observation vector is made of, with their keys."""
    spaces = _gymnasium().spaces
    flat = lambda part: isinstance(part, spaces.Box) and len(part.shape) == 1
    if flat(space):
        return [(None, space)]
    goal = ("observation", "desired_goal")
    if isinstance(space, spaces.Dict) and all(flat(space.spaces.get(key)) for key in goal):
        return [(key, space[key]) for key in goal]
    raise ValueError(
        f"{id}: observation space {_one_line(space)}: must be a Box of one axis, or a Dict of two, {' and '.join(goal)}"
    )


def _checked_actions(id: str, space: Any) -> Any:
    spaces = _gymnasium().spaces
    if isinstance(space, spaces.Discrete) or (isinstance(space, spaces.Box) and len(space.shape) == 1):
        return space
    raise ValueError(f"{id}: action space {_one_line(space)}: must be Discrete, or a Box of one axis")


def _one_line(space: Any) -> str:
    return " ".join(str(space).split())
