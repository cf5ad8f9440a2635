"""The one door out of flax.nnx."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from diffplan.types import Apply, Params, PRNGKey


@dataclass(frozen=True)
class Pure:
    """A network as a function of its parameters. Networks of the same structure are equal: they share programs."""

    graph: Any

    def __call__(self, params: Params, *inputs: jax.Array) -> jax.Array:
        """The network's output."""
        return nnx.merge(self.graph, params)(*inputs)


def to_pure(module: nnx.Module) -> tuple[Apply, Params]:
    """Split a module into a pure function ``apply(params, *inputs)`` and its parameters, a plain pytree of dicts.

    Raises:
        ValueError: from nnx, if the module holds any state besides parameters (dropout, batch statistics).
    """
    graph, params = nnx.split(module, nnx.Param)
    return Pure(graph), nnx.to_pure_dict(params)


def build(key: PRNGKey, make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Apply, Params]:
    """`to_pure` of a module with parameters drawn from `key`: ``build(key, lambda rngs: Mixer(..., rngs=rngs))``."""
    return to_pure(make(nnx.Rngs(params=key)))


def in_bfloat16(apply: Apply) -> Apply:
    """A network that computes in bfloat16, between float32 parameters and inputs and a float32 output.

    Gradients reach the parameters in float32, so an optimiser and a moving average keep float32. A plan and a condition
    are rounded; a noise level is not, because bfloat16 holds too few digits for its embedding: `Mixer`,
    `Transformer`, `RowNetwork`, `Value` and `TemporalUNet` embed the level first and round afterwards. Fourier features
    of places stay float32, and with them the layers that read them.

    Args:
        apply: the network, ``apply(params, x[h, d], c_noise[], ...) -> Array``.

    Returns:
        A network of the same parameters, inputs and output.
    """

    def rounded(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def wrapped(params: Params, *inputs: jax.Array) -> jax.Array:
        inputs = tuple(each if jnp.ndim(each) == 0 else rounded(each) for each in inputs)
        return apply(jax.tree.map(rounded, params), *inputs).astype(jnp.float32)

    return wrapped


def count(params: Params) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
