"""The maze against MuJoCo itself, against brute force, and against the drawing it was made from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffplan.envs import base, maze2d
from diffplan.envs.mujoco import Simulator


@pytest.fixture(scope="module")
def runs():
    """100 steps from 60 resets of the large maze under held random forces, hitting walls: [run, step, ...]."""
    maze, simulator, rng = maze2d.LARGE, Simulator(maze2d.LARGE), np.random.default_rng(0)
    states = jax.jit(jax.vmap(maze.reset))(jax.random.split(jax.random.key(0), 60))
    starts = np.array(jax.vmap(maze.observe)(states))
    actions = np.repeat(rng.uniform(-1, 1, (60, 10, 2)), 10, axis=1).astype(np.float32)
    observations, contacts = np.zeros((60, 101, 4)), np.zeros((60, 100), int)
    for run in range(60):
        observations[run, 0] = starts[run]
        for t in range(100):
            observations[run, t + 1], contacts[run, t] = simulator.step(observations[run, t], actions[run, t])
    return maze, states, actions, observations, contacts


def one_step_errors(maze, observations, actions, simulator=None):
    step = jax.jit(jax.vmap(lambda o, a: maze.step(jax.random.key(0), maze.state_of(o), a)[1].observation))
    ours = step(jnp.array(observations, jnp.float32), jnp.array(actions, jnp.float32))
    theirs = [
        simulator.step(o.astype(np.float32), a.astype(np.float32)) for o, a in zip(observations, actions, strict=True)
    ]
    return np.abs(ours - np.array([t[0] for t in theirs])).max(axis=1), np.array([t[1] for t in theirs])


def test_one_step_agrees_with_mujoco(runs):
    maze, _, actions, observations, contacts = runs
    errors, contacts = one_step_errors(
        maze, observations[:, :-1].reshape(-1, 4), actions.reshape(-1, 2), Simulator(maze)
    )
    assert (contacts == 0).sum() > 1000 and (contacts > 0).sum() > 500
    assert errors[contacts == 0].max() <= 1e-5  # 5e-7 measured
    assert np.median(errors[contacts > 0]) <= 1e-5
    assert errors[contacts > 0].max() <= 5e-4  # a float32 position error, times the wall's stiffness: 7e-5 measured


def test_contacts_at_seams_and_corners_agree_with_mujoco():
    """Positions placed all round the walls' surface, fast and slow, singly and in corners with up to three boxes."""
    maze, rng = maze2d.UMAZE, np.random.default_rng(1)
    cells = maze.cells[rng.integers(len(maze.cells), size=6000)]
    inset = 0.4 + rng.uniform(-0.02, 0.03, (6000, 2))  # the ball's centre touches at 0.4 from the cell's centre
    offset = np.where(
        rng.random((6000, 2)) < 0.6, np.sign(rng.normal(size=(6000, 2))) * inset, rng.uniform(-0.4, 0.4, (6000, 2))
    )
    observations = np.concatenate([cells - 0.2 + offset, rng.normal(scale=2, size=(6000, 2))], axis=1)
    errors, contacts = one_step_errors(maze, observations, rng.uniform(-1, 1, (6000, 2)), Simulator(maze))
    assert (contacts >= 2).sum() > 100 and (contacts >= 3).any()
    assert np.quantile(errors, 0.99) <= 1e-5 and errors.max() <= 2e-4  # 2e-6 and 2e-5 measured


def test_open_loop_run_stays_with_mujoco(runs):
    maze, states, actions, observations, contacts = runs
    rollout = jax.jit(jax.vmap(lambda s, a: base.rollout(maze, jax.random.key(0), s, a).observation))
    gaps = np.linalg.norm((rollout(states, jnp.array(actions)) - observations[:, 1:])[:, -1, :2], axis=1)
    touched = (contacts > 0).any(axis=1)
    assert touched.mean() > 0.5
    assert np.median(gaps[touched]) <= 0.03 and np.quantile(gaps[touched], 0.9) <= 0.25  # what was asked
    assert np.median(gaps[touched]) <= 1e-4 and np.quantile(gaps[touched], 0.9) <= 1e-2  # what is there


def test_speed_bound_is_d4rls():
    assert maze2d.SPEED_BOUND == pytest.approx(5.2262554, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "free", "goal", "steps"),
    [
        ("open", (5, 7), 15, (2, 3), 150),
        ("umaze", (5, 5), 7, (1, 1), 300),
        ("medium", (8, 8), 26, (6, 6), 600),
        ("large", (9, 12), 46, (7, 9), 800),
    ],
)
def test_layouts(name, shape, free, goal, steps):
    maze = maze2d.named(name)
    assert (maze.walls.shape, len(maze.cells), maze.goal, maze.max_steps) == (shape, free, goal, steps)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown maze 'u-maze': choose 'open', 'umaze', 'medium' or 'large'"):
        maze2d.named("u-maze")


def test_the_limit_of_steps_may_be_set():
    assert maze2d.named("medium", max_steps=70) == maze2d.Maze2d(maze2d.MEDIUM.rows, max_steps=70)
    maze = maze2d.Maze2d.from_text("###\n#G#\n###", max_steps=2)
    actions = jnp.zeros((4, 2))
    run = base.rollout(maze, jax.random.key(0), maze.reset(jax.random.key(0)), actions)
    assert run.truncated.tolist() == [False, True, True, True]
    for make in (lambda: maze2d.named("open", max_steps=0), lambda: maze2d.Maze2d(maze2d.OPEN.rows, max_steps=0)):
        with pytest.raises(ValueError, match="max_steps=0: must be at least 1"):
            make()


CROSS = maze2d.Maze2d.from_text("#######\n#OO#OO#\n#OOOOO#\n##O#OO#\n#OOOO##\n#######")


def clearances(maze, points):
    """The distance of each point from the nearest wall cell, as a box; outside the drawing all is wall."""
    low = np.argwhere(np.pad(maze.walls, 2, constant_values=True)) - 2.7
    beyond = np.maximum(np.maximum(low - points[:, None], points[:, None] - low - 1), 0)
    return np.linalg.norm(beyond, axis=-1).min(axis=1)


def test_open_places_agree_with_dense_sampling():
    """A disc is open if one of 3000 points in it is a ball's radius away from all walls."""
    rng, answers = np.random.default_rng(0), []
    turn, share = rng.uniform(0, 2 * np.pi, 1500), np.sqrt(rng.random(1500))
    for maze in (maze2d.UMAZE, CROSS):
        for _ in range(120):
            centre, radius = rng.uniform(-0.6, 5.2, 2), rng.uniform(0.0, 0.6)
            places = centre + radius * np.stack([share * np.cos(turn), share * np.sin(turn)], axis=1)
            places = np.concatenate([places, centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)])
            best = clearances(maze, places).max()
            if abs(best - maze2d.RADIUS) > 0.005:  # what the samples can tell
                answers.append(maze2d.open_place(maze, tuple(centre), radius))
                assert answers[-1] == (best > maze2d.RADIUS), (centre, radius)
    assert len(answers) > 200 and 0.2 < np.mean(answers) < 0.8


@pytest.mark.parametrize(
    ("name", "centre", "radius", "answer"),
    [
        ("umaze", (1.6, 2.7), 0.3, True),
        ("large", (1.6, 2.7), 0.3, False),  # in a wall
        ("umaze", (2.7, 1.6), 0.3, True),  # the lower corridor
        ("umaze", (1.6, 1.7), 0.3, False),  # the wall of the U; the disc touches its face, but the ball needs 0.1
        ("umaze", (1.6, 1.7), 0.41, True),
        ("umaze", (0.8, 0.8), 0.0, True),
        ("umaze", (0.35, 0.8), 0.0, False),  # a point in a free cell that is too near to its wall
        ("umaze", (9.0, 9.0), 1.0, False),
    ],
)
def test_open_places_by_hand(name, centre, radius, answer):
    assert maze2d.open_place(maze2d.named(name), centre, radius) is answer


def test_default_regions_are_open_and_rewarded(key):
    assert maze2d.default_region(maze2d.UMAZE) == ((1.6, 2.7), 0.3)
    assert maze2d.default_region(maze2d.OPEN) == ((1.8, 2.8), 0.3)  # by symmetry the middle
    dumbbell = maze2d.Maze2d.from_text("#######\n#O###O#\n#OOOOO#\n#O###O#\n#######")
    assert maze2d.default_region(dumbbell) == ((1.8, 2.8), 0.3)
    single = maze2d.Maze2d.from_text("###\n#G#\n###")
    assert maze2d.default_region(single) == ((0.8, 0.8), 0.3)
    for maze in (*maze2d.NAMED.values(), dumbbell, single, CROSS):
        centre, radius = maze2d.default_region(maze)
        assert maze2d.open_place(maze, centre, radius) and maze2d.open_place(maze, centre, 0)
        rewarded = maze2d.Maze2d(maze.rows, maze2d.time_in_region(centre, radius))
        at_rest = rewarded.state_of(jnp.array([*centre, 0, 0]))
        run = base.rollout(rewarded, key, at_rest, jnp.zeros((10, 2)))
        assert (run.reward == 1).all()  # nothing pushes the ball out
        np.testing.assert_allclose(run.observation[-1, :2], centre, atol=1e-6)


@pytest.mark.parametrize("name", ["open", "medium", "large"])
def test_a_default_region_lies_on_the_most_shortest_paths(name):
    """Against paths enumerated by a queue: a cell counts for a pair if a shortest path of the pair has it."""
    maze = maze2d.named(name)
    cells = [tuple(cell) for cell in maze.cells.tolist()]
    around = lambda cell: [(cell[0] + di, cell[1] + dj) for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    count = dict.fromkeys(cells, 0)
    for start in cells:
        distance, order = {start: 0}, [start]
        for cell in order:
            for other in around(cell):
                if other in count and other not in distance:
                    distance[other] = distance[cell] + 1
                    order.append(other)
        for end in cells:
            on, layer = set(), {end}
            while layer:
                on |= layer
                layer = {other for cell in layer for other in around(cell) if distance.get(other) == distance[cell] - 1}
            for cell in on:
                count[cell] += 1
    best = max(cells, key=lambda cell: count[cell])
    assert maze2d.default_region(maze)[0] == pytest.approx((best[0] - 0.2, best[1] - 0.2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("####\n#OO#\n###", "row 2 has 3 tiles where row 0 has 4"),
        ("####\n#Ox#\n####", "unknown tile 'x' at row 1, column 2"),
        ("####\n#OOO\n####", "not enclosed by walls: tile 'O' at row 1, column 3"),
        ("#G##\n#OO#\n####", "not enclosed by walls: tile 'G' at row 0, column 1"),
        ("####\n####\n####", "no free cell"),
        ("####\n#GG#\n####", r"more than one goal 'G': at row, column \(1, 1\), \(1, 2\)"),
    ],
)
def test_a_bad_drawing_is_named(text, message):
    with pytest.raises(ValueError, match=message) as error:
        maze2d.Maze2d.from_text(text)
    assert "\n" not in str(error.value)


def test_a_maze_without_goal_has_no_goal_reward():
    maze = maze2d.Maze2d.from_text("####\n#OO#\n####")
    with pytest.raises(ValueError, match="no goal"):
        maze.reward(jnp.zeros(4), jnp.zeros(2))


def test_coordinates():
    """The ball rests on a wall's face where D4RL says that the face is: cell (i, j) spans [i - 0.7, i + 0.3]."""
    maze = maze2d.Maze2d.from_text("#####\n#OOG#\n#####")
    assert maze.cell_centre(1, 2) == pytest.approx([0.8, 1.8])
    for i, j in maze.cells:
        for di, dj in [(-0.69, -0.69), (0.29, 0.29), (-0.2, -0.2)]:
            assert maze.is_free(jnp.array([i + di, j + dj]))
            assert (maze.cell_of(jnp.array([i + di, j + dj])) == np.array([i, j])).all()
    assert not maze.is_free(jnp.array([0.29, 1.0])) and not maze.is_free(jnp.array([1.31, 1.0]))
    assert not maze.is_free(jnp.array([-9.0, 1.0])) and not maze.is_free(jnp.array([1.0, 99.0]))
    push = jax.jit(lambda s, a: base.rollout(maze, jax.random.key(0), s, a).observation[-1])
    start = maze.state_of(jnp.array([0.8, 1.8, 0, 0]))
    np.testing.assert_allclose(push(start, jnp.tile(jnp.array([[1.0, 0.0]]), (300, 1)))[:2], [1.2, 1.8], atol=0.01)
    np.testing.assert_allclose(push(start, jnp.tile(jnp.array([[0.0, 1.0]]), (300, 1)))[:2], [0.8, 3.2], atol=0.01)


def test_crosses_wall_agrees_with_dense_sampling():
    maze, rng = maze2d.MEDIUM, np.random.default_rng(0)
    p = rng.uniform(-0.2, 7.2, (3000, 2)).astype(np.float32)
    q = (p + rng.normal(scale=0.7, size=p.shape)).astype(np.float32)
    crosses = np.array(jax.jit(jax.vmap(maze.crosses_wall))(p, q))
    points = p[:, None] + np.linspace(0, 1, 2001)[:, None] * (q - p)[:, None].astype(np.float64)
    i, j = np.moveaxis(np.floor(points + 0.7).astype(int), -1, 0)
    inside = (i >= 0) & (i < 8) & (j >= 0) & (j < 8)
    sampled = (~inside | maze.walls[np.clip(i, 0, 7), np.clip(j, 0, 7)]).mean(axis=1)
    assert 0.2 < crosses.mean() < 0.8
    assert crosses[sampled > 0].all()
    assert (sampled[crosses] == 0).sum() <= 3  # corners cut by less than a 2000th of the segment
    # what a check of points alone would pass: both ends free, a wall between
    start, end = jnp.array([1.0, 2.0]), jnp.array([1.0, 4.5])
    assert maze.is_free(start) and maze.is_free(end) and maze.crosses_wall(start, end)


@pytest.mark.parametrize(
    ("p", "q", "crosses"),
    [
        ((0.5, 1.0), (0.5, 1.0), False),  # a point in free space
        ((0.1, 1.0), (0.1, 1.0), True),  # a point in a wall
        ((0.3, 0.5), (0.3, 2.5), False),  # along a wall's face, outside it
        ((0.5, 0.5), (3.0, 0.5), True),  # through the wall of the U
        ((0.5, 0.5), (0.5, 3.1), False),  # down the corridor
        ((-5.0, 1.0), (-4.0, 1.0), True),  # outside the drawing
    ],
)
def test_crosses_wall_by_hand(p, q, crosses):
    assert maze2d.UMAZE.crosses_wall(jnp.array(p, jnp.float32), jnp.array(q, jnp.float32)) == crosses


def test_gold_rewards():
    maze, action = maze2d.UMAZE, jnp.zeros(2)
    assert maze.reward(jnp.array([1.0, 1.49, 3, 4]), action) == 1  # the goal is the integer location (1, 1)
    assert maze.reward(jnp.array([1.0, 1.51, 3, 4]), action) == 0
    moving = maze2d.Maze2d(maze.rows, maze2d.path_length)
    assert moving.reward(jnp.array([1.0, 1.0, 3, 4]), action) == pytest.approx(0.05)
    region = maze2d.Maze2d(maze.rows, maze2d.time_in_region((1.3, 2.0), 0.2))
    assert region.reward(jnp.array([1.2, 2.0, 0, 0]), action) == 1
    assert region.reward(jnp.array([1.4, 2.0, 0, 0]), action) == 0  # in the disc, but in the wall
    assert region.reward(jnp.array([1.0, 2.0, 0, 0]), action) == 0  # outside the disc
    assert hash(region) == hash(maze2d.Maze2d(maze.rows, maze2d.time_in_region((1.3, 2.0), 0.2)))


def test_impossible_starts_stay_finite_and_gradients_too():
    maze, rng = maze2d.UMAZE, np.random.default_rng(0)
    starts = np.concatenate([rng.uniform(-3, 8, (500, 2)), rng.normal(scale=3, size=(500, 2))], 1).astype(np.float32)
    starts[:3, :2] = [[0.3, 0.3], [0.8, 0.8], [0.4, 0.4]]  # on a corner, in the centre, just touching

    def travelled(o):
        end = base.rollout(maze, jax.random.key(0), maze.state_of(o), jnp.full((20, 2), 0.3)).observation[-1]
        return (end**2).sum()

    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(travelled)))(starts)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
