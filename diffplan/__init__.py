"""diffplan: planning with diffusion, and how hard a plan can be pushed towards a learned reward before it breaks.

A plan is an array ``x[h, d]``: h steps of normalised observation and action. Everything is about one noun, the
**denoiser** ``D(x, sigma) = E[x0 | x_sigma = x]``:

    x_sigma  = x0 + sigma * eps                                                          (1)
    score    = (D(x, sigma) - x) / sigma^2                                               (2)
    D_guided = x + prior * (D(x, sigma) - x) + guide * sigma^2 * grad g(x, sigma)        (3)

Guidance and the pinning of starts and goals are functions from a denoiser to a denoiser; samplers know nothing of them:

    from diffplan import denoise, guide, noise, samplers

    denoiser = denoise.pinned(guide.guided(prior, energy, strengths), pins)
    sampler = samplers.Sampler(noise.karras(32, 0.02, 10.0), shape=(h, d))
    x, info = samplers.sample(key, denoiser, sampler)

Public names, by module. Signatures are for one plan: batch with `jax.vmap`.

    types       Denoise, Energy, Strengths, Pins, Trajectory
    codec       Codec, Cells
    noise       karras, log_linear, LogNormal, LogUniform
    chain       Chain
    denoise     Edm, ChainDenoiser, CategoricalDenoiser, pinned, noised, loss
    guide       guided, budget, dps, raw, weighted, mixture, Proxy, Learned, Ensemble, Sum
    samplers    Sampler, sample, sample_until, STEPS
    smc         particles, tds, annealed, fk_steering, svdd, interval
    discrete    Noise, reverse, first_order
    flow_map    FlowMap, FewSteps, few_steps, push, look_ahead, posterior
    dynamics    Dynamics, imagine
    policy      Policy, act
    count       count, counted
    settings    settings, ConfigError
    resolve     resolve
    episodes    Episodes, from_arrays
    simulators  Environment, Host, Transition, Truth, carry_out
    task        Task, Plane, Words
    runs        Run, stage, keep, RunError
    models      RowNetwork, Mixer, Transformer, Messages, Value, TemporalUNet, to_pure
    oracle      distribution, gaussian, mixture, tabular, control
    metrics     returns, validity, diversity, kl, statistics, table, pareto
    data        windows, readers
    learn       train, chain, prior, reward, reward_models, value, behaviour, dynamics, conditional, contrastive
    methods     Method, Problem, Plans, and a module a family
    planner     planner, agent, build, model, reaching, play
    tasks       make_task, TASKS
    experiment  compare, tune, harness
    report      figure, axes, page, table, budgets
    envs        base, maze2d, gridworld, pendulum, pointmaze, linear
    interface   compare, tune, plot, Comparison, Tuned
    studies     frame, and a folder a study
    validation  PARTS
    benchmarks  run, rows, published
    cli         main

Importing this package imports none of them, and neither jax, flax nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

MODULES = (
    *("types", "codec", "noise", "denoise", "guide", "samplers", "smc", "discrete", "dynamics", "policy", "count"),
    "flow_map",
    *("chain", "settings", "resolve", "episodes", "simulators", "task", "runs", "models", "oracle", "metrics", "data"),
    *("learn", "methods", "planner", "tasks", "experiment", "report", "interface", "envs", "studies", "validation"),
    *("benchmarks", "cli"),
)
NAMES = {
    "Task": "task",
    "Plane": "task",
    "Words": "task",
    "Episodes": "episodes",
    "Transition": "simulators",
    "Cells": "codec",
    "Trajectory": "types",
    "make_task": "tasks",
    "Planner": "planner.planner",
    "load": "planner.saved",
    "compare": "interface",
    "tune": "interface",
    "plot": "interface",
    "guided": "guide",
    "pinned": "denoise",
    "Sampler": "samplers",
    "sample": "samplers",
}
"""Public names, and the modules that hold them; they are imported when they are asked for."""

__all__ = [*MODULES, *NAMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


if TYPE_CHECKING:  # for editors: nothing of this is imported
    from diffplan.codec import Cells as Cells
    from diffplan.denoise import pinned as pinned
    from diffplan.episodes import Episodes as Episodes
    from diffplan.guide import guided as guided
    from diffplan.interface import compare as compare
    from diffplan.interface import plot as plot
    from diffplan.interface import tune as tune
    from diffplan.planner.planner import Planner as Planner
    from diffplan.planner.saved import load as load
    from diffplan.samplers import Sampler as Sampler
    from diffplan.samplers import sample as sample
    from diffplan.simulators import Transition as Transition
    from diffplan.task import Plane as Plane
    from diffplan.task import Task as Task
    from diffplan.task import Words as Words
    from diffplan.tasks import make_task as make_task
    from diffplan.types import Trajectory as Trajectory


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(import_module(f"diffplan.{NAMES[name]}"), name)
    if name in MODULES:
        return import_module(f"diffplan.{name}")
    raise AttributeError(f"module 'diffplan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
