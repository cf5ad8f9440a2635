"""Pressure as the strength: does a budget of 4 nats buy a tilt of 4 nats?

Two ways to spend it. *Calibrated*: the scale is sought at which the path KL of a few plans is 4, and the tilt at that
scale is exact. *Along the chain*: `guide.budget` spends a stated share at every level. The path KL bounds from above
what the plans have moved, and the cheapest KL to their mean reward bounds it from below. Only the first is held to 4:
spent along the chain the second is about 2, so that budget is a bound and no more.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from diffplan.experiment.scale_rules import calibrate
from diffplan.guide import budget
from diffplan.metrics.kl import least_kl
from diffplan.noise import log_linear
from diffplan.samplers import Sampler, sample, sde_2m
from diffplan.validation import samplers
from diffplan.validation.devices import shard
from diffplan.validation.problems import cells, modes
from diffplan.validation.table import Row, mean

NATS, ALLOWED = 4.0, 0.1


def spent(
    seed: int, name: str, distribution, reward_table: jax.Array, reward: Callable, low: float, high: float
) -> Iterator[Row]:
    """Both ways on one problem."""
    sampler = Sampler(log_linear(256, *samplers.LEVELS[name]), distribution.shape, sde_2m)
    energy = samplers.exact_energies(distribution, reward_table)
    log_z = lambda weight: distribution.tilted(reward_table, weight)[1]

    def path_kl(scales: np.ndarray) -> np.ndarray:
        weights = tuple(float(scale) for scale in scales)
        return samplers.plans(jax.random.key(seed), distribution.denoise, energy, weights, sampler, 500)[1]

    result = calibrate(path_kl, NATS, low, high, points=4, rounds=2)
    exact = samplers.tilts(distribution, reward_table, (result.scale,))[0]
    what = f"path KL at the calibrated scale {result.scale:.3g}, {name}"
    yield Row("budget", what, result.value, result.error, NATS, ALLOWED, "share")
    yield Row("budget", f"exact KL at that scale, {name}", float(exact.kl), 0.0, NATS, ALLOWED, "share")

    guide = energy(jnp.asarray(result.scale))
    spending = budget(distribution.denoise, guide, jnp.asarray(NATS))
    one = lambda key: sample(key, spending, sampler, reference=distribution.denoise)
    x, info = jax.jit(jax.vmap(one))(shard(jax.random.split(jax.random.key(seed + 1), 4000)))
    rewards = np.asarray(jax.jit(jax.vmap(reward))(x), float)
    least = least_kl(log_z, jnp.float32(rewards.mean()), 0.0, 100.0)
    error = float(least.weight) * mean(rewards)[1]
    yield Row("budget", f"path KL spent along the chain, {name}", *mean(info.path_kl), NATS, ALLOWED, "share")
    yield Row("budget", f"least KL to its reward, {name}", float(least.kl), error, NATS, np.nan, "shown")


def on_both(seed: int) -> Iterator[Row]:
    """Paths of cells and four modes."""
    problem, linear = cells(), modes()
    on_cells = lambda x: problem.path_reward(problem.chain.decode(x))
    yield from spent(seed, "tabular", problem.chain, problem.rewards, on_cells, 1.0, 16.0)
    yield from spent(seed, "mixture", linear.distribution, linear.slope, linear.reward, 1.0, 16.0)
