"""Gridworlds for methods: additive gold rewards, reward models of them, and the measures of a plan.

The gold of a plan is the sum over its steps of a reward of its cell. A reward model is fitted to N paths of the prior
with noisy gold returns: a reward of cells, by ridge regression on how often each path visits each cell:

    w = (F'F + ridge I)^-1 F'(y - mean y),      F[i, cell] = visits of path i - the prior's mean visits       (105)

so it is additive too, and everything about pushing it is exact (`diffplan.oracle.tabular`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells
from diffplan.guide import Proxy
from diffplan.metrics import diversity, validity
from diffplan.oracle.tabular import Chain
from diffplan.types import PRNGKey, Scalar

PerCell = Float[Array, "k"]


def per_step(weights: PerCell, horizon: int) -> Float[Array, "h k"]:
    """A reward of cells as a table over steps and cells."""
    return jnp.broadcast_to(weights[None], (horizon, weights.size))


def visits(paths: Int[Array, "n h"], cells: int) -> Float[Array, "n k"]:
    """How often each path was in each cell."""
    return jax.vmap(lambda path: jnp.bincount(path, length=cells).astype(jnp.float32))(paths)


def ridge(key: PRNGKey, chain: Chain, gold: PerCell, labels: int, noise: float, penalty: float = 1e-2) -> PerCell:
    """A reward model of N labels (105). noise: standard deviation of a label's error, in those of the returns."""
    key_paths, key_noise = jax.random.split(key)
    paths = jax.vmap(chain.draw)(jax.random.split(key_paths, labels))
    features = visits(paths, gold.size)
    returns = features @ gold
    std = jnp.sqrt(jax.grad(jax.grad(chain.log_z(per_step(gold, chain.horizon))))(jnp.zeros(())))
    y = returns + noise * std * jax.random.normal(key_noise, returns.shape)
    centred = features - chain.occupancy().sum(axis=0)[None]
    gram = centred.T @ centred + penalty * jnp.eye(gold.size)
    return jnp.linalg.solve(gram, centred.T @ (y - y.mean()))


def rollout(cells: Cells, x: Float[Array, "h k"]) -> Int[Array, "h"]:
    """The cells of a plan that is executed from its first cell; it stays where no move leads to the next cell."""
    wanted = jnp.argmax(x, axis=-1)

    def move(cell: Array, target: Array) -> tuple[Array, Array]:
        reachable = jnp.any(cells.next_cell[cell] == target)
        cell = jnp.where(reachable, target, cell)
        return cell, cell

    after = jax.lax.scan(move, wanted[0], wanted[1:])[1]
    return jnp.concatenate([wanted[:1], after])


def measures(key: PRNGKey, proxy: Proxy, cells: Cells, gold: PerCell, x: Float[Array, "n h k"]) -> dict[str, Array]:
    """The measures of a batch of plans. A plan with a step that no move makes counts as through a wall."""

    def one(x: Float[Array, "h k"]) -> dict[str, Array]:
        finite = validity.is_finite(x)
        x = jnp.where(finite, x, 0.0)
        values = {
            "proxy": proxy.score(x),
            "promised": gold[jnp.argmax(x, axis=-1)].sum(),
            "open_loop": gold[rollout(cells, x)].sum(),
            "violations.walls": (cells.legal(x).min() < 1).astype(jnp.float32),
            "residual": 1 - cells.legal(x).mean(),
        }
        finite_values = {name: jnp.where(finite, value, jnp.nan) for name, value in values.items()}
        return finite_values | {"finite": finite.astype(jnp.float32)}

    means = {name: jnp.nanmean(value) for name, value in jax.vmap(one)(x).items()}
    return means | {"diversity": diversity.pairwise_distance(x)}


def moments(chain: Chain, reward: Float[Array, "h k"]) -> tuple[Scalar, Scalar]:
    """Mean and standard deviation of an additive reward under the chain, exactly."""
    slope = jax.grad(chain.log_z(reward))
    zero = jnp.zeros(())
    return slope(zero), jnp.sqrt(jax.grad(slope)(zero))
