"""What the crossed comparison will run, and how its rows will be judged: written down before any row was made.

A cell is a world, a reward in it, a prior and a set of labels. A prior comes with behaviour of its own, and a set of
labels with windows of its own. Of the 27 cells of a world 9 are run, a balanced fraction: the labels of a cell are

    labels = (reward + prior) mod 3                                                                          (176)

so each level of each factor meets each level of every other factor once. Tuning has a prior, labels, starts and noise
of its own, which no cell has.

The delivered return of a method in a cell is counted in standard deviations of the return of behaviour's windows there.
The paired difference to guidance in a cell is

    d = (delivered of the method - delivered of `guided`) / sd of behaviour's returns                         (177)

at the same budget, starts and models. The three cells of a world and a reward share their tuned setting, so their mean
is one value, and Student's interval is over these nine values. All tests of all methods and budgets are one family:
their p values are adjusted by Holm's rule, at a level of 5 % in all.
"""

from typing import Any, NamedTuple

BUDGETS = (0.005, 0.05)
"""T, in seconds a plan."""
EVALUATIONS = 16
"""Of tuning, for every method and budget."""
PLANS = 32
"""Plans of a batch: in tuning, and in each of the batches of a cell."""
BATCHES = 2
"""Batches of a cell, each with starts and noise of its own."""
LEVEL = 0.05
"""Of all tests together."""

METHODS = {
    "guided": "guidance, noise-conditioned regression",
    "guided_dps": "guidance, gradient through the denoiser (DPS)",
    "prior_guidance": "guidance, learned distribution of the initial noise",
    "best_of_n": "selection",
    "tds": "particles",
    "ascent_prior": "ascent from plans of the prior",
    "ascent_conservative": "ascent on a conservative objective model",
    "mppi": "search of actions in the true dynamics",
    "gradient_model": "gradient shooting through a learned model",
    "receding_model": "receding horizon in a learned model",
    "ppo": "policy, trained in the true dynamics",
    "reward_weighted": "prior fine-tuned on its own plans",
}
"""Twelve methods that stand for the families."""
INSTEAD = {"gradient_model": "cem_model"}
"""In a world of one-hot cells, where an action has no gradient."""
INFORMED = ("mppi", "receding_model", "ppo")
"""Methods that act in the true dynamics, or carry their actions out in them while they plan."""

ONCE = ("ascent_conservative", "null_shuffled")
"""Run in the cells of the first prior alone: a conservative model takes minutes to train, and a null needs no more."""

REFERENCE = "guided"
PRIORS, LABELS = (101, 102, 103), (201, 202, 203)
"""Seeds of the behaviour and the training of each prior, and of each set of labels."""
TUNING = {"prior": 100, "labels": 200, "noise": 300}
"""Seeds that no cell has."""
SCORED = 400
"""Seed of starts and noise of the first cell; that of each other is one more than the last."""

CLAIMS = (
    "No method that is not informed delivers more than guidance, at either budget.",
    "Ascent from plans of the prior delivers less than guidance, at both budgets.",
    "From 5 to 50 ms selection gains more than guidance.",
    "At 50 ms plans of ascent promise more beyond what they deliver than guided plans.",
)
"""As docs/crossed.md has them."""


class Cell(NamedTuple):
    """One cell. number: from 0, in the order of the run."""

    world: str
    reward: str
    prior: int
    labels: int
    number: int

    @property
    def name(self) -> str:
        """As it stands in files."""
        return f"{self.world}-{self.reward}-{self.prior}-{self.labels}"


def cells(worlds: dict[str, Any]) -> list[Cell]:
    """Every cell: worlds with their ``rewards``, a prior after the other (176)."""
    every = [
        (world, reward, prior, (number + prior) % len(LABELS))
        for world, about in worlds.items()
        for prior in range(len(PRIORS))
        for number, reward in enumerate(about.rewards)
    ]
    return [Cell(*about, number) for number, about in enumerate(every)]
