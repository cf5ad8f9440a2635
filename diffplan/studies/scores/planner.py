"""What is trained to be scored, and how it plans: a prior over strided windows, critics of them, inverse dynamics.

A plan is 32 points, 15 steps apart: observations, and where `actions` is set the 15 actions until the next point
(`learn.data.Strided`). By default it is not: behaviour's actions are noise for the most part, and so would the loss be.

A plan begins where the ball is. Of the goal the planner knows what the data's rewards say. With r_t the reward
at step t of a window of L steps,

    V = - min { t : r_t > 0 } / L,     -1 if it is never paid                            (122)

is learned twice, from clean windows, to select, and noise-conditioned, to guide; neither sees a plan's actions. And
p(r > 0 | o) is learned from rows. Behaviour never stays anywhere, so that no plan does; a plan is held where it pays,

    plan = held(the candidate with the highest clean V among n, each drawn with guidance scale w)       (123)

whose points after the first with p > 1/2 are that point, at rest. w = 0 is Monte Carlo selection, n = 1 is guidance
alone, both together is Diffuser's (Janner et al. 2022, section 3.3).
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from diffplan import denoise, noise, runtime
from diffplan.codec import Codec
from diffplan.config import DataConfig, TrainConfig, require
from diffplan.denoise import Edm, pinned
from diffplan.guide import Learned, guided
from diffplan.learn import inverse, reward, train
from diffplan.learn.data import Rows, Strided, muted, strided_codec
from diffplan.learn.inverse import Inverse
from diffplan.models import MLP, Mixer, Value, build
from diffplan.sample import dpmpp_2m, sample
from diffplan.studies import stages
from diffplan.types import Apply, Knobs, Params, PRNGKey, Scalar, Trajectory
from envs.maze2d import Maze2d


@dataclass(frozen=True)
class PlannerConfig:
    """One configuration for all mazes."""

    data: DataConfig = field(default_factory=lambda: DataConfig(lanes=250))
    """Behaviour; its maze is the task's."""
    horizon: int = 32
    """Points of a plan."""
    stride: int = 15
    """Steps from one point to the next."""
    actions: bool = False
    """Whether a plan holds actions, so that it can be carried out by its own."""
    mute: float = 10.0
    """Actions in a plan have a deviation of 1 / this: their noise says little, and would be most of the loss."""
    low: float = 0.02
    """Smallest noise level, in standard deviations of the data."""
    high: float = 10.0
    """Largest noise level."""
    levels: int = 12
    """Steps of the sampler, DPM-Solver++ (2M)."""
    prior: TrainConfig = field(default_factory=lambda: TrainConfig(3000, 128, "muon", 2e-2))
    """Training of the prior."""
    value: TrainConfig = field(default_factory=lambda: TrainConfig(steps=1500, batch=128, learning_rate=1e-3))
    """Training of each value."""
    pays: TrainConfig = field(default_factory=lambda: TrainConfig(steps=3000, batch=256, learning_rate=3e-3))
    """Training of p(r > 0 | o)."""
    inverse: TrainConfig = field(default_factory=lambda: TrainConfig(steps=8000, batch=512, learning_rate=2e-3))
    """Training of the inverse dynamics."""
    width: int = 128
    """Width of the networks."""
    depth: int = 3
    """Blocks of the prior; values have one less."""
    patch: int = 4
    """Points to a token."""

    def __post_init__(self) -> None:
        for name in ("horizon", "stride", "levels", "width", "depth", "patch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.horizon % self.patch == 0, "horizon", self.horizon, f"a multiple of patch ({self.patch})")
        require(self.mute > 0, "mute", self.mute, "more than 0")
        require(0 < self.low < self.high, "low", self.low, f"between 0 and high ({self.high})")


@struct.dataclass
class Rated:
    """Strided windows of behaviour with the value (122) of each, standardised; what stays clean is the first row's
    observation.
    """

    windows: Strided
    value: Float[Array, "lanes firsts"]

    @property
    def mask(self) -> Bool[Array, "h d"]:
        """The entries that stay clean in training, as they are pinned in sampling."""
        h, width = self.windows.horizon, self.windows.rows.shape[-1] - self.windows.observation_dim
        row = jnp.arange(self.windows.observation_dim + width * self.windows.stride) < self.windows.observation_dim
        return (jnp.arange(h) == 0)[:, None] & row[None]

    def draw(self, key: PRNGKey) -> tuple[Float[Array, "h d"], Scalar, Bool[Array, "h d"]]:
        """A window, its value and its mask: an example of a learned reward."""
        lane, first = self.windows.place(key)
        return self.windows.at(lane, first), self.value[lane, first], self.mask


def paid(maze: Maze2d, rows: Rows) -> Float[np.ndarray, "lanes steps"]:
    """The reward of every row."""
    reward_of = jax.jit(jax.vmap(jax.vmap(lambda o: maze.reward(o, jnp.zeros(2)))))
    return np.asarray(reward_of(jnp.asarray(rows.observations)))


def values(rewards: Float[np.ndarray, "lanes steps"], length: int) -> Float[np.ndarray, "lanes k"]:
    """(122) of the window that begins at each step."""
    wait = np.full((rewards.shape[0], rewards.shape[1] + 1), length)
    for t in range(rewards.shape[1] - 1, -1, -1):
        wait[:, t] = np.where(rewards[:, t] > 0, 0, np.minimum(wait[:, t + 1] + 1, length))
    return -wait[:, : wait.shape[1] - length] / length


@struct.dataclass
class Pays:
    """p(r > 0 | o), learned. apply: ``apply(params, z[o]) -> logit[1]`` of a normalised observation."""

    params: Params
    codec: Codec
    apply: Apply = struct.field(pytree_node=False)

    def __call__(self, observation: Float[Array, "o"]) -> Bool[Array, ""]:
        """Whether an observation is more likely paid for than not."""
        o = self.codec.observation_dim
        return self.apply(self.params, (observation - self.codec.mean[:o]) / self.codec.std[:o])[0] > 0

    def held(self, plan: Trajectory) -> Trajectory:
        """A plan whose points after the first that pays are that point, at rest, without forces."""
        points = plan.observations
        paid = jax.vmap(self)(points)
        first = jnp.where(paid.any(), jnp.argmax(paid), len(points))
        after = (jnp.arange(len(points)) >= first)[:, None]
        at_rest = points[jnp.minimum(first, len(points) - 1)].at[2:].set(0.0)
        later = jnp.arange(len(points))[:, None] > first
        return Trajectory(jnp.where(after, at_rest[None], points), jnp.where(later, 0.0, plan.actions))


class Planner(NamedTuple):
    """All that plans in one maze. A pytree."""

    codec: Codec
    denoise: Edm
    value: Learned
    """Noise-conditioned: it guides."""
    critic: Learned
    """Of clean windows: it selects."""
    pays: Pays
    inverse: Inverse
    sigmas: Float[Array, "k"]

    def draw(
        self, key: PRNGKey, start: Float[Array, "o"], horizon: int, scale: Scalar | None
    ) -> tuple[Float[Array, "h d"], Scalar]:
        """One plan from a start, and its clean value; no guide is evaluated where the scale is None."""
        pins = self.codec.pin(horizon, start)
        pushed = self.denoise if scale is None else guided(self.denoise, self.value, Knobs(scale, jnp.ones(())))
        x, _ = sample(key, pinned(pushed, pins), self.sigmas, (horizon, self.codec.width), dpmpp_2m)
        return x, self.critic.score(x)

    def best(
        self, key: PRNGKey, starts: Float[Array, "n o"], horizon: int, scale: Scalar | None, candidates: int
    ) -> tuple[Float[Array, "n h d"], Float[Array, "n"]]:
        """(123) for every start: the chosen plans and their values, one candidate of all starts at a time."""
        each = jax.vmap(lambda key, start: self.draw(key, start, horizon, scale))

        def better(held: tuple[Array, Array], key: PRNGKey) -> tuple[tuple[Array, Array], None]:
            x, score = each(jax.random.split(key, len(starts)), starts)
            wins = score > held[1]
            return (jnp.where(wins[:, None, None], x, held[0]), jnp.where(wins, score, held[1])), None

        first, *rest = jax.random.split(key, candidates)
        held = each(jax.random.split(first, len(starts)), starts)
        return jax.lax.scan(better, held, jnp.stack(rest))[0] if rest else held


def value_task(apply: Apply, levels: noise.LogUniform | None) -> train.Task:
    """The training of a value, clean where there are no levels."""
    return reward.task(apply, reward.regression_error, levels)


def pay_task(apply: Apply, o: int) -> train.Task:
    """The training of `Pays` on (rows, rewards), half of it on rows that were paid."""

    def draw(key: PRNGKey, data: tuple[Float[Array, "lanes steps d"], Float[Array, "lanes steps"]]) -> tuple:
        rows, rewards = data
        keys = jax.random.split(key, 3)
        at = jax.random.randint(keys[0], (64,), 0, rewards.size)
        paid = rewards.ravel()[at] > 0
        wanted = jax.random.bernoulli(keys[1])
        chosen = jax.random.categorical(keys[2], jnp.where(paid == wanted, 0.0, -20.0))
        return rows.reshape(-1, rows.shape[-1])[at[chosen], :o], paid[chosen]

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        z, paid = example
        return reward.classifier_error(apply(params, z)[0], paid.astype(jnp.float32)), {}

    return train.Task(loss, draw)


def timed(
    directory: Path, about: dict[str, Any], task: train.Task, params: Params, data: object, setting: TrainConfig
) -> tuple[Params, float]:
    """A training stage and the minutes that it took when it was trained: of its last unbroken run."""
    record = directory / "minutes.json"
    done = runtime.Stage(directory, about).ready() and record.exists()
    began = perf_counter()
    trained = stages.train_stage(directory, about, task, params, data, setting, "none")
    if not done:
        runtime.write_json(record, (perf_counter() - began) / 60)
    return trained, float(json.loads(record.read_text()))


def fit(directory: Path, config: PlannerConfig, maze: Maze2d, rows: Rows, identity: str) -> tuple[Planner, float]:
    """Train everything in a directory, or read it back; returns (planner, minutes that its training took)."""
    minutes: list[float] = []
    row_codec = muted(Codec.fit(rows.observations, rows.actions), config.mute)
    windows = Strided.of(rows, row_codec, config.horizon, config.stride)
    rewards = paid(maze, rows)
    value = values(rewards, config.horizon * config.stride)
    data = Rated(windows, jnp.asarray((value - value.mean()) / value.std(), jnp.float32))
    codec, levels = strided_codec(row_codec, config.stride), noise.LogUniform(config.low, config.high)
    if not config.actions:
        o = codec.observation_dim
        codec = Codec(codec.mean[:o], codec.std[:o], o)
    settings = {name: part for name, part in runtime.plain(config).items() if name not in ("data", "levels")}
    about = settings | {"rows": identity}
    key, o, seen = jax.random.key(config.prior.seed), codec.observation_dim, maze.observation_dim

    size = {"patch": config.patch, "width": config.width}
    apply, params = build(key, lambda rngs: Mixer(config.horizon, codec.width, **size, depth=config.depth, rngs=rngs))
    width, mask = codec.width, data.mask[:, : codec.width]
    draw = lambda key, data: data.windows.draw(key)[:, :width]
    loss = lambda params, key, x: denoise.loss(key, Edm(params, apply), x, mask, levels)

    def stage(name: str, task: train.Task, params: Params, given: object) -> Params:
        trained, took = timed(directory / name, about, task, params, given, getattr(config, name.split("_")[0]))
        minutes.append(took)
        return trained

    prior = Edm(stage("prior", train.Task(loss, draw), params, data), apply)

    judge, params = build(key, lambda rngs: Value(config.horizon, seen, **size, depth=config.depth - 1, rngs=rngs))
    blind = lambda params, x, c_noise: judge(params, x[:, :o], c_noise)
    learned = lambda name, levels: centred(
        Learned(
            stage(name, value_task(blind, levels), jax.tree.map(jnp.copy, params), data),
            jnp.zeros(()),
            jnp.ones(()),
            blind,
            "regression",
        ),
        data,
    )
    value_noisy, critic = learned("value_noisy", levels), learned("value_clean", None)

    mlp, params = build(key, lambda rngs: MLP(2 * o + 1, maze.action_dim, width=2 * config.width, depth=3, rngs=rngs))
    acting = Inverse(params, row_codec, mlp, config.stride)
    acting = replace(acting, params=stage("inverse", inverse.task(acting), params, windows.rows))

    logit, params = build(key, lambda rngs: MLP(o, 1, width=config.width, depth=2, rngs=rngs))
    pays = Pays(stage("pays", pay_task(logit, o), params, (windows.rows, jnp.asarray(rewards))), row_codec, logit)
    grid = noise.karras(config.levels, config.low, config.high)
    return Planner(codec, prior, value_noisy, critic, pays, acting, grid), sum(minutes)


def centred(proxy: Learned, data: Rated) -> Learned:
    """A value whose score has mean 0 and deviation 1 over windows of the data."""
    draws = jax.vmap(lambda key: data.draw(key)[0])
    seen = jax.jit(lambda keys: jax.vmap(proxy.score)(draws(keys)))(jax.random.split(jax.random.key(2), 2048))
    return replace(proxy, centre=seen.mean(), spread=seen.std())
