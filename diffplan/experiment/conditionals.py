"""The stage of a run that trains the conditional denoiser: behaviour given its score and where it ends."""

import jax
import jax.numpy as jnp

from diffplan import noise, runtime
from diffplan.checkpoint import digest
from diffplan.config import CompareSettings, ConditionalSettings
from diffplan.data.windows import Windows
from diffplan.experiment.stages import Behaviour, pin_mask, train_stage
from diffplan.guide import Proxy
from diffplan.learn import conditional
from diffplan.learn.conditional import ConditionalEdm
from diffplan.methods import classifier_free as asking
from diffplan.models import Mixer, build
from diffplan.types import PRNGKey


def fit_conditional(
    compare: CompareSettings, config: ConditionalSettings, data: Behaviour, proxy: Proxy, identity: str
) -> tuple[ConditionalEdm, str]:
    """The conditional stage, ``RUN/conditional``; returns (conditional denoiser, digest of its parameters).

    proxy, identity: what labels every window as it is drawn, the very proxy that the methods push, and its digest.
    """
    horizon, dim = data.train.horizon, data.train.rows.shape[-1]
    parts = asking.parts(dim)
    size = {"patch": config.patch, "width": config.width, "depth": config.depth, "condition": len(parts)}
    apply, params = build(jax.random.key(config.train.seed), lambda rngs: Mixer(horizon, dim, **size, rngs=rngs))
    mask = pin_mask(data.train, data.codec.observation_dim, jnp.asarray(False))

    def draw(key: PRNGKey, source: tuple[Windows, Proxy]) -> tuple:
        windows, proxy = source
        x = windows.draw(key)
        return x, mask, asking.condition(data.codec, x, proxy.score(x))

    levels = compare.noise
    task = conditional.task(apply, draw, parts, noise.LogUniform(levels.low, levels.high), config.drop)
    inputs = {"noise": runtime.plain(levels), "data": data.identity, "proxy": identity}
    settings = runtime.plain(config) | {"horizon": horizon} | inputs
    directory = compare.run / "conditional"
    ema = train_stage(directory, settings, task, params, (data.train, proxy), config.train, compare.track)
    return ConditionalEdm(ema, apply), digest(ema)
