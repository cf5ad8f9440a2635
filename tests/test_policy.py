"""Policies as distributions of actions, followed in an environment; and behaviour cloned from data of a known
policy.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.envs.linear import LinearPolicy
from diffplan.episodes import from_stacked
from diffplan.learn import behaviour, train
from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.train import TrainSettings
from diffplan.models import MLP, build
from diffplan.policy import Distribution, Policy, act, follow, times
from diffplan.settings import ConfigError
from diffplan.types import Trajectory
from diffplan.validation import known
from tests import problems


def gaussian(std: float = 0.7) -> Policy:
    """Two actions on different scales; the mean is the first scaled observation and the time."""
    apply = lambda params, z, time: jnp.stack([params * z[0], time])
    params = {"network": jnp.asarray(2.0), "log_std": jnp.log(jnp.asarray([std, 2 * std]))}
    scales = (jnp.asarray([1.0]), jnp.asarray([2.0]), jnp.asarray([0.5, -0.5]), jnp.asarray([3.0, 1.0]))
    return Policy(params, *scales, apply, False)


def test_a_gaussian_policy_is_what_scipy_says():
    policy = gaussian()
    distribution = policy.distribution(jnp.asarray([2.0]), jnp.asarray(0.25))
    ours = stats.norm([0.5 + 3.0 * 1.0, -0.5 + 0.25], [3.0 * 0.7, 1.4])  # in units of the actions
    action = jnp.asarray([1.2, -0.3])
    units = np.log(3.0)  # log_prob leaves the constant of the units out
    np.testing.assert_allclose(policy.log_prob(distribution, action), ours.logpdf(action).sum() + units, rtol=1e-5)
    draws = jax.vmap(policy.draw, (0, None))(jax.random.split(jax.random.key(0), 20_000), distribution)
    np.testing.assert_allclose(draws.mean(axis=0), ours.mean(), atol=0.06)
    np.testing.assert_allclose(draws.std(axis=0), ours.std(), rtol=0.03)


def test_the_kl_of_gaussian_actions_is_an_integral():
    p, q = Distribution(jnp.asarray([0.3]), jnp.asarray([0.5])), Distribution(jnp.asarray([-0.2]), jnp.asarray([0.8]))
    a, b = (stats.norm(float(distribution.centre[0]), float(distribution.std[0])) for distribution in (p, q))
    wanted = integrate.quad(lambda x: a.pdf(x) * (a.logpdf(x) - b.logpdf(x)), -6, 6)[0]
    assert float(gaussian().kl(p, q)) == pytest.approx(wanted, rel=1e-4)


def test_a_discrete_policy_is_what_scipy_says():
    policy = known.grid_behaviour(known.cells_of(problems.ROOM), (0.1, 0.2, 0.3, 0.25, 0.15))
    distribution, other = (
        policy.distribution(jnp.asarray([1.0, 1.0]), jnp.zeros(())),
        Distribution(jnp.zeros(5), jnp.zeros(5)),
    )
    p = np.asarray([0.1, 0.2, 0.3, 0.25, 0.15])
    assert float(policy.log_prob(distribution, jnp.eye(5)[3])) == pytest.approx(np.log(0.25), rel=1e-5)
    assert float(policy.kl(distribution, other)) == pytest.approx(stats.entropy(p, np.full(5, 0.2)), rel=1e-5)
    draws = jax.vmap(policy.draw, (0, None))(jax.random.split(jax.random.key(0), 4000), distribution)
    np.testing.assert_allclose(draws.mean(axis=0), p, atol=4 * np.sqrt(0.25 / 4000))


def test_following_is_acting_in_the_dynamics():
    dynamics, start = known.Truth(problems.point()), jnp.asarray([0.3, -0.2])
    scales = (jnp.zeros(2), jnp.ones(2), jnp.zeros(1), jnp.ones(1))
    policy = Policy({"network": 0.5, "log_std": jnp.zeros(1)}, *scales, lambda p, z, time: p * z[:1] + time, False)
    rollout = follow(policy, dynamics, jax.random.key(3), start, times(6))
    plan = rollout.trajectory
    np.testing.assert_array_equal(plan.observations[0], start)
    after = jax.vmap(lambda o, a: dynamics(jax.random.key(0), o, a)[0])(plan.observations, plan.actions)
    np.testing.assert_allclose(after[:-1], plan.observations[1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        rollout.distributions.centre[:, 0], plan.observations[:, 0] / 2 + np.arange(6) / 5, atol=1e-6
    )
    acted, disagreements = act(policy, dynamics, jax.random.key(3), start, times(6))
    np.testing.assert_array_equal(acted.actions, plan.actions)
    np.testing.assert_array_equal(disagreements, np.zeros(6))


class Drawn:
    """Plans to draw training windows from."""

    def __init__(self, x: jax.Array):
        self.x = x

    def draw(self, key):
        return self.x[jax.random.randint(key, (), 0, len(self.x))]


def cloned(policy: Policy, codec, x, steps: int = 300) -> Policy:
    """The policy after training on plans; the averaged parameters."""
    config = TrainSettings(steps=steps, batch=64, learning_rate=0.02, warmup=20, ema=0.98)
    state = train.start(jax.random.key(0), policy.params, config)
    task = behaviour.task(policy, codec)
    run = jax.jit(lambda state, x: train.chunk(task, config, state, Drawn(x), steps))
    return replace(policy, params=run(state, x)[0].ema)


def mlp(codec, width: int = 32):
    """A small network for a codec's observations and actions."""
    sizes = (codec.observation_dim + 1, codec.action_dim)
    return build(jax.random.key(1), lambda rngs: MLP(*sizes, width=width, rngs=rngs))


def test_a_linear_policy_is_cloned_with_its_gain_and_spread():
    env, codec = problems.point(), Codec(jnp.asarray([0.1, 0.2, 0.3]), jnp.asarray([0.7, 0.6, 0.8]), 2)
    pushes = LinearPolicy(gain=((-0.8, 0.4),), offset=(0.5,), std=0.4)

    def window(key):
        def step(state, inputs):
            key, t = inputs
            action = pushes(key, env.observe(state), t)
            return env.step(key, state, action)[0], (env.observe(state), action)

        key_start, key_steps = jax.random.split(key)
        keys = jax.random.split(key_steps, 6)
        return codec.encode(Trajectory(*jax.lax.scan(step, env.reset(key_start), (keys, jnp.arange(6)))[1]))

    x = jax.vmap(window)(jax.random.split(jax.random.key(0), 2000))
    policy = cloned(behaviour.untrained_policy(codec, *mlp(codec)), codec, x)
    observed = codec.decode(x).observations[:50].reshape(-1, 2)
    distribution = jax.vmap(lambda o: policy.distribution(o, jnp.asarray(0.4)))(observed)
    mean = codec.mean[2] + codec.std[2] * distribution.centre[:, 0]
    error = mean - (observed @ jnp.asarray([-0.8, 0.4]) + 0.5)
    assert float(jnp.sqrt(jnp.mean(error**2))) < 0.05  # the actions themselves vary by 0.6
    np.testing.assert_allclose(distribution.std[0] * codec.std[2], 0.4, rtol=0.05)


def test_moves_are_cloned_as_often_as_they_are_made():
    problem = problems.grid()
    codec, chain = problem.problem.codec, problem.problem.denoise.chain
    lazy = known.walk(problems.ROOM, 5, (0.6, 0.1, 0.1, 0.1, 0.1))  # at first it stays, later it walks
    late = jnp.linspace(0, 1, 4)[:, None, None]
    changing = chain._replace(
        log_kernels=jnp.log((1 - late) * jnp.exp(lazy.log_kernels) + late * jnp.exp(chain.log_kernels))
    )
    x = jax.nn.one_hot(jax.vmap(changing.draw)(jax.random.split(jax.random.key(0), 4000)), codec.width)
    policy = cloned(behaviour.untrained_policy(codec, *mlp(codec)), codec, x, 500)
    for cell in range(codec.width):
        distribution = jax.vmap(lambda time, o=codec.places[cell]: policy.distribution(o, time).centre)(times(5)[:4])
        arrives = jax.nn.softmax(distribution) @ jax.nn.one_hot(codec.next_cell[cell], codec.width)  # [4, k]
        np.testing.assert_allclose(arrives, jnp.exp(changing.log_kernels[:, cell]), atol=0.08)


def test_behaviour_is_cloned_from_windows():
    """In the end an action follows the first two observations, which the data's actions are."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(8, 48, 4)).astype(np.float32)
    rows = from_stacked(observations, observations[..., :2] + 0.1 * rng.normal(size=(8, 48, 2)).astype(np.float32))
    codec = Codec.fit(rows.observations, rows.actions)
    setting = TrainSettings(steps=60, batch=8, learning_rate=1e-2, warmup=5, chunk=30)
    policy = behaviour.fit(Windows.of(rows, codec, 32), codec, BehaviourSettings(setting, width=16, depth=1))
    assert not policy.discrete
    centre = lambda x: policy.distribution(jnp.asarray([x, 0.0, 0.0, 0.0]), jnp.asarray(0.5)).centre
    ahead = centre(1.0) - centre(-1.0)
    assert ahead[0] > 0.5 and abs(ahead[1]) < 0.5


def test_scores_of_moves_are_cloned_as_moves():
    """The state is one of two; each of three moves is made as often as counted, and no place has a cell."""
    rng = np.random.default_rng(0)
    state = rng.integers(2, size=(16, 48))
    chance = np.asarray([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    moves = (rng.uniform(size=(16, 48, 1)) > chance.cumsum(axis=1)[state]).sum(axis=-1)
    actions = np.eye(3, dtype=np.float32)[moves]
    rows = from_stacked(state[..., None].astype(np.float32), actions)
    assert rows.discrete
    codec = Codec.fit(rows.observations, rows.actions, discrete=True)
    setting = TrainSettings(steps=300, batch=16, learning_rate=1e-2, warmup=5, chunk=100, ema=0.98)
    policy = behaviour.fit(Windows.of(rows, codec, 16), codec, BehaviourSettings(setting, width=16, depth=1))
    assert policy.discrete
    for value in (0, 1):
        often = actions[state == value].mean(axis=0)
        logits = policy.distribution(jnp.asarray([float(value)]), jnp.asarray(0.5)).centre
        np.testing.assert_allclose(jax.nn.softmax(logits), often, atol=0.08)


def test_a_clone_needs_a_network():
    with pytest.raises(ConfigError, match=r"behaviour\.depth=0: must be between 1 and"):
        BehaviourSettings(depth=0)
