"""The exact answers themselves, against brute force over all paths, quadrature, and simulation."""

from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from diffplan.envs.gridworld import Gridworld
from diffplan.envs.layout import hops
from diffplan.envs.linear import POINT, LinearPolicy, trajectory_distribution
from diffplan.oracle import control
from diffplan.oracle.distribution import exact_energy, tilt_numbers
from diffplan.oracle.gaussian import Gaussian
from diffplan.oracle.mixture import mixture
from diffplan.oracle.tabular import conditioned, markov

H, K = 4, 3
POINTS = jnp.asarray([[0.0, 1.0], [1.0, -0.5], [-1.0, 0.2]])
START = jnp.asarray([0.7, 0.3, 0.0])
KERNEL = jnp.asarray([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.0, 0.6, 0.4]])
REWARDS = jnp.asarray(np.random.default_rng(0).normal(size=(H, K)), jnp.float32)
GOLD = jnp.asarray(np.random.default_rng(1).normal(size=(H, K)), jnp.float32)
PATHS = np.array(list(product(range(K), repeat=H)))


def brute():
    """(probability, reward, gold) of every path, by the definition."""
    start, kernel = np.asarray(START, float), np.asarray(KERNEL, float)
    p = np.array([start[s[0]] * np.prod([kernel[a, b] for a, b in pairwise(s)]) for s in PATHS])
    total = lambda table: np.array([sum(float(table[t, s[t]]) for t in range(H)) for s in PATHS])
    return p, total(REWARDS), total(GOLD)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0, 60.0])
def test_tilted_chain_is_the_sum_over_all_paths(weight):
    chain = markov(START, KERNEL, H, POINTS)
    p, reward, gold = brute()
    shift = (weight * reward)[p > 0].max()
    z = (p * np.exp(weight * reward - shift)).sum()
    q = p * np.exp(weight * reward - shift) / z
    tilted, log_z = chain.tilted(REWARDS, weight)
    assert float(log_z) == pytest.approx(np.log(z) + shift, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose([np.exp(float(tilted.log_prob(jnp.asarray(s)))) for s in PATHS], q, atol=2e-5)
    assert float(tilted.expected(GOLD)) == pytest.approx(q @ gold, abs=1e-4)
    numbers = tilt_numbers(chain.log_z(REWARDS), weight, chain.most(REWARDS))
    mean, kl = q @ reward, (q[q > 0] * np.log(q[q > 0] / p[q > 0])).sum()
    assert float(numbers.reward) == pytest.approx(mean, abs=1e-4)
    assert float(numbers.variance) == pytest.approx(q @ (reward - mean) ** 2, abs=1e-3)
    assert float(numbers.kl) == pytest.approx(kl, abs=1e-4) == float(tilted.kl(chain))
    assert float(numbers.chi2) == pytest.approx((q[p > 0] ** 2 / p[p > 0]).sum() - 1, rel=1e-3, abs=1e-5)
    assert float(numbers.log_ratio) == pytest.approx(np.log((q[p > 0] / p[p > 0]).max()), abs=1e-4)


def test_no_tilted_path_is_illegal_at_any_weight():
    """A reward of 60 nats a step for a cell behind a wall buys no move through it."""
    world = Gridworld.from_text("######\n#O#OG#\n#O#OO#\n#OOOO#\n######")
    kernel = jnp.asarray(world.distribution.mean(axis=1), jnp.float32)
    start = jnp.zeros(len(kernel)).at[0].set(1.0)
    chain = markov(start, kernel, 5, jnp.asarray(world.cells, jnp.float32))
    beside = jnp.zeros((5, len(kernel))).at[:, 1].set(1.0)  # one step to the right, through the wall; 6 steps around
    tilted, _ = chain.tilted(beside, 60.0)
    paths = jax.vmap(tilted.draw)(jax.random.split(jax.random.key(0), 500))
    assert bool((jax.vmap(chain.legal)(paths) == 1).all())
    assert bool(jnp.isfinite(tilted.log_kernels).any(axis=2).all())
    assert bool((~jnp.isfinite(tilted.log_kernels) >= ~jnp.isfinite(chain.log_kernels)).all())
    assert float(tilted.occupancy()[:, 1].max()) == 0.0


def test_draws_of_a_tilted_chain_have_its_distribution():
    tilted, _ = markov(START, KERNEL, H, POINTS).tilted(REWARDS, 1.0)
    paths = jax.jit(jax.vmap(tilted.draw))(jax.random.split(jax.random.key(0), 20_000))
    counts = np.bincount(np.asarray(paths) @ K ** np.arange(H)[::-1], minlength=K**H) / len(paths)
    exact = np.exp([float(tilted.log_prob(jnp.asarray(s))) for s in PATHS])
    assert np.abs(counts - exact).sum() / 2 < 0.02
    np.testing.assert_allclose(jax.nn.one_hot(paths, K).mean(0), tilted.occupancy(), atol=0.015)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0, 40.0])
def test_noised_chain_is_the_mixture_over_all_paths(sigma):
    """Density, denoiser and energy, at a point between the paths."""
    chain = markov(START, KERNEL, H, POINTS)
    x = 0.3 + POINTS[jnp.asarray([0, 1, 1, 2])] + sigma * jax.random.normal(jax.random.key(1), (H, 2))
    p, reward, _ = brute()
    means = np.asarray(POINTS, float)[PATHS]
    square = ((np.asarray(x, float) - means) ** 2).sum((1, 2))
    log_terms = np.log(p[p > 0]) - square[p > 0] / (2 * sigma**2) - H * 2 * np.log(sigma * np.sqrt(2 * np.pi))
    log_p = np.logaddexp.reduce(log_terms)
    posterior = np.exp(log_terms - log_p)
    level = jnp.asarray(sigma)
    assert float(chain.log_density(x, level)) == pytest.approx(log_p, rel=1e-4)
    np.testing.assert_allclose(chain.denoise(x, level), np.einsum("p,phd->hd", posterior, means[p > 0]), atol=2e-4)
    tilted, log_z = chain.tilted(REWARDS, 2.0)
    energy = exact_energy(chain, tilted, log_z)(x, level)
    assert float(energy) == pytest.approx(np.log(posterior @ np.exp(2 * reward[p > 0])), abs=2e-3)
    guided = chain.denoise(x, level) + sigma**2 * jax.grad(exact_energy(chain, tilted))(x, level)
    np.testing.assert_allclose(guided, tilted.denoise(x, level), atol=5e-3)


def test_denoiser_far_from_every_path_stays_finite():
    """Evidence for a move that cannot be made, at a level where its likelihood underflows."""
    chain = markov(START, KERNEL, H, POINTS)
    x = POINTS[jnp.asarray([0, 2, 0, 2])]  # 0 -> 2 and 2 -> 0 are impossible
    assert bool(jnp.isfinite(chain.denoise(x, jnp.asarray(0.02))).all())


def test_goal_conditioned_chain_is_the_mixture_of_its_goals():
    """The planner that draws its goal first: not Markov in the cells, and a chain with the goal in its state."""
    other = jnp.asarray([[0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [0.0, 0.0, 1.0]])
    chains = [markov(START, kernel, H, POINTS) for kernel in (KERNEL, other)]
    whole = conditioned(chains, jnp.asarray([0.25, 0.75]))
    rewards = jnp.tile(REWARDS, (1, 2))
    log_zs = jnp.stack([chain.tilted(REWARDS, 2.0)[1] for chain in chains])
    tilted, log_z = whole.tilted(rewards, 2.0)
    assert float(log_z) == pytest.approx(float(jax.nn.logsumexp(log_zs + jnp.log(jnp.asarray([0.25, 0.75])))), rel=1e-5)
    goals = tilted.occupancy().reshape(H, 2, K).sum(2)
    np.testing.assert_allclose(goals, jnp.broadcast_to(goals[:1], goals.shape), atol=1e-5)  # the goal holds
    x = jax.random.normal(jax.random.key(0), (H, 2))
    log_p = [jnp.log(q) + c.log_density(x, jnp.asarray(0.7)) for q, c in zip((0.25, 0.75), chains, strict=True)]
    assert float(whole.log_density(x, jnp.asarray(0.7))) == pytest.approx(float(jnp.logaddexp(*log_p)), rel=1e-5)
    with pytest.raises(ValueError, match="2 chains need as many"):
        conditioned(chains, jnp.ones(3) / 3)


def test_bad_input_is_named():
    chain = markov(START, KERNEL, H, POINTS)
    with pytest.raises(ValueError, match=r"weight=-1: must be 0 or more"):
        chain.tilted(REWARDS, -1.0)
    with pytest.raises(ValueError, match="rewards must be finite"):
        chain.tilted(REWARDS.at[0, 0].set(-jnp.inf), 1.0)
    with pytest.raises(ValueError, match="kernel: every row"):
        markov(START, KERNEL * 1.1, H)
    with pytest.raises(ValueError, match="weights="):
        mixture(jnp.asarray([0.5, 0.6]), jnp.zeros((2, 2)), jnp.stack([jnp.eye(2)] * 2), (1, 2))
    with pytest.raises(ValueError, match="weight=nan"):
        tilt_numbers(chain.log_z(REWARDS), float("nan"))


# --- stochastic moves


def slippery(slip):
    """(world, rewards ``[h, k]``) in a small gridworld with a wandering planner."""
    grid = Gridworld.from_text("#####\n#OOG#\n#O#O#\n#OOO#\n#####", slip=slip)
    k = len(grid.cells)
    policy = jnp.asarray(0.4 * np.eye(5)[grid_moves(grid)] + 0.12, jnp.float32)
    start = jnp.zeros(k).at[k - 3].set(1.0)
    goal = np.flatnonzero((grid.cells == grid.goal).all(1))[0]
    return control.World(start, policy, jnp.asarray(grid.distribution, jnp.float32)), jnp.zeros((6, k)).at[:, goal].set(
        1.0
    )


def grid_moves(grid):
    """In every cell the first move that leads nearest to the goal."""
    goal = np.flatnonzero((grid.cells == grid.goal).all(1))[0]
    return hops(grid.next_cell)[grid.next_cell][:, :, goal].argmin(axis=1)


def test_with_sure_moves_the_two_references_are_one():
    world, rewards = slippery(0.0)
    tilt, real = control.trajectory_tilt(world, rewards, 2.0), control.executable(world, rewards, 2.0)
    assert float(tilt.reward) == pytest.approx(float(real.reward), rel=1e-4)
    # moves that lead to the same cell are one move to the tilt, so its policy may differ; what is earned may not
    assert float(control.execute(world, tilt.policy, rewards)[0]) == pytest.approx(float(tilt.reward), rel=1e-4)


def test_the_trajectory_tilt_plans_luck():
    """Brute force over paths of cells and actions; and the executable reference beats it where it counts."""
    world, rewards = slippery(0.5)
    horizon = len(rewards)
    tilt, real = control.trajectory_tilt(world, rewards, 2.0), control.executable(world, rewards, 2.0)
    earned = control.execute(world, tilt.policy, rewards)[0]
    assert float(tilt.reward) > float(real.reward) + 0.1 and float(tilt.reward) > float(earned) + 0.1
    # the soft objective of every policy is at most that of the executable one: try the tilt's, and the behaviour
    objective = lambda reward, kl: float(reward - kl / 2.0)
    behaviour = jnp.broadcast_to(world.policy[None], (horizon - 1, *world.policy.shape))
    ratio = jnp.where(tilt.policy > 0, tilt.policy * jnp.log(tilt.policy / world.policy[None]), 0.0).sum(2)
    kl = jnp.sum(control.execute(world, tilt.policy, rewards)[1][:-1] * ratio)
    assert objective(real.reward, real.kl) > objective(earned, kl)
    assert objective(real.reward, real.kl) > objective(control.execute(world, behaviour, rewards)[0], 0.0)
    # at weight 0 both are the behaviour
    for plan in (control.trajectory_tilt, control.executable):
        np.testing.assert_allclose(plan(world, rewards, 0.0).policy, behaviour, atol=1e-5)


def test_execute_is_what_simulation_earns():
    world, rewards = slippery(0.5)
    plan = control.executable(world, rewards, 3.0)
    rng = np.random.default_rng(0)
    policy, moves, start = (np.asarray(a, float) for a in (plan.policy, world.moves, world.start))
    total = []
    for _ in range(3000):
        s = rng.choice(len(start), p=start)
        reward = float(rewards[0, s])
        for t in range(len(policy)):
            a = rng.choice(5, p=policy[t, s] / policy[t, s].sum())
            s = rng.choice(len(start), p=moves[s, a] / moves[s, a].sum())
            reward += float(rewards[t + 1, s])
        total.append(reward)
    assert np.mean(total) == pytest.approx(float(plan.reward), abs=4 * np.std(total) / np.sqrt(len(total)))


# --- Gaussian and mixture


def quadratic():
    """(prior, slope, curvature) with a correlated prior of two entries."""
    covariance = jnp.asarray([[0.5, 0.2], [0.2, 0.3]])
    prior = Gaussian.of(jnp.asarray([0.4, -0.2]), covariance, (1, 2))
    return prior, jnp.asarray([[1.0, 0.5]]), jnp.asarray([[0.8, 0.1], [0.1, 0.4]])


def test_quadratic_tilt_of_a_gaussian_by_quadrature():
    prior, slope, curvature = quadratic()
    tilted, log_z = prior.tilted(slope, 1.5, curvature)
    p = stats.multivariate_normal(np.asarray(prior.mean), np.asarray(prior.covariance)).pdf
    c, q = np.asarray(slope).ravel(), np.asarray(curvature)
    density = lambda *x: p(x) * np.exp(1.5 * (c @ x - np.asarray(x) @ q @ x / 2))
    moment = lambda f: integrate.dblquad(lambda y, x: f(x, y) * density(x, y), -5, 5, -5, 5, epsabs=1e-6)[0]
    z = moment(lambda x, y: 1.0)
    assert float(log_z) == pytest.approx(np.log(z), abs=1e-4)
    np.testing.assert_allclose(tilted.mean, [moment(lambda x, y: x) / z, moment(lambda x, y: y) / z], atol=1e-4)
    assert float(tilted.covariance[0, 1]) == pytest.approx(
        moment(lambda x, y: x * y) / z - float(tilted.mean[0] * tilted.mean[1]), abs=1e-4
    )
    assert float(jnp.exp(tilted.log_density(jnp.asarray([[0.1, 0.3]]), jnp.asarray(1e-3)))) == pytest.approx(
        density(0.1, 0.3) / z, rel=1e-3
    )


def test_linear_gaussian_plans():
    """Rank-deficient plans of a noiseless linear environment: the tilt stays in the plane of what is possible, and its
    mean is the plan that optimal control finds, by plain linear algebra on the sources.
    """
    policy = LinearPolicy(((-0.5, -0.5),), (0.1,), 0.7)
    horizon = 5
    mean, covariance = trajectory_distribution(POINT, policy, horizon)
    prior = Gaussian.of(jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32), (horizon, 3))
    slope = jnp.tile(jnp.asarray([[1.0, 0.0, 0.0]]), (horizon, 1))
    curvature = np.diag(np.tile([0.0, 0.0, 1.0], horizon))
    tilted, _ = prior.tilted(slope, 2.0, jnp.asarray(curvature, jnp.float32))
    # x0 = mean + L w with w ~ N(0, I): maximise 2 r - |w|^2 / 2 in w
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    c = np.asarray(slope, float).ravel()
    w = np.linalg.solve(np.eye(len(c)) + 2 * root.T @ curvature @ root, 2 * root.T @ (c - curvature @ mean))
    np.testing.assert_allclose(tilted.mean, mean + root @ w, atol=2e-3)
    plan = tilted.mean.reshape(horizon, 3)
    a, b = np.array(POINT.transition), np.array(POINT.control)
    np.testing.assert_allclose(plan[1:, :2], plan[:-1, :2] @ a.T + plan[:-1, 2:] @ b.T, atol=2e-3)


def three_modes():
    """A mixture in the plane."""
    means = jnp.asarray([[-1.0, 0.5], [1.0, 1.0], [0.3, -1.0]])
    covariances = jnp.asarray([[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]], [[0.15, 0.0], [0.0, 0.15]]])
    return mixture(jnp.asarray([0.5, 0.3, 0.2]), means, covariances, (1, 2))


def test_mixture_against_its_draws():
    prior, slope = three_modes(), jnp.asarray([[0.7, -0.4]])
    x = np.asarray(jax.vmap(prior.draw)(jax.random.split(jax.random.key(0), 200_000)), float).reshape(-1, 2)
    np.testing.assert_allclose(x.mean(0), np.asarray(prior.mean()).ravel(), atol=0.01)
    tilted, log_z = prior.tilted(slope, 2.0)
    weights = np.exp(2 * x @ np.asarray(slope).ravel())
    assert float(log_z) == pytest.approx(np.log(weights.mean()), abs=0.02)
    np.testing.assert_allclose(tilted.mean().ravel(), weights @ x / weights.sum(), atol=0.02)
    # the denoiser and the energy at a noisy point, by weighing the draws with their likelihood
    at, sigma = np.array([0.2, 0.1]), 0.8
    likelihood = np.exp(-((at - x) ** 2).sum(1) / (2 * sigma**2))
    level, point = jnp.asarray(sigma), jnp.asarray(at, jnp.float32)[None]
    np.testing.assert_allclose(prior.denoise(point, level).ravel(), likelihood @ x / likelihood.sum(), atol=0.01)
    energy = exact_energy(prior, tilted, log_z)(point, level)
    assert float(energy) == pytest.approx(np.log(likelihood @ weights / likelihood.sum()), abs=0.02)
    reward = lambda x0: jnp.sum(slope * x0)
    assert float(prior.energy(reward, 2.0, "exact")(point, level)) == pytest.approx(float(energy), abs=1e-3)
    curved = lambda x0: -jnp.sum(x0**2)
    values = -(x**2).sum(1)
    expected = {
        "exact": np.log(likelihood @ np.exp(2 * values) / likelihood.sum()),
        "regression": 2 * likelihood @ values / likelihood.sum(),
        "classifier": 2 * np.log(likelihood @ np.exp(values) / likelihood.sum()),
    }
    for kind, value in expected.items():
        assert float(prior.energy(curved, 2.0, kind, nodes=15)(point, level)) == pytest.approx(value, abs=0.02), kind


def test_score_of_the_density_is_the_denoiser():
    """Tweedie, for every distribution: x + sigma^2 grad log p_sigma(x) = D(x, sigma)."""
    gaussian, _, _ = quadratic()
    for distribution in (gaussian, three_modes(), markov(START, KERNEL, 2, POINTS)):
        x = jax.random.normal(jax.random.key(3), (2, 2) if distribution.shape[0] == 2 else (1, 2))
        for sigma in (0.2, 2.0):
            moved = x + sigma**2 * jax.grad(distribution.log_density)(x, jnp.asarray(sigma))
            np.testing.assert_allclose(moved, distribution.denoise(x, jnp.asarray(sigma)), atol=1e-4)
