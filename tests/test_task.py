"""A task of an environment and of arrays: episodes that end where they end, and an identity of what decides them."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.episodes import EpisodesError
from diffplan.settings import ConfigError
from diffplan.simulators import Transition
from diffplan.task import CHUNK, Task, bounds_of, simulate

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Fuse:
    """Burns down from 1 to `longest` steps, drawn at the reset, and then terminates; pays the steps that are left."""

    longest: int = 9
    max_steps: int = 20
    observation_dim = action_dim = 1
    action_low, action_high = (0.0,), (1.0,)

    def reset(self, key):
        return jax.random.randint(key, (), 1, self.longest + 1).astype(jnp.float32)

    def observe(self, state):
        return state[None]

    def state_of(self, observation):
        return observation[0]

    def reward(self, observation, action):
        return observation[0]

    def step(self, key, state, action):
        return state - 1, Transition(state[None] - 1, state, state <= 1, jnp.bool_(False))


def still(key, observation, step):
    return jnp.zeros(1)


def shaking(key, observation, step, size=1.0):
    return size * jax.random.uniform(key, (1,))


def test_episodes_end_where_the_world_ends():
    """An episode from k has k rows, k, k - 1 ... 1, and returns their sum; there are as many as asked, in chunks."""
    task = Task.of(Fuse(), still, episodes=CHUNK + 7, name="fuse")
    data = task.episodes()
    assert data.count == CHUNK + 7 and data.rewards is not None
    for part in data.parts():
        rows = np.arange(part.lengths[0], 0, -1)
        np.testing.assert_array_equal(part.observations[:, 0], rows)
        np.testing.assert_array_equal(part.rewards, rows)
    counts = np.bincount(data.lengths, minlength=10)[1:]
    assert counts.sum() == CHUNK + 7 and (counts > 0).all()
    assert not np.array_equal(data.lengths[:7], data.lengths[CHUNK:])  # every chunk has a key of its own


@pytest.mark.parametrize(("steps", "longest"), [(4, 4), (None, 9)])
def test_episodes_are_cut_off_at_the_longest_that_is_asked_for(steps, longest):
    data = Task.of(Fuse(), still, episodes=30, steps=steps).episodes()
    uncut = Task.of(Fuse(), still, episodes=30).episodes()
    np.testing.assert_array_equal(data.lengths, np.minimum(uncut.lengths, longest))


def test_fewer_episodes_are_the_first_of_more():
    """Of two whole chunks and of a part of one."""
    more, fewer = (simulate(Fuse(), still, KEY, count, 9, "episodes", chunk=5) for count in (10, 7))
    np.testing.assert_array_equal(fewer.lengths, more.lengths[:7])
    np.testing.assert_array_equal(fewer.observations, more.observations[: fewer.lengths.sum()])


def test_what_decides_the_episodes_decides_their_identity():
    """World, policy, seed, number and length; not the name of a function, nor the task's."""
    of = lambda env=Fuse(), policy=shaking, episodes=5, **more: Task.of(env, policy, episodes, **more).settings
    same = lambda key, observation, step: 1.0 * jax.random.uniform(key, (1,))
    assert of() == of(name="other") == of(policy=same)
    others = (of(seed=1), of(episodes=6), of(steps=3), of(policy=still), of(policy=partial(shaking, size=0.5)))
    assert len({str(settings) for settings in (of(), of(replace(Fuse(), longest=5)), *others)}) == 7


def test_fields_are_the_environments_unless_given():
    task = Task.of(Fuse(), still)
    assert task.reward is not None and float(task.reward(jnp.ones(1), jnp.zeros(1))) == 1
    assert task.residual is None and task.simulator == Fuse() and (task.observation_dim, task.action_dim) == (1, 1)
    own = Task.of(Fuse(), still, reward=lambda o, a: a[0], horizon=4, settings="mine")
    assert own.reward is not None and float(own.reward(jnp.ones(1), jnp.zeros(1))) == 0
    assert own.horizon == 4 and own.settings == "mine"
    with pytest.raises(TypeError, match="colour"):
        Task.of(Fuse(), still, colour=3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"episodes": 1}, "episodes=1: must be at least 2, for one is held out"),
        ({"steps": 1}, "steps=1: must be a whole number of at least 2"),
        ({"steps": 2.5}, "steps=2.5: must be a whole number"),
    ],
)
def test_numbers_that_cannot_work_are_refused(more, words):
    kind = ConfigError if "2.5" not in words else Exception
    with pytest.raises(kind, match=words if kind is ConfigError else "steps"):
        Task.of(Fuse(), still, name="fuse", **more)


def test_arrays_are_known_by_their_content():
    rows, moves = np.arange(12.0).reshape(6, 2), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    ends = np.arange(6) == 2
    one, same, other = (
        Task.from_arrays(rows + shift, moves, rewards=rows[:, 0], terminals=ends, name=name)
        for shift, name in ((0, "a"), (0, "b"), (1, "a"))
    )
    assert one.settings == same.settings != other.settings
    assert one.discrete and (one.observation_dim, one.action_dim) == (2, 3) and one.simulator is None
    assert one.episodes().lengths.tolist() == [3, 3]
    without = Task.from_arrays(rows, moves, terminals=ends)
    assert without.settings != one.settings and without.episodes().rewards is None
    cut = Task.from_arrays(rows, moves, timeouts=ends)
    assert cut.settings == without.settings  # either ends an episode
    with pytest.raises(EpisodesError, match="'rewards'"):
        Task.from_arrays(rows, moves, rewards=rows)


def test_the_bounds_of_actions_are_the_simulators_or_those_of_the_data():
    data = Task.from_arrays(np.zeros(4), [[1.0, -2.0], [3.0, 0.0], [2.0, 5.0], [1.0, 1.0]]).episodes()
    np.testing.assert_array_equal(bounds_of(None, data), [[1, -2], [3, 5]])
    np.testing.assert_array_equal(bounds_of(Fuse(), data), [[0], [1]])


@pytest.mark.parametrize("dims", [(0, 1), (1, -1)])
def test_dimensions_are_at_least_one(dims):
    with pytest.raises(ConfigError, match=r"task 'none': (observation|action)_dim=(0|-1): must be a whole number"):
        Task("none", *dims, episodes=lambda: None)  # pyright: ignore
