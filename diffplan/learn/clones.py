"""A hidden Markov chain of cells: every cell has clones, which remember how a plan came there.

State (i, a) is clone a of cell i, and a row in that state shows cell i. Where behaviour heads for a goal that is not
seen, a chain of the cells alone turns back too often; clones learn which way it was going (George et al. 2021, Nature
Communications 12, 2392; Dedieu et al. 2019, arXiv 1905.00507). Start and steps are fitted by expectation and
maximisation (Rabiner 1989, section III.C). With the messages a and b of (139), of a path s whose cells are known, the
pair of clones at steps t and t + 1 has the distribution

    xi_t(a, a') ~ a_t(a) kernel[s_t, a, s_t+1, a'] b_t+1(a')                                         (145)

and the new kernel[i, a, j, a'] is in proportion to the sum of xi_t(a, a') over all paths and steps from cell i to j.
The cost of a step is c^2 for c clones, however many cells there are.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.chain import TINY, Chain, distribution
from diffplan.data.stream import Data
from diffplan.learn.chain import RARE
from diffplan.types import PRNGKey, Scalar

ROWS = 2**18
"""Rows of windows in which steps are counted, at most."""

ROUNDS = 100
"""Rounds of (145). In four rooms, with 3 to 8 clones, 100 more add at most 0.004 nats to a step's log-likelihood."""

ENTRIES = 2**24
"""Numbers that the windows have, and pairs of clones of their steps, at most."""


def fit(windows: Data, states: int) -> Chain:
    """The chain of the rows of one-hot windows, as a function of the data alone.

    Args:
        windows: of behaviour.
        states: of the chain: a multiple of the number of cells.

    Returns:
        The chain of `fit_paths`, of windows that are drawn from these.
    """
    key_data, key_fit = jax.random.split(jax.random.key(0))
    clones = states // windows.width
    count = min(ROWS, ENTRIES // max(windows.width, clones**2)) // windows.horizon
    paths = jnp.argmax(windows.draws(key_data, max(1, count)), axis=2)
    return fit_paths(key_fit, paths, windows.width, clones)


def fit_paths(key: PRNGKey, paths: Int[Array, "n h"], cells: int, clones: int) -> Chain:
    """The chain whose states are the clones of cells, and whose rows are one-hot.

    Args:
        key: of the steps that (145) begins with; consumed.
        paths: the cell of every row.
        cells: k, their number.
        clones: c, of each cell. With 1, steps are counted: the kernel holds their fractions.

    Returns:
        k c states, in the order of the cells; state s shows cell s // c.
    """
    kernel = jax.random.exponential(key, (cells, clones, cells, clones))
    kernel = kernel / kernel.sum(axis=(2, 3), keepdims=True)
    start = jnp.full((cells, clones), 1 / (cells * clones))
    for _ in range(ROUNDS if clones > 1 else 1):
        start, kernel, _ = improve(start, kernel, paths)
    states = cells * clones
    mixed = lambda p: (1 - RARE) * p + RARE / states
    centres = jnp.repeat(jnp.eye(cells), clones, axis=0)
    return Chain(mixed(start.reshape(-1)), mixed(kernel.reshape(states, states)), centres, jnp.full(cells, TINY))


@jax.jit
def improve(
    start: Float[Array, "k c"], kernel: Float[Array, "k c k c"], paths: Int[Array, "n h"]
) -> tuple[Float[Array, "k c"], Float[Array, "k c k c"], Scalar]:
    """One round of (145).

    Args:
        start: probabilities of the first state, ``[cell, clone]``.
        kernel: of the steps, ``[cell, clone, next cell, next clone]``.
        paths: cells, ``[path, step]``.

    Returns:
        The new start and kernel, and the mean log-likelihood of a path under those that were given, in nats.
    """
    first, steps, nats = jax.vmap(partial(expect, start, kernel))(paths)
    starts = jnp.zeros_like(start).at[paths[:, 0]].add(first)
    counts = jnp.zeros_like(kernel).at[paths[:, :-1], :, paths[:, 1:], :].add(steps)
    total = counts.sum(axis=(2, 3), keepdims=True)
    kernel = jnp.where(total > 0, counts / jnp.maximum(total, TINY), 1 / start.size)
    return starts / starts.sum(), kernel, nats.mean()


def expect(
    start: Float[Array, "k c"], kernel: Float[Array, "k c k c"], path: Int[Array, "h"]
) -> tuple[Float[Array, "c"], Float[Array, "h-1 c c"], Scalar]:
    """The distributions of the first row's clone and of every two neighbours' (xi), and a path's log-likelihood."""
    blocks = kernel[path[:-1], :, path[1:], :]

    def ahead(a: Float[Array, "c"], block: Float[Array, "c c"]) -> tuple[Array, tuple[Array, Array]]:
        following = a @ block
        return distribution(following), (a, jnp.log(following.sum()))

    def back(b: Float[Array, "c"], block: Float[Array, "c c"]) -> tuple[Array, Array]:
        return distribution(block @ b), b

    first = start[path[0]]
    _, (a, nats) = jax.lax.scan(ahead, distribution(first), blocks)
    before, b = jax.lax.scan(back, jnp.ones_like(first), blocks, reverse=True)
    steps = a[:, :, None] * blocks * b[:, None, :]
    steps = steps / jnp.maximum(steps.sum(axis=(1, 2), keepdims=True), TINY)
    return distribution(first * before), steps, jnp.log(first.sum()) + nats.sum()
