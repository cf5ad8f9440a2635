"""The prior: a diffusion model of behaviour, trained on windows whose first observation stays clean.

What sampling pins stays clean in training: always the first observation, in some windows the last one too, so that a
goal can be pinned.
"""

from collections.abc import Callable
from dataclasses import field, replace
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffplan import denoise
from diffplan.chain import Chain
from diffplan.codec import Cells, Codec
from diffplan.data.stream import Data
from diffplan.data.windows import Windows
from diffplan.denoise import CategoricalDenoiser, ChainDenoiser, Edm, NoiseLevels
from diffplan.learn.train import SILENT, Draw, Task, TrainSettings, train
from diffplan.models import NETWORKS, Chained, RowNetwork, Rows, build
from diffplan.noise import LogNormal, LogUniform, NoiseSettings
from diffplan.resolve import resolve
from diffplan.runs import Recorder
from diffplan.settings import FRACTION, INSIDE, SIZE, Named, at_least, more_than, require, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar

Network = TypeVar("Network", bound=Edm | ChainDenoiser)

TOLD_APART = LogNormal(-0.8, 0.9)
"""Training levels of one-hot plans: those at which cells are told apart, most of all."""


@settings("prior")
class PriorSettings:
    """The diffusion model of behaviour."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(1500, 64, "muon", 5e-2))
    network: Named = "chain"
    """chain: a network over rows that begins as the exact denoiser of a Markov chain of them; mixer: patched MLP-mixer;
    transformer: of rows or patches; unet: Diffuser's temporal U-Net (dim 32, mults 1-4-8, 3.68 M); or file.py:NAME of
    a function (key, horizon, dim, settings) -> (apply, params)."""
    states: Annotated[int | None, at_least(2, 2**16)] = None
    """Chain: number of its states; at most one for every eight rows of the data. If not given, the fewest of 64, 128,
    256 and 512 with which the chain by itself tells rows apart, or beyond which more gain little. Of one-hot plans
    every cell has as many of them as the others, from 1 to 8."""
    horizon: Annotated[int | None, at_least(2, 2**20)] = None
    """Rows of a plan; the patch, or 4 for the unet, must divide it. From the episodes, if not given."""
    stride: Annotated[int | None, at_least(1, 2**20)] = None
    """Steps from one row of a plan to the next. From the episodes, if not given."""
    width: Annotated[int, SIZE] = 32
    """Width of a row, or of a token; the unet's is its own. The transformer has a head for every 16."""
    depth: Annotated[int, SIZE] = 3
    """Number of blocks; the unet's is its own."""
    patch: Annotated[int, SIZE] = 1
    """Mixer and transformer: steps to a token."""
    goal_fraction: Annotated[float, FRACTION] = 0.1
    """Fraction of training windows whose last observation is kept clean too, so that goals can be pinned."""
    held_out: Annotated[float, INSIDE] = 0.1
    """Fraction of the episodes that training never sees, at least one; starts and reference plans come from them."""
    passes: Annotated[float, more_than(0)] = 400.0
    """Training stops after this many passes over the data, though prior.train.steps are more."""

    def check(self) -> None:
        """Raise ConfigError unless the network can be built for this horizon."""
        divisor = {"mixer": self.patch, "transformer": self.patch, "unet": 4}.get(str(self.network), 1)
        fits = self.horizon is None or self.horizon % divisor == 0
        require(fits, "prior.horizon", self.horizon, f"a multiple of {divisor}")


def pin_mask(windows: Data, goal: Bool[Array, ""]) -> Bool[Array, "h d"]:
    """The entries that are kept clean: the first observation, and the last if `goal`."""
    zero = jnp.zeros(windows.codec.observation_dim)
    first = windows.codec.pin(windows.horizon, zero).mask
    return first | (goal & windows.codec.pin(windows.horizon, zero, zero).mask)


def unchanged(apply: Apply) -> Apply:
    """The network itself."""
    return apply


def fit(
    windows: Data,
    config: PriorSettings,
    levels: NoiseSettings,
    chain: Chain | None,
    recorder: Recorder = SILENT,
    precision: Callable[[Apply], Apply] = unchanged,
) -> Edm | ChainDenoiser | CategoricalDenoiser:
    """Train the prior on windows of behaviour.

    Args:
        windows: what is learned, normalised by their own codec; all of them, or blocks of them.
        config: the network and the training.
        levels: the noise levels that sampling will use; of one-hot plans the levels are those at which cells are told
            apart.
        chain: of the rows of the windows, where the network begins with one; that of one-hot plans always does.
        recorder: hears of the training.
        precision: what the network of continuous plans is wrapped in, as `diffplan.models.in_bfloat16`.

    Returns:
        The denoiser of plans ``[h, d]``.
    """

    def draw(key: PRNGKey, windows: Windows) -> tuple[Float[Array, "h d"], Bool[Array, "h d"]]:
        key_window, key_goal = jax.random.split(key)
        return windows.draw(key_window), pin_mask(windows, jax.random.uniform(key_goal) < config.goal_fraction)

    start = untrained(config, windows.horizon, windows.codec, chain)
    if isinstance(start, CategoricalDenoiser):
        task = Task(lambda params, key, example: categorical(replace(start, params=params), key, *example), draw)
        return replace(start, params=train(task, start.params, windows, config.train, recorder))
    start = replace(start, apply=precision(start.apply))
    return fit_denoiser(start, draw, windows, LogUniform(levels.low, levels.high), config.train, recorder)


def untrained(
    config: PriorSettings, horizon: int, codec: Codec | Cells, chain: Chain | None
) -> Edm | ChainDenoiser | CategoricalDenoiser:
    """The denoiser of plans ``[h, d]``, as it is initialised: of one-hot plans, the posterior of their chain."""
    key = jax.random.key(config.train.seed)
    if isinstance(codec, Cells):
        assert chain is not None
        start, kernel, cells = jnp.log(chain.start), jnp.log(chain.kernel), codec.width
        apply, params = build(key, lambda rngs: Chained(start, kernel, cells, rngs=rngs))
        return CategoricalDenoiser(params, jnp.eye(cells), apply)
    if chain is not None:
        return beyond(key, chain, horizon, codec.observation_dim, config.width, config.depth)
    apply, params = resolve(config.network, NETWORKS, "prior.network")(key, horizon, codec.width, config)
    return Edm(params, apply)


def beyond(
    key: PRNGKey, chain: Chain, horizon: int, observed: int, width: int, depth: int, condition: int = 0
) -> ChainDenoiser:
    """The denoiser of a chain, before its network has learned anything. Every second block reaches twice as far."""
    size = Rows(width=width, dilations=tuple(1 + block % 2 for block in range(depth)))
    states, dim = chain.centres.shape
    network = lambda rngs: RowNetwork(horizon, dim, states, observed, size, condition=condition, rngs=rngs)
    apply, params = build(key, network)
    return ChainDenoiser(params, chain, apply)


def categorical(
    model: CategoricalDenoiser, key: PRNGKey, x: Float[Array, "h k"], mask: Bool[Array, "h k"]
) -> tuple[Scalar, dict[str, Scalar]]:
    """The cross-entropy of a one-hot plan whose rows under `mask` stay clean."""
    return denoise.categorical_loss(key, model, jnp.argmax(x, axis=1), TOLD_APART, mask)


def fit_denoiser(
    start: Network, draw: Draw, data: Any, levels: NoiseLevels, config: TrainSettings, recorder: Recorder = SILENT
) -> Network:
    """Train any denoiser that has `params`.

    draw: ``draw(key, data) -> (window [h, d], entries that stay clean [h, d])``.
    """

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array]) -> tuple:
        x, mask = example
        return denoise.loss(key, replace(start, params=params), x, mask, levels)

    return replace(start, params=train(Task(loss, draw), start.params, data, config, recorder))
