"""Networks: parameters only, unbatched, and the only place that knows flax.nnx."""

from collections.abc import Callable
from typing import Any

from diffplan.models.messages import Messages, MessagesValue
from diffplan.models.mixer import Mixer, Value
from diffplan.models.mlp import MLP
from diffplan.models.pure import build, count, to_pure
from diffplan.models.temporal_unet import TemporalUNet
from diffplan.types import Apply, Params, PRNGKey

__all__ = [
    "NETWORKS",
    "MLP",
    "Messages",
    "MessagesValue",
    "Mixer",
    "TemporalUNet",
    "Value",
    "build",
    "count",
    "to_pure",
]


def build_mixer(key: PRNGKey, horizon: int, dim: int, **size: Any) -> tuple[Apply, Params]:
    """A patched MLP-mixer of this patch, width and depth."""
    return build(key, lambda rngs: Mixer(horizon, dim, **size, rngs=rngs))


def build_unet(key: PRNGKey, horizon: int, dim: int, **_: Any) -> tuple[Apply, Params]:
    """Diffuser's temporal U-Net, whose size is its own: those of the mixer are ignored."""
    return build(key, lambda rngs: TemporalUNet(dim, rngs=rngs))


NETWORKS: dict[str, Callable[..., tuple[Apply, Params]]] = {"mixer": build_mixer, "unet": build_unet}
"""Denoising networks by name: ``builder(key, horizon, dim, patch=, width=, depth=) -> (apply, params)``."""
