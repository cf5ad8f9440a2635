"""Names, colours, markers and number formats that the figure, the page and the table share.

Methods are distinguishable in grey as well: by marker, by line style, and where possible by lightness.
"""

from typing import NamedTuple

import numpy as np

INK, SOFT, FAINT, WALL = "#1b1f24", "#5b6470", "#c3c9d1", "#d9dde3"
SOUND, BROKEN = "#16537e", "#e2571e"
RETURN, PROXY = "#16537e", "#e2571e"


class Look(NamedTuple):
    """How a method is drawn. main: whether the method is emphasised."""

    label: str
    colour: str
    marker: str
    dash: str | tuple[float, tuple[float, ...]]
    main: bool


LOOKS = {
    "prior": Look("prior, unguided", "#1b1f24", "*", "-", True),
    "guided": Look("guided", "#16537e", "o", "-", True),
    "guided_classifier": Look("guided, classifier", "#4b9cd3", "^", (0, (4, 1.5)), False),
    "guided_dps": Look("guided, DPS", "#3a8f6a", "s", (0, (4, 1.5, 1, 1.5)), False),
    "guided_raw": Look("guided, raw", "#9b6bb3", "v", (0, (1, 1.2)), False),
    "best_of_n": Look("best of n", "#1b1f24", "P", (0, (5, 1.2)), True),
    "ascent": Look("gradient ascent", "#e2571e", "D", "-", True),
    "ascent_clean": Look("ascent, clean proxy", "#efa03b", "X", (0, (1, 1.2)), False),
    "behaviour": Look("behaviour (data)", SOFT, "d", (0, (5, 1.5, 1, 1.5)), False),
    "null_noise": Look("null: noise", "#8a929c", "1", (0, (3, 1.5)), False),
    "null_shuffled": Look("null: shuffled", "#8a929c", "2", (0, (1, 1.2)), False),
    "null_few_steps": Look("null: few steps, shuffled", "#8a929c", "3", (0, (5, 1.2)), False),
    "bound": Look("bound (optimum)", INK, "_", "-", False),
}

LABELS = {
    "guided_interval": "guided, in an interval",
    "guided_contrastive": "guided, contrastive",
    "guided_scheduled": "guided, more at less noise",
    "guided_smoothed": "guided, smoothed reward",
    "guided_lgd": "guided, LGD",
    "guided_few_steps": "guided, few steps",
    "few_steps_contrastive": "few steps, contrastive",
    "few_steps_dps": "few steps, DPS",
    "few_steps_posterior": "few steps, draws of the posterior",
    "guided_budget": "guided, budget of nats",
    "prior_guidance": "noise learned, budget of nats",
    "weakened": "guided, prior weakened",
    "classifier_free_return": "classifier-free, return",
    "classifier_free_goal": "classifier-free, goal",
    "critic": "best of n, clean critic",
    "soft_best_of_n": "soft best of n",
    "regularised_best_of_n": "regularised best of n",
    "tds": "TDS",
    "annealed": "annealed TDS",
    "fk_steering": "FK steering",
    "svdd": "SVDD",
    "ascent_prior": "ascent from the prior",
    "ascent_data": "ascent from data",
    "ascent_early": "ascent, stopped early",
    "ascent_renoised": "ascent, renoised",
    "ascent_conservative": "ascent, conservative proxy",
    "cem": "CEM, true dynamics",
    "mppi": "MPPI, true dynamics",
    "cem_model": "CEM, learned model",
    "mppi_model": "MPPI, learned model",
    "cem_disagreement": "CEM, model less disagreement",
    "gradient_model": "gradient of actions, learned model",
    "receding_model": "receding horizon, model and value",
    "reinforce": "REINFORCE, KL",
    "ppo": "PPO, KL",
    "ppo_occupancy": "PPO, occupancy",
    "tuned_gradient": "tuned by policy gradient",
    "reward_weighted": "reward-weighted regression",
    "expert_replace": "expert iteration, replace",
    "expert_accumulate": "expert iteration, accumulate",
    "expert_real": "expert iteration, real data mixed in",
}
"""Labels of methods that have no look of their own."""


def look(method: str) -> Look:
    """The look of a method; one that is not in the lists gets a plain one, and its own name."""
    return LOOKS.get(method, Look(LABELS.get(method, method.replace("_", " ")), "#7a828c", "h", (0, (2, 1)), False))


def plain(value: float) -> str:
    """A score: one decimal, none from 100 on; a dash where there is none."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def short(value: float) -> str:
    """A number of any size in at most five characters: 3e-4, 0.012, 1.2, 12, 12345, 2e6; a dash where there is none."""
    if not np.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    if abs(value) >= 10 or value == 0:
        return f"{value:.0f}"
    return f"{value:.{1 - int(np.floor(np.log10(abs(value))))}f}"


def percent(fraction: float) -> str:
    """A fraction as a percentage; a dash where there is none."""
    if not np.isfinite(fraction):
        return "–"
    return f"{100 * fraction:.0f} %" if fraction in (0, 1) or 0.01 <= fraction <= 0.99 else f"{100 * fraction:.1f} %"
