"""What is learned of the cells: the prior, by diffusion, and the exact energy of its reward, by contrast.

Both are trained on paths drawn from the exact prior, so that their only errors are their own. Every model is a stage of
the run, and read back when it is there.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan import runtime
from diffplan.config import TrainConfig
from diffplan.denoise import Lattice, lattice_loss
from diffplan.learn import contrastive, train
from diffplan.learn.contrastive import ContrastiveEnergy
from diffplan.models import Local, LocalValue, build
from diffplan.noise import LogNormal
from diffplan.studies import stages
from diffplan.studies.exact.problems import Cells
from diffplan.types import PRNGKey, Scalar


class Size(NamedTuple):
    """How much is trained: paths of data, and those with rewards; gradient steps of prior, energy, discrete prior."""

    paths: int = 262_144
    labelled: int = 524_288
    prior: int = 4000
    energy: int = 3000
    discrete: int = 800


LOW, HIGH = 1.0, 10.0
"""The weights that the energy learns."""


def draws(key: PRNGKey, problem: Cells, count: int) -> Int[Array, "n h"]:
    """Paths of the exact prior."""
    return jax.jit(jax.vmap(problem.chain.draw))(jax.random.split(key, count))


def fit_prior(run: Path, seed: int, problem: Cells, size: Size) -> Lattice:
    """The diffusion prior over cells, ``RUN/prior``; levels where cells are told apart are drawn most."""
    chain = problem.chain
    config = TrainConfig(steps=size.prior, batch=128, learning_rate=3e-3, ema=0.998, seed=seed, save_every=1000)
    k = len(chain.points)
    apply, params = build(jax.random.key(seed), lambda rngs: Local(chain.horizon, k, k, rngs=rngs))
    levels = LogNormal(-0.8, 0.8)
    loss = lambda params, key, path: lattice_loss(key, Lattice(params, chain.points, apply), path, levels)
    draw = lambda key, paths: paths[jax.random.randint(key, (), 0, len(paths))]
    settings = runtime.plain(config) | {"paths": size.paths, "problem": "rooms"}
    data = draws(jax.random.fold_in(jax.random.key(seed), 1), problem, size.paths)
    ema = stages.train_stage(run / "prior", settings, train.Task(loss, draw), params, data, config, "none")
    return Lattice(ema, chain.points, apply)


@struct.dataclass
class Marginals:
    """A `Reader`: the prior's posterior of every step, what the noisy step says by itself, and the prior's E[r | x]."""

    prior: Lattice
    rewards: Float[Array, "h k"]

    def __call__(self, x: Float[Array, "h d"], sigma: Scalar) -> tuple[Float[Array, "h f"], Scalar]:
        own = self.prior.log_likelihood(x, sigma)
        posterior = self.prior.posterior(own)
        features = jnp.concatenate([posterior, jax.nn.softmax(own)], axis=1) * jnp.sqrt(float(own.shape[1]))
        return features, jnp.sum(posterior * self.rewards)


def fit_energy(run: Path, seed: int, problem: Cells, prior: Lattice, size: Size) -> ContrastiveEnergy:
    """The exact energy of the reward, learned as a correction of E[r | x], ``RUN/energy``."""
    chain = problem.chain
    config = TrainConfig(steps=size.energy, batch=6, learning_rate=3e-3, ema=0.998, seed=seed, save_every=1000)
    dim = 2 * len(chain.points) + 1
    make = lambda rngs: LocalValue(chain.horizon, dim, dilations=(1, 2, 4, 8), rngs=rngs)
    apply, params = build(jax.random.fold_in(jax.random.key(seed), 2), make)
    paths = draws(jax.random.fold_in(jax.random.key(seed), 3), problem, size.labelled)
    data = contrastive.contrast(chain.points[paths], jax.vmap(problem.path_reward)(paths), LOW, HIGH)
    reader = Marginals(prior, problem.rewards)
    task = contrastive.task(apply, reader, LogNormal(0.0, 1.0), LOW, HIGH)
    settings = runtime.plain(config) | {"labelled": size.labelled, "problem": "rooms", "prior": size.prior}
    ema = stages.train_stage(run / "energy", settings, task, params, data, config, "none")
    return ContrastiveEnergy(ema, reader, apply, LOW, HIGH)
