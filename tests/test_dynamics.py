"""Models of the dynamics, held to the environment's own matrices, to counts, and to what they must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.count import count
from diffplan.data.windows import Windows
from diffplan.dynamics import Dynamics, Ensemble, imagine
from diffplan.envs.gridworld import Gridworld
from diffplan.envs.linear import POINT
from diffplan.episodes import from_stacked
from diffplan.learn import dynamics, train
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import ValueSettings
from diffplan.models import MLP, build
from diffplan.settings import ConfigError
from diffplan.validation import known
from tests import problems

MATRIX, CONTROL = np.array(POINT.transition), np.array(POINT.control)


def behaviour(trajectories: int = 64, steps: int = 20) -> Windows:
    """Steps of random pushes of the point, from its matrices alone."""
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(trajectories, steps, 1))
    rows = [rng.normal(size=(trajectories, 2)) / 2]
    for t in range(steps - 1):
        rows.append(rows[-1] @ MATRIX.T + actions[:, t] @ CONTROL.T)
    return pairs(np.stack(rows, axis=1), actions)


def pairs(observations: np.ndarray, actions: np.ndarray) -> Windows:
    """The windows of two rows of trajectories of one length."""
    episodes = from_stacked(observations.astype(np.float32), actions.astype(np.float32))
    return Windows.of(episodes, Codec.fit(episodes.observations, episodes.actions), 2)


def fitted(count: int, members: int = 4, steps: int = 300) -> Ensemble:
    """An ensemble trained on `count` transitions of the point."""
    observed = dynamics.transitions(jax.random.key(1), behaviour(), count)
    keys = jax.random.split(jax.random.key(2), members)
    applies, params = zip(*(build(key, lambda rngs: MLP(3, 2, width=32, rngs=rngs)) for key in keys), strict=True)
    low, high = jnp.asarray(POINT.action_low), jnp.asarray(POINT.action_high)
    model = dynamics.untrained(applies[0], list(params), observed, low, high)
    if steps == 0:
        return model
    config = TrainSettings(steps=steps, batch=64, learning_rate=3e-3, ema=0.98)
    state = train.start(jax.random.key(3), model.params, config)
    data, task = dynamics.bootstraps(jax.random.key(4), observed, members), dynamics.task(model)
    run = jax.jit(lambda state, data: train.chunk(task, config, state, data, steps)[0].ema)
    return model.replace(params=run(state, data))


def errors_and_disagreements(model: Ensemble, scale: float) -> tuple[float, float]:
    """Root mean square error in deviations of the step, and mean disagreement, on new rows `scale` times as far out."""
    rng = np.random.default_rng(5)
    o, a = scale * rng.normal(size=(256, 2)) / 2, rng.normal(size=(256, 1))
    step = jax.vmap(lambda o, a: model(jax.random.key(0), o, a))
    after, disagreements = step(jnp.asarray(o, jnp.float32), jnp.asarray(a, jnp.float32))
    wrong = (np.asarray(after) - (o @ MATRIX.T + a @ CONTROL.T)) / np.asarray(model.step_std)
    return float(np.sqrt(np.mean(wrong**2))), float(disagreements.mean())


def test_an_ensemble_errs_less_with_more_transitions_and_disagreements_what_it_has_not_seen():
    few, many = fitted(6), fitted(1000)
    (error_few, disagreement_few), (error_many, disagreement_many) = (
        errors_and_disagreements(few, 1.0),
        errors_and_disagreements(many, 1.0),
    )
    error_off, disagreement_off = errors_and_disagreements(many, 8.0)
    assert error_many < 0.05 < 0.2 < error_few
    assert disagreement_many < disagreement_few / 5
    assert disagreement_off > 5 * disagreement_many and error_off > 5 * error_many
    assert isinstance(many, Dynamics)


def test_a_step_of_an_ensemble_costs_one_and_clips_its_action():
    model, key = fitted(12, steps=0), jax.random.key(0)
    o = jnp.asarray([0.1, -0.2])
    assert count(model, key, o, jnp.ones(1)) == {"network_evals": 0, "proxy_evals": 0, "env_steps": 1}
    np.testing.assert_array_equal(model(key, o, jnp.full(1, 50.0))[0], model(key, o, jnp.full(1, 3.0))[0])


def test_transitions_follow_one_another_and_come_once():
    trajectories, steps = 3, 4
    number = np.arange(trajectories * steps).reshape(trajectories, steps, 1)
    observed = dynamics.transitions(jax.random.key(0), pairs(number, 10 * number), 9)
    np.testing.assert_array_equal(observed.after, observed.observation + 1)
    np.testing.assert_array_equal(observed.action, 10 * observed.observation)
    assert len(np.unique(observed.observation)) == 9 and not np.isin(number[:, -1], observed.observation).any()
    everything = dynamics.transitions(jax.random.key(0), pairs(number, 10 * number), 10)
    np.testing.assert_array_equal(np.sort(everything.observation[:, 0]), np.delete(number.ravel(), [3, 7, 11]))


def test_transitions_of_a_model_of_several_steps_have_the_mean_action():
    number = np.arange(12.0).reshape(1, 12, 1)
    codec = Codec.fit(number, number)
    windows = Windows.of(from_stacked(number.astype(np.float32), number.astype(np.float32)), codec, 2, stride=3)
    observed = dynamics.transitions(jax.random.key(0), windows, 100)
    assert len(observed.observation) == 7  # 12 - 2 * 3 + 1
    np.testing.assert_array_equal(observed.after, observed.observation + 3)
    np.testing.assert_array_equal(observed.action, observed.observation + 1)


def test_bootstraps_give_every_member_its_own_draws():
    observed = dynamics.Transitions(*(jnp.arange(400.0)[:, None] for _ in range(3)))
    data = dynamics.bootstraps(jax.random.key(0), observed, 3)
    assert {len(np.unique(row)) < 0.7 * 400 for row in data.index} == {True}  # 1 - 1/e are drawn at all
    draws = data.draw(jax.random.key(1)).observation
    assert draws.shape == (3, 1) and len(np.unique(draws)) > 1


def every_step(env: Gridworld, repeats: int) -> dynamics.Transitions:
    """Every move from every cell, `repeats` times."""
    cells, moves = jnp.meshgrid(jnp.arange(len(env.cells)), jnp.arange(5), indexing="ij")
    o = jnp.repeat(jnp.asarray(env.cells, jnp.float32)[cells.ravel()], repeats, axis=0)
    a = jnp.repeat(jax.nn.one_hot(moves.ravel(), 5), repeats, axis=0)
    keys = jax.random.split(jax.random.key(0), len(o))
    return dynamics.Transitions(
        o, a, jax.vmap(lambda k, o, a: env.step(k, env.state_of(o), a)[1].observation)(keys, o, a)
    )


def test_a_table_of_all_moves_is_the_gridworld():
    env = problems.ROOM
    model = dynamics.tabulate(every_step(env, 1), known.cells_of(env).places)
    start, actions = jnp.asarray(env.cells[3], jnp.float32), jax.random.normal(jax.random.key(2), (30, 5))
    imagined, disagreements = imagine(model, jax.random.key(3), start, actions)
    real, _ = imagine(known.Truth(env, True), jax.random.key(4), start, actions)
    np.testing.assert_array_equal(imagined.observations, real.observations)
    np.testing.assert_array_equal(disagreements, 0.0)
    assert isinstance(model, Dynamics)


def test_a_table_draws_what_was_seen_as_often_as_it_was_seen():
    env = Gridworld.from_text("#####\n#OOO#\n#OOG#\n#####", slip=0.5)
    model = dynamics.tabulate(every_step(env, 400), known.cells_of(env).places)
    counts = np.asarray(model.counts)
    np.testing.assert_array_equal(counts.sum(axis=2), 400)
    noise = np.sqrt(env.distribution * (1 - env.distribution) / 400)
    assert (np.abs(counts / 400 - env.distribution) <= 5 * noise).all()
    step = lambda key: model(key, jnp.asarray(env.cells[1], jnp.float32), jax.nn.one_hot(4, 5))[0]
    draws = jax.vmap(step)(jax.random.split(jax.random.key(1), 4000))
    fraction = np.mean(np.all(np.asarray(draws) == env.cells[2], axis=1))
    assert fraction == pytest.approx(counts[1, 4, 2] / 400, abs=4 * 0.5 / np.sqrt(4000))


def test_what_a_table_has_not_seen_stays_and_is_doubted():
    env = problems.ROOM
    observed = every_step(env, 1)
    kept = jnp.argmax(observed.action, axis=1) != 4  # all but the moves to the right
    model = dynamics.tabulate(jax.tree.map(lambda rows: rows[kept], observed), known.cells_of(env).places)
    corner = jnp.asarray(env.cells[0], jnp.float32)
    after, disagreement = model(jax.random.key(0), corner, jax.nn.one_hot(4, 5))
    np.testing.assert_array_equal(after, corner)
    assert disagreement == 1.0 and model(jax.random.key(0), corner, jax.nn.one_hot(2, 5))[1] == 0.0


def test_config_refuses_by_name():
    with pytest.raises(ConfigError, match=r"dynamics\.members=1: must be between 2 and 1000"):
        DynamicsSettings(members=1)
    with pytest.raises(ConfigError, match=r"value\.patch=0: must be between 1 and"):
        ValueSettings(patch=0)
