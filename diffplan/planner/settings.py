"""The settings of all that is learned on a task: each part brings its own."""

from dataclasses import field
from typing import Annotated

from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.contrastive import ContrastiveSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.flow_map import FlowMapSettings
from diffplan.learn.inverse import InverseSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.reward_models import RewardModelSettings
from diffplan.learn.row_reward import RowRewardSettings
from diffplan.learn.value import ValueSettings
from diffplan.samplers import SamplerSettings
from diffplan.settings import more_than, require, settings


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
class PlannerSettings:
    """What is learned on a task. A part is trained only where something uses it."""

    noise: NoiseRange = field(default_factory=NoiseRange)
    prior: PriorSettings = field(default_factory=PriorSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    row_reward: RowRewardSettings = field(default_factory=RowRewardSettings)
    inverse: InverseSettings = field(default_factory=InverseSettings)
    dynamics: DynamicsSettings = field(default_factory=DynamicsSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    behaviour: BehaviourSettings = field(default_factory=BehaviourSettings)
    conditional: ConditionalSettings = field(default_factory=ConditionalSettings)
    contrastive: ContrastiveSettings = field(default_factory=ContrastiveSettings)
    flow_map: FlowMapSettings = field(default_factory=FlowMapSettings)

    def check(self) -> None:
        """Raise ConfigError unless the tokens of the learned reward fill the horizon, where it is given."""
        horizon, patch = self.prior.horizon, self.proxy.patch
        fits = horizon is None or horizon % patch == 0
        require(fits, "prior.horizon", horizon, f"a multiple of proxy.patch ({patch})")
