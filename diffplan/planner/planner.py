"""How plans are made: a prior over strided windows, guidance by a learned value, selection by another, refinement.

A plan is 32 observations, 15 steps apart, from where the ball is to the goal, at which it stays. Two values are learned
of its windows (`examples`), both of how soon they arrive: one noise-conditioned, to guide, one of clean windows, to
select,

    plan = the candidate with the highest clean value among those of n that can be walked,
           each drawn with guidance scale w                                                                 (123)

A leap through a wall is the shortest way, and guidance and selection would find it. So it is learned, too, what places
behaviour reaches within a stride (`learn.reach`), and a plan can be walked if its weakest step is no weaker than that
of 99 % of the data's windows. If no candidate can, the one with the strongest weakest step is taken.

w = 0 is Monte Carlo selection, n = 1 is guidance alone, both together is Diffuser's (Janner et al. 2022, section 3.3).
Planned anew, a candidate may start warm: at the last plan, moved on and noised to the level `warm`, not the highest.

The actions between two points are drawn by a second, low-level prior of 16 rows in sequence, pinned at both ends: the
hierarchy of Chen et al. (2024, arXiv 2401.02644), with the levels trained apart.
"""

from dataclasses import field
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.codec import Codec
from diffplan.denoise import pinned
from diffplan.guide import Learned, guided
from diffplan.learn.inverse import Inverse
from diffplan.learn.reach import Reach
from diffplan.learn.train import TrainSettings
from diffplan.noise import LogNormal
from diffplan.samplers import Sampler, dpmpp_2m, sample
from diffplan.settings import SIZE, more_than, require, settings
from diffplan.types import Denoise, PRNGKey, Scalar, Strengths, Trajectory


@settings("planner")
class PlannerSettings:
    """One configuration for all worlds."""

    horizon: Annotated[int, SIZE] = 32
    """Points of a plan."""
    stride: Annotated[int, SIZE] = 15
    """Steps from one point to the next."""
    low: Annotated[float, more_than(0)] = 0.02
    """Smallest noise level in sampling, in standard deviations of the data."""
    high: Annotated[float, more_than(0)] = 5.0
    """Largest noise level in sampling."""
    warm: Annotated[float, more_than(0)] = 1.0
    """Noise level of warm starts."""
    levels: Annotated[int, SIZE] = 8
    """Steps of the sampler, DPM-Solver++ (2M)."""
    noise: LogNormal = field(default_factory=lambda: LogNormal(-0.7, 1.0))
    """Noise levels in training: the middle ones, at which it is decided on which side of a wall a point is."""
    prior: TrainSettings = field(default_factory=lambda: TrainSettings(3000, 128, "muon", 5e-2))
    """Training of the prior."""
    low_level: TrainSettings = field(default_factory=lambda: TrainSettings(1500, 128, "muon", 2e-2))
    """Training of the low-level prior."""
    value: TrainSettings = field(default_factory=lambda: TrainSettings(steps=1500, batch=128, learning_rate=1e-3))
    """Training of each value."""
    inverse: TrainSettings = field(default_factory=lambda: TrainSettings(steps=8000, batch=512, learning_rate=2e-3))
    """Training of the inverse dynamics."""
    reach: TrainSettings = field(default_factory=lambda: TrainSettings(steps=6000, batch=512, learning_rate=2e-3))
    """Training of what can be reached."""
    width: Annotated[int, SIZE] = 128
    """Width of the networks."""
    depth: Annotated[int, SIZE] = 3
    """Blocks of the prior; the other networks have one less."""
    features: Annotated[int, SIZE] = 64
    """Random Fourier features of a place, in the prior."""
    patch: Annotated[int, SIZE] = 4
    """Points to a token in the values, rows to a token in the low-level prior; the prior's tokens are points."""

    def check(self) -> None:
        """Raise ConfigError unless the networks can be built and the levels fall."""
        require(self.horizon % self.patch == 0, "planner.horizon", self.horizon, f"a multiple of patch ({self.patch})")
        allowed = f"1 less than a multiple of patch ({self.patch})"
        require((self.stride + 1) % self.patch == 0, "planner.stride", self.stride, allowed)
        require(self.depth >= 2, "planner.depth", self.depth, "at least 2")
        require(self.low < self.high, "planner.low", self.low, f"below planner.high ({self.high})")
        allowed = f"above planner.low ({self.low}), at most planner.high ({self.high})"
        require(self.low < self.warm <= self.high, "planner.warm", self.warm, allowed)


Points = Float[Array, "h o"]
Rows = Float[Array, "n o"]

UNWALKABLE = 1e3
"""Below all values: what puts plans that cannot be walked behind those that can."""


@struct.dataclass
class PlanOptions:
    """What tuning may turn: the guidance scale (None: no guide is evaluated), n, and whether replanning starts warm."""

    scale: Scalar | None
    candidates: int = struct.field(pytree_node=False, default=1)
    warm: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class Planner:
    """All that plans in one world."""

    rows: Codec
    """Of single rows of behaviour."""
    prior: Denoise
    low_level: Denoise
    value: Learned
    """Noise-conditioned: it guides."""
    critic: Learned
    """Of clean windows: it selects."""
    reach: Reach
    weakest: Scalar
    """What 99 % of the data's windows do not fall below, in their weakest step."""
    inverse: Inverse
    sigmas: Float[Array, "k"]
    horizon: Annotated[int, SIZE] = struct.field(pytree_node=False)
    warmed: int = struct.field(pytree_node=False)
    """How many of the levels a warm start leaves out."""

    @property
    def codec(self) -> Codec:
        """Of points."""
        o = self.rows.observation_dim
        return Codec(self.rows.mean[:o], self.rows.std[:o], o)

    def draw(
        self, key: PRNGKey, start: Float[Array, "o"], goal: Float[Array, "o"], past: Points | None, scale: Scalar | None
    ) -> tuple[Points, Scalar]:
        """One candidate, and what it is selected by; warm where there is a past plan. Start and goal are in the
        environment's units, plans are normalised.
        """
        codec = self.codec
        pins = codec.pin(self.horizon, start, goal)
        pushed = self.prior if scale is None else guided(self.prior, self.value, Strengths(scale, jnp.ones(())))
        sigmas = self.sigmas if past is None else self.sigmas[self.warmed :]
        sampler = Sampler(sigmas, (self.horizon, codec.width), dpmpp_2m)
        x, _ = sample(key, pinned(pushed, pins), sampler, warm=past)
        step = self.reach.weakest(x)
        return x, jnp.where(step > self.weakest, self.critic.score(x), step - UNWALKABLE)

    def best(
        self, key: PRNGKey, starts: Rows, goals: Rows, past: Float[Array, "n h o"] | None, options: PlanOptions
    ) -> tuple[Float[Array, "n h o"], Float[Array, "n"]]:
        """(123) for every start, and what it was selected by; one candidate of all starts at a time."""
        past = past if options.warm else None
        each = jax.vmap(lambda key, start, goal, past: self.draw(key, start, goal, past, options.scale))
        draw = lambda key: each(jax.random.split(key, len(starts)), starts, goals, past)

        def better(best: tuple[Array, Array], key: PRNGKey) -> tuple[tuple[Array, Array], None]:
            x, score = draw(key)
            wins = score > best[1]
            return (jnp.where(wins[:, None, None], x, best[0]), jnp.where(wins, score, best[1])), None

        first, *rest = jax.random.split(key, options.candidates)
        best = draw(first)
        return jax.lax.scan(better, best, jnp.stack(rest))[0] if rest else best

    def moved_on(self, points: Float[Array, "h o"], steps: int) -> Float[Array, "h o"]:
        """A plan as it goes on after so many steps, normalised: what a warm start begins with."""
        later = jnp.minimum(jnp.arange(len(points)) + steps // self.inverse.steps, len(points) - 1)
        codec = self.codec
        return codec.encode(Trajectory(points[later], jnp.zeros((len(points), 0))))

    def actions(self, key: PRNGKey, points: Float[Array, "h o"], steps: int) -> Float[Array, "steps a"]:
        """The first so many actions of a plan: its gaps, filled by the low-level prior."""
        stride, rows = self.inverse.steps, self.rows
        sampler = Sampler(self.sigmas, (stride + 1, rows.width), dpmpp_2m)
        gaps = min(-(-steps // stride), len(points) - 1)

        def fill(key: PRNGKey, start: Array, end: Array) -> Array:
            pins = rows.pin(stride + 1, start, end)
            x, _ = sample(key, pinned(self.low_level, pins), sampler)
            return rows.decode(x).actions[:-1]

        filled = jax.vmap(fill)(jax.random.split(key, gaps), points[:gaps], points[1 : gaps + 1])
        return filled.reshape(gaps * stride, -1)[:steps]
