"""A denoiser over points, trained on paths of numbers: diffusion of one-hot plans, or discrete diffusion."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from diffplan.denoise import CategoricalDenoiser
from diffplan.learn.train import SILENT, Task, TrainSettings, train
from diffplan.models import Messages, build
from diffplan.runs import Recorder
from diffplan.types import PRNGKey, Scalar

Loss = Callable[[CategoricalDenoiser, PRNGKey, Int[Array, "h"]], Scalar]
"""``loss(model, key, path)``."""


def fit(
    points: Float[Array, "k d"],
    paths: Int[Array, "n h"],
    loss: Loss,
    config: TrainSettings,
    recorder: Recorder = SILENT,
) -> CategoricalDenoiser:
    """Train a network over k points (4b) on paths of their numbers."""
    k = len(points)
    apply, params = build(jax.random.key(config.seed), lambda rngs: Messages(k, k, rngs=rngs))
    task = Task(
        lambda params, key, path: (loss(CategoricalDenoiser(params, points, apply), key, path), {}),
        lambda key, paths: paths[jax.random.randint(key, (), 0, len(paths))],
    )
    return CategoricalDenoiser(train(task, params, paths, config, recorder), points, apply)
