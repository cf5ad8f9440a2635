"""The nouns of diffplan, and a glossary of the axes that annotate every array.

Axes, as they stand in jaxtyping annotations:

    h  steps of a plan (horizon)          o  observation entries
    d  entries of a step, d = o + a       a  action entries
    n  plans, or starts (one plan each)   s  strengths of a method

A plan in model space is an array ``x[h, d]``: at each step the normalised observation, then the normalised action that
is taken there. Signatures are unbatched; callers batch with `jax.vmap`.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

Scalar = Float[Array, ""]
Level = Float[Array, ""] | Float[Array, "h d"]
"""A noise level: one for the whole plan, or one for every entry, 0 where an entry is known."""

PRNGKey = Key[Array, ""]
PlanArray = Float[Array, "h d"]
Params = Any
"""A pytree of network parameters."""

Apply = Callable[..., Array]
"""A pure network: ``apply(params, x[h, d], c_noise[]) -> Array``, see `diffplan.models.to_pure`."""

Denoise = Callable[[Float[Array, "h d"], Level], Float[Array, "h d"]]
"""The one noun: ``D(x, sigma) = E[x0 | x_sigma = x]``. Samplers pass one level; `pinned` makes it one for every
entry."""

Energy = Callable[[Float[Array, "h d"], Level], Float[Array, ""]]
"""``g(x, sigma)``: an estimate of log E[exp(r(x0)) | x_sigma = x], or named for what it is."""

Conditional = Callable[[Float[Array, "h d"], Level, Float[Array, "c"]], Float[Array, "h d"]]
"""``D(x, sigma, condition) = E[x0 | x_sigma = x, condition]``."""

PlanValue = Callable[[Float[Array, "h d"], Int[Array, ""]], Float[Array, ""]]
"""``V(x, known) = E[score | the first `known` rows of x]``; later rows are ignored."""


@struct.dataclass
class Trajectory:
    """A behaviour window or a plan, in the environment's units.

    observations: ``[h, o]``, and actions: ``[h, a]``; ``actions[t]`` is taken at ``observations[t]``.
    """

    observations: Float[Array, "*batch h o"]
    actions: Float[Array, "*batch h a"]


@struct.dataclass
class Strengths:
    """What a sweep sweeps. Both are traced arrays, so sweeping never recompiles.

    guide: weight of grad g in equation (3). prior: weight of the denoiser in (3); 0 follows the reward alone.
    """

    guide: Float[Array, "*s"]
    prior: Float[Array, "*s"]


@struct.dataclass
class Pins:
    """Entries of a plan that are known: where ``mask``, the plan equals ``value`` (normalised units)."""

    mask: Bool[Array, "*batch h d"]
    value: Float[Array, "*batch h d"]
