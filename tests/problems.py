"""Problems for every method whose best answer is known: a gridworld with its exact prior, and a linear-Gaussian point.

    grid      one-hot paths of cells, a random walk, an additive reward of cells: the prior's denoiser, its tilt and the
              best path are exact (`diffplan.oracle.tabular`); an action is one of five moves
    linear    positions, velocities and forces of a damped point, noiseless: the prior is a Gaussian on the plane of
              possible plans, and the best plan under a concave quadratic reward solves a linear system

Any proxy of the right kind goes in; with the gold itself as proxy a method at full strength must come near the optimum.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from diffplan import noise
from diffplan.codec import Codec
from diffplan.count import counted
from diffplan.envs.gridworld import Gridworld
from diffplan.envs.linear import Linear, LinearPolicy, trajectory_distribution
from diffplan.guide import Reward
from diffplan.methods import Problem
from diffplan.oracle.gaussian import Gaussian
from diffplan.oracle.tabular import Chain
from diffplan.policy import Policy
from diffplan.samplers import Sampler
from diffplan.simulators import Truth
from diffplan.types import Denoise, Level, PRNGKey, Scalar, Trajectory
from diffplan.validation.known import Additive, TabularPrior, cells_of, from_cell, grid_problem, walk


@struct.dataclass
class Clean:
    """Any reward of clean plans as a `Proxy`, whose energy reads the denoised plan (`guide.dps`)."""

    denoise: Denoise
    centre: Scalar
    std: Scalar
    function: Reward = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Scalar:
        """The reward of the denoised plan."""
        return self.reward(self.denoise(x, sigma))

    def reward(self, x: Float[Array, "h d"]) -> Scalar:
        """The reward of a clean plan."""
        return counted("proxy_evals", self.function(x))

    def score(self, x: Float[Array, "h d"]) -> Scalar:
        """In standard deviations under the prior."""
        return (self.reward(x) - self.centre) / self.std


@struct.dataclass
class GaussianPrior:
    """The exact denoiser of a Gaussian, which takes a level for every entry: 0 where it is known."""

    distribution: Gaussian

    def __call__(self, x: Float[Array, "h d"], sigma: Level) -> Float[Array, "h d"]:
        """E[x0 | x_sigma = x] = m + S (S + diag sigma^2)^-1 (x - m)."""
        s = self.distribution.covariance
        noise = jnp.broadcast_to(jnp.maximum(sigma, 1e-3) ** 2, x.shape).ravel()
        gap = jnp.linalg.solve(s + jnp.diag(noise), x.ravel() - self.distribution.mean)
        return counted("network_evals", (self.distribution.mean + s @ gap).reshape(x.shape))


class Known(NamedTuple):
    """A problem with its answers. gold: of a plan ``x[h, d]``, in normalised units."""

    problem: Problem
    gold: Reward
    starts: Float[Array, "n o"]
    """Environment units."""
    ordinary: Float[Array, "n"]
    """The mean gold of the prior's plans from each start."""
    best: Float[Array, "n"]
    """The highest gold that any plan from each start can have."""
    draw: Callable[[PRNGKey, Float[Array, "o"]], Float[Array, "h d"]]
    """One plan of the prior from a start, exactly."""


ROOM = Gridworld.from_text(
    """
    #####
    #OOO#
    #O#O#
    #OOG#
    #####
    """
)
"""Eight cells around a wall."""


def additive_proxy(chain: Chain, weights: Float[Array, "h k"]) -> Additive:
    """The reward sum(weights * x) under the chain, with its exact mean and deviation as centre and spread."""
    first, second = (jax.grad(f) for f in (chain.log_z(weights), jax.grad(chain.log_z(weights))))
    zero = jnp.zeros(())
    return Additive(weights, TabularPrior(chain), first(zero), jnp.sqrt(second(zero)))


def grid(horizon: int = 5, world: Gridworld = ROOM, count: int = 4, seed: int = 0) -> Known:
    """The walk in a small room, with random rewards of cells as gold and proxy."""
    chain = walk(world, horizon)
    per_cell = jnp.asarray(np.random.default_rng(seed).normal(size=len(world.cells)), jnp.float32)
    weights = jnp.broadcast_to(per_cell[None], (horizon, len(world.cells)))
    data = jax.nn.one_hot(jax.vmap(chain.draw)(jax.random.split(jax.random.key(seed), 512)), len(world.cells))
    problem = grid_problem(world, chain, additive_proxy(chain, weights), noise.karras(32, 0.05, 10.0), data)
    first = jnp.arange(count) % len(world.cells)
    chains = [from_cell(chain, cell) for cell in first]

    def draw(key: PRNGKey, start: Float[Array, "o"]) -> Float[Array, "h k"]:
        return jax.nn.one_hot(from_cell(chain, cells_of(world).cell(start)).draw(key), len(world.cells))

    return Known(
        problem,
        lambda x: jnp.sum(weights * jax.nn.one_hot(jnp.argmax(x, axis=1), x.shape[1])),
        jnp.asarray(world.cells, jnp.float32)[first],
        jnp.stack([one.expected(weights) for one in chains]),
        jnp.stack([one.most(weights) for one in chains]),
        draw,
    )


PUSHES = LinearPolicy(gain=((0.0, 0.0),), offset=(0.0,), std=1.0)


def point(curvature: float = 1.0) -> Linear:
    """A damped point that should be at 1 and pays for force: r = p - curvature p^2 / 2 - 0.05 u^2 / 2."""
    return Linear.from_arrays(
        transition=[[1, 0.5], [0, 0.8]],
        control=[[0], [0.5]],
        start_mean=[0, 0],
        start_std=[0.5, 0.5],
        slope=[curvature, 0, 0],
        curvature=[curvature, 0, 0.05],
    )


def linear(horizon: int = 6, count: int = 4, seed: int = 0) -> Known:
    """The point pushed at random, with its own quadratic reward as gold and proxy."""
    env, d = point(), 3
    mean, covariance = trajectory_distribution(env, PUSHES, horizon)
    variances = np.diag(covariance).reshape(horizon, d)
    codec = Codec(jnp.zeros(d), jnp.asarray(np.sqrt(variances.mean(axis=0)), jnp.float32), 2)
    scale = np.tile(np.asarray(codec.std), horizon)
    unit = Gaussian.of(
        jnp.asarray(mean / scale, jnp.float32),
        jnp.asarray(covariance / np.outer(scale, scale), jnp.float32),
        (horizon, d),
    )

    def gold(x: Float[Array, "h d"]) -> Scalar:
        plan = codec.decode(x)
        return jax.vmap(env.reward)(plan.observations, plan.actions).sum()

    prior = GaussianPrior(unit)
    draws = jax.vmap(unit.draw)(jax.random.split(jax.random.key(seed), 4096))
    values = jax.vmap(gold)(draws)
    proxy = Clean(prior, values.mean(), values.std(), gold)
    behaviour = Policy(
        {"network": jnp.zeros(1), "log_std": jnp.zeros(1)},
        *(jnp.zeros(2), jnp.ones(2), jnp.zeros(1), jnp.ones(1)),
        lambda params, z, time: params,
        False,
    )
    problem = Problem(
        denoise=prior,
        codec=codec,
        sampler=Sampler(noise.karras(32, 0.02, 10.0), (horizon, d)),
        regression=proxy,
        classifier=proxy,
        clean=proxy,
        data=draws[:512],
        dynamics=Truth(env),
        behaviour=behaviour,
    )
    starts = codec.decode(draws[:count]).observations[:, 0]

    def executed(start: Float[Array, "o"], pushes: Float[Array, "h a"]) -> Float[Array, "h d"]:
        """The plan of given forces; the dynamics are noiseless."""
        step = lambda o, u: (env.step(jax.random.key(0), env.state_of(o), u)[1].observation, o)
        return codec.encode(Trajectory(jax.lax.scan(step, start, pushes)[1], pushes))

    def answers(start: Float[Array, "o"]) -> tuple[Scalar, Scalar]:
        """E gold under the prior, and the largest: gold is a quadratic f(u) of the forces u ~ N(0, I)."""
        f = lambda pushes: gold(executed(start, pushes.reshape(horizon, 1)))
        zero = jnp.zeros(horizon)
        slope, curve = jax.grad(f)(zero), jax.hessian(f)(zero)
        return f(zero) + jnp.trace(curve) / 2, f(zero) - slope @ jnp.linalg.solve(curve, slope) / 2

    ordinary, best = jax.vmap(answers)(starts)
    draw = lambda key, start: executed(start, jax.random.normal(key, (horizon, 1)))
    return Known(problem, gold, starts, ordinary, best, draw)


def reached(known: Known, x: Float[Array, "n h d"]) -> float:
    """The share of the way from the prior's mean gold to the optimum, means over starts; plans as they are drawn."""
    gold = jax.vmap(known.gold)(x)
    return float((gold.mean() - known.ordinary.mean()) / (known.best.mean() - known.ordinary.mean()))
