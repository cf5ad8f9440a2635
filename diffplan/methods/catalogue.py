"""Every method by name: its family, the parts of a problem that it needs, its strength_name's grid. A new method is
one more line.
"""

from functools import partial
from typing import NamedTuple

from diffplan.guide import Proxy
from diffplan.methods import Ascent, BestOfN, Guided, Method, Prior, Problem, finetuning, policy_gradient
from diffplan.methods.ascent import AscentEarly, AscentFrom, AscentRenoised
from diffplan.methods.base import need
from diffplan.methods.best_of_n import Quantiliser, RegularisedBestOfN, SoftBestOfN
from diffplan.methods.classifier_free import ClassifierFree, best_goal
from diffplan.methods.finetuning import Boltzmann, ExpertIteration
from diffplan.methods.grids import log_grid, whole_grid
from diffplan.methods.guidance import classifier, clean, dps, raw
from diffplan.methods.particles import Particles, annealed, fk_steering, svdd
from diffplan.methods.receding import Receding
from diffplan.methods.shooting import Shooting, Softmax, learned
from diffplan.methods.strengths import StrengthSettings
from diffplan.settings import ConfigError

FAMILIES = ("prior", "guidance", "selection", "particles", "ascent", "planning", "policies", "fine-tuning")
"""In the order of tables and figures."""


class Entry(NamedTuple):
    """A method, its family, and which optional parts of `methods.Problem` it needs."""

    family: str
    method: Method
    needs: tuple[str, ...] = ()


def conservative(problem: Problem) -> Proxy:
    """The clean regression that was trained to score lower what ascent finds."""
    return need(problem, "conservative", "ascent_conservative")


def guidance(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Pushing the denoiser."""
    scales, weights = log_grid(*strengths.scale, strengths.points), log_grid(0.5, 8, strengths.points)
    return (
        Entry("guidance", Guided("guided", scales)),
        Entry("guidance", Guided("guided_classifier", scales, classifier, classifier)),
        Entry("guidance", Guided("guided_dps", scales, dps, clean)),
        Entry("guidance", Guided("guided_raw", scales, raw, clean)),
        Entry("guidance", ClassifierFree(weights, name="classifier_free_return"), ("conditional",)),
        Entry("guidance", ClassifierFree(weights, best_goal, "classifier_free_goal"), ("conditional",)),
    )


def selection(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Picking from the prior, and particles."""
    pool, weights = whole_grid(strengths.pool, 2 * strengths.points, 1), log_grid(*strengths.weight, strengths.points)
    return (
        Entry("selection", BestOfN(pool)),
        Entry("selection", BestOfN(pool, "critic", proxy=clean)),
        Entry("selection", SoftBestOfN(weights, pool=strengths.pool)),
        Entry("selection", RegularisedBestOfN(log_grid(0.01, 10, 2 * strengths.points), pool=strengths.pool)),
        Entry("selection", Quantiliser(pool, pool=strengths.pool)),
        Entry("particles", Particles("tds", weights, count=strengths.particles)),
        Entry("particles", Particles("annealed", weights, annealed, count=strengths.particles)),
        Entry("particles", Particles("fk_steering", weights, fk_steering, dps, clean, count=strengths.particles)),
        Entry("particles", Particles("svdd", weights, svdd, dps, clean, count=max(1, strengths.particles // 8))),
    )


def ascent(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Following the reward alone."""
    steps, rate = whole_grid(strengths.ascent_steps, 2 * strengths.points), strengths.ascent_rate
    return (
        Entry("ascent", Ascent(steps, rate=rate)),
        Entry("ascent", Ascent(steps, "ascent_clean", clean, rate, anneal=0)),
        Entry("ascent", AscentFrom(steps, rate=rate)),
        Entry("ascent", AscentEarly(rate=rate / 10, steps=strengths.ascent_steps)),
        Entry("ascent", AscentRenoised(steps, rate=rate / 10)),
        Entry("ascent", Ascent(steps, "ascent_conservative", conservative, rate, anneal=0), ("conservative",)),
    )


def planning(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Searching sequences of actions, in the true dynamics and in a learned model."""
    search = partial(
        Shooting, strengths=whole_grid(strengths.iterations, strengths.points), population=strengths.population
    )
    few, half = whole_grid(max(1, strengths.iterations // 4), strengths.points), max(2, strengths.population // 2)
    truth, model = ("dynamics", "behaviour"), ("dynamics", "behaviour", "model")
    return (
        Entry("planning", search("cem"), truth),
        Entry("planning", search("mppi", weigh=Softmax()), truth),
        Entry("planning", search("cem_model", dynamics=learned), model),
        Entry("planning", search("mppi_model", weigh=Softmax(), dynamics=learned), model),
        Entry("planning", search("cem_disagreement", dynamics=learned, disagreement_penalty=1.0), model),
        Entry("planning", Receding("receding_model", few, population=half), (*model, "value")),
    )


def learning(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Policies, and priors fine-tuned on their own plans."""
    prices, needs = log_grid(*strengths.weight, max(1, strengths.points // 2)), ("dynamics", "behaviour")
    gradient = partial(policy_gradient.PolicyGradient, strengths=prices, updates=strengths.updates)
    ppo = partial(gradient, epochs=4, trace=0.95, critic_steps=4, rate=4e-3)
    tune = partial(finetuning.PolicyGradient, prices, updates=max(1, strengths.updates // 6), learning_rate=1e-4)
    rounds = whole_grid(strengths.rounds, strengths.points)
    again = partial(ExpertIteration, rounds, plans=strengths.round_plans, steps=strengths.round_steps)
    return (
        Entry("policies", gradient("reinforce", rate=2e-3), needs),
        Entry("policies", ppo("ppo"), needs),
        Entry("policies", ppo("ppo_occupancy", regulariser="occupancy"), needs),
        Entry("fine-tuning", tune(name="tuned_gradient")),
        Entry("fine-tuning", again(weigh=Boltzmann(), name="reward_weighted")),
        Entry("fine-tuning", again(name="expert_replace")),
        Entry("fine-tuning", again(mix="accumulate", name="expert_accumulate")),
        Entry("fine-tuning", again(mix="real", name="expert_real")),
    )


def catalogue(strengths: StrengthSettings) -> dict[str, Entry]:
    """All methods in the order of the tables, with the strengths that a configuration asks for."""
    families = (guidance, selection, ascent, planning, learning)
    entries = (Entry("prior", Prior()), *(entry for family in families for entry in family(strengths)))
    return {entry.method.name: entry for entry in entries}


def chosen(strengths: StrengthSettings, names: tuple[str, ...]) -> tuple[Entry, ...]:
    """The methods of these names, in the catalogue's order; the prior is always among them.

    Raises:
        ConfigError: naming the first that does not exist, and all that do.
    """
    known = catalogue(strengths)
    for name in names:
        if name not in (*known, "all"):
            raise ConfigError(f"methods={name!r}: must be all, or some of {', '.join(known)}")
    return tuple(entry for name, entry in known.items() if name in ("prior", *names) or "all" in names)
