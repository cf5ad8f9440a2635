"""Takes the prior off, step by step, where the answer is known: a Gaussian prior and a linear reward.

    python scripts/weakened.py          # 20 seconds on two CPU cores

Plans are positions of a walk that forgets, the reward is their mean, the energy is exact, and everything is drawn by
the method `weakened` at a fixed scale. Where a fraction f of the prior is taken off, plans drift towards the mean of
the exact tilt at scale / (1 - f) (equation (11) of `diffplan.oracle.gaussian`), but are wider, and have less time to
arrive the more is taken off. Writes `results/weakened/exact.csv`, a row for each fraction and number of noise levels,
and `exact.png`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from diffplan.guide import guided
from diffplan.metrics.table import read, write
from diffplan.noise import karras
from diffplan.oracle.gaussian import Gaussian
from diffplan.report import style
from diffplan.report.save import save
from diffplan.samplers import Sampler, sample
from diffplan.types import Strengths

COLUMNS = ("levels", "fraction", "mean", "sem", "std", "exact_mean", "exact_std")
H = 8


@dataclass(frozen=True)
class Config:
    """What is drawn."""

    scale: float = 2.0
    """The guidance scale."""
    fractions: tuple[float, ...] = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
    """Of the prior, taken off."""
    levels: tuple[int, ...] = (12, 96)
    """Noise levels."""
    plans: int = 4096
    """Plans of each."""
    out: Path = Path("results/weakened/exact.csv")
    """Where the rows go, and the figure."""


def problem() -> tuple[Gaussian, Any]:
    """(the prior, the reward's direction): correlations 0.9 a step."""
    apart = jnp.abs(jnp.arange(H)[:, None] - jnp.arange(H)[None])
    return Gaussian.of(jnp.zeros(H), 0.9**apart, (H, 1)), jnp.full((H, 1), 1.0 / H)


def measure(config: Config) -> list[dict[str, float]]:
    """Every number of levels and fraction."""
    prior, direction = problem()
    energy, keys, rows = prior.energy(direction), jax.random.split(jax.random.key(0), config.plans), []
    for levels in config.levels:
        sampler = Sampler(karras(levels, 0.01, 20.0), (H, 1))

        @jax.jit
        def draw(fraction: Any, sampler: Sampler = sampler) -> Any:
            strengths = Strengths(guide=jnp.asarray(config.scale), prior=1 - fraction)
            denoise = guided(prior.denoise, energy, strengths)
            return jax.vmap(lambda key: jnp.sum(direction * sample(key, denoise, sampler)[0]))(keys)

        for fraction in config.fractions:
            rewards = np.asarray(draw(jnp.asarray(fraction, jnp.float32)))
            about = {"levels": levels, "fraction": fraction, "mean": rewards.mean(), "std": rewards.std(ddof=1)}
            about["sem"] = about["std"] / np.sqrt(len(rewards))
            if fraction < 1:
                tilt = prior.tilt(direction, config.scale / (1 - fraction))
                along = direction.ravel()
                about |= {"exact_mean": along @ tilt.mean, "exact_std": jnp.sqrt(along @ tilt.covariance @ along)}
            rows.append({name: float(value) for name, value in about.items()})
    return rows


def compose(path: Path) -> Figure:
    """Mean and standard deviation of the reward against the fraction that is taken off."""
    table = read(path, COLUMNS)
    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    for axes, name, title in zip(figure.subplots(1, 2), ("mean", "std"), ("mean", "standard deviation"), strict=True):
        first = table["levels"] == table["levels"][0]
        exact = {"color": style.INK, "linestyle": (0, (5, 2)), "label": "exact tilt at scale / (1 - f)"}
        axes.plot(table["fraction"][first], table[f"exact_{name}"][first], **exact)
        for levels, colour, marker in zip(np.unique(table["levels"]), (style.PROXY, style.RETURN), "ox", strict=False):
            rows = table["levels"] == levels
            look = {"color": colour, "marker": marker, "linestyle": "-", "linewidth": 1.2, "markersize": 5}
            axes.plot(table["fraction"][rows], table[name][rows], label=f"{levels:g} noise levels", **look)
        axes.set(xlabel="fraction f of the prior taken off", title=f"{title} of the reward")
        axes.set_ylim(0, None)
    axes.legend(fontsize=9, edgecolor="none")
    return figure


if __name__ == "__main__":
    config = tyro.cli(Config, description=__doc__)
    write(config.out, measure(config), COLUMNS)
    save(config.out.with_suffix(".png"), lambda: compose(config.out))
