"""The planner that a user meets: trained on a task or read back, it plans, and its agents act.

planner = Planner.fit(task, run="runs/umaze")
plans = planner.plan(jax.random.key(0), start, scale=20.0, n=100)
returns = planner.deliver(jax.random.key(1), plans)
agent = planner.agent(scale=20.0, candidates=4, every=16)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from diffplan.data.windows import Windows
from diffplan.episodes import Episodes
from diffplan.learn.row_reward import RowReward
from diffplan.metrics import returns, validity
from diffplan.planner import build as building
from diffplan.planner import feasible, reaching
from diffplan.planner.agent import Agent, Way, adapter_of, controller_of, whole_goal
from diffplan.planner.model import PlanModel, PlanOptions
from diffplan.planner.presets import goal_settings, run_of, settings_for
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.runs.config import settle
from diffplan.runs.lock import locked
from diffplan.samplers import chunked
from diffplan.settings import ConfigError, require
from diffplan.simulators import begin, carry_out, is_host
from diffplan.task import Reward, Task, Violation, bounds_of
from diffplan.types import Energy, PRNGKey, Trajectory


@struct.dataclass
class PlanBatch:
    """Plans of one start, in the task's units, and what they promise. What they deliver, `Planner.deliver` measures."""

    observations: Float[Array, "*n h o"]
    actions: Float[Array, "*n h a"]
    """Empty for plans of observations alone."""
    x: Float[Array, "*n h d"]
    """The same, normalised."""
    proxy: Float[Array, "*n"]
    """The learned reward, in standard deviations of the data; NaN where none was learned."""
    promised: Float[Array, "*n"]
    """The true return of the plan as drawn; NaN where no reward is known."""
    feasible: Bool[Array, "*n"]
    """Whether the plan is finite and violates nothing that the task names."""


@struct.dataclass
class Measures:
    """What is measured of plans as they are drawn: the reward of a row, true or learned, and the violations."""

    learned: RowReward | None
    true: Reward | None = struct.field(pytree_node=False)
    violations: tuple[Violation, ...] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, reward: Reward | None, violations: Mapping[str, Violation]) -> "Measures":
        """Of a reward that is a model, or a function, or not known."""
        learned = reward if isinstance(reward, RowReward) else None
        return cls(learned, None if learned is not None else reward, tuple(violations.values()))

    def __call__(self, model: PlanModel, x: Float[Array, "h d"]) -> PlanBatch:
        """One normalised plan, with what it promises."""
        plan, finite = model.decode(x), validity.is_finite(x)
        unknown, reward = jnp.full((), jnp.nan), self.learned or self.true
        proxy = unknown if model.energy is None else model.energy.score(x)
        promised = unknown
        if reward is not None and plan.actions.shape[-1]:
            promised = model.stride * returns.plan_return(reward, plan)
        broken = sum((violation(plan) for violation in self.violations), jnp.zeros(()))
        return PlanBatch(plan.observations, plan.actions, x, proxy, promised, finite & (broken == 0))


@dataclass(frozen=True)
class Planner:
    """What was trained on a task. `fit` trains it, `dp.load` and `pretrained` read it."""

    task: Task
    model: PlanModel
    """Plans from a start, guided by the learned reward."""
    reward: Reward | None
    """The true reward of a row, or what was learned in its place."""
    limits: feasible.Limits
    """What steps of the data do: by them plans are feasible where the task says nothing."""
    bounds: tuple[Float[np.ndarray, "a"], Float[np.ndarray, "a"]]
    """The least and the greatest action."""
    settings: PlannerSettings | None
    """What was learned; None where ways to goals alone were."""
    ways: PlanModel | None = None
    """Plans ways to goals, if they were learned."""
    goals: reaching.GoalSettings | None = None
    """How they were learned."""
    measures: tuple[Measures, Measures] = field(init=False, repr=False)
    """Of plans of the model, and of ways to goals."""

    def __post_init__(self) -> None:
        """Make the measures once, so that they are compiled once."""
        strides = (self.model.stride, (self.ways or self.model).stride)
        known = lambda stride: self.limits if stride == self.model.stride else None  # they are of the model's rows
        of = lambda stride: Measures.of(self.reward, feasible.violations_of(self.task, known(stride), stride))
        object.__setattr__(self, "measures", tuple(map(of, strides)))

    def __repr__(self) -> str:
        """What it plans, in a line: its weights say nothing."""
        what = lambda model: f"{model.horizon} rows, {model.stride} apart"
        ways = "" if self.ways is None or self.ways is self.model else f", ways to goals of {what(self.ways)}"
        return f"Planner({self.task.name}: plans of {what(self.model)}{ways})"

    @classmethod
    def fit(
        cls,
        task: Task,
        run: Path | str | None = None,
        preset: str | None = None,
        settings: PlannerSettings | None = None,
        goals: bool | reaching.GoalSettings = False,
        new_settings: bool = False,
        few_steps: bool = False,
    ) -> "Planner":
        """Train a planner on a task, or read back what a run holds of it.

        Args:
            task: the world and its question (`dp.make_task`, `dp.Task`).
            run: where everything is kept; ``runs/NAME`` by default. A training that was stopped goes on.
            preset: demo, debug, full or accelerator; by default the settings of the run, or demo.
            settings: what is learned, in place of a preset.
            goals: whether ways to goals are learned as well, in a world that has goals; or how. By default points of
                a plan are 15 steps apart, and 1 step where actions are choices.
            new_settings: whether what was made with other settings is set aside and made anew.
            few_steps: whether a flow map is distilled from the prior too, for `fast`.

        Raises:
            ConfigError: if a value cannot work for this task.
            RunError: if the run is in use, or holds what other settings made.
        """
        where = run_of(task, run, new_settings)
        chosen = settings_for(where, preset, settings)
        if goals:
            has_places(task)
        name, of = task.origin or (task.name, None)
        about = {"name": name, "planner": chosen} | ({} if of is None else {"task": of})
        with locked(where.directory):
            ways = goal_settings(goals, task) if goals else None
            settle(where, about | ({} if ways is None else {"goals": ways}))
            return cls.assemble(where, task, chosen, ways, few_steps)

    @classmethod
    def assemble(
        cls,
        run: Run,
        task: Task,
        settings: PlannerSettings,
        goals: reaching.GoalSettings | None = None,
        few_steps: bool = False,
    ) -> "Planner":
        """What a run holds, or what is made in it."""
        require(not few_steps or task.cells is None, "few_steps", few_steps, "False: flow maps are of continuous plans")
        build = building.start(run, task, settings)
        needs = set() if "regression" in building.lacks(task, build.rewarded) else {"regression"}
        needs |= {"flow_map"} if few_steps else set()
        problem, _ = building.assemble(jax.random.key(0), build, needs)
        model = PlanModel(
            rows=build.data.rows,
            codec=build.data.codec,
            prior=problem.denoise,
            sampler=problem.sampler,
            inverse=building.fit_inverse(build).model,
            energy=problem.regression,
            flow_map=problem.flow_map,
            stride=build.stride,
            warmed=len(problem.sampler.sigmas) // 2,
        )
        ways = None
        if goals is not None:
            where = Run(run.directory / "goals", run.new_settings, read_only=run.read_only)
            kept = build.data.kept
            kept = kept._replace(observations=np.asarray(kept.observations), actions=np.asarray(kept.actions))
            ways, _ = reaching.fit(where, goals, kept, build.data.identity)
        low, high = bounds_of(task.simulator, build.data.kept)
        limits = feasible.limits_of(task, build.data.train)
        settings, bounds = building.settled(build, model.prior), (np.asarray(low), np.asarray(high))
        return cls(task, model, build.reward, limits, bounds, settings, ways, goals)

    @classmethod
    def of_ways(cls, task: Task, ways: PlanModel, goals: reaching.GoalSettings, episodes: Episodes) -> "Planner":
        """A planner of ways to goals and of nothing else.

        Args:
            task: with goals.
            ways: of `reaching.fit`.
            goals: how they were learned.
            episodes: that they were learned from.
        """
        has_places(task)
        low, high = bounds_of(task.simulator, episodes)
        limits = feasible.limits_of(task, Windows.of(episodes, ways.rows, goals.horizon, goals.stride))
        return cls(task, ways, task.reward, limits, (np.asarray(low), np.asarray(high)), None, ways, goals)

    @classmethod
    def pretrained(cls, name: str) -> "Planner":
        """A small planner that ships with the package: maze2d-umaze or gridworld-fourrooms.

        Raises:
            ConfigError: if none of that name ships.
        """
        from diffplan.planner import saved

        return saved.pretrained(name)

    def save(self, path: Path | str, half: bool = False) -> Path:
        """Write the planner into one file, which `dp.load` reads; half: with 14 bits a number.

        Raises:
            ConfigError: if the file exists, or if the planner has a part that one file cannot hold.
        """
        from diffplan.planner import saved

        return saved.save(self, Path(path).expanduser(), half)

    def fast(self, evaluations: int = 4) -> "Planner":
        """The same planner, whose plans the flow map draws; ways to goals are planned as before.

        Args:
            evaluations: of the map, for a plan. 8 are nearer to the prior than 4. A warm plan takes half of them.

        Raises:
            ConfigError: if they are fewer than 1, or if no flow map was distilled.
        """
        require(evaluations >= 1, "evaluations", evaluations, "at least 1")
        if self.model.flow_map is None:
            raise ConfigError("fast: this planner has no flow map; Planner.fit(..., few_steps=True) distils one")
        return replace(self, model=replace(self.model, evaluations=evaluations))

    def early(self, tolerance: float = 0.1) -> "Planner":
        """The same planner, whose plans are done as soon as they have settled: for replanning, one plan at a time.

        Ways to goals are planned as before, and a flow map passes all of its levels.

        Args:
            tolerance: root mean square change of the denoised plan from one noise level to the next, in standard
                deviations of the data. 0: all levels are passed.

        Raises:
            ConfigError: if it is negative, or if plans are one-hot, whose entries have no such deviation.
        """
        require(self.task.cells is None, "tolerance", tolerance, "left out: plans of this task are one-hot")
        require(tolerance >= 0, "tolerance", tolerance, "at least 0")
        return replace(self, model=replace(self.model, tolerance=float(tolerance)))

    def plan(
        self,
        key: PRNGKey,
        start: ArrayLike,
        scale: float | None = None,
        n: int = 1,
        goal: ArrayLike | None = None,
        candidates: int = 1,
        energy: Energy | None = None,
    ) -> PlanBatch:
        """Draw plans from one start.

        Args:
            key: consumed.
            start: ``[o]``, the first observation, in the task's units.
            scale: the guidance scale, per standard deviation of the learned reward; None: unguided.
            n: the number of plans.
            goal: ``[g]``, the entries of the last observation that `Task.goal` names.
            candidates: draws that each plan is selected from.
            energy: ``(x [h, d], sigma) -> number``, guides in place of the learned reward; x is normalised.

        Returns:
            n plans, with what they promise.

        Raises:
            ConfigError: naming the argument, if its shape or value is not allowed.
        """
        task = self.task
        require(n >= 1, "n", n, "at least 1")
        require(candidates >= 1, "candidates", candidates, "at least 1")
        first = jnp.asarray(start, jnp.float32)
        require(first.shape == (task.observation_dim,), "start: shape", list(first.shape), f"[{task.observation_dim}]")
        require(bool(jnp.isfinite(first).all()), "start", first.tolist(), "finite numbers")
        there = None if goal is None else jnp.asarray(whole_goal(task, np.asarray(goal, np.float32)))
        model = self.model_for(goal is not None)
        guided = scale is not None
        require(scale is None or math.isfinite(scale), "scale", scale, "a finite number, or None")
        if guided and energy is None and model.energy is None:
            why = "this planner learned no reward" if goal is None else "this planner has no guide to goals"
            raise ConfigError(f"scale={scale!r}: must be None, or beside an energy: {why}")
        options = PlanOptions(jnp.asarray(scale, jnp.float32) if guided else None, candidates)
        x = _plans(model, options, n, energy if guided else None, key, first, there)
        return self.measure(model, x)

    def measure(self, model: PlanModel, x: Float[Array, "n h d"]) -> PlanBatch:
        """Normalised plans of a model as a batch, with what they promise."""
        return _measured(self.measures[model is self.ways], model, x)

    def model_for(self, goal: bool) -> PlanModel:
        """The model that plans: ways to goals, where there is a goal and they were learned."""
        return self.ways if goal and self.ways is not None else self.model

    def deliver(self, key: PRNGKey, plans: PlanBatch, way: Way = "inverse") -> Float[np.ndarray, "n"]:
        """Carry plans out from where they begin; returns the true return of each.

        Args:
            key: of the transitions; consumed.
            plans: of `plan`.
            way: by learned inverse dynamics, by the plan's own actions (open_loop), or by the task's tracker (tracked).

        Raises:
            ConfigError: if the task has no simulator that can be put into a state, or no such controller.
        """
        simulator = self.task.simulator
        if simulator is None or is_host(simulator):
            why = "has no simulator" if simulator is None else "has a simulator outside JAX, which begins at seeds"
            raise ConfigError(f"task {self.task.name}: {why}: plans cannot be carried out from their start")
        h, d = plans.x.shape[1:]
        model = self.ways if self.ways is not None and (h, d) == self.ways.sampler.shape else self.model
        running = begin(simulator, jax.vmap(simulator.state_of)(plans.observations[:, 0]))
        whole = Trajectory(plans.observations, plans.actions)
        controller = controller_of(self.task, model, way)
        return np.asarray(carry_out(key, simulator, controller, running, whole, h * model.stride)[1])

    def agent(
        self,
        scale: float | None = None,
        candidates: int = 1,
        every: int | None = None,
        warm: bool = False,
        way: Way = "inverse",
        world: Any = None,
        near: float = 0.4,
        seed: int = 0,
    ) -> Agent:
        """What acts in a loop: ``agent.reset(observation)``, then ``agent.act(observation)`` at every step.

        Args:
            scale: the guidance scale; None: unguided.
            candidates: draws that each plan is selected from.
            every: steps from plan to plan; a quarter of a plan by default.
            warm: whether plans start from the last one.
            way: how actions are found: inverse, open_loop or tracked.
            world: the environment of the loop, where it is another than the task's: a gymnasium environment.
            near: distance from the goal within which the agent rests, in the task's units.
            seed: of all noise.

        Raises:
            ConfigError: naming the argument whose value is not allowed.
        """
        require(every is None or every >= 1, "every", every, "at least 1")
        require(candidates >= 1, "candidates", candidates, "at least 1")
        if scale is not None and self.model.energy is None and self.ways is None:
            raise ConfigError(f"scale={scale!r}: must be None: this planner learned no reward")
        controller_of(self.task, self.model, way)  # refused before the first step
        options = PlanOptions(None if scale is None else jnp.asarray(scale, jnp.float32), candidates, warm)
        quarter = max(1, self.model.horizon * self.model.stride // 4)
        adapter, key = adapter_of(self.task, world), jax.random.key(seed)
        return Agent(self.task, self.model_for, options, every or quarter, way, None, self.bounds, adapter, near, key)


def has_places(task: Task) -> None:
    """Raise ConfigError unless the task's goals are places, the first two entries of an observation."""
    allowed = f"(0, 1), the first two entries of observations: ways to goals in {task.name} lead to places"
    require(task.goal == (0, 1), "task.goal", task.goal, allowed)


@jax.jit
def _measured(measures: Measures, model: PlanModel, x: Float[Array, "n h d"]) -> PlanBatch:
    return chunked(lambda x: measures(model, x), x)


@partial(jax.jit, static_argnames=("n", "energy"))
def _plans(
    model: PlanModel,
    options: PlanOptions,
    n: int,
    energy: Energy | None,
    key: PRNGKey,
    start: Float[Array, "o"],
    goal: Float[Array, "o"] | None,
) -> Float[Array, "n h d"]:
    tiled = lambda row: None if row is None else jnp.broadcast_to(row, (n, row.size))
    return model.best(key, jnp.broadcast_to(start, (n, start.size)), tiled(goal), None, options, energy)[0]
