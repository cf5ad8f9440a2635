"""The settings of an experiment, for any task: each thing that is learned brings its own."""

from dataclasses import field
from typing import Annotated

from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.inverse import InverseSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.reward_models import RewardModelSettings
from diffplan.learn.row_reward import RowRewardSettings
from diffplan.learn.value import ValueSettings
from diffplan.methods import chosen
from diffplan.methods.strengths import StrengthSettings
from diffplan.samplers import SamplerSettings
from diffplan.settings import SEED, Named, at_least, more_than, require, settings

DEMO_METHODS = ("prior", "guided", "best_of_n", "ascent")


@settings("noise")
class NoiseRange:
    """Noise levels, in standard deviations of the data. From the episodes, if not given."""

    low: Annotated[float | None, more_than(0)] = None
    """Smallest level, in training and in sampling."""
    high: Annotated[float | None, more_than(0)] = None
    """Largest level: where sampling starts."""

    def check(self) -> None:
        """Raise ConfigError unless low is below high."""
        if self.low is not None and self.high is not None:
            require(self.low < self.high, "noise.low", self.low, f"below noise.high ({self.high})")


@settings("")
class ExperimentSettings:
    """One comparison: every method at all its strengths, on the same data, prior, reward models and starts."""

    noise: NoiseRange = field(default_factory=NoiseRange)
    prior: PriorSettings = field(default_factory=PriorSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    methods: tuple[Named, ...] = DEMO_METHODS
    """Names of methods (`diffplan methods`), file.py:NAME, or all. The prior is always among them, and so are the null
    controls where any method pushes a reward."""
    strengths: StrengthSettings = field(default_factory=StrengthSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    row_reward: RowRewardSettings = field(default_factory=RowRewardSettings)
    inverse: InverseSettings = field(default_factory=InverseSettings)
    dynamics: DynamicsSettings = field(default_factory=DynamicsSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    behaviour: BehaviourSettings = field(default_factory=BehaviourSettings)
    conditional: ConditionalSettings = field(default_factory=ConditionalSettings)
    seeds: Annotated[int, at_least(1, 100_000)] = 4
    """Repetitions, each with its own starts and noise; intervals are over them."""
    plans: Annotated[int, at_least(2, 2**24)] = 48
    """Plans per method, strength and seed; diversity is over pairs."""
    replans: Annotated[int, at_least(1, 10_000)] = 4
    """Times that a plan is made on the way where it is made anew, at each method's best strength; 1: never again."""
    reference: Annotated[int, at_least(2, 2**24)] = 4096
    """Data windows that returns, proxies and distances are compared with."""
    seed: Annotated[int, SEED] = 0
    """Seed of the starts and of all sampling noise."""

    def undecided(self) -> tuple[str, ...]:
        """The fields that do not decide what is made: more methods are more rows."""
        return ("methods",)

    def check(self) -> None:
        """Raise ConfigError unless every method exists and every network that they need fits the horizon."""
        needs = {part for entry in chosen(self.strengths, self.methods) for part in entry.needs}
        horizon = self.prior.horizon
        for name in ("proxy", *sorted(needs & {"value", "conditional"})):
            patch = getattr(self, name).patch
            fits = horizon is None or horizon % patch == 0
            require(fits, "prior.horizon", horizon, f"a multiple of {name}.patch ({patch})")
