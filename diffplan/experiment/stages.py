"""The stages of a run, each in its own directory and each done once: data, prior, proxies.

Every stage is a function of its configuration and of what it builds on. Called again, it reads back what it finds; a
file or checkpoint that is damaged is named and made again, training from the newest sound checkpoint.
"""

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffplan import denoise, noise, runtime
from diffplan.checkpoint import Checkpoints, digest
from diffplan.codec import Codec
from diffplan.config import CompareSettings, DataSettings, GoldSettings, PriorSettings, ProxySettings, TrainSettings
from diffplan.data import windows as files
from diffplan.data.windows import Rows, Windows
from diffplan.denoise import Edm
from diffplan.guide import Ensemble, Learned
from diffplan.learn import reward, train
from diffplan.metrics.returns import plan_return
from diffplan.models import Mixer, TemporalUNet, Value, build
from diffplan.types import Apply, Params, PRNGKey
from envs import experts, maze2d
from envs.maze2d import Maze2d

PROXIES = ("regression", "classifier", "clean")
"""The learned rewards: noise-conditioned regression and classifier, and a regression that never sees noise."""

CHUNK = 250
"""Steps simulated per compiled call; the first two time limits are burnt in, so that trajectories start as in a
long run."""


Standardised = TypeVar("Standardised", Learned, Ensemble)


class Behaviour(NamedTuple):
    """What the data stage gives to the others."""

    maze: Maze2d
    codec: Codec
    train: Windows
    held_out: Windows
    identity: str


def environment(data: DataSettings, gold: GoldSettings) -> Maze2d:
    """The maze with its gold reward.

    Raises:
        ValueError: if `data.maze` is neither a layout's name nor a readable drawing.
    """
    path = Path(data.maze)
    maze = Maze2d.from_text(path.read_text()) if path.is_file() else maze2d.named(data.maze)
    match gold.kind:
        case "region":
            return replace(maze, gold=maze2d.time_in_region(gold.centre, gold.radius))
        case "goal":
            return replace(maze, gold=maze2d.time_near_goal)
        case "path":
            return replace(maze, gold=maze2d.path_length)


def make_rows(config: DataSettings, maze: Maze2d) -> Rows:
    """Simulate the behaviour, in chunks with progress."""
    steps, burn_in = config.rows // config.trajectories, ceil(2 * maze.max_steps / CHUNK)
    trajectory = experts.init(maze, jax.random.key(config.seed), config.trajectories)
    chunks = []
    with runtime.Progress("data", total=config.trajectories * steps) as progress:
        for number in range(burn_in + ceil(steps / CHUNK)):
            trajectory, rows = experts.advance(maze, trajectory, CHUNK, config.noise)
            if number >= burn_in:
                chunks.append((np.asarray(rows.observations), np.asarray(rows.actions)))
                progress.advance(config.trajectories * CHUNK)
    return Rows(*(np.concatenate(parts, axis=1)[:, :steps] for parts in zip(*chunks, strict=True)))


def make_data(run: Path, config: DataSettings, maze: Maze2d) -> tuple[Rows, str]:
    """The data stage: ``RUN/data/rows.npz``; returns (rows, identity)."""
    stage = runtime.Stage(run / "data", runtime.plain(config) | {"drawing": "\n".join(maze.rows)})
    path = stage.directory / "rows.npz"
    if stage.ready():
        return files.load(path)[0], stage.identity()
    rows = make_rows(config, maze)
    files.save(path, rows, {"seed": config.seed, "config": stage.config, "versions": runtime.versions()})
    stage.finish("rows.npz", "rows.json")
    return files.load(path)[0], stage.identity()


def behaviour(config: CompareSettings) -> Behaviour:
    """Data, normaliser and windows."""
    maze = environment(config.data, config.gold)
    rows, identity = make_data(config.run, config.data, maze)
    kept, held_out = rows.split(config.prior.held_out)
    codec = Codec.fit(kept.observations, kept.actions)
    horizon = config.prior.horizon
    return Behaviour(maze, codec, Windows.of(kept, codec, horizon), Windows.of(held_out, codec, horizon), identity)


def prior_network(key: PRNGKey, config: PriorSettings, dim: int) -> tuple[Apply, Params]:
    """The denoising network that a configuration names, as (apply, params)."""
    if config.network == "unet":
        return build(key, lambda rngs: TemporalUNet(dim, rngs=rngs))
    size = {"patch": config.patch, "width": config.width, "depth": config.depth}
    return build(key, lambda rngs: Mixer(config.horizon, dim, **size, rngs=rngs))


def pin_mask(windows: Windows, observation_dim: int, goal: Bool[Array, ""]) -> Bool[Array, "h d"]:
    """The entries that are kept clean: the first observation, and the last if `goal`."""
    entry = jnp.arange(windows.rows.shape[-1]) < observation_dim
    step = jnp.arange(windows.horizon)
    return ((step == 0) | (goal & (step == windows.horizon - 1)))[:, None] & entry[None]


def train_stage(
    directory: Path, settings: dict, task: train.Task, params: Params, data: object, setting: TrainSettings, track: str
) -> Params:
    """Train in a directory, or read back what was trained there; returns the averaged parameters."""
    stage = runtime.Stage(directory, settings)
    stage.ready()
    checkpoints = Checkpoints(directory / "checkpoints")
    state = train.start(jax.random.key(setting.seed), params, setting)
    metrics = runtime.Metrics(directory / "metrics.jsonl", *runtime.sinks(track, directory))
    state = train.fit(task, state, data, setting, checkpoints, metrics, str(directory))
    checkpoints.close()
    stage.finish()
    return state.ema


def fit_prior(compare: CompareSettings, data: Behaviour) -> tuple[Edm, str]:
    """The prior stage: ``RUN/prior``; returns (denoiser, digest of its parameters)."""
    config, levels = compare.prior, compare.noise
    dim, o = data.train.rows.shape[-1], data.codec.observation_dim
    apply, params = prior_network(jax.random.key(config.train.seed), config, dim)
    distribution = noise.LogUniform(levels.low, levels.high)

    def loss(params: Params, key: PRNGKey, example: tuple[Array, Array]) -> tuple:
        x, mask = example
        return denoise.loss(key, Edm(params, apply), x, mask, distribution)

    def draw(key: PRNGKey, windows: Windows) -> tuple:
        key_window, key_goal = jax.random.split(key)
        goal = jax.random.uniform(key_goal) < config.goal_fraction
        return windows.draw(key_window), pin_mask(windows, o, goal)

    settings = runtime.plain(config) | {"noise": runtime.plain(levels), "data": data.identity}
    task = train.Task(loss, draw)
    ema = train_stage(compare.run / "prior", settings, task, params, data.train, config.train, compare.track)
    return Edm(ema, apply), digest(ema)


def value_network(key: PRNGKey, config: ProxySettings, horizon: int, dim: int) -> tuple[Apply, Params]:
    """The network of all proxies, as (apply, params)."""
    size = {"patch": config.patch, "width": config.width, "depth": config.depth}
    return build(key, lambda rngs: Value(horizon, dim, **size, rngs=rngs))


def labelled_windows(config: ProxySettings, data: Behaviour) -> tuple[Float[Array, "n h d"], Float[Array, "n"]]:
    """N training windows and their gold returns: all that the proxies learn of the gold reward."""
    x = data.train.draws(jax.random.fold_in(jax.random.key(config.train.seed), 1), config.labels)
    return x, gold_returns(data, x)


def gold_returns(data: Behaviour, x: Float[Array, "n h d"]) -> Float[Array, "n"]:
    """The gold return of each window."""
    return jax.jit(jax.vmap(lambda x: plan_return(data.maze.reward, data.codec.decode(x))))(x)


def fit_proxy(compare: CompareSettings, kind: str, data: Behaviour) -> tuple[Learned, str]:
    """A proxy stage, ``RUN/proxy/KIND``, for one of `PROXIES`; returns (proxy, digest of its parameters)."""
    x, returns = labelled_windows(compare.proxy, data)
    classify, quantile = kind == "classifier", compare.proxy.quantile
    target = reward.top_quantile(returns, quantile) if classify else reward.standardised_returns(returns)
    return train_proxy(compare, kind, data, x, target, compare.run / "proxy" / kind, {})


def train_proxy(
    compare: CompareSettings,
    kind: str,
    data: Behaviour,
    x: Float[Array, "n h d"],
    target: Float[Array, "n"],
    directory: Path,
    about: dict[str, Any],
    make: Callable[..., train.Task] = reward.task,
) -> tuple[Learned, str]:
    """Train a proxy of one of the `PROXIES` on labelled windows, in a stage; returns (proxy, digest of its parameters).

    about: what else the labels and the task were made from. make: ``(apply, error, levels) -> task``.
    """
    config, levels, classify = compare.proxy, compare.noise, kind == "classifier"
    dim = data.train.rows.shape[-1]
    apply, params = value_network(jax.random.key(config.train.seed), config, data.train.horizon, dim)
    labelled = reward.Labelled(x, target, pin_mask(data.train, data.codec.observation_dim, jnp.asarray(False)))
    distribution = None if kind == "clean" else noise.LogUniform(levels.low, levels.high)
    task = make(apply, reward.classifier_error if classify else reward.regression_error, distribution)
    inputs = {"noise": runtime.plain(levels), "gold": runtime.plain(compare.gold), "data": data.identity}
    settings = runtime.plain(config) | {"kind": kind} | inputs | about
    ema = train_stage(directory, settings, task, params, labelled, config.train, compare.track)
    raw = Learned(ema, jnp.zeros(()), jnp.ones(()), apply, "classifier" if classify else "regression")
    return standardised(raw, data), digest(ema)


def standardised(proxy: Standardised, data: Behaviour) -> Standardised:
    """A proxy whose centre is 0 and spread 1, so that its score is standardised over windows of the data."""
    observed = jax.jit(jax.vmap(proxy.score))(data.train.draws(jax.random.key(2), 2048))
    return replace(proxy, centre=observed.mean(), std=observed.std())
