"""Fine-tuning the prior on its own plans, so that it draws better ones with no guide at all.

What is tuned is the denoiser's `params`; plans are then sampled from it as from the prior. Chains start where behaviour
does (163). Two ways:

**Policy gradient.** The chain x_1, ..., x_n of the ancestral sampler (5) is a trajectory of the Gaussian policy
N(mean_k, std_k^2), with mean_k from the denoiser, and its end is scored (DDPO, Black et al. 2023, arXiv 2305.13301,
section 4.3; with the divergence from the prior, DPOK, Fan et al. 2023, arXiv 2305.16381):

    J = E[score(x0)] - K / c,     K = E[sum_k nats_k],     nats_k = |mean_k - prior mean_k|^2 / (2 std_k^2)    (92)
    grad J = E[A sum_k grad log N(x_k+1; mean_k, std_k^2)  -  sum_k grad nats_k / c]                           (93)

where A is score - sum_k nats_k / c less its mean over the other chains from the same start. It is unbiased: the nats
stand in A too, for where a chain goes depends on the parameters. With no limit on the family, J is largest for the tilt
p(x) exp(c score) / Z.

**Expert iteration.** Each round draws plans, weighs those from one start against each other, and trains the denoising
loss on draws by weight w (Anthony et al. 2017; reward-weighted regression, Peters and Schaal 2007):

    Elite(fraction)   w = 1 on that fraction of plans with the highest scores, 0 elsewhere
    Softmax(t)        w = exp(score / t)                                                      as in (94)

With enough data and capacity a round of the latter draws p(x) exp(score / t) / Z, k rounds p(x) exp(k score / t) / Z.
Trained on nothing but what it picked itself a prior narrows; half real data each round holds it back (Ferbach et al.
2024, arXiv 2407.09499).

**An exact prior** has no parameters. It is tuned as a tilt, p(x) exp(b.x - x.ax / 2) / Z with a >= 0 for every entry,
whose denoiser is the prior's own at another plan and other levels:

    D_tilt(x, sigma) = D((x + sigma^2 b) / (1 + a sigma^2), sigma / sqrt(1 + a sigma^2))                       (95)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells
from diffplan.denoise import loss, pinned
from diffplan.guide import Proxy
from diffplan.methods.base import (
    Grid,
    Learned,
    Plans,
    Problem,
    Starts,
    behaviour_starts,
    compiled,
    fit_and_draw,
    need,
    over,
)
from diffplan.methods.guidance import regression
from diffplan.methods.weighting import Elite, Weigh
from diffplan.samplers import Past, Sampler, ancestral, sample
from diffplan.types import Denoise, Level, Params, PRNGKey, Scalar

# -- what is tuned --


class Quadratic(NamedTuple):
    """b and a of (95)."""

    slope: Float[Array, "h d"]
    curve: Float[Array, "h e"]
    """A number for every entry, or one for every step where a plan is one-hot (which it leaves as it is)."""


@struct.dataclass
class Tilt:
    """Equation (95): any denoiser that takes a level for every entry, with the parameters of a tilt."""

    params: Quadratic
    base: Denoise

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x] under the tilt."""
        a = self.params.curve
        a = a + jax.lax.stop_gradient(jnp.maximum(a, 0.0) - a)  # no less than 0, yet its gradient can bring it back
        squeeze = jnp.broadcast_to(1 + a * sigma**2, x.shape)
        return self.base((x + sigma**2 * self.params.slope) / squeeze, sigma / jnp.sqrt(squeeze))


def tunable(problem: Problem) -> Any:
    """The prior as a denoiser with `params`: itself, or where it has none, as a tilt by nothing."""
    if hasattr(problem.denoise, "params"):
        return problem.denoise
    h, d = problem.shape
    curve = jnp.zeros((h, 1 if isinstance(problem.codec, Cells) else d))
    return Tilt(Quadratic(jnp.zeros((h, d)), curve), problem.denoise)


def optimiser(rate: float) -> optax.GradientTransformation:
    """Adam, the gradient's norm clipped to 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


class Learner(NamedTuple):
    """Parameters, and the state of their optimiser."""

    params: Params
    state: optax.OptState

    def descend(self, rule: optax.GradientTransformation, gradient: Params) -> "Learner":
        """One step against a gradient."""
        updates, state = rule.update(gradient, self.state, self.params)
        return Learner(optax.apply_updates(self.params, updates), state)


def draw_chains(
    key: PRNGKey, problem: Problem, denoise: Denoise, starts: Float[Array, "n o"], sampler: Sampler
) -> tuple[Float[Array, "n h d"], Float[Array, "n"], Float[Array, "n k h d"]]:
    """A plan of a tuned prior from every start, its path KL from the prior that was given, and its chain."""

    def one(key: PRNGKey, start: Float[Array, "o"]) -> tuple[Array, Array, Array]:
        pins = problem.pins(start)
        reference = pinned(problem.denoise, pins)
        x, info = sample(key, pinned(denoise, pins), sampler, reference)
        return x, info.path_kl, info.iterates

    return jax.vmap(one)(jax.random.split(key, len(starts)), starts)


def draw_tuned(key: PRNGKey, problem: Problem, learned: Learned, starts: Float[Array, "n o"]) -> Plans:
    """Plans of the tuned priors of all strengths, by the problem's sampler."""
    prior = tunable(problem)

    def one(params: Params) -> tuple[Array, Array]:
        return draw_chains(key, problem, replace(prior, params=params), starts, problem.sampler)[:2]

    return Plans.of(*over(one, learned))


# -- policy gradient --


@dataclass(frozen=True)
class PolicyGradient:
    """Equation (92) climbed by (93), one update for every batch of fresh chains; each strength c is tuned by itself.

    Chains are ancestral while tuning, whatever rule then draws the plans. The noiseless last step carries no gradient,
    as it carries no path KL.
    """

    strengths: tuple[float, ...]
    updates: int = 50
    train_starts: int = 32
    """Starts of behaviour in each batch."""
    chains: int = 4
    """Chains a start and update; at least 2, for each is held against the others."""
    learning_rate: float = 3e-4
    name: str = "policy_gradient"
    strength_name: str = "1 / KL coefficient"
    shared: bool = False
    proxy: Callable[[Problem], Proxy] = regression

    def __post_init__(self) -> None:
        if self.chains < 2:
            raise ValueError(f"chains={self.chains}: must be at least 2")

    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Tunes the prior for each strength, then draws its plans."""
        return fit_and_draw(self, key, problem, starts, strengths)

    def longer(self, factor: int) -> "PolicyGradient":
        """The same method with so many times as many updates."""
        return replace(self, updates=factor * self.updates)

    @compiled
    def fit(self, key: PRNGKey, problem: Problem, strengths: Grid) -> Learned:
        """The tuned parameters for each strength. At c = 0 only the divergence counts, and they are the prior's."""
        return over(lambda strength: self.tune(key, problem, strength), strengths)

    @compiled
    def draw(self, key: PRNGKey, problem: Problem, learned: Learned, starts: Starts, strengths: Grid) -> Plans:
        """Plans of each tuned prior."""
        return draw_tuned(key, problem, learned, starts)

    def tune(self, key: PRNGKey, problem: Problem, strength: Scalar) -> Params:
        """The parameters after all updates."""
        prior, rule = tunable(problem), optimiser(self.learning_rate)

        def update(learner: Learner, key: PRNGKey) -> tuple[Learner, None]:
            key_starts, key_chains = jax.random.split(key)
            starts = behaviour_starts(key_starts, problem, self.train_starts, self.name)
            gradient = self.gradient(key_chains, problem, replace(prior, params=learner.params), starts, strength)
            return learner.descend(rule, jax.tree.map(jnp.negative, gradient)), None

        learner = Learner(prior.params, rule.init(prior.params))
        params = jax.lax.scan(update, learner, jax.random.split(key, self.updates))[0].params
        # Adam would turn the rounding errors of a gradient of 0 into steps of full length.
        keep = lambda new, old: jnp.where(strength > 0, new, old)
        return jax.tree.map(keep, params, prior.params)

    def gradient(
        self, key: PRNGKey, problem: Problem, denoise: Any, starts: Float[Array, "n o"], strength: Scalar
    ) -> Params:
        """Equation (93) from fresh chains, times c / (1 + c): bounded, whatever c is."""
        chains = lambda key: draw_chains(key, problem, denoise, starts, replace(problem.sampler, step=ancestral))
        x, nats, iterates = jax.vmap(chains)(jax.random.split(key, self.chains))  # [m n ...]
        penalty = 1 / (1 + strength)
        gain = (1 - penalty) * jax.vmap(jax.vmap(self.proxy(problem).score))(x) - penalty * nats
        advantage = (gain - gain.mean(axis=0, keepdims=True)) * self.chains / (self.chains - 1)

        def term(params: Params, x: Array, x_next: Array, advantage: Scalar, start: Array, level: tuple) -> Scalar:
            pins, past = problem.pins(start), Past.none(problem.shape)
            distribution = ancestral(pinned(replace(denoise, params=params), pins), x, level[0], level[1], past)[0]
            # Evaluated along the chain once already, for its nats; uncounted there, it is paid for here.
            prior = ancestral(pinned(problem.denoise, pins), x, level[0], level[1], past)[0]
            square = lambda gap: jnp.sum(gap**2) / (2 * distribution.std**2)
            return -advantage * square(x_next - distribution.mean) - penalty * square(distribution.mean - prior.mean)

        batch = jax.vmap(jax.vmap(term, (None, 0, 0, 0, 0, None)), (None, 0, 0, 0, None, None))
        slope = jax.grad(lambda params, *rest: batch(params, *rest).mean())

        # A level at a time: the terms share no state, and only one level's activations are held.
        def add(total: Params, at: tuple) -> tuple[Params, None]:
            x, x_next, level = at
            return jax.tree.map(jnp.add, total, slope(denoise.params, x, x_next, advantage, starts, level)), None

        iterates = jnp.moveaxis(iterates, 2, 0)
        levels = (problem.sampler.sigmas[:-1], problem.sampler.sigmas[1:])
        zero = jax.tree.map(jnp.zeros_like, denoise.params)
        return jax.lax.scan(add, zero, (iterates[:-1], iterates[1:], levels))[0]


# -- expert iteration --

BEST_QUARTER = Elite(0.25)


@struct.dataclass
class SamplerLevels:
    """The sampler's own levels, each as often. A tuned denoiser is evaluated at no other."""

    sigmas: Float[Array, "k"]

    def draw(self, key: PRNGKey) -> Scalar:
        """One sigma."""
        return jax.random.choice(key, self.sigmas)


class Pool(NamedTuple):
    """Plans and the logarithms of their weights; one slot a remembered round."""

    x: Float[Array, "r m n h d"]
    log_weight: Float[Array, "r m n"]

    def pick(self, key: PRNGKey, slot: Int[Array, ""]) -> Float[Array, "h d"]:
        """A plan of one slot by weight, every start as often."""
        key_start, key_plan = jax.random.split(key)
        start = jax.random.randint(key_start, (), 0, self.x.shape[2])
        return self.x[slot, jax.random.categorical(key_plan, self.log_weight[slot, :, start]), start]


@dataclass(frozen=True)
class ExpertIteration:
    """Rounds of (94); every number of rounds is read from one run. Reward-weighted regression with `Softmax`."""

    strengths: tuple[float, ...]
    weigh: Weigh = BEST_QUARTER
    mix: Literal["replace", "accumulate", "real"] = "replace"
    """What a round trains on: its own picks; those of all rounds so far, each as often; its own and real windows, half
    and half."""
    plans: int = 8
    """Plans a start and round."""
    train_starts: int = 32
    """Starts of behaviour in each round."""
    steps: int = 100
    """Gradient steps a round."""
    batch: int = 64
    """Plans a gradient step."""
    learning_rate: float = 3e-4
    name: str = "expert_iteration"
    strength_name: str = "rounds"
    shared: bool = True
    proxy: Callable[[Problem], Proxy] = regression

    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Runs all rounds, then draws plans of the priors after some of them."""
        return fit_and_draw(self, key, problem, starts, strengths)

    def longer(self, factor: int) -> "ExpertIteration":
        """The same rounds with so many times as many gradient steps each."""
        return replace(self, steps=factor * self.steps)

    @compiled
    def draw(self, key: PRNGKey, problem: Problem, learned: Learned, starts: Starts, strengths: Grid) -> Plans:
        """Plans of the prior after each number of rounds."""
        return draw_tuned(key, problem, learned, starts)

    @compiled
    def fit(self, key: PRNGKey, problem: Problem, strengths: Grid) -> Learned:
        """The parameters after each number of rounds, ``[s, ...]``.

        Runs max(self.strengths) rounds; `strengths` may be any whole numbers up to that.
        """
        prior, rounds = tunable(problem), int(max(self.strengths))
        score = jax.vmap(jax.vmap(self.proxy(problem).score))

        def one_round(carry: tuple[Params, Pool, Params], at: tuple) -> tuple[tuple, None]:
            (params, pool, snapshots), (number, key) = carry, at
            key_starts, key_draw, key_fit = jax.random.split(key, 3)
            denoise = replace(prior, params=params)
            starts = behaviour_starts(key_starts, problem, self.train_starts, self.name)
            plan_each = lambda key: draw_chains(key, problem, denoise, starts, problem.sampler)[0]
            x = over(plan_each, jax.random.split(key_draw, self.plans))
            slot = number if self.mix == "accumulate" else 0
            log_weight = jax.vmap(self.weigh, 1, 1)(score(x))
            pool = Pool(pool.x.at[slot].set(x), pool.log_weight.at[slot].set(log_weight))
            params = self.imitate(key_fit, problem, params, pool, number)
            keep = lambda old, new: jnp.where((strengths == number + 1).reshape(-1, *(1,) * new.ndim), new[None], old)
            return (params, pool, jax.tree.map(keep, snapshots, params)), None

        slots = max(1, rounds) if self.mix == "accumulate" else 1
        size = (slots, self.plans, self.train_starts)
        pool = Pool(jnp.zeros((*size, *problem.shape)), jnp.zeros(size))
        snapshots = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (len(strengths), *leaf.shape)), prior.params)
        first = (prior.params, pool, snapshots)
        return jax.lax.scan(one_round, first, (jnp.arange(rounds), jax.random.split(key, rounds)))[0][2]

    def imitate(self, key: PRNGKey, problem: Problem, params: Params, pool: Pool, number: Int[Array, ""]) -> Params:
        """One round's gradient steps, from a fresh optimiser; the first observation stays clean, as it is pinned."""
        prior, rule, levels = tunable(problem), optimiser(self.learning_rate), SamplerLevels(problem.sampler.sigmas)
        mask = problem.pins(jnp.zeros(problem.codec.observation_dim)).mask

        def example(key: PRNGKey) -> Float[Array, "h d"]:
            key_slot, key_pick, key_real, key_coin = jax.random.split(key, 4)
            slot = jax.random.randint(key_slot, (), 0, number + 1) if self.mix == "accumulate" else jnp.zeros((), int)
            x = pool.pick(key_pick, slot)
            if self.mix != "real":
                return x
            real = jax.random.choice(key_real, need(problem, "data", self.name))
            return jnp.where(jax.random.bernoulli(key_coin), real, x)

        def error(params: Params, key: PRNGKey) -> Scalar:
            key_example, key_loss = jax.random.split(key)
            return loss(key_loss, replace(prior, params=params), example(key_example), mask, levels)[0]

        def step(learner: Learner, key: PRNGKey) -> tuple[Learner, None]:
            each = lambda params: jax.vmap(error, (None, 0))(params, jax.random.split(key, self.batch)).mean()
            return learner.descend(rule, jax.grad(each)(learner.params)), None

        learner = Learner(params, rule.init(params))
        return jax.lax.scan(step, learner, jax.random.split(key, self.steps))[0].params
