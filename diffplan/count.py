"""Counting what a method evaluates, from the program that it is: no method reports its own cost.

`counted` marks a value as the result of one evaluation. The mark is an identity that differentiates and batches and
costs nothing when it runs; it carries the size of one unbatched result. `count` walks the traced program, through loops
and calls, and adds up how often each mark would be passed:

    evaluations = sum over marks of  trips of the loops around it * size of its batch / size of one result        (70)

A gradient counts as two evaluations of what it differentiates: derivatives of a mark are marked, so that its backward
pass, which takes at least as long as the forward pass, counts as well. What only measures, as the reference that a path
KL is taken from, is traced under `uncounted` and costs a method nothing.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

What = Literal["network_evals", "proxy_evals", "env_steps"]
"""An evaluation of a denoiser, policy, value or other network; of the proxy; a step in an environment or its model."""

WHATS: tuple[What, ...] = ("network_evals", "proxy_evals", "env_steps")

_measuring: list[bool] = []

_mark = Primitive("evaluation")
"""mark(x, of) is x: one evaluation whose result is `of`. It is linear in x; what: its kind, size: of one result."""
_mark.def_impl(lambda x, _, **__: x)
_mark.def_abstract_eval(lambda x, _, **__: x)
mlir.register_lowering(_mark, lambda _, x, *__, **___: [x])


def _differentiated(primals: tuple, tangents: tuple, **about: Any) -> tuple[Array, Any]:
    (x, of), (slope, _) = primals, tangents
    nothing = isinstance(slope, ad.Zero)
    return _mark.bind(x, of, **about), slope if nothing else _mark.bind(slope, of, **about)


def _transposed(cotangent: Any, _: Any, of: Array, **about: Any) -> list:
    return [cotangent if isinstance(cotangent, ad.Zero) else _mark.bind(cotangent, of, **about), None]


ad.primitive_jvps[_mark], ad.primitive_transposes[_mark] = _differentiated, _transposed
batching.primitive_batchers[_mark] = lambda both, axes, **about: (_mark.bind(*both, **about), axes[0])


@contextmanager
def uncounted() -> Iterator[None]:
    """What is traced in here is a measurement, and not a cost."""
    _measuring.append(True)
    try:
        yield
    finally:
        _measuring.pop()


def counted(what: What, result: Array) -> Array:
    """The result of one evaluation, marked. Call it where the result is unbatched."""
    return result if _measuring else _mark.bind(result, result, what=what, size=result.size)


def count(function: Any, *arguments: Any) -> dict[str, float]:
    """Equation (70): evaluations of each kind in one call of `function(*arguments)`; nothing is run.

    Raises:
        ValueError: if a marked evaluation is in a loop whose number of trips is not known before it runs.
    """
    return evaluations(jax.make_jaxpr(function)(*arguments))


def evaluations(program: ClosedJaxpr) -> dict[str, float]:
    """Equation (70) of a program that is traced already."""
    outcome = _passed(program.jaxpr)
    return {what: float(outcome[what]) for what in WHATS}


def _passed(jaxpr: Jaxpr) -> Counter:
    """How often one run of a program passes each mark."""
    total: Counter = Counter()
    for equation in jaxpr.eqns:
        if equation.primitive is _mark:
            what, size = equation.params["what"], equation.params["size"]
            total[what] += max(operand.aval.size for operand in equation.invars) / size  # pyright: ignore
            continue
        inner = [_passed(sub) for sub in _programs(equation.params)]
        match equation.primitive.name:
            case "cond":
                for what in WHATS:
                    total[what] += max(branch[what] for branch in inner)
            case "while":
                if any(sum(part.values()) for part in inner):
                    raise ValueError("an evaluation in a while loop cannot be counted: use scan or fori_loop")
            case _:
                trips = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
                for part in inner:
                    total.update({what: trips * times for what, times in part.items()})
    return total


def _programs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The programs that an equation calls."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
