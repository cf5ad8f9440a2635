"""Exact answers: know whether the sampler, the guide or the model is wrong.

Every part is held against an answer that is known another way, and gives the rows of one table. `PARTS` names them in
the order in which they are run; those that need trained models share them through the run's directory.
"""

from collections.abc import Callable, Iterator

from diffplan.runs import Run
from diffplan.validation import attribution, budget, gridworlds, learned, particles, rules, samplers
from diffplan.validation.learned import Size
from diffplan.validation.problems import cells
from diffplan.validation.table import Row

Part = Callable[[Run, int, Size], Iterator[Row]]
"""``part(run, seed, size)`` -> rows."""


def exactly(part: Callable[[int], Iterator[Row]]) -> Part:
    """A part that trains nothing."""
    return lambda run, seed, size: part(seed)


def prior(run: Run, seed: int, size: Size) -> Iterator[Row]:
    """The prior that diffusion learns of paths of cells."""
    problem = cells()
    return attribution.on_prior(seed, problem, learned.fit_prior(run, seed, problem, size))


def two_by_two(run: Run, seed: int, size: Size) -> Iterator[Row]:
    """Sampler, guide or model?"""
    problem = cells()
    model = learned.fit_prior(run, seed, problem, size)
    return attribution.attribution(seed, problem, model, learned.fit_energy(run, seed, problem, model, size))


def discretely(run: Run, seed: int, size: Size) -> Iterator[Row]:
    """Discrete diffusion."""
    problem = cells()
    return gridworlds.discretely(seed, problem, gridworlds.fit_posterior(run, seed, problem, size))


PARTS: dict[str, Part] = {
    "order": exactly(samplers.order),
    "gaussian": exactly(samplers.on_gaussian),
    "mixture": exactly(samplers.on_mixture),
    "tabular": exactly(samplers.on_cells),
    "legality": exactly(gridworlds.legality),
    "references": exactly(gridworlds.references),
    "rules": exactly(rules.rules),
    "budget": exactly(budget.on_both),
    "particles": exactly(particles.on_cells),
    "coverage": exactly(particles.coverage),
    "discrete": discretely,
    "prior": prior,
    "attribution": two_by_two,
}
