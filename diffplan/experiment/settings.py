"""The settings of a comparison: which methods, at which strengths, how often."""

from dataclasses import field
from typing import Annotated

from diffplan.methods import chosen
from diffplan.methods.strengths import StrengthSettings
from diffplan.settings import SEED, Named, at_least, settings

DEMO_METHODS = ("prior", "guided", "best_of_n", "ascent")


@settings("")
class ExperimentSettings:
    """One comparison: every method at all its strengths, on the same data, prior, reward models and starts."""

    methods: tuple[Named, ...] = DEMO_METHODS
    """Names of methods (`diffplan methods`), file.py:NAME, or all. The prior is always among them, and so are the null
    controls where any method pushes a reward."""
    strengths: StrengthSettings = field(default_factory=StrengthSettings)
    seeds: Annotated[int, at_least(1, 100_000)] = 4
    """Repetitions, each with its own starts and noise; intervals are over them."""
    plans: Annotated[int, at_least(2, 2**24)] = 48
    """Plans per method, strength and seed; diversity is over pairs."""
    replans: Annotated[int, at_least(1, 10_000)] = 4
    """Times that a plan is made on the way where it is made anew, at each method's best strength; 1: never again."""
    finer: Annotated[int, at_least(0, 12)] = 1
    """How often steps are halved where guided plans are drawn again, to see whether it changes them (`converged`): 1 is
    twice as many noise levels, 4 sixteen times as many; 0: they are not drawn again. Methods that learn are trained
    again with as many times as many updates."""
    reference: Annotated[int, at_least(2, 2**24)] = 4096
    """Data windows that returns, proxies and distances are compared with."""
    seed: Annotated[int, SEED] = 0
    """Seed of the starts and of all sampling noise."""

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is made: more methods are more rows."""
        return ("methods",)

    def check(self) -> None:
        """Raise ConfigError unless every method exists."""
        chosen(self.strengths, self.methods)
