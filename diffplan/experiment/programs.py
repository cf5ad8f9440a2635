"""The compiled programs of a method: few of them, and what each evaluates is counted from it.

The strength is an argument of most methods' programs, and then one program serves all strengths. In some methods it is
structure, such as the number of iterations of a search, and then each strength has its own program. The programs at the
weakest and at the largest strength tell the two apart: if they are the same, the strength is an argument. A CPU runs
one strength at a time, an accelerator all at once.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.count import WHATS, evaluations
from diffplan.methods import Method, Plans, Problem
from diffplan.runs.program import identity
from diffplan.settings import require
from diffplan.types import PRNGKey

Strengths = tuple[float, ...]


class Programs:
    """A method on one problem, for batches of one size. Every program is traced once and compiled once."""

    def __init__(self, method: Method, problem: Problem, starts: Float[Array, "n o"]):
        self.method, self.problem, self.plans = method, problem, len(starts)
        self.trace, self.compile = cache(self._trace), cache(self._compile)
        self.starts = jax.ShapeDtypeStruct(starts.shape, starts.dtype)
        ends = [self.trace((strength,))[1] for strength in (method.strengths[0], method.strengths[-1])]
        self.one_for_all, self.identity = ends[0] == ends[1], "-".join(ends)

    def groups(self, strengths: Strengths) -> list[Strengths]:
        """The strengths that are run together."""
        together = self.method.shared or jax.default_backend() != "cpu"
        return [strengths] if together else [(strength,) for strength in strengths]

    def run(self, key: PRNGKey, starts: Float[Array, "n o"], strengths: Strengths) -> Plans:
        """Draw plans at these strengths, for starts ``[n, o]``; compiles their program if `ready` has not. The key is
        consumed.

        Raises:
            ConfigError: if the method gives plans for another number of strengths.
        """
        leaves = jax.tree.leaves((key, self.problem, starts, jnp.asarray(strengths, jnp.float32)))
        plans = self.compile(self.representative(strengths))(*leaves)
        given, asked = len(plans.x), len(strengths)
        require(
            given == asked, f"method {self.method.name}: strengths of its plans", given, f"{asked}, all it was given"
        )
        return plans

    def ready(self, strengths: Strengths) -> None:
        """Compile the program of these strengths."""
        self.compile(self.representative(strengths))

    def costs(self, strengths: Strengths) -> dict[str, Float[np.ndarray, "s"]]:
        """Evaluations of each kind for one plan of each strength, had that strength been run alone."""
        counts = [evaluations(self.trace(self.representative((strength,)))[0].jaxpr) for strength in strengths]
        return {what: np.array([count[what] for count in counts]) / self.plans for what in WHATS}

    def representative(self, strengths: Strengths) -> Strengths:
        """The strengths under which the program of these is kept."""
        return self.method.strengths[:1] if self.one_for_all and len(strengths) == 1 else strengths

    def _trace(self, strengths: Strengths) -> tuple[Any, str]:
        """A program and its identity."""
        method = replace(self.method, strengths=strengths)  # pyright: ignore[reportArgumentType]
        arguments = jax.random.key(0), self.problem, self.starts, jnp.zeros(len(strengths))
        leaves, tree = jax.tree.flatten(arguments)
        traced = jax.jit(lambda *leaves: method(*jax.tree.unflatten(tree, leaves))).trace(*leaves)
        return traced, identity(traced.jaxpr)

    def _compile(self, strengths: Strengths) -> Callable[..., Plans]:
        return self.trace(strengths)[0].lower().compile()
