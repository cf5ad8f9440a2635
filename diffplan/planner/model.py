"""How plans are made: a prior, guided by a learned reward or value, and the best of several candidates.

    plan = the candidate with the highest score among those of n that pass the gate,
           each drawn with guidance scale w                                                                 (123)

w = 0 is selection by a critic, n = 1 is guidance alone; together they are Diffuser's way (Janner et al. 2022, section
3.3). A gate says which plans can be walked: those whose weakest step is no weaker than that of 99 % of the data's
windows. If no candidate can, the one with the strongest weakest step is taken. Planned anew, a candidate may start
warm: at the last plan, moved on and noised to a level below the highest.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from diffplan.codec import Cells, Codec
from diffplan.denoise import pinned
from diffplan.flow_map import FewSteps, TwoTime, few_steps
from diffplan.guide import Proxy, guided
from diffplan.learn.inverse import Inverse
from diffplan.learn.reach import Reach
from diffplan.samplers import Sampler, chunked, even_chunks, sample, sample_until
from diffplan.types import Denoise, Energy, PRNGKey, Scalar, Strengths, Trajectory

Points = Float[Array, "h o"]
Rows = Float[Array, "n o"]

UNWALKABLE = 1e3
"""Below all scores: what puts plans that cannot be walked behind those that can."""


@struct.dataclass
class PlanOptions:
    """What may be turned without training: the guidance scale (None: no guide is evaluated), n, warm replanning."""

    scale: Scalar | None = None
    candidates: int = struct.field(pytree_node=False, default=1)
    warm: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class Gate:
    """Which plans can be walked. weakest: what 99 % of the data's windows do not fall below, in their weakest step."""

    reach: Reach
    weakest: Scalar

    def margin(self, x: Float[Array, "h d"]) -> Scalar:
        """Above 0 for plans that can be walked."""
        return self.reach.weakest(x) - self.weakest


@struct.dataclass
class PlanModel:
    """All that makes plans on one task: a pytree, whose methods are for one start unless they say otherwise."""

    rows: Codec
    """Of single rows of behaviour."""
    codec: Codec | Cells
    """Of plans: with actions, or of observations alone."""
    prior: Denoise
    sampler: Sampler
    inverse: Inverse
    """The action from one observation towards another."""
    energy: Proxy | None = None
    """Guides; noise-conditioned. It selects, too, where there is no critic."""
    critic: Proxy | None = None
    """Selects; of clean plans."""
    gate: Gate | None = None
    flow_map: TwoTime | None = None
    """Of the prior: plans in a few evaluations."""
    low_level: Denoise | None = None
    """Of the rows between two points of a plan that has no actions."""
    stride: int = struct.field(pytree_node=False, default=1)
    """Steps from one row of a plan to the next."""
    evaluations: int | None = struct.field(pytree_node=False, default=None)
    """Of the flow map, which draws plans if this is given."""
    warmed: int = struct.field(pytree_node=False, default=0)
    """How many of the noise levels a warm start leaves out; a flow map's warm start takes half of the evaluations."""
    tolerance: float | None = struct.field(pytree_node=False, default=None)
    """Where plans of the prior have settled (155); None: all levels are passed."""

    @property
    def horizon(self) -> int:
        """h, the rows of a plan."""
        return self.sampler.shape[0]

    @property
    def has_actions(self) -> bool:
        """Whether plans have actions, or the low-level prior draws them."""
        return self.low_level is not None or self.codec.action_dim > 0

    def draw(
        self,
        key: PRNGKey,
        start: Float[Array, "o"],
        goal: Float[Array, "o"] | None = None,
        past: Float[Array, "h d"] | None = None,
        scale: Scalar | None = None,
        energy: Energy | None = None,
    ) -> tuple[Float[Array, "h d"], Scalar]:
        """One candidate, and what it is selected by. The key is consumed.

        Args:
            key: of the noise.
            start: the first observation, in the environment's units.
            goal: the last observation, if one is given.
            past: a normalised plan from which to start warm.
            scale: the guidance scale; None: unguided.
            energy: guides in place of the model's own.
        """
        pins = self.codec.pin(self.horizon, start, goal)
        guide, sampler = energy or self.energy, self.sampler
        if past is not None:
            sampler = replace(sampler, sigmas=sampler.sigmas[self.warmed :])
        if self.evaluations is not None:
            assert self.flow_map is not None
            count = self.evaluations if past is None else max(1, self.evaluations // 2)
            how = FewSteps.between(sampler.sigmas, sampler.shape, count)
            x = few_steps(key, self.flow_map, how, pins, scale, guide, past)
            return x, self.score(x)
        denoiser = self.prior if scale is None or guide is None else guided(self.prior, guide, strength(scale))
        denoiser = pinned(denoiser, pins)
        if self.tolerance is None:
            x, _ = sample(key, denoiser, sampler, warm=past)
        else:
            x, _ = sample_until(key, denoiser, sampler, jnp.asarray(self.tolerance), past)
        return x, self.score(x)

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """What candidates are selected by: higher is better."""
        critic = self.critic or self.energy
        score = jnp.zeros(()) if critic is None else critic.score(x)
        if self.gate is None:
            return score
        margin = self.gate.margin(x)
        return jnp.where(margin > 0, score, margin - UNWALKABLE)

    def best(
        self,
        key: PRNGKey,
        starts: Rows,
        goals: Rows | None,
        past: Float[Array, "n h d"] | None,
        options: PlanOptions,
        energy: Energy | None = None,
    ) -> tuple[Float[Array, "n h d"], Float[Array, "n"]]:
        """(123) for every start, and the score of each plan. Candidates are drawn in rounds; the best are kept.

        A score that is not a number counts as -inf.
        """
        count, rows = len(starts), (starts, goals, past if options.warm else None)
        at_once, _ = even_chunks(count * options.candidates)
        rounds = -(-options.candidates // max(1, at_once // max(1, count)))
        group = -(-options.candidates // rounds)
        keys = jax.vmap(lambda key: jax.random.split(key, count))(jax.random.split(key, options.candidates))
        keys = keys[jnp.arange(rounds * group) % options.candidates]  # some are drawn again, which changes no maximum
        every = jax.tree.map(lambda a: jnp.tile(a, (group, *[1] * (a.ndim - 1))), rows)
        one = lambda key, row: self.draw(key, row[0], row[1], row[2], options.scale, energy)

        def best_of(keys: Key[Array, "group count"]) -> tuple[Array, Array]:
            x, score = chunked(one, keys.reshape(-1), every)
            score = jnp.where(jnp.isnan(score), -jnp.inf, score)
            chosen = jnp.argmax(score.reshape(group, count), axis=0), jnp.arange(count)
            return x.reshape(group, count, *x.shape[1:])[chosen], score.reshape(group, count)[chosen]

        def better(best: tuple[Array, Array], keys: Key[Array, "group count"]) -> tuple[tuple[Array, Array], None]:
            x, score = best_of(keys)
            wins = (score > best[1]) | (best[1] == -jnp.inf)
            return (jnp.where(wins[:, None, None], x, best[0]), jnp.where(wins, score, best[1])), None

        none = jnp.zeros((count, *self.sampler.shape)), jnp.full(count, -jnp.inf)
        return jax.lax.scan(better, none, keys.reshape(rounds, group, count))[0]

    def moved_on(self, x: Float[Array, "h d"], steps: int) -> Float[Array, "h d"]:
        """A normalised plan as it goes on after so many steps: what a warm start begins with."""
        return x[jnp.minimum(jnp.arange(len(x)) + steps // self.stride, len(x) - 1)]

    def actions(self, key: PRNGKey, points: Points, steps: int) -> Float[Array, "steps a"]:
        """The first so many actions of a plan of observations: its gaps, filled by the low-level prior."""
        assert self.low_level is not None
        stride, rows, low_level = self.stride, self.rows, self.low_level
        sampler = replace(self.sampler, shape=(stride + 1, rows.width))
        gaps = min(-(-steps // stride), len(points) - 1)

        def fill(key: PRNGKey, start: Array, end: Array) -> Array:
            pins = rows.pin(stride + 1, start, end)
            x, _ = sample(key, pinned(low_level, pins), sampler)
            return rows.decode(x).actions[:-1]

        filled = jax.vmap(fill)(jax.random.split(key, gaps), points[:gaps], points[1 : gaps + 1])
        return filled.reshape(gaps * stride, -1)[:steps]

    def decode(self, x: Float[Array, "*n h d"]) -> Trajectory:
        """Plans in the environment's units; actions are empty where plans have none."""
        return self.codec.decode(x)


def strength(scale: Scalar) -> Strengths:
    """A guidance scale, with the prior at its full strength."""
    return Strengths(guide=scale, prior=jnp.ones(()))
