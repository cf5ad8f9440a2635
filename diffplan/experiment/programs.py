"""The compiled programs of a method: few of them, and what each evaluates is counted from it.

The strength is an argument of most methods' programs, and then one program serves all strengths. In some methods it is
structure, such as the number of iterations of a search, and then each strength has its own program. The programs at the
weakest and at the largest strength tell the two apart: if they are the same, the strength is an argument. A CPU runs
one strength at a time, an accelerator all at once.

A method that learns has a program for each of its parts: one fits what is learned, the other draws plans with it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffplan.count import WHATS, evaluations
from diffplan.methods import Method, Plans, Problem
from diffplan.methods.base import Learned, LearningMethod
from diffplan.runs.program import identity
from diffplan.settings import require
from diffplan.types import PRNGKey

Strengths = tuple[float, ...]
Part = Literal["fit", "draw"]
"""What a program does: `LearningMethod.fit`, or all that a method does to draw plans."""


class Programs:
    """A method on one problem, for batches of one size. Every program is traced once and compiled once."""

    def __init__(self, method: Method, problem: Problem, starts: Float[Array, "n o"]):
        self.method, self.problem, self.plans = method, problem, len(starts)
        self.learns = isinstance(method, LearningMethod)
        self.trace, self.compile = cache(self._trace), cache(self._compile)
        self.starts = jax.ShapeDtypeStruct(starts.shape, starts.dtype)
        self.parts: tuple[Part, ...] = ("fit", "draw") if self.learns else ("draw",)
        ends = [
            [self.trace((end,), part)[1] for part in self.parts] for end in (method.strengths[0], method.strengths[-1])
        ]
        self.one_for_all, self.identity = ends[0] == ends[1], "-".join(ends[0] + ends[1])

    def groups(self, strengths: Strengths) -> list[Strengths]:
        """The strengths that are run together."""
        together = self.method.shared or jax.default_backend() != "cpu"
        return [strengths] if together else [(strength,) for strength in strengths]

    def keys(self, key: PRNGKey) -> tuple[PRNGKey, PRNGKey]:
        """The keys to fit and to draw with, from that of a method: as `fit_and_draw` has them."""
        return tuple(jax.random.split(key)) if self.learns else (key, key)

    def fit(self, key: PRNGKey, strengths: Strengths) -> Learned:
        """What the method learns before it plans; None where it learns nothing. The key is consumed."""
        if not self.learns:
            return None
        leaves = jax.tree.leaves((key, self.problem, jnp.asarray(strengths, jnp.float32)))
        return self.compile(self.representative(strengths), "fit")(*leaves)

    def run(
        self, key: PRNGKey, starts: Float[Array, "n o"], strengths: Strengths, learned: Learned | None = None
    ) -> Plans:
        """Draw plans at these strengths, for starts ``[n, o]``; compiles their program if `ready` has not. The key is
        consumed. learned: what `fit` gave at these strengths.

        Raises:
            ConfigError: if the method gives plans for another number of strengths.
        """
        leaves = jax.tree.leaves((key, self.problem, learned, starts, jnp.asarray(strengths, jnp.float32)))
        plans = self.compile(self.representative(strengths), "draw")(*leaves)
        given, asked = len(plans.x), len(strengths)
        require(
            given == asked, f"method {self.method.name}: strengths of its plans", given, f"{asked}, all it was given"
        )
        return plans

    def ready(self, strengths: Strengths) -> None:
        """Compile the programs of these strengths."""
        for part in self.parts:
            self.compile(self.representative(strengths), part)

    def costs(self, strengths: Strengths, part: Part = "draw") -> dict[str, Float[np.ndarray, "s"]]:
        """Evaluations of each kind at each strength, had it been run alone: of one plan, or of the whole fit."""
        counts = [evaluations(self.trace(self.representative((strength,)), part)[0].jaxpr) for strength in strengths]
        each = self.plans if part == "draw" else 1
        return {what: np.array([count[what] for count in counts]) / each for what in WHATS}

    def representative(self, strengths: Strengths) -> Strengths:
        """The strengths under which the program of these is kept."""
        return self.method.strengths[:1] if self.one_for_all and len(strengths) == 1 else strengths

    def _trace(self, strengths: Strengths, part: Part) -> tuple[Any, str]:
        """A program and its identity."""
        method: Any = replace(self.method, strengths=strengths)  # pyright: ignore[reportArgumentType]
        key, grid = jax.random.key(0), jnp.zeros(len(strengths))
        if part == "fit":
            call, arguments = method.fit, (key, self.problem, grid)
        elif self.learns:
            learned = self.trace(strengths, "fit")[0].out_info
            call, arguments = method.draw, (key, self.problem, learned, self.starts, grid)
        else:
            call, arguments = method, (key, self.problem, self.starts, grid)
        leaves, tree = jax.tree.flatten(arguments)
        traced = jax.jit(lambda *leaves: call(*jax.tree.unflatten(tree, leaves))).trace(*leaves)
        return traced, identity(traced.jaxpr)

    def _compile(self, strengths: Strengths, part: Part) -> Callable[..., Any]:
        return self.trace(strengths, part)[0].lower().compile()
