"""The comparison: arms x strengths x seeds x plans, each batch of plans one row of ``results.csv``.

Every arm gets the same prior, proxies, starts and noise keys; an arm is one compiled call a seed. The rows of an arm
are kept as soon as it is done, so that a run that is stopped goes on with the next arm.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import noise, runtime, sample
from diffplan.arms import Arm, Ascent, BestOfN, Guided, Prior, Problem
from diffplan.arms.diffusion import classifier, clean, plugin, raw
from diffplan.config import ArmsConfig, CompareConfig
from diffplan.count import WHATS, count
from diffplan.guide import Proxy
from diffplan.measure import diversity, returns, validity
from diffplan.studies import stages
from diffplan.studies.stages import Behaviour
from diffplan.types import PRNGKey
from envs import experts
from envs.base import follow, rollout
from envs.maze2d import Maze2d

COLUMNS = (
    *("arm", "strength", "seed", "plans", "proxy", "gold_plan", "gold_actions", "gold_tracked"),
    *("path_kl", "marginal_kl", "exact_kl", "ess"),
    *("segments_in_wall", "longest_step", "residual", "data_distance", "diversity", "finite"),
    *("network_evals", "proxy_evals", "env_steps", "seconds"),
)
Measure = Callable[[PRNGKey, Proxy, Float[Array, "n h d"]], dict[str, Array]]
"""`measured`, compiled once for all arms and strengths."""

QUANTILES = (0.5, 0.9, 0.99, 1.0)
"""Of the data's gold and proxy, in config.json."""

DRAWN = 12
"""Plans a strength that are kept for pictures, of the first seed."""


def arms_of(config: ArmsConfig) -> tuple[Arm, ...]:
    """The arms of the comparison, in the order of the tables. A new arm is one more line."""
    return (
        Prior(),
        Guided("guided", config.guided),
        Guided("guided_classifier", config.guided_classifier, classifier, classifier),
        Guided("guided_plugin", config.guided_plugin, plugin, clean),
        Guided("guided_raw", config.guided_raw, raw, clean),
        BestOfN(config.best_of_n),
        Ascent(config.ascent, rate=config.ascent_rate),
        Ascent(config.ascent, "ascent_clean", clean, config.ascent_rate, anneal=0),
    )


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
            "gold_plan": returns.plan_return(data.maze.reward, plan),
            "gold_actions": own,
            "gold_tracked": tracked,
            "segments_in_wall": validity.crosses(data.maze.crosses_wall, plan.observations[:, :2]).astype(jnp.float32),
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


def costs(
    arm: Arm, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
) -> dict[str, Float[np.ndarray, "s"]]:
    """Evaluations of each kind for one plan of each strength, had that strength been run alone."""
    if arm.shared:
        alone = [replace(arm, strengths=(strength,)) for strength in arm.strengths]  # pyright: ignore[reportArgumentType]
        found = [count(one.__call__, key, problem, starts, strengths[:1]) for one in alone]
    else:
        whole = count(arm.__call__, key, problem, starts, strengths)
        found = [{what: number / len(strengths) for what, number in whole.items()}] * len(strengths)
    return {what: np.array([one[what] for one in found]) / len(starts) for what in WHATS}


def run_arm(
    arm: Arm, config: CompareConfig, problem: Problem, data: Behaviour, measure: Measure
) -> Iterator[tuple[list[dict], Array]]:
    """Run an arm for every seed; yields (rows, plans ``[s, n, h, d]``) a seed. Compilation is not timed."""
    strengths = jnp.asarray(arm.strengths, jnp.float32)
    root = jax.random.key(config.seed)
    call, cost = None, {}
    for seed in range(config.seeds):
        key_starts, key_arm, key_measure = jax.random.split(jax.random.fold_in(root, seed), 3)
        arguments = (key_arm, problem, starts_for(key_starts, data, config.plans), strengths)
        cost = cost or costs(arm, *arguments)
        call = call or jax.jit(arm.__call__).lower(*arguments).compile()
        began = perf_counter()
        plans = jax.block_until_ready(call(*arguments))
        seconds = perf_counter() - began
        work = np.sum(list(cost.values()), axis=0)
        paid = work.max() if arm.shared else work.sum()  # what this call really did
        known = {
            "strength": strengths,
            "path_kl": plans.path_kl.mean(axis=1),
            "exact_kl": plans.exact_kl,
            "ess": plans.ess,
            "seconds": seconds / config.plans * work / max(paid, 1e-9),
            **cost,
        }
        rows = []
        for i, x in enumerate(plans.x):
            values = measure(key_measure, arm.proxy(problem), x)
            values |= {name: value[i] for name, value in known.items()}
            rows.append(
                {name: float(value) for name, value in values.items()}
                | {"arm": arm.name, "seed": seed, "plans": len(x)}
            )
        yield rows, plans.x


def arm_stage(
    arm: Arm, config: CompareConfig, problem: Problem, data: Behaviour, measure: Measure, identity: str
) -> list[dict[str, Any]]:
    """An arm's stage, ``RUN/arms/NAME``: its rows, and the positions of some of its plans."""
    setting = {
        "arm": repr_of(arm),
        "models": identity,
        "seeds": config.seeds,
        "plans": config.plans,
        "seed": config.seed,
    }
    stage = runtime.Stage(config.run / "arms" / arm.name, setting | {"sampler": runtime.plain(config.sampler)})
    if not stage.ready():
        rows = []
        with runtime.Progress(f"{config.run}/arms/{arm.name}", total=config.seeds, unit="seeds") as progress:
            for batch, x in run_arm(arm, config, problem, data, measure):
                if not rows:
                    positions = np.asarray(data.codec.decode(x[:, :DRAWN]).observations[..., :2])
                    np.savez(stage.directory / "plans.npz", positions=positions, strengths=np.asarray(arm.strengths))
                rows += batch
                progress.advance(1, gold=max(row["gold_plan"] for row in batch))
        write_csv(stage.directory / "rows.csv", rows)
        stage.finish("rows.csv", "plans.npz")
    with (stage.directory / "rows.csv").open() as file:
        return list(csv.DictReader(file))


def repr_of(arm: Arm) -> str:
    """An arm's settings in words, the same in every process (functions by name, not by address)."""
    fields = {name: getattr(value, "__name__", value) for name, value in vars(arm).items()}
    return f"{type(arm).__name__}({', '.join(f'{name}={value}' for name, value in fields.items())})"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows with the columns of the design; what is missing or NaN is an empty cell."""
    show = lambda value: (
        "" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else value
    )
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([[show(row.get(name, "")) for name in COLUMNS] for row in rows])
    part.replace(path)


def step_rule(name: str) -> sample.Step:
    """The step rule that a configuration names."""
    match name:
        case "sde_2m":
            return sample.sde_2m
        case "ddim":
            return sample.ddim
        case "heun":
            return sample.heun
        case "dpmpp_2m":
            return sample.dpmpp_2m
    return sample.ancestral


def assemble(config: CompareConfig) -> tuple[Problem, Behaviour, str]:
    """Data, prior and proxies, made or read back; returns (problem, data, a digest of all models)."""
    data = stages.behaviour(config)
    prior, identity = stages.fit_prior(config, data)
    proxies, identities = zip(*(stages.fit_proxy(config, kind, data) for kind in stages.PROXIES), strict=True)
    problem = Problem(
        denoise=prior,
        regression=proxies[0],
        classifier=proxies[1],
        clean=proxies[2],
        codec=data.codec,
        sigmas=noise.karras(config.sampler.steps, config.noise.low, config.noise.high),
        horizon=config.prior.horizon,
        step=step_rule(config.sampler.rule),
    )
    return problem, data, "-".join(digest[:12] for digest in (identity, *identities))


def write_reference(config: CompareConfig, problem: Problem, data: Behaviour) -> dict[str, dict[str, float]]:
    """``data.npz``: returns, proxies and some paths of held-out windows, which pictures compare plans with.

    Returns the quantiles of the first two, for ``config.json``.
    """
    x = data.held_out.draws(jax.random.fold_in(jax.random.key(config.seed), config.seeds), config.reference)
    scores = {"gold": stages.gold_returns(data, x), "proxy": jax.jit(jax.vmap(problem.regression.score))(x)}
    positions = data.codec.decode(x[:64]).observations[..., :2]
    np.savez(config.run / "data.npz", gold=scores["gold"], proxy=scores["proxy"], positions=positions)
    return {name: {f"{q:g}": float(jnp.quantile(value, q)) for q in QUANTILES} for name, value in scores.items()}


def target(config: CompareConfig, maze: Maze2d) -> tuple[float, float, float]:
    """The disc that the gold reward pays for: centre and radius in cells; of radius 0 where there is none."""
    match config.gold.kind:
        case "region":
            return *config.gold.centre, config.gold.radius
        case "goal":
            return *maze.goal, 0.5
    return 0.0, 0.0, 0.0


def write_plans(config: CompareConfig, data: Behaviour, arms: tuple[Arm, ...]) -> None:
    """``plans.npz``: the paths kept by every arm, with the maze they lie in."""
    arrays: dict[str, Any] = {
        "walls": data.maze.walls,
        "region": np.asarray(target(config, data.maze), np.float32),
    }
    for arm in arms:
        with np.load(config.run / "arms" / arm.name / "plans.npz") as kept:
            arrays |= {f"{arm.name}.{name}": kept[name] for name in kept.files}
    arrays["starts"] = arrays["prior.positions"][0, :, 0]
    np.savez(config.run / "plans.npz", **arrays)


def compare(config: CompareConfig) -> Path:
    """The whole comparison; returns the path of ``results.csv``."""
    config.run.mkdir(parents=True, exist_ok=True)
    problem, data, identity = assemble(config)
    windows = data.train.draws(jax.random.fold_in(jax.random.key(config.seed), config.seeds + 1), config.reference)
    compiled = jax.jit(lambda key, proxy, windows, x: measured(key, proxy, data, windows, x))
    measure = lambda key, proxy, x: compiled(key, proxy, windows, x)
    arms = arms_of(config.arms)
    rows = [row for arm in arms for row in arm_stage(arm, config, problem, data, measure, identity)]
    about = {
        "environment": config.data.maze,
        "arms": {arm.name: {"dial": arm.dial, "strengths": list(arm.strengths)} for arm in arms},
        "settings": runtime.plain(config),
        "data_quantiles": write_reference(config, problem, data),
        "versions": runtime.versions(),
    }
    runtime.write_json(config.run / "config.json", about)
    write_plans(config, data, arms)
    write_csv(config.run / "results.csv", rows)
    return config.run / "results.csv"
