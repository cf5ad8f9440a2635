"""A Markov chain of the rows of behaviour (138): states by k-means, steps by counting.

States are the clusters of rows (Lloyd 1982), in a metric that sees most of what changes least: with s_i the root mean
square of an entry's step from row to row, in standard deviations of the data, entry i is scaled by

    w_i = s_i^(-1/2)                                                                                 (141)

An entry that moves in small steps, as a place does, keeps what it was for many rows, and so decides for longer what may
follow. Steps are counted from row to row of windows; c_i is the mean of a state's rows, v the variance within states.

More states cost time: a message (139) takes k^2 products. A chain with too few mixes up ways that pass close to each
other. So k is the least of `SIZES` with which the chain by itself, M of (140), denoises plans that it was not made of:

    e(k) = E |M(x, sigma) - x0|^2 / E |x0 - E x0|^2,      sigma = 1/2, over observations                     (152)

is at most 0.02 and that of twice as many states at least three quarters of it; or twice as many lower it by less than a
tenth, for the rest is what nobody could know.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.cluster.vq import kmeans2, vq

from diffplan.chain import Chain
from diffplan.data.stream import Data
from diffplan.data.windows import Windows

ROWS = 2**18
"""Rows of windows in which steps are counted."""

CLUSTERED = 2**15
"""Rows of which the states are clusters."""

ROUNDS = 12
"""Rounds of k-means."""

RARE = 1e-5
"""Probability of a step to a state drawn evenly from all, beside the steps that behaviour takes."""

SMALLEST = 0.02
"""s_i of (141) is no smaller."""

SIZES = (64, 128, 256, 512)
"""Numbers of states to choose from."""

LEVEL, TRIED = 0.5, 512
"""Of (152): the noise level, and the plans its means are taken over."""

ENOUGH, GAIN, LITTLE = 0.02, 0.25, 0.1
"""An e of (152) that is enough, if twice as many states lower it by less than this fraction; a gain that is too little
for any e."""


def fit(windows: Data, states: int, observed: int) -> Chain:
    """The chain of the rows of windows, as a function of the data alone.

    Args:
        windows: of behaviour, normalised.
        states: k. Where rows repeat, some stay empty.
        observed: the first entries of a row, by which rows are clustered.
    """
    count = max(1, ROWS // windows.horizon)
    x = np.asarray(windows.draws(jax.random.key(0), count), np.float64)  # n h d
    places = x[..., :observed]
    where = places * metric(np.diff(places, axis=1).reshape(-1, observed))
    rows = where.reshape(-1, observed)
    return counted(x, vq(rows, clusters(rows, states))[0].reshape(x.shape[:2]), states)


def grown(windows: Windows, held_out: Data, observed: int) -> tuple[Chain, str]:
    """(a chain with as many states as (152) asks for, and why so many).

    Args:
        windows: of behaviour, normalised.
        held_out: other windows of the same.
        observed: the first entries of a row, by which rows are clustered.
    """
    most = max(2, len(windows.observations) // 8)
    x0 = held_out.draws(jax.random.key(1), TRIED)
    sizes = sorted({min(size, most) for size in SIZES})
    chain = fit(windows, sizes[0], observed)
    error, end = unexplained(chain, x0, observed), "the most there may be"
    for states in sizes[1:]:
        larger = fit(windows, states, observed)
        lower = unexplained(larger, x0, observed)
        if lower > (1 - (GAIN if error <= ENOUGH else LITTLE)) * error:
            end = "enough" if error <= ENOUGH else "more gain little"
            break
        chain, error = larger, lower
    why = f"alone, the chain denoises level {LEVEL:g} to within {100 * error:.2g} % of the variance"
    return chain, f"{len(chain.start)}, {end}: {why}"


def unexplained(chain: Chain, x0: Float[Array, "n h d"], observed: int) -> float:
    """e of (152), for plans whose first observation is known."""
    level = jnp.full(x0.shape[1:], LEVEL).at[0, :observed].set(0.0)
    x = x0 + level[None] * jax.random.normal(jax.random.key(2), x0.shape)
    error = jax.jit(jax.vmap(chain, (0, None)))(x, level) - x0
    return float(jnp.mean(error[..., :observed] ** 2) / jnp.mean(jnp.var(x0[..., :observed], axis=(0, 1))))


def metric(steps: Float[np.ndarray, "n o"]) -> Float[np.ndarray, "o"]:
    """w of (141)."""
    return np.maximum(np.sqrt(np.mean(steps**2, axis=0)), SMALLEST) ** -0.5


def clusters(rows: Float[np.ndarray, "n o"], states: int) -> Float[np.ndarray, "k o"]:
    """The centres of k-means, of some of the rows."""
    some = rows[:: max(1, len(rows) // CLUSTERED)]
    with warnings.catch_warnings():  # that a state is empty
        warnings.simplefilter("ignore")
        return kmeans2(some, initial(some, states), iter=ROUNDS, minit="matrix")[0]


def initial(rows: Float[np.ndarray, "n o"], states: int) -> Float[np.ndarray, "k o"]:
    """Rows from which the clusters start: each far from those before it (k-means++, Arthur and Vassilvitskii 2007)."""
    random = np.random.default_rng(0)
    chosen = [rows[random.integers(len(rows))]]
    away = np.full(len(rows), np.inf)
    while len(chosen) < states:
        away = np.minimum(away, np.sum((rows - chosen[-1][None]) ** 2, axis=1))
        total = away.sum()
        chosen.append(rows[random.choice(len(rows), p=away / total if total > 0 else None)])
    return np.stack(chosen)


def counted(x: Float[np.ndarray, "n h d"], state: np.ndarray, states: int) -> Chain:
    """The chain of plans ``[n, h, d]`` whose rows belong to known states ``[n, h]``."""
    flat, rows = state.reshape(-1), x.reshape(-1, x.shape[2])
    size = np.bincount(flat, minlength=states)
    sums = np.stack([np.bincount(flat, weights=entry, minlength=states) for entry in rows.T], axis=1)
    centres = sums / np.maximum(size, 1)[:, None]
    variance = np.mean((rows - centres[flat]) ** 2, axis=0)
    steps = np.zeros((states, states))
    np.add.at(steps, (state[:, :-1].reshape(-1), state[:, 1:].reshape(-1)), 1.0)
    left = steps.sum(axis=1, keepdims=True)
    kernel = np.where(left > 0, (1 - RARE) * steps / np.maximum(left, 1) + RARE / states, 1 / states)
    start = np.bincount(state[:, 0], minlength=states)
    start = (1 - RARE) * start / start.sum() + RARE / states
    return Chain(*(jnp.asarray(part, jnp.float32) for part in (start, kernel, centres, np.maximum(variance, 1e-8))))


def blank(states: int, dim: int) -> Chain:
    """A chain in shape alone."""
    return Chain(jnp.ones(states), jnp.ones((states, states)), jnp.zeros((states, dim)), jnp.ones(dim))
