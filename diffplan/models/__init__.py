"""Networks: parameters only, unbatched, and the only place that knows flax.nnx."""

from diffplan.models.local import Local, LocalValue
from diffplan.models.mixer import Mixer, Value
from diffplan.models.pure import build, count, to_pure
from diffplan.models.temporal_unet import TemporalUNet

__all__ = ["Local", "LocalValue", "Mixer", "TemporalUNet", "Value", "build", "count", "to_pure"]
