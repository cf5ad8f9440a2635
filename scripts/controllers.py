"""Compares controllers that are learned from data alone, on the same plans: what does each deliver?

    python scripts/controllers.py maze2d-umaze maze2d-medium maze2d-large       # 6 minutes a task on two idle CPU cores

Each follows plans of the default prior, unguided and guided at a scale, towards the next row of the plan:

    inverse   inverse dynamics with rates of change as inputs, the project's default (equation (121))
    places    the same without rates: it reads the row that it aims at (what the first edition had)
    cloned    behaviour cloning on the next two rows of the plan
    flow      the distribution of behaviour's action, by flow matching in 10 Euler steps, on rows 1 to 32 steps ahead
    model     the action sequence that leads nearest to the row in a learned model (ensemble), by 20 steps of Adam
    tracked   the task's own controller, which is not learned

Writes a row for each task, scale and controller: delivered return, its gain over the default, start by start, with the
lower and upper end of its 95 % interval, and the seconds of training.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import struct
from scipy import stats

from diffplan.experiment.deliver import Delivery, delivery_of
from diffplan.experiment.harness import Begin
from diffplan.learn import dynamics
from diffplan.learn.train import Task, TrainSettings, train
from diffplan.methods.guidance import Guided
from diffplan.metrics.table import read_rows, write
from diffplan.models import MLP, build
from diffplan.planner import build as building
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run, say
from diffplan.settings import ConfigError
from diffplan.simulators import following
from diffplan.tasks import make_task

COLUMNS = ("task", "scale", "controller", "plans", "promised", "delivered", "gain", "low", "high", "train_seconds")
TRAINING = TrainSettings(steps=6000, batch=256, learning_rate=3e-3)
AHEAD = 32


@dataclass(frozen=True)
class Config:
    """What is compared."""

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of tasks with continuous actions."""
    run: Path = Path("runs/unguided")
    """Where each task is trained; `scripts/unguided.py` uses the same."""
    out: Path = Path("results/controllers.csv")
    """Where the rows go."""
    scales: tuple[float, ...] = (0.0, 10.0)
    """Guidance scales; 0 is the prior."""
    plans: int = 128
    """Plans of each."""


@struct.dataclass
class Network:
    """A network over normalised rows that gives a normalised action, or the velocity of one."""

    params: Any
    rows: Any
    """The codec of single rows of behaviour."""
    stride: int = struct.field(pytree_node=False)
    apply: Any = struct.field(pytree_node=False)

    def z(self, observation: Any) -> Any:
        """A normalised observation."""
        o = self.rows.observation_dim
        return (observation - self.rows.mean[:o]) / self.rows.std[:o]

    def action(self, normalised: Any) -> Any:
        """An action in the environment's units."""
        o = self.rows.observation_dim
        return normalised * self.rows.std[o:] + self.rows.mean[o:]


@struct.dataclass
class Places(Network):
    """Inverse dynamics that reads where it is and where it goes."""

    def __call__(self, plan: Any, observation: Any, step: Any) -> Any:
        """The action towards the next row."""
        left = (self.stride - step % self.stride) / self.stride
        target = self.z(following(plan, step, self.stride))
        return self.action(self.apply(self.params, self.z(observation), target, left))


@struct.dataclass
class Cloned(Network):
    """Behaviour cloning on the next two rows."""

    def __call__(self, plan: Any, observation: Any, step: Any) -> Any:
        """The action on the way through the next two rows."""
        left = (self.stride - step % self.stride) / self.stride
        z, first = self.z(observation), self.z(following(plan, step, self.stride))
        second = self.z(following(plan, step + self.stride, self.stride))
        return self.action(self.apply(self.params, z, (first - z) / left, second - first, left))


@struct.dataclass
class Flow(Network):
    """The distribution of behaviour's action given a row some steps ahead, by the flow from noise at t = 0 to t = 1."""

    def __call__(self, plan: Any, observation: Any, step: Any) -> Any:
        """An action, from noise that depends on the step alone."""
        left = (self.stride - step % self.stride) / AHEAD
        z, target = self.z(observation), self.z(following(plan, step, self.stride))
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (self.rows.action_dim,))
        euler = lambda i, a: a + self.apply(self.params, z, (target - z) / left, left, i / 10, a) / 10
        return self.action(jax.lax.fori_loop(0, 10, euler, noise))


@struct.dataclass
class Model:
    """The first action of the sequence that leads nearest to the next row in a learned model of single steps."""

    model: Any
    std: Any
    inverse: Any
    stride: int = struct.field(pytree_node=False)

    def __call__(self, plan: Any, observation: Any, step: Any) -> Any:
        """20 steps of Adam from the action of inverse dynamics, held."""
        target, left = following(plan, step, self.stride), self.stride - step % self.stride
        low, high = self.model.action_low, self.model.action_high

        def cost(actions: Any) -> Any:
            def move(o: Any, inputs: Any) -> Any:
                action, number = inputs
                after, _ = self.model(jax.random.key(0), o, jnp.clip(action, low, high))
                return jnp.where(number < left, after, o), None

            end = jax.lax.scan(move, observation, (actions, jnp.arange(self.stride)))[0]
            return jnp.sum(((end - target) / self.std) ** 2) + 1e-4 * jnp.sum(actions**2)

        adam = optax.adam(0.1)
        held = jnp.tile(self.inverse(observation, target, left)[None], (self.stride, 1))

        def improve(carry: Any, _: Any) -> Any:
            actions, state = carry
            updates, state = adam.update(jax.grad(cost)(actions), state)
            return (jnp.clip(optax.apply_updates(actions, updates), low, high), state), None

        return jax.lax.scan(improve, (held, adam.init(held)), None, length=20)[0][0][0]


def fitted(made: building.Builder, kind: str) -> Network:
    """Train one of the three networks on behaviour; rows are up to a stride ahead, of the flow up to `AHEAD`."""
    rows, stride = made.data.rows, made.stride
    o, a = rows.observation_dim, rows.action_dim
    ahead = AHEAD if kind == "flow" else stride
    inputs = {"places": 2 * o + 1, "cloned": 3 * o + 1, "flow": 2 * o + 2 + a}[kind]
    apply, params = build(jax.random.key(0), lambda rngs: MLP(inputs, a, width=128, depth=3, rngs=rngs))

    def draw(key: Any, windows: Any) -> Any:
        key_place, key_left = jax.random.split(key)
        first = windows.place(key_place)
        left = jax.random.randint(key_left, (), 1, ahead + 1)
        later = [windows.row(first + left + k * stride)[:o] for k in range(2 if kind == "cloned" else 1)]
        return windows.row(first), later, left / ahead

    def loss(params: Any, key: Any, example: Any) -> Any:
        row, later, left = example
        z, action = row[:o], row[o:]
        if kind == "flow":
            key_noise, key_time = jax.random.split(key)
            noise, t = jax.random.normal(key_noise, (a,)), jax.random.uniform(key_time)
            velocity = apply(params, z, (later[0] - z) / left, left, t, (1 - t) * noise + t * action)
            return jnp.mean((velocity - (action - noise)) ** 2), {}
        more = (later[0],) if kind == "places" else ((later[0] - z) / left, later[1] - later[0])
        return jnp.mean((apply(params, z, *more, left) - action) ** 2), {}

    windows = made.data.windows(ahead + 1 + stride * (kind == "cloned"))
    params = train(Task(loss, draw), params, windows, TRAINING)
    return {"places": Places, "cloned": Cloned, "flow": Flow}[kind](params, rows, stride, apply)


def controllers(made: building.Builder, known: Delivery, inverse: Any) -> dict[str, tuple[Any, float]]:
    """Every controller, and the seconds that its training took."""
    result = {name: (known.controllers[name], 0.0) for name in ("inverse", "tracked") if name in known.controllers}
    for kind in ("places", "cloned", "flow"):
        began = time.perf_counter()
        result[kind] = fitted(made, kind), time.perf_counter() - began
    began, simulator = time.perf_counter(), made.task.simulator
    bounds = jnp.asarray(simulator.action_low), jnp.asarray(simulator.action_high)
    settings = dynamics.DynamicsSettings(train=TrainSettings(steps=4000, batch=256), transitions=100_000)
    model = dynamics.fit(made.data.windows(2), bounds, made.task.discrete, settings)
    std = made.data.rows.std[: made.task.observation_dim]
    result["model"] = Model(model, std, inverse, made.stride), time.perf_counter() - began
    return result


def measure(run: Run, name: str, config: Config) -> list[dict[str, Any]]:
    """The rows of a task."""
    task = make_task(name)
    made = building.start(run, task, PlannerSettings())
    problem, _ = building.assemble(jax.random.key(0), made, {"regression"})
    inverse = building.fit_inverse(made).model
    delivery = delivery_of(task, made.data.codec, inverse, made.span, made.stride)
    if delivery is None or task.discrete:
        raise ConfigError(f"task {name}: must have a simulator and continuous actions")
    starts = made.data.held_out.observations[made.data.held_out.places(jax.random.key(5), config.plans)]
    begin = Begin(jax.vmap(task.simulator.state_of)(starts), starts, jnp.zeros(config.plans, int))
    every = controllers(made, delivery, inverse)
    delivery = delivery._replace(controllers={controller: model for controller, (model, _) in every.items()})
    method = Guided("guided", config.scales)
    draw = jax.jit(lambda problem, scale: method(jax.random.key(1), problem, starts, scale[None]).x[0])
    rows = []
    for scale in config.scales:
        x = draw(problem, jnp.float32(scale))
        promised = float(jnp.mean(jax.vmap(partial(promise, made))(x)))
        returns = delivery.returns(jax.random.key(3), begin, x)
        for controller, earned in returns.items():
            gain = earned - returns["inverse"]
            half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
            about = {"task": task.name, "scale": scale, "controller": controller, "plans": config.plans}
            values = {"promised": promised, "delivered": earned.mean(), "gain": gain.mean()}
            interval = {"low": gain.mean() - half, "high": gain.mean() + half}
            rows.append(about | values | interval | {"train_seconds": every[controller][1]})
            say(f"{task.name}, scale {scale:g}, {controller}: delivered {values['delivered']:.2f} of {promised:.2f}")
    return rows


def promise(made: building.Builder, x: Any) -> Any:
    """The true return of a plan as it is drawn."""
    plan = made.data.codec.decode(x)
    return made.stride * jnp.sum(jax.vmap(made.reward)(plan.observations, plan.actions))  # pyright: ignore


def main(config: Config) -> None:
    """Compare, and write after every task."""
    rows: list[Any] = [*read_rows(config.out)] if config.out.exists() else []
    for name in config.tasks:
        made = measure(Run(config.run / name), name, config)
        rows = [row for row in rows if row["task"] != made[0]["task"]] + made
        write(config.out, rows, COLUMNS)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except ConfigError as error:
        sys.exit(str(error))
