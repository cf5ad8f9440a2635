"""Classifier-free guidance: ask the prior for a high score, or for where the best plan known ended.

One network is the denoiser of behaviour and of behaviour given a condition, D(x, sigma, c), with nothing asked at c = 0
(Ho and Salimans 2022, eq. 6, with w for their 1 + w). The method extrapolates from the one to the other:

    D_w(x, sigma) = D(x, sigma, 0) + w (D(x, sigma, c) - D(x, sigma, 0))                 (89)

w = 0 is the network's own prior, which need not be `problem.denoise`; w = 1 draws from p(x | c); what is drawn beyond 1
is not p(x) p(c | x)^w, nor any distribution with a name (Bradley and Nakkiran 2024, arXiv 2408.09000). A condition (90)
has two parts, the score and the goal; a part that is not asked for is 0.

No reward is differentiated: the score only names what is asked for, as in Decision Diffuser (Ajay et al. 2023).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.guide import Proxy
from diffplan.learn.conditional import GOAL, RETURN, condition, parts
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, draw_plans, need
from diffplan.methods.guidance import regression
from diffplan.types import Conditional, Denoise, PRNGKey, Scalar

Ask = Callable[[Problem, Proxy], Float[Array, "c"]]
"""What a method asks of its plans: a condition (90)."""


def score_data(problem: Problem, proxy: Proxy) -> tuple[Float[Array, "m h d"], Float[Array, "m"]]:
    """The windows of behaviour, and the proxy's score of each."""
    data = need(problem, "data", "classifier_free")
    return data, jax.vmap(proxy.score)(data)


def high_return(problem: Problem, proxy: Proxy, quantile: float = 0.99) -> Float[Array, "c"]:
    """A score that few windows of behaviour have."""
    data, scores = score_data(problem, proxy)
    return condition(problem.codec, data[0], jnp.quantile(scores, quantile)) * (parts(data.shape[-1]) == RETURN)


def best_goal(problem: Problem, proxy: Proxy) -> Float[Array, "c"]:
    """The place where the window with the highest score ends."""
    data, scores = score_data(problem, proxy)
    best = data[jnp.argmax(scores)]
    return condition(problem.codec, best, scores.max()) * (parts(data.shape[-1]) == GOAL)


def classifier_free(conditional: Conditional, asked: Float[Array, "c"], weight: Scalar) -> Denoise:
    """Equation (89)."""

    def wrapped(x: Float[Array, "h d"], sigma: Array) -> Float[Array, "h d"]:
        free = conditional(x, sigma, jnp.zeros_like(asked))
        return free + weight * (conditional(x, sigma, asked) - free)

    return wrapped


@dataclass(frozen=True)
class ClassifierFree:
    """Equation (89) for one thing asked; all weights in one vmap, with the same noise."""

    strengths: tuple[float, ...]
    ask: Ask = high_return
    name: str = "classifier_free"
    strength_name: str = "guidance weight"
    shared: bool = False
    proxy: Callable[[Problem], Proxy] = regression

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Path KL is from the network's own prior, which weight 0 gives back plan by plan."""
        conditional = need(problem, "conditional", self.name)
        asked = self.ask(problem, self.proxy(problem))
        denoiser = lambda weight: classifier_free(conditional, asked, weight)
        return draw_plans(key, problem, starts, strengths, denoiser, denoiser(jnp.zeros(())))
