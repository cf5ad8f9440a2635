"""The methods of (123), with guidance and selection both tuned on episodes that are not scored.

Each option is turned by itself, up a grid, and then guidance once more with a quarter of the candidates that selection
took. The rule is the one of `scripts/tune_scale.py` that leans to neither side, the highest mean: to push as far as
episodes cannot tell from the best costs guidance more than it costs selection.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffplan import runtime
from diffplan.experiment import scale_rules
from diffplan.methods.grids import log_grid
from diffplan.planner.planner import PlanOptions

SCALES = log_grid(0.3, 100, 6)
"""Guidance scales that are tried, per standard deviation of the value."""


class Method(NamedTuple):
    """(123) with its options turned, and its name."""

    name: str
    options: PlanOptions


def guidance(scale: float, candidates: int = 1) -> PlanOptions:
    """Guidance at a scale, and the best of so many."""
    return PlanOptions(jnp.asarray(scale, jnp.float32), candidates)


def methods(task: str, most: int, played: Callable[[PlanOptions], Float[np.ndarray, "n"]]) -> tuple[Method, ...]:
    """The prior; selection, guidance, and both, each at the setting that tuning finds; and the last with warm starts.

    most: the largest number of candidates; played: the scores of episodes at some options.
    """

    def swept(options: Callable[[float], PlanOptions], values: tuple[float, ...], what: str) -> float:
        table = []
        with runtime.Progress(f"{task}: tuning {what}", total=len(values), unit="settings") as progress:
            for value in values:
                table.append(played(options(value)))
                progress.advance(1, setting=value, score=float(np.mean(table[-1])))
        choice = scale_rules.best(np.asarray(values, float), np.asarray(table))
        runtime.say(f"{task}: {what} {choice.scale:g} ({choice.low:g} to {choice.high:g}): {choice.reason}")
        return choice.scale

    counts = tuple(4.0**k for k in range(most.bit_length()) if 4**k <= most)
    n = int(swept(lambda n: PlanOptions(None, int(n)), counts, "candidates"))
    few = max(1, n // 4)
    alone = swept(guidance, SCALES, "guidance scale")
    both = swept(lambda scale: guidance(scale, few), SCALES, f"guidance scale with {few} candidates")
    together = f"guidance {both:g} and selection of {few}"
    return (
        Method("prior", PlanOptions(None)),
        Method(f"selection of {n}", PlanOptions(None, n)),
        Method(f"guidance {alone:g}", guidance(alone)),
        Method(together, guidance(both, few)),
        Method(f"{together}, warm", replace(guidance(both, few), warm=True)),
    )
