"""Where the settings of what is learned start from, by the name of a preset."""

from dataclasses import replace
from pathlib import Path

from diffplan.learn.behaviour import BehaviourSettings
from diffplan.learn.conditional import ConditionalSettings
from diffplan.learn.contrastive import ContrastiveSettings
from diffplan.learn.dynamics import DynamicsSettings
from diffplan.learn.flow_map import FlowMapSettings
from diffplan.learn.inverse import InverseSettings
from diffplan.learn.prior import PriorSettings
from diffplan.learn.reward import ProxySettings
from diffplan.learn.row_reward import RowRewardSettings
from diffplan.learn.train import TrainSettings
from diffplan.learn.value import ValueSettings
from diffplan.planner.reaching import GoalSettings
from diffplan.planner.settings import PlannerSettings
from diffplan.runs import Run
from diffplan.runs.config import settings_from
from diffplan.runs.files import read_json
from diffplan.samplers import SamplerSettings
from diffplan.settings import ConfigError
from diffplan.task import Task

TINY = TrainSettings(steps=20, batch=16, chunk=20, save_every=20)
DEBUG = PlannerSettings(
    prior=PriorSettings(replace(TINY, steps=60), states=32, width=16, depth=1),
    proxy=ProxySettings(replace(TINY, steps=40), labels=200, width=16, depth=1),
    row_reward=RowRewardSettings(replace(TINY, steps=100), width=16, depth=1),
    inverse=InverseSettings(replace(TINY, steps=60), width=16),
    sampler=SamplerSettings(steps=6),
    dynamics=DynamicsSettings(TINY, transitions=500, members=2, width=8, depth=1),
    value=ValueSettings(TINY, width=8, depth=1),
    behaviour=BehaviourSettings(TINY, width=8, depth=1),
    conditional=ConditionalSettings(TINY, width=16, depth=1),
    contrastive=ContrastiveSettings(replace(TINY, batch=2), windows=256, effective=50, width=8, depth=1),
    flow_map=FlowMapSettings(TINY, courses=64, levels=6, width=16, depth=1),
)
ACCELERATOR = PlannerSettings(
    prior=PriorSettings(TrainSettings(6000, 512, "muon", 5e-2), states=1024, width=128, depth=4),
    proxy=ProxySettings(TrainSettings(steps=4000, batch=256), labels=4000, width=128),
)
PRESETS = {"demo": PlannerSettings(), "debug": DEBUG, "full": PlannerSettings(), "accelerator": ACCELERATOR}
"""demo and full: minutes on two CPU cores; debug: every part once, as small as it gets; accelerator: larger networks
and batches, for a GPU or TPU."""

SHORTER = TrainSettings(2000, 128, "muon", 5e-2)
CELLS = GoalSettings(horizon=48, stride=1, prior=SHORTER, width=64, patch=2)
"""Ways to goals where every step is a choice among a few: a point of a plan is one step."""


def settings_of(preset: str) -> PlannerSettings:
    """The settings of a preset.

    Raises:
        ConfigError: if there is no such preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset={preset!r}: must be one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def goal_settings(goals: bool | GoalSettings, task: Task) -> GoalSettings:
    """The settings of what reaches goals: as given, or what suits the task."""
    if isinstance(goals, GoalSettings):
        return goals
    return CELLS if task.discrete else GoalSettings()


def run_of(task: Task, run: Path | str | None, new_settings: bool = False) -> Run:
    """The run of a task: the directory that is given, or ``runs/NAME``."""
    return Run(Path(run or Path("runs") / task.name).expanduser(), new_settings)


def settings_for(run: Run, preset: str | None, settings: PlannerSettings | None) -> PlannerSettings:
    """What is learned: as given, of a preset, or as the run has it; of the preset demo where it has nothing yet.

    Raises:
        ConfigError: if there is no such preset.
    """
    if settings is not None or preset is not None:
        return settings or settings_of(preset or "demo")
    path = run.directory / "config.json"
    before = read_json(path)
    kept = before.get("settings", {}).get("planner") if isinstance(before, dict) else None
    return settings_of("demo") if kept is None else settings_from(PlannerSettings, kept, path)
