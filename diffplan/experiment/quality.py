"""How good the learned rewards are on held-out windows, clean and at the noise levels of sampling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from diffplan.denoise import noised
from diffplan.guide import Proxy
from diffplan.learn.reward import PROXIES
from diffplan.methods import Problem
from diffplan.planner.build import Builder
from diffplan.runs import say
from diffplan.types import PRNGKey

WINDOWS = 2048


def quality(key: PRNGKey, build: Builder, problem: Problem, count: int = WINDOWS) -> dict[str, dict[str, Any]]:
    """Of each learned reward: rank correlation with the return, calibration, and the rank correlation under noise.

    The calibration is the slope of the return, in standard deviations, on the score: 1 where a score promises what
    it should. The key chooses `count` windows; it is consumed.
    """
    held_out, table = build.data.held_out, {}
    first = held_out.places(key, min(WINDOWS, count))
    returns = np.asarray(build.returns(held_out, first)) if build.rewarded else np.zeros(len(first))
    if returns.std() == 0:
        return {}
    x = jax.vmap(held_out.at)(first)
    sigmas = problem.sampler.sigmas
    for kind in PROXIES:
        proxy: Proxy | None = getattr(problem, kind)
        if proxy is None:
            continue
        score = np.asarray(jax.jit(jax.vmap(proxy.score))(x))
        standard = (returns - returns.mean()) / returns.std()
        slope = float(np.polyfit(score, standard, 1)[0]) if score.std() > 0 else float("nan")
        levels = {} if kind == "clean" else under_noise(proxy, x, returns, sigmas)
        table[kind] = {"rank_correlation": rank(score, returns), "calibration": slope, "windows": len(first)} | levels
        words = f"rank correlation {table[kind]['rank_correlation']:.2f}, calibration {slope:.2f}"
        say(f"reward {kind}: {words}, on {len(first)} held-out windows")
    return table


def rank(score: Float[np.ndarray, "n"], returns: Float[np.ndarray, "n"]) -> float:
    """Spearman's rank correlation; NaN where either is constant."""
    result: Any = stats.spearmanr(score, returns) if score.std() > 0 else None
    return float("nan") if result is None else float(result.statistic)


def under_noise(
    proxy: Proxy, x: Float[Array, "n h d"], returns: Float[np.ndarray, "n"], sigmas: Float[Array, "t"]
) -> dict[str, Any]:
    """The rank correlation of the energy of noised windows, at five of the levels of sampling."""
    chosen = sigmas[jnp.linspace(0, len(sigmas) - 1, min(5, len(sigmas))).astype(int)]
    keys = jax.random.split(jax.random.key(0), len(x))
    energy = jax.jit(jax.vmap(lambda key, x, sigma: proxy(noised(key, x, sigma), sigma), (0, 0, None)))
    correlations = [rank(np.asarray(energy(keys, x, sigma)), returns) for sigma in chosen]
    return {"levels": [float(sigma) for sigma in chosen], "rank_correlation_at_levels": correlations}
