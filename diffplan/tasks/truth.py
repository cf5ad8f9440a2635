"""The true dynamics of an environment, as methods plan in them."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.count import counted
from diffplan.types import PRNGKey, Scalar
from envs.base import Environment


@struct.dataclass
class Truth:
    """An environment as `Dynamics`: its disagreement is 0."""

    env: Environment = struct.field(pytree_node=False)
    discrete: bool = struct.field(pytree_node=False, default=False)

    @property
    def action_low(self) -> Float[Array, "a"]:
        """The least action."""
        return jnp.asarray(self.env.action_low)

    @property
    def action_high(self) -> Float[Array, "a"]:
        """The greatest action."""
        return jnp.asarray(self.env.action_high)

    def __call__(
        self, key: PRNGKey, observation: Float[Array, "o"], action: Float[Array, "a"]
    ) -> tuple[Float[Array, "o"], Scalar]:
        """One step of the environment."""
        transition = self.env.step(key, self.env.state_of(observation), action)[1]
        return counted("env_steps", transition.observation), jnp.zeros(())
