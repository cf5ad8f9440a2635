"""The settings of an experiment, for any task: each thing that is learned brings its own."""

from dataclasses import field
from typing import Annotated

from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.reward_models import RewardModelSettings
from diffplan.learn.value import ValueSettings
from diffplan.methods import chosen
from diffplan.methods.strengths import StrengthSettings
from diffplan.noise import NoiseSettings
from diffplan.samplers import SamplerSettings
from diffplan.settings import SEED, Named, at_least, require, settings

DEMO_METHODS = (
    *("prior", "guided", "guided_classifier", "guided_dps", "guided_raw"),
    *("best_of_n", "ascent", "ascent_clean"),
)


@settings("")
class ExperimentSettings:
    """One comparison: every method at all its strengths, on the same data, prior, proxies and starts."""

    noise: NoiseSettings = field(default_factory=NoiseSettings)
    prior: PriorSettings = field(default_factory=PriorSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    methods: tuple[Named, ...] = DEMO_METHODS
    """Names of methods (`diffplan methods`), file.py:NAME, or all. The prior is always among them."""
    strengths: StrengthSettings = field(default_factory=StrengthSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    dynamics: DynamicsSettings = field(default_factory=DynamicsSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    behaviour: BehaviourSettings = field(default_factory=BehaviourSettings)
    conditional: ConditionalSettings = field(default_factory=ConditionalSettings)
    seeds: Annotated[int, at_least(1, 100_000)] = 4
    """Repetitions, each with its own starts and noise; intervals are over them."""
    plans: Annotated[int, at_least(2, 2**24)] = 64
    """Plans per method, strength and seed; diversity is over pairs."""
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
        for name in ("proxy", *sorted(needs & {"value", "conditional"})):
            patch = getattr(self, name).patch
            allowed = f"a multiple of {name}.patch ({patch})"
            require(self.prior.horizon % patch == 0, "prior.horizon", self.prior.horizon, allowed)
