"""What an action does: the true dynamics, or a model learned from transitions. Both are one signature.

    o' , doubt = dynamics(key, o, a)                                                     (71)

`doubt` is how unsure a model is of o', in standard deviations of the step: the disagreement of an ensemble, 0 of the
truth. An arm that plans in a model may pay for doubt (Yu et al. 2020, MOPO). Everything is in the environment's units.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.types import PRNGKey, Scalar, Trajectory


@runtime_checkable
class Dynamics(Protocol):
    """Equation (71). A pytree, so that what was learned is traced; build the truth with `studies.known.Truth`."""

    @property
    def action_low(self) -> Float[Array, "a"]:
        """The least action, entry by entry."""
        ...

    @property
    def action_high(self) -> Float[Array, "a"]:
        """The greatest action."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether an action is a score for each of `a` moves, of which the largest is taken."""
        ...

    def __call__(
        self, key: PRNGKey, observation: Float[Array, "o"], action: Float[Array, "a"]
    ) -> tuple[Float[Array, "o"], Scalar]:
        """The next observation, and the doubt about it. The key is consumed."""
        ...


def imagine(
    dynamics: Dynamics, key: PRNGKey, start: Float[Array, "o"], actions: Float[Array, "h a"]
) -> tuple[Trajectory, Float[Array, "h"]]:
    """Carry out actions from a start: the trajectory of h rows, and the doubt about each row's observation.

    The last action leads out of the trajectory and is kept as it is.
    """

    def body(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple]:
        observation, doubt = carry
        return dynamics(inputs[0], observation, inputs[1]), (observation, doubt)

    steps = (jax.random.split(key, len(actions)), actions)
    observations, doubts = jax.lax.scan(body, (start, jnp.zeros(())), steps)[1]
    return Trajectory(observations, actions), doubts
