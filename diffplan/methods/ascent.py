"""Direct reward maximisation: gradient ascent on the learned reward, with no prior, or with one before or after it.

With prior = 0, one application of the guided denoiser (3) is one ascent step, x + guide * sigma^2 * grad g(x, sigma).
So ascent iterates the very denoiser that guided sampling integrates, with guide = rate / sigma^2:

    x <- x + rate * grad g(x, sigma_k)                                                   (15)

`Ascent` begins at unit noise. On a noise-conditioned proxy sigma_k falls from 1 (the noise it starts from) to the level
of clean plans over the first `anneal` steps and stays there. On the clean proxy it is the plain "deep dream" form.

The others begin at a clean plan, a draw of the prior or a window of data, and stay at the level of clean plans. From
there a step must be short: a hundredth of a step from noise. The window x_i begins near the start s, in normalised
units, with the width b = `NEAR`; its first row is then s itself:

    P(i) = exp(-|x_i[0] - s|^2 / 2 b^2) / sum over windows                               (96)

As b -> 0 that is the nearest window; where many begin at s, as in a gridworld, it is a draw of behaviour from s.

`AscentConservative` is the optimiser of a conservative objective model (Trabucco et al. 2021, arXiv 2107.06882): ascent
from the best data, in the steps (157) that the model was trained against, and in no more of them. Its authors begin at
the data of the highest labels. Here it is the window with the highest learned score among those near the start:

    i = argmax  score(x_i) - |x_i[0] - s|^2 / 2 b^2                                                      (159)

`AscentEarly` stops each plan before it is odder to the prior than `patience` times what data are, with no label:

    e(x) = |D(x, tau) - x| / (tau sqrt(hd)),   stop at the last x_k before e > patience * median of e over data     (97)

e is the length of the prior's score at level tau (2), times tau, per entry.

`AscentRenoised` projects the result of ascent back towards the data (DEMO: Yuan et al. 2024, arXiv 2405.13964):

    x' = x_k + tau eps,   then the prior's own sampler from level tau down to 0          (98)

which leaves the prior as it is at k = 0, and a plan far out with the part of the prior that is nearest to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffplan.denoise import CLEAN, pinned
from diffplan.guide import Proxy, guided
from diffplan.learn.robust import STEPS, ascent_rate
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, each_start, need, over
from diffplan.methods.guidance import from_prior, regression
from diffplan.samplers import Sampler, sample
from diffplan.types import Denoise, Energy, Level, Pins, PRNGKey, Scalar, Strengths

NEAR = 0.1
"""b of (96), in standard deviations of the data."""

TYPICAL = 256
"""Windows of data over which the median of (97) is taken."""

Begin = Callable[[PRNGKey, Problem, Float[Array, "o"]], Float[Array, "h d"]]
"""A clean plan from a start, in normalised units, from which to ascend."""


def nearness(data: Float[Array, "m h d"], pins: Pins) -> Float[Array, "m"]:
    """log P(i) of (96), up to a constant."""
    gap = jnp.where(pins.mask[None], data - pins.value[None], 0.0)
    return -jnp.sum(gap**2, axis=(1, 2)) / (2 * NEAR**2)


def from_data(key: PRNGKey, problem: Problem, start: Float[Array, "o"]) -> Float[Array, "h d"]:
    """A window of behaviour that begins near the start (96), moved onto it in its first row alone."""
    data, pins = need(problem, "data", from_data.__name__), problem.pins(start)
    return jnp.where(pins.mask, pins.value, data[jax.random.categorical(key, nearness(data, pins))])


@dataclass(frozen=True)
class BestData:
    """The window of behaviour that scores highest among those near the start (159), moved onto it in its first row."""

    proxy: Callable[[Problem], Proxy]

    def __call__(self, key: PRNGKey, problem: Problem, start: Float[Array, "o"]) -> Float[Array, "h d"]:
        """The same for every key."""
        data, pins = need(problem, "data", type(self).__name__), problem.pins(start)
        best = jnp.argmax(jax.vmap(self.proxy(problem).score)(data) + nearness(data, pins))
        return jnp.where(pins.mask, pins.value, data[best])


def flat(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
    """The denoiser of a flat prior. With prior = 0 equation (3) never looks at the network, so none is evaluated."""
    return x


def ascent_step(energy: Energy, pins: Pins, rate: float) -> Denoise:
    """(15): the next plan, from a plan and the level at which the energy reads it."""

    def step(x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        return pinned(guided(flat, energy, Strengths(rate / sigma**2, jnp.zeros(()))), pins)(x, sigma)

    return step


def climb(
    step: Denoise, x: Float[Array, "h d"], levels: Float[Array, "k"], numbers: Float[Array, "s"]
) -> Float[Array, "s h d"]:
    """The plans after each of `numbers` steps from x, whole numbers up to k, read from one run; 0 is x itself."""

    def body(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (x, snapshots), (number, sigma) = carry, now
        x = step(x, sigma)
        return (x, jnp.where((numbers == number)[:, None, None], x[None], snapshots)), None

    snapshots = jnp.broadcast_to(x[None], (len(numbers), *x.shape))
    return jax.lax.scan(body, (x, snapshots), (jnp.arange(1, len(levels) + 1), levels))[0][1]


def score_norm(denoise: Denoise, pins: Pins, x: Float[Array, "h d"], tau: float) -> Scalar:
    """e of (97): how far the prior, at level tau, moves a plan that begins where it is pinned."""
    return jnp.sqrt(jnp.mean((pinned(denoise, pins)(x, jnp.asarray(tau)) - x) ** 2)) / tau


def renoise(
    key: PRNGKey, denoise: Denoise, x: Float[Array, "h d"], sampler: Sampler, tau: float
) -> Float[Array, "h d"]:
    """(98): a plan sampled anew from x + tau * noise, on the sampler's levels, squeezed to begin at tau.

    `sample` begins at tau * noise: so it walks in coordinates whose origin is x, which no step rule can tell.
    """
    around = lambda y, sigma: denoise(x + y, sigma) - x
    sigmas = sampler.sigmas
    low, high = sigmas[-1], sigmas[0]
    squeezed = low * (sigmas / low) ** (jnp.log(tau / low) / jnp.log(high / low))
    return x + sample(key, around, replace(sampler, sigmas=squeezed))[0]


@dataclass(frozen=True)
class Ascent:
    """Gradient ascent (15) from unit noise; every number of steps is read from one run."""

    strengths: tuple[float, ...]
    name: str = "ascent"
    proxy: Callable[[Problem], Proxy] = regression
    rate: float = 1.0
    """Step length, in squared standard deviations of the data."""
    anneal: int = 30
    """Steps over which the noise level falls to that of clean plans; 0 for a proxy without noise conditioning."""
    strength_name: str = "ascent steps"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs max(self.strengths) steps; `strengths` may be any whole numbers up to that."""
        energy, total = self.proxy(problem), int(max(self.strengths))
        levels = (
            jnp.maximum(CLEAN, CLEAN ** (jnp.arange(total) / max(self.anneal, 1)))
            if self.anneal
            else jnp.full(total, CLEAN)
        )

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            pins = problem.pins(start)
            noise = jnp.where(pins.mask, pins.value, jax.random.normal(key, problem.shape))
            return climb(ascent_step(energy, pins, self.rate), noise, levels, strengths)

        return each_start(one, key, starts)


@dataclass(frozen=True)
class AscentFrom:
    """Gradient ascent (15) from a clean plan: a window of data (96), or a draw of the prior. 0 steps give it back."""

    strengths: tuple[float, ...]
    name: str = "ascent_data"
    proxy: Callable[[Problem], Proxy] = regression
    begin: Begin = from_data
    rate: float = 1.0
    """Step length, in squared standard deviations of the data."""
    level: float = CLEAN
    """Level at which the proxy reads plans; above that of clean plans where its gradient vanishes there."""
    strength_name: str = "ascent steps"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs max(self.strengths) steps; `strengths` may be any whole numbers up to that."""
        energy, levels = self.proxy(problem), jnp.full(int(max(self.strengths)), self.level)

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            step = ascent_step(energy, problem.pins(start), self.rate)
            return climb(step, self.begin(key, problem, start), levels, strengths)

        return each_start(one, key, starts)


def conservative(problem: Problem) -> Proxy:
    """The regression that was trained so that ascent on it gains little."""
    return need(problem, "conservative", "ascent_conservative")


@dataclass(frozen=True)
class AscentConservative:
    """Gradient ascent from the best data near the start (159), in the steps of the model's training (157)."""

    strengths: tuple[float, ...] = (0, 1, 2, 5, 10, 20, STEPS)
    name: str = "ascent_conservative"
    proxy: Callable[[Problem], Proxy] = conservative
    strength_name: str = "ascent steps"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs max(self.strengths) steps; `strengths` may be any whole numbers up to that."""
        begin, rate = BestData(self.proxy), ascent_rate(problem.shape)
        return AscentFrom(self.strengths, self.name, self.proxy, begin, rate)(key, problem, starts, strengths)


@dataclass(frozen=True)
class AscentEarly:
    """Ascent that stops, plan by plan, before the prior finds the plan odd (97). Patience 0 never takes a step.

    Every patience is read from one run of `steps` steps, and costs all of them.
    """

    strengths: tuple[float, ...] = (0.0, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
    name: str = "ascent_early"
    proxy: Callable[[Problem], Proxy] = regression
    begin: Begin = from_prior
    rate: float = 1.0
    """Step length, in squared standard deviations of the data."""
    level: float = CLEAN
    """Level at which the proxy reads plans; above that of clean plans where its gradient vanishes there."""
    steps: int = 100
    """Steps that any patience allows."""
    tau: float = 0.2
    """Level at which the prior looks at a plan, in standard deviations of the data."""
    strength_name: str = "patience, in typical oddities of data"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """`strengths` may be any numbers from 0 up."""
        energy, data = self.proxy(problem), need(problem, "data", self.name)[:TYPICAL]
        odd = lambda mask, x: score_norm(problem.denoise, Pins(mask, x), x, self.tau)
        typical = jnp.median(jax.vmap(odd, (None, 0))(problem.pins(starts[0]).mask, data))

        def one(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "s h d"]:
            pins = problem.pins(start)
            step = ascent_step(energy, pins, self.rate)

            def body(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
                x, snapshots, going = carry
                x = step(x, jnp.asarray(self.level))
                going = going & (odd(pins.mask, x) <= strengths * typical)
                return (x, jnp.where(going[:, None, None], x[None], snapshots), going), None

            x = self.begin(key, problem, start)
            snapshots = jnp.broadcast_to(x[None], (len(strengths), *x.shape))
            return jax.lax.scan(body, (x, snapshots, strengths > 0), None, length=self.steps)[0][1]

        return each_start(one, key, starts)


@dataclass(frozen=True)
class AscentRenoised:
    """Ascent from a draw of the prior, then noise and the prior's sampler again (98). 0 steps give the prior.

    All numbers of steps are read from one ascent and see the same noise; each is sampled anew by itself.
    """

    strengths: tuple[float, ...]
    name: str = "ascent_renoised"
    proxy: Callable[[Problem], Proxy] = regression
    begin: Begin = from_prior
    rate: float = 1.0
    """Step length, in squared standard deviations of the data."""
    level: float = CLEAN
    """Level at which the proxy reads plans; above that of clean plans where its gradient vanishes there."""
    tau: float = 0.5
    """Level that plans are noised to, in standard deviations of the data: above the last of the sampling grid."""
    strength_name: str = "ascent steps"
    shared: bool = True

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs max(self.strengths) steps; `strengths` may be any whole numbers up to that."""
        key_begin, key_again = jax.random.split(key)
        ascent = AscentFrom(self.strengths, self.name, self.proxy, self.begin, self.rate, self.level)
        x = ascent(key_begin, problem, starts, strengths).x

        def again(key: PRNGKey, start: Float[Array, "o"], x: Float[Array, "h d"]) -> Float[Array, "h d"]:
            return renoise(key, pinned(problem.denoise, problem.pins(start)), x, problem.sampler, self.tau)

        keys = jax.random.split(key_again, len(starts))
        return Plans.of(over(lambda plans: jax.vmap(again)(keys, starts, plans), x))
