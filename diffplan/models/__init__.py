"""Networks: parameters only, unbatched, and the only place that knows flax.nnx."""

from collections.abc import Callable
from functools import partial
from typing import Any

from diffplan.models.blocks import sinusoidal
from diffplan.models.flow import FlowNetwork
from diffplan.models.messages import Chained, Messages, MessagesValue
from diffplan.models.mixer import Mixer, Size, Value
from diffplan.models.mlp import MLP
from diffplan.models.pure import build, count, in_bfloat16, to_pure
from diffplan.models.rows import RowNetwork, Rows
from diffplan.models.temporal_unet import TemporalUNet
from diffplan.models.transformer import Transformer
from diffplan.types import Apply, Params, PRNGKey

__all__ = [
    "MLP",
    "NETWORKS",
    "Chained",
    "FlowNetwork",
    "Messages",
    "MessagesValue",
    "Mixer",
    "RowNetwork",
    "Rows",
    "TemporalUNet",
    "Transformer",
    "Value",
    "build",
    "count",
    "in_bfloat16",
    "sinusoidal",
    "to_pure",
]


def build_mixer(key: PRNGKey, horizon: int, dim: int, size: Any, network: type[Mixer] = Mixer) -> tuple[Apply, Params]:
    """The patched mixer, or another in its frame; size: anything with `patch`, `width` and `depth`."""
    shape = Size(size.patch, size.width, size.depth)
    return build(key, lambda rngs: network(horizon, dim, shape, rngs=rngs))


def build_unet(key: PRNGKey, horizon: int, dim: int, size: Any) -> tuple[Apply, Params]:
    """Diffuser's temporal U-Net, whose size is its own."""
    return build(key, lambda rngs: TemporalUNet(dim, rngs=rngs))


NETWORKS: dict[str, Callable[..., tuple[Apply, Params]]] = {
    "mixer": build_mixer,
    "transformer": partial(build_mixer, network=Transformer),
    "unet": build_unet,
}
"""Denoising networks by name: ``build(key, horizon, dim, size) -> (apply, params)``."""
