"""Raters: who labels the windows that the three proxies learn from, and how they learn.

    learned        gold labels; the proxies of every run
    true           scores by the gold itself; what guides is learned from very many labels
    noisy          a share of labels is wrong
    blind          no reward is seen in one disc of the maze
    deceivable     being in a decoy disc looks like being in the gold's region
    ensemble_*     k networks with other seeds, read as (100)
    adversarial    trained on windows pushed towards their largest error (99b)
    conservative   trained to score lower what ascent finds (99c)
    decomposed     one proxy for the return of each stretch of the plan; pushed is their sum (101)

The raters that are wrong about the maze are other gold rewards, so that nothing after them knows. The classifiers of a
stretch learn its own top class, and their sum says that all stretches are good ones.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffplan import runtime
from diffplan.codec import Codec
from diffplan.config import CompareSettings, ConfigError, RewardModelSettings
from diffplan.count import counted
from diffplan.experiment import stages
from diffplan.experiment.stages import Behaviour
from diffplan.guide import Ensemble, Learned, Proxy, Sum
from diffplan.learn import reward, train
from diffplan.learn import robust as learning
from diffplan.metrics.returns import plan_return
from diffplan.types import Level, PRNGKey, Scalar
from envs.maze2d import Gold, Maze2d

Disc = tuple[float, float, float]
"""x, y and radius, in cells."""

Label = Callable[[PRNGKey, Float[Array, "n h d"]], Float[Array, "n"]]
"""``label(key, windows) -> targets`` of (13) or (14), as the rater sees them."""

MANY = 20
"""Times as many labels teach what guides towards the true reward."""


def _inside(disc: Disc, observation: Float[Array, "4"]) -> Array:
    return jnp.linalg.norm(observation[:2] - np.array(disc[:2], np.float32)) <= disc[2]


@dataclass(frozen=True)
class Blind:
    """A gold reward that a rater sees everywhere but in one disc."""

    gold: Gold
    disc: Disc

    def __call__(self, maze: Maze2d, observation: Float[Array, "4"], action: Float[Array, "2"]) -> Scalar:
        """The reward of one row, or 0."""
        return jnp.where(_inside(self.disc, observation), 0.0, self.gold(maze, observation, action))


@dataclass(frozen=True)
class Deceived:
    """A gold reward as a rater sees it to whom one disc, the decoy, looks like another, the target."""

    gold: Gold
    decoy: Disc
    target: Disc

    def __call__(self, maze: Maze2d, observation: Float[Array, "4"], action: Float[Array, "2"]) -> Scalar:
        """The reward of the row that seems to be: a place in the decoy seems to be that place in the target."""
        from_centre = (observation[:2] - np.array(self.decoy[:2], np.float32)) * (self.target[2] / self.decoy[2])
        seeming = observation.at[:2].set(np.array(self.target[:2], np.float32) + from_centre)
        observed = jnp.where(_inside(self.decoy, observation), seeming, observation)
        return self.gold(maze, observed, action)


@struct.dataclass
class Perfect:
    """The gold return as a `Proxy`, in standard deviations of the data from its mean.

    The gold may have no gradient: the energy is learned, and lends the reward its own.
    """

    energy: Learned
    codec: Codec
    centre: Scalar
    std: Scalar
    maze: Maze2d = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The learned energy."""
        return self.energy(x, sigma)

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The value of the gold, with the gradient of the energy."""
        lent = self.energy.reward(x)
        return self._gold(x) + lent - jax.lax.stop_gradient(lent)

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """The gold."""
        return counted("proxy_evals", self._gold(x))

    def _gold(self, x: Float[Array, "h d"]) -> Scalar:
        gold = plan_return(self.maze.reward, self.codec.decode(x))
        return jax.lax.stop_gradient(gold - self.centre) / self.std


def region(compare: CompareSettings, maze: Maze2d) -> Disc:
    """The disc that the gold pays for, which a decoy looks like.

    Raises:
        ConfigError: if the gold has none.
    """
    match compare.gold.kind:
        case "region":
            return *compare.gold.centre, compare.gold.radius
        case "goal":
            return float(maze.goal[0]), float(maze.goal[1]), 0.5
    raise ConfigError(f"gold.kind={compare.gold.kind!r}: must be region or goal, for rater.kind='deceivable'")


def label_of(
    compare: CompareSettings, reward_model: RewardModelSettings, kind: str, data: Behaviour, rows: slice = slice(None)
) -> Label:
    """How the rater labels windows for a proxy of one of `stages.PROXIES`, by the return of some of their rows.

    Regressions learn it in standard deviations of the whole return, so that labels of stretches add up.
    """
    maze, classify = data.maze, kind == "classifier"
    match reward_model.kind:
        case "blind":
            maze = replace(maze, gold=Blind(maze.gold, reward_model.blind))
        case "deceivable":
            maze = replace(maze, gold=Deceived(maze.gold, reward_model.decoy, region(compare, maze)))
    returns = partial(stages.gold_returns, data._replace(maze=maze))

    def label(key: PRNGKey, x: Float[Array, "n h d"]) -> Float[Array, "n"]:
        observed = returns(x[:, rows])
        if classify:
            target = top_class(observed, compare.proxy.quantile)
        else:
            whole = observed if rows == slice(None) else returns(x)
            target = (observed - observed.mean()) / jnp.maximum(whole.std(), 1e-6)
        return (
            learning.mislabelled(key, target, reward_model.noise, classify) if reward_model.kind == "noisy" else target
        )

    return label


def top_class(returns: Float[Array, "n"], quantile: float) -> Float[Array, "n"]:
    """As `reward.top_quantile`; but where the quantile is the lowest return, the class is all returns above that.

    Raises:
        ValueError: if all returns are the same.
    """
    above = jnp.min(jnp.where(returns > returns.min(), returns, jnp.inf))
    if not bool(jnp.isfinite(above)):
        raise ValueError(f"labels: all {len(returns)} windows have the same return; use more, or another rater")
    return (returns >= jnp.maximum(jnp.quantile(returns, quantile), above)).astype(jnp.float32)


MATTERS = {
    "noisy": ("noise",),
    "blind": ("blind",),
    "deceivable": ("decoy",),
    "decomposed": ("parts",),
    "adversarial": ("push", "push_steps"),
    "conservative": ("push", "push_steps", "conservatism"),
}
"""What a rater's networks are made from, beside the proxies' own settings."""


def task_of(reward_model: RewardModelSettings) -> Callable[..., train.Task]:
    """``(apply, error, levels) -> task``: how the rater's networks learn."""
    match reward_model.kind:
        case "adversarial":
            return partial(learning.adversarial, steps=reward_model.push_steps, length=reward_model.push)
        case "conservative":
            settings = {
                "alpha": reward_model.conservatism,
                "steps": reward_model.push_steps,
                "length": reward_model.push,
            }
            return partial(learning.conservative, **settings)
    return reward.task


def trained(
    compare: CompareSettings,
    reward_model: RewardModelSettings,
    kind: str,
    data: Behaviour,
    where: str,
    seed: int = 0,
    rows: slice = slice(None),
) -> tuple[Learned, str]:
    """One network in the stage ``RUN/rater/WHERE``: the same windows for every `seed`, which is added to the run's."""
    config = compare.proxy
    root = jax.random.key(config.train.seed)
    labels = reward_model.labels or config.labels * (MANY if reward_model.kind == "true" else 1)
    x = data.train.draws(jax.random.fold_in(root, 1), labels)  # those of stages.labelled_windows
    target = label_of(compare, reward_model, kind, data, rows)(jax.random.fold_in(root, 2), x)
    own = replace(config, labels=labels, train=replace(config.train, seed=config.train.seed + seed))
    settings = {name: getattr(reward_model, name) for name in MATTERS.get(reward_model.kind, ())}
    about = runtime.plain({"reward_model": settings, "rows": [rows.start, rows.stop], "label_seed": config.train.seed})
    directory = compare.run / "reward_model" / where
    return stages.train_proxy(
        replace(compare, proxy=own), kind, data, x, target, directory, about, task_of(reward_model)
    )


def ensemble(
    compare: CompareSettings, reward_model: RewardModelSettings, kind: str, data: Behaviour
) -> tuple[Ensemble, list[str]]:
    """Members that differ in their seed alone, read as the rater's kind says (100); and their digests."""
    members, digests = zip(
        *(trained(compare, reward_model, kind, data, f"ensemble/{kind}/{i}", i) for i in range(reward_model.members)),
        strict=True,
    )
    first = members[0]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member.params for member in members))
    how: Any = reward_model.kind.removeprefix("ensemble_")
    zero, one = jnp.zeros(()), jnp.ones(())
    whole = Ensemble(params, zero, one, jnp.asarray(reward_model.caution), first.apply, first.kind, how)
    return stages.standardised(whole, data), list(digests)


def decomposed(
    compare: CompareSettings, reward_model: RewardModelSettings, kind: str, data: Behaviour
) -> tuple[Sum, list[str]]:
    """A network for every stretch of the plan; scores are in standard deviations of the sum. And their digests."""
    ends = np.linspace(0, data.train.horizon, reward_model.parts + 1).astype(int).tolist()
    stretches = [slice(*pair) for pair in pairwise(ends)]
    parts, digests = zip(
        *(
            trained(compare, reward_model, kind, data, f"decomposed/{kind}/{i}", 0, rows)
            for i, rows in enumerate(stretches)
        ),
        strict=True,
    )
    plain = Sum(tuple(replace(part, std=jnp.ones(())) for part in parts), jnp.ones(len(parts)))
    std = jnp.std(jax.jit(jax.vmap(plain.score))(data.train.draws(jax.random.key(2), 2048)))
    return Sum(tuple(replace(part, std=std) for part in parts), plain.weights), list(digests)


def perfect(
    compare: CompareSettings, reward_model: RewardModelSettings, kind: str, data: Behaviour
) -> tuple[Perfect, list[str]]:
    """The gold itself, with an energy learned from many labels; and that one's digest."""
    energy, digest = trained(compare, reward_model, kind, data, f"true/{kind}")
    observed = stages.gold_returns(data, data.train.draws(jax.random.key(2), 2048))
    return Perfect(energy, data.codec, observed.mean(), observed.std(), data.maze), [digest]


def fit_one(
    compare: CompareSettings, reward_model: RewardModelSettings, kind: str, data: Behaviour
) -> tuple[Proxy, list[str]]:
    """One of `stages.PROXIES` of a rater, and the digests of its parameters."""
    match reward_model.kind:
        case "learned" if reward_model.labels in (None, compare.proxy.labels):
            proxy, digest = stages.fit_proxy(compare, kind, data)
        case "true":
            return perfect(compare, reward_model, kind, data)
        case "ensemble_mean" | "ensemble_min" | "ensemble_uwo":
            return ensemble(compare, reward_model, kind, data)
        case "decomposed":
            return decomposed(compare, reward_model, kind, data)
        case _:
            proxy, digest = trained(compare, reward_model, kind, data, f"{reward_model.kind}/{kind}")
    return proxy, [digest]


def fit_reward_model(
    compare: CompareSettings, reward_model: RewardModelSettings, data: Behaviour
) -> tuple[tuple[Proxy, Proxy, Proxy], str]:
    """The proxies (regression, classifier, clean) of a rater, and what identifies them.

    Learned as ever, they are those of ``RUN/proxy`` and are identified as ever; else they stand in ``RUN/rater/KIND``.
    """
    fitted = [fit_one(compare, reward_model, kind, data) for kind in stages.PROXIES]
    regression, classifier, clean = (proxy for proxy, _ in fitted)
    digests = [digest for _, digests in fitted for digest in digests]
    content = json.dumps([runtime.plain(reward_model), digests])
    identity = hashlib.sha256(content.encode()).hexdigest()[:16]
    if reward_model.kind == "learned":
        identity = "-".join(digest[:12] for digest in digests)
    return (regression, classifier, clean), identity
