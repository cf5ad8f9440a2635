"""The chain of cells and their clones: a round of its fit held to all paths, its end to walks that are known."""

from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.codec import Cells
from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.learn import clones

K, C = 3, 2


def some() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, kernel, paths): any chain, and paths that share steps."""
    random = np.random.default_rng(0)
    start = random.dirichlet(np.ones(K * C)).reshape(K, C)
    kernel = random.dirichlet(np.ones(K * C), size=K * C).reshape(K, C, K, C)
    return start, kernel, np.asarray([[0, 1, 1, 2], [2, 0, 1, 0], [0, 1, 2, 2]])


def by_paths(start: np.ndarray, kernel: np.ndarray, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """What one round gives, with every path of clones weighed by itself."""
    begun, taken, nats = np.zeros_like(start), np.zeros_like(kernel), 0.0
    for path in paths:
        ways = [list(zip(path, way, strict=True)) for way in product(range(C), repeat=len(path))]
        weights = [start[way[0]] * np.prod([kernel[a + b] for a, b in pairwise(way)]) for way in ways]
        for way, weight in zip(ways, np.asarray(weights) / sum(weights), strict=True):
            begun[way[0]] += weight
            for a, b in pairwise(way):
                taken[a + b] += weight
        nats += np.log(sum(weights)) / len(paths)
    return begun / begun.sum(), taken / taken.sum(axis=(2, 3), keepdims=True), nats


def test_a_round_weighs_all_paths_of_clones():
    start, kernel, paths = some()
    result = clones.improve(jnp.asarray(start), jnp.asarray(kernel), jnp.asarray(paths))
    for part, expected in zip(result, by_paths(start, kernel, paths), strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)


def test_no_round_makes_the_paths_less_likely():
    start, kernel, paths = (jnp.asarray(part) for part in some())
    nats = []
    for _ in range(12):
        start, kernel, value = clones.improve(start, kernel, paths)
        nats.append(float(value))
    assert np.all(np.diff(nats) > -1e-5) and nats[-1] > nats[0] + 1


def bouncing(count: int) -> np.ndarray:
    """Walks along five cells that turn at the ends alone."""
    lap = np.asarray([0, 1, 2, 3, 4, 3, 2, 1])
    return lap[(np.arange(count)[:, None] + np.arange(16)) % 8]


@pytest.mark.parametrize(("number", "turns"), [(1, 0.5), (2, 0.0)])
def test_clones_remember_which_way_a_walk_was_going(number, turns):
    """One state to a cell turns at every other step; two never do."""
    chain = clones.fit_paths(jax.random.key(0), jnp.asarray(bouncing(800)), 5, number)
    start, kernel = np.asarray(chain.start, np.float64), np.asarray(chain.kernel, np.float64)
    random = np.random.default_rng(1)
    states, walks = random.choice(len(start), size=400, p=start / start.sum()), []
    for _ in range(12):
        walks.append(states // number)
        states = np.asarray([random.choice(len(start), p=kernel[s] / kernel[s].sum()) for s in states])
    walks = np.stack(walks, axis=1)
    inner = (walks[:, 1:-1] > 0) & (walks[:, 1:-1] < 4)
    assert abs(np.mean((walks[:, 2:] == walks[:, :-2])[inner]) - turns) < 0.03
    assert np.abs(np.diff(walks)).max() == 1


def test_with_one_state_to_a_cell_steps_are_counted():
    """Cells 0, 1, 2 in a circle, and a fourth that is never entered, from which any step is as likely."""
    rows = np.eye(4, dtype=np.float32)[np.arange(90) % 3]
    codec = Cells(jnp.eye(4), jnp.zeros((4, 1), int))
    episodes = Episodes(rows, np.zeros((90, 1), np.float32), np.array([45, 45]))
    chain = clones.fit(Windows.of(episodes, codec, 5), 4)
    expected = np.vstack([np.eye(4)[[1, 2, 0]], np.full(4, 0.25)])
    np.testing.assert_allclose(chain.kernel, expected, atol=1e-4)
    np.testing.assert_allclose(chain.start, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.03)
    np.testing.assert_array_equal(chain.centres, np.eye(4))


def test_a_chain_of_clones_is_exact_as_a_denoiser_of_its_own_plans():
    """Its rows are one-hot with next to no variance: a plan that is nearly clean comes back, and all is finite."""
    chain = clones.fit_paths(jax.random.key(0), jnp.asarray(bouncing(80)), 5, 2)
    x = jax.nn.one_hot(jnp.asarray(bouncing(1)[0]), 5)
    np.testing.assert_allclose(chain(x + 0.01, jnp.asarray(0.1)), x, atol=1e-3)
    assert all(np.isfinite(part).all() for part in jax.tree.leaves(chain))
