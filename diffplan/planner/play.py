"""Episodes of an agent: in the task's own simulator, all side by side, or in a foreign gymnasium environment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffplan.planner.agent import Agent
from diffplan.runs import Progress
from diffplan.settings import ConfigError
from diffplan.simulators import is_host
from diffplan.task import Task
from diffplan.types import PRNGKey


class Rollout(NamedTuple):
    """Episodes as they went. What follows the end of an episode repeats its last observation and counts for nothing."""

    returns: Float[np.ndarray, "n"]
    lengths: Float[np.ndarray, "n"]
    observations: Float[np.ndarray, "n t o"]
    """In the task's units."""
    ended: float
    """Fraction of the episodes that ended by themselves, before their limit of steps."""


def play(key: PRNGKey, task: Task, agent: Agent, episodes: int, steps: int, words: str = "episodes") -> Rollout:
    """Episodes in the task's simulator, side by side.

    Args:
        key: of first states and transitions; consumed.
        task: with a simulator.
        agent: of `Planner.agent`; it is reset.
        episodes: how many.
        steps: the longest episode.
        words: how progress is named.

    Raises:
        ConfigError: if the task has no simulator.
    """
    if task.simulator is None:
        raise ConfigError(
            f"task {task.name}: has no simulator: nothing can be played; name a gymnasium id with --world"
        )
    world = Host(task.simulator) if is_host(task.simulator) else InJax(task.simulator, key)
    observations = world.reset(np.asarray(jax.random.randint(key, (episodes,), 0, 2**30)))
    agent.reset(observations)
    alive, returns, lengths, path = np.ones(episodes, bool), np.zeros(episodes), np.zeros(episodes), [observations]
    ended = np.zeros(episodes, bool)
    with Progress(words, total=steps) as progress:
        for _ in range(steps):
            observations, rewards, terminated, truncated = world.step(agent.act(path[-1]))
            returns += np.where(alive, rewards, 0.0)
            lengths += alive
            ended |= alive & terminated
            path.append(np.where(alive[:, None], observations, path[-1]))
            alive = alive & ~terminated & ~truncated
            progress.advance(1)
            if not alive.any():
                break
    world.close()
    return Rollout(returns, lengths, np.stack(path, axis=1), float(ended.mean()))


def play_gymnasium(env: Any, agent: Agent, episodes: int, steps: int, seed: int, words: str = "episodes") -> Rollout:
    """Episodes in a gymnasium environment, one after another; `Planner.agent` was given it as ``world``."""
    returns, lengths, paths, ended = [], [], [], 0
    with Progress(words, total=episodes, unit="episodes") as progress:
        for number in range(episodes):
            observation, _ = env.reset(seed=seed + number)
            agent.reset(observation)
            path, total = [np.asarray(agent.adapter.observation(observation))], 0.0
            for _ in range(steps):
                observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
                total += float(reward)
                path.append(np.asarray(agent.adapter.observation(observation)))
                if terminated or truncated:
                    ended += bool(terminated)
                    break
            returns.append(total)
            lengths.append(len(path) - 1)
            paths.append(path)
            progress.advance(1, last=total)
    longest = max(map(len, paths))
    whole = [np.stack([*path, *[path[-1]] * (longest - len(path))]) for path in paths]
    return Rollout(np.asarray(returns), np.asarray(lengths, float), np.stack(whole), ended / episodes)


class InJax:
    """Episodes of an `Environment`, side by side."""

    def __init__(self, environment: Any, key: PRNGKey):
        self.environment, self.key, self.states = environment, key, None
        self._step = jax.jit(jax.vmap(environment.step, (None, 0, 0)))

    def reset(self, seeds: np.ndarray) -> Float[np.ndarray, "n o"]:
        """Begin an episode for every seed."""
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
        self.states = jax.vmap(self.environment.reset)(keys)
        return np.asarray(jax.vmap(self.environment.observe)(self.states))

    def place(self, observations: Float[np.ndarray, "n o"]) -> Float[np.ndarray, "n o"]:
        """Begin an episode at every observation."""
        self.states = jax.vmap(self.environment.state_of)(jnp.asarray(observations, jnp.float32))
        return np.asarray(jax.vmap(self.environment.observe)(self.states))

    def step(self, actions: Float[np.ndarray, "n a"]) -> tuple[np.ndarray, ...]:
        """One step of all: (observations, rewards, terminated, truncated)."""
        self.key, key = jax.random.split(self.key)
        self.states, moved = self._step(key, self.states, jnp.asarray(actions, jnp.float32))
        return tuple(map(np.asarray, (moved.observation, moved.reward, moved.terminated, moved.truncated)))

    def close(self) -> None:
        """Nothing is held."""


class Host:
    """Episodes of a `diffplan.simulators.Host`, side by side."""

    def __init__(self, host: Any):
        self.host, self.handles = host, None

    def reset(self, seeds: np.ndarray) -> Float[np.ndarray, "n o"]:
        """Begin an episode for every seed."""
        self.handles, observations = self.host.reset(seeds)
        return observations

    def step(self, actions: Float[np.ndarray, "n a"]) -> tuple[np.ndarray, ...]:
        """One step of all: (observations, rewards, terminated, truncated)."""
        return self.host.step(self.handles, actions)

    def close(self) -> None:
        """Let go of the episodes."""
        self.host.release(self.handles)
