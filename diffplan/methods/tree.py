"""Tree search over moves, by Gumbel MuZero (Danihelka et al. 2022) as `mctx` carries it out: needs the `search` extra.

At every step of a plan a tree is grown from the cell that it has come to, one node a simulation. With x the plan up to
the node's step t, a node says

    reward = score(x) if t is the last step, else 0,      value = V(x, t + 1) before the last step, else 0      (82)

and for the prior of its moves what the behaviour policy says. The move that comes out is carried out, and the next
search begins from where it leads.

Without simulations a move is the behaviour's own; with one it is too, for one move is not compared with any. With more,
and exact values, it is better in expectation (their section 3). Scores need no scale: a node brings the values of its
moves to [0, 1], where they weigh (50 + visits) * `value_scale` against the logits. An edge has one outcome: where moves
are random, the first that is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffplan.codec import Cells
from diffplan.dynamics import Dynamics
from diffplan.guide import Proxy
from diffplan.methods.base import Grid, Plans, Problem, Starts, compiled, need
from diffplan.methods.guidance import regression
from diffplan.methods.shooting import true
from diffplan.policy import Policy
from diffplan.types import PlanValue, PRNGKey, Scalar, Trajectory


class Node(NamedTuple):
    """A plan so far: its rows, of which those after `step` are blank, and the place that it has come to."""

    x: Float[Array, "*n h k"]
    place: Float[Array, "*n o"]
    step: Int[Array, "*n"]


class Game(NamedTuple):
    """The dynamics, the prior of moves and the scores of nodes."""

    codec: Cells
    dynamics: Dynamics
    behaviour: Policy
    proxy: Proxy
    value: PlanValue

    def logits(self, node: Node) -> Float[Array, "m"]:
        """The prior of its moves."""
        return self.behaviour.distribution(node.place, node.step / (len(node.x) - 1)).centre

    def step_from(self, key: PRNGKey, node: Node, move: Int[Array, ""]) -> Node:
        """The node that a move leads to. Past the last step nothing is written."""
        action = jax.nn.one_hot(move, len(self.dynamics.action_low))
        place, _ = self.dynamics(key, node.place, action)
        row = self.codec.encode(Trajectory(place[None], action[None]))[0]
        return Node(node.x.at[node.step + 1].set(row), place, node.step + 1)

    def evaluate(self, node: Node) -> tuple[Scalar, Scalar, Scalar]:
        """(reward, 1 where the plan goes on, value) of (82)."""
        last = len(node.x) - 1
        reward = jnp.where(node.step == last, self.proxy.score(node.x), 0.0)
        value = jnp.where(node.step < last, self.value(node.x, node.step + 1), 0.0)
        return reward, (node.step < last).astype(value.dtype), value


@dataclass(frozen=True)
class Tree:
    """Tree search for the moves of one-hot plans.

    The number of simulations is a shape, so it is not traced: `strengths` as it is called with must be the method's
    own.
    """

    strengths: tuple[float, ...]
    name: str = "tree"
    dynamics: Callable[[Problem], Dynamics] = true
    proxy: Callable[[Problem], Proxy] = regression
    value_scale: float = 1.0
    """Weight of values against the logits: 1 in the paper for Go, 0.1 for Atari."""
    strength_name: str = "simulations"
    shared: bool = False

    @compiled
    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Every strength is a search of its own.

        Raises:
            ValueError: if plans are not one-hot.
        """
        if not isinstance(problem.codec, Cells):
            raise ValueError(
                f"method {self.name}: codec={type(problem.codec).__name__}: must be Cells, whose moves it tries"
            )
        behaviour, value = (need(problem, part, self.name) for part in ("behaviour", "value"))
        game = Game(problem.codec, self.dynamics(problem), behaviour, self.proxy(problem), value)
        roots = Node(
            jax.vmap(lambda start: problem.pins(start).value)(starts), starts, jnp.zeros(len(starts), jnp.int32)
        )
        return Plans.of(jnp.stack([self.plans(key, game, roots, round(s)) for s in self.strengths]))

    def plans(self, key: PRNGKey, game: Game, roots: Node, simulations: int) -> Float[Array, "n h k"]:
        """One plan a root, searched side by side."""

        def body(node: Node, key: PRNGKey) -> tuple[Node, None]:
            key_move, key_step = jax.random.split(key)
            move = self.moves(key_move, game, node, simulations)
            return jax.vmap(game.step_from)(jax.random.split(key_step, len(move)), node, move), None

        return jax.lax.scan(body, roots, jax.random.split(key, roots.x.shape[1] - 1))[0].x

    def moves(self, key: PRNGKey, game: Game, node: Node, simulations: int) -> Int[Array, "n"]:
        """The next move of every plan."""
        logits = jax.vmap(game.logits)
        if simulations == 0:
            return jax.random.categorical(key, logits(node))
        mctx: Any = import_module("mctx")  # its data classes hide their fields from a type checker

        def expand(_: None, key: PRNGKey, move: Int[Array, "n"], node: Node) -> tuple[Any, Node]:
            node = jax.vmap(game.step_from)(jax.random.split(key, len(move)), node, move)
            reward, goes_on, value = jax.vmap(game.evaluate)(node)
            output = mctx.RecurrentFnOutput(reward=reward, discount=goes_on, value=value, prior_logits=logits(node))
            return output, node

        value = jax.vmap(game.value)(node.x, node.step + 1)
        root = mctx.RootFnOutput(prior_logits=logits(node), value=value, embedding=node)
        scaled = partial(mctx.qtransform_completed_by_mix_value, value_scale=self.value_scale)
        return mctx.gumbel_muzero_policy(None, key, root, expand, simulations, qtransform=scaled).action
