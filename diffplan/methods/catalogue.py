"""Every arm by name: its family, the parts of a problem that it needs, its dial's grid. A new arm is one more line."""

from functools import partial
from typing import NamedTuple

from diffplan.config import ConfigError, DialsConfig
from diffplan.experiment.harness import log_grid, whole_grid
from diffplan.guide import Proxy
from diffplan.methods import Arm, Ascent, BestOfN, Guided, Prior, Problem, finetuning, policy_gradient
from diffplan.methods.ascent import AscentEarly, AscentFrom, AscentRenoised
from diffplan.methods.base import need
from diffplan.methods.best_of_n import Quantiliser, RegularisedBestOfN, SoftBestOfN
from diffplan.methods.classifier_free import ClassifierFree, best_goal
from diffplan.methods.finetuning import Boltzmann, ExpertIteration
from diffplan.methods.guidance import classifier, clean, plugin, raw
from diffplan.methods.particles import Particles, annealed, picked, steered
from diffplan.methods.receding import Receding
from diffplan.methods.shooting import Shooting, Softmax, learned

FAMILIES = ("prior", "guidance", "selection", "particles", "ascent", "planning", "policies", "fine-tuning")
"""In the order of tables and figures."""


class Entry(NamedTuple):
    """An arm, its family, and which optional parts of `arms.Problem` it needs."""

    family: str
    arm: Arm
    needs: tuple[str, ...] = ()


def conservative(problem: Problem) -> Proxy:
    """The clean regression that was trained to score lower what ascent finds."""
    return need(problem, "conservative", "ascent_conservative")


def guidance(dials: DialsConfig) -> tuple[Entry, ...]:
    """Pushing the denoiser."""
    scales, weights = log_grid(*dials.scale, dials.points), log_grid(0.5, 8, dials.points)
    return (
        Entry("guidance", Guided("guided", scales)),
        Entry("guidance", Guided("guided_classifier", scales, classifier, classifier)),
        Entry("guidance", Guided("guided_plugin", scales, plugin, clean)),
        Entry("guidance", Guided("guided_raw", scales, raw, clean)),
        Entry("guidance", ClassifierFree(weights, name="free_return"), ("conditional",)),
        Entry("guidance", ClassifierFree(weights, best_goal, "free_goal"), ("conditional",)),
    )


def selection(dials: DialsConfig) -> tuple[Entry, ...]:
    """Picking from the prior, and particles."""
    pool, weights = whole_grid(dials.pool, 2 * dials.points, 1), log_grid(*dials.weight, dials.points)
    return (
        Entry("selection", BestOfN(pool)),
        Entry("selection", BestOfN(pool, "critic", proxy=clean)),
        Entry("selection", SoftBestOfN(weights, pool=dials.pool)),
        Entry("selection", RegularisedBestOfN(log_grid(0.01, 10, 2 * dials.points), pool=dials.pool)),
        Entry("selection", Quantiliser(pool, pool=dials.pool)),
        Entry("particles", Particles("twisted", weights, count=dials.particles)),
        Entry("particles", Particles("annealed", weights, annealed, count=dials.particles)),
        Entry("particles", Particles("steered", weights, steered, plugin, clean, count=dials.particles)),
        Entry("particles", Particles("picked", weights, picked, plugin, clean, count=max(1, dials.particles // 8))),
    )


def ascent(dials: DialsConfig) -> tuple[Entry, ...]:
    """Following the reward alone."""
    steps, rate = whole_grid(dials.ascent_steps, 2 * dials.points), dials.ascent_rate
    return (
        Entry("ascent", Ascent(steps, rate=rate)),
        Entry("ascent", Ascent(steps, "ascent_clean", clean, rate, anneal=0)),
        Entry("ascent", AscentFrom(steps, rate=rate)),
        Entry("ascent", AscentEarly(rate=rate / 10, steps=dials.ascent_steps)),
        Entry("ascent", AscentRenoised(steps, rate=rate / 10)),
        Entry("ascent", Ascent(steps, "ascent_conservative", conservative, rate, anneal=0), ("conservative",)),
    )


def planning(dials: DialsConfig) -> tuple[Entry, ...]:
    """Searching sequences of actions, in the true dynamics and in a learned model."""
    search = partial(Shooting, strengths=whole_grid(dials.iterations, dials.points), population=dials.population)
    few, half = whole_grid(max(1, dials.iterations // 4), dials.points), max(2, dials.population // 2)
    truth, model = ("dynamics", "behaviour"), ("dynamics", "behaviour", "model")
    return (
        Entry("planning", search("cem"), truth),
        Entry("planning", search("mppi", weigh=Softmax()), truth),
        Entry("planning", search("cem_model", dynamics=learned), model),
        Entry("planning", search("mppi_model", weigh=Softmax(), dynamics=learned), model),
        Entry("planning", search("cem_doubt", dynamics=learned, doubt_penalty=1.0), model),
        Entry("planning", Receding("receding_model", few, population=half), (*model, "value")),
    )


def learning(dials: DialsConfig) -> tuple[Entry, ...]:
    """Policies, and priors fine-tuned on their own plans."""
    prices, needs = log_grid(*dials.weight, max(1, dials.points // 2)), ("dynamics", "behaviour")
    gradient = partial(policy_gradient.PolicyGradient, strengths=prices, updates=dials.updates)
    ppo = partial(gradient, epochs=4, trace=0.95, critic_steps=4, rate=4e-3)
    tune = partial(finetuning.PolicyGradient, prices, updates=max(1, dials.updates // 6), learning_rate=1e-4)
    rounds = whole_grid(dials.rounds, dials.points)
    again = partial(ExpertIteration, rounds, plans=dials.round_plans, steps=dials.round_steps)
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


def catalogue(dials: DialsConfig) -> dict[str, Entry]:
    """All arms in the order of the tables, with the dials that a configuration asks for."""
    families = (guidance, selection, ascent, planning, learning)
    entries = (Entry("prior", Prior()), *(entry for family in families for entry in family(dials)))
    return {entry.arm.name: entry for entry in entries}


def chosen(dials: DialsConfig, names: tuple[str, ...]) -> tuple[Entry, ...]:
    """The arms of these names, in the catalogue's order; the prior is always among them.

    Raises:
        ConfigError: naming the first that does not exist, and all that do.
    """
    known = catalogue(dials)
    for name in names:
        if name not in (*known, "all"):
            raise ConfigError(f"arms={name!r}: must be all, or some of {', '.join(known)}")
    return tuple(entry for name, entry in known.items() if name in ("prior", *names) or "all" in names)
