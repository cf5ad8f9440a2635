"""What the machine can do, and what of it is used: matrix products, and steps of worlds.

With F the operations of all matrix products in a compiled call, counted from its program (two for each entry that is
multiplied), and t its seconds, the call uses F / t of the peak P: the operations a second of one product by itself, in
the same run. P is measured twice: for the largest product of the call, and for a square one of `SQUARE` rows.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from diffplan.benchmarks.speed.timing import interleaved, row, timed
from diffplan.simulators import Environment

SQUARE = 1024
"""Rows and columns of the square product."""

REPEATED = 64
"""Products that are taken one after another in a call."""


class Product(NamedTuple):
    """A matrix product of ``[m, k]`` and ``[k, n]``."""

    m: int
    k: int
    n: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n


def products(program: Jaxpr, trips: int = 1) -> list[tuple[int, Product]]:
    """(how often, which) of every matrix product in a program, through its loops and calls.

    Of a branch the dearest is taken; loops whose number of trips is not known count once.
    """
    result = []
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), (batch, _) = equation.params["dimension_numbers"]
            left, right = (variable.aval.shape for variable in equation.invars)  # pyright: ignore[reportAttributeAccessIssue]
            k, b = prod(left[i] for i in contracted), prod(left[i] for i in batch)
            result.append((trips * b, Product(prod(left) // (k * b), k, prod(right) // (k * b))))
            continue
        inner = [products(each, trips * equation.params.get("length", 1)) for each in programs(equation.params)]
        if equation.primitive.name == "cond":
            inner = [max(inner, key=operations)]
        result += [each for part in inner for each in part]
    return result


def programs(params: dict[str, Any]) -> list[Jaxpr]:
    """The programs among the parameters of an equation."""
    leaves = [each for value in params.values() for each in (value if isinstance(value, tuple | list) else [value])]
    inner = [each.jaxpr if isinstance(each, ClosedJaxpr) else each for each in leaves]
    return [each for each in inner if isinstance(each, Jaxpr)]


def operations(counts: list[tuple[int, Product]]) -> int:
    """F."""
    return sum(trips * product.operations for trips, product in counts)


def peak(call: Callable[..., Any], arguments: tuple, repeats: int, what: str) -> list[dict[str, Any]]:
    """What a compiled call uses of the peak, beside the two products that say what the peak is."""
    counts = products(jax.make_jaxpr(call)(*arguments).jaxpr)
    largest = max((product for _, product in counts), key=lambda product: product.operations)
    square, work = Product(SQUARE, SQUARE, SQUARE), operations(counts)
    names = {
        what: lambda: call(*arguments),
        "its largest product, " + shape(largest): repeated(largest),
        "a square product, " + shape(square): repeated(square),
    }
    timings, rows = interleaved(names, repeats, "bench peak"), []
    for name, done in zip(names, (work, REPEATED * largest.operations, REPEATED * square.operations), strict=True):
        rows.append(row("peak", name, timings[name], done, "operations/s"))
    for each in rows[1:]:
        each["used"] = rows[0]["per_second"] / each["per_second"]
    return rows


def shape(product: Product) -> str:
    """In words."""
    return f"[{product.m}, {product.k}] x [{product.k}, {product.n}]"


def repeated(product: Product) -> Callable[[], Any]:
    """A compiled call that takes a product `REPEATED` times, each of other numbers."""
    left = jax.random.normal(jax.random.key(0), (product.m, product.k)) / product.k**0.5
    right = jax.random.normal(jax.random.key(1), (product.k, product.n))

    @jax.jit
    def call(left: Any, right: Any) -> Any:
        def step(left: Any, _: None) -> tuple[Any, None]:
            out = left @ right
            return left + out[:1, :1] * 1e-9, None  # the next product needs this one

        return jax.lax.scan(step, left, length=REPEATED)[0]

    return lambda: call(left, right)


def steps(worlds: dict[str, Environment], repeats: int, lanes: int = 1024, count: int = 100) -> list[dict[str, Any]]:
    """Steps of environments in JAX: `lanes` episodes side by side, `count` steps each, with random actions.

    All observations and rewards are kept, so that XLA computes each.
    """
    calls = {}
    for name, world in worlds.items():
        states = jax.vmap(world.reset)(jax.random.split(jax.random.key(0), lanes))
        low, high = jnp.asarray(world.action_low), jnp.asarray(world.action_high)  # pyright: ignore

        @jax.jit
        def run(states: Any, world: Environment = world, low: Any = low, high: Any = high) -> Any:
            def step(states: Any, key: Any) -> tuple[Any, Any]:
                key_actions, key_steps = jax.random.split(key)
                actions = jax.random.uniform(key_actions, (lanes, *low.shape), minval=low, maxval=high)
                return jax.vmap(world.step)(jax.random.split(key_steps, lanes), states, actions)

            return jax.lax.scan(step, states, jax.random.split(jax.random.key(2), count))

        calls[f"{name}, {lanes} side by side"] = (lanes * count, partial(run, states))
    return timed("worlds", calls, repeats, "steps/s")
