"""The chain of rows: its denoiser held to all paths counted one by one, its fit to a chain that is known."""

from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.chain import Chain
from diffplan.codec import Codec
from diffplan.data.windows import Windows
from diffplan.denoise import ChainDenoiser, pinned
from diffplan.episodes import from_stacked
from diffplan.guide import guided
from diffplan.learn import chain as learned
from diffplan.learn import prior
from diffplan.models import RowNetwork, Rows, build
from diffplan.models.rows import RowBlock
from diffplan.noise import karras
from diffplan.samplers import Sampler, sample
from diffplan.types import Pins, Strengths

H, D, K = 4, 2, 3


def small() -> Chain:
    """Three states, one of which cannot be reached from another."""
    kernel = np.asarray([[0.7, 0.3, 0.0], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]], np.float32)
    centres = np.asarray([[-1.0, 0.0], [0.5, 1.0], [1.0, -1.0]], np.float32)
    start, variance = np.asarray([0.5, 0.3, 0.2]), np.asarray([0.1, 0.4])
    return Chain(*(jnp.asarray(part, jnp.float32) for part in (start, kernel, centres, variance)))


def by_paths(chain: Chain, x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """E[x0 | x] in float64: a mixture of one Gaussian for every path, each shrunk entry by entry."""
    start, kernel, centres, variance = (np.asarray(part, np.float64) for part in jax.tree.leaves(chain))
    total, mean = 0.0, np.zeros_like(x)
    for path in product(range(K), repeat=H):
        c, wide = centres[list(path)], variance + level**2
        weight = start[path[0]] * np.prod([kernel[i, j] for i, j in pairwise(path)])
        weight *= np.prod(np.exp(-((x - c) ** 2) / (2 * wide)) / np.sqrt(wide))
        total, mean = total + weight, mean + weight * (c + variance / wide * (x - c))
    return mean / total


@pytest.mark.parametrize("sigma", [0.05, 0.5, 2.0, 20.0])
def test_its_denoiser_is_the_sum_over_all_paths(sigma):
    x = np.asarray(jax.random.normal(jax.random.key(1), (H, D)) * (1 + sigma), np.float64)
    exact = by_paths(small(), x, np.full((H, D), sigma))
    np.testing.assert_allclose(small()(jnp.asarray(x, jnp.float32), jnp.asarray(sigma)), exact, rtol=2e-4, atol=2e-5)


def test_known_entries_say_what_they_are_and_stay():
    """At level 0 the row's own emission is all the variance there is."""
    x = np.asarray(jax.random.normal(jax.random.key(2), (H, D)), np.float64)
    level = np.full((H, D), 1.5)
    level[0], level[3, 0] = 0.0, 0.0
    result = small()(jnp.asarray(x, jnp.float32), jnp.asarray(level, jnp.float32))
    np.testing.assert_allclose(result, by_paths(small(), x, level), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(result[0], x[0], rtol=1e-6)


def test_one_state_is_a_gaussian():
    chain = learned.counted(np.random.default_rng(0).normal(2.0, 0.5, (400, H, 1)), np.zeros((400, H), int), 1)
    shrink = 0.25 / (0.25 + 4)
    np.testing.assert_allclose(chain(jnp.full((H, 1), 5.0), jnp.asarray(2.0)), 2 + shrink * 3, atol=0.05)


def test_what_is_far_beyond_every_state_is_finite_and_so_is_its_slope():
    at = lambda x: small()(x, jnp.asarray(0.05)).sum()
    for size in (1e2, 1e4):
        x = size * jax.random.normal(jax.random.key(3), (H, D))
        assert np.isfinite(at(x)) and np.isfinite(jax.grad(at)(x)).all()


# -- fitted --


def walks(kernel: np.ndarray, places: np.ndarray, episodes: int = 200, steps: int = 50) -> Windows:
    """Windows of walks from place to place, each observed within 0.05; actions say nothing."""
    random = np.random.default_rng(0)
    states = np.zeros((episodes, steps), int)
    states[:, 0] = random.integers(len(places), size=episodes)
    for t in range(1, steps):
        states[:, t] = [random.choice(len(places), p=kernel[i]) for i in states[:, t - 1]]
    rows = (places[states] + random.normal(0, 0.05, (episodes, steps, 2))).astype(np.float32)
    data = from_stacked(rows, random.normal(size=(episodes, steps, 1)).astype(np.float32))
    return Windows.of(data, Codec(jnp.zeros(3), jnp.ones(3), 2), 8)


def test_a_chain_whose_states_are_apart_is_recovered():
    kernel = np.asarray([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.5, 0.0, 0.5]])
    places = np.asarray([[-1.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    chain = learned.fit(walks(kernel, places), 3, 2)
    order = [int(np.argmin(np.linalg.norm(np.asarray(chain.centres)[:, :2] - place, axis=1))) for place in places]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(np.asarray(chain.kernel)[np.ix_(order, order)], kernel, atol=0.03)
    np.testing.assert_allclose(np.asarray(chain.variance), [0.0025, 0.0025, 1.0], rtol=0.1)
    assert chain.kernel.min() > 0


def test_a_plan_that_starts_in_a_room_without_doors_stays_there():
    """Two rooms of two places each, none of which leads to the other room; the noise hides which one a row is in."""
    half = np.asarray([[0.5, 0.5], [0.5, 0.5]])
    kernel = np.block([[half, 0 * half], [0 * half, half]])
    places = np.asarray([[-1.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    chain = learned.fit(walks(kernel, places), 4, 2)
    pins = Pins(jnp.zeros((8, 3), bool).at[0, :2].set(True), jnp.zeros((8, 3)).at[0, :2].set(jnp.asarray([-1.0, 0.0])))
    for sigma in (2.0, 10.0):
        x = sigma * jax.random.normal(jax.random.key(4), (8, 3)) + jnp.asarray([[1.0, 0.0, 0.0]])
        assert np.asarray(pinned(chain, pins)(x, jnp.asarray(sigma)))[:, 0].max() < -0.9


def test_rows_that_repeat_leave_states_empty_and_all_finite():
    windows = walks(np.eye(2), np.asarray([[0.0, 0.0], [1.0, 1.0]]))
    same = windows.replace(observations=jnp.round(windows.observations))
    chain = learned.fit(same, 16, 2)
    assert all(np.isfinite(part).all() for part in jax.tree.leaves(chain))
    np.testing.assert_allclose(np.asarray(chain.kernel).sum(axis=1), 1, rtol=1e-5)
    assert np.isfinite(chain(jnp.zeros((8, 3)), jnp.asarray(0.02))).all()


def corridor(arms: int, episodes: int = 200) -> Windows:
    """Windows of walkers that go up and down a corridor, folded into arms that pass close to each other."""
    random = np.random.default_rng(0)
    along = np.cumsum(random.choice([-1.0, 1.0], size=(episodes, 1)) * np.full((episodes, 60), 0.25), axis=1)
    along = np.abs((along + random.uniform(0, 2 * arms, (episodes, 1))) % (2 * arms) - arms)
    arm, way = np.minimum(along.astype(int), arms - 1), along % 1
    places = np.stack([np.where(arm % 2 == 0, way, 1 - way), 0.15 * arm], axis=-1)
    rows = (places - places.mean(axis=(0, 1))) / places.std(axis=(0, 1)) + random.normal(0, 0.01, (*along.shape, 2))
    data = from_stacked(rows.astype(np.float32), random.normal(size=(*along.shape, 1)).astype(np.float32))
    return Windows.of(data, Codec(jnp.zeros(3), jnp.ones(3), 2), 8)


def test_a_chain_has_as_many_states_as_tell_ways_apart():
    """Few places need few states; arms of a corridor that pass close to each other need more."""
    rooms = walks(np.full((3, 3), 1 / 3), np.asarray([[-1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]))
    few, why = learned.grown(rooms, rooms, 2)
    assert len(few.start) == 64 and why.startswith("64, more gain little: ")
    windows = corridor(8)
    more, why = learned.grown(windows, windows, 2)
    assert len(more.start) == 256 and why.startswith("256, more gain little: ")
    x0 = windows.draws(jax.random.key(7), 400)
    noise = jax.random.normal(jax.random.key(8), x0.shape)

    def error(chain: Chain) -> float:  # the first observation is known
        known = lambda x: Pins(jnp.zeros(x.shape, bool).at[0, :2].set(True), x)
        one = lambda x, e: pinned(chain, known(x))(x + 0.5 * e, jnp.asarray(0.5))
        return float(np.mean((jax.jit(jax.vmap(one))(x0, noise) - x0)[..., :2] ** 2))

    fewer, most = (error(learned.fit(windows, states, 2)) for states in (128, 512))
    assert error(more) < 0.87 * fewer and most > 0.87 * error(more)


def test_a_chain_that_never_tells_ways_apart_has_the_most_states_there_may_be():
    windows = corridor(8, episodes=6)  # 360 rows
    chain, why = learned.grown(windows, windows, 2)
    assert len(chain.start) == 45 and why.startswith("45, the most there may be: ")


# -- with a network --


def beyond(seed: int = 0) -> ChainDenoiser:
    """A network with random parameters beyond the small chain."""
    size = Rows(width=16, features=4)
    apply, params = build(jax.random.key(seed), lambda rngs: RowNetwork(H, D, K, 1, size, rngs=rngs))
    shaken = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
    return ChainDenoiser(jax.tree.map(shaken, params), small(), apply)


def test_before_training_it_is_the_chain_where_noise_hides_the_states():
    start = prior.beyond(jax.random.key(0), small(), H, 1, 16, 2)
    x = 5 * jax.random.normal(jax.random.key(1), (H, D))
    np.testing.assert_allclose(start(x, jnp.asarray(5.0)), small()(x, jnp.asarray(5.0)), atol=0.01)


def test_entries_at_level_zero_come_back_as_they_are():
    x = jax.random.normal(jax.random.key(1), (H, D))
    result = np.asarray(beyond()(x, jnp.ones((H, D)).at[0].set(0.0)))
    np.testing.assert_array_equal(result[0], np.asarray(x)[0])
    assert np.abs(result[1:] - np.asarray(x)[1:]).min() > 0


def test_every_row_sees_every_other():
    x = jax.random.normal(jax.random.key(1), (H, D))
    jacobian = jax.jacobian(lambda x: beyond()(x, jnp.asarray(1.0)).sum(axis=1))(x)
    assert (np.abs(jacobian).max(axis=2) > 0).all()


@pytest.mark.parametrize("dilation", [1, 2])
def test_the_convolution_is_that_of_numpy(dilation):
    """Each channel by itself, as NumPy correlates it with a kernel whose gaps are zeros."""
    made = {}

    def make(rngs):
        made["block"] = RowBlock(9, Rows(width=3), dilation, rngs)
        return made["block"]

    build(jax.random.key(1), make)
    v = np.asarray(jax.random.normal(jax.random.key(2), (9, 3)))
    taps = np.zeros((4 * dilation + 1, 3))
    taps[::dilation] = np.asarray(made["block"].kernel[...])
    exact = np.stack([np.correlate(np.pad(v[:, c], 2 * dilation), taps[:, c], "valid") for c in range(3)], axis=1)
    np.testing.assert_allclose(made["block"].along(jnp.asarray(v)), exact, rtol=1e-4, atol=1e-5)


def test_the_reference_of_a_path_kl_costs_no_second_evaluation():
    """Guided plans and their reference evaluate one prior: the compiled sampler has as many products as without."""
    chain, rows = small(), 16
    apply, params = build(jax.random.key(0), lambda rngs: RowNetwork(rows, D, K, D, Rows(width=8), rngs=rngs))
    leaves, tree = jax.tree.flatten(ChainDenoiser(params, chain, apply))
    sampler = Sampler(karras(6, 0.02, 10.0), (rows, D))
    pins = Pins(jnp.zeros((rows, D), bool).at[0].set(True), jnp.ones((rows, D)))

    def products(with_reference: bool) -> int:
        def one(key, leaves):
            prior = jax.tree.unflatten(tree, leaves)
            pushed = guided(prior, lambda x, sigma: jnp.sum(x), Strengths(jnp.ones(()), jnp.ones(())))
            reference = pinned(prior, pins) if with_reference else None
            plan, info = sample(key, pinned(pushed, pins), sampler, reference)
            return plan, info.path_kl

        draw = jax.jit(jax.vmap(one, (0, None)))
        text = draw.lower(jax.random.split(jax.random.key(0), 8), leaves).compile().as_text()
        return text.count(" dot(")

    assert 0 < products(True) == products(False)
