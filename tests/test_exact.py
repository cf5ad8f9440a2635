"""The study of exact answers: its table, its problems, and the parts that are quick enough to run here."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, struct
from scipy import stats

from diffplan import guide, validation
from diffplan.cli import exact
from diffplan.denoise import CategoricalDenoiser, categorical_loss
from diffplan.learn import contrastive, train
from diffplan.learn.contrastive import ContrastiveEnergy, balanced
from diffplan.models import Chained, Messages, MessagesValue, build
from diffplan.noise import LogUniform, NoiseSettings, log_linear
from diffplan.oracle.gaussian import Gaussian
from diffplan.runs import Run
from diffplan.samplers import Sampler, sample, sde_2m
from diffplan.settings import ConfigError
from diffplan.validation import learned, problems, rules, samplers
from diffplan.validation.learned import Size
from diffplan.validation.table import COLUMNS, Row, mean, write


@pytest.mark.parametrize(
    ("measured", "kind", "tolerance", "passed"),
    [
        (1.04, "share", 0.05, True),
        (1.06, "share", 0.05, False),
        (1.06, "shown", 0.05, None),
        (0.2, "most", 0.1, False),
        (0.2, "least", 0.1, True),
        (float("nan"), "share", 0.05, False),
        (float("nan"), "most", 0.05, False),
    ],
)
def test_a_row_is_judged(measured, kind, tolerance, passed):
    row = Row("part", "quantity", measured, 0.0, 1.0, tolerance, kind)
    assert row.passed is passed
    assert "nan" not in ",".join(row.cells())


def test_the_table_is_written_whole(tmp_path):
    rows = [Row("a", "b, c", 1.0, 0.1, float("nan"), 0.05, "shown")]
    write(tmp_path / "deep" / "exact.csv", rows)
    with (tmp_path / "deep" / "exact.csv").open() as file:
        header, line = csv.reader(file)
    assert tuple(header) == COLUMNS and line == ["a", "b, c", "1", "0.1", "", "", ""]
    assert mean([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / np.sqrt(3)))


def test_the_command_knows_the_parts_of_the_study():
    assert exact.PARTS == tuple(validation.PARTS)
    with pytest.raises(ConfigError, match=r"^only='nonsense': must be one of order, gaussian"):
        exact.ExactSettings(only=("nonsense",))


@pytest.mark.parametrize("part", ["order", "legality", "references"])
def test_quick_parts_hold(part, tmp_path):
    rows = list(validation.PARTS[part](Run(tmp_path), 5, Size()))
    assert rows and all(row.passed is not False for row in rows), [row for row in rows if row.passed is False]


def test_exact_sampling_of_cells_in_small():
    """The main claim with few plans and levels: the reward of the tilt, legal paths, and the KL, to sampling error."""
    problem = problems.cells()
    chain = problem.chain
    energy = lambda weight: samplers.exact_energy(chain, chain.tilted(problem.rewards, weight)[0])
    sampler = Sampler(log_linear(64, *samplers.LEVELS["tabular"]), chain.shape, sde_2m)
    x, nats, log_ratio = samplers.plans(jax.random.key(0), chain.denoise, energy, (4.0,), sampler, 600)
    paths = jax.vmap(chain.decode)(x[0])
    truth = samplers.tilts(chain, problem.rewards, (4.0,))[0]
    rewards = np.asarray(jax.vmap(problem.path_reward)(paths))
    assert abs(rewards.mean() - truth.reward) < 4 * rewards.std() / np.sqrt(600) + 0.01 * truth.reward
    assert abs(nats.mean() / truth.kl - 1) < 0.12
    # for the exact guide the log-ratio of every chain is the log of the tilt at its end
    gap = log_ratio[0] - (4.0 * rewards - float(truth.log_z))
    assert gap.std() < 0.5 * log_ratio[0].std() and abs(gap.mean()) < 0.12 * truth.kl
    assert (np.asarray(jax.vmap(chain.legal)(paths)) == 1).all()


def test_the_modes_are_those_of_the_earlier_table():
    problem = problems.modes()
    truth = samplers.tilts(problem.distribution, problem.slope, (8.0,))[0]
    assert float(truth.reward) == pytest.approx(4.23, abs=0.01) and float(truth.kl) == pytest.approx(7.90, abs=0.01)
    sigmas = rules.cosine(100)
    assert (np.diff(sigmas) < 0).all() and len(sigmas) == 100
    energy = rules.by_step_variance(lambda x, sigma: jnp.sum(x), sigmas)
    x = jnp.ones((1, 2))
    assert float(energy(x, sigmas[3])) == pytest.approx(2 * float(sigmas[4] / sigmas[3]) ** 2, rel=1e-5)
    assert float(energy(x, sigmas[-1])) == 0.0


# --- what is learned


def test_a_categorical_without_network_is_what_each_step_says():
    """With its readout at zero the posterior is Bayes' rule for each step alone; no level breaks it."""
    points = jnp.asarray([[0.0], [1.0], [3.0]])
    apply, params = build(jax.random.key(0), lambda rngs: Messages(3, 3, width=8, rngs=rngs))
    model = CategoricalDenoiser(params, points, apply)
    x, sigma = jnp.asarray([[0.2], [0.6], [2.5], [9.0]]), jnp.asarray(0.7)
    likelihood = np.exp(-((np.asarray(x) - np.asarray(points).T) ** 2) / (2 * 0.49))
    expected = likelihood @ np.asarray(points) / likelihood.sum(1, keepdims=True)
    np.testing.assert_allclose(model(x, sigma), expected, rtol=1e-4)
    assert bool(jnp.isfinite(model(x, jnp.asarray(1e-3))).all())
    value, _ = categorical_loss(jax.random.key(0), model, jnp.asarray([0, 1, 2, 2]), LogUniform(0.01, 0.011))
    assert float(value) < 1e-3  # at a level this low every step says what it is


def test_an_untrained_denoiser_of_cells_is_the_posterior_of_the_chain():
    """Against all paths of its six states, two to a cell: what evidence about every step says of each."""
    random = np.random.default_rng(0)
    kernel, start = random.dirichlet(np.ones(6), size=6), random.dirichlet(np.ones(6))
    kernel = np.where(kernel < 0.1, 0, kernel)
    kernel /= kernel.sum(axis=1, keepdims=True)
    evidence = 1.5 * random.normal(size=(4, 3))
    evidence[0] = [0.0, -8.0, -8.0]
    chain = jnp.log(jnp.asarray(start)), jnp.log(jnp.asarray(kernel + 1e-12))
    apply, params = build(jax.random.key(0), lambda rngs: Chained(*chain, 3, rngs=rngs))
    posterior = CategoricalDenoiser(params, jnp.eye(3), apply).posterior(jnp.asarray(evidence, jnp.float32))
    paths = np.array(list(np.ndindex(6, 6, 6, 6)))
    steps = np.prod([kernel[a, b] for a, b in zip(paths.T, paths.T[1:], strict=False)], axis=0)
    weights = start[paths[:, 0]] * steps * np.exp(evidence[np.arange(4), paths // 2].sum(1))
    for t in range(4):
        expected = np.bincount(paths[:, t] // 2, weights=weights, minlength=3)
        np.testing.assert_allclose(posterior[t], expected / expected.sum(), atol=1e-5)


def test_messages_with_a_chains_kernel_are_its_filter():
    """Forward messages with the kernel for a matrix and the likelihood for evidence predict as Bayes' rule does."""
    rng = np.random.default_rng(0)
    kernel, start = rng.dirichlet(np.ones(3), size=3), rng.dirichlet(np.ones(3))
    likelihood = rng.uniform(size=(5, 3))
    net = Messages(3, 3, width=3, rngs=nnx.Rngs(0))
    net.forward.kernel[...] = jnp.asarray(kernel, jnp.float32)
    net.first[...] = jnp.asarray(start @ np.linalg.inv(kernel), jnp.float32)
    net.seen_forward.kernel[...] = jnp.eye(4, 3)  # the last entry is the noise level
    along, _ = net.messages(jnp.asarray(np.column_stack([likelihood, np.zeros(5)]), jnp.float32))
    for t in range(5):  # p(s_t | what steps before t say), over all paths
        paths = np.array(list(np.ndindex(*[3] * (t + 1))))
        p = start[paths[:, 0]] * np.prod(
            [likelihood[i, paths[:, i]] * kernel[paths[:, i], paths[:, i + 1]] for i in range(t)], axis=0
        )
        expected = np.bincount(paths[:, t], weights=p, minlength=3)
        np.testing.assert_allclose(along[t] / along[t].sum(), expected / expected.sum(), atol=1e-5)


def test_messages_reach_every_step_but_their_own():
    net = Messages(2, 2, width=8, rngs=nnx.Rngs(0))
    along, against = jax.jacobian(lambda x: net.messages(jnp.pad(x, ((0, 0), (0, 1)))))(jnp.ones((6, 2)))
    observed = lambda jacobian: np.abs(np.asarray(jacobian)).sum((1, 3)) > 0
    before = np.tri(6, k=-1, dtype=bool)
    assert (observed(along) == before).all() and (observed(against) == before.T).all()


def test_balanced_groups_weigh_back_to_the_smaller_tilt(key):
    """Half is drawn at each of two weights v < w; importance weights turn the whole into the tilt at v."""
    rewards = jax.random.normal(key, (4000,))
    data = contrastive.contrast(rewards[:, None, None], rewards, 2.0, grid=3)
    groups = jax.vmap(lambda key: balanced(key, data, 64))(jax.random.split(key, 1600))
    tilted = lambda weight: float(jnp.sum(jax.nn.softmax(weight * rewards) * rewards))
    pairs = {tuple(pair) for pair in np.asarray(groups.weights).tolist()}
    assert pairs == {(0.0, 1.0), (0.0, 2.0), (1.0, 2.0)}
    for v, w in pairs:
        mine = np.flatnonzero((np.asarray(groups.weights) == (v, w)).all(axis=1))
        reward, back = groups.reward[mine], jnp.exp(groups.correction[mine])
        assert float(back.mean()) == pytest.approx(1.0, abs=0.02)
        assert float((back * reward).mean()) == pytest.approx(tilted(v), abs=0.03)
        assert float(reward[:, 32:].mean()) == pytest.approx(tilted(w), abs=0.03)


@struct.dataclass
class Plain:
    """The plan itself, scaled to unit variance, with no energy to start from."""

    def __call__(self, x, sigma):
        return x / jnp.sqrt(1 + sigma**2), jnp.zeros(())


def test_contrast_learns_the_exact_energy():
    """On a Gaussian entry with a curved reward, -x^2, whose energy is known, and far from E[r | x]."""
    distribution = Gaussian.of(jnp.zeros(1), jnp.eye(1), (1, 1))
    x = jax.random.normal(jax.random.key(0), (20_000, 1, 1))
    data = contrastive.contrast(x, -(x[:, 0, 0] ** 2), 2.0)
    apply, params = build(jax.random.key(1), lambda rngs: MessagesValue(2, width=32, hidden=64, rngs=rngs))
    config = train.TrainSettings(steps=600, batch=4, learning_rate=5e-3, chunk=200, ema=0.98)
    task = contrastive.task(apply, Plain(), LogUniform(0.3, 2.0), 2.0)
    state = train.start(jax.random.key(2), params, config)
    state, _ = jax.jit(lambda state, data: train.chunk(task, config, state, data, 600))(state, data)
    model = ContrastiveEnergy(state.ema, Plain(), apply, 2.0)
    sigma, weight = jnp.asarray(0.8), jnp.asarray(1.5)
    tilted, _ = distribution.tilted(jnp.zeros((1, 1)), 1.5, 2 * jnp.eye(1))
    points = jnp.linspace(-2, 2, 9)[:, None, None]
    known = jax.vmap(lambda x: tilted.log_density(x, sigma) - distribution.log_density(x, sigma))(points)
    result = jax.vmap(lambda x: model.energy(weight)(x, sigma))(points)
    regression = -1.5 * (points[:, 0, 0] / (1 + 0.64)) ** 2
    off = lambda guess: float(jnp.abs((guess - guess[4]) - (known - known[4])).max())
    assert off(result) < 0.25 < off(regression)


def test_the_largest_weight_leaves_enough_plans():
    """Of n rewards from N(0, 1) the tilt has n exp(-w^2) effective plans."""
    rewards = jnp.asarray(stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000), jnp.float32)
    assert contrastive.largest_weight(rewards, 5000) == pytest.approx(np.sqrt(np.log(20)), rel=0.05)
    assert contrastive.largest_weight(jnp.zeros(64), 64) == pytest.approx(1000)


@struct.dataclass
class Curved:
    """Of N(0, I) and the reward -|x|^2: E[r | x] at a level, and the reward itself."""

    def __call__(self, x, sigma):
        return jnp.sum(-((x / (1 + sigma**2)) ** 2) - sigma**2 / (1 + sigma**2))

    def reward(self, x):
        return -jnp.sum(x**2)

    def score(self, x):
        return self.reward(x)


def test_the_energy_of_a_learned_reward_is_corrected_to_the_exact_one():
    """log E[exp(-w |x0|^2) | x] = -w |m|^2 / (1 + 2 w s^2) + a constant, with m = x / (1 + sigma^2), where no entry is
    pinned; and for the pinned entries themselves -w |x|^2.
    """
    x = jax.random.normal(jax.random.key(0), (8192, 2, 1))
    clean = jnp.asarray([[True], [False]])
    config = contrastive.ContrastiveSettings(
        train.TrainSettings(steps=500, batch=4, learning_rate=3e-3, ema=0.98), windows=8192, width=32, patch=1
    )
    model = contrastive.fit_learned(x, Curved(), clean, config, NoiseSettings(0.3, 2.0))
    weight, sigma = jnp.asarray(min(1.5, model.high)), jnp.asarray(0.8)
    level, s2 = jnp.where(clean, 0.0, sigma), 0.64 / 1.64
    points = jnp.stack([jnp.ones(9), jnp.linspace(-2, 2, 9)], axis=1)[:, :, None]
    result = jax.vmap(lambda x: model.energy(weight)(x, level))(points)
    known = -weight * (points[:, 1, 0] / 1.64) ** 2 / (1 + 2 * weight * s2)
    regression = weight * jax.vmap(Curved(), (0, None))(points, level)
    off = lambda guess: float(jnp.abs((guess - guess[4]) - (known - known[4])).max())
    assert off(result) < 0.3 * off(regression)
    beyond = model.energy(jnp.asarray(3 * model.high))(points[0], level)
    assert float(beyond) == pytest.approx(3 * float(model.energy(jnp.asarray(model.high))(points[0], level)), rel=1e-4)


def test_contrast_refuses_what_cannot_be_learned():
    with pytest.raises(ValueError, match="group=3: must be even"):
        contrastive.task(lambda *_: jnp.zeros(()), Plain(), LogUniform(), 2.0, group=3)
    with pytest.raises(ValueError, match="high=0: must be more than 0"):
        contrastive.contrast(jnp.zeros((3, 1, 1)), jnp.zeros(3), 0.0)
    with pytest.raises(ValueError, match="1 of 3 are not finite"):
        contrastive.contrast(jnp.zeros((3, 1, 1)), jnp.asarray([0.0, 1.0, jnp.nan]), 2.0)


def test_a_budget_of_nats_is_what_is_spent():
    """On the unit Gaussian the budget draws the tilt of that KL; elsewhere every plan spends as much."""
    distribution = Gaussian.of(jnp.asarray([0.3, 0.0]), jnp.eye(2), (1, 2))
    slope = jnp.asarray([[0.6, 0.8]])
    denoise = guide.budget(distribution.denoise, distribution.energy(slope), jnp.asarray(4.0))
    sigmas = log_linear(200, 0.01, 40.0)
    run = lambda key: sample(key, denoise, Sampler(sigmas, (1, 2), sde_2m), reference=distribution.denoise)
    x, info = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4000))
    gain = np.asarray(jnp.sum((x - distribution.mean[None, None]) * slope[None], axis=(1, 2)))
    np.testing.assert_allclose(info.path_kl, 4.0, rtol=0.03)
    assert gain.mean() == pytest.approx(np.sqrt(8.0), rel=0.03)  # KL = lambda^2 / 2 = 4
    assert gain.std() == pytest.approx(1.0, rel=0.05)
    with pytest.raises(ValueError, match="nats=-1: must be 0 or more"):
        guide.budget(distribution.denoise, distribution.energy(slope), -1.0)


@pytest.mark.slow
def test_models_are_trained_once(tmp_path):
    problem = problems.cells(horizon=4)
    size = Size(paths=256, labelled=256, prior=4, energy=3)
    prior = learned.fit_prior(Run(tmp_path), 0, problem, size)
    energy = learned.fit_energy(Run(tmp_path), 0, problem, prior, size)
    again = learned.fit_energy(Run(tmp_path), 0, problem, learned.fit_prior(Run(tmp_path), 0, problem, size), size)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), energy.params, again.params)
    assert jax.tree.all(same)
    x = problem.chain.points[jnp.asarray([0, 1, 1, 2])]
    assert bool(jnp.isfinite(jax.grad(energy.energy(jnp.asarray(2.0)))(x, jnp.asarray(0.5))).all())
