"""What an action does: the true dynamics, or a model learned from transitions. Both are one signature.

    o' , disagreement = dynamics(key, o, a)                                                     (71)

`disagreement` is how unsure a model is of o', in standard deviations of the step: the disagreement of an ensemble, 0
of the truth. A method that plans in a model may pay for disagreement (Yu et al. 2020, MOPO). Everything is in the
environment's units.

Two models are learned from transitions (`diffplan.learn.dynamics`). Of continuous rows an ensemble of K networks f_k,
each of the step scaled to unit variance, as Chua et al. 2018 (PETS) with deterministic members; z is (o, a) normalised:

    o' = o + S mean_k f_k(z),        disagreement = root mean over entries of var_k f_k(z),        S = diag std(o' - o)
    (77)

The mean is taken, not a member at random: then an imagined path is a function of its actions, and no optimiser can go
on drawing until a member flatters it. Of places, the distribution that the counts N of what was seen say,

    P(o' | o, a) = N(o, a, o') / N(o, a)                                                                           (78)

and where N(o, a) = 0 the place stays as it is, with disagreement 1. Nothing is smoothed: only what was seen can happen.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.count import counted
from diffplan.types import Apply, Params, PRNGKey, Scalar, Trajectory


@runtime_checkable
class Dynamics(Protocol):
    """Equation (71). A pytree, so that what was learned is traced; `diffplan.simulators.Truth` is the truth."""

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
        """The next observation, and the disagreement about it. The key is consumed."""
        ...


def imagine(
    dynamics: Dynamics, key: PRNGKey, start: Float[Array, "o"], actions: Float[Array, "h a"]
) -> tuple[Trajectory, Float[Array, "h"]]:
    """Carry out actions from a start: the trajectory of h rows, and the disagreement about each row's observation.

    The last action leads out of the trajectory and is kept as it is.
    """

    def body(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple]:
        observation, disagreement = carry
        return dynamics(inputs[0], observation, inputs[1]), (observation, disagreement)

    steps = (jax.random.split(key, len(actions)), actions)
    observations, disagreements = jax.lax.scan(body, (start, jnp.zeros(())), steps)[1]
    return Trajectory(observations, actions), disagreements


@struct.dataclass
class Ensemble:
    """Equation (77), in the environment's units.

    params: of K members, stacked. mean, std: of the rows (o, a). step_std: S. apply: ``apply(member, z[oa]) -> [o]``.
    """

    params: Params
    mean: Float[Array, "oa"]
    std: Float[Array, "oa"]
    step_std: Float[Array, "o"]
    action_low: Float[Array, "a"]
    action_high: Float[Array, "a"]
    apply: Apply = struct.field(pytree_node=False)
    discrete: bool = struct.field(pytree_node=False, default=False)

    def normalised(self, observation: Float[Array, "o"], action: Float[Array, "a"]) -> Float[Array, "oa"]:
        """z. An action beyond its bounds counts as the bound: the data hold none from there."""
        row = jnp.concatenate([observation, jnp.clip(action, self.action_low, self.action_high)])
        return (row - self.mean) / self.std

    def __call__(
        self, key: PRNGKey, observation: Float[Array, "o"], action: Float[Array, "a"]
    ) -> tuple[Float[Array, "o"], Scalar]:
        """The mean of the members' next observations, and how far they are from one another."""
        steps = jax.vmap(self.apply, (0, None))(self.params, self.normalised(observation, action))
        after = counted("env_steps", observation + self.step_std * steps.mean(axis=0))
        return after, jnp.sqrt(jnp.mean(jnp.var(steps, axis=0)))


@struct.dataclass
class Tabular:
    """Equation (78), for one-hot moves between places ``[k, o]``."""

    counts: Int[Array, "k m k"]
    places: Float[Array, "k o"]
    discrete: bool = struct.field(pytree_node=False, default=True)

    @property
    def action_low(self) -> Float[Array, "m"]:
        """Of a one-hot move."""
        return jnp.zeros(self.counts.shape[1])

    @property
    def action_high(self) -> Float[Array, "m"]:
        """Of a one-hot move."""
        return jnp.ones(self.counts.shape[1])

    def __call__(
        self, key: PRNGKey, observation: Float[Array, "o"], action: Float[Array, "m"]
    ) -> tuple[Float[Array, "o"], Scalar]:
        """A draw from what was seen to follow."""
        cell = nearest(self.places, observation)
        observed = self.counts[cell, jnp.argmax(action)]
        new = jnp.sum(observed) == 0
        after = jnp.where(new, cell, jax.random.categorical(key, jnp.log(observed)))
        return counted("env_steps", self.places[after]), new.astype(jnp.float32)


def nearest(places: Float[Array, "k o"], observation: Float[Array, "o"]) -> Int[Array, ""]:
    """The number of the place nearest to an observation."""
    return jnp.argmin(jnp.sum((places - observation[None]) ** 2, axis=1))
