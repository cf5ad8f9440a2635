"""Models of the world, fitted on M transitions (o, a, o') of behaviour.

The K members of an ensemble (77) are fitted each on M transitions drawn from the M with replacement, so that they
differ where the data leave room (Efron's bootstrap; Chua et al. 2018, section 4), by

    min  E |f_k(z) - S^-1 (o' - o)|^2                                                                (79)

A tabular model (78) is its counts: there is nothing to train.
"""

from dataclasses import field, replace
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.data.stream import Data, Stream
from diffplan.dynamics import Ensemble, Tabular, nearest
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import MLP, build
from diffplan.runs import Recorder
from diffplan.settings import COUNT, SIZE, at_least, settings
from diffplan.types import Apply, Params, PRNGKey, Scalar


@settings("dynamics")
class DynamicsSettings:
    """A model of the dynamics: an ensemble of networks, fitted on transitions of behaviour."""

    train: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000, batch=256))
    transitions: Annotated[int, COUNT] = 10_000
    """M, the number of transitions that it learns from."""
    members: Annotated[int, at_least(2, 1000)] = 5
    """K, the number of networks; their disagreement needs two."""
    width: Annotated[int, SIZE] = 128
    """Width of a hidden layer."""
    depth: Annotated[int, SIZE] = 2
    """Number of hidden layers."""


def fit(
    windows: Data,
    bounds: tuple[Float[Array, "a"], Float[Array, "a"]],
    discrete: bool,
    config: DynamicsSettings,
    recorder: Recorder = SILENT,
) -> Ensemble:
    """Fit the ensemble (77) on transitions of behaviour.

    Args:
        windows: of two rows, as far apart as a step of the model leads.
        bounds: the least and the greatest action.
        discrete: whether an action is a score for each of several moves.
        config: how many transitions and networks.
        recorder: hears of the training.
    """
    key_data, key_index, *keys = jax.random.split(jax.random.key(config.train.seed), 2 + config.members)
    data = transitions(key_data, windows, config.transitions)
    o, a = data.observation.shape[1], data.action.shape[1]
    size = {"width": config.width, "depth": config.depth}
    applies, members = zip(*(build(key, lambda rngs: MLP(o + a, o, **size, rngs=rngs)) for key in keys), strict=True)
    model = replace(untrained(applies[0], list(members), data, *bounds), discrete=discrete)
    resampled = bootstraps(key_index, data, config.members)
    return replace(model, params=train(task(model), model.params, resampled, config.train, recorder))


class Transitions(NamedTuple):
    """Steps of behaviour, in the environment's units."""

    observation: Float[Array, "*m o"]
    action: Float[Array, "*m a"]
    after: Float[Array, "*m o"]


class Bootstraps(NamedTuple):
    """M transitions, and which of them each member is fitted on, ``[K, M]``."""

    transitions: Transitions
    index: Int[Array, "k m"]

    def draw(self, key: PRNGKey) -> Transitions:
        """One transition for every member."""
        chosen = self.index[:, jax.random.randint(key, (), 0, self.index.shape[1])]
        return jax.tree.map(lambda rows: rows[chosen], self.transitions)


def transitions(key: PRNGKey, windows: Data, count: int) -> Transitions:
    """`count` transitions of behaviour, or all there are if they are fewer, drawn without replacement.

    windows: of two rows.
    """
    if isinstance(windows, Stream):  # so many that hardly one is drawn twice
        windows = windows.sample(key, count)
    total = len(windows.first)
    first = windows.first[jax.random.choice(key, total, (min(count, total),), replace=False)]
    pair = jax.vmap(windows.trajectory)(first)
    return Transitions(pair.observations[:, 0], pair.actions[:, 0], pair.observations[:, 1])


def bootstraps(key: PRNGKey, data: Transitions, members: int) -> Bootstraps:
    """As many transitions for each member as there are, drawn with replacement."""
    count = len(data.observation)
    return Bootstraps(data, jax.random.randint(key, (members, count), 0, count))


def untrained(
    apply: Apply, members: list[Params], data: Transitions, low: Float[Array, "a"], high: Float[Array, "a"]
) -> Ensemble:
    """An ensemble scaled to its data, from the initial parameters of its members."""
    rows = jnp.concatenate([data.observation, data.action], axis=1)
    std = lambda values: jnp.maximum(values.std(axis=0), 1e-6)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    return Ensemble(params, rows.mean(axis=0), std(rows), std(data.after - data.observation), low, high, apply)


def task(model: Ensemble) -> Task:
    """(79) as a training task on `Bootstraps`; the parameters are those of all members."""

    def loss(params: Params, key: PRNGKey, example: Transitions) -> tuple[Scalar, dict[str, Scalar]]:
        def error(member: Params, observed: Transitions) -> Scalar:
            step = model.apply(member, model.normalised(observed.observation, observed.action))
            return jnp.mean((step - (observed.after - observed.observation) / model.step_std) ** 2)

        return jnp.mean(jax.vmap(error)(params, example)), {}

    return Task(loss, lambda key, data: data.draw(key))


def tabulate(data: Transitions, places: Float[Array, "k o"]) -> Tabular:
    """Equation (78): how often each move led from each place to each; a move is the largest entry of an action."""
    cell = jax.vmap(lambda observation: nearest(places, observation))
    k, moves = len(places), data.action.shape[1]
    index = (cell(data.observation), jnp.argmax(data.action, axis=1), cell(data.after))
    return Tabular(jnp.zeros((k, moves, k), jnp.int32).at[index].add(1), places)
