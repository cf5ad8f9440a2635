"""What only cells have: moves that cannot be made, moves that slip, and noise that is discrete.

Claims. No weight buys an illegal move. With slipping moves the trajectory tilt promises more than its policy earns, and
the executable reference earns what it promises. Discrete diffusion with exact ratios draws the tilt, one position at a
time under masks and in small steps under uniform noise; its first-order form does not. Plans are never repaired: an
illegal move counts as one.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import discrete
from diffplan.denoise import CategoricalDenoiser
from diffplan.discrete import Keep, Noise, Posterior, Ratio, Tokens
from diffplan.envs.base import follow
from diffplan.envs.gridworld import Gridworld
from diffplan.oracle import control
from diffplan.runs import Run
from diffplan.types import PRNGKey
from diffplan.validation import learned
from diffplan.validation.devices import shard
from diffplan.validation.learned import Size
from diffplan.validation.problems import ROOMS, Cells, behaviour, cells
from diffplan.validation.samplers import tilts
from diffplan.validation.table import Kind, Row, mean

WEIGHT = 4.0


def legality(seed: int) -> Iterator[Row]:
    """Draws of the tilt at lambda 60: every path legal."""
    problem = cells()
    tilted, _ = problem.chain.tilted(problem.rewards, 60.0)
    paths = jax.jit(jax.vmap(tilted.draw))(jax.random.split(jax.random.key(seed), 20_000))
    legal = np.asarray(jax.vmap(problem.chain.legal)(paths))
    yield Row("legality", "legal moves of the tilt at lambda 60", *mean(legal), 1.0, 1.0, "least")


def references(seed: int) -> Iterator[Row]:
    """Both references with half of all moves slipping, executed in the environment itself."""
    rooms = replace(ROOMS, slip=0.5)
    world, problem = behaviour(rooms), cells()
    for name, plan in (("trajectory tilt", control.trajectory_tilt), ("executable", control.executable)):
        answer = plan(world, problem.rewards, WEIGHT)
        earned, _ = control.execute(world, answer.policy, problem.rewards)
        yield Row("references", f"reward planned, {name}", float(answer.reward), 0.0, np.nan, np.nan, "shown")
        yield Row("references", f"reward earned exactly, {name}", float(earned), 0.0, np.nan, np.nan, "shown")

        keys = jax.random.split(jax.random.key(seed), 20_000)
        value = jax.jit(partial(simulated, rooms, problem.rewards))(keys, answer.policy)
        yield Row("references", f"reward earned in the environment, {name}", *mean(value), float(earned), 0.01, "share")
        optimism = (float(answer.reward) - float(earned)) / float(earned)
        kind, bound = ("least", 0.02) if name == "trajectory tilt" else ("most", 1e-4)
        yield Row("references", f"optimism as a share of what is earned, {name}", optimism, 0.0, np.nan, bound, kind)


def simulated(
    rooms: Gridworld, rewards: Float[Array, "h k"], keys: Array, policy: Float[Array, "t k a"]
) -> Float[Array, "n"]:
    """The rewards that a policy earns in the environment, an episode a key."""
    cell = lambda observation: rooms.state_of(observation).cell

    def act(key: PRNGKey, observation: Float[Array, "o"], t: Array) -> Float[Array, "a"]:
        move = jax.random.categorical(key, jnp.log(policy[t, cell(observation)]))
        return jax.nn.one_hot(move, policy.shape[-1])

    def one(key: PRNGKey) -> Array:
        first = rooms.state_of(jnp.asarray(rooms.cells[0], jnp.float32))
        places = follow(rooms, key, first, act, len(policy)).transitions.observation
        return rewards[0, first.cell] + jnp.sum(rewards[jnp.arange(1, len(rewards)), jax.vmap(cell)(places)])

    return jax.vmap(one)(keys)


def log_h(problem: Cells, noise: Noise):
    """log E[exp(lambda R) | z] of the exact prior, but for log Z."""
    tilted, _ = problem.chain.tilted(problem.rewards, WEIGHT)

    def value(e: Float[Array, "h m"], alpha: Array) -> Array:
        evidence = noise.relaxed(e, alpha)
        return tilted.evidence(evidence) - problem.chain.evidence(evidence)

    return value


def known_ratio(problem: Cells, noise: Noise) -> Ratio:
    """The exact ratios of (62): one pass along the chain each way, instead of `log_h` at h * m neighbours."""
    tilted, _ = problem.chain.tilted(problem.rewards, WEIGHT)

    def ratios(z: Tokens, alpha: Keep) -> Float[Array, "h m"]:
        evidence = noise.log_likelihood(z, alpha)
        symbols = jnp.broadcast_to(jnp.arange(noise.symbols)[:, None], (noise.symbols, len(z)))
        rows = jax.vmap(noise.log_likelihood, (0, None), 1)(symbols, alpha)
        gain = tilted.neighbours(evidence, rows) - problem.chain.neighbours(evidence, rows)
        return gain - jnp.take_along_axis(gain, z[:, None], axis=1)

    return ratios


def fit_posterior(run: Run, seed: int, problem: Cells, size: Size) -> CategoricalDenoiser:
    """A network's posterior under masks and uniform noise alike, ``RUN/discrete``: it reads evidence (4b)."""
    k = len(problem.chain.points)
    noises = (Noise.masked(k), Noise.uniform(k))

    def loss(model: CategoricalDenoiser, key: PRNGKey, path: Array) -> Array:
        def under(noise: Noise) -> Array:
            return discrete.loss(key, lambda z, alpha: model.logits(noise.log_likelihood(z, alpha)), path, noise)[0]

        return jnp.stack([under(noise) for noise in noises]).mean()

    config = learned.settings(seed, size.discrete, 128)
    return learned.fit_categorical(run, "discrete", problem, size.paths, loss, config)


def walks(seed: int, noise: Noise, posterior: Posterior, ratio: Ratio | None, horizon: int, count: int) -> tuple:
    """(paths, path KL): under masks one position at a time, under uniform noise in 64 steps."""
    prior = discrete.reverse(posterior, noise)
    distribution = prior if ratio is None else discrete.guided(prior, ratio, 1.0)

    def one(key: PRNGKey) -> tuple[Array, Array]:
        if noise == Noise.masked(noise.states):
            path, info = discrete.reveal(key, distribution, noise, horizon, prior)
        else:
            path, info = discrete.sample(key, distribution, noise, discrete.even(64), horizon, prior)
        return path, info.path_kl

    return jax.jit(jax.vmap(one))(shard(jax.random.split(jax.random.key(seed), count)))


def discretely(seed: int, problem: Cells, model: CategoricalDenoiser) -> Iterator[Row]:
    """Exact and learned denoisers, without guide, with exact ratios and with first-order ones.

    A learned denoiser gives probability to paths that the exact distribution does not have, where log h is not finite:
    plans that come there have no path KL. Its mean is over the others, and their share is a row.
    """
    chain = problem.chain
    k, legal = len(chain.points), jnp.isfinite(chain.log_kernels[0])
    truth = tilts(chain, problem.rewards, (WEIGHT,))[0]
    plain, tilted = float(chain.expected(problem.rewards)), float(truth.reward)
    for kind, noise in (("masked", Noise.masked(k)), ("uniform", Noise.uniform(k))):
        learned: Posterior = lambda z, alpha, noise=noise: model.posterior(noise.log_likelihood(z, alpha))
        known: Posterior = lambda z, alpha, noise=noise: chain.posterior(noise.log_likelihood(z, alpha))
        exact, rough = known_ratio(problem, noise), discrete.first_order(log_h(problem, noise), noise)
        methods: tuple[tuple[str, Posterior, Ratio | None, float, int, Kind], ...] = (
            ("exact denoiser, no guide", known, None, plain, 4000, "share"),
            ("exact denoiser, exact ratios", known, exact, tilted, 1000, "share"),
            ("exact denoiser, first-order ratios", known, rough, tilted, 1000, "shown"),
            ("learned denoiser, no guide", learned, None, plain, 2000, "shown"),
            ("learned denoiser, exact ratios", learned, exact, tilted, 1000, "shown"),
        )
        for name, posterior, ratio, reward, count, shown in methods:
            paths, nats = walks(seed, noise, posterior, ratio, chain.horizon, count)
            values = jax.vmap(problem.path_reward)(jnp.minimum(paths, k - 1))
            fraction = jax.vmap(discrete.legal_share, (0, None))(paths, legal)
            which = f"{kind}, {name}"
            yield Row("discrete", f"E[r], {which}", *mean(values), reward, 0.02, shown)
            yield Row("discrete", f"legal moves, {which}", *mean(fraction), 1.0, np.nan, "shown")
            if ratio is not None:
                finite = np.isfinite(nats)
                spent = mean(np.asarray(nats)[finite])
                yield Row("discrete", f"path KL, {which}", *spent, float(truth.kl), 0.05, shown)
                yield Row("discrete", f"plans of finite path KL, {which}", *mean(finite), 1.0, np.nan, "shown")
