"""Pressure: how far an arm moved the plan distribution from the prior, in nats.

The path KL of a sampled chain is measured by the sampler itself (`diffplan.sample`).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def best_of_n_kl(n: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """KL(best of n || prior) = log n - (n - 1) / n.

    Exact where the score has no ties, as for a continuous plan; an upper bound otherwise (Beirami et al., 2401.01879).
    """
    return jnp.log(n) - (n - 1) / n
