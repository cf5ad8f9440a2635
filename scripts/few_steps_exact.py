"""What a few steps of an exact flow map cost in nats, by energy: a mixture in one dimension, where all is known.

    python scripts/few_steps_exact.py          # results/few_steps_exact.csv: about 4 minutes

In one dimension the flow map carries quantiles: x_t = F_t^-1(F_s(x_s)), with F_s the distribution function of the data
with noise of level s. So no map is learned, and every error is that of the energy or of the steps. The energies:

    exact        log E[exp(w r(x0)) | x], by quadrature
    posterior    (149) of `diffplan.flow_map`, with 16 draws
    look ahead   w r of the plan at which the ODE ends (151)
    dps          w r of the denoised plan

Evaluations are noise levels, and count the jumps alone. At each the posterior's energy takes 17 more, with their
derivative, look ahead and dps one. Draws that a push takes beyond all data end at its quantiles 1e-6 and 1 - 1e-6.

Of 100,000 draws q, with the prior p and its tilt by exp(w r), in cells of width 0.02:

    kl           KL(q || p), in nats
    wasted       1 - KL(tilt with the same mean reward || p) / KL(q || p): nats that bought no reward
    miss         KL(q || tilt by exp(w r)), in nats: 0 for a sampler of the tilt

Writes results/few_steps_exact.csv.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.scipy.stats import norm
from scipy.optimize import brentq
from scipy.special import rel_entr

from diffplan.flow_map import FewSteps, few_steps, look_ahead, posterior
from diffplan.guide import dps
from diffplan.metrics.table import write
from diffplan.noise import karras
from diffplan.types import Energy, Pins

WEIGHTS, CENTRES, STDS = jnp.array([0.3, 0.4, 0.3]), jnp.array([-1.25, 0.1, 1.2]), jnp.array([0.2, 0.25, 0.15])
GRID = jnp.linspace(-3.0, 3.0, 301)
LEVELS = (0.02, 20.0)
SHAPE = (1, 1)
COLUMNS = ("energy", "weight", "evaluations", "reward", "kl", "wasted", "miss")


@dataclass(frozen=True)
class Config:
    """What is drawn."""

    evaluations: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Of the flow map."""
    weights: tuple[float, ...] = (1.0, 2.0)
    """w of the tilt."""
    count: int = 100_000
    """Draws of each."""
    out: Path = Path("results/few_steps_exact.csv")
    """Where the rows go."""


def reward(x: Any) -> Any:
    """High around 0.7, between two modes."""
    return -2 * jnp.sum((x - 0.7) ** 2)


def cdf(x: Any, sigma: Any) -> Any:
    """F_sigma."""
    return jnp.sum(WEIGHTS * norm.cdf(x, CENTRES, jnp.sqrt(STDS**2 + sigma**2)))


def density(x: Any, sigma: Any) -> Any:
    """Of data with noise."""
    return jnp.sum(WEIGHTS * norm.pdf(x, CENTRES, jnp.sqrt(STDS**2 + sigma**2)))


@jax.custom_jvp
def transport(x: Any, sigma: Any, to: Any) -> Any:
    """F_to^-1(F_sigma(x)), by bisection. Its derivative is the ratio of the densities. What lies beyond the quantiles
    1e-6 and 1 - 1e-6 is put there.
    """
    target, wide = jnp.clip(cdf(x, sigma), 1e-6, 1 - 1e-6), 6 * (2 + to)

    def halve(_: int, ends: Any) -> Any:
        low, high = ends
        middle = (low + high) / 2
        return jax.tree.map(partial(jnp.where, cdf(middle, to) < target), (middle, high), (low, middle))

    low, high = jax.lax.fori_loop(0, 40, halve, (-wide, wide))
    return (low + high) / 2


@transport.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x, sigma, to), y = primals, transport(*primals)
    return y, tangents[0] * density(x, sigma) / jnp.maximum(density(y, to), 1e-6)


def denoise(x: Any, sigma: Any) -> Any:
    """D: the mean of the posterior."""
    level, variance = jnp.max(sigma), STDS**2 + jnp.max(sigma) ** 2
    share = jax.nn.softmax(jnp.log(WEIGHTS) + norm.logpdf(x[0, 0], CENTRES, jnp.sqrt(variance)))
    return jnp.sum(share * (STDS**2 * x[0, 0] + level**2 * CENTRES) / variance)[None, None]


def flow(x: Any, sigma: Any, to: Any) -> Any:
    """(146), of the mixture."""
    level = jnp.max(sigma)
    ratio = to / level
    there = transport(x[0, 0], level, to)[None, None]
    return jnp.where(ratio < 1, (there - ratio * x) / jnp.where(ratio < 1, 1 - ratio, 1.0), denoise(x, sigma))


def exact(weight: Any, x: Any, sigma: Any) -> Any:
    """log E[exp(w r) | x] on the grid."""
    log_p = jnp.log(jax.vmap(lambda y: density(y, 0.0))(GRID)) - (x[0, 0] - GRID) ** 2 / (2 * jnp.max(sigma) ** 2)
    return jax.nn.logsumexp(jax.nn.log_softmax(log_p) + weight * jax.vmap(reward)(GRID))


def energies(weight: Any) -> dict[str, Energy]:
    """By name, for the scale 1."""
    noise = jax.random.normal(jax.random.key(1), (8, *SHAPE))
    pushed = lambda x: weight * reward(x)
    return {
        "exact": partial(exact, weight),
        "posterior": posterior(flow, reward, jnp.concatenate([noise, -noise]), weight),
        "look ahead": look_ahead(flow, pushed),
        "dps": dps(denoise, pushed),
    }


class Cells:
    """Distributions over cells of a line."""

    edges = np.linspace(-4.0, 4.0, 401)
    centres = (edges[1:] + edges[:-1]) / 2

    def __init__(self) -> None:
        ends = np.asarray(jax.vmap(lambda x: cdf(x, 0.0))(jnp.asarray(self.edges)))
        self.prior = np.maximum(np.diff(ends), 1e-12)
        self.reward = np.asarray(jax.vmap(reward)(jnp.asarray(self.centres)))

    def tilt(self, weight: float) -> np.ndarray:
        """p exp(w r), normalised."""
        log = weight * self.reward
        p = self.prior * np.exp(log - log.max())
        return p / p.sum()

    def needed(self, earned: float) -> float:
        """Nats of the tilt with this mean reward; none, if it is not above the prior's."""
        if earned <= self.prior @ self.reward:
            return 0.0
        least = brentq(lambda w: self.tilt(w) @ self.reward - earned, 0, 300)
        return float(np.sum(rel_entr(self.tilt(least), self.prior)))

    def measure(self, x: np.ndarray, weight: float) -> dict[str, float]:
        """What draws cost and earn."""
        q = np.histogram(x, self.edges)[0] / len(x)
        kl = lambda p: float(np.sum(rel_entr(q, p)))
        earned = float(q @ self.reward)
        return {
            "reward": earned,
            "kl": kl(self.prior),
            "wasted": 1 - self.needed(earned) / kl(self.prior),
            "miss": kl(np.maximum(self.tilt(weight), 1e-12)),
        }


def draws(energy: Energy, count: int, config: Config) -> np.ndarray:
    """Draws by so many evaluations."""
    how, none = FewSteps(karras(count, *LEVELS), SHAPE), Pins(jnp.zeros(SHAPE, bool), jnp.zeros(SHAPE))
    one: Callable = lambda key: few_steps(key, flow, how, none, jnp.ones(()), energy)[0, 0]
    keys = jax.random.split(jax.random.key(0), config.count).reshape(100, -1)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(jax.vmap(one), keys))(keys)).ravel()


def main(config: Config) -> None:
    """Draw, measure, write."""
    cells, rows = Cells(), []
    for weight in config.weights:
        for name, energy in energies(jnp.asarray(weight)).items():
            for count in config.evaluations:
                about = {"energy": name, "weight": weight, "evaluations": count}
                rows.append(about | cells.measure(draws(energy, count, config), weight))
                print(", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
                write(config.out, rows, COLUMNS)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
