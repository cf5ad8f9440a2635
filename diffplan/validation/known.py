"""A gridworld as a problem for every method, in which nothing is learned.

Plans are one-hot paths of cells, the prior is a random walk and the reward of cells is additive. So the prior's
denoiser, its energies, values and tilts are exact (`diffplan.oracle.tabular`). An action is one of five moves, and any
proxy of the right kind goes in.
"""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells
from diffplan.count import counted
from diffplan.envs.gridworld import Gridworld
from diffplan.guide import Proxy
from diffplan.methods import Problem
from diffplan.oracle.tabular import Chain, markov
from diffplan.policy import Policy
from diffplan.samplers import Sampler
from diffplan.simulators import Truth
from diffplan.types import Denoise, Level, Scalar


@struct.dataclass
class Additive:
    """The reward sum(weights * x) as a `Proxy`, for a prior whose denoiser is at hand.

    Its mean given a noisy plan is that of the denoised plan, so the energy is the exact regression E[r(x0) | x].
    """

    weights: Float[Array, "h d"]
    denoise: Denoise
    centre: Scalar
    std: Scalar

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """E[r(x0) | x_sigma = x]."""
        return counted("proxy_evals", jnp.sum(self.weights * self.denoise(x, sigma)))

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The reward of a clean plan."""
        return counted("proxy_evals", jnp.sum(self.weights * x))

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """In standard deviations under the prior."""
        return (self.reward(x) - self.centre) / self.std


@struct.dataclass
class TabularPrior:
    """The exact denoiser of a chain of one-hot plans, which takes a level for every entry: 0 where a cell is known."""

    chain: Chain

    def log_likelihood(self, x: Float[Array, "h k"], sigma: Level) -> Float[Array, "h k"]:
        """Of every cell, from each step alone."""
        level = jnp.maximum(sigma if jnp.ndim(sigma) == 0 else jnp.max(sigma, axis=1, keepdims=True), 1e-2)
        return -jnp.sum((x[:, None] - self.chain.points[None]) ** 2, axis=-1) / (2 * level**2)

    def __call__(self, x: Float[Array, "h k"], sigma: Level) -> Float[Array, "h k"]:
        """E[x0 | x_sigma = x]: the distribution of every step's cell."""
        return counted("network_evals", self.chain.posterior(self.log_likelihood(x, sigma)) @ self.chain.points)


@struct.dataclass
class TabularEnergy:
    """The exact energy log E[exp(weight * R) | x_sigma = x], up to a constant, of an additive reward of cells."""

    prior: TabularPrior
    rewards: Float[Array, "h k"]
    weight: Scalar

    def __call__(self, x: Float[Array, "h k"], sigma: Level) -> Scalar:
        """The evidence for the tilted chain against that for the prior."""
        likelihood = self.prior.log_likelihood(x, sigma)
        tilted = self.prior.chain.tilted(self.rewards, self.weight)[0]
        return counted("proxy_evals", tilted.evidence(likelihood) - self.prior.chain.evidence(likelihood))


@struct.dataclass
class TabularValue:
    """E[score | the first rows of a plan] of an additive reward, exactly, for a chain of one-hot plans."""

    chain: Chain
    proxy: Additive

    def __call__(self, x: Float[Array, "h k"], known: Int[Array, ""]) -> Scalar:
        """What a plan whose first `known` rows are these is worth if the chain goes on from there."""
        past = (jnp.arange(len(x)) < known)[:, None]
        distribution = self.chain.posterior(jnp.where(past & (x < 0.5), -100.0, 0.0))
        total = jnp.sum(distribution * self.proxy.weights)
        return counted("network_evals", (total - self.proxy.centre) / self.proxy.std)


@struct.dataclass
class TabularConditional:
    """The exact denoiser given a condition (90): tilted by exp(return * R), and brought to its last cell by a goal."""

    chain: Chain
    rewards: Float[Array, "h k"]

    def __call__(self, x: Float[Array, "h k"], sigma: Level, condition: Float[Array, "c"]) -> Float[Array, "h k"]:
        """E[x0 | x_sigma = x, condition]."""
        _, score, goal = condition[:3]
        wanted = (score * self.rewards).at[-1].add(100 * goal * (condition[3:] - 1))
        return TabularPrior(self.chain.tilted(wanted)[0])(x, sigma)


WALK = (0.2, 0.2, 0.2, 0.2, 0.2)
"""The prior's probability of each move: stay, up, down, left, right. Into a wall is to stay."""


def walk(world: Gridworld, horizon: int, probabilities: tuple[float, ...] = WALK) -> Chain:
    """The random walk from a uniformly chosen cell, as one-hot plans."""
    k = len(world.cells)
    kernel = jnp.einsum("a,sat->st", jnp.asarray(probabilities), jnp.asarray(world.distribution, jnp.float32))
    return markov(jnp.full(k, 1 / k), kernel, horizon)


def cells_of(world: Gridworld) -> Cells:
    """One-hot plans through a world's cells."""
    return Cells(jnp.asarray(world.cells, jnp.float32), jnp.asarray(world.next_cell))


def from_cell(chain: Chain, cell: Array) -> Chain:
    """The chain that starts in one cell."""
    return chain._replace(log_start=jnp.where(jnp.arange(len(chain.log_start)) == cell, 0.0, -jnp.inf))


def grid_behaviour(cells: Cells, probabilities: tuple[float, ...] = WALK) -> Policy:
    """The walk as a policy: a table of logits ``[k, m]``, read by the nearest cell."""
    k, m = cells.next_cell.shape
    table = jnp.broadcast_to(jnp.log(jnp.asarray(probabilities, jnp.float32))[None], (k, m))
    zeros, ones = jnp.zeros(cells.observation_dim), jnp.ones(cells.observation_dim)
    apply = lambda params, place, time: params[cells.cell(place)]
    return Policy({"network": table, "log_std": jnp.zeros(m)}, zeros, ones, jnp.zeros(m), jnp.ones(m), apply, True)


def grid_problem(
    world: Gridworld, chain: Chain, proxy: Proxy, sigmas: Float[Array, "n"], data: Float[Array, "m h k"] | None = None
) -> Problem:
    """A gridworld and an exact prior as a `Problem`; the one proxy is read by all methods."""
    cells = cells_of(world)
    return Problem(
        denoise=TabularPrior(chain),
        regression=proxy,
        classifier=proxy,
        clean=proxy,
        codec=cells,
        sampler=Sampler(sigmas, (chain.horizon, cells.width)),
        data=data,
        dynamics=Truth(world, True),
        behaviour=grid_behaviour(cells),
    )
