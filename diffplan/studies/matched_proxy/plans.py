"""Ways of planning whose expected visits of cells are exact, each pushed from the prior to the optimum of its proxy.

Beside the tilt p(s) exp(weight sum_t w(s_t)) of the prior, which weighs whole plans, four stand-ins for planners. Two
see less of the future than the tilt. With b^(j) the message of (18) with j steps to go, the short sight of L steps is

    kernel_t(s, s') ~ p(s, s') exp(weight w(s') + b^(j - 1)(s')),        j = min(L, h - t)                        (173)

and one trusts the prior with the future, as guidance by a regression E[r | x] does:

    kernel_t(s, s') ~ p(s, s') exp(weight (w(s') + v_t+1(s'))),          v_t(s) = E_p[sum_u>t w(s_u) | s_t = s]  (174)

Two are the tilts of other walks: a lazy one, which reaches less far than the prior, and a restless one, which reaches
farther. The last mixes plans of the prior with the optimum. The mixture of two ways of planning has the mixture of
their visits, so any proxy between two weights can be matched.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jaxtyping import Array, Float

from diffplan.oracle.tabular import Chain
from diffplan.studies.grids import PerCell, per_step
from diffplan.types import Scalar

SIGHT = 4
"""L of (173), in steps."""


class Walks(NamedTuple):
    """The prior and the two walks that reach less far and farther."""

    prior: Chain
    lazy: Chain
    restless: Chain


def visits(chain: Chain) -> Float[Array, "k"]:
    """Expected visits of each cell."""
    return chain.occupancy().sum(axis=0)


def tilted(chain: Chain, reward: PerCell, weight: Scalar) -> Chain:
    """The exact tilt of a chain by a reward of cells."""
    return chain.tilted(per_step(reward, chain.horizon), weight)[0]


def short_sighted(chain: Chain, reward: PerCell, weight: Scalar) -> Chain:
    """The policy (173). The chain moves alike at every step."""
    steps = chain.horizon - 1
    ahead = tilted(chain._replace(log_kernels=chain.log_kernels[:SIGHT]), reward, weight)
    to_go = jnp.minimum(jnp.arange(steps, 0, -1), SIGHT)
    return chain._replace(log_kernels=ahead.log_kernels[SIGHT - to_go])


def by_values(chain: Chain, reward: PerCell, weight: Scalar) -> Chain:
    """The policy (174)."""

    def back(value: Float[Array, "k"], log_kernel: Float[Array, "k k"]) -> tuple[Array, Array]:
        logits = log_kernel + weight * (reward + value)[None]
        return jnp.exp(log_kernel) @ (reward + value), logits - logsumexp(logits, axis=1, keepdims=True)

    _, log_kernels = jax.lax.scan(back, jnp.zeros_like(reward), chain.log_kernels, reverse=True)
    return chain._replace(log_kernels=log_kernels)


def curves(walks: Walks, reward: PerCell, weights: Float[Array, "s"]) -> dict[str, Float[Array, "_ k"]]:
    """Expected visits by rising weight, the prior's first, of the tilt and of every stand-in."""
    ways = {
        "exact tilt": lambda weight: tilted(walks.prior, reward, weight),
        "short sight": lambda weight: short_sighted(walks.prior, reward, weight),
        "prior's values": lambda weight: by_values(walks.prior, reward, weight),
        "lazy walk": lambda weight: tilted(walks.lazy, reward, weight),
        "restless walk": lambda weight: tilted(walks.restless, reward, weight),
    }
    start = visits(walks.prior)[None]
    every = lambda way: jnp.concatenate([start, jax.lax.map(lambda weight: visits(way(weight)), weights)])
    result = {name: every(way) for name, way in ways.items()}
    return result | {"prior and optimum": jnp.concatenate([start, result["exact tilt"][-1:]])}


def matched(curve: Float[np.ndarray, "s k"], reward: Float[np.ndarray, "k"], gain: float) -> Float[np.ndarray, "k"]:
    """The visits where a curve, which begins at the prior, first has this gain in proxy, or comes nearest to it."""
    gains = (curve - curve[0]) @ reward
    reached = np.flatnonzero(gains >= gain)
    k = reached[0] if reached.size else np.argmax(gains)
    if k == 0 or gains[k] <= gain:
        return curve[k]
    fraction = (gain - gains[k - 1]) / (gains[k] - gains[k - 1])
    return curve[k - 1] + fraction * (curve[k] - curve[k - 1])
