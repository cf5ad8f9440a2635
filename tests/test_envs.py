"""One conformance test for every environment. A new environment is one more row of ENVIRONMENTS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs import base, gridworld, linear, maze2d, pendulum

NOISY_POINT = linear.Linear.from_arrays(
    transition=[[0.9, 0.1], [0.0, 0.9]],
    control=[[0.0], [0.2]],
    start_mean=[1.0, 0.0],
    start_std=[0.5, 0.5],
    slope=[1.0, 0.0, 0.0],
    curvature=[0.0, 0.0, 1.0],
    noise=0.1,
)
ENVIRONMENTS = {
    "umaze": maze2d.UMAZE,
    "large": maze2d.LARGE,
    "four rooms": gridworld.FOUR_ROOMS,
    "slippery corridors": gridworld.Gridworld(gridworld.CORRIDORS.rows, slip=0.3),
    "generated": gridworld.generate(seed=1, height=8, width=9, density=0.3),
    "point": linear.POINT,
    "noisy point": NOISY_POINT,
    "pendulum": pendulum.PENDULUM,
}
ANYTHING_GOES = {"noisy point"}  # every step has a density: the residual is 0 whatever happens

STEPS = 50


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_conforms(name, key):
    env = ENVIRONMENTS[name]
    assert isinstance(env, base.Environment)
    assert hash(env) == hash(type(env)(**vars_of(env))) and env == type(env)(**vars_of(env))
    reset_key, run_key, actions_key = jax.random.split(key, 3)
    low, high = env.action_low, env.action_high
    policy = lambda key, observation, t: jax.random.uniform(key, low.shape, minval=low, maxval=high)
    run = jax.jit(lambda k, s: base.follow(env, k, s, policy, STEPS))
    reset, step, residual = jax.jit(env.reset), jax.jit(env.step), jax.jit(jax.vmap(env.residual))
    state = reset(reset_key)
    episode = run(run_key, state)

    # purity: the same arguments give the same result, and are not changed by giving it
    before = jax.tree.map(np.array, state)
    assert_equal(run(run_key, state), episode)
    assert_equal(state, before)
    assert_equal(reset(reset_key), state)

    # shapes, dtypes and bounds
    o, a = env.observation_dim, env.action_dim
    observations = jnp.concatenate([episode.observations[:1], episode.transitions.observation])
    assert observations.shape == (STEPS + 1, o) and episode.actions.shape == (STEPS, a)
    assert observations.dtype == episode.actions.dtype == episode.transitions.reward.dtype == jnp.float32
    assert episode.transitions.terminated.dtype == episode.transitions.truncated.dtype == bool
    for low, values, high in (
        (env.observation_low, observations, env.observation_high),
        (env.action_low, episode.actions, env.action_high),
    ):
        assert np.isfinite(low).all() and np.isfinite(high).all()
        assert (low[None] <= values).all() and (values <= high[None]).all()
    np.testing.assert_array_equal(episode.transitions.observation[:-1], episode.observations[1:])
    np.testing.assert_array_equal(episode.transitions.truncated, np.arange(1, STEPS + 1) >= env.max_steps)

    # jit and vmap change nothing
    keys, actions = jax.random.split(run_key, 3), episode.actions[:3]
    batch = jax.jit(jax.vmap(env.reset))(keys)
    stepped = jax.jit(jax.vmap(env.step))(keys, batch, actions)
    for i in range(3):
        one = jax.tree.map(lambda x: x[i], (batch, stepped))  # noqa: B023
        assert_close((reset(keys[i]), step(keys[i], one[0], actions[i])), one)
    with jax.disable_jit():
        assert_close(
            env.step(keys[0], jax.tree.map(lambda x: x[0], batch), actions[0]), jax.tree.map(lambda x: x[0], stepped)
        )

    # the reward is that of the row that is left; open and closed loop agree
    rewards = jax.jit(jax.vmap(env.reward))(episode.observations, episode.actions)
    np.testing.assert_allclose(rewards, episode.transitions.reward, atol=1e-6)
    opened = jax.jit(lambda k, s, a: base.rollout(env, k, s, a))(actions_key, state, episode.actions)
    if not getattr(env, "slip", 0) and not getattr(env, "noise", 0):
        assert_close(opened, episode.transitions, atol=1e-4)

    # observe and state_of are inverse
    again = jax.jit(jax.vmap(lambda x: env.observe(env.state_of(x))))
    np.testing.assert_array_equal(again(observations), observations)
    assert_equal(env.state_of(env.observe(state)), state)

    # real steps have residual 0, broken ones do not
    assert residual(episode.observations, episode.actions, observations[1:]).max() <= 1e-5
    broken = observations[1:] + np.float32(0.1) * (env.observation_high - env.observation_low)[None]
    worst = residual(episode.observations, episode.actions, broken).min()
    assert worst == 0 if name in ANYTHING_GOES else worst > 1e-3


def test_deterministic_environments_judge_the_action_too(key):
    """A step that another action would have made is not feasible for this one."""
    env = gridworld.FOUR_ROOMS
    up, down = jnp.eye(5)[1], jnp.eye(5)[2]
    o = jnp.array([2.0, 2.0])
    assert env.residual(o, up, jnp.array([1.0, 2.0])) == 0
    assert env.residual(o, down, jnp.array([1.0, 2.0])) == 2
    slippery = gridworld.Gridworld(env.rows, slip=0.1)
    assert slippery.residual(o, down, jnp.array([1.0, 2.0])) == 0
    assert slippery.residual(o, down, jnp.array([1.0, 1.0])) == 1
    maze = maze2d.UMAZE
    start = maze.reset(key)
    _, transition = jax.jit(maze.step)(key, start, jnp.array([1.0, 0.0]))
    assert jax.jit(maze.residual)(maze.observe(start), jnp.array([-1.0, 0.0]), transition.observation) > 0.1


def vars_of(env):
    return {field: getattr(env, field) for field in env.__dataclass_fields__}


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_close(left, right, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), left, right)
