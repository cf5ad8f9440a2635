"""All devices of a machine for a batch of small programs."""

from typing import TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def shard(batch: Tree) -> Tree:
    """Lay the leading axis of every array over all devices; programs then run on all of them, each on its part.

    Raises:
        ValueError: from jax, if the number of devices does not divide an axis.
    """
    devices = jax.devices()
    if len(devices) == 1:
        return batch
    mesh = jax.make_mesh((len(devices),), ("plans",), axis_types=(AxisType.Auto,))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("plans")))
