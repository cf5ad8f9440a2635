"""Reward models: who labels the windows that the proxies learn from, and how they learn.

    learned        the true returns as labels; the proxies of every run
    true           scores by the true reward itself; the energy that guides is learned from very many labels
    noisy          a fraction of the labels is wrong
    shuffled       labels are dealt out at random: a null control
    blind          the labeller sees no reward in one disc
    deceivable     to the labeller, a decoy disc looks like the target
    ensemble_*     k networks with other seeds, read as (100)
    adversarial    trained on windows pushed towards their largest error (99b)
    conservative   trained so that what ascent finds scores little more than data (99c)
    decomposed     one proxy for the return of each stretch of the plan; their sum is pushed (101)

The labellers that err about a place are other rewards, so that nothing after them knows. The classifiers of a stretch
learn the stretch's own top class, and their sum says that all stretches are good ones.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import struct
from jaxtyping import Array, Float

from diffplan.codec import Cells, Codec
from diffplan.count import counted
from diffplan.data.stream import Data
from diffplan.guide import Ensemble, Learned, Sum
from diffplan.learn import reward, robust
from diffplan.learn.train import Task
from diffplan.settings import COUNT, FRACTION, ConfigError, at_least, more_than, require, settings
from diffplan.task import Disc, Reward
from diffplan.types import Level, PRNGKey, Scalar

MANY = 20
"""Times as many labels teach the energy that guides towards the true reward."""


@settings("reward_model")
class RewardModelSettings:
    """Who labels the windows that the proxies learn from, and how they learn from labels."""

    kind: Annotated[
        Literal[
            "learned",
            "true",
            "noisy",
            "shuffled",
            "ensemble_mean",
            "ensemble_min",
            "ensemble_uwo",
            "adversarial",
            "conservative",
            "blind",
            "deceivable",
            "decomposed",
        ],
        tyro.conf.arg(name=""),
    ] = "learned"
    """learned: true labels; true: the true reward itself; noisy, blind, deceivable: labels that are wrong in a way; the
    others learn from true labels in another way."""
    labels: Annotated[int | None, at_least(2, 2**24)] = None
    """N, the number of labelled windows; as many as proxy.labels if not given, and 20 times as many for true."""
    noise: Annotated[float, FRACTION] = 0.25
    """noisy: fraction of windows that have another window's label; of a classifier's labels, fraction flipped."""
    members: Annotated[int, at_least(2, 1000)] = 5
    """ensemble_*: networks, which differ in their seed alone."""
    caution: Annotated[float, at_least(0)] = 0.5
    """ensemble_uwo: weight of the members' variance, taken off their mean."""
    blind: tuple[float, float, float] = (1.6, 3.0, 0.3)
    """blind: x, y and radius of a disc in which the labeller sees no reward, in the units of observations."""
    decoy: tuple[float, float, float] = (2.8, 0.8, 0.3)
    """deceivable: x, y and radius of a disc that looks like the target to the labeller."""
    parts: Annotated[int, COUNT] = 2
    """decomposed: equal stretches of the plan, each with its own learned reward; their sum is pushed."""
    push: Annotated[float, more_than(0)] = 0.3
    """adversarial: how far windows are moved, as root mean square in standard deviations of the data."""
    push_steps: Annotated[int, at_least(1, 10_000)] = 3
    """adversarial: gradient steps in which they are moved."""
    conservatism: Annotated[float, at_least(0)] = 0.5
    """conservative: tau, by how much ascent may raise the score of a window, in standard deviations of the label; of a
    classifier, in units of its logit."""

    def check(self) -> None:
        """Raise ConfigError unless both discs have a radius."""
        for name in ("blind", "decoy"):
            require(getattr(self, name)[2] > 0, f"reward_model.{name}", getattr(self, name), "of a radius above 0")

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the networks of this kind, beside the proxies' own."""
        return {name: getattr(self, name) for name in MATTERS.get(self.kind, ())}


MATTERS = {
    "noisy": ("noise",),
    "blind": ("blind",),
    "deceivable": ("decoy",),
    "decomposed": ("parts",),
    "adversarial": ("push", "push_steps"),
    "conservative": ("conservatism",),
}


def _inside(disc: Disc, observation: Float[Array, "o"]) -> Array:
    return jnp.linalg.norm(observation[:2] - np.array(disc[:2], np.float32)) <= disc[2]


def blind(reward: Reward, disc: Disc) -> Reward:
    """A reward that is seen everywhere but in one disc."""
    return lambda observation, action: jnp.where(_inside(disc, observation), 0.0, reward(observation, action))


def deceived(reward: Reward, decoy: Disc, target: Disc) -> Reward:
    """A reward as seen by whom one disc, the decoy, looks like another, the target.

    A place in the decoy looks like that place in the target.
    """

    def seeming(observation: Float[Array, "o"], action: Float[Array, "a"]) -> Scalar:
        from_centre = (observation[:2] - np.array(decoy[:2], np.float32)) * (target[2] / decoy[2])
        elsewhere = observation.at[:2].set(np.array(target[:2], np.float32) + from_centre)
        return reward(jnp.where(_inside(decoy, observation), elsewhere, observation), action)

    return seeming


def labeller_reward(config: RewardModelSettings, true: Reward | None, target: Disc | None) -> Reward | None:
    """The reward as the labeller sees it.

    Args:
        config: what the labeller is blind to, or deceived by.
        true: the true reward; None where rewards are only recorded.
        target: the disc that the true reward pays for, if there is one.

    Raises:
        ConfigError: if a decoy has no target to look like, or if a labeller errs about a reward that is only recorded.
    """
    kind = config.kind
    if kind not in ("blind", "deceivable"):
        return true
    if true is None:
        raise ConfigError(f"reward_model.kind={kind!r}: must be another, where the task has no reward function")
    if kind == "blind":
        return blind(true, config.blind)
    if target is None:
        raise ConfigError(f"reward_model.kind={kind!r}: must be another, where the reward pays for no disc")
    return deceived(true, config.decoy, target)


def labels(
    key: PRNGKey,
    gains: Float[Array, "n h"],
    classify: tuple[bool, float],
    config: RewardModelSettings,
    rows: slice = slice(None),
) -> Float[Array, "n"]:
    """The targets of (13) or (14), by the return of some rows of each window.

    Regressions learn the return in standard deviations of the whole return, so that labels of stretches add up.

    Args:
        key: consumed.
        gains: what each row of each window earns, to the labeller.
        classify: whether the targets are classes, and the quantile that parts them.
        config: whether some labels are wrong.
        rows: which rows count.
    """
    counting = gains[:, rows].sum(axis=1)
    if classify[0]:
        target = reward.top_class(counting, classify[1])
    else:
        target = (counting - counting.mean()) / jnp.maximum(gains.sum(axis=1).std(), 1e-6)
    if config.kind == "shuffled":
        return jax.random.permutation(key, target)
    return robust.mislabelled(key, target, config.noise, classify[0]) if config.kind == "noisy" else target


def task_of(config: RewardModelSettings) -> Callable[..., Task]:
    """``(apply, error, levels) -> task``: how the networks of this kind learn."""
    match config.kind:
        case "adversarial":
            return partial(robust.adversarial, steps=config.push_steps, length=config.push)
        case "conservative":
            return partial(robust.conservative, gap=config.conservatism)
    return reward.task


def stretches(horizon: int, parts: int) -> list[slice]:
    """The rows of each of so many equal stretches of a plan."""
    ends = np.linspace(0, horizon, parts + 1).astype(int).tolist()
    return [slice(*pair) for pair in pairwise(ends)]


def ensemble(members: list[Learned], config: RewardModelSettings, windows: Data) -> Ensemble:
    """Members that differ in their seed alone, read as the kind says (100)."""
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member.params for member in members))
    combine: Any = config.kind.removeprefix("ensemble_")
    zero, one, first = jnp.zeros(()), jnp.ones(()), members[0]
    whole = Ensemble(params, zero, one, jnp.asarray(config.caution), first.apply, first.kind, combine)
    return reward.standardised(whole, windows)


def summed(parts: list[Learned], windows: Data) -> Sum:
    """The proxies of all stretches as one; its score is in standard deviations of the sum."""
    plain = Sum(tuple(replace(part, std=jnp.ones(())) for part in parts), jnp.ones(len(parts)))
    std = jnp.std(jax.jit(jax.vmap(plain.score))(windows.draws(jax.random.key(2), 2048)))
    return Sum(tuple(replace(part, std=std) for part in parts), plain.weights)


@struct.dataclass
class Perfect:
    """The true return as a `Proxy`, in standard deviations of the data from its mean.

    The true reward may have no gradient: the energy is learned, and lends the reward its own.
    """

    energy: Learned
    codec: Codec | Cells
    centre: Scalar
    std: Scalar
    true: Reward = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The learned energy."""
        return self.energy(x, sigma)

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The value of the true return, with the gradient of the energy."""
        lent = self.energy.reward(x)
        return self._standardised(x) + lent - jax.lax.stop_gradient(lent)

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """The true return."""
        return counted("proxy_evals", self._standardised(x))

    def _standardised(self, x: Float[Array, "h d"]) -> Scalar:
        plan = self.codec.decode(x)
        total = jnp.sum(jax.vmap(self.true)(plan.observations, plan.actions))
        return jax.lax.stop_gradient(total - self.centre) / self.std
