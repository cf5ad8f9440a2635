"""Particles on the exact prior: do they reach the tilt, and do they know log Z and how well they know it?

Claim: with 256 particles every method comes within 5 % of the exact KL, estimated as E[lambda r] - log Z, at a tilt of
3.2 nats; and the 95 % interval for log Z, from a single run, covers the truth in 93 to 97 % of runs on a Gaussian and
on paths of cells. A method that cannot says so by its effective sample size: shown for a tilt far beyond the particles.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from diffplan import smc
from diffplan.guide import dps
from diffplan.metrics.kl import particle_kl
from diffplan.noise import log_linear
from diffplan.oracle.distribution import exact_energy
from diffplan.samplers import Sampler, sde_2m
from diffplan.types import Denoise, Energy
from diffplan.validation import samplers
from diffplan.validation.devices import shard
from diffplan.validation.problems import Cells, Linear, cells, gaussian
from diffplan.validation.table import Row, mean

PARTICLES, RUNS, WEIGHT = 256, 8, 4.0
COVERED = 400
"""Runs that coverage is counted over: twice the 200 that were asked for, to halve the count's own error."""


def methods(problem: Cells, weight: float, levels: int) -> dict[str, smc.Method]:
    """Every particle method on paths of cells; DPS energies are what a user has without an exact one."""
    chain = problem.chain
    exact: Energy = exact_energy(chain, chain.tilted(problem.rewards, weight)[0])
    through: Energy = dps(chain.denoise, lambda x: weight * problem.reward(x))
    return {
        "TDS, exact energy": smc.tds(exact),
        "TDS, DPS energy": smc.tds(through),
        "annealed, DPS energy": smc.annealed(through, levels),
        "FK steering by difference": smc.fk_steering(through),
        "FK steering by maximum": smc.fk_steering(through, smc.maximum, every=levels // 4),
        "FK steering by sum": smc.fk_steering(through, smc.summed, every=levels // 4),
        "SVDD of 4, resampled": smc.svdd(through, 4, threshold=0.5),
    }


def clouds(
    seed: int, denoise: Denoise, reward: Callable, sampler: Sampler, method: smc.Method, count: int, runs: int
) -> tuple[smc.Cloud, smc.Info]:
    """Independent runs of one method; the weights are judged before anything is made of them."""
    one = lambda key: smc.particles(key, denoise, reward, sampler, method, count)
    keys = shard(jax.random.split(jax.random.key(seed), runs))
    cloud, info = jax.jit(jax.vmap(one))(keys)
    smc.require_valid(info)
    return cloud, info


def on_cells(seed: int) -> Iterator[Row]:
    """E[r] and the KL of every method, over independent runs."""
    problem = cells()
    chain = problem.chain
    sampler = Sampler(log_linear(64, *samplers.LEVELS["tabular"]), chain.shape, sde_2m)
    truth = samplers.tilts(chain, problem.rewards, (WEIGHT,))[0]
    decoded = jax.vmap(jax.vmap(lambda x: problem.path_reward(chain.decode(x))))
    for name, method in methods(problem, WEIGHT, len(sampler.sigmas)).items():
        reward = lambda x: WEIGHT * problem.path_reward(chain.decode(x))
        cloud, info = clouds(seed, chain.denoise, reward, sampler, method, PARTICLES, RUNS)
        rewards = jnp.sum(jnp.exp(cloud.log_weights) * decoded(cloud.x), axis=1)
        nats = particle_kl(WEIGHT * rewards, info.log_z)
        kind = "shown" if "maximum" in name or "sum" in name else "share"
        yield Row("particles", f"E[r], {name}", *mean(rewards), float(truth.reward), 0.02, kind)
        yield Row("particles", f"KL, {name}", *mean(nats), float(truth.kl), 0.05, kind)
        yield Row("particles", f"log Z, {name}", *mean(info.log_z), float(truth.log_z), np.nan, "shown")
        yield Row("particles", f"least effective share, {name}", *mean(info.ess.min(axis=1)), np.nan, np.nan, "shown")


def coverage(seed: int) -> Iterator[Row]:
    """Share of runs whose interval holds the true log Z; and a case where it cannot, with what the run says of it."""
    linear: Linear = gaussian()
    distribution, weight = linear.distribution, 1.0
    rough: Energy = lambda x, sigma: 0.7 * weight * jnp.sum(linear.slope * distribution.denoise(x, sigma))
    wide = Sampler(log_linear(64, *samplers.LEVELS["gaussian"]), distribution.shape, sde_2m)
    exact = float(distribution.tilted(linear.slope, weight)[1])
    reward = lambda x: weight * linear.reward(x)
    yield from covered(seed, "Gaussian", distribution.denoise, reward, rough, wide, exact)

    problem = cells()
    chain, weight = problem.chain, 1.5
    rough_cells: Energy = dps(chain.denoise, lambda x: 0.7 * weight * problem.reward(x))
    reward_cells = lambda x: weight * problem.path_reward(chain.decode(x))
    exact = float(chain.tilted(problem.rewards, weight)[1])
    sampler = Sampler(log_linear(160, *samplers.LEVELS["tabular"]), chain.shape, sde_2m)
    yield from covered(seed, "cells", chain.denoise, reward_cells, rough_cells, sampler, exact)

    # plain importance sampling of a tilt of 5.9 nats with 64 particles
    blind = smc.fk_steering(lambda x, sigma: jnp.zeros(()), threshold=0.0)
    far = lambda x: 8.0 * problem.path_reward(chain.decode(x))
    _, info = clouds(seed, chain.denoise, far, sampler, blind, 64, 64)
    off = np.asarray(info.log_z) - float(chain.tilted(problem.rewards, 8.0)[1])
    yield Row("coverage", "error of log Z, 64 unguided particles, lambda 8", *mean(off), 0.0, np.nan, "shown")
    worst = mean(info.ess[:, -1] * 64)
    yield Row("coverage", "their effective number: says that they fail", *worst, np.nan, 8.0, "most")


def covered(
    seed: int, name: str, denoise: Denoise, reward: Callable, energy: Energy, sampler: Sampler, exact: float
) -> Iterator[Row]:
    """The coverage of one method's 95 % interval: within 2 % of 95 %."""
    _, info = clouds(seed, denoise, reward, sampler, smc.tds(energy), 64, COVERED)
    low, high = smc.interval(info)
    inside = np.asarray((low <= exact) & (exact <= high), float)
    yield Row("coverage", f"95 % interval of log Z covers it, {name}", *mean(inside), 0.95, 0.02 / 0.95, "share")
    yield Row("coverage", f"log Z, {name}", *mean(info.log_z), exact, 0.02, "share")
