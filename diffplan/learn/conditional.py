"""The denoiser of plans given conditions, trained so that it also answers when nothing, or only a part, is asked.

With c the condition of a window x0 and m a random mask over its parts, each part dropped (set to 0) with probability p
independently of the others (Ho and Salimans 2022, algorithm 1):

    min E |D(x_sigma, sigma, m c) - x0|^2 (1 + sigma^2) / sigma^2         D -> E[x0 | x_sigma, m c]             (91)

A condition has two parts, each led by a flag, for a value of 0 alone would be a condition like any other. A part that
is not asked for is 0, flag and all:

    c = (1, score, 1, the last row's observation as it would be pinned)                                          (90)
"""

from dataclasses import field, replace
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan import denoise
from diffplan.chain import Chain
from diffplan.codec import Cells, Codec
from diffplan.data.stream import Data
from diffplan.data.windows import Windows
from diffplan.denoise import ChainDenoiser, Edm, NoiseLevels
from diffplan.guide import Proxy
from diffplan.learn.prior import beyond, pin_mask
from diffplan.learn.train import SILENT, Draw, Task, TrainSettings, mapped, train
from diffplan.models import Mixer, Size, build
from diffplan.noise import LogUniform, NoiseSettings
from diffplan.runs import Recorder
from diffplan.settings import INSIDE, SIZE, settings
from diffplan.types import Level, Params, PRNGKey, Scalar

RETURN, GOAL = 0, 1
"""The parts of a condition."""


@settings("conditional")
class ConditionalSettings:
    """The diffusion model of behaviour given its score and where it ends, for classifier-free guidance."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(3000, 64, "muon", 5e-2))
    drop: Annotated[float, INSIDE] = 0.5
    """Probability that training leaves out a part of the condition, the score or the goal, each on its own. At 1/2
    score alone, goal alone, both and neither are equally often asked; methods ask for one part, or for nothing."""
    width: Annotated[int, SIZE] = 64
    """Width of a token."""
    depth: Annotated[int, SIZE] = 3
    """Number of blocks."""
    patch: Annotated[int, SIZE] = 2
    """Rows to a token, where the prior is no chain; it must divide prior.horizon."""


def parts(width: int) -> Int[np.ndarray, "c"]:
    """Which part each entry of a condition belongs to, for plans of `width` entries a step."""
    return np.repeat([RETURN, GOAL], [2, 1 + width])


def condition(codec: Codec | Cells, x: Float[Array, "h d"], score: Scalar) -> Float[Array, "c"]:
    """Equation (90), both parts, of a plan and its score."""
    zero = jnp.zeros(codec.observation_dim)
    end = jnp.where(codec.pin(len(x), zero, zero).mask[-1], x[-1], 0.0)
    return jnp.concatenate([jnp.stack([jnp.ones(()), score, jnp.ones(())]), end])


def fit(
    windows: Data,
    codec: Codec | Cells,
    proxy: Proxy,
    config: ConditionalSettings,
    levels: NoiseSettings,
    chain: Chain | None,
    recorder: Recorder = SILENT,
) -> "Conditioned":
    """Train (91) on windows of behaviour, each labelled by the proxy as it is drawn, and by where it ends.

    chain: of the rows of the windows, where the prior begins with one; this denoiser then does too.
    """
    which = parts(windows.width)
    start = untrained(config, windows, chain, len(which))
    mask = pin_mask(windows, jnp.asarray(False))

    def draw(key: PRNGKey, source: tuple[Windows, Proxy]) -> tuple:
        windows, proxy = source
        x = windows.draw(key)
        return x, mask, condition(codec, x, proxy.score(x))

    learning = task(start, draw, which, LogUniform(levels.low, levels.high), config.drop)
    source = mapped(windows, lambda windows: (windows, proxy))
    return Conditioned(replace(start, params=train(learning, start.params, source, config.train, recorder)))


def untrained(config: ConditionalSettings, windows: Data, chain: Chain | None, size: int) -> Edm | ChainDenoiser:
    """The denoiser of `fit`, as it is initialised; its network takes a condition of a size."""
    key = jax.random.key(config.train.seed)
    if chain is not None:
        observed = windows.codec.observation_dim
        return beyond(key, chain, windows.horizon, observed, config.width, config.depth, size)
    patches = Size(config.patch, config.width, config.depth)
    apply, params = build(key, lambda rngs: Mixer(windows.horizon, windows.width, patches, condition=size, rngs=rngs))
    return Edm(params, apply)


@struct.dataclass
class Conditioned:
    """A denoiser whose network takes one more input, a condition ``[c]``, as a `Conditional`."""

    denoiser: Edm | ChainDenoiser

    def given(self, condition: Float[Array, "c"]) -> Edm | ChainDenoiser:
        """The denoiser at one condition; nothing is asked at 0."""
        apply = self.denoiser.apply
        return replace(self.denoiser, apply=lambda *inputs: apply(*inputs, condition))

    def __call__(self, x: Float[Array, "h d"], sigma: Level, condition: Float[Array, "c"]) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x, condition]."""
        return self.given(condition)(x, sigma)


def dropped(key: PRNGKey, condition: Float[Array, "c"], parts: Int[np.ndarray, "c"], drop: float) -> Float[Array, "c"]:
    """The condition with each of its parts set to 0 with probability `drop`."""
    keep = jax.random.bernoulli(key, 1 - drop, (int(parts.max()) + 1,))
    return jnp.where(keep[parts], condition, 0.0)


def task(start: Edm | ChainDenoiser, draw: Draw, parts: Int[np.ndarray, "c"], levels: NoiseLevels, drop: float) -> Task:
    """Equation (91) as a training task.

    start: the denoiser whose `params` are trained. draw: ``draw(key, data) -> (window [h, d], entries that stay clean
    [h, d], condition [c])``. parts: which part each entry of a condition belongs to, numbered from 0. drop: p.
    """

    def loss(params: Params, key: PRNGKey, example: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        x, mask, condition = example
        key_drop, key_loss = jax.random.split(key)
        given = Conditioned(replace(start, params=params)).given(dropped(key_drop, condition, parts, drop))
        return denoise.loss(key_loss, given, x, mask, levels)

    return Task(loss, draw)
