"""Policies that learn to plan: their gradient by enumeration, and what they learn where the best is known."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from diffplan.count import count
from diffplan.methods import Method
from diffplan.methods.policy_gradient import (
    Experience,
    Net,
    PolicyGradient,
    clipped,
    critic_output,
    descend,
    discriminator_loss,
    distributions,
    gae,
    init_critic,
    leave_one_out,
)
from diffplan.policy import Distribution
from diffplan.validation import known
from tests import problems

REINFORCE = PolicyGradient("reinforce", (0.0, 1000.0), updates=200, rollouts=8, rate=0.2)
PPO = PolicyGradient("ppo", (0.0, 1000.0), epochs=4, gae_lambda=0.95, updates=200, rollouts=4, rate=0.28)
OCCUPANCY = PolicyGradient(
    "occupancy", (0.0, 10_000.0), regulariser="occupancy", updates=250, rollouts=8, rate=0.1, critic_steps=4
)


def row(time, horizon):
    """Which step of a plan it is."""
    return jnp.round(time * (horizon - 1)).astype(int)


def grid(count: int = 8):
    """The room, with behaviour as a table of cell and time, which can express every tilt."""
    answers = problems.grid(count=count)
    cells, h, behaviour = answers.problem.codec, answers.problem.horizon, answers.problem.behaviour
    table = jnp.broadcast_to(behaviour.params["network"][:, None], (cells.width, h, 5))
    policy = replace(
        behaviour,
        params=behaviour.params | {"network": table},
        apply=lambda params, z, time: params[cells.cell(z), row(time, h)],
    )
    return answers._replace(problem=replace(answers.problem, behaviour=policy))


def linear(count: int = 8):
    """The point, with behaviour as feedback that may change over time, which can express the best plan."""
    answers = problems.linear(count=count)
    h, behaviour = answers.problem.horizon, answers.problem.behaviour
    gain, offset = jnp.zeros((h, 1, 2)), jnp.zeros((h, 1))

    def apply(params, z, time):
        return params["gain"][row(time, h)] @ z + params["offset"][row(time, h)]

    policy = replace(behaviour, params=behaviour.params | {"network": {"gain": gain, "offset": offset}}, apply=apply)
    return answers._replace(problem=replace(answers.problem, behaviour=policy))


@struct.dataclass
class Still:
    """A world in which nothing moves."""

    action_low: jax.Array
    action_high: jax.Array
    discrete: bool = struct.field(pytree_node=False, default=True)

    def __call__(self, key, observation, action):
        return observation, jnp.zeros(())


def planned(method, answers, starts, seed: int = 0):
    """Plans for the method's own strengths."""
    run = jax.jit(lambda key, starts, strengths: method(key, answers.problem, starts, strengths))
    return run(jax.random.key(seed), starts, jnp.asarray(method.strengths))


@pytest.mark.parametrize(
    "method", [REINFORCE, PPO, pytest.param(OCCUPANCY, marks=pytest.mark.slow)], ids=lambda method: method.name
)
@pytest.mark.parametrize("make", [grid, linear])
def test_strong_policies_reach_the_optimum_and_weak_ones_are_behaviour(make, method):
    answers = make(32 if make is linear else 8)
    assert isinstance(method, Method)
    starts = answers.starts if make is linear else jnp.repeat(answers.starts, 4, axis=0)
    plans = planned(method, answers, starts)
    assert problems.reached(answers, plans.x[1]) >= 0.95

    np.testing.assert_allclose(plans.path_kl[0], 0.0, atol=1e-5)
    assert plans.path_kl[1].mean() > 1
    gold = np.asarray(jax.vmap(answers.gold)(plans.x[0]))
    assert gold.mean() == pytest.approx(float(answers.ordinary.mean()), abs=4 * gold.std() / np.sqrt(len(gold)))

    codec, dynamics = answers.problem.codec, answers.problem.dynamics
    for plan in plans.x[:, :2].reshape(-1, *plans.x.shape[2:]):
        decoded = codec.decode(plan)
        after = jax.vmap(lambda o, a: dynamics(jax.random.key(0), o, a)[0])(decoded.observations, decoded.actions)
        np.testing.assert_allclose(after[:-1], decoded.observations[1:], atol=1e-4)
    pins = jax.vmap(answers.problem.pins)(starts)
    np.testing.assert_array_equal(jnp.where(pins.mask, plans.x[1], 0.0), pins.value)


@pytest.mark.parametrize("method", [REINFORCE, PPO], ids=lambda method: method.name)
def test_between_the_policy_is_the_tilt(method):
    answers, strength = grid(), 3.0
    problem, proxy = answers.problem, answers.problem.regression
    scores, nats = [], []
    for start in answers.starts:
        chain = known.from_cell(problem.denoise.chain, problem.codec.cell(start))
        tilted = chain.tilted(proxy.weights, strength / proxy.std)[0]
        scores.append(float((tilted.expected(proxy.weights) - proxy.centre) / proxy.std))
        nats.append(float(tilted.kl(chain)))
    method = replace(method, strengths=(strength,), train_starts=256, rollouts=2)
    plans = planned(method, answers, jnp.repeat(answers.starts, 32, axis=0))
    score = jax.vmap(proxy.score)(plans.x[0])
    assert float(score.mean()) == pytest.approx(np.mean(scores), abs=4 * float(score.std()) / 16)
    assert float(plans.path_kl.mean()) == pytest.approx(np.mean(nats), rel=0.08)


@pytest.mark.slow
def test_held_to_occupancy_a_policy_imitates_the_data():
    """Paid next to nothing, it leaves behaviour for where other data were."""
    answers = grid()
    chain, other = answers.problem.denoise.chain, known.walk(problems.ROOM, 5, (0.1, 0.05, 0.4, 0.05, 0.4))
    data = jax.nn.one_hot(jax.vmap(other.draw)(jax.random.split(jax.random.key(5), 2000)), 8)
    method = replace(OCCUPANCY, strengths=(1e-3,), train_starts=256, rollouts=2, rate=0.05)
    moved = answers._replace(problem=replace(answers.problem, data=data))
    x = planned(method, moved, jnp.repeat(answers.starts, 32, axis=0)).x[0]
    apart = lambda p, q: float(jnp.abs(p - q)[1:].sum(axis=1).mean() / 2)  # total variation, mean over steps
    assert apart(chain.occupancy(), other.occupancy()) > 0.2
    assert apart(x.mean(axis=0), other.occupancy()) < 0.1


def test_a_discriminator_s_logit_is_the_logarithm_of_a_ratio():
    policy = linear().problem.behaviour
    ours, theirs = (mean + jax.random.normal(jax.random.key(int(mean)), (2000, 1, 2)) for mean in (0.0, 1.0))
    rule, first = optax.adam(0.01), init_critic(jax.random.key(0), 2)
    loss = partial(discriminator_loss, policy=policy, visited=ours, data=theirs)
    net = jax.jit(lambda net: descend(rule, loss, net, 150))(Net(first, rule.init(first)))
    at = jnp.asarray([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-0.5, 0.5], [0.5, 1.0]])
    logit = jax.vmap(critic_output, (None, None, 0))(net.params, policy, at[:, None])[:, 0]
    np.testing.assert_allclose(logit, 1.0 - at.sum(axis=1), atol=0.3)  # of N(0, I) to N((1, 1), I)


def test_the_mean_of_the_gradient_is_the_gradient_of_the_mean():
    """(85) over all courses of three moves from a cell, against the derivative of (84)."""
    answers, weight = grid(), 0.7
    cells, gains = answers.problem.codec, answers.problem.regression.weights[0]
    behaviour = replace(answers.problem.behaviour, apply=lambda params, z, time: params[cells.cell(z), row(time, 3)])
    courses = np.asarray(list(itertools.product(range(5), repeat=3)))
    paths = np.zeros((125, 3), int)
    for t in range(2):
        paths[:, t + 1] = np.asarray(cells.next_cell)[paths[:, t], courses[:, t]]
    places, actions, rewards = cells.places[paths], jnp.eye(5)[courses], weight * gains[paths].sum(axis=1)
    along = jax.vmap(distributions, (None, 0))

    def acting(network):
        """A policy, the probability of every course, and the penalty of every move."""
        policy = replace(behaviour, params=behaviour.params | {"network": network})
        distribution = along(policy, places)
        penalties = (1 - weight) * jax.vmap(jax.vmap(policy.kl))(distribution, along(behaviour, places))
        return policy, jnp.exp(jax.vmap(jax.vmap(policy.log_prob))(distribution, actions).sum(axis=1)), penalties

    def objective(network):
        _, p, penalties = acting(network)
        return jnp.sum(p * (rewards - penalties.sum(axis=1)))

    network = behaviour.params["network"][:, :3] + jax.random.normal(jax.random.key(0), (8, 3, 5)) / 2
    old, p, penalties = acting(network)
    later = jnp.stack([penalties[:, 1] + penalties[:, 2], penalties[:, 2], jnp.zeros(125)], axis=1)
    rollouts = Experience(places, actions, along(old, places), along(behaviour, places), rewards[:, None] - later)

    def surrogate(network):
        value = lambda rollout: clipped(acting(network)[0], rollout, 0.2, jnp.asarray(1 - weight))
        return jnp.sum(p * jax.vmap(value)(rollouts))

    np.testing.assert_allclose(jax.grad(surrogate)(network), jax.grad(objective)(network), atol=1e-5)


def test_the_baseline_is_the_mean_of_the_others():
    rewards = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    returns = np.stack([rewards[:, t:].sum(axis=1) for t in range(4)], axis=1)
    rest = np.stack([np.delete(returns, i, axis=0).mean(axis=0) for i in range(3)])
    np.testing.assert_allclose(leave_one_out(jnp.asarray(rewards)), returns - rest, atol=1e-5)


def test_generalised_advantages_telescope_and_vanish_where_values_are_right():
    rewards, values = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    returns = np.asarray([rewards[t:].sum() for t in range(5)])
    whole = gae(jnp.asarray(rewards), jnp.asarray(values), 1.0)
    np.testing.assert_allclose(whole, returns - values, atol=1e-5)
    np.testing.assert_allclose(gae(jnp.asarray(rewards), jnp.asarray(returns), 0.5), np.zeros(5), atol=1e-5)


@pytest.mark.parametrize(("advantage", "moves"), [(1.0, False), (-1.0, True)])
def test_a_move_that_became_likely_enough_is_pushed_no_further(advantage, moves):
    policy, first = grid().problem.behaviour, jnp.zeros((1, 5))
    rollout = Experience(jnp.ones((1, 2)), jnp.eye(5)[:1], Distribution(first, first), None, jnp.full(1, advantage))
    likely = policy.params["network"].at[:, :, 0].add(1.0)  # twice as likely as it was
    value = lambda network: clipped(
        replace(policy, params=policy.params | {"network": network}), rollout, 0.2, jnp.zeros(())
    )
    assert bool(jnp.any(jax.grad(value)(likely) != 0)) == moves


@pytest.mark.parametrize(("method", "passes"), [(REINFORCE, 4), (PPO, 10)], ids=["reinforce", "ppo"])
def test_what_a_training_costs(method, passes):
    answers = grid(4)
    method = replace(method, updates=7, train_starts=6, rollouts=2)
    cost = count(lambda s: method(jax.random.key(0), answers.problem, answers.starts, s), jnp.ones(3))
    steps = 3 * 7 * 6 * 2 * 5  # strengths, updates, starts of behaviour, rollouts, rows
    assert cost["env_steps"] == steps + 3 * 4 * 5
    assert cost["proxy_evals"] == steps / 5
    value = 0 if method.gae_lambda is None else 1 + 2 * method.critic_steps  # a gradient is two
    assert cost["network_evals"] == steps * (passes + value) + 3 * 4 * 5  # acting, behaviour and every epoch


def test_a_policy_may_learn_in_a_model_and_says_what_is_missing():
    answers = grid(2)
    method = replace(REINFORCE, updates=2, rollouts=2, world="model")
    with pytest.raises(ValueError, match="method reinforce: the problem has no model"):
        planned(method, answers, answers.starts)
    believed = answers._replace(problem=replace(answers.problem, model=Still(jnp.zeros(5), jnp.ones(5))))
    x = planned(method, believed, answers.starts).x
    np.testing.assert_array_equal(x, jnp.broadcast_to(x[:, :, :1], x.shape))
    with pytest.raises(ValueError, match="rollouts=1: must be at least 2"):
        replace(REINFORCE, rollouts=1)
