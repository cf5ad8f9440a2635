"""Generated levels by flood fill, the tables against the drawing and against the environment itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs import base, gridworld, layout


@pytest.mark.parametrize("density", [0.0, 0.2, 0.4, 0.99])
def test_generated_levels_are_connected_and_repeatable(density):
    for seed in range(10):
        world = gridworld.generate(seed, 7, 10, density)
        assert world == gridworld.generate(seed, 7, 10, density)
        assert sum(row.count("G") for row in world.rows) == 1
        assert world.walls.shape == (7, 10)
        result, todo = set(), [tuple(world.cells[0])]
        while todo:
            i, j = todo.pop()
            if (i, j) not in result and not world.walls[i, j]:
                result.add((i, j))
                todo += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
        assert len(result) == len(world.cells)
        fraction = 1 - len(result) / 40
        assert fraction == pytest.approx(int(density * 40) / 40) if density <= 0.2 else fraction <= density
    assert len({gridworld.generate(seed, 7, 10, 0.2).rows for seed in range(10)}) == 10


def test_generator_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least 3 x 3 tiles, got 2 x 5"):
        gridworld.generate(0, 2, 5, 0.1)
    with pytest.raises(ValueError, match=r"density is a share in \[0, 1\), got 1.0"):
        gridworld.generate(0, 5, 5, 1.0)
    with pytest.raises(ValueError, match="slip is a probability, got 2"):
        gridworld.Gridworld.from_text("###\n#G#\n###", slip=2.0)
    with pytest.raises(ValueError, match="max_steps=0: must be at least 1"):
        gridworld.named("street", max_steps=0)
    with pytest.raises(ValueError, match="unknown gridworld 'maze': choose 'fourrooms', 'corridors', 'street', or dra"):
        gridworld.named("maze")


@pytest.mark.parametrize("name", gridworld.NAMED)
def test_named_worlds_are_connected_and_take_a_limit_of_steps(name, key):
    world = gridworld.named(name)
    layout.check_connected(world.rows)
    assert world.reward(jnp.array(world.goal, jnp.float32), jnp.zeros(5)) == 1
    short = gridworld.named(name, max_steps=2)
    assert short == gridworld.Gridworld(world.rows, max_steps=2) and gridworld.named(name) is world
    run = base.rollout(short, key, short.reset(key), jnp.zeros((3, 5)))
    assert run.truncated.tolist() == [False, True, True]


def test_a_region_is_rewarded_cell_by_cell():
    """Against the distances of all cells; a point counts as its nearest free cell."""
    gold = gridworld.time_in_region((3, 4), 1.5)
    world = gridworld.Gridworld(gridworld.FOUR_ROOMS.rows, gold=gold)
    assert hash(world) == hash(gridworld.Gridworld(world.rows, gold=gridworld.time_in_region((3.0, 4.0), 1.5)))
    rewards = jax.vmap(lambda o: world.reward(o, jnp.zeros(5)))(jnp.asarray(world.cells, jnp.float32))
    rewarded = {tuple(cell) for cell in world.cells[np.asarray(rewards) == 1].tolist()}
    assert rewarded == {(i, j) for i in (2, 3, 4) for j in (3, 4, 5)} and set(np.asarray(rewards)) == {0, 1}
    assert world.reward(jnp.array([2.2, 4.3]), jnp.zeros(5)) == 1
    goalless = gridworld.Gridworld.from_text("####\n#OO#\n####", gold=gridworld.time_in_region((1, 2), 0))
    assert goalless.reward(jnp.array([1.0, 2.0]), jnp.zeros(5)) == 1


def test_tables_by_hand():
    world = gridworld.Gridworld.from_text("####\n#OG#\n#O##\n####", slip=0.5)
    np.testing.assert_array_equal(world.cells, [[1, 1], [1, 2], [2, 1]])
    np.testing.assert_array_equal(world.next_cell, [[0, 0, 2, 0, 1], [1, 1, 1, 0, 1], [2, 0, 2, 2, 2]])
    np.testing.assert_allclose(world.distribution[0, 4], [0.3, 0.6, 0.1])
    np.testing.assert_array_equal(layout.hops(world.next_cell), [[0, 1, 1], [1, 0, 2], [1, 2, 0]])
    assert world.reward(jnp.array([1.0, 2.0]), jnp.zeros(5)) == 1
    assert world.reward(jnp.array([1.0, 1.0]), jnp.zeros(5)) == 0


def test_unreachable_cells_are_marked():
    world = gridworld.Gridworld.from_text("#####\n#O#G#\n#####")
    np.testing.assert_array_equal(layout.hops(world.next_cell), [[0, -1], [-1, 0]])


@pytest.mark.parametrize("slip", [0.0, 0.4])
def test_steps_follow_the_tables(slip, key):
    world = gridworld.Gridworld(gridworld.FOUR_ROOMS.rows, slip)
    np.testing.assert_allclose(world.distribution.sum(axis=-1), 1)
    cell, move, draws = 31, 4, 4000
    start = gridworld.State(jnp.int32(cell), jnp.int32(0))
    step = jax.jit(jax.vmap(lambda k: world.step(k, start, jax.nn.one_hot(move, 5))[0].cell))
    counts = np.bincount(step(jax.random.split(key, draws)), minlength=len(world.cells)) / draws
    distribution = world.distribution[cell, move]
    assert (np.abs(counts - distribution) <= 4 * np.sqrt(distribution * (1 - distribution) / draws)).all()


def test_walls_hold(key):
    """10,000 random moves never leave the free cells, and reach all of them."""
    world = gridworld.generate(3, 6, 6, 0.3)
    actions = jax.random.uniform(key, (10_000, 5))
    places = jax.jit(lambda s, a: base.rollout(world, key, s, a).observation)(world.reset(key), actions)
    assert {tuple(p) for p in np.array(places, int)} == {tuple(c) for c in world.cells}
