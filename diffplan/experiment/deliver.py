"""What plans deliver: each is carried out, in every way that the task allows, and planned anew on the way."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.codec import Cells, Codec
from diffplan.experiment.harness import Begin, Draw
from diffplan.runs.program import program
from diffplan.simulators import Controller, OpenLoop, Steering, Tracking, begin, carry_out, end, is_host
from diffplan.task import Task
from diffplan.types import PRNGKey


class Delivery(NamedTuple):
    """How plans of a task are carried out. controllers: by column. span: steps of a plan."""

    simulator: Any
    codec: Codec | Cells
    controllers: Mapping[str, Controller]
    span: int
    stride: int

    def returns(self, key: PRNGKey, start: Begin, x: Float[Array, "n h d"]) -> dict[str, Float[np.ndarray, "n"]]:
        """The return of every plan in every way; NaN for plans that are not finite. Returns {column: [n]}."""
        finite = np.asarray(jnp.all(jnp.isfinite(x), axis=(1, 2)))
        plans = self.codec.decode(jnp.where(jnp.isfinite(x), x, 0.0))
        result = {}
        for column, controller in self.controllers.items():
            running = begin(self.simulator, start.states)
            running, totals = carry_out(key, self.simulator, controller, running, plans, self.span)
            end(self.simulator, running)
            result[column] = np.where(finite, np.asarray(totals), np.nan)
        return result

    def replanned(self, key: PRNGKey, draw: Draw, start: Begin, column: str, times: int) -> float:
        """The mean return where plans are made anew `times` times on the way, and carried out as a column says."""
        running, total = begin(self.simulator, start.states), 0.0
        every = -(-self.span // self.stride // times) * self.stride
        for done in range(0, self.span, every):
            key, key_draw, key_step = jax.random.split(key, 3)
            x = draw(key_draw, running.observations)
            plans = self.codec.decode(jnp.where(jnp.isfinite(x), x, 0.0))
            steps = min(every, self.span - done)
            running, gained = carry_out(key_step, self.simulator, self.controllers[column], running, plans, steps)
            total = total + np.asarray(gained)
        end(self.simulator, running)
        return float(np.mean(total))

    def program(self, start: Begin, x: Float[Array, "n h d"]) -> str:
        """A digest of how plans are carried out; of a host, by its settings alone."""
        if is_host(self.simulator):
            return f"{type(self.simulator).__name__} {self.simulator} {sorted(self.controllers)}"
        key = jax.random.key(0)

        def all_ways(controllers: Mapping[str, Controller], states: Any, x: Array) -> list:
            plans, running = self.codec.decode(x), begin(self.simulator, states)
            run = lambda controller: carry_out(key, self.simulator, controller, running, plans, self.span)[1]
            return [run(controller) for controller in controllers.values()]

        return program(all_ways, dict(self.controllers), start.states, x)


def delivery_of(task: Task, codec: Codec | Cells, inverse: Any, span: int, stride: int) -> Delivery | None:
    """Every way to carry out plans of a task; None where it has no simulator. inverse: the learned controller."""
    if task.simulator is None:
        return None
    ways: dict[str, Controller] = {"open_loop": OpenLoop(stride), "inverse": Steering(inverse, stride)}
    if task.tracker is not None:
        ways["tracked"] = Tracking(task.tracker, stride)
    return Delivery(task.simulator, codec, ways, span, stride)
