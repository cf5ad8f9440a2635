"""Raters: labels that are wrong in known ways, ways of learning from them, and the stages that they fill."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan import runtime
from diffplan.codec import Codec
from diffplan.config import (
    CompareSettings,
    ConfigError,
    DataSettings,
    GoldSettings,
    PriorSettings,
    ProxySettings,
    RewardModelSettings,
    TrainSettings,
)
from diffplan.data.windows import Rows, Windows
from diffplan.experiment import reward_models, stages
from diffplan.experiment.stages import Behaviour
from diffplan.guide import Ensemble, Learned, Proxy, Sum
from diffplan.learn import reward, train
from diffplan.learn import robust as learning
from diffplan.noise import LogUniform
from envs import maze2d

H = 16
GOLD = GoldSettings(centre=(1.6, 2.7), radius=0.3)
DECOY = (2.8, 0.8, 0.15)
ACTION = jnp.zeros(2)


def config(run: Path, steps: int = 1) -> CompareSettings:
    setting = TrainSettings(steps=steps, batch=4, chunk=1, save_every=steps)
    return CompareSettings(
        run=run,
        data=DataSettings(rows=20_000, trajectories=40),
        gold=GOLD,
        prior=PriorSettings(setting, horizon=H),
        proxy=ProxySettings(setting, labels=60, width=8, depth=1),
    )


@cache
def behaviour() -> Behaviour:
    """Straight lines through the places that pay, and elsewhere: no simulation is needed to be labelled."""
    rng = np.random.default_rng(0)
    ends = rng.uniform((0.9, 0.6), (3.0, 3.1), size=(2, 64, 1, 2))
    along = np.linspace(0, 1, 2 * H)[None, :, None]
    position = (1 - along) * ends[0] + along * ends[1]
    observations = np.concatenate([position, rng.normal(size=position.shape)], axis=-1).astype(np.float32)
    rows = Rows(observations, rng.normal(size=position.shape).astype(np.float32))
    codec = Codec.fit(*rows)
    windows = Windows.of(rows, codec, H)
    maze = replace(maze2d.UMAZE, gold=maze2d.time_in_region(GOLD.centre, GOLD.radius))
    return Behaviour(maze, codec, windows, windows, "lines")


def at(x: float, y: float) -> jax.Array:
    return jnp.asarray([x, y, 0.0, 0.0])


def test_a_blind_rater_sees_no_reward_in_its_disc():
    maze = behaviour().maze
    blind = replace(maze, gold=reward_models.Blind(maze.gold, (1.6, 3.0, 0.3)))
    for place, own, observed in ((at(1.6, 2.5), 1, 1), (at(1.6, 2.9), 1, 0), (at(1.0, 1.0), 0, 0)):
        assert (float(maze.reward(place, ACTION)), float(blind.reward(place, ACTION))) == (own, observed)


def test_a_deceived_rater_takes_the_decoy_for_the_target():
    maze = behaviour().maze
    deceived = replace(maze, gold=reward_models.Deceived(maze.gold, DECOY, (1.6, 2.7, 0.3)))
    for place, own, observed in (
        (at(1.6, 2.7), 1, 1),
        (at(2.8, 0.8), 0, 1),
        (at(2.8, 0.94), 0, 1),  # near the decoy's rim is near the target's
        (at(2.8, 0.96), 0, 0),
        (at(1.0, 1.0), 0, 0),
    ):
        assert (float(maze.reward(place, ACTION)), float(deceived.reward(place, ACTION))) == (own, observed)


def test_a_decoy_needs_a_region(tmp_path):
    compare = replace(config(tmp_path), gold=GoldSettings("path"))
    with pytest.raises(ConfigError, match=r"gold\.kind='path': must be region or goal"):
        reward_models.label_of(compare, RewardModelSettings("deceivable"), "clean", behaviour())
    assert reward_models.region(replace(compare, gold=GoldSettings("goal")), maze2d.UMAZE) == (*maze2d.UMAZE.goal, 0.5)


def labels(kind: str, reward_model: RewardModelSettings, rows: slice = slice(None)) -> np.ndarray:
    x = behaviour().train.draws(jax.random.key(1), 2000)
    return np.asarray(
        reward_models.label_of(config(Path("unused")), reward_model, kind, behaviour(), rows)(jax.random.key(2), x)
    )


@pytest.mark.parametrize(("kind", "stay"), [("regression", 0.7), ("classifier", 0.7)])
def test_noise_replaces_labels_and_flips_classes(kind, stay):
    true, noisy = labels(kind, RewardModelSettings()), labels(kind, RewardModelSettings("noisy", noise=0.3))
    if kind == "classifier":
        assert (true == noisy).mean() == pytest.approx(stay, abs=0.05)
        assert set(noisy) == {0.0, 1.0}
    else:  # a wrong label is another window's: same values, and it is right by chance where values are common
        chance = sum((true == value).mean() ** 2 for value in set(true))
        assert (true == noisy).mean() == pytest.approx(stay + (1 - stay) * chance, abs=0.05)
        assert set(noisy) <= set(true)
    np.testing.assert_array_equal(labels(kind, RewardModelSettings("noisy", noise=0.0)), true)


def test_labels_of_stretches_add_up_to_those_of_the_plan():
    parts = [labels("regression", RewardModelSettings("decomposed"), slice(*ends)) for ends in ((0, 5), (5, 16))]
    np.testing.assert_allclose(sum(parts), labels("regression", RewardModelSettings()), atol=1e-5)


def test_the_top_class_is_never_all():
    returns = jnp.asarray([0.0] * 95 + [1.0, 2.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(reward_models.top_class(returns, 0.9), returns > 0)
    for quantile in (0.97, 0.99):
        np.testing.assert_array_equal(
            reward_models.top_class(returns, quantile), reward.top_quantile(returns, quantile)
        )
    with pytest.raises(ValueError, match="all 4 windows have the same return"):
        reward_models.top_class(jnp.ones(4), 0.9)


def test_a_push_goes_its_length_uphill_and_leaves_pins():
    slope = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    mask = jnp.zeros((4, 3), bool).at[0].set(True)
    x = jnp.ones((4, 3))
    moved = np.asarray(learning.pushed(lambda x: jnp.sum(slope * x), x, mask, 5, 0.7) - x)
    assert np.sqrt((moved**2).mean()) == pytest.approx(0.7, rel=1e-5)
    assert (moved[0] == 0).all()
    cosine = (moved * slope)[1:].sum() / np.linalg.norm(moved) / np.linalg.norm(slope[1:])
    assert cosine == pytest.approx(1, abs=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(learning.pushed(lambda y: jnp.sum(slope * y), x, mask, 5, 0.7)))(x)
    np.testing.assert_array_equal(gradient, 0)  # it is data to the loss


def bump(params, x, c_noise) -> jax.Array:
    """A small network."""
    return params["out"] @ jnp.tanh(params["in"] @ x.ravel() + params["bias"])


def network(key: jax.Array, config: object, horizon: int, dim: int) -> tuple:
    """In place of `stages.value_network`, which takes long to compile."""
    keys = jax.random.split(key, 3)
    inward = jax.random.normal(keys[0], (32, horizon * dim)) / np.sqrt(horizon * dim)
    return bump, {
        "in": 1.2 * inward,
        "bias": jax.random.normal(keys[1], (32,)),
        "out": jax.random.normal(keys[2], (32,)) / 6,
    }


@cache
def fitted(way: str) -> train.TrainState:
    """The network trained on 40 windows, each way, from the same start."""
    _, params = network(jax.random.key(0), None, 3, 2)
    make = {
        "plain": reward.task,
        "adversarial": partial(learning.adversarial, steps=3, length=0.5),
        "conservative": partial(learning.conservative, alpha=0.6, steps=3, length=0.5),
        "alpha 0": partial(learning.conservative, alpha=0.0, steps=3, length=0.5),
    }[way]
    setting = TrainSettings(steps=300, batch=32, learning_rate=1e-2, warmup=10)
    state = train.start(jax.random.key(1), params, setting)
    task = make(bump, reward.regression_error, LogUniform(0.02, 1.0))
    return jax.jit(lambda state, data: train.chunk(task, setting, state, data, 300)[0])(state, windows())


def windows() -> reward.Labelled:
    x = jax.random.normal(jax.random.key(5), (40, 3, 2))
    return reward.Labelled(x, jnp.sin(2 * x[:, 1, 0]), jnp.zeros((3, 2), bool).at[0, 0].set(True))


def learned(way: str) -> Learned:
    return Learned(fitted(way).ema, jnp.zeros(()), jnp.ones(()), bump, "regression")


def gain(proxy: Learned) -> float:
    """How much more the points score that ascent on the proxy itself finds than the windows that it starts from."""
    data = windows()
    result = jax.vmap(lambda x: learning.pushed(proxy.reward, x, data.mask, 10, 1.0))(data.x)
    return float(jnp.mean(jax.vmap(proxy.score)(result) - jax.vmap(proxy.score)(data.x)))


def test_a_conservative_proxy_gives_less_for_what_ascent_on_it_finds():
    plain, conservative = gain(learned("plain")), gain(learned("conservative"))
    assert conservative < 0.6 * plain
    data = windows()
    scores = jax.vmap(learned("conservative").score)(data.x)
    assert np.corrcoef(scores, data.target)[0, 1] > 0.5  # and still knows its labels
    for own, other in zip(jax.tree.leaves(fitted("alpha 0").ema), jax.tree.leaves(fitted("plain").ema), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)


def test_an_adversarially_trained_proxy_errs_less_on_pushed_windows():
    data = windows()

    def error(proxy: Learned) -> float:
        def one(x, target):
            wrong = lambda x: (proxy.reward(x) - target) ** 2
            return wrong(learning.pushed(wrong, x, data.mask, 3, 0.5))

        return float(jnp.mean(jax.vmap(one)(data.x, data.target)))

    assert error(learned("adversarial")) < 0.7 * error(learned("plain"))


def untrained(directory, settings, task, params, data, setting, track):
    """In place of `stages.train_stage`: parameters that depend on the seed and the labels, and nothing learned."""
    TRAINED[str(directory)] = (settings, data)
    noise = iter(jax.random.split(jax.random.key(setting.seed), len(jax.tree.leaves(params))))
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(next(noise), leaf.shape) + data.target[0] / 100, params
    )


TRAINED: dict = {}
KINDS = (
    *("learned", "true", "noisy", "ensemble_mean", "ensemble_min", "ensemble_uwo"),
    *("adversarial", "conservative", "blind", "deceivable", "decomposed"),
)
SHAPE = {"true": reward_models.Perfect, "decomposed": Sum} | {
    f"ensemble_{how}": Ensemble for how in ("mean", "min", "uwo")
}


@pytest.fixture
def quick(monkeypatch):
    """Stages that train nothing, and a small network."""
    TRAINED.clear()
    monkeypatch.setattr(stages, "train_stage", untrained)
    monkeypatch.setattr(stages, "value_network", network)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rater_makes_three_proxies_whose_scores_are_those_of_the_data(kind, quick, tmp_path):
    reward_model = RewardModelSettings(kind, members=2, labels=500 if kind == "true" else None)
    proxies, _ = reward_models.fit_reward_model(config(tmp_path), reward_model, behaviour())
    x = behaviour().train.draws(jax.random.key(9), 1000)
    for proxy in proxies:
        assert isinstance(proxy, SHAPE.get(kind, Learned)) and isinstance(proxy, Proxy)
        scores = jax.jit(jax.vmap(proxy.score))(x)
        assert float(scores.mean()) == pytest.approx(0, abs=0.15) and float(scores.std()) == pytest.approx(1, abs=0.15)
    networks = 6 if kind.startswith(("ensemble", "decomposed")) else 3
    root = tmp_path / ("proxy" if kind == "learned" else f"rater/{kind.split('_')[0]}")
    assert len(TRAINED) == networks and all(Path(name).is_relative_to(root) for name in TRAINED)


def test_the_learned_rater_is_the_proxies_that_there_were(quick, tmp_path):
    """The same stages with the settings that runs have had in them, and the comparison's identity."""
    compare, data = config(tmp_path), behaviour()
    _, identity = reward_models.fit_reward_model(compare, RewardModelSettings(), data)
    result = TRAINED.copy()
    digests = [stages.fit_proxy(compare, kind, data)[1] for kind in stages.PROXIES]
    assert identity == "-".join(digest[:12] for digest in digests)
    for kind in stages.PROXIES:
        about = {"kind": kind, "noise": runtime.plain(compare.noise), "gold": runtime.plain(GOLD), "data": "lines"}
        assert result[str(tmp_path / "proxy" / kind)][0] == runtime.plain(compare.proxy) | about
    again = reward_models.fit_reward_model(compare, RewardModelSettings(labels=50), data)[
        1
    ]  # other labels stand elsewhere
    assert again != identity and str(tmp_path / "reward_model" / "learned" / "clean") in TRAINED


def test_members_differ_in_their_seed_alone_and_readings_of_them_in_their_identity(quick, tmp_path):
    compare, data = config(tmp_path), behaviour()
    ways = (("ensemble_mean", 0.5), ("ensemble_uwo", 0.5), ("ensemble_uwo", 0.7))
    identities = [
        reward_models.fit_reward_model(compare, RewardModelSettings(w, members=2, caution=c), data)[1] for w, c in ways
    ]
    assert len({*identities}) == 3
    (first, observed), (second, seen_too) = (TRAINED[str(tmp_path / f"rater/ensemble/clean/{i}")] for i in range(2))
    for own, other in zip(jax.tree.leaves(observed), jax.tree.leaves(seen_too), strict=True):
        np.testing.assert_array_equal(own, other)
    assert first["train"].pop("seed") + 1 == second["train"].pop("seed") and first == second


def test_the_true_rater_scores_by_the_gold_and_lends_it_a_gradient(quick, tmp_path):
    data = behaviour()
    (proxy, _, _), _ = reward_models.fit_reward_model(config(tmp_path), RewardModelSettings("true", labels=100), data)
    assert isinstance(proxy, reward_models.Perfect)
    x = data.train.draws(jax.random.key(4), 200)
    gold = np.asarray(stages.gold_returns(data, x))
    scores, rewards = (np.asarray(jax.vmap(f)(x)) for f in (proxy.score, proxy.reward))
    np.testing.assert_allclose(scores, (gold - float(proxy.centre)) / float(proxy.std), atol=1e-5)
    np.testing.assert_allclose(rewards, scores, atol=1e-5)
    np.testing.assert_allclose(jax.grad(proxy.reward)(x[0]), jax.grad(proxy.energy.reward)(x[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": 1}, "rater.labels=1: must be at least 2"),
        ({"noise": 1.5}, r"rater.noise=1.5: must be in \[0, 1\]"),
        ({"members": 1}, "rater.members=1: must be at least 2"),
        ({"blind": (1.0, 1.0, 0.0)}, "rater.blind=.*: must be of a radius above 0"),
        ({"push": 0.0}, "rater.push=0.0: must be more than 0"),
        ({"caution": -1.0}, "rater.caution=-1.0: must be 0 or more"),
    ],
)
def test_a_rater_that_cannot_be_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        RewardModelSettings(**change)
