"""A planner at work: its plans and its controllers, compiled, as `control.episodes` takes them.

Who is near the goal is not planned for: that plan is the goal itself, at rest. All others are planned for in batches of
one size, so that few programs are compiled and none plans for episodes that have arrived.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.planner.control import Controller, Name, Plans
from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.types import PRNGKey, Trajectory

BATCH = 32
"""Episodes that are planned for together."""

Rows = Float[np.ndarray, "n o"]
Points = Float[np.ndarray, "n h o"]


def plans(planner: PlanModel, options: PlanOptions, goals: Float[np.ndarray, "n 2"], every: int, near: float) -> Plans:
    """The planner at these options, planning every so many steps, with goals at which to rest; near: at this distance
    from its goal an episode has arrived, in the environment's units.
    """
    best = partial(_plans, every=every)
    at_rest = np.pad(goals, ((0, 0), (0, planner.rows.observation_dim - 2)))

    def plan(key: PRNGKey, observations: Rows, past: Points | None) -> tuple[Points, int]:
        points = np.repeat(at_rest[:, None], planner.horizon, axis=1)
        points[:, 0] = observations
        away = np.flatnonzero(np.linalg.norm(observations[:, :2] - goals, axis=1) > near)
        batch = min(BATCH, len(goals))
        for number, first in enumerate(range(0, len(away), batch)):
            some = away[first : first + batch]
            full = np.resize(some, batch)
            before = None if past is None or not options.warm else past[full]
            key_batch = jax.random.fold_in(key, number)
            result = best(planner, options, key_batch, at_rest[full], observations[full], before)
            points[some] = np.asarray(result)[: len(some)]
        return points, -(-len(away) // batch) * batch

    return plan


def controller(planner: PlanModel, name: Name, every: int) -> Controller:
    """A controller, with new plans every so many steps."""
    steps = min(every, planner.horizon * planner.stride)
    return Controller(name, every, planner.inverse, partial(_actions, planner, steps))


@partial(jax.jit, static_argnames="every")
def _plans(
    planner: PlanModel, options: PlanOptions, key: PRNGKey, goals: Array, starts: Array, past: Array | None, every: int
) -> Float[Array, "n h o"]:
    """Plans from where episodes are; where there are plans of `every` steps before, warm from them."""
    warm = None
    if past is not None:
        x = planner.codec.encode(Trajectory(past, jnp.zeros((*past.shape[:-1], 0))))
        warm = jax.vmap(lambda x: planner.moved_on(x, every))(x)
    x, _ = planner.best(key, starts, goals, warm, options)
    return planner.decode(x).observations


@partial(jax.jit, static_argnums=1)
def _actions(planner: PlanModel, steps: int, key: PRNGKey, points: Float[Array, "n h o"]) -> Float[Array, "n steps a"]:
    """The plans' own actions."""
    return jax.vmap(lambda key, points: planner.actions(key, points, steps))(jax.random.split(key, len(points)), points)
