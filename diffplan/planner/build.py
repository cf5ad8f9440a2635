"""Everything that is learned on a task, each in a stage of the run: made once, and read back afterwards.

data -> prior, inverse, reward/KIND -> dynamics, value, behaviour, conditional, contrastive, flow_map

Each is made only where it is used.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from diffplan import noise
from diffplan.chain import Chain
from diffplan.codec import Cells
from diffplan.data.windows import Windows
from diffplan.denoise import ChainDenoiser
from diffplan.episodes import Episodes
from diffplan.guide import Learned, Proxy
from diffplan.learn import (
    behaviour,
    chain,
    clones,
    conditional,
    contrastive,
    dynamics,
    flow_map,
    inverse,
    prior,
    reward,
    reward_models,
    row_reward,
    value,
)
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import PROXIES, Labelled
from diffplan.learn.reward_models import MANY, RewardModelSettings
from diffplan.methods import Problem
from diffplan.planner.behaviour import Behaviour, Builder, make_data, split
from diffplan.planner.decide import Decided, decide
from diffplan.planner.settings import NoiseRange, PlannerSettings
from diffplan.resolve import resolve
from diffplan.runs import Made, Run, keep, say, stage
from diffplan.runs.files import plain, text_digest
from diffplan.runs.program import program
from diffplan.samplers import STEPS, Sampler
from diffplan.settings import ConfigError
from diffplan.simulators import Truth, is_host
from diffplan.task import Reward, Task, bounds_of
from diffplan.types import Denoise, PRNGKey

DATA = 2048
"""Windows of behaviour that methods may use."""


def lacks(task: Task, rewarded: bool = True) -> set[str]:
    """The parts of a problem that a task cannot have. rewarded: whether there is anything to learn a reward from."""
    learned = {*PROXIES, "conservative", "shuffled", "untrained", "value", "conditional", "contrastive"}
    missing = set() if rewarded else learned
    if task.cells is not None:
        missing |= {"flow_map"}
    in_jax = task.simulator is not None and not is_host(task.simulator) and hasattr(task.simulator, "state_of")
    return missing if in_jax else missing | {"dynamics"}


def start(run: Run, task: Task, config: PlannerSettings, learns: bool = True) -> Builder:
    """Data, what follows from them, normaliser and windows. learns: whether a reward will be learned from them.

    Raises:
        ConfigError: if no window fits into an episode, or if all windows earn the same and a reward is to be learned.
    """
    episodes, identity = make_data(run, task)
    decided = decide(config, task, episodes)
    data = split(task, decided, episodes, identity)
    if not run.read_only:
        describe(task, decided, episodes, data)
    build = Builder(run, task, decided, data, task.reward)
    if build.rewarded:
        check_earnings(build, learns)
    if task.reward is None and episodes.rewards is not None:
        build = build._replace(reward=fit_row_reward(build))
    return build


def describe(task: Task, decided: Decided, episodes: Episodes, data: Behaviour) -> None:
    """Say what the episodes are, what was left out of them, and what follows from them."""
    lengths, span = episodes.lengths, data.train.span
    say(f"{task.name}: {episodes.count} episodes of {lengths.min()} to {lengths.max()} steps, {lengths.sum()} rows")
    if short := int((lengths < span).sum()):
        say(f"{task.name}: {short} of {episodes.count} episodes are shorter than a plan ({span} steps): left out")
    for note in task.notes:
        say(f"{task.name}: {note}")
    for name, reason in decided.reasons.items():
        say(f"{name}: {reason}")


def check_earnings(build: Builder, learns: bool) -> None:
    """Say how many windows earn anything; raise ConfigError if all earn the same and a reward is to be learned."""
    windows, count = build.data.train, build.config.proxy.labels
    returns = build.returns(windows, labelled_windows(build, count))
    earning = float(jnp.mean(returns > returns.min()))
    if earning == 0 and learns:
        raise ConfigError(
            f"reward: all {len(returns)} labelled windows earn {float(returns[0]):g}: there is nothing to learn; "
            "choose another reward, behaviour that earns some, or more labels (proxy.labels)"
        )
    if earning < 0.1:
        say(f"reward: {100 * earning:.2g} % of windows earn more than the least, {float(returns.min()):g}")


def fit_prior(build: Builder) -> Made:
    """The prior, in ``RUN/prior``."""
    levels, start = build.decided.levels, fit_chain(build)
    config = with_states(build.config.prior, start)
    fit = partial(prior.fit, build.data.every, config, levels, start)
    return stage(build.run, "prior", fit, {"prior": config, "noise": levels}, build.inputs)


def fit_chain(build: Builder) -> Chain | None:
    """The Markov chain of rows that denoisers begin with, in ``RUN/chain``; None where they do not."""
    config, windows = build.config.prior, build.data.train
    cells, observed = isinstance(windows.codec, Cells), windows.codec.observation_dim
    if config.network != "chain" and not cells:
        return None

    def write(directory: Path) -> None:
        if config.states is None:
            fitted, why = chain.grown(windows, build.data.held_out, observed)
            say(f"prior.states: {why}")
        else:
            say(f"chain: {config.states} states, from rows of behaviour")
            fitted = clones.fit(windows, config.states) if cells else chain.fit(windows, config.states, observed)
        np.savez(
            directory / "chain.npz",
            allow_pickle=False,
            **{name: np.asarray(part) for name, part in vars(fitted).items()},
        )

    kept = keep(build.run, "chain", write, {"states": config.states}, build.inputs, ("chain.npz",))
    with np.load(kept.directory / "chain.npz") as parts:
        return Chain(**{name: jnp.asarray(parts[name]) for name in parts.files})


def with_states(config: PriorSettings, start: Chain | None) -> PriorSettings:
    """The settings with as many states as the chain has, if there is one."""
    return config if start is None else replace(config, states=len(start.start))


def settled(build: Builder, denoise: Denoise) -> PlannerSettings:
    """The settings with every choice made: those of `build`, its noise levels, and the states of the prior's chain."""
    levels = NoiseRange(build.decided.levels.low, build.decided.levels.high)
    prior = with_states(build.config.prior, denoise.chain if isinstance(denoise, ChainDenoiser) else None)
    return replace(build.config, noise=levels, prior=prior)


def fit_inverse(build: Builder) -> Made:
    """The learned controller, in ``RUN/inverse``."""
    data, config = build.data, build.config.inverse
    steps = min(build.stride, max(1, int(data.kept.lengths.min()) - 1))
    fit = partial(inverse.fit, data.windows(steps + 1), data.rows, config.width, config.train)
    return stage(build.run, "inverse", fit, {"inverse": config, "steps": steps}, build.inputs)


def fit_row_reward(build: Builder) -> Reward:
    """The reward of a row, learned from held-out episodes; it stands in for a true reward that is not known."""
    data, config = build.data, build.config.row_reward
    fit = partial(row_reward.fit, Windows.of(data.aside, data.rows, 1), data.rows, config)
    model = stage(build.run, "reward/rows", fit, config, build.inputs).model
    explained = row_reward.explained(model, data.train)
    say(
        "promised returns are by a reward of single rows, learned from the recorded rewards of held-out episodes; it "
        f"explains {100 * explained:.1f} % of the variance of the others'"
    )
    return model


def labelled_windows(build: Builder, count: int) -> Int[Array, "n"]:
    """The training windows whose labels the proxies learn, by their first rows."""
    return build.data.train.places(jax.random.fold_in(jax.random.key(build.config.proxy.train.seed), 1), count)


def fit_network(
    build: Builder, kind: str, model: RewardModelSettings, where: str, seed: int = 0, rows: slice = slice(None)
) -> Made:
    """One network of a reward model, in ``RUN/reward/WHERE``; its score is standardised over windows.

    The labelled windows are the same for every `seed`, which is added to that of the training.
    """
    data, proxy, levels = build.data, build.config.proxy, build.decided.levels
    root = jax.random.key(proxy.train.seed)
    count = model.labels or proxy.labels * (MANY if model.kind == "true" else 1)
    first = labelled_windows(build, count)
    by = reward_models.labeller_reward(model, build.reward, build.task.plane and build.task.plane.region)
    gains = build.gains(data.train, first, None if by is build.reward else by)
    classify = (kind == "classifier", proxy.quantile)
    target = reward_models.labels(jax.random.fold_in(root, 2), gains, classify, model, rows)
    own = replace(proxy, labels=count, train=replace(proxy.train, seed=proxy.train.seed + seed))
    x = jax.vmap(data.train.at)(first)
    labelled = Labelled(x, target, prior.pin_mask(data.train, jnp.asarray(False)))
    fit = partial(reward.fit, kind, labelled, own, levels, make=reward_models.task_of(model))
    about = {"proxy": own, "kind": kind, "noise": levels, "decisive": model.decisive()}
    about |= {"model": model.kind.partition("_")[0]}  # members of an ensemble are the same however it is read
    labels = {"rows": [rows.start, rows.stop], "seed": proxy.train.seed, "reward": identity_of(build)}
    made = stage(build.run, f"reward/{where}", lambda recorder: fit(recorder=recorder), about | labels, build.inputs)
    return made._replace(model=reward.standardised(made.model, data.train))


def identity_of(build: Builder) -> Any:
    """What decides the true reward: its settings, or its program; None where rewards are recorded."""
    task = build.task
    if task.reward_settings is not None or task.reward is None:
        return task.reward_settings
    return program(task.reward, jnp.zeros(task.observation_dim), jnp.zeros(task.action_dim))


def fit_proxy(build: Builder, kind: str, model: RewardModelSettings) -> tuple[Proxy, list[Made]]:
    """One of `PROXIES` of a reward model, and its networks."""
    windows = build.data.train
    match model.kind:
        case "learned" if model.labels in (None, build.config.proxy.labels):
            made = [fit_network(build, kind, model, kind)]
        case "ensemble_mean" | "ensemble_min" | "ensemble_uwo":
            made = [fit_network(build, kind, model, f"ensemble/{kind}/{i}", i) for i in range(model.members)]
            proxy = reward_models.ensemble(_models(made), model, windows)
            return proxy, made
        case "decomposed":
            parts = enumerate(reward_models.stretches(windows.horizon, model.parts))
            made = [fit_network(build, kind, model, f"decomposed/{kind}/{i}", 0, rows) for i, rows in parts]
            return reward_models.summed(_models(made), windows), made
        case _:
            made = [fit_network(build, kind, model, f"{model.kind}/{kind}")]
    if model.kind == "true":
        if build.reward is None:
            raise ConfigError("reward_model.kind='true': must be another: the task has no reward function")
        returns = build.returns(windows, windows.places(jax.random.key(2), 2048))
        mean, std = returns.mean() / build.stride, returns.std() / build.stride
        return reward_models.Perfect(made[0].model, build.data.codec, mean, std, build.reward), made
    return made[0].model, made


def _models(made: list[Made]) -> list[Learned]:
    return [each.model for each in made]


def assemble(key: PRNGKey, build: Builder, needs: set[str]) -> tuple[Problem, dict[str, Made]]:
    """The prior and the parts that are needed, made or read back; returns (problem, each part by name). The key
    chooses the windows of behaviour that methods may use; it is consumed.
    """
    config, data, levels = build.config, build.data, build.decided.levels
    denoiser = fit_prior(build)
    problem = Problem(
        denoise=denoiser.model,
        codec=data.codec,
        sampler=Sampler(
            noise.karras(config.sampler.steps, levels.low, levels.high),
            (build.decided.horizon, data.codec.width),
            resolve(config.sampler.rule, STEPS, "sampler.rule"),
        ),
        data=data.train.draws(key, DATA),
    )
    parts = {"prior": denoiser}
    for name in sorted(needs, key=lambda name: (name not in PROXIES, name)):  # what others are learned from comes first
        parts[name] = fit_part(build, problem, parts, name)
        problem = replace(problem, **{name: parts[name].model})
    return problem, parts


def fit_part(build: Builder, problem: Problem, parts: dict[str, Made], name: str) -> Made:
    """One part of a problem, in a stage of its name; the true dynamics are no stage."""
    config, data, task, levels = build.config, build.data, build.task, build.decided.levels
    scored = build.inputs | {"proxies": parts["regression"].identity if "regression" in parts else ""}
    match name:
        case "regression" | "classifier" | "clean":
            proxy, networks = fit_proxy(build, name, config.reward_model)
            identity = text_digest(str([plain(config.reward_model), *(network.identity for network in networks)]))
            return Made(proxy, identity, sum(network.seconds for network in networks))
        case "conservative" | "shuffled":
            kind = "clean" if name == "conservative" else "regression"
            return fit_network(build, kind, replace(config.reward_model, kind=name), f"{name}/{kind}")
        case "untrained":
            learned = reward.untrained("regression", config.proxy, *problem.shape)
            return Made(reward.standardised(learned, data.train), text_digest(str(plain(config.proxy))), 0.0)
        case "dynamics":
            return Made(Truth(task.simulator, task.discrete, build.stride), "", 0.0)
        case "model" if isinstance(data.codec, Cells):
            seen = dynamics.transitions(jax.random.key(0), data.windows(2, build.stride), config.dynamics.transitions)
            return Made(dynamics.tabulate(seen, data.codec.places), data.identity, 0.0)
        case "model":
            bounds = bounds_of(task.simulator, data.kept)
            fit = partial(dynamics.fit, data.windows(2, build.stride), bounds, task.discrete, config.dynamics)
            return stage(build.run, "dynamics", fit, config.dynamics, build.inputs)
        case "value":
            assert problem.regression is not None
            fit = partial(value.fit, data.every, problem.regression, config.value)
            return stage(build.run, name, fit, config.value, scored)
        case "behaviour":
            fit = partial(behaviour.fit, data.every, data.codec, config.behaviour)
            return stage(build.run, name, fit, config.behaviour, build.inputs)
        case "conditional":
            assert problem.regression is not None
            settings = config.conditional
            start = fit_chain(build) if task.cells is None else None
            fit = partial(conditional.fit, data.every, data.codec, problem.regression, settings, levels, start)
            states = None if start is None else len(start.start)
            about = {"conditional": settings, "noise": levels, "states": states}
            return stage(build.run, name, fit, about, scored)
        case "contrastive":
            assert problem.regression is not None
            x = data.train.draws(jax.random.key(config.contrastive.train.seed), config.contrastive.windows)
            clean = prior.pin_mask(data.train, jnp.asarray(False))
            fit = partial(contrastive.fit_learned, x, problem.regression, clean, config.contrastive, levels)
            about = {"contrastive": config.contrastive, "noise": levels}
            return stage(build.run, name, fit, about, scored)
        case "flow_map":
            teacher, own = parts["prior"], config.flow_map
            fit = partial(flow_map.fit, data.train, teacher.model, own, levels)
            inputs = build.inputs | {"prior": teacher.identity}
            return stage(build.run, name, fit, {"flow_map": own, "noise": levels}, inputs)
        case _:
            raise ConfigError(f"methods: no part of a problem is named {name!r}")
