"""What a method is given, what it gives back, and the one signature that all methods have.

A method that learns before it plans, such as a policy, does so in two parts (`LearningMethod`). At strength c it
maximises the mean of an objective J over starts of behaviour, and no start that its plans are scored from is among
them:

    theta_c = argmax E[J_c(theta, o)],    o the first observation of a random window of behaviour            (163)

Each batch of training has fresh starts.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float

from diffplan.codec import Cells, Codec
from diffplan.denoise import pinned
from diffplan.dynamics import Dynamics
from diffplan.flow_map import TwoTime
from diffplan.guide import Proxy
from diffplan.policy import Policy
from diffplan.samplers import Sampler, chunked, sample
from diffplan.types import Conditional, Denoise, Pins, PlanValue, PRNGKey, Scalar

Batched = TypeVar("Batched")
Call = TypeVar("Call", bound=Callable[..., Any])


def over(draw: Callable[[Any], Batched], xs: Any) -> Batched:
    """`draw` for every row of the leaves of `xs`, where each draws a whole batch of plans.

    On a CPU one batch at a time: the activations of one batch fit its caches, those of ten do not (2.4 times slower per
    plan, measured). On an accelerator all at once. Either way one compiled program serves all rows.
    """
    return jax.lax.map(draw, xs) if jax.default_backend() == "cpu" else jax.vmap(draw)(xs)


def compiled(call: Call) -> Call:
    """A method's ``__call__`` or one of its two parts as one program, where it is not part of one: compiled once for a
    problem and a size.

    Without it every call would compile its loops anew, and keep them. Leaves of a problem that are functions, as a
    denoiser that is no pytree, are part of the program.
    """

    @partial(jax.jit, static_argnums=(0, 1, 2))
    def program(method: Any, tree: Any, functions: tuple, arrays: list) -> Any:
        rest = iter(arrays)
        return call(method, *jax.tree.unflatten(tree, [next(rest) if each is None else each for each in functions]))

    @wraps(call)
    def called(method: Any, *arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return call(method, *arguments)
        functions = tuple(leaf if callable(leaf) else None for leaf in leaves)
        return program(method, tree, functions, [leaf for leaf in leaves if not callable(leaf)])

    return called  # pyright: ignore[reportReturnType]


Starts = Float[Array, "n o"]
"""Where plans begin, in the environment's units."""

Grid = Float[Array, "s"]
"""Strengths."""


@struct.dataclass
class Problem:
    """All that a method may use. The true reward is not in it. A pytree: parameters are traced, structure is static.

    What only some methods use may be None; `need` names it. The proxies are readings of the same labels.
    """

    denoise: Denoise
    """The prior."""
    codec: Codec | Cells
    sampler: Sampler
    """How plans are drawn from the prior, guided or not."""
    regression: Proxy | None = None
    """Noise-conditioned regression of the return."""
    classifier: Proxy | None = None
    """Noise-conditioned classifier of a return in the top quantile."""
    clean: Proxy | None = None
    """Regression of the return that has only seen clean plans."""
    conservative: Proxy | None = None
    """The clean regression, trained so that ascent on it gains little."""
    shuffled: Proxy | None = None
    """Noise-conditioned regression of labels that were dealt out at random: a null control."""
    untrained: Proxy | None = None
    """Noise-conditioned regression by a network as it was initialised: a null control."""
    data: Float[Array, "m h d"] | None = None
    """Windows of behaviour, in normalised units."""
    dynamics: Dynamics | None = None
    """What an action really does."""
    model: Dynamics | None = None
    """What a model learned from transitions says that it does."""
    behaviour: Policy | None = None
    """The policy that the behaviour data show: what learned policies start from and are held to."""
    value: PlanValue | None = None
    """The score to be expected of a plan whose first rows are known and which goes on as behaviour does; learned."""
    second: Proxy | None = None
    """Another learned reward, for methods that weigh two."""
    conditional: Conditional | None = None
    """The prior given conditions, for classifier-free guidance."""
    contrastive: Any | None = None
    """The exact energy of the regression's reward, by weight (`diffplan.learn.contrastive`)."""
    flow_map: TwoTime | None = None
    """Takes a plan from one noise level to any lower one (`diffplan.flow_map`)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(h, d) of a plan."""
        return self.sampler.shape

    @property
    def horizon(self) -> int:
        """h, the number of steps of a plan."""
        return self.sampler.shape[0]

    def pins(self, start: Float[Array, "o"]) -> Pins:
        """A plan that begins at `start`, in environment units."""
        return self.codec.pin(self.horizon, start)


def need(problem: Problem, name: str, method: str) -> Any:
    """A part of the problem that not all have.

    Raises:
        ValueError: if it is None.
    """
    part = getattr(problem, name)
    if part is None:
        raise ValueError(f"method {method}: the problem has no {name}")
    return part


@struct.dataclass
class Plans:
    """What a method returns: plans for each strength and start. Costs are counted from outside: `diffplan.count`.

    x: normalised units. path_kl: nats, NaN where the method has no noisy chain. exact_kl: nats, NaN where it is not
    known.
    ess: effective share of weighted candidates, NaN where plans have no weights.
    """

    x: Float[Array, "s n h d"]
    path_kl: Float[Array, "s n"]
    exact_kl: Float[Array, "s"]
    ess: Float[Array, "s"]

    @classmethod
    def of(
        cls,
        x: Float[Array, "s n h d"],
        path_kl: Float[Array, "s n"] | None = None,
        exact_kl: Float[Array, "s"] | None = None,
        ess: Float[Array, "s"] | None = None,
    ) -> "Plans":
        """Plans with what is known of them; what is not given is NaN."""
        unknown = undefined(x[:, 0, 0, 0])
        known = lambda value: unknown if value is None else value
        return cls(x, undefined(x[:, :, 0, 0]) if path_kl is None else path_kl, known(exact_kl), known(ess))


def sweep(
    one: Callable[[PRNGKey, Float[Array, "o"], Scalar], Batched],
    key: PRNGKey,
    starts: Float[Array, "n o"],
    strengths: Float[Array, "s"],
) -> Batched:
    """`one(key, start, strength)` for every strength and start. A start has the same key at all strengths."""
    s, n = len(strengths), len(starts)
    keys = jnp.broadcast_to(jax.random.split(key, n)[None], (s, n)).reshape(s * n)
    plans = chunked(one, keys, jnp.tile(starts, (s, 1)), jnp.repeat(strengths, n))
    return jax.tree.map(lambda a: a.reshape(s, n, *a.shape[1:]), plans)


def each_start(
    one: Callable[[PRNGKey, Float[Array, "o"]], Float[Array, "s h d"]], key: PRNGKey, starts: Float[Array, "n o"]
) -> Plans:
    """Plans of methods that read all strengths from one run: `one(key, start)` for every start."""
    return Plans.of(jax.vmap(one, out_axes=1)(jax.random.split(key, len(starts)), starts))


def draw_plans(
    key: PRNGKey,
    problem: Problem,
    starts: Float[Array, "n o"],
    strengths: Float[Array, "s"],
    denoiser: Callable[[Scalar], Denoise],
    reference: Denoise,
) -> Plans:
    """Draw a plan for every strength and start.

    Args:
        key: consumed. A start sees the same noise at all strengths, so that its plan can be followed along them.
        problem: of which the sampler and the codec are used.
        starts: first observations, in environment units.
        strengths: any numbers that the denoiser takes.
        denoiser: of one strength, without the start, to which it is pinned here.
        reference: the denoiser from which the path KL is measured, without the start.

    Returns:
        The plans, with their path KL.
    """

    def one(key: PRNGKey, start: Float[Array, "o"], strength: Scalar) -> tuple[Array, Array]:
        pins = problem.pins(start)
        x, info = sample(key, pinned(denoiser(strength), pins), problem.sampler, pinned(reference, pins))
        return x, info.path_kl

    return Plans.of(*sweep(one, key, starts, strengths))


def undefined(like: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """A quantity that a method does not have."""
    return jnp.full(like.shape, jnp.nan)


@runtime_checkable
class Method(Protocol):
    """An optimiser of the learned reward, with one strength_name."""

    @property
    def name(self) -> str:
        """As it stands in tables and figures."""
        ...

    @property
    def strength_name(self) -> str:
        """What its strength is, with its unit."""
        ...

    @property
    def strengths(self) -> tuple[float, ...]:
        """Weakest first; where it can, the weakest gives back the prior."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all strengths are read from the run of the largest, ``max(self.strengths)``: it alone is paid for."""
        ...

    @property
    def proxy(self) -> Callable[[Problem], Proxy]:
        """Which learned reward it pushes; its plans are reported by that proxy's score."""
        ...

    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Plans for all strengths and starts at once; `key` is consumed. Called under jit."""
        ...


Learned = Any
"""What a method learned before it plans: a pytree whose leaves are ``[s, ...]``, one entry for each strength."""


@runtime_checkable
class LearningMethod(Method, Protocol):
    """A method that learns before it plans. The two parts are counted and timed apart; `fit_and_draw` composes them."""

    def fit(self, key: PRNGKey, problem: Problem, strengths: Grid) -> Learned:
        """Equation (163) for all strengths; `key` is consumed. Called under jit."""
        ...

    def draw(self, key: PRNGKey, problem: Problem, learned: Learned, starts: Starts, strengths: Grid) -> Plans:
        """Plans for all strengths and starts at once; `key` is consumed. Called under jit."""
        ...

    def longer(self, factor: int) -> "LearningMethod":
        """The same method with so many times as many updates."""
        ...


def fit_and_draw(method: LearningMethod, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
    """Both parts of a method that learns."""
    key_fit, key_draw = jax.random.split(key)
    return method.draw(key_draw, problem, method.fit(key_fit, problem, strengths), starts, strengths)


def behaviour_starts(key: PRNGKey, problem: Problem, count: int, method: str) -> Starts:
    """Starts of behaviour as in (163), in environment units. method: the name of who asks."""
    windows = need(problem, "data", method)
    return problem.codec.decode(windows[jax.random.choice(key, len(windows), (count,))]).observations[:, 0]
