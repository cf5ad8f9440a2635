"""One training loop for every network: scanned chunks, an exponential moving average, and exact resume.

A state holds everything that training carries on; a batch is a function of ``fold_in(key, step)`` and of the data, so a
run that is stopped at any step and resumed from its checkpoint goes through the same numbers as one that is not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from diffplan.checkpoint import Checkpoints
from diffplan.config import TrainSettings
from diffplan.runtime import Metrics, Progress
from diffplan.types import Params, PRNGKey, Scalar

Loss = Callable[[Params, PRNGKey, Any], tuple[Scalar, dict[str, Scalar]]]
"""``loss(params, key, example) -> (scalar, what may be looked at)``, on one example."""

Draw = Callable[[PRNGKey, Any], Any]
"""``draw(key, data) -> example``."""


class TrainState(NamedTuple):
    """What training carries from step to step, and all that a checkpoint holds."""

    step: Int[Array, ""]
    params: Params
    ema: Params
    optimiser: optax.OptState
    key: PRNGKey


class Task(NamedTuple):
    """What is trained: a loss on one example, and how an example is drawn from the data. Both are pure."""

    loss: Loss
    draw: Draw


def optimiser(config: TrainSettings) -> optax.GradientTransformation:
    """Adam or Muon with the gradient's norm clipped to 1, linear warm-up and cosine decay to a hundredth."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup, max(config.steps, config.warmup + 1), config.learning_rate / 100
    )
    rule = optax.adam if config.optimiser == "adam" else optax.contrib.muon
    return optax.chain(optax.clip_by_global_norm(1.0), rule(rate))


def start(key: PRNGKey, params: Params, config: TrainSettings) -> TrainState:
    """The state at step 0. The average starts as a copy, so that donating the state never donates a buffer twice."""
    return TrainState(
        jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimiser(config).init(params), key
    )


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


def fit(
    task: Task,
    state: TrainState,
    data: Any,
    config: TrainSettings,
    checkpoints: Checkpoints,
    metrics: Metrics,
    name: str,
) -> TrainState:
    """Train from `state`, or from the newest sound checkpoint, to `config.steps`; returns the final state.

    Every chunk's mean loss goes to `metrics` and to the progress line. The state is saved every `config.save_every`
    steps.

    Raises:
        FloatingPointError: naming the step, when a loss is not finite; the last checkpoint is from before it.
    """
    state = checkpoints.restore(state)
    run = jax.jit(partial(chunk, task, config), static_argnames="steps", donate_argnums=0)
    with Progress(name, total=config.steps, done=int(state.step)) as progress:
        while (step := int(state.step)) < config.steps:
            steps = min(config.chunk, config.steps - step)
            state, losses = run(state, data, steps=steps)
            losses = np.asarray(losses)
            if not np.isfinite(losses).all():
                bad = step + int(np.argmin(np.isfinite(losses)))
                raise FloatingPointError(
                    f"{name}: the loss is {losses[bad - step]} at step {bad}; lower train.learning_rate"
                )
            progress.advance(steps, loss=float(losses.mean()))
            metrics.write(step + steps, {"loss": float(losses.mean())})
            if (step + steps) // config.save_every > step // config.save_every or step + steps == config.steps:
                checkpoints.save(step + steps, state)
    return state
