"""Everything that a comparison learns, each in a stage of the run: made once, and read back afterwards.

data -> prior, reward/KIND -> dynamics, value, behaviour, conditional      the last four only where methods need them
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan import noise
from diffplan.codec import Codec
from diffplan.data import windows as files
from diffplan.data.windows import Rows, Windows
from diffplan.experiment.settings import ExperimentSettings
from diffplan.guide import Learned, Proxy
from diffplan.learn import behaviour, conditional, dynamics, prior, reward, reward_models, value
from diffplan.learn.reward import PROXIES, Labelled
from diffplan.learn.reward_models import MANY, RewardModelSettings
from diffplan.methods.base import Problem
from diffplan.metrics.returns import plan_return
from diffplan.resolve import resolve
from diffplan.runs import Made, Run, keep, stage
from diffplan.runs.files import plain, text_digest, versions
from diffplan.samplers import STEPS, Sampler
from diffplan.task import Reward, Task

DATA = 2048
"""Windows of behaviour that methods may use."""


class Behaviour(NamedTuple):
    """Behaviour, normalised, as windows; and the identity of both parts."""

    codec: Codec
    train: Windows
    held_out: Windows
    identity: str


class Builder(NamedTuple):
    """What every stage of an experiment is built from."""

    run: Run
    task: Task
    config: ExperimentSettings
    data: Behaviour

    @property
    def inputs(self) -> dict[str, str]:
        """What everything that is learned depends on."""
        return {"data": self.data.identity}

    def returns(self, x: Float[Array, "n h d"], true: Reward | None = None) -> Float[Array, "n"]:
        """The return of each window, by the task's reward or by another."""
        of_row = true or self.task.reward
        return jax.jit(jax.vmap(lambda x: plan_return(of_row, self.data.codec.decode(x))))(x)

    def key(self, number: int) -> Array:
        """A key of the experiment, for draws of reference data."""
        return jax.random.fold_in(jax.random.key(self.config.seed), self.config.seeds + number)


def make_data(run: Run, task: Task, name: str = "data") -> tuple[Rows, str]:
    """The data stage: ``RUN/data/rows.npz``; returns (rows, identity)."""

    def write(directory: Path) -> None:
        rows = Rows(*task.episodes())
        files.save(directory / "rows.npz", rows, {"config": plain(task.settings), "versions": versions()})

    kept = keep(run, name, write, task.settings, files=("rows.npz", "rows.json"))
    return files.load(kept.directory / "rows.npz")[0], kept.identity


def start(run: Run, task: Task, config: ExperimentSettings) -> Builder:
    """Data, normaliser and windows."""
    rows, identity = make_data(run, task)
    horizon, held_out = config.prior.horizon, config.prior.held_out
    kept, aside = rows.split(held_out)
    codec = Codec.fit(kept.observations, kept.actions)
    parts = Windows.of(kept, codec, horizon), Windows.of(aside, codec, horizon)
    return Builder(run, task, config, Behaviour(codec, *parts, text_digest(f"{identity} {horizon} {held_out}")))


def fit_prior(build: Builder) -> Made:
    """The prior, in ``RUN/prior``."""
    config, data = build.config, build.data
    fit = partial(prior.fit, data.train, data.codec.observation_dim, config.prior, config.noise)
    return stage(build.run, "prior", fit, {"prior": config.prior, "noise": config.noise}, build.inputs)


def labelled_windows(build: Builder, count: int) -> Float[Array, "n h d"]:
    """The training windows whose labels the proxies learn."""
    return build.data.train.draws(jax.random.fold_in(jax.random.key(build.config.proxy.train.seed), 1), count)


def fit_network(
    build: Builder, kind: str, model: RewardModelSettings, where: str, seed: int = 0, rows: slice = slice(None)
) -> Made:
    """One network of a reward model, in ``RUN/reward/WHERE``; its score is standardised over windows.

    The labelled windows are the same for every `seed`, which is added to that of the training.
    """
    config, data = build.config, build.data
    proxy, root = config.proxy, jax.random.key(config.proxy.train.seed)
    count = model.labels or proxy.labels * (MANY if model.kind == "true" else 1)
    x = labelled_windows(build, count)
    labeller = reward_models.labeller_reward(model, build.task.reward, build.task.target)
    returns = lambda x: build.returns(x, labeller)
    classify = (kind == "classifier", proxy.quantile)
    target = reward_models.labels(jax.random.fold_in(root, 2), x, returns, classify, model, rows)
    own = replace(proxy, labels=count, train=replace(proxy.train, seed=proxy.train.seed + seed))
    labelled = Labelled(x, target, prior.pin_mask(data.train, data.codec.observation_dim, jnp.asarray(False)))
    fit = partial(reward.fit, kind, labelled, own, config.noise, make=reward_models.task_of(model))
    about = {"proxy": own, "kind": kind, "noise": config.noise, "decisive": model.decisive()}
    about |= {"model": model.kind.partition("_")[0]}  # members of an ensemble are the same however it is read
    labels = {"rows": [rows.start, rows.stop], "seed": proxy.train.seed, "reward": build.task.reward_settings}
    made = stage(build.run, f"reward/{where}", lambda recorder: fit(recorder=recorder), about | labels, build.inputs)
    return made._replace(model=reward.standardised(made.model, data.train))


def fit_proxy(build: Builder, kind: str, model: RewardModelSettings) -> tuple[Proxy, list[str]]:
    """One of `PROXIES` of a reward model, and the identities of its networks."""
    windows = build.data.train
    match model.kind:
        case "learned" if model.labels in (None, build.config.proxy.labels):
            made = [fit_network(build, kind, model, kind)]
        case "ensemble_mean" | "ensemble_min" | "ensemble_uwo":
            made = [fit_network(build, kind, model, f"ensemble/{kind}/{i}", i) for i in range(model.members)]
            proxy = reward_models.ensemble(_models(made), model, windows)
            return proxy, _identities(made)
        case "decomposed":
            parts = enumerate(reward_models.stretches(windows.horizon, model.parts))
            made = [fit_network(build, kind, model, f"decomposed/{kind}/{i}", 0, rows) for i, rows in parts]
            return reward_models.summed(_models(made), windows), _identities(made)
        case _:
            made = [fit_network(build, kind, model, f"{model.kind}/{kind}")]
    if model.kind == "true":
        returns = build.returns(windows.draws(jax.random.key(2), 2048))
        energy = made[0].model
        codec, true = build.data.codec, build.task.reward
        return reward_models.Perfect(energy, codec, returns.mean(), returns.std(), true), _identities(made)
    return made[0].model, _identities(made)


def _models(made: list[Made]) -> list[Learned]:
    return [each.model for each in made]


def _identities(made: list[Made]) -> list[str]:
    return [each.identity for each in made]


def assemble(build: Builder) -> tuple[Problem, str]:
    """Prior and proxies, made or read back; returns (problem, identity of all models)."""
    config, data = build.config, build.data
    denoiser = fit_prior(build)
    proxies = {kind: fit_proxy(build, kind, config.reward_model) for kind in PROXIES}
    learned: dict[str, Any] = {kind: proxy for kind, (proxy, _) in proxies.items()}
    identity = [denoiser.identity, plain(config.reward_model), *(names for _, names in proxies.values())]
    problem = Problem(
        denoise=denoiser.model,
        **learned,
        codec=data.codec,
        sampler=Sampler(
            noise.karras(config.sampler.steps, config.noise.low, config.noise.high),
            (config.prior.horizon, data.codec.width),
            resolve(config.sampler.rule, STEPS, "sampler.rule"),
        ),
        data=data.train.draws(build.key(2), DATA),
    )
    return problem, text_digest(str(identity))


def equip(build: Builder, problem: Problem, identity: str, needs: set[str]) -> tuple[Problem, dict[str, str]]:
    """The parts that only some methods use, made or read back; returns (problem with them, their identities)."""
    parts = {name: fit_part(build, problem, identity, name) for name in sorted(needs)}
    models: dict[str, Any] = {name: part.model for name, part in parts.items()}
    return replace(problem, **models), {name: part.identity for name, part in parts.items()}


def fit_part(build: Builder, problem: Problem, identity: str, name: str) -> Made:
    """One optional part of a problem, in a stage of its name; the true dynamics are no stage."""
    config, data, truth = build.config, build.data, build.task.dynamics
    scored = build.inputs | {"proxies": identity}
    match name:
        case "dynamics":
            return Made(truth, "", 0.0)
        case "model":
            rows, bounds = data.codec.decode(data.train.rows), (truth.action_low, truth.action_high)
            fit = partial(dynamics.fit, rows, bounds, config.dynamics)
            return stage(build.run, "dynamics", fit, config.dynamics, build.inputs)
        case "value":
            fit = partial(value.fit, data.train, problem.regression, config.value)
            return stage(build.run, name, fit, config.value, scored)
        case "behaviour":
            fit = partial(behaviour.fit, data.train, data.codec, config.behaviour)
            return stage(build.run, name, fit, config.behaviour, build.inputs)
        case "conditional":
            settings = config.conditional
            fit = partial(conditional.fit, data.train, data.codec, problem.regression, settings, config.noise)
            return stage(build.run, name, fit, {"conditional": settings, "noise": config.noise}, scored)
        case _:
            return fit_network(build, "clean", replace(config.reward_model, kind=name), f"{name}/clean")


def starts_for(build: Builder, key: Array, count: int) -> Float[Array, "n o"]:
    """First observations of held-out windows, in the environment's units."""
    return build.data.codec.decode(build.data.held_out.draws(key, count)[:, :1]).observations[:, 0]


def reference(build: Builder, problem: Problem) -> dict[str, np.ndarray]:
    """Returns, proxies and some paths of held-out windows, which pictures compare plans with."""
    x = build.data.held_out.draws(build.key(0), build.config.reference)
    places = build.task.place(build.data.codec.decode(x[:64]).observations)
    scores = {"gold": build.returns(x), "proxy": jax.jit(jax.vmap(problem.regression.score))(x)}
    return {name: np.asarray(value) for name, value in (scores | {"positions": places}).items()}
