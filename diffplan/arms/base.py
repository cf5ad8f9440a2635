"""What an arm is given, what it gives back, and the one signature that all arms have."""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from diffplan.codec import Codec
from diffplan.denoise import Edm
from diffplan.guide import Proxy
from diffplan.sample import Step
from diffplan.types import Pins, PRNGKey

Batched = TypeVar("Batched")


def over(draw: Callable[[Array], Batched], xs: Array) -> Batched:
    """`draw` for every row of `xs`, where each draws a whole batch of plans.

    On a CPU one batch at a time: the activations of one batch fit its caches, those of ten do not (2.4 times slower per
    plan, measured). On an accelerator all at once. Either way one compiled program serves all rows.
    """
    return jax.lax.map(draw, xs) if jax.default_backend() == "cpu" else jax.vmap(draw)(xs)


@struct.dataclass
class Problem:
    """All that an arm may use. The gold reward is not in it. A pytree: parameters are traced, structure is static."""

    denoise: Edm
    """The prior."""
    regression: Proxy
    """Noise-conditioned regression of the return."""
    classifier: Proxy
    """Noise-conditioned classifier of a return in the top quantile."""
    clean: Proxy
    """Regression of the return that has only seen clean plans."""
    codec: Codec
    sigmas: Float[Array, "k"]
    """The sampling grid."""
    horizon: int = struct.field(pytree_node=False)
    step: Step = struct.field(pytree_node=False)
    """The sampler's step rule."""

    @property
    def shape(self) -> tuple[int, int]:
        """(h, d) of a plan."""
        return self.horizon, self.codec.mean.size

    def pins(self, start: Float[Array, "o"]) -> Pins:
        """A plan that begins at `start`, in environment units."""
        return self.codec.pin(self.horizon, start)


@struct.dataclass
class Cost:
    """Evaluations made for one plan of each strength, had that strength been run alone, ``[s]`` each.

    A gradient counts as one evaluation of what it differentiates. env_steps: steps taken in an environment or its
    model.
    """

    network_evals: Float[Array, "s"]
    proxy_evals: Float[Array, "s"]
    env_steps: Float[Array, "s"]

    @classmethod
    def of(
        cls, strengths: Float[Array, "s"], network_evals: float | Array = 0.0, proxy_evals: float | Array = 0.0
    ) -> "Cost":
        """Broadcast numbers over the strengths; no environment steps."""
        full = lambda value: jnp.broadcast_to(jnp.asarray(value, jnp.float32), strengths.shape)
        return cls(full(network_evals), full(proxy_evals), full(0.0))


@struct.dataclass
class Plans:
    """What an arm returns: plans for each strength and start, and what they cost.

    x: normalised units. path_kl: nats, NaN where the arm has no noisy chain. exact_kl: nats, NaN where it is not known.
    """

    x: Float[Array, "s n h d"]
    path_kl: Float[Array, "s n"]
    exact_kl: Float[Array, "s"]
    cost: Cost


@runtime_checkable
class Arm(Protocol):
    """An optimiser of the learned reward, with one dial."""

    @property
    def name(self) -> str:
        """As it stands in tables and figures."""
        ...

    @property
    def dial(self) -> str:
        """What its strength is, with its unit."""
        ...

    @property
    def strengths(self) -> tuple[float, ...]:
        """Weakest first; where it can, the weakest gives back the prior."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all strengths are read from the run of the largest, so that it alone is paid for."""
        ...

    @property
    def proxy(self) -> Callable[[Problem], Proxy]:
        """Which learned reward it pushes; its plans are reported by that proxy's score."""
        ...

    def __call__(
        self, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
    ) -> Plans:
        """Plans for all strengths and starts at once; `key` is consumed. Called under jit."""
        ...
