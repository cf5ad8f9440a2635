"""The comparison in a maze: methods x strengths x seeds x plans, each batch of plans one row of ``results.csv``.

Every method gets the same prior, rater, starts and noise keys (`harness`). Only what the chosen methods use is trained.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import noise, runtime, samplers
from diffplan.config import CompareSettings
from diffplan.experiment import stages
from diffplan.experiment.conditionals import fit_conditional
from diffplan.experiment.harness import Bench, Plan, method_stage, write_csv
from diffplan.experiment.policies import fit_behaviour
from diffplan.experiment.reward_models import fit_one, fit_reward_model
from diffplan.experiment.stages import Behaviour
from diffplan.experiment.worlds import fit_value, fit_world
from diffplan.guide import Proxy
from diffplan.methods import Entry, Problem, chosen
from diffplan.metrics import diversity, returns, validity
from diffplan.resolve import resolve
from diffplan.types import PRNGKey
from diffplan.validation.known import Truth
from envs import experts
from envs.base import follow, rollout
from envs.maze2d import Maze2d

DATA = 2048
"""Windows of behaviour that methods may use."""

QUANTILES = (0.5, 0.9, 0.99, 1.0)
"""Of the data's gold and proxy, in config.json."""


def executed(data: Behaviour, key: PRNGKey, x: Float[Array, "h d"]) -> tuple[Array, Array]:
    """The gold return when a plan is executed from its first observation: (by its own actions, by the tracking
    controller).
    """
    maze, plan = data.maze, data.codec.decode(x)
    state = maze.state_of(plan.observations[0])
    own = rollout(maze, key, state, plan.actions).reward.sum()
    ahead = jnp.concatenate([plan.observations[1:], plan.observations[-1:]])
    track = lambda key, observation, t: experts.tracking_action(observation, ahead[t])
    tracked = follow(maze, key, state, track, len(ahead)).transitions.reward.sum()
    return own, tracked


def measured(
    key: PRNGKey, proxy: Proxy, data: Behaviour, windows: Float[Array, "m h d"], x: Float[Array, "n h d"]
) -> dict[str, Array]:
    """Every measure of one batch of plans, averaged over the finite ones; NaN where none is.

    The diversity is over all pairs of the batch, and NaN as soon as one plan is not finite.
    """

    def one(x: Float[Array, "h d"]) -> dict[str, Array]:
        finite = validity.is_finite(x)
        x = jnp.where(finite, x, 0.0)
        plan = data.codec.decode(x)
        own, tracked = executed(data, key, x)
        values = {
            "proxy": proxy.score(x),
            "promised": returns.plan_return(data.maze.reward, plan),
            "open_loop": own,
            "tracked": tracked,
            "violations.walls": validity.crosses(data.maze.crosses_wall, plan.observations[:, :2]).astype(jnp.float32),
            "longest_step": validity.longest_step(plan.observations[:, :2]),
            "residual": validity.dynamics_residual(data.maze.residual, plan),
            "data_distance": diversity.data_distance(x, windows),
        }
        return {name: jnp.where(finite, value, jnp.nan) for name, value in values.items()} | {
            "finite": finite.astype(jnp.float32)
        }

    means = {name: jnp.nanmean(value) for name, value in jax.vmap(one)(x).items()}
    return means | {"diversity": diversity.pairwise_distance(x)}


def starts_for(key: PRNGKey, data: Behaviour, count: int) -> Float[Array, "n o"]:
    """First observations of held-out windows, in the environment's units."""
    return data.codec.decode(data.held_out.draws(key, count)[:, :1]).observations[:, 0]


def assemble(config: CompareSettings) -> tuple[Problem, Behaviour, str]:
    """Data, prior and proxies, made or read back; returns (problem, data, a digest of all models)."""
    data = stages.behaviour(config)
    prior, identity = stages.fit_prior(config, data)
    (regression, classifier, clean), rated = fit_reward_model(config, config.reward_model, data)
    problem = Problem(
        denoise=prior,
        regression=regression,
        classifier=classifier,
        clean=clean,
        codec=data.codec,
        sampler=samplers.Sampler(
            noise.karras(config.sampler.steps, config.noise.low, config.noise.high),
            (config.prior.horizon, data.codec.width),
            resolve(config.sampler.rule, samplers.STEPS, "sampler.rule"),
        ),
        data=data.train.draws(jax.random.fold_in(jax.random.key(config.seed), config.seeds + 2), DATA),
    )
    return problem, data, f"{identity[:12]}-{rated}"


def equip(
    config: CompareSettings, problem: Problem, data: Behaviour, identity: str, needs: set[str]
) -> tuple[Problem, dict[str, str]]:
    """The parts that only some methods use, made or read back; returns (problem with them, their digests)."""
    parts: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for name in sorted(needs):
        match name:
            case "dynamics":
                parts[name], digests[name] = Truth(data.maze), ""
            case "model":
                parts[name], digests[name] = fit_world(config, config.world, data)
            case "value":
                parts[name], digests[name] = fit_value(config, config.value, data, problem.regression, identity)
            case "behaviour":
                parts[name], digests[name] = fit_behaviour(config, config.clone, data)
            case "conditional":
                settings = config.conditional
                parts[name], digests[name] = fit_conditional(config, settings, data, problem.regression, identity)
            case "conservative":
                cautious = replace(config.reward_model, kind="conservative")
                parts[name], (digests[name],) = fit_one(config, cautious, "clean", data)
    return replace(problem, **parts), digests


def write_reference(config: CompareSettings, problem: Problem, data: Behaviour) -> dict[str, dict[str, float]]:
    """``data.npz``: returns, proxies and some paths of held-out windows, which pictures compare plans with.

    Returns the quantiles of the first two, for ``config.json``.
    """
    x = data.held_out.draws(jax.random.fold_in(jax.random.key(config.seed), config.seeds), config.reference)
    scores = {"gold": stages.gold_returns(data, x), "proxy": jax.jit(jax.vmap(problem.regression.score))(x)}
    positions = data.codec.decode(x[:64]).observations[..., :2]
    np.savez(config.run / "data.npz", gold=scores["gold"], proxy=scores["proxy"], positions=positions)
    return {name: {f"{q:g}": float(jnp.quantile(value, q)) for q in QUANTILES} for name, value in scores.items()}


def target(config: CompareSettings, maze: Maze2d) -> tuple[float, float, float]:
    """The disc that the gold reward pays for: centre and radius in cells; of radius 0 where there is none."""
    match config.gold.kind:
        case "region":
            return *config.gold.centre, config.gold.radius
        case "goal":
            return *maze.goal, 0.5
    return 0.0, 0.0, 0.0


def write_plans(config: CompareSettings, data: Behaviour, entries: tuple[Entry, ...]) -> None:
    """``plans.npz``: the paths kept by every method, with the maze they lie in."""
    arrays: dict[str, Any] = {
        "walls": data.maze.walls,
        "region": np.asarray(target(config, data.maze), np.float32),
    }
    for entry in entries:
        with np.load(config.run / "methods" / entry.method.name / "plans.npz") as kept:
            arrays |= {f"{entry.method.name}.{name}": kept[name] for name in kept.files}
    arrays["starts"] = arrays["prior.positions"][0, :, 0]
    np.savez(config.run / "plans.npz", **arrays)


def bench_of(config: CompareSettings, problem: Problem, data: Behaviour, identity: str) -> Bench:
    """The maze as the harness takes it."""
    windows = data.train.draws(jax.random.fold_in(jax.random.key(config.seed), config.seeds + 1), config.reference)
    compiled = jax.jit(lambda key, proxy, windows, x: measured(key, proxy, data, windows, x))
    return Bench(
        problem,
        lambda key, count: starts_for(key, data, count),
        lambda key, proxy, x: compiled(key, proxy, windows, x),
        lambda x: data.codec.decode(x).observations[..., :2],
        identity,
    )


def compare(config: CompareSettings) -> Path:
    """The whole comparison; returns the path of ``results.csv``."""
    entries = chosen(config.strengths, config.methods)
    config.run.mkdir(parents=True, exist_ok=True)
    problem, data, identity = assemble(config)
    problem, digests = equip(config, problem, data, identity, {part for entry in entries for part in entry.needs})
    bench = bench_of(config, problem, data, identity)
    plan = Plan(config.seeds, config.plans, config.strengths.refine, config.seed)
    rows = []
    for entry in entries:
        parts = {part: digests[part] for part in entry.needs}
        about = {"sampler": runtime.plain(config.sampler)} | ({"parts": parts} if parts else {})
        rows += method_stage(entry.method, plan, bench, config.run, about)
    methods = {
        entry.method.name: {"strength_name": entry.method.strength_name, "family": entry.family} for entry in entries
    }
    about = {
        "environment": config.data.maze,
        "methods": methods,
        "settings": runtime.plain(config),
        "data_quantiles": write_reference(config, problem, data),
        "versions": runtime.versions(),
    }
    runtime.write_json(config.run / "config.json", about)
    write_plans(config, data, entries)
    write_csv(config.run / "results.csv", rows)
    return config.run / "results.csv"
