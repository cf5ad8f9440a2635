"""A planner at work: its plans and its controllers, compiled, as `control.episodes` takes them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.studies.scores.control import Carried, Name, Plans
from diffplan.studies.scores.planner import Dials, Planner
from diffplan.types import PRNGKey


def plans(planner: Planner, dials: Dials, goals: Float[np.ndarray, "n 2"], every: int) -> Plans:
    """The planner at these dials, with goals at which to rest, planning every so many steps."""
    at_rest = jnp.asarray(np.pad(goals, ((0, 0), (0, planner.rows.observation_dim - 2))))
    return partial(_planned, planner, at_rest, dials, every)


def carried(planner: Planner, name: Name, every: int) -> Carried:
    """A controller, with new plans every so many steps."""
    actions = partial(_filled, planner, min(every, planner.horizon * planner.inverse.steps))
    return Carried(name, every, planner.inverse, actions)


@partial(jax.jit, static_argnums=3)
def _planned(
    planner: Planner,
    goals: Float[Array, "n o"],
    dials: Dials,
    every: int,
    key: PRNGKey,
    seen: Float[Array, "n o"],
    past: Float[Array, "n h o"] | None,
) -> Float[Array, "n h o"]:
    """Plans to be carried out, from what is seen, and where they start warm from the plans of `every` steps before."""
    warm = jax.vmap(lambda points: planner.moved_on(points, every))(past) if dials.warm and past is not None else None
    x, _ = planner.best(key, seen, goals, warm, dials)
    return planner.codec.decode(x).observations


@partial(jax.jit, static_argnums=1)
def _filled(planner: Planner, steps: int, key: PRNGKey, points: Float[Array, "n h o"]) -> Float[Array, "n steps a"]:
    """The plans' own actions."""
    return jax.vmap(lambda key, points: planner.actions(key, points, steps))(jax.random.split(key, len(points)), points)
