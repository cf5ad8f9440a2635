"""The prior: a diffusion model of behaviour, trained on windows whose first observation stays clean.

What sampling pins stays clean in training: always the first observation, in some windows the last one too, so that a
goal can be pinned.
"""

from dataclasses import field
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffplan import denoise
from diffplan.data.windows import Windows
from diffplan.denoise import Edm, NoiseLevels
from diffplan.learn.train import SILENT, Draw, Task, TrainSettings, train
from diffplan.models import NETWORKS
from diffplan.noise import LogUniform, NoiseSettings
from diffplan.resolve import resolve
from diffplan.runs import Recorder
from diffplan.settings import FRACTION, INSIDE, SIZE, Named, at_least, require, settings
from diffplan.types import Apply, Params, PRNGKey


@settings("prior")
class PriorSettings:
    """The diffusion model of behaviour."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=3000, batch=64, learning_rate=2e-3))
    network: Named = "mixer"
    """mixer: patched MLP-mixer, fast on CPU; unet: Diffuser's temporal U-Net (dim 32, mults 1-4-8, 3.68 M); or
    file.py:NAME of a function (key, horizon, dim, settings) -> (apply, params)."""
    horizon: Annotated[int, at_least(2, 2**20)] = 128
    """Steps of a plan; the mixer's patch, or 4 for the unet, must divide it."""
    width: Annotated[int, SIZE] = 128
    """Mixer: width of a token."""
    depth: Annotated[int, SIZE] = 3
    """Mixer: number of blocks."""
    patch: Annotated[int, SIZE] = 8
    """Mixer: steps to a token."""
    goal_fraction: Annotated[float, FRACTION] = 0.1
    """Fraction of training windows whose last observation is kept clean too, so that goals can be pinned."""
    held_out: Annotated[float, INSIDE] = 0.1
    """Fraction of the trajectories that training never sees; starts and reference plans come from them."""

    def check(self) -> None:
        """Raise ConfigError unless the network can be built for this horizon."""
        divisor = {"mixer": self.patch, "unet": 4}.get(str(self.network), 1)
        require(self.horizon % divisor == 0, "prior.horizon", self.horizon, f"a multiple of {divisor}")


def pin_mask(windows: Windows, observation_dim: int, goal: Bool[Array, ""]) -> Bool[Array, "h d"]:
    """The entries that are kept clean: the first observation, and the last if `goal`."""
    entry = jnp.arange(windows.rows.shape[-1]) < observation_dim
    step = jnp.arange(windows.horizon)
    return ((step == 0) | (goal & (step == windows.horizon - 1)))[:, None] & entry[None]


def fit(
    windows: Windows, observation_dim: int, config: PriorSettings, levels: NoiseSettings, recorder: Recorder = SILENT
) -> Edm:
    """Train the prior on windows of normalised rows, observations first.

    Returns:
        The denoiser of plans ``[h, d]``.
    """
    make = resolve(config.network, NETWORKS, "prior.network")
    apply, params = make(jax.random.key(config.train.seed), config.horizon, windows.rows.shape[-1], config)

    def draw(key: PRNGKey, windows: Windows) -> tuple[Float[Array, "h d"], Bool[Array, "h d"]]:
        key_window, key_goal = jax.random.split(key)
        goal = jax.random.uniform(key_goal) < config.goal_fraction
        return windows.draw(key_window), pin_mask(windows, observation_dim, goal)

    distribution = LogUniform(levels.low, levels.high)
    return fit_denoiser((apply, params), draw, windows, distribution, config.train, recorder)


def fit_denoiser(
    network: tuple[Apply, Params],
    draw: Draw,
    data: Any,
    levels: NoiseLevels,
    config: TrainSettings,
    recorder: Recorder = SILENT,
) -> Edm:
    """Train any network as a denoiser. draw: ``draw(key, data) -> (window [h, d], entries that stay clean [h, d])``."""
    apply, params = network

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array]) -> tuple:
        x, mask = example
        return denoise.loss(key, Edm(params, apply), x, mask, levels)

    return Edm(train(Task(loss, draw), params, data, config, recorder), apply)
