"""A Markov chain of the rows of behaviour (138): states by k-means, steps by counting.

States are the clusters of rows (Lloyd 1982), in a metric that sees most of what changes least: with s_i the root mean
square of an entry's step from row to row, in standard deviations of the data, entry i is scaled by

    w_i = s_i^(-1/2)                                                                                 (141)

An entry that moves in small steps, as a place does, keeps what it was for many rows, and so decides for longer what may
follow. Steps are counted from row to row of windows; c_i is the mean of a state's rows, v the variance within states.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.cluster.vq import kmeans2, vq

from diffplan.chain import Chain
from diffplan.data.stream import Data

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
