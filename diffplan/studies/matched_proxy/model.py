"""Reward models of cells from noisy returns, and how far each may be trusted about a plan.

A path visits cells f times (``[k]``) and returns f'g, where the gold g of the cells is drawn from N(0, I). A label is a
return with an error of variance s^2. Ridge regression on N labels y of the paths F (``[N k]``), with c the penalty in
units of s^2, is

    w_c = (F'F + c s^2 I)^-1 F'y,        w_1 = E[g | labels],   V = (F'F / s^2 + I)^-1 = Cov[g | labels]       (170)

so that c = 1, noise variance over prior variance, is the posterior mean. Let a way of planning change the prior's
expected visits by q. Its gain in proxy is q'w_c and its gain in gold is q'g. Since w_1 - w_c = -(1 - c) V w_c,

    E[gold - proxy | labels] = -(1 - c) q'V w_c        for every q that is chosen from the labels alone          (171)

With c = 1 proxy is expected gold for every way of planning, however hard it searches. At equal proxy, the gold of one
way of planning (q) leads that of the exact tilt (q*) by (q - q*)'(g - w_c), whose expectation is

    E[lead | labels] = (1 - c) (q* - q)'V w_c                                                                      (172)

which is 0 for c = 1. For c < 1 the one leads whose proxy comes less from cells that the labels leave uncertain.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

PerCell = Float[np.ndarray, "k"]


class Labels(NamedTuple):
    """What a reward model is fitted to. noise: the variance s^2 of a label's error."""

    visits: Float[np.ndarray, "n k"]
    returns: Float[np.ndarray, "n"]
    noise: float

    def first(self, count: int) -> "Labels":
        """The first `count` labels."""
        return Labels(self.visits[:count], self.returns[:count], self.noise)


def label(rng: np.random.Generator, visits: Float[np.ndarray, "n k"], gold: PerCell, noise: float) -> Labels:
    """Noisy gold returns of paths, given as visits of cells."""
    return Labels(visits, visits @ gold + np.sqrt(noise) * rng.normal(size=len(visits)), noise)


def ridge(labels: Labels, penalty: float) -> PerCell:
    """w_c of (170). penalty: c; 1 gives the posterior mean."""
    features, cells = labels.visits, labels.visits.shape[1]
    gram = features.T @ features + penalty * labels.noise * np.eye(cells)
    return np.linalg.solve(gram, features.T @ labels.returns)


def covariance(labels: Labels) -> Float[np.ndarray, "k k"]:
    """V of (170), what is left of the gold's unit variance."""
    gram = labels.visits.T @ labels.visits
    return np.linalg.inv(gram / labels.noise + np.eye(len(gram)))


def uncertain(labels: Labels) -> Bool[np.ndarray, "k"]:
    """The cells whose variance the labels reduce by less than half."""
    return np.diag(covariance(labels)) > 0.5


def held_out(labels: Labels, penalties: Float[np.ndarray, "p"]) -> float:
    """The penalty with the smallest squared error on labels that are left out, one at a time, exactly.

    With H the matrix that maps labels to fitted returns, the error on label i is (y_i - (Hy)_i) / (1 - H_ii).
    """
    values, vectors = np.linalg.eigh(labels.visits.T @ labels.visits)
    features = labels.visits @ vectors

    def error(penalty: float) -> float:
        shrunk = features / (values + penalty * labels.noise)
        left = labels.returns - shrunk @ (features.T @ labels.returns)
        return float(np.mean((left / (1 - np.sum(shrunk * features, axis=1))) ** 2))

    return float(min(penalties, key=error))


def ensemble(rng: np.random.Generator, labels: Labels, penalty: float, members: int) -> PerCell:
    """The mean of reward models of labels drawn again with replacement."""
    count = len(labels.returns)
    rows = rng.integers(count, size=(members, count))
    fits = [ridge(Labels(labels.visits[row], labels.returns[row], labels.noise), penalty) for row in rows]
    return np.mean(fits, axis=0)
