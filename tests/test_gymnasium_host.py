"""The host of gymnasium's environments against gymnasium's environments, stepped one by one."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffplan.envs import gymnasium_host
from diffplan.envs.gymnasium_host import Host, collect, random_policy


class Space(gymnasium.Env):
    """An environment with any spaces. Its observation repeats the number of steps, the goal is 7."""

    def __init__(self, observations, actions):
        self.observation_space, self.action_space, self.time = observations, actions, 0

    def seen(self):
        box = np.full(2, self.time, np.float64)
        if not isinstance(self.observation_space, spaces.Dict):
            return box
        return {"observation": box, "achieved_goal": np.zeros(1), "desired_goal": np.full(1, 7.0)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}

    def step(self, action):
        self.time += 1
        self.last = action
        return self.seen(), 0.5, False, False, {}


BOX = spaces.Box(-1, 1, (2,))
GOAL = spaces.Dict(
    {"desired_goal": spaces.Box(0, 9, (1,)), "achieved_goal": spaces.Box(0, 9, (1,)), "observation": BOX}
)


@pytest.fixture(autouse=True)
def register():
    gymnasium.register("Space-v0", Space)
    yield
    del gymnasium.registry["Space-v0"]


def space(observations=BOX, actions=BOX):
    return Host("Space-v0", observations=observations, actions=actions)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_batch_is_the_same_as_single_environments(name):
    """12 episodes side by side, among them some that end, with actions beyond the bounds."""
    host, rng = Host(name), np.random.default_rng(0)
    seeds = np.arange(12)
    handles, observations = host.reset(seeds)
    singles = [gymnasium.make(name) for _ in seeds]
    expected = [env.reset(seed=int(seed))[0] for env, seed in zip(singles, seeds, strict=True)]
    np.testing.assert_array_equal(observations, expected)
    ended = np.zeros(12, bool)
    for _ in range(40):
        actions = rng.normal(scale=3, size=(12, host.action_dim))
        step = host.step(handles, actions)
        for i in np.flatnonzero(~ended):
            action = actions[i].argmax() if host.discrete else np.clip(actions[i], -2, 2).astype(np.float32)
            observation, reward, terminated, truncated, _ = singles[i].step(action)
            np.testing.assert_array_equal(step.observations[i], observation)
            assert step.rewards[i] == np.float32(reward)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated)
        assert step.observations.dtype == step.rewards.dtype == np.float32
        assert (step.rewards[ended] == 0).all() and step.terminated[ended].all()
        ended |= step.terminated
    assert ended.any() == (name == "CartPole-v1")


def test_what_a_host_says_of_its_environment():
    cart, pendulum = Host("CartPole-v1"), Host("Pendulum-v1", g=9.81)
    assert (cart.discrete, cart.observation_dim, cart.action_dim, cart.max_steps) == (True, 4, 2, 500)
    assert (pendulum.discrete, pendulum.observation_dim, pendulum.action_dim, pendulum.max_steps) == (False, 3, 1, 200)
    np.testing.assert_array_equal(pendulum.action_low, [-2])
    np.testing.assert_array_equal(pendulum.action_high, [2])
    np.testing.assert_array_equal(pendulum.observation_high, [1, 1, 8])
    np.testing.assert_array_equal([cart.action_low, cart.action_high], [[0, 0], [1, 1]])
    assert pendulum._envs[0].unwrapped.g == 9.81
    assert space().max_steps is None


def test_environments_are_used_again():
    host = Host("CartPole-v1")
    first, observations = host.reset(np.arange(3))
    others, _ = host.reset(np.arange(2))
    assert len({*first, *others}) == host.opened == 5
    for _ in range(30):  # until some end
        host.step(first, np.tile([[1.0, 0.0]], (3, 1)))
    host.release(first)
    again, same = host.reset(np.arange(4))
    assert host.opened == 6 and {*first} < {*again}
    np.testing.assert_array_equal(same[:3], observations)
    assert not host.step(again, np.zeros((4, 2))).terminated.any()
    host.close()


def test_goals_follow_the_observation_and_choices_begin_where_they_begin():
    host = space(GOAL, spaces.Discrete(3, start=5))
    handles, observations = host.reset(np.array([0]))
    np.testing.assert_array_equal(observations, [[0, 0, 7]])
    np.testing.assert_array_equal(host.observation_high, [1, 1, 9])
    np.testing.assert_array_equal(host.step(handles, np.array([[0.1, 0.2, 0.9]])).observations, [[1, 1, 7]])
    assert host._envs[handles[0]].unwrapped.last == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Host("Nothing-v3"), "environment 'Nothing-v3': gymnasium cannot make it: Environment `Nothing` does"),
        (lambda: Host("nothing:Nothing-v3"), "environment 'nothing:Nothing-v3': gymnasium cannot make it: No module"),
        (lambda: Host("Pendulum-v1", weight=3), "environment 'Pendulum-v1': gymnasium cannot make it: .*weight"),
        (lambda: Host("FrozenLake-v1"), r"FrozenLake-v1: observation space Discrete\(16\): must be a Box of one axis"),
        (lambda: space(spaces.Box(0, 1, (4, 4))), r"Space-v0: observation space Box\(0.0, 1.0, \(4, 4\), float32\): m"),
        (lambda: space(spaces.Dict({"observation": BOX})), "Space-v0: observation space Dict"),
        (lambda: space(actions=spaces.MultiBinary(3)), r"action space MultiBinary\(3\): must be Discrete, or a Box"),
        (lambda: space().executed(np.zeros((4, 3))), r"actions of shape \(4, 3\): Space-v0 takes rows of 2"),
        (lambda: space().executed(np.array([[0, 0], [np.nan, 0]])), r"actions of Space-v0: not finite in rows \[1\]"),
        (lambda: random_policy(space(), hold=0.5), "hold=0.5: must be at least 1"),
        (lambda: random_policy(space(actions=spaces.Box(-np.inf, np.inf, (2,)))), "Space-v0: its actions have no fin"),
        (lambda: collect(space(), random_policy(space()), 1, 0), "Space-v0: gymnasium sets no limit of steps; give"),
        (lambda: collect(space(), random_policy(space()), 1, 0, max_steps=0), "max_steps=0: must be at least 1"),
    ],
)
def test_what_is_refused_is_named_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert str(error.value).isprintable()


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"^gymnasium is missing: pip install 'diffplan\[gym\]'$"):
        Host("CartPole-v1")


def test_random_actions_are_uniform_and_held():
    host, rng = Host("Pendulum-v1"), np.random.default_rng(0)
    policy = random_policy(host, hold=4)
    actions = np.stack([policy(rng, np.zeros((200, 3)), t) for t in range(300)], axis=1)[..., 0]
    changes = (np.diff(actions, axis=1) != 0).mean()
    assert changes == pytest.approx(1 / 4, abs=4 * np.sqrt(3 / 16 / (200 * 299)))
    distinct = np.unique(actions)
    assert distinct.min() >= -2 and distinct.max() <= 2
    assert np.abs(np.quantile(distinct, [0.25, 0.5, 0.75]) - [-1, 0, 1]).max() < 0.1
    assert (policy(rng, np.zeros((2, 3)), 0)).shape == (2, 1)  # a new batch, of another size


@pytest.mark.parametrize("batch", [3, 16])
def test_records_can_be_played_again(batch):
    """Every row of a record is that of gymnasium's environment, given the recorded actions; lengths differ."""
    host = Host("CartPole-v1")
    records = collect(host, random_policy(host), 7, seed=2, max_steps=30, batch=batch)
    assert len(records) == 7 and len({len(record.rewards) for record in records}) > 2
    seeds = np.random.default_rng(2).integers(2**31, size=7)
    for record, seed in zip(records, seeds, strict=True):
        env = gymnasium.make("CartPole-v1")
        observation, _ = env.reset(seed=int(seed))
        terminated = False
        for row in zip(*record[:3], strict=True):
            assert not terminated
            np.testing.assert_array_equal(row[0], observation)
            assert sorted(row[1]) == [0, 1]
            observation, reward, terminated, *_ = env.step(int(row[1].argmax()))
            assert reward == row[2]
        assert record.terminated == terminated
        assert record.terminated or len(record.rewards) == 30
    assert host.opened == min(batch, 7)
    again = collect(host, random_policy(host), 7, seed=2, max_steps=30, batch=batch)
    for left, right in zip(records, again, strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_limit_of_steps_is_gymnasiums_unless_given():
    host = Host("Pendulum-v1")
    whole = collect(host, random_policy(host), 2, seed=0)
    assert [record.observations.shape for record in whole] == [(200, 3)] * 2
    assert not any(record.terminated for record in whole)
    assert all(record.actions.dtype == np.float32 and np.abs(record.actions).max() <= 2 for record in whole)
    wild = collect(host, lambda rng, observations, t: np.full((len(observations), 1), 9.0), 1, seed=0, max_steps=3)
    np.testing.assert_array_equal(wild[0].actions, [[2], [2], [2]])
    counting = collect(space(GOAL), lambda rng, observations, t: np.zeros((len(observations), 2)), 1, 0, max_steps=3)
    np.testing.assert_array_equal(counting[0].observations[:, 0], [0, 1, 2])


def test_this_projects_own_environments_can_be_hosted():
    host = Host("diffplan.envs.gym:diffplan/Pendulum-v0")
    assert (host.observation_dim, host.action_dim) == (3, 1)
    record = collect(host, gymnasium_host.random_policy(host), 1, seed=0, max_steps=5)[0]
    assert (record.rewards >= 0).all() and (record.rewards <= 1).all()
