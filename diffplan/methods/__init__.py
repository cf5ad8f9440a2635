"""Every way of turning a learned reward into plans, behind one signature: `diffplan.methods.base.Method`.

`catalogue` lists the methods that ship, one entry each. A method of your own needs no entry: wherever methods are
named, ``file.py:NAME`` is accepted too.
"""

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Literal, NamedTuple

from diffplan.guide import Proxy
from diffplan.learn.robust import STEPS
from diffplan.methods import finetuning, policy_gradient
from diffplan.methods.ascent import Ascent, AscentConservative, AscentEarly, AscentFrom, AscentRenoised
from diffplan.methods.base import Method, Plans, Problem
from diffplan.methods.best_of_n import BestOfN, Quantiliser, RegularisedBestOfN, SoftBestOfN
from diffplan.methods.classifier_free import ClassifierFree, best_goal
from diffplan.methods.few_steps import FewStepGuided, Push, by_contrast, by_dps, by_draws, by_shuffled
from diffplan.methods.finetuning import ExpertIteration
from diffplan.methods.gradient import GradientShooting
from diffplan.methods.grids import even_grid, log_grid, whole_grid
from diffplan.methods.guidance import (
    Guided,
    Interval,
    Prior,
    Pushed,
    Weakened,
    budgeted,
    classifier,
    clean,
    contrastive,
    dps,
    from_prior,
    lgd,
    raw,
    regression,
    scheduled,
    shuffled,
    smoothed,
    untrained,
)
from diffplan.methods.particles import Particles, annealed, fk_steering, svdd
from diffplan.methods.prior_guidance import PriorGuided
from diffplan.methods.receding import Receding
from diffplan.methods.shooting import Shooting, learned
from diffplan.methods.strengths import StrengthSettings
from diffplan.methods.tree import Tree
from diffplan.methods.weighting import Softmax
from diffplan.resolve import resolve
from diffplan.settings import ConfigError

__all__ = [
    "FAMILIES",
    "Ascent",
    "BestOfN",
    "Entry",
    "Guided",
    "Method",
    "Plans",
    "Prior",
    "Problem",
    "catalogue",
    "chosen",
]

FAMILIES = ("prior", "guidance", "selection", "particles", "ascent", "planning", "policies", "fine-tuning", "controls")
"""In the order of tables and figures."""

NULLS = ("null_noise", "null_shuffled")
"""Controls: guidance by a reward that means nothing."""

DELIVERY = {"plans": "inverse", "actions": "open_loop", "policy": "itself"}
"""How the plans of a method are carried out, by what it acts on: by learned inverse dynamics; by their own actions; a
policy's plans are runs of it, carried out already."""

PROXY_PARTS = ("regression", "classifier", "clean")
TRUE, MODEL = ("dynamics", "behaviour"), ("behaviour", "model")


class Entry(NamedTuple):
    """One method, with its strengths, and what a table says of it.

    paper: short; empty for a baseline without one. acts_on: what the method changes. needs: the optional parts of
    `Problem` without which it cannot run. cells: True if it plans in one-hot cells alone, False if it cannot plan in
    them. module: a package that it needs, of the `search` extra.
    """

    family: str
    paper: str
    acts_on: Literal["plans", "actions", "policy"]
    method: Method
    needs: tuple[str, ...] = ("regression",)
    cells: bool | None = None
    module: str = ""

    @property
    def name(self) -> str:
        """The method's own."""
        return self.method.name

    @property
    def delivered_by(self) -> str:
        """The column that says what its plans deliver."""
        return DELIVERY[self.acts_on]

    @property
    def replans(self) -> bool:
        """Whether planning anew on the way is another way to carry it out."""
        return self.family not in ("policies", "fine-tuning", "controls")

    @property
    def sampled(self) -> bool:
        """Whether its plans are what the problem's sampler draws from one denoiser."""
        return self.family in ("prior", "guidance", "controls") and "flow_map" not in self.needs


def guidance_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Pushing the denoiser."""
    scales, weights = log_grid(*strengths.scale, strengths.points), log_grid(0.5, 8, strengths.points)
    entry, nats = partial(Entry, "guidance"), log_grid(1, 1000, strengths.points)
    asked, classes = ("regression", "conditional"), ("classifier",)
    weaker = Weakened(strengths.weakened)
    contrasted = Pushed("guided_contrastive", scales, contrastive, "guidance scale")
    by_class = Guided("guided_classifier", scales, classifier, classifier)

    def few(name: str, push: Push, proxy: Callable[[Problem], Proxy], needs: tuple[str, ...]) -> Entry:
        return entry("Kim et al. 2024", "plans", FewStepGuided(name, scales, push=push, proxy=proxy), needs)

    return (
        entry("Janner et al. 2022", "plans", Guided("guided", scales)),
        entry("Dhariwal and Nichol 2021", "plans", by_class, classes),
        entry("Lu et al. 2023", "plans", contrasted, ("regression", "contrastive")),
        entry("Chung et al. 2023", "plans", Guided("guided_dps", scales, dps, clean), ("clean",)),
        entry("", "plans", Guided("guided_raw", scales, raw, clean), ("clean",)),
        entry("Kynkäänniemi et al. 2024", "plans", Guided("guided_interval", scales, Interval(*strengths.interval))),
        entry("Wang et al. 2024", "plans", Guided("guided_scheduled", scales, scheduled)),
        entry("", "plans", Guided("guided_smoothed", scales, smoothed, clean), ("clean",)),
        entry("Song et al. 2023", "plans", Pushed("guided_lgd", scales, lgd, "guidance scale", clean), ("clean",)),
        entry("Kim et al. 2024", "plans", FewStepGuided("guided_few_steps", scales), ("regression", "flow_map")),
        few("few_steps_contrastive", by_contrast, regression, ("regression", "contrastive", "flow_map")),
        few("few_steps_dps", by_dps, clean, ("clean", "flow_map")),
        few("few_steps_posterior", by_draws, clean, ("clean", "flow_map")),
        entry("", "plans", Pushed("guided_budget", nats, budgeted, "budget in nats")),
        entry("Ki et al. 2025", "plans", PriorGuided(nats)),
        entry("", "plans", Pushed("weakened", even_grid(strengths.points), weaker, "prior taken off")),
        entry("Ajay et al. 2023", "plans", ClassifierFree(weights, name="classifier_free_return"), asked),
        entry("Ho and Salimans 2022", "plans", ClassifierFree(weights, best_goal, "classifier_free_goal"), asked),
    )


def selection_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Picking from the prior."""
    size, points = strengths.pool, 2 * strengths.points
    n, weights = whole_grid(size, points, 1), log_grid(*strengths.weight, strengths.points)
    entry = partial(Entry, "selection")
    return (
        entry("Nakano et al. 2021", "plans", BestOfN(n)),
        entry("Lu et al. 2025", "plans", BestOfN(n, "critic", proxy=clean), ("clean",)),
        entry("Verdun et al. 2025", "plans", SoftBestOfN(weights, pool=size)),
        entry("Jinnai et al. 2024", "plans", RegularisedBestOfN(log_grid(0.01, 10, points), pool=size)),
        entry("Taylor 2016", "plans", Quantiliser(n, pool=size)),
    )


def particle_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Weighted particles on the sampler's chain."""
    weights, count = log_grid(*strengths.weight, strengths.points), strengths.particles
    entry = partial(Entry, "particles")
    few = max(1, count // 8)
    steered = Particles("fk_steering", weights, fk_steering, dps, clean, count=count)
    return (
        entry("Wu et al. 2023", "plans", Particles("tds", weights, count=count)),
        entry("Kim et al. 2025", "plans", Particles("annealed", weights, annealed, count=count)),
        entry("Singhal et al. 2025", "plans", steered, ("clean",)),
        entry("Li et al. 2024", "plans", Particles("svdd", weights, svdd, dps, clean, count=few), ("clean",)),
    )


def ascent_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Following the reward alone."""
    steps, rate = whole_grid(strengths.ascent_steps, 2 * strengths.points), strengths.ascent_rate
    entry = partial(Entry, "ascent")
    cautious = AscentConservative(whole_grid(min(strengths.ascent_steps, STEPS), 2 * strengths.points))
    return (
        entry("", "plans", Ascent(steps, rate=rate)),
        entry("", "plans", Ascent(steps, "ascent_clean", clean, rate, anneal=0), ("clean",)),
        entry("", "plans", AscentFrom(steps, "ascent_prior", begin=from_prior, rate=rate / 100)),
        entry("", "plans", AscentFrom(steps, rate=rate / 100)),
        entry("", "plans", AscentEarly(rate=rate / 10, steps=strengths.ascent_steps)),
        entry("Yuan et al. 2024", "plans", AscentRenoised(steps, rate=rate / 10)),
        entry("Trabucco et al. 2021", "plans", cautious, ("conservative",)),
    )


def planning_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Searching sequences of actions, in the true dynamics and in a learned model."""
    search = partial(
        Shooting, strengths=whole_grid(strengths.iterations, strengths.points), population=strengths.population
    )
    few, half = whole_grid(max(1, strengths.iterations // 4), strengths.points), max(2, strengths.population // 2)
    more, runs = whole_grid(4 * strengths.iterations, strengths.points), max(1, strengths.population // 8)
    disagreement = search("cem_disagreement", dynamics=learned, disagreement_penalty=1.0)
    receding = Receding("receding_model", few, population=half)
    tree = Tree((0, *whole_grid(strengths.simulations, strengths.points)[1:]))
    truth, model, value = (("regression", *parts) for parts in (TRUE, MODEL, (*TRUE, "model", "value")))
    entry = partial(Entry, "planning")
    return (
        entry("de Boer et al. 2005", "actions", search("cem"), truth),
        entry("Williams et al. 2017", "actions", search("mppi", weigh=Softmax()), truth),
        entry("Chua et al. 2018", "actions", search("cem_model", dynamics=learned), model),
        entry("Williams et al. 2017", "actions", search("mppi_model", weigh=Softmax(), dynamics=learned), model),
        entry("Yu et al. 2020", "actions", disagreement, model),
        entry("Henaff et al. 2017", "actions", GradientShooting("gradient_model", more, runs=runs), model, False),
        entry("Chua et al. 2018", "actions", receding, value),
        entry("Danihelka et al. 2022", "actions", tree, ("regression", *TRUE, "value"), True, "mctx"),
    )


def policy_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Policies that learn by acting, held to behaviour."""
    coefficients = log_grid(*strengths.weight, max(1, strengths.points // 2))
    gradient = partial(policy_gradient.PolicyGradient, strengths=coefficients, updates=strengths.updates)
    ppo = partial(gradient, epochs=4, gae_lambda=0.95, critic_steps=4, rate=4e-3)
    entry, needs = partial(Entry, "policies"), ("regression", *TRUE)
    return (
        entry("Williams 1992", "policy", gradient("reinforce", rate=2e-3), needs),
        entry("Schulman et al. 2017", "policy", ppo("ppo"), needs),
        entry("Laidlaw et al. 2024", "policy", ppo("ppo_occupancy", regulariser="occupancy"), needs),
    )


def tuning_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Priors fine-tuned on their own plans."""
    coefficients = log_grid(*strengths.weight, max(1, strengths.points // 2))
    updates, rounds = max(1, strengths.updates // 6), whole_grid(strengths.rounds, strengths.points)
    gradient = finetuning.PolicyGradient(coefficients, updates=updates, learning_rate=1e-4, name="tuned_gradient")
    again = partial(ExpertIteration, rounds, plans=strengths.round_plans, steps=strengths.round_steps)
    entry = partial(Entry, "fine-tuning")
    return (
        entry("Black et al. 2023", "plans", gradient),
        entry("Peters and Schaal 2007", "plans", again(weigh=Softmax(), name="reward_weighted")),
        entry("Anthony et al. 2017", "plans", again(name="expert_replace")),
        entry("Gerstgrasser et al. 2024", "plans", again(mix="accumulate", name="expert_accumulate")),
        entry("Ferbach et al. 2024", "plans", again(mix="real", name="expert_real")),
    )


def control_entries(strengths: StrengthSettings) -> tuple[Entry, ...]:
    """Guidance that knows nothing of the reward: what pushing alone does to plans."""
    scales = log_grid(*strengths.scale, strengths.points)
    noise, deal = Guided("null_noise", scales, untrained), Guided("null_shuffled", scales, shuffled)
    few = FewStepGuided("null_few_steps", scales, push=by_shuffled)
    shuffles = "regression", "shuffled"
    nulls = (noise, ("regression", "untrained")), (deal, shuffles), (few, (*shuffles, "flow_map"))
    return tuple(Entry("controls", "", "plans", null, needs) for null, needs in nulls)


def catalogue(strengths: StrengthSettings) -> dict[str, Entry]:
    """All methods by name, in the order of the tables, with the strengths that a configuration asks for."""
    sampled = (guidance_entries, selection_entries, particle_entries)
    families = (*sampled, ascent_entries, planning_entries, policy_entries, tuning_entries, control_entries)
    prior = Entry("prior", "Janner et al. 2022", "plans", Prior(), ())
    return {entry.name: entry for entry in (prior, *(entry for family in families for entry in family(strengths)))}


def chosen(strengths: StrengthSettings, methods: Iterable[str | Method | Entry]) -> tuple[Entry, ...]:
    """The entries of some methods: the prior always, then those of the catalogue in its order, then your own.

    Where any method pushes a reward, the null controls are among them; with flow maps their own.

    Args:
        strengths: how the strengths of the catalogue's methods are spaced.
        methods: names of the catalogue, ``"all"`` of it, ``file.py:NAME``, methods, or entries.

    Raises:
        ConfigError: naming the first that does not exist or is no method, and all that do exist.
    """
    known = {"all": None, **catalogue(strengths)}
    named, own = {"prior"}, []
    for value in methods:
        entry = resolve(value, known, "methods")
        if entry is None or entry is known.get(value if isinstance(value, str) else ""):
            named |= known.keys() if entry is None else {value}
        else:
            own.append(own_entry(entry, value, {*known, *(other.name for other in own)}))
    named |= set(NULLS) if own or named != {"prior"} else set()
    few = any(entry and name in named and "flow_map" in entry.needs for name, entry in known.items())
    named |= {"null_few_steps"} if few else set()
    return (*(entry for name, entry in known.items() if entry and name in named), *own)


def suited(entries: Iterable[Entry], lacks: Iterable[str], cells: bool) -> tuple[tuple[Entry, ...], dict[str, str]]:
    """The entries that can run where some parts of the problem cannot be had; returns (them, why not the others).

    lacks: parts that cannot be had. cells: whether plans are one-hot cells.
    """
    lacks, kept, left = set(lacks), [], {}
    for entry in entries:
        missing = [part for part in entry.needs if part in lacks]
        if missing:
            left[entry.name] = f"needs {' and '.join(missing)}"
        elif entry.cells is not None and entry.cells != cells:
            left[entry.name] = "plans in one-hot cells alone" if entry.cells else "cannot plan in one-hot cells"
        elif entry.module and find_spec(entry.module) is None:
            left[entry.name] = f"needs {entry.module}: pip install 'diffplan[search]'"
        else:
            kept.append(entry)
    return tuple(kept), left


def own_entry(method: object, value: object, taken: set[str]) -> Entry:
    """The entry of a method that is not in the catalogue; a class is called without arguments.

    A method without an entry may use all three readings of the labels.

    Raises:
        ConfigError: if it is no method, or bears a name that is taken.
    """
    method = method() if isinstance(method, type) else method
    entry = method if isinstance(method, Entry) else Entry("own", "", "plans", method, PROXY_PARTS)  # pyright: ignore
    if not isinstance(entry.method, Method):
        raise ConfigError(f"methods={value!r}: must have the attributes of diffplan.methods.Method")
    if entry.name in taken:
        raise ConfigError(f"methods={value!r}: its name {entry.name!r} is taken: give it another")
    return entry
