"""Reward models: labels that are wrong in known ways, ways of learning from them, and the stages that they fill."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.envs import maze2d
from diffplan.episodes import from_stacked
from diffplan.guide import Ensemble, Learned, Proxy, Sum
from diffplan.learn import reward, reward_models, train
from diffplan.learn import robust as learning
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import PROXIES, ProxySettings
from diffplan.learn.reward_models import RewardModelSettings
from diffplan.learn.train import TrainSettings
from diffplan.noise import LogUniform, NoiseSettings
from diffplan.planner import build
from diffplan.planner.build import Behaviour, Builder
from diffplan.planner.decide import Decided
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run, RunError
from diffplan.runs.files import plain, read_json
from diffplan.settings import ConfigError
from diffplan.task import Task
from diffplan.tasks import maze2d as tasks
from diffplan.tasks.maze2d import Maze2dSettings
from diffplan.types import Params

H = 16
SETTINGS = Maze2dSettings(centre=(1.6, 2.7), radius=0.3)
DECOY = (2.8, 0.8, 0.15)
ACTION = jnp.zeros(2)
TASK = tasks.make(SETTINGS)
LEVELS = NoiseSettings(0.02, 10.0)
ONE = TrainSettings(steps=1, batch=4, chunk=1, save_every=1)
CONFIG = PlannerSettings(prior=PriorSettings(ONE, horizon=H), proxy=ProxySettings(ONE, labels=60, width=8, depth=1))


@cache
def behaviour() -> Behaviour:
    """Straight lines through the places that pay, and elsewhere: no simulation is needed to be labelled."""
    rng = np.random.default_rng(0)
    ends = rng.uniform((0.9, 0.6), (3.0, 3.1), size=(2, 64, 1, 2))
    along = np.linspace(0, 1, 2 * H)[None, :, None]
    position = (1 - along) * ends[0] + along * ends[1]
    observations = np.concatenate([position, rng.normal(size=position.shape)], axis=-1).astype(np.float32)
    rows = from_stacked(observations, rng.normal(size=position.shape).astype(np.float32))
    codec = Codec.fit(rows.observations, rows.actions)
    windows = Windows.of(rows, codec, H)
    return Behaviour(rows, rows, codec, codec, windows, windows, windows, "lines")


def builder(directory: Path, task: Task = TASK) -> Builder:
    return Builder(Run(directory), task, Decided(CONFIG, LEVELS, H, 1, {}), behaviour(), task.reward)


def at(x: float, y: float) -> jax.Array:
    return jnp.asarray([x, y, 0.0, 0.0])


def test_a_blind_labeller_sees_no_reward_in_its_disc():
    blind = reward_models.blind(TASK.reward, (1.6, 3.0, 0.3))
    for place, true, labelled in ((at(1.6, 2.5), 1, 1), (at(1.6, 2.9), 1, 0), (at(1.0, 1.0), 0, 0)):
        assert (float(TASK.reward(place, ACTION)), float(blind(place, ACTION))) == (true, labelled)


def test_a_deceived_labeller_takes_the_decoy_for_the_target():
    deceived = reward_models.deceived(TASK.reward, DECOY, (1.6, 2.7, 0.3))
    for place, true, labelled in (
        (at(1.6, 2.7), 1, 1),
        (at(2.8, 0.8), 0, 1),
        (at(2.8, 0.94), 0, 1),  # near the decoy's rim is near the target's
        (at(2.8, 0.96), 0, 0),
        (at(1.0, 1.0), 0, 0),
    ):
        assert (float(TASK.reward(place, ACTION)), float(deceived(place, ACTION))) == (true, labelled)


def test_a_decoy_needs_a_target():
    with pytest.raises(ConfigError, match=r"^reward_model\.kind='deceivable': must be another, where the reward pays"):
        reward_models.labeller_reward(RewardModelSettings("deceivable"), TASK.reward, None)
    assert tasks.make(Maze2dSettings(reward="path")).plane.region is None
    assert tasks.make(Maze2dSettings(reward="goal")).plane.region == (*maze2d.UMAZE.goal, 0.5)
    assert TASK.plane.region == (1.6, 2.7, 0.3)


@pytest.mark.parametrize("kind", ["blind", "deceivable"])
def test_nobody_errs_about_a_reward_that_is_only_recorded(kind):
    with pytest.raises(
        ConfigError, match=f"^reward_model.kind='{kind}': must be another, where the task has no reward"
    ):
        reward_models.labeller_reward(RewardModelSettings(kind), None, (1.6, 2.7, 0.3))
    assert reward_models.labeller_reward(RewardModelSettings("noisy"), None, None) is None


def labels(kind: str, model: RewardModelSettings, rows: slice = slice(None)) -> np.ndarray:
    windows = behaviour().train
    gains = builder(Path("unused")).gains(windows, windows.places(jax.random.key(1), 2000))
    return np.asarray(reward_models.labels(jax.random.key(2), gains, (kind == "classifier", 0.9), model, rows))


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


def test_shuffled_labels_are_the_same_labels_of_other_windows():
    for kind in ("regression", "classifier"):
        true, shuffled = labels(kind, RewardModelSettings()), labels(kind, RewardModelSettings("shuffled"))
        np.testing.assert_array_equal(np.sort(true), np.sort(shuffled))
        assert abs(np.corrcoef(true, shuffled)[0, 1]) < 0.1


def test_labels_of_stretches_add_up_to_those_of_the_plan():
    parts = [labels("regression", RewardModelSettings("decomposed"), slice(*ends)) for ends in ((0, 5), (5, 16))]
    np.testing.assert_allclose(sum(parts), labels("regression", RewardModelSettings()), atol=1e-5)


def test_the_top_class_is_never_all():
    returns = jnp.asarray([0.0] * 95 + [1.0, 2.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(reward.top_class(returns, 0.9), returns > 0)
    for quantile in (0.97, 0.99):
        np.testing.assert_array_equal(reward.top_class(returns, quantile), returns >= np.quantile(returns, quantile))


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


def network(config: ProxySettings, horizon: int, dim: int) -> tuple:
    """In place of `reward.network`, which takes long to compile."""
    keys = jax.random.split(jax.random.key(config.train.seed), 3)
    inward = jax.random.normal(keys[0], (32, horizon * dim)) / np.sqrt(horizon * dim)
    return bump, {
        "in": 1.2 * inward,
        "bias": jax.random.normal(keys[1], (32,)),
        "out": jax.random.normal(keys[2], (32,)) / 6,
    }


@cache
def fitted(way: str) -> Params:
    """The weights of a network trained on 40 windows, each way, from the same start."""
    _, params = network(CONFIG.proxy, 3, 2)
    make = {
        "plain": reward.task,
        "adversarial": partial(learning.adversarial, steps=3, length=0.5),
        "conservative": partial(learning.conservative, gap=0.1),
    }[way]
    setting = TrainSettings(steps=300, batch=32, learning_rate=1e-2, warmup=10)
    task = make(bump, reward.regression_error, LogUniform(0.02, 1.0))
    state = train.start(jax.random.key(1), task.begin(params), setting)
    state = jax.jit(lambda state, data: train.chunk(task, setting, state, data, 300)[0])(state, windows())
    return task.end(state.ema)


def windows() -> reward.Labelled:
    x = jax.random.normal(jax.random.key(5), (40, 3, 2))
    return reward.Labelled(x, jnp.sin(2 * x[:, 1, 0]), jnp.zeros((3, 2), bool).at[0, 0].set(True))


def learned(way: str) -> Learned:
    return Learned(fitted(way), jnp.zeros(()), jnp.ones(()), bump, "regression")


def gain(proxy: Learned) -> float:
    """How much more the points score that ascent on the proxy itself finds than the windows that it starts from."""
    data = windows()
    result = jax.vmap(lambda x: learning.ascended(proxy.reward, x, data.mask, 50, 0.05))(data.x)
    return float(jnp.mean(jax.vmap(proxy.score)(result) - jax.vmap(proxy.score)(data.x)))


def test_a_conservative_proxy_gives_little_for_what_ascent_on_it_finds():
    assert gain(learned("conservative")) < 0.3 < 1.0 < gain(learned("plain"))
    data = windows()
    scores = jax.vmap(learned("conservative").score)(data.x)
    assert np.corrcoef(scores, data.target)[0, 1] > 0.5  # and still knows its labels


LINE = {"bound": 2.0, "free": 0.2}
"""Slopes of labels on a line. Ascent on f(x) = w x gains k eta w^2: 0.5 = tau at w = 0.5, by 20 steps of 0.1."""


@cache
def on_a_line(name: str) -> train.TrainState:
    """f(x) = w x of one number, trained under the constraint to its end, with labels LINE[name] x."""
    x = jax.random.normal(jax.random.key(0), (256, 1, 1))
    data = reward.Labelled(x, LINE[name] * x[:, 0, 0], jnp.zeros((1, 1), bool))
    setting = TrainSettings(steps=8000, batch=256, learning_rate=1e-3, warmup=10)
    line = lambda params, x, c_noise: params * x[0, 0]
    task = learning.conservative(line, reward.regression_error, None, gap=0.5, steps=20, step=0.1)
    state = train.start(jax.random.key(1), task.begin(jnp.zeros(())), setting)
    return jax.jit(lambda state, data: train.chunk(task, setting, state, data, setting.steps)[0])(state, data)


def test_a_constraint_that_binds_is_met_with_its_exact_multiplier():
    """With labels r = 2 x, E (w x - r)^2 + alpha (k eta w) w, in which ascent's end is fixed, has its minimum at
    2 (2 - w) E x^2 = alpha k eta w. The gap k eta w^2 is tau at w = 0.5; there alpha = 3 E x^2.
    """
    state = on_a_line("bound")
    second = float(jnp.mean(jax.random.normal(jax.random.key(0), (256,)) ** 2))
    assert float(state.ema.network) == pytest.approx(0.5, abs=0.02)
    assert 20 * 0.1 * float(state.ema.network) ** 2 == pytest.approx(0.5, abs=0.04)
    assert float(state.ema.alpha) == pytest.approx(3 * second, rel=0.1)


def test_the_multiplier_of_a_constraint_that_does_not_bind_falls_to_zero():
    """With labels 0.2 x ascent gains 0.08 at most: the fit is that without the constraint."""
    state = on_a_line("free")
    assert float(state.ema.alpha) < 1e-3
    assert float(state.ema.network) == pytest.approx(0.2, abs=0.002)


def test_an_adversarially_trained_proxy_errs_less_on_pushed_windows():
    data = windows()

    def error(proxy: Learned) -> float:
        def one(x, target):
            wrong = lambda x: (proxy.reward(x) - target) ** 2
            return wrong(learning.pushed(wrong, x, data.mask, 3, 0.5))

        return float(jnp.mean(jax.vmap(one)(data.x, data.target)))

    assert error(learned("adversarial")) < 0.7 * error(learned("plain"))


def untrained(task, params, data, config, recorder):
    """In place of `train`: parameters that depend on the seed and the labels, and nothing learned."""
    TRAINED.append((data, config))
    noise = iter(jax.random.split(jax.random.key(config.seed), len(jax.tree.leaves(params))))
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(next(noise), leaf.shape) + data.target[0] / 100, params
    )


TRAINED: list = []
KINDS = (
    *("learned", "true", "noisy", "shuffled", "ensemble_mean", "ensemble_min", "ensemble_uwo"),
    *("adversarial", "conservative", "blind", "deceivable", "decomposed"),
)
SHAPE = {"true": reward_models.Perfect, "decomposed": Sum} | {
    f"ensemble_{how}": Ensemble for how in ("mean", "min", "uwo")
}


@pytest.fixture
def quick(monkeypatch):
    """Stages that train nothing, and a small network."""
    TRAINED.clear()
    monkeypatch.setattr(reward, "train", untrained)
    monkeypatch.setattr(reward, "network", network)


def stages_of(directory: Path) -> set[str]:
    """The stages of a run, by name."""
    return {str(path.parent.relative_to(directory)) for path in directory.rglob("stage.json")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_reward_model_makes_three_proxies_whose_scores_are_those_of_the_data(kind, quick, tmp_path):
    model = RewardModelSettings(kind, members=2, labels=500 if kind == "true" else None)
    x = behaviour().train.draws(jax.random.key(9), 1000)
    for each in PROXIES:
        proxy, networks = build.fit_proxy(builder(tmp_path), each, model)
        assert isinstance(proxy, SHAPE.get(kind, Learned)) and isinstance(proxy, Proxy)
        scores = jax.jit(jax.vmap(proxy.score))(x)
        assert float(scores.mean()) == pytest.approx(0, abs=0.15) and float(scores.std()) == pytest.approx(1, abs=0.15)
        several = kind.startswith(("ensemble", "decomposed"))
        assert len(networks) == 1 + several
    where = "reward" if kind == "learned" else f"reward/{kind.split('_')[0]}"
    numbers = ["/0", "/1"] if several else [""]
    assert stages_of(tmp_path) == {f"{where}/{each}{number}" for each in PROXIES for number in numbers}


def identities(run: Builder, model: RewardModelSettings) -> list[str]:
    """Of the networks of a clean proxy."""
    return [network.identity for network in build.fit_proxy(run, "clean", model)[1]]


def test_a_learned_model_of_as_many_labels_is_the_same_and_one_of_others_stands_elsewhere(quick, tmp_path):
    run = builder(tmp_path)
    identity = identities(run, RewardModelSettings())
    assert identities(run, RewardModelSettings(labels=60)) == identity
    assert identities(run, RewardModelSettings(noise=0.1, push=0.1)) == identity  # of other kinds
    assert stages_of(tmp_path) == {"reward/clean"}
    assert identities(run, RewardModelSettings(labels=50)) != identity
    assert stages_of(tmp_path) == {"reward/clean", "reward/learned/clean"}
    record = read_json(tmp_path / "reward" / "clean" / "stage.json")
    assert record["inputs"] == {"data": "lines"}
    assert record["settings"]["reward"] == {"reward": "region", "region": [1.6, 2.7, 0.3]}
    assert record["settings"]["kind"] == "clean" and record["settings"]["noise"] == plain(LEVELS)


def test_what_decides_the_labels_of_a_model_is_part_of_its_stage(quick, tmp_path):
    run = builder(tmp_path)
    build.fit_proxy(run, "clean", RewardModelSettings("noisy", noise=0.3))
    with pytest.raises(RunError, match=r"decisive\.noise was 0\.3 and is now 0\.4"):
        build.fit_proxy(run, "clean", RewardModelSettings("noisy", noise=0.4))
    other = builder(tmp_path, tasks.make(replace(SETTINGS, radius=0.4)))
    with pytest.raises(RunError, match=r"reward\.region was \[1\.6, 2\.7, 0\.3\] and is now \[1\.6, 2\.7, 0\.4\]"):
        build.fit_proxy(other, "clean", RewardModelSettings("noisy", noise=0.3))


def test_members_differ_in_their_seed_alone_and_are_trained_once_for_all_readings_of_them(quick, tmp_path):
    run = builder(tmp_path)
    ways = (("ensemble_mean", 0.5), ("ensemble_uwo", 0.5), ("ensemble_uwo", 0.7))
    first, second, third = (identities(run, RewardModelSettings(way, members=2, caution=c)) for way, c in ways)
    assert first == second == third
    (first, config), (second, another) = TRAINED[:2]
    for own, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(own, other)
    assert another == replace(config, seed=config.seed + 1)


def test_the_true_model_scores_by_the_true_reward_and_lends_it_a_gradient(quick, tmp_path):
    run = builder(tmp_path)
    proxy, _ = build.fit_proxy(run, "regression", RewardModelSettings("true", labels=100))
    assert isinstance(proxy, reward_models.Perfect)
    windows = behaviour().train
    first = windows.places(jax.random.key(4), 200)
    x, gold = jax.vmap(windows.at)(first), np.asarray(run.returns(windows, first))
    scores, rewards = (np.asarray(jax.vmap(f)(x)) for f in (proxy.score, proxy.reward))
    np.testing.assert_allclose(scores, (gold - float(proxy.centre)) / float(proxy.std), atol=1e-5)
    np.testing.assert_allclose(rewards, scores, atol=1e-5)
    np.testing.assert_allclose(jax.grad(proxy.reward)(x[0]), jax.grad(proxy.energy.reward)(x[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": 1}, "labels=1: must be between 2 and"),
        ({"noise": 1.5}, "noise=1.5: must be between 0 and 1"),
        ({"members": 1}, "members=1: must be between 2 and"),
        ({"blind": (1.0, 1.0, 0.0)}, "blind=.*: must be of a radius above 0"),
        ({"push": 0.0}, "push=0.0: must be more than 0"),
        ({"caution": -1.0}, "caution=-1.0: must be at least 0"),
    ],
)
def test_a_reward_model_that_cannot_be_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=f"^reward_model.{message}"):
        RewardModelSettings(**change)
