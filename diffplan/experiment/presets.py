"""Where the settings of a comparison start from, by the name of a preset; `planner.presets` has what is learned."""

from diffplan.experiment.settings import ExperimentSettings
from diffplan.methods.strengths import StrengthSettings

FEW = StrengthSettings(
    points=2,
    refine=1,
    scale=(10, 1000),
    pool=4,
    ascent_steps=20,
    particles=2,
    iterations=2,
    population=8,
    simulations=2,
    updates=3,
    rounds=1,
    round_plans=2,
    round_steps=2,
)
PRESETS = {
    "demo": ExperimentSettings(),
    "debug": ExperimentSettings(strengths=FEW, seeds=2, plans=8, replans=2, reference=256),
    "full": ExperimentSettings(methods=("all",), strengths=StrengthSettings(points=5, pool=32), seeds=3, plans=32),
    "accelerator": ExperimentSettings(seeds=8, plans=256),
}
"""demo: the headline figure; debug: every part once; full: every method that the task allows; accelerator: many plans
at once, for a GPU or TPU."""
