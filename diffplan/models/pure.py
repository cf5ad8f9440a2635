"""The one door out of flax.nnx."""

from collections.abc import Callable

import jax
from flax import nnx

from diffplan.types import Apply, Params, PRNGKey


def to_pure(module: nnx.Module) -> tuple[Apply, Params]:
    """Split a module into a pure function ``apply(params, *inputs)`` and its parameters, a plain pytree of dicts.

    Raises:
        ValueError: from nnx, if the module holds any state besides parameters (dropout, batch statistics).
    """
    graph, params = nnx.split(module, nnx.Param)

    def apply(params: Params, *inputs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(*inputs)

    return apply, nnx.to_pure_dict(params)


def build(key: PRNGKey, make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Apply, Params]:
    """`to_pure` of a module with parameters drawn from `key`: ``build(key, lambda rngs: Mixer(..., rngs=rngs))``."""
    return to_pure(make(nnx.Rngs(params=key)))


def count(params: Params) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
