"""Is it the sampler, the guide or the model? {exact, learned} prior x {exact, learned} guide, on paths of cells.

Exact with exact shows the sampler's error; a learned guide on the exact prior adds the guide's; the exact guide on a
learned prior the model's; both learned is what a user runs. The measure is *wasted nats*: what a sampler spent beyond
the cheapest way to its own mean reward. Spent is the path KL, an upper bound of the KL of its plans to its prior; the
cheapest way is the Legendre transform of the exact log Z. Claim: with contrastive energies on the learned prior at most
10 % is wasted, for tilts of up to 6 nats. Beside them, on the same prior: the regression energy E[r | x] of its own
posterior, and the DPS energy r(D(x)).
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffplan.denoise import CategoricalDenoiser
from diffplan.guide import dps
from diffplan.learn.contrastive import ContrastiveEnergy
from diffplan.metrics.kl import least_kl
from diffplan.noise import log_linear
from diffplan.samplers import Sampler, sde_2m
from diffplan.types import Denoise, Energy, Scalar
from diffplan.validation import samplers
from diffplan.validation.problems import Cells
from diffplan.validation.samplers import Energies
from diffplan.validation.table import Row, mean

WEIGHTS = (4.0, 8.0)
COUNT, STEPS = 400, 384


def wasted(problem: Cells, rewards: np.ndarray, log_ratio: np.ndarray) -> tuple[float, float]:
    """(wasted nats as a share of the least, its standard error), from plans' rewards and their chains' log-ratios.

    The mean log-ratio is the path KL, and the least KL moves by lambda* with the mean reward. Taken together plan by
    plan, as here, they hardly scatter: for the exact guide every chain's log-ratio is lambda r - log Z.
    """
    least = least_kl(problem.chain.log_z(problem.rewards), jnp.float32(rewards.mean()), 0.0, 100.0)
    spent, error = mean(log_ratio - float(least.weight) * (rewards - rewards.mean()))
    return (spent - float(least.kl)) / float(least.kl), error / float(least.kl)


def none(weight: Scalar) -> Energy:
    """No guide."""
    del weight
    return lambda x, sigma: jnp.zeros(())


def on_prior(seed: int, problem: Cells, prior: CategoricalDenoiser, count: int = 3000) -> Iterator[Row]:
    """The learned prior by itself: legal moves, and where its plans spend their time."""
    chain = problem.chain
    sampler = Sampler(log_linear(STEPS, *samplers.LEVELS["tabular"]), chain.shape, sde_2m)
    x, *_ = samplers.plans(jax.random.key(seed), prior, none, (0.0,), sampler, count)
    paths = jax.vmap(chain.decode)(jnp.asarray(x[0]))
    legal = np.asarray(jax.vmap(chain.legal)(paths)).mean(axis=1)
    yield Row("prior", "legal moves, learned prior", *mean(legal), 1.0, 0.99, "least")
    visited = jax.nn.one_hot(paths, len(chain.points)).mean(axis=0)
    gap = lambda p, q: float(jnp.abs(p - q).sum(axis=-1).mean() / 2)
    exact = chain.occupancy()
    yield Row("prior", "total variation of occupancy", gap(visited.mean(0), exact.mean(0)), 0.0, 0.0, 0.03, "most")
    yield Row("prior", "the same, step by step", gap(visited, exact), 0.0, 0.0, 0.03, "most")


def where_defined(energy: Energy) -> Energy:
    """The energy, without a gradient where it has none.

    A learned prior can leave every path of the exact one; there the exact energy is log 0 / 0, and guides no further.
    """

    @jax.custom_vjp
    def value(x: Array, sigma: Array) -> Array:
        return energy(x, sigma)

    def backward(gradient: Array, out: Array) -> tuple[Array, Array]:
        return out * jnp.where(jnp.isfinite(gradient).all(), gradient, 0.0), jnp.zeros(())

    value.defvjp(jax.value_and_grad(energy), backward)
    return value


def attribution(seed: int, problem: Cells, prior: CategoricalDenoiser, energy: ContrastiveEnergy) -> Iterator[Row]:
    """The 2 x 2, and the cheaper energies beside it."""
    exact = samplers.exact_energies(problem.chain, problem.rewards)
    guides: dict[str, Energies] = {
        "exact": lambda weight: where_defined(exact(weight)),
        "contrastive": energy.energy,
        "regression": partial(regression, energy),
        "DPS": lambda weight: dps(prior, lambda x: weight * problem.reward(x)),
    }
    priors: dict[str, Denoise] = {"exact": problem.chain.denoise, "learned": prior}
    both = product(priors, ("exact", "contrastive"))
    for name, guide in (*both, ("learned", "regression"), ("learned", "DPS")):
        yield from one_method(seed, problem, name, priors[name], guide, guides[guide])


def regression(energy: ContrastiveEnergy, weight: Scalar) -> Energy:
    """The regression energy that the contrastive one corrects."""
    return lambda x, sigma: weight * energy.reader(x, sigma)[1]


def one_method(seed: int, problem: Cells, name: str, model: Denoise, guide: str, factory: Energies) -> Iterator[Row]:
    """Reward, legality and waste of one prior with one guide. Only the rows of the claim can fail."""
    chain = problem.chain
    sampler = Sampler(log_linear(STEPS, *samplers.LEVELS["tabular"]), chain.shape, sde_2m)
    x, nats, log_ratio = samplers.plans(jax.random.key(seed), model, factory, WEIGHTS, sampler, COUNT)
    paths = jax.vmap(jax.vmap(chain.decode))(jnp.asarray(x))
    rewards = np.asarray(jax.vmap(jax.vmap(problem.path_reward))(paths), float)
    legal = np.asarray(jax.vmap(jax.vmap(chain.legal))(paths), float).mean(axis=2)
    for i, truth in enumerate(samplers.tilts(chain, problem.rewards, WEIGHTS)):
        which = f"{name} prior, {guide} guide, lambda {truth.weight:g}"
        kind = "most" if (name, guide) in (("learned", "contrastive"), ("exact", "exact")) else "shown"
        yield Row("attribution", f"E[r], {which}", *mean(rewards[i]), float(truth.reward), np.nan, "shown")
        yield Row("attribution", f"path KL, {which}", *mean(nats[i]), float(truth.kl), np.nan, "shown")
        waste = wasted(problem, rewards[i], log_ratio[i])
        yield Row("attribution", f"wasted share of nats, {which}", *waste, 0.0, 0.1, kind)
        yield Row("attribution", f"legal moves, {which}", *mean(legal[i]), 1.0, np.nan, "shown")
