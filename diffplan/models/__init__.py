"""Networks: parameters only, unbatched, and the only place that knows flax.nnx."""

from diffplan.models.messages import Messages, MessagesValue
from diffplan.models.mixer import Mixer, Value
from diffplan.models.mlp import MLP
from diffplan.models.pure import build, count, to_pure
from diffplan.models.temporal_unet import TemporalUNet

__all__ = ["MLP", "Messages", "MessagesValue", "Mixer", "TemporalUNet", "Value", "build", "count", "to_pure"]
