"""One training loop for every network: scanned chunks, an exponential moving average, and exact resume.

A state holds everything that training carries on; a batch is a function of ``fold_in(key, step)`` and of the data. So a
run that is stopped at any step and resumed from its checkpoint goes through the same numbers as one that is not.

The loop itself knows no directory: a `Recorder` restores, records and saves (`diffplan.runs.stage`), or nobody does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from diffplan.runs import Recorder, signals
from diffplan.settings import COUNT, SEED, at_least, more_than, settings
from diffplan.types import Params, PRNGKey, Scalar

Loss = Callable[[Params, PRNGKey, Any], tuple[Scalar, dict[str, Scalar]]]
"""``loss(params, key, example) -> (scalar, what may be looked at)``, on one example."""

Draw = Callable[[PRNGKey, Any], Any]
"""``draw(key, data) -> example``."""


@settings("train")
class TrainSettings:
    """One training run."""

    steps: Annotated[int, COUNT]
    """Gradient steps."""
    batch: Annotated[int, at_least(1, 2**20)] = 128
    """Windows a step."""
    optimiser: Literal["adam", "muon"] = "adam"
    """adam, or muon: the momentum of every matrix made orthogonal (Jordan et al. 2024), Adam for all else."""
    learning_rate: Annotated[float, more_than(0)] = 1e-3
    """Peak learning rate, after warm-up. Muon takes some ten times Adam's."""
    decay: Literal["cosine", "constant"] = "cosine"
    """cosine: the rate falls to a hundredth by the last step; constant: it stays, and more steps go on from fewer."""
    warmup: Annotated[int, at_least(0)] = 100
    """Steps of linear warm-up."""
    ema: Annotated[float, at_least(0, 1 - 1e-9)] = 0.995
    """Decay of the parameters' moving average, per step; the average is what is used."""
    chunk: Annotated[int, at_least(1, 100_000)] = 50
    """Steps per compiled call, and per line of metrics.jsonl."""
    save_every: Annotated[int, COUNT] = 500
    """Steps between checkpoints."""
    seed: Annotated[int, SEED] = 0
    """Seed of the initial parameters and of every batch."""

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is trained."""
        return ("chunk", "save_every", *(("steps",) if self.decay == "constant" else ()))


class TrainState(NamedTuple):
    """What training carries from step to step, and all that a checkpoint holds."""

    step: Int[Array, ""]
    params: Params
    ema: Params
    optimiser: optax.OptState
    key: PRNGKey


def itself(params: Params) -> Params:
    """The parameters as they are."""
    return params


class Task(NamedTuple):
    """What is trained: a loss on one example, and how an example is drawn from the data. Both are pure.

    begin, end: from the parameters of a network to all that the loss is of, and back.
    """

    loss: Loss
    draw: Draw
    begin: Callable[[Params], Params] = itself
    end: Callable[[Params], Params] = itself


@runtime_checkable
class Blocks(Protocol):
    """Data that are larger than the device's memory, block by block (`diffplan.data.stream`)."""

    @property
    def every(self) -> int:
        """Steps that a block is used for."""
        ...

    def block(self, number: int) -> Any:
        """The data of steps ``number * every`` and following."""
        ...


@dataclass
class Whole:
    """Data that fit into the device's memory: one block for all steps."""

    data: Any
    every: int

    def block(self, number: int) -> Any:
        """The data."""
        return self.data


@dataclass
class Mapped:
    """Blocks of which something is made."""

    blocks: Blocks
    make: Callable[[Any], Any]

    @property
    def every(self) -> int:
        """Steps that a block is used for."""
        return self.blocks.every

    def block(self, number: int) -> Any:
        """What is made of a block."""
        return self.make(self.blocks.block(number))


def mapped(data: Any, make: Callable[[Any], Any]) -> Any:
    """`make(data)`; if the data are blocks, blocks of which each is ``make(block)``."""
    return Mapped(data, make) if isinstance(data, Blocks) else make(data)


@dataclass(frozen=True)
class Silent:
    """A `Recorder` that keeps nothing."""

    def restore(self, state: Any, total: int) -> Any:
        """The state as it is."""
        return state

    def record(self, step: int, losses: np.ndarray, state: Any, due: bool) -> None:
        """Nothing."""


SILENT = Silent()


def optimiser(config: TrainSettings) -> optax.GradientTransformation:
    """Adam or Muon with the gradient's norm clipped to 1, after a linear warm-up."""
    if config.decay == "constant":
        rate = optax.warmup_constant_schedule(0.0, config.learning_rate, config.warmup)
    else:
        last = max(config.steps, config.warmup + 1)
        peak = config.learning_rate
        rate = optax.warmup_cosine_decay_schedule(0.0, peak, config.warmup, last, peak / 100)
    rule = optax.adam if config.optimiser == "adam" else optax.contrib.muon
    return optax.chain(optax.clip_by_global_norm(1.0), rule(rate))


def start(key: PRNGKey, params: Params, config: TrainSettings) -> TrainState:
    """The state at step 0. Both copies of the parameters are new: donating the state donates no buffer of others."""
    copy = partial(jax.tree.map, jnp.copy)
    return TrainState(jnp.zeros((), jnp.int32), copy(params), copy(params), optimiser(config).init(params), key)


def chunk(
    task: Task, config: TrainSettings, state: TrainState, data: Any, steps: int
) -> tuple[TrainState, Float[Array, "steps"]]:
    """`steps` updates in one scan; returns (state, loss of every step)."""
    update = optimiser(config).update

    def mean_loss(params: Params, key: PRNGKey) -> Scalar:
        def one(key: PRNGKey) -> Scalar:
            key_draw, key_loss = jax.random.split(key)
            return task.loss(params, key_loss, task.draw(key_draw, data))[0]

        return jnp.mean(jax.vmap(one)(jax.random.split(key, config.batch)))

    def body(state: TrainState, _: None) -> tuple[TrainState, Scalar]:
        value, grads = jax.value_and_grad(mean_loss)(state.params, jax.random.fold_in(state.key, state.step))
        updates, opt_state = update(grads, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1 - decay)
        return TrainState(state.step + 1, params, ema, opt_state, state.key), value

    return jax.lax.scan(body, state, None, length=steps)


def train_whole(key: PRNGKey, task: Task, params: Params, data: Any, config: TrainSettings) -> Params:
    """All steps in one program, as part of a larger one; returns the averaged parameters. The key is consumed."""
    return task.end(chunk(task, config, start(key, task.begin(params), config), data, config.steps)[0].ema)


def train(task: Task, params: Params, data: Any, config: TrainSettings, recorder: Recorder = SILENT) -> Params:
    """Train to `config.steps`, from `params` or from what the recorder restores.

    Args:
        task: what is trained.
        params: initial parameters.
        data: what `task.draw` draws from; a pytree, traced; or `Blocks` of such, of which a step s draws from block
            ``s // every``.
        config: how long and how fast. The state is due to be saved every `config.save_every` steps, and at the end.
        recorder: hears of every chunk.

    Returns:
        The averaged parameters.

    Raises:
        FloatingPointError: naming the step, when a loss is not finite; what was saved is from before it.
    """
    blocks = data if isinstance(data, Blocks) else Whole(data, config.steps)
    state = recorder.restore(start(jax.random.key(config.seed), task.begin(params), config), config.steps)
    run = jax.jit(partial(chunk, task, config), static_argnames="steps", donate_argnums=0)
    with signals.deferred():
        while (step := int(state.step)) < config.steps:
            steps = min(config.chunk, config.steps - step, blocks.every - step % blocks.every)
            state, losses = run(state, blocks.block(step // blocks.every), steps=steps)
            losses = np.asarray(losses)
            if not np.isfinite(losses).all():
                bad = step + int(np.argmin(np.isfinite(losses)))
                raise FloatingPointError(f"the loss is {losses[bad - step]} at step {bad}; lower train.learning_rate")
            step += steps
            due = step // config.save_every > (step - steps) // config.save_every or step == config.steps
            recorder.record(step, losses, state, due)
    return task.end(state.ema)
