"""The methods of (123), with the guidance scale and the number of candidates tuned on episodes that are not scored.

Each option is swept by itself along a grid. Then the guidance scale is swept again with a quarter of the candidates
that the first sweep chose. The setting with the highest mean score is taken, a rule of `diffplan tune` that
leans to neither side: the largest scale that is not distinguishable from the best costs guidance more than best of n.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffplan.experiment import scale_rules
from diffplan.methods.grids import log_grid
from diffplan.planner.model import PlanOptions
from diffplan.runs import Progress, say

SCALES = log_grid(0.3, 100, 6)
"""Guidance scales that are tried, per standard deviation of the value."""


class Method(NamedTuple):
    """(123) with its options, and its name in tables."""

    name: str
    options: PlanOptions


Methods = tuple[Method, ...]


def guidance(scale: float, candidates: int = 1) -> PlanOptions:
    """Guidance at a scale, and the best of so many candidates."""
    return PlanOptions(jnp.asarray(scale, jnp.float32), candidates)


def methods(task: str, most: int, score: Callable[[PlanOptions], Float[np.ndarray, "n"]]) -> Methods:
    """The prior; best of n, guided, and guided best of n, each at its tuned setting; and the last with warm starts.

    Args:
        task: the maze, for messages.
        most: the largest number of candidates.
        score: the scores of episodes at some options.
    """

    def tune(options: Callable[[float], PlanOptions], values: tuple[float, ...], what: str) -> float:
        table = []
        with Progress(f"{task}: tuning {what}", total=len(values), unit="settings") as progress:
            for value in values:
                table.append(score(options(value)))
                progress.advance(1, setting=value, score=float(np.mean(table[-1])))
        choice = scale_rules.best(np.asarray(values, float), np.asarray(table))
        say(f"{task}: {what} {choice.scale:g} ({choice.low:g} to {choice.high:g}): {choice.reason}")
        return choice.scale

    counts = tuple(4.0**k for k in range(most.bit_length()) if 4**k <= most)
    n = int(tune(lambda n: PlanOptions(None, int(n)), counts, "candidates"))
    few = max(1, n // 4)
    alone = tune(guidance, SCALES, "guidance scale")
    both = tune(lambda scale: guidance(scale, few), SCALES, f"guidance scale with {few} candidates")
    together = f"guided {both:g}, best of {few}"
    return (
        Method("prior", PlanOptions(None)),
        Method(f"best of {n}", PlanOptions(None, n)),
        Method(f"guided {alone:g}", guidance(alone)),
        Method(together, guidance(both, few)),
        Method(f"{together}, warm", replace(guidance(both, few), warm=True)),
    )
