"""Behaviour cloning: the policy that the data show, by maximum likelihood of their actions.

    min  - E (1 / h) sum_t log pi(a_t | o_t, t)                                          (83)

over windows of behaviour, t from 0 to 1 along a window. A discrete policy learns how often each move is made (Pomerleau
1991), a continuous one the mean of the action and, in `log_std`, what the mean leaves unexplained.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.codec import Cells, Codec
from diffplan.learn.train import Task
from diffplan.policy import Policy, times
from diffplan.types import Apply, Params, PRNGKey, Scalar


def actions(codec: Codec | Cells) -> int:
    """a: the entries of an action, or the number of moves."""
    return codec.next_cell.shape[1] if isinstance(codec, Cells) else codec.width - codec.observation_dim


def untrained_policy(codec: Codec | Cells, apply: Apply, params: Params) -> Policy:
    """An untrained policy on a codec's scale, from a network ``apply(params, z[o], t[]) -> [a]``."""
    a, o = actions(codec), codec.observation_dim
    params = {"network": params, "log_std": jnp.zeros(a)}
    if isinstance(codec, Cells):
        mean, std = codec.places.mean(axis=0), codec.places.std(axis=0)
        std = jnp.where(std > 0, std, 1.0)  # 0 across a corridor
        return Policy(params, mean, std, jnp.zeros(a), jnp.ones(a), apply, True)
    return Policy(params, codec.mean[:o], codec.std[:o], codec.mean[o:], codec.std[o:], apply, False)


def task(policy: Policy, codec: Codec | Cells) -> Task:
    """(83) as a training task on `data.Windows`, or on anything that draws a window; trains `policy.params`.

    A one-hot plan does not say where its last step leads, so that its last move counts for nothing.
    """

    def loss(params: Params, key: PRNGKey, window: Float[Array, "h d"]) -> tuple[Scalar, dict[str, Scalar]]:
        learner, plan = replace(policy, params=params), codec.decode(window)
        told = len(window) - isinstance(codec, Cells)

        def one(observation: Float[Array, "o"], action: Float[Array, "a"], time: Scalar) -> Scalar:
            return learner.log_prob(learner.distribution(observation, time), action)

        rows = (plan.observations, plan.actions, times(len(window)))
        return -jax.vmap(one)(*(row[:told] for row in rows)).mean(), {}

    return Task(loss, lambda key, data: data.draw(key))
