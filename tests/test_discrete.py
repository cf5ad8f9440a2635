"""Discrete diffusion of a small chain with forbidden moves, all of whose paths can be enumerated."""

from functools import partial
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import one_hot

from diffplan import discrete
from diffplan.discrete import (
    Noise,
    even,
    first_order,
    guided,
    legal_share,
    pinned,
    reveal,
    reverse,
    sample,
)
from diffplan.learn import train
from diffplan.learn.train import TrainSettings
from diffplan.models.mixer import Mixer, Size
from diffplan.models.pure import build
from diffplan.oracle.tabular import markov

H, K, DRAWS = 4, 3, 4000
START = np.array([0.7, 0.3, 0.0])
KERNEL = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.0, 0.6, 0.4]])  # 0 and 2 are two moves apart
REWARDS = 2 * np.random.default_rng(0).normal(size=(H, K))
PATHS = np.array(list(product(range(K), repeat=H)))
PRIOR = np.array([START[s[0]] * np.prod([KERNEL[a, b] for a, b in pairwise(s)]) for s in PATHS])
GAIN = np.exp(REWARDS[np.arange(H), PATHS].sum(1))  # exp r(s)
TILTED = PRIOR * GAIN / (PRIOR @ GAIN)
KL = (TILTED * np.log(GAIN / (PRIOR @ GAIN))).sum()

CHAIN = markov(jnp.asarray(START, jnp.float32), jnp.asarray(KERNEL, jnp.float32), H)
TILTED_CHAIN = CHAIN.tilted(jnp.asarray(REWARDS, jnp.float32))[0]
LEGAL = jnp.asarray(KERNEL > 0)
MASKED, UNIFORM = Noise.masked(K), Noise.uniform(K)


def exact_ratio(log_h, noise):
    """The ratios of (62) by brute force: log h at all h * m neighbours."""

    def ratios(z, alpha):
        changed = lambda i, v: log_h(one_hot(z.at[i].set(v), noise.symbols), alpha)
        neighbours = jax.vmap(jax.vmap(changed, (None, 0)), (0, None))(jnp.arange(len(z)), jnp.arange(noise.symbols))
        return neighbours - log_h(one_hot(z, noise.symbols), alpha)

    return ratios


both = pytest.mark.parametrize("noise", [MASKED, UNIFORM], ids=["masked", "uniform"])


def posterior(noise, chain=CHAIN):
    """The exact discrete denoiser."""
    return lambda z, alpha: chain.posterior(noise.log_likelihood(z, alpha))


def log_h(noise):
    """E -> log E[exp r(s) | z], exact at every path, but for log Z."""

    def value(e, alpha):
        evidence = noise.relaxed(e, alpha)
        return TILTED_CHAIN.evidence(evidence) - CHAIN.evidence(evidence)

    return value


def likelihoods(noise, z, alpha):
    """q(z_t | s) of every position and state, by the definition: ``[h, k]``."""
    return np.array([[alpha * (v == s) + (1 - alpha) * noise.blank[v] for s in range(noise.states)] for v in z])


def brute(noise, z, alpha):
    """(p(s | z) of every path, p(z)) by Bayes' rule."""
    joint = PRIOR * np.prod([likelihoods(noise, z, alpha)[t, PATHS[:, t]] for t in range(H)], axis=0)
    return joint / joint.sum() if joint.sum() else np.full(len(joint), np.nan), joint.sum()


@partial(jax.jit, static_argnums=0)
def noisy_paths(noise, alpha):
    """A dozen paths of the chain, noised."""
    keys = jax.random.split(jax.random.key(5), 12)
    return jax.vmap(lambda key: noise.corrupted(key, CHAIN.draw(key), alpha))(keys)


def draws(draw, seed=0):
    """Paths ``[n, h]`` as numpy, and what was looked at."""
    paths, info = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(seed), DRAWS))
    return np.asarray(paths), info


def variation(paths, distribution):
    """Total variation between drawn paths and a distribution of `PATHS`; a path with a mask left over is in no
    distribution.
    """
    shares = np.array([(paths == s).all(1).mean() for s in PATHS])
    return (np.abs(shares - distribution).sum() + 1 - shares.sum()) / 2


# --- noise, posterior and the distribution of a step


@both
def test_posterior_is_the_sum_over_all_paths(noise):
    exact = jax.jit(posterior(noise))
    for alpha in (0.05, 0.5, 0.9):
        for z in np.asarray(noisy_paths(noise, alpha)):
            weights = brute(noise, z, alpha)[0]
            marginals = [[weights[PATHS[:, t] == s].sum() for s in range(K)] for t in range(H)]
            np.testing.assert_allclose(exact(jnp.asarray(z), jnp.asarray(alpha)), marginals, atol=1e-5)


@both
def test_corruption_in_two_stages_is_corruption_in_one(noise):
    """The table, and frequencies of draws, against keeping 0.7 of what 0.5 was kept of."""
    s0, once, half, rest = jnp.asarray([0, 1, 2]), jnp.asarray(0.35), jnp.asarray(0.5), jnp.asarray(0.7)
    exact = likelihoods(noise, range(noise.symbols), 0.35)
    table = noise.likelihood(jnp.arange(noise.symbols), once, K)
    np.testing.assert_allclose(table, exact, atol=1e-6)

    def draw(key):
        first, second, third = jax.random.split(key, 3)
        return noise.corrupted(first, s0, once), noise.corrupted(third, noise.corrupted(second, s0, half), rest)

    for z in jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 40_000)):
        np.testing.assert_allclose(one_hot(z, noise.symbols).mean(0).T, exact, atol=0.012)


@both
def test_distribution_of_a_step_is_the_joint_distribution_summed_over_all_paths(noise):
    """p(z'_i, z) = sum_s p(s) q(z'_i | s_i) q(z_i | z'_i) prod_{j != i} q(z_j | s_j), and nothing of (61)."""
    distribution, symbols = jax.jit(reverse(posterior(noise), noise)), range(noise.symbols)
    among = Noise(noise.symbols, noise.blank)  # the same noise, of what may be noisy already
    for (alpha, alpha_next), z in product([(0.0, 0.4), (0.3, 0.5), (0.6, 1.0)], range(4)):
        z = np.asarray(noisy_paths(noise, alpha)[z])
        observed, after = likelihoods(noise, z, alpha), likelihoods(noise, symbols, alpha_next)
        back = likelihoods(among, symbols, alpha / alpha_next)
        joint = np.zeros((H, noise.symbols))
        for i, v in product(range(H), symbols):
            others = np.prod([observed[j, PATHS[:, j]] for j in range(H) if j != i], axis=0)
            joint[i, v] = PRIOR @ (after[v, PATHS[:, i]] * back[z[i], v] * others)
        log_distribution = distribution(jnp.asarray(z), jnp.asarray(alpha), jnp.asarray(alpha_next))
        np.testing.assert_allclose(np.exp(log_distribution), joint / joint.sum(1, keepdims=True), atol=2e-5)


# --- sampling


@both
def test_finer_steps_draw_the_distribution_of_the_chain(noise):
    """One step draws every position alone, and most paths are illegal; an order of magnitude finer, few are."""
    distribution = reverse(posterior(noise), noise)
    errors, legal = [], []
    for steps in (1, 4, 80):
        paths, _ = draws(lambda key, steps=steps: sample(key, distribution, noise, even(steps), H))
        errors.append(variation(paths, PRIOR))
        legal.append(np.asarray(jax.vmap(legal_share, (0, None))(jnp.asarray(paths), LEGAL) == 1).mean())
    occupancy = np.asarray(CHAIN.occupancy())
    alone = np.prod(occupancy[np.arange(H), PATHS], axis=1)  # what one step draws
    assert errors[0] == pytest.approx(np.abs(alone - PRIOR).sum() / 2, abs=0.02)
    assert legal[0] == pytest.approx(alone[PRIOR > 0].sum(), abs=0.02)
    assert errors[0] > 0.4 > 0.2 > errors[1] > 2.5 * errors[2] and errors[2] < 0.05
    assert legal[0] < 0.7 < 0.85 < legal[1] < 0.97 < 0.99 < legal[2]


def test_one_position_at_a_time_is_exact():
    paths, info = draws(lambda key: reveal(key, reverse(posterior(MASKED), MASKED), MASKED, H))
    assert variation(paths, PRIOR) < 0.045
    assert bool(info.finite.all()) and bool((jax.vmap(legal_share, (0, None))(jnp.asarray(paths), LEGAL) == 1).all())
    left = (np.asarray(info.iterates) == K).sum(2)
    assert (left == np.arange(H, 0, -1)).all()


def test_masked_tokens_stay_and_uniform_ones_are_revised():
    changes = {}
    for noise in (MASKED, UNIFORM):
        paths, info = draws(lambda key, noise=noise: sample(key, reverse(posterior(noise), noise), noise, even(16), H))
        before = np.asarray(info.iterates)
        after = np.concatenate([before[:, 1:], paths[:, None]], axis=1)
        changes[noise] = ((before != after) & (before < K)).mean()
    assert changes[MASKED] == 0 and changes[UNIFORM] > 0.03


def test_what_cannot_be_finished_is_not_repaired():
    """Two positions revealed together that do not fit: no posterior, so that masks stay and the path is illegal."""
    distribution = reverse(posterior(MASKED), MASKED)
    paths, info = draws(lambda key: sample(key, distribution, MASKED, even(3), H))
    left = (paths == K).any(axis=1)
    finite = np.asarray(info.finite)
    assert 0.02 < left.mean() < 0.2 and not finite[left].any()
    assert (np.asarray(jax.vmap(legal_share, (0, None))(jnp.asarray(paths), LEGAL))[left] < 1).all()
    fraction = legal_share(jnp.asarray([0, 1, 2, 0, 3, 3]), LEGAL)  # legal, legal, forbidden, and two with a mask
    assert float(fraction) == pytest.approx(2 / 5)


@both
def test_pinned_tokens_condition_the_rest(noise):
    """A certain token is evidence like any other: with the exact posterior, what is drawn is the conditional
    distribution.
    """
    known, value = jnp.asarray([False, False, True, False]), jnp.asarray([0, 0, 2, 0])
    distribution = pinned(reverse(posterior(noise), noise), known, value)
    conditional = PRIOR * (PATHS[:, 2] == 2)
    paths, info = draws(lambda key: sample(key, distribution, noise, even(64), H, reference=distribution))
    assert variation(paths, conditional / conditional.sum()) < 0.04 and float(jnp.nanmax(info.path_kl)) == 0
    assert (paths[:, 2] == 2).all()


# --- guidance


@both
def test_ratios_are_those_of_sums_over_all_paths(noise):
    ratio, alpha = jax.jit(exact_ratio(log_h(noise), noise)), 0.4
    value = lambda z: np.log(brute(noise, z, alpha)[0] @ GAIN)
    changed = lambda z, i, v: np.concatenate([z[:i], [v], z[i + 1 :]])
    for z in np.asarray(noisy_paths(noise, alpha)[:6]):
        exact = np.array([[value(changed(z, i, v)) for v in range(noise.symbols)] for i in range(H)]) - value(z)
        result = np.asarray(ratio(jnp.asarray(z), jnp.asarray(alpha)))
        possible = np.isfinite(exact)
        assert possible.sum() >= 2 * H
        np.testing.assert_allclose(result[possible], exact[possible], atol=2e-4)


@both
def test_evidence_of_all_neighbours_is_that_of_sums_over_all_paths(noise):
    """One pass each way finds what changing any one token does to the evidence."""
    alpha = 0.4
    said = lambda z: noise.log_likelihood(jnp.asarray(z), jnp.asarray(alpha))
    rows = jnp.stack([said(np.full(H, v)) for v in range(noise.symbols)], axis=1)
    likelihood = np.exp(rows)  # [h, m, k]
    for z in np.asarray(noisy_paths(noise, alpha)[:6]):
        result = np.asarray(CHAIN.neighbours(said(z), rows))
        for i, v in product(range(H), range(noise.symbols)):
            changed = np.where(np.arange(H) == i, v, z)
            total = PRIOR @ np.prod([likelihood[t, changed[t], PATHS[:, t]] for t in range(H)], axis=0)
            np.testing.assert_allclose(np.exp(result[i, v]), total, rtol=1e-4, atol=1e-9)


def test_first_order_ratios_are_exact_where_log_h_is_linear(key):
    weights = jax.random.normal(key, (H, K + 1))
    linear = lambda e, alpha: alpha * jnp.sum(e * weights)
    z, alpha = jnp.asarray([0, 3, 1, 2]), jnp.asarray(0.3)
    np.testing.assert_allclose(first_order(linear, MASKED)(z, alpha), exact_ratio(linear, MASKED)(z, alpha), atol=1e-6)
    np.testing.assert_allclose(exact_ratio(linear, MASKED)(z, alpha)[1], 0.3 * (weights[1] - weights[1, 3]), atol=1e-6)


@pytest.mark.slow
@both
def test_exact_ratios_draw_the_tilt_and_first_order_does_not(noise):
    prior, steps = reverse(posterior(noise), noise), even(64)

    def compared(distribution, reference=prior):
        paths, info = draws(lambda key: sample(key, distribution, noise, steps, H, reference))
        return variation(paths, TILTED), float(jnp.nanmean(info.path_kl))

    exact, path_kl = compared(guided(prior, exact_ratio(log_h(noise), noise), 1.0))
    rough, _ = compared(guided(prior, first_order(log_h(noise), noise), 1.0))
    own, _ = compared(reverse(posterior(noise, TILTED_CHAIN), noise), reference=None)  # no guidance: the tilt's own
    assert np.abs(PRIOR - TILTED).sum() / 2 > 0.45
    assert exact < 0.045 and own < 0.045
    assert rough > exact + 0.04
    assert path_kl == pytest.approx(KL, abs=0.05)


def test_with_masked_noise_guidance_is_the_posterior_of_the_tilt():
    """At g = 1 and in steps of any size: h of a neighbour is what the tilt adds to its posterior."""
    prior, tilted = (reverse(posterior(MASKED, chain), MASKED) for chain in (CHAIN, TILTED_CHAIN))
    distribution = jax.jit(guided(prior, exact_ratio(log_h(MASKED), MASKED), 1.0))
    for z in noisy_paths(MASKED, 0.4)[:6]:
        result, exact = (np.exp(f(z, jnp.asarray(0.4), jnp.asarray(0.9))) for f in (distribution, tilted))
        np.testing.assert_allclose(result, exact, atol=1e-4)
    paths, info = draws(lambda key: reveal(key, distribution, MASKED, H, reference=prior))
    assert variation(paths, TILTED) < 0.04 and bool(info.finite.all())
    assert float(info.path_kl.mean()) == pytest.approx(KL, abs=0.03)


@both
def test_scale_zero_is_the_prior_and_scales_are_traced(noise):
    prior, ratio = reverse(posterior(noise), noise), exact_ratio(log_h(noise), noise)
    one = lambda scale, key: sample(key, guided(prior, ratio, scale), noise, even(8), H, prior)
    keys = jax.random.split(jax.random.key(0), 500)
    swept, info = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(jnp.asarray([0.0, 0.5, 2.0]), keys)
    plain, _ = jax.jit(jax.vmap(lambda key: sample(key, prior, noise, even(8), H)))(keys)
    np.testing.assert_array_equal(swept[0], plain)
    np.testing.assert_allclose(jnp.nanmax(jnp.abs(info.path_kl[0])), 0, atol=1e-4)
    earned = jnp.asarray(np.append(REWARDS, np.zeros((H, 1)), 1))[jnp.arange(H)[None, None], swept].sum(2).mean(1)
    assert earned[0] < earned[1] < earned[2]


# --- learning


def fitted(noise, paths, known=None, steps=300):
    """A table of logits, trained on paths by the training loop of the project, and its losses."""
    config = TrainSettings(steps=steps, batch=64, learning_rate=0.1, warmup=5, ema=0.9)
    loss = lambda params, key, s0: discrete.loss(key, lambda z, alpha: params, s0, noise, known)
    task = train.Task(loss, lambda key, data: data[jax.random.randint(key, (), 0, len(data))])
    state = train.start(jax.random.key(0), jnp.zeros((H, K)), config)
    state, losses = jax.jit(partial(train.chunk, task, config, steps=steps))(state, paths)
    return state.ema, losses


@both
def test_training_finds_the_posterior_of_independent_positions(noise):
    """There p(s_t | z) ~ p(s_t) q(z_t | s_t), and the best logits are log p(s_t)."""
    distribution = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]])
    rng = np.random.default_rng(0)
    paths = jnp.asarray(np.stack([rng.choice(K, p=p, size=4000) for p in distribution], axis=1))
    logits, losses = fitted(noise, paths)
    assert float(losses[-50:].mean()) < float(losses[:5].mean()) - 0.03
    learned = discrete.learned(lambda z, alpha: logits, noise)
    for alpha in (0.1, 0.6):
        for z in np.asarray(noisy_paths(noise, alpha)[:4]):
            exact = distribution * likelihoods(noise, z, alpha)
            result = learned(jnp.asarray(z), jnp.asarray(alpha))
            np.testing.assert_allclose(result, exact / exact.sum(1, keepdims=True), atol=0.04)


def test_pinned_positions_cost_nothing():
    logits, _ = fitted(UNIFORM, jnp.asarray(PATHS), known=jnp.asarray([True, False, False, False]), steps=2)
    assert bool((logits[0] == 0).all()) and bool((logits[1] != 0).any())


@both
def test_a_mixer_before_training_knows_what_z_says(noise, key):
    """Its last layer is 0, hence the posterior that of independent and even positions, whatever the level."""
    apply, params = build(key, lambda rngs: Mixer(H, noise.symbols, Size(patch=2, width=8, depth=1), rngs=rngs))
    learned = jax.jit(discrete.learned(discrete.network(apply, params, noise), noise))
    z = noisy_paths(noise, 0.5)[0]
    exact = likelihoods(noise, np.asarray(z), 0.5)
    np.testing.assert_allclose(learned(z, jnp.asarray(0.5)), exact / exact.sum(1, keepdims=True), atol=1e-6)
    paths, info = draws(lambda key: sample(key, reverse(learned, noise), noise, even(4), H))
    assert variation(paths, np.full(len(PATHS), 1 / len(PATHS))) < 0.08 and bool(info.finite.all())


# --- what is refused


def test_bad_input_is_named(key):
    distribution = reverse(posterior(MASKED), MASKED)
    for alphas in ([0.5, 0.3], [0.0, 1.0], [-0.1, 0.5], [0.2, 0.2], [float("nan")], []):
        with pytest.raises(ValueError, match=r"alphas=.* must increase"):
            sample(key, distribution, MASKED, jnp.asarray(alphas, jnp.float32), H)
    for horizon in (0, -1):
        with pytest.raises(ValueError, match=f"horizon={horizon}: must be 1 or more"):
            sample(key, distribution, MASKED, even(2), horizon)
        with pytest.raises(ValueError, match=f"horizon={horizon}: must be 1 or more"):
            reveal(key, distribution, MASKED, horizon)
    with pytest.raises(ValueError, match="reveal needs masked noise"):
        reveal(key, distribution, UNIFORM, H)
    for scale in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"scale={scale:g}: must be 0 or more"):
            guided(distribution, exact_ratio(log_h(MASKED), MASKED), scale)
    with pytest.raises(ValueError, match="states=1: must be 2 or more"):
        Noise.uniform(1)
    for blank in ((0.5, 0.6), (1.0,), (1.5, -0.5), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="blank: must be a distribution over 2 states"):
            Noise(2, blank)
