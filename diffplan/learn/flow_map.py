"""A flow map, distilled from the prior (146).

The prior draws plans by the deterministic rule (6) with many levels, whose places are shifted from plan to plan. Any
two iterates x_i, x_j of a plan, i before j, say where the ODE goes, and so what the map is to answer:

    g(x_i, s_i, s_j) = (x_j - (s_j / s_i) x_i) / (1 - s_j / s_i)                                            (150)

For neighbours the right side is D(x_i, s_i), which the prior has evaluated already. So a quarter of the examples are
the denoising loss against the prior, g(x_i, s_i, s_i). Another quarter are neighbours, a quarter end at level 0, the
rest are any pairs. Squared errors are weighed as in the loss of denoisers (4).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan.chain import Chain
from diffplan.data.stream import Data
from diffplan.denoise import Edm, pinned
from diffplan.flow_map import FlowMap
from diffplan.learn import prior
from diffplan.learn.prior import pin_mask
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import FlowNetwork, Rows, build, sinusoidal
from diffplan.noise import NoiseSettings, karras
from diffplan.runs import Recorder, say
from diffplan.samplers import Sampler, chunked, ddim, sample
from diffplan.settings import FRACTION, SIZE, at_least, require, settings
from diffplan.types import Denoise, Params, Pins, PRNGKey, Scalar

BLOCK = 2048
"""Plans that the prior draws between two reports of progress."""

TARGET = 64
"""Numbers by which a network that begins with a Markov chain is told where to go."""

MOST = 2**27
"""Numbers that the iterates of all plans hold at most: half a gigabyte."""


@settings("flow_map")
class FlowMapSettings:
    """The flow map: what plans are drawn by in a few evaluations."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(4000, 128, "muon", 5e-2))
    network: Literal["rows", "chain"] = "rows"
    """rows: a network over rows alone, the fastest; chain: one beyond the Markov chain of the prior, for worlds of many
    ways."""
    courses: Annotated[int, at_least(1, 2**24)] = 16384
    """Plans that the prior draws, from which the map is distilled; fewer, if their iterates fill half a gigabyte."""
    levels: Annotated[int, at_least(3, 10_000)] = 32
    """Noise levels of those plans."""
    width: Annotated[int, SIZE] = 64
    """Width of a row."""
    depth: Annotated[int, SIZE] = 3
    """Number of blocks."""
    goal_fraction: Annotated[float, FRACTION] = 0.1
    """Fraction of those plans whose last observation is pinned too."""


@struct.dataclass
class Courses:
    """Plans of the prior on their way from noise. mask: entries that are pinned."""

    x: Float[Array, "n m h d"]
    sigmas: Float[Array, "n m"]
    mask: Bool[Array, "n h d"]


def courses(key: PRNGKey, teacher: Denoise, windows: Data, noise: NoiseSettings, config: FlowMapSettings) -> Courses:
    """Plans of the prior from first rows of behaviour, with all iterates. The key is consumed."""
    shape = windows.horizon, windows.codec.width
    count = max(1, min(config.courses, MOST // ((config.levels + 1) * shape[0] * shape[1])))

    def one(key: PRNGKey, window: Float[Array, "h d"], teacher: Denoise) -> tuple[Array, Array, Array]:
        key_goal, key_levels, key_plan = jax.random.split(key, 3)
        mask = pin_mask(windows, jax.random.uniform(key_goal) < config.goal_fraction)
        shift = jax.random.uniform(key_levels) - 0.5
        sigmas = karras(config.levels, noise.low, noise.high, shift=shift)
        plan, info = sample(key_plan, pinned(teacher, Pins(mask, window)), Sampler(sigmas, shape, ddim))
        x = jnp.concatenate([info.iterates, plan[None]])
        return jnp.where(mask[None], window[None], x), jnp.append(sigmas, 0.0), mask

    draw = jax.jit(lambda keys, rows, teacher: chunked(lambda key, row: one(key, row, teacher), keys, rows))
    parts: list[list[np.ndarray]] = []
    for first in range(0, count, BLOCK):
        own_windows, own_plans = jax.random.split(jax.random.fold_in(key, first))
        size = min(BLOCK, count - first)
        keys, rows = jax.random.split(own_plans, size), windows.draws(own_windows, size)
        parts.append([np.asarray(part) for part in draw(keys, rows, teacher)])
        say(f"flow_map: {first + size} of {count} plans of the prior are drawn")
    return Courses(*(jnp.asarray(np.concatenate(each)) for each in zip(*parts, strict=True)))


def example(key: PRNGKey, data: Courses) -> tuple[Array, Array, Scalar, Scalar, Array]:
    """(x_i, level of every entry, s_i, the level to go to, the answer (150)), of one plan."""
    key_plan, key_first, key_later, key_kind = jax.random.split(key, 4)
    plan = jax.random.randint(key_plan, (), 0, len(data.x))
    x, sigmas, last = data.x[plan], data.sigmas[plan], data.x.shape[1] - 1
    first = jax.random.randint(key_first, (), 0, last)
    kind = jax.random.randint(key_kind, (), 0, 4)  # denoise, neighbours, to the end, any
    later = jnp.stack([first + 1, first + 1, last, jax.random.randint(key_later, (), first + 1, last + 1)])[kind]
    ratio = sigmas[later] / sigmas[first]
    answer = (x[later] - ratio * x[first]) / (1 - ratio)
    to = jnp.where(kind == 0, sigmas[first], sigmas[later])
    return x[first], jnp.where(data.mask[plan], 0.0, sigmas[first]), sigmas[first], to, answer


def untrained(config: FlowMapSettings, shape: tuple[int, int], observed: int, chain: Chain | None = None) -> FlowMap:
    """The map as it is initialised. observed: the first entries of a row, of which Fourier features are taken."""
    key = jax.random.key(config.train.seed)
    if chain is not None:
        start = prior.beyond(key, chain, shape[0], observed, config.width, config.depth, condition=TARGET)
        network = lambda params, *inputs: start.apply(params, *inputs[:-1], sinusoidal(inputs[-1], TARGET))
        return FlowMap(replace(start, apply=network))
    size = Rows(width=config.width, dilations=tuple((1, 2, 4)[block % 3] for block in range(config.depth)))
    apply, params = build(key, lambda rngs: FlowNetwork(*shape, observed, size, rngs=rngs))
    return FlowMap(Edm(params, apply))


@dataclass
class Later:
    """Data for all steps, made when a first step needs them: a map that is read back needs none."""

    make: Callable[[], Courses]
    every: int
    made: Courses | None = None

    def block(self, number: int) -> Courses:
        """The data."""
        self.made = self.made or self.make()
        return self.made


def fit(
    windows: Data, teacher: Denoise, config: FlowMapSettings, noise: NoiseSettings, recorder: Recorder = SILENT
) -> FlowMap:
    """Distil a flow map of plans ``[h, d]`` from their prior.

    Args:
        windows: of behaviour, whose first rows plans begin with.
        teacher: the prior, not pinned.
        config: how many plans it draws, the network, the training.
        noise: the levels between which the map goes; it goes to 0, too.
        recorder: hears of the training.

    Raises:
        ConfigError: if the map is to begin with a Markov chain, and the prior has none.
    """
    shape, chain = (windows.horizon, windows.codec.width), None
    if config.network == "chain":
        chain = getattr(teacher, "chain", None)
        require(chain is not None, "flow_map.network", config.network, "rows: the prior has no Markov chain")
    start = untrained(config, shape, windows.codec.observation_dim, chain)
    key = jax.random.fold_in(jax.random.key(config.train.seed), 1)
    data = Later(lambda: courses(key, teacher, windows, noise, config), config.train.steps)

    of = lambda params: FlowMap(replace(start.base, params=params))

    def loss(params: Params, key: PRNGKey, pair: tuple) -> tuple[Scalar, dict[str, Scalar]]:
        x, level, sigma, to, answer = pair
        error = jnp.where(level > 0, of(params)(x, level, to) - answer, 0.0)
        return jnp.mean(error**2) * (1 + sigma**2) / sigma**2, {"sigma": sigma}

    return of(train(Task(loss, example), start.base.params, data, config.train, recorder))
