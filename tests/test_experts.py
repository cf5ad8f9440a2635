"""The behaviour data against the published statistics of D4RL's, and the planner against brute force."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.benchmarks.statistics import PUBLISHED
from diffplan.envs import experts, gridworld, layout, maze2d


def collect(name):
    """800,000 rows with D4RL's repeated row, as the published data have it."""
    return experts.collect(maze2d.named(name), jax.random.key(0), trajectories=1000, steps=800, repeat_rows=True)


SLOW_MAZES = [name if name == "umaze" else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]


@pytest.mark.parametrize("name", SLOW_MAZES)
def test_statistics_are_those_of_the_published_data(name):
    """|ours - published| <= 3 % + 3 standard errors.

    3 % of what: for a mean, of that entry's std (a mean has no scale of its own); for a std and for the mean reward,
    of itself. Lanes are independent, so the standard error of a mean is the std over trajectories of the trajectories'
    means over sqrt(trajectories); that of a std is the standard error of the variance over 2 std. The published data
    are one run of 1 to 4 million rows, so they have an error of the same kind, of about the size of ours, that the 3 %
    must hold.
    """
    mean, std, action_std, reward = map(np.array, PUBLISHED[name])
    rows = collect(name)
    observations, actions, rewards = (np.array(x, np.float64) for x in (rows.observations, rows.actions, rows.rewards))
    check(observations, mean, std * 0.03)
    check((observations - observations.mean((0, 1))) ** 2, std**2, 2 * std * 0.03 * std)
    check((actions - actions.mean((0, 1))) ** 2, action_std**2, 2 * action_std * 0.03 * action_std)
    check(rewards, reward, 0.03 * reward)


def check(values, expected, tolerance):
    """The mean over trajectories and steps of values[trajectory, step, ...] is as expected, to a tolerance and 3
    standard errors.
    """
    ours, error = values.mean((0, 1)), values.mean(1).std(0) / np.sqrt(len(values))
    known = ~np.isnan(expected)
    assert (np.abs(ours - expected) <= tolerance + 3 * error)[known].all(), (ours, expected, tolerance, error)


@pytest.mark.parametrize(("again", "expected", "error"), [(False, 173.9, 4.1), (True, 223.5, 1.0)])
def test_score_is_that_of_d4rls_controller(again, expected, error, key):
    """300 noiseless steps to the U-maze's goal from every reset.

    D4RL's own code on MuJoCo gave 173.9 with a standard error of 4.1 (its published reference, from 100 episodes, is
    161.86). It keeps one controller for all episodes: with the target unchanged it never plans again, and steers
    straight for the goal, into the wall from the far method of the U. With a plan for each episode every start arrives:
    223.5 is a regression value of ours.
    """
    maze, trajectories, goal = maze2d.UMAZE, 1000, jnp.array([1.0, 1.0])
    used = experts.Controller(goal=jnp.int32(6), cell=jnp.int32(6), waypoint=goal, previous=goal)

    def score(key):
        reset_key, uniform_key = jax.random.split(key)
        state = maze.reset(reset_key)
        uniform = jax.random.uniform(uniform_key, (301, 2))
        controller = experts.idle() if again else used
        controller = experts.set_target(maze, controller, state.position, goal, uniform[0])

        def body(carry, uniform):
            state, controller = carry
            controller, (action, _) = experts.act(maze, controller, maze.observe(state), uniform)
            state, transition = maze.step(key, state, action)
            return (state, controller), transition.reward

        return jax.lax.scan(body, (state, controller), uniform[1:])[1].sum()

    scores = np.array(jax.jit(jax.vmap(score))(jax.random.split(key, trajectories)))
    assert abs(scores.mean() - expected) <= 3 * np.hypot(error, scores.std() / np.sqrt(trajectories))


def test_routes_are_the_shortest(key):
    """Against a queue-based search, cell by cell, on all mazes and some generated ones."""
    levels = [gridworld.generate(seed, 7, 9, 0.35) for seed in range(4)]
    mazes = [maze2d.UMAZE, maze2d.MEDIUM, maze2d.LARGE, *(maze2d.Maze2d(level.rows) for level in levels)]
    for maze in mazes:
        routes, width = experts.routes(maze), maze.walls.shape[1]
        for goal in map(tuple, maze.cells):
            distance, queue = {goal: 0}, deque([goal])
            while queue:
                i, j = queue.popleft()
                for cell in [(i, j - 1), (i, j + 1), (i - 1, j), (i + 1, j)]:
                    if not maze.walls[cell] and cell not in distance:
                        distance[cell] = distance[i, j] + 1
                        queue.append(cell)
            for cell in map(tuple, maze.cells):
                taken = tuple(divmod(int(routes[cell[0] * width + cell[1], goal[0] * width + goal[1]]), width))
                assert abs(taken[0] - cell[0]) + abs(taken[1] - cell[1]) == (cell != goal)
                assert distance[taken] == max(distance[cell] - 1, 0)


def test_ties_are_broken_as_by_value_iteration():
    """The first of the best actions of Q-iteration with discount 0.99, as D4RL's controller takes it."""
    maze, goal = maze2d.LARGE, (7, 9)
    height, width = maze.walls.shape
    reached = np.zeros((5, height * width), int)
    for m, (di, dj) in enumerate(((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))):
        for i, j in maze.cells:
            free = not maze.walls[i + di, j + dj]
            reached[m, i * width + j] = (i + di) * width + j + dj if free else i * width + j
    pay, value = np.zeros(height * width), np.zeros(height * width)
    pay[goal[0] * width + goal[1]] = 1
    for _ in range(50):
        q = pay + 0.99 * value[reached]
        value = q.max(axis=0)
    for i, j in maze.cells:
        cell = i * width + j
        assert experts.routes(maze)[cell, goal[0] * width + goal[1]] == reached[q[:, cell].argmax(), cell]


def test_routes_need_a_connected_maze():
    with pytest.raises(ValueError, match="not connected"):
        experts.routes(maze2d.Maze2d.from_text("#####\n#O#G#\n#####"))


def test_rows_are_true_steps_through_targets_and_chunks(key):
    maze = maze2d.UMAZE
    trajectory = experts.init(maze, key, 50)
    trajectory, first = experts.advance(maze, trajectory, 150)
    _, second = experts.advance(maze, trajectory, 150)
    rows = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), first, second)
    now, then = jnp.array(rows.observations[:, :-1]), jnp.array(rows.observations[:, 1:])
    residual = jax.jit(jax.vmap(jax.vmap(maze.residual)))(now, jnp.array(rows.actions[:, :-1]), then)
    assert residual.max() <= 5e-5
    crosses = jax.jit(jax.vmap(jax.vmap(maze.crosses_wall)))(now[..., :2], then[..., :2])
    assert not crosses.any()
    moved = np.linalg.norm(np.diff(rows.goals, axis=1), axis=-1) > 0
    assert moved.any()
    np.testing.assert_array_equal(moved, rows.done[:, :-1])


def test_rows_repeat_after_targets_when_asked_to():
    rows = collect("umaze")
    same = (rows.observations[:, 1:] == rows.observations[:, :-1]).all(axis=-1)
    assert same.any()
    np.testing.assert_array_equal(same, rows.done[:, :-1])


def test_tracking_rule_by_hand():
    now, then = jnp.array([1.0, 1.0, 0.5, 0.0]), jnp.array([1.1, 0.9, 0.7, -4.0])
    np.testing.assert_allclose(experts.tracking_action(now, then), [0.3, -1.0], atol=1e-6)


def test_wandering_goes_the_shortest_way_to_each_goal():
    world = gridworld.FOUR_ROOMS
    rows = experts.wander(world, jax.random.key(0), trajectories=6, steps=400, noise=0.0)
    number = {tuple(cell): i for i, cell in enumerate(world.cells.tolist())}
    ids = lambda places: np.asarray(
        [[number[tuple(place)] for place in trajectory] for trajectory in np.asarray(places, int)]
    )
    cells, goals, done = ids(rows.observations), ids(rows.goals), np.asarray(rows.done)
    moves = np.asarray(rows.actions).argmax(axis=-1)
    np.testing.assert_array_equal(cells[:, 1:], world.next_cell[cells, moves][:, :-1])
    np.testing.assert_array_equal(done, cells == goals)
    left = layout.hops(world.next_cell)[cells, goals]
    on = ~done[:, :-1]
    np.testing.assert_array_equal(left[:, 1:][on], left[:, :-1][on] - 1)
    assert len(np.unique(goals)) > 50


def test_wandering_is_noisy_as_often_as_it_is_asked_to():
    rows = experts.wander(gridworld.FOUR_ROOMS, jax.random.key(0), trajectories=20, steps=1000, noise=1.0)
    fraction = np.asarray(rows.actions).mean(axis=(0, 1))
    np.testing.assert_allclose(fraction, 0.2, atol=0.02)
