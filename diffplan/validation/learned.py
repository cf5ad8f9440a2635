"""What is learned of the cells: the prior, by diffusion, and the exact energy of its reward, by contrast.

Both are trained on paths drawn from the exact prior, so that their only errors are their own. Every model is a stage of
the run, and read back when it is there.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.denoise import CategoricalDenoiser, amplitudes, categorical_loss
from diffplan.learn import categorical, contrastive
from diffplan.learn.categorical import Loss
from diffplan.learn.contrastive import ContrastiveEnergy
from diffplan.learn.train import TrainSettings
from diffplan.models import MessagesValue, build
from diffplan.noise import LogNormal
from diffplan.runs import Run, stage
from diffplan.runs.files import digest
from diffplan.types import PRNGKey, Scalar
from diffplan.validation.problems import Cells


class Size(NamedTuple):
    """How much is trained: paths of data, and those with rewards; gradient steps of prior, energy, discrete prior."""

    paths: int = 262_144
    labelled: int = 2_097_152
    prior: int = 4500
    energy: int = 1700
    discrete: int = 1000


HIGH = 9.0
"""The largest weight that the energy learns."""


def settings(seed: int, steps: int, batch: int) -> TrainSettings:
    """How everything here is trained."""
    rate = {"optimiser": "muon", "learning_rate": 2e-2}
    return TrainSettings(steps=steps, batch=batch, **rate, ema=0.998, seed=seed, save_every=1000)


def draws(key: PRNGKey, problem: Cells, count: int) -> Int[Array, "n h"]:
    """Paths of the exact prior."""
    return jax.jit(jax.vmap(problem.chain.draw))(jax.random.split(key, count))


def fit_categorical(
    run: Run, name: str, problem: Cells, paths: int, loss: Loss, config: TrainSettings
) -> CategoricalDenoiser:
    """A network over cells (4b), trained on paths of the exact prior, in ``RUN/NAME``."""
    data = draws(jax.random.fold_in(jax.random.key(config.seed), 1), problem, paths)
    about, inputs = {"train": config, "paths": paths}, {"problem": digest(problem.chain)}
    return stage(run, name, partial(categorical.fit, problem.chain.points, data, loss, config), about, inputs).model


def fit_prior(run: Run, seed: int, problem: Cells, size: Size) -> CategoricalDenoiser:
    """The diffusion prior over cells, ``RUN/prior``; levels where cells are told apart are drawn most."""
    levels = LogNormal(-0.8, 0.9)
    loss: Loss = lambda model, key, path: categorical_loss(key, model, path, levels)[0]
    return fit_categorical(run, "prior", problem, size.paths, loss, settings(seed, size.prior, 256))


@struct.dataclass
class Marginals:
    """A `Reader`: the prior's posterior of every step, what the noisy step says by itself, and the prior's E[r | x]."""

    prior: CategoricalDenoiser
    rewards: Float[Array, "h k"]

    def __call__(self, x: Float[Array, "h d"], sigma: Scalar) -> tuple[Float[Array, "h f"], Scalar]:
        own = self.prior.log_likelihood(x, sigma)
        logits = self.prior.logits(own)
        features = jnp.concatenate([amplitudes(logits), amplitudes(own)], axis=1)
        return features, jnp.sum(jax.nn.softmax(logits) * self.rewards)


def fit_energy(run: Run, seed: int, problem: Cells, prior: CategoricalDenoiser, size: Size) -> ContrastiveEnergy:
    """The exact energy of the reward, learned as a correction of E[r | x], ``RUN/energy``."""
    chain, key, config = problem.chain, jax.random.key(seed), settings(seed, size.energy, 6)
    dim = 2 * len(chain.points) + 1
    network = build(jax.random.fold_in(key, 2), lambda rngs: MessagesValue(dim, rngs=rngs))
    paths = draws(jax.random.fold_in(key, 3), problem, size.labelled)
    data = contrastive.contrast(chain.points[paths], jax.vmap(problem.path_reward)(paths), HIGH)
    reader = Marginals(prior, problem.rewards)
    fit = partial(contrastive.fit, network, reader, data, LogNormal(0.3, 1.0), config)
    inputs = {"problem": digest((chain, problem.rewards)), "prior": digest(prior)}
    return stage(run, "energy", fit, {"train": config, "labelled": size.labelled}, inputs).model
