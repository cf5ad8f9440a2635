"""Any gymnasium environment as a task: behaviour and delivery run on the host, in batches of episodes."""

from typing import Annotated

import numpy as np

from diffplan.episodes import Episodes
from diffplan.resolve import resolve
from diffplan.runs import Progress
from diffplan.settings import COUNT, SEED, Named, at_least, settings
from diffplan.task import Task, Words

CHUNK = 32
"""Episodes side by side."""


@settings("task")
class GymnasiumSettings:
    """A gymnasium environment and a behaviour policy."""

    id: str = "Pendulum-v1"
    """As `gymnasium.make` takes it; module:Name-v0 imports the module first."""
    behaviour: Named = "random"
    """random: random actions, each held for some steps; or file.py:NAME of ``policy(rng, observations [n, o], step) ->
    actions [n, a]``; of discrete actions, scores of which the largest is taken."""
    episodes: Annotated[int, at_least(2, 1e7)] = 300
    """Episodes that behaviour records. One at least is held out."""
    steps: Annotated[int | None, COUNT] = None
    """The longest episode; the environment's own limit, or 1000, if not given."""
    seed: Annotated[int, SEED] = 0
    """Seed of the data."""


def make(config: GymnasiumSettings) -> Task:
    """The environment as a task.

    Raises:
        ConfigError: if the policy cannot be found.
        ImportError: if gymnasium is not installed.
        ValueError: if there is no such environment, or if its spaces are not numbers.
    """
    from diffplan.envs.gymnasium_host import Host, collect, random_policy

    host = Host(config.id)
    policy = resolve(config.behaviour, {"random": random_policy(host)}, "task.behaviour")
    steps = config.steps or host.max_steps or 1000

    def episodes() -> Episodes:
        parts = []
        with Progress(f"{config.id}: episodes", total=config.episodes, unit="episodes") as progress:
            for done in range(0, config.episodes, CHUNK):
                count = min(CHUNK, config.episodes - done)
                parts += collect(host, policy, count, config.seed * 1_000_003 + done, steps)
                progress.advance(count)
        lengths = np.array([len(part.rewards) for part in parts])
        whole = lambda name: np.concatenate([getattr(part, name) for part in parts])
        return Episodes(whole("observations"), whole("actions"), lengths, whole("rewards"))

    return Task(
        name=config.id.rpartition("/")[2].rpartition(":")[2],
        observation_dim=host.observation_dim,
        action_dim=host.action_dim,
        episodes=episodes,
        settings=config,
        discrete=host.discrete,
        simulator=host,
        words=Words(returns="reward"),
    )
