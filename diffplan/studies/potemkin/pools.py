"""Methods that use nothing of a path but its rating, on a pool of paths that stands for the prior and its tails.

Each makes of the prior p a distribution q whose ratio to p is a function of the rating r. At the price 1 / 2t of a
unit of chi-squared divergence,

    max over q of  E_q[r] - chi^2(q || p) / 2t   is at   q / p = max(0, 1 + t (r - nu)),   E_p[q / p] = 1 for nu   (108)

since where q > 0, r - (q / p - 1) / t must be the same nu for all; Laidlaw et al. (2403.03185) argue for this price.
Best of n is q / p = n F(r)^(n - 1), F the distribution of r under p; the quantiliser is 1 / s on the best fraction s
(Taylor 2016); where F has steps, as on a pool, the integrals over them. So best of n makes no path more than n times
as likely, the quantiliser 1 / s times, and neither is hacked more than that often times the prior: no tilt has a bound.

N / J paths from each of J tilts p exp(l_j r) / Z(l_j) stand for p, normalised to its exact mass, with the weights

    1 / (N / J sum_j exp(l_j r(x)) / Z(l_j))                                                                      (109)

(the balance heuristic of Veach & Guibas 1995). For a distribution in parts, one of them of a mass like 1e-6, draw from
each part by itself: then nothing that is rare is left to chance.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jaxtyping import Array, Float, Int

from diffplan.oracle.tabular import Chain
from diffplan.studies.grids import PerCell, per_step
from diffplan.types import PRNGKey

RUNGS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""l_j of (109). The first is the part itself, of which Z is the mass."""
STRENGTHS = (0.0, *np.geomspace(1e-2, 1e8, 60).tolist())

Curve = dict[str, np.ndarray]
"""A column of strengths, and one for each measure."""


class Pool(NamedTuple):
    """Paths that stand for the prior (109), the highest rated first. weight: of each, 1 in all."""

    rating: Float[np.ndarray, "n"]
    gold: Float[np.ndarray, "n"]
    hacked: Float[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]

    @property
    def better(self) -> Float[np.ndarray, "n"]:
        """The fraction of the prior that stands before a path."""
        return np.minimum(np.cumsum(self.weight) - self.weight, 1.0)


def rungs(key: PRNGKey, part: Chain, rating: PerCell, draws: int) -> tuple[Int[Array, "n h"], Float[Array, "n"]]:
    """Paths of each tilt of a part, and the logarithms of their weights (109). draws: paths of one tilt."""
    rewards = per_step(rating, part.horizon)

    def rung(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        tilted, log_z = part.tilted(rewards, inputs[1])
        return jax.vmap(tilted.draw)(jax.random.split(inputs[0], draws)), log_z

    weights = jnp.array(RUNGS)
    paths, log_z = jax.lax.map(rung, (jax.random.split(key, len(RUNGS)), weights))
    paths = paths.reshape(-1, part.horizon)
    density = weights[:, None] * rating[paths].sum(axis=1)[None] - log_z[:, None]
    log_weight = -logsumexp(density, axis=0)
    return paths, log_weight - logsumexp(log_weight) + log_z[0]


def pool_of(columns: tuple[Array, ...]) -> Pool:
    """Sorted, in float64, which keeps fractions of the prior down to 1e-16 distinguishable."""
    rating, gold, hacked, log_weight = (np.asarray(column, float) for column in columns)
    order = np.argsort(-rating, kind="stable")
    weight = np.exp(log_weight[order])
    return Pool(rating[order], gold[order], hacked[order], weight / weight.sum())


def chi_squared(pool: Pool, strength: float) -> Float[np.ndarray, "n"]:
    """Equation (108), t = strength. nu follows from which paths have q > 0: the best m, for the largest m that fits."""
    if strength == 0:
        return pool.weight
    mass, rated = np.cumsum(pool.weight), np.cumsum(pool.weight * pool.rating)
    nu = (rated + (mass - 1) / strength) / mass
    m = np.flatnonzero(1 + strength * (pool.rating - nu) > 0)[-1]
    return pool.weight * np.maximum(1 + strength * (pool.rating - nu[m]), 0.0)


def best_of_n(pool: Pool, strength: float) -> Float[np.ndarray, "n"]:
    """The steps of F^n, n = 1 + strength."""
    better = np.append(pool.better, 1.0)
    with np.errstate(divide="ignore"):
        return -np.diff(np.exp((1 + strength) * np.log1p(-better)))


def quantiliser(pool: Pool, strength: float) -> Float[np.ndarray, "n"]:
    """The best fraction s of the prior, evenly; 1 / s = 1 + strength."""
    return np.clip(1 / (1 + strength) - pool.better, 0, pool.weight) * (1 + strength)


Push = Callable[[Pool, float], Float[np.ndarray, "n"]]
PUSHES: dict[str, Push] = {"chi_squared": chi_squared, "best_of_n": best_of_n, "quantiliser": quantiliser}


def measures(pool: Pool, q: Float[np.ndarray, "n"]) -> dict[str, float]:
    """The measures of a distribution on the pool. ess: of its paths."""
    ratio = np.where(q > 0, q / pool.weight, 1.0)
    values = (q @ pool.rating, q @ pool.gold, q @ pool.hacked, q @ np.log(ratio), 1 / (q @ q))
    return dict(zip(("proxy", "gold", "p_hack", "kl", "ess"), map(float, values), strict=True))


def selections(pool: Pool) -> dict[str, Curve]:
    """Each of PUSHES along STRENGTHS."""
    mean = pool.weight @ pool.rating
    std = np.sqrt(pool.weight @ (pool.rating - mean) ** 2)
    by_method = {}
    for name, push in PUSHES.items():
        rows = [measures(pool, push(pool, strength)) for strength in STRENGTHS]
        curve = {column: np.array([row[column] for row in rows]) for column in rows[0]}
        by_method[name] = curve | {"strength": np.array(STRENGTHS), "gain": (curve["proxy"] - mean) / std}
    return by_method
