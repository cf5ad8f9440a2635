"""What is learned for a cell: a prior and its behaviour, shared by three cells, and reward models of the cell's own."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffplan.experiment import compare
from diffplan.experiment.harness import Bench, Plan
from diffplan.experiment.settings import ExperimentSettings
from diffplan.guide import Learned
from diffplan.learn.reward_models import Perfect
from diffplan.methods import Entry, Problem
from diffplan.planner import build as building
from diffplan.planner.build import Builder
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.runs.lock import locked
from diffplan.studies.crossed.worlds import World

OF_PRIOR = ("dynamics", "model", "behaviour")
"""Parts of a problem that depend on behaviour alone."""
SHARED = ("data", "chain", "prior", "inverse", "dynamics", "behaviour")
"""Stages of a prior's run that its cells read."""


class Opened(NamedTuple):
    """A cell that can be run. costs: seconds that each part of the problem took to learn."""

    build: Builder
    problem: Problem
    bench: Bench
    costs: dict[str, float]

    def pretraining(self, entry: Entry) -> float:
        """Seconds of training of all that a method uses: where it makes plans, of the prior and the controller too."""
        own = {"prior", "inverse"} if entry.acts_on == "plans" else set()
        return sum(self.costs.get(part, 0.0) for part in {*own, *entry.needs})

    def mean(self) -> float:
        """The mean return of held-out windows of behaviour."""
        held_out = self.build.data.held_out
        return float(jnp.mean(self.build.returns(held_out, held_out.places(jax.random.key(0), 2048))))

    def informed(self) -> Problem:
        """The problem whose regression is the true reward: what a method could do if the labels told all."""
        build, windows = self.build, self.build.data.train
        returns = build.returns(windows, windows.places(jax.random.key(2), 2048))
        mean, std = returns.mean() / build.stride, returns.std() / build.stride
        assert isinstance(self.problem.regression, Learned) and build.reward is not None
        perfect = Perfect(self.problem.regression, build.data.codec, mean, std, build.reward)
        return replace(self.problem, regression=perfect)

    def spread(self, plan: Plan) -> float:
        """The standard deviation of the return of held-out windows of behaviour."""
        held_out = self.build.data.held_out
        key = jax.random.key(plan.seed)
        return float(jnp.std(self.build.returns(held_out, held_out.places(key, 2048))))


def seeded(planner: PlannerSettings, world: World, prior: int, labels: int) -> PlannerSettings:
    """The settings with seeds of their own, and as many states of the chain in every prior of a world."""
    trained, labelled = replace(planner.prior.train, seed=prior), replace(planner.proxy.train, seed=labels)
    return replace(
        planner,
        prior=replace(planner.prior, train=trained, states=planner.prior.states or world.states),
        proxy=replace(planner.proxy, train=labelled),
    )


class Models(NamedTuple):
    """Where models are kept, and what is learned."""

    root: Path
    planner: PlannerSettings = PlannerSettings()


class Wanted(NamedTuple):
    """A cell by the seeds of its behaviour and prior, and of its labels."""

    world: World
    reward: str
    prior: int
    labels: int


def open_cell(models: Models, cell: Wanted, needs: set[str], seed: int) -> Opened:
    """Learn what a cell needs, or read it back. needs: parts of a problem. seed: of reference windows."""
    (root, planner), (world, reward, prior, labels) = models, cell
    settings, task = seeded(planner, world, prior, labels), world.task(prior, reward)
    shared = Run(root / world.name / f"prior-{prior}")
    with locked(shared.directory):
        build = building.start(shared, task, settings, learns=False)
        building.assemble(jax.random.key(prior), build, needs & {*OF_PRIOR})
        building.fit_inverse(build)
    own = Run(root / world.name / f"{reward}-{prior}-{labels}")
    for name in SHARED:
        if (shared.directory / name).exists() and not (own.directory / name).exists():
            part = own.directory / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(shared.directory / name, part, copy_function=os.link)
            part.rename(own.directory / name)
    with locked(own.directory):
        build = building.start(own, task, settings)
        problem, parts = building.assemble(jax.random.key(prior), build, needs)
        experiment = ExperimentSettings(seed=seed)
        bench, _ = compare.bench_of(build, problem, experiment, parts["prior"].identity)
        parts["inverse"] = building.fit_inverse(build)
    return Opened(build, problem, bench, {name: part.seconds for name, part in parts.items()})
