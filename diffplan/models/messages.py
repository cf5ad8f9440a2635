"""A network of messages: what a plan's earlier and later steps say of each, passed along it as an exact filter would.

A chain's filter (19) predicts by a matrix, weighs by the evidence of the step and rescales. Here the same is done with
learned matrices of any sign, from either end, on w hidden numbers instead of the states:

    a_t = F s_t-1 + f,   s_t = rescaled(a_t * A x_t)            b_t = B r_t+1 + g,   r_t = rescaled(b_t * C x_t)
    y_t = MLP(rescaled a_t, rescaled b_t, D x_t),               rescaled v = v / root mean square of v         (12b)

Products in a recurrence are multiplicative integration (Wu et al. 2016, arXiv 1606.06630). a_t and b_t have not seen
step t, as the messages of belief propagation. With the kernel for F and likelihoods for A x they are the filter's
predictions, which a test holds them to. What is learned of a move is known at every step, and to a plan of any length.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

UNLIKELY = 1e-20
"""What stands for 0 in a likelihood, and under a logarithm."""


def rescaled(v: Float[Array, "w"]) -> Float[Array, "w"]:
    """v at root mean square 1; 0 stays 0."""
    return v * jax.lax.rsqrt(jnp.mean(v**2) + 1e-6)


def normalised(v: Float[Array, "k"]) -> Float[Array, "k"]:
    """v over its sum: a distribution, if no entry is negative and one is positive."""
    return v / v.sum()


def passed(
    predict: Callable[[Array], Array],
    first: Float[Array, "w"],
    evidence: Float[Array, "h w"],
    reverse: bool = False,
    rescale: Callable[[Array], Array] = rescaled,
) -> Float[Array, "h w"]:
    """The predictions a_t of (12b) along the plan, or b_t against it.

    first: the prediction of the first step, or of the last if `reverse`.
    """

    def step(ahead: Float[Array, "w"], observed: Float[Array, "w"]) -> tuple[Array, Array]:
        return predict(rescale(ahead * observed)), ahead

    return jax.lax.scan(step, first, evidence, reverse=reverse)[1]


class Messages(nnx.Module):
    """``x[h, d]``, ``c_noise[]`` to ``[h, out]``; the noise level is one more entry of every step."""

    def __init__(self, dim: int, out: int, *, width: int = 64, hidden: int = 128, rngs: nnx.Rngs):
        linear = lambda inputs, outputs: nnx.Linear(inputs, outputs, rngs=rngs)
        self.forward, self.backward = linear(width, width), linear(width, width)
        self.first, self.last = nnx.Param(jnp.ones(width)), nnx.Param(jnp.ones(width))
        self.seen_forward, self.seen_backward = linear(dim + 1, width), linear(dim + 1, width)
        self.own = linear(dim + 1, width)
        self.inner, self.outer = linear(3 * width, hidden), linear(hidden, hidden)
        self.out = nnx.Linear(hidden, out, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def messages(self, read: Float[Array, "h i"]) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
        """(a, b) of (12b), from the plan with its noise level."""
        first, last = self.forward(self.first[...]), self.backward(self.last[...])
        along = passed(self.forward, first, self.seen_forward(read))
        against = passed(self.backward, last, self.seen_backward(read), reverse=True)
        return along, against

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, "h o"]:
        read = jnp.concatenate([x, jnp.broadcast_to(c_noise, (len(x), 1))], axis=1)
        along, against = self.messages(read)
        joined = jnp.concatenate([jax.vmap(rescaled)(along), jax.vmap(rescaled)(against), self.own(read)], axis=1)
        return self.out(nnx.silu(self.outer(nnx.silu(self.inner(joined)))))


class Chained(nnx.Module):
    """`Messages`, added to the exact messages of a hidden Markov chain: ``x[h, k]``, ``c_noise[]`` to ``[h, k]``.

    Every point has c states of the chain, which are next to each other. With x_t the root of step t's likelihood over k
    points, as `diffplan.denoise.CategoricalDenoiser` gives it, l_t its square for every state of a point, p the
    distribution of the first state, P the kernel and * by entries,

        a_1 = p,  a_t = P^T s_t-1,   s_t ~ a_t * l_t        b_h = 1,  b_t = P r_t+1,   r_t ~ b_t * l_t
        y_t = log sum over the states of a point of a_t * b_t  +  Messages(x)_t                       (12d)

    with s_t and r_t distributions, so that the denoiser starts as the exact posterior of the chain, and what is learned
    is what a plan has beyond it. The chain is among the parameters; it starts as the one that is given.
    """

    def __init__(
        self,
        log_start: Float[Array, "s"],
        log_kernel: Float[Array, "s s"],
        points: int,
        *,
        width: int = 64,
        hidden: int = 128,
        rngs: nnx.Rngs,
    ):
        self.log_start, self.log_kernel = nnx.Param(log_start), nnx.Param(log_kernel)
        self.states = len(log_start) // points
        self.beyond = Messages(points, points, width=width, hidden=hidden, rngs=rngs)

    def __call__(self, x: Float[Array, "h k"], c_noise: Float[Array, ""]) -> Float[Array, "h k"]:
        start, kernel = jax.nn.softmax(self.log_start[...]), jax.nn.softmax(self.log_kernel[...])
        likelihood = jnp.repeat(jnp.maximum(x**2, UNLIKELY), self.states, axis=1)
        ahead = passed(lambda state: state @ kernel, start, likelihood, False, normalised)
        back = passed(lambda state: kernel @ state, jnp.ones_like(start), likelihood, True, normalised)
        posterior = (ahead * back).reshape(len(x), -1, self.states).sum(axis=2)
        return jnp.log(jnp.maximum(posterior, UNLIKELY)) + self.beyond(x, c_noise)


class MessagesValue(nnx.Module):
    """A learned reward's or energy's network of the same kind: ``x[h, d]``, ``c_noise[]`` to one number.

    The mean over steps of a readout, so that an additive reward is easy to say.
    """

    def __init__(self, dim: int, *, width: int = 64, hidden: int = 128, rngs: nnx.Rngs):
        self.net = Messages(dim, 1, width=width, hidden=hidden, rngs=rngs)

    def __call__(self, x: Float[Array, "h d"], c_noise: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.mean(self.net(x, c_noise))
