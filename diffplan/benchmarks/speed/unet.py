"""Diffuser's U-Net, the same weights and steps here and in PyTorch: sampling and training.

PyTorch runs eagerly, as the peers ship it, and compiled (`torch.compile`), in turn with JAX. That both networks give
the same output is asserted first. A call that samples goes from noise to plans; training is `TRAINED` steps of Adam.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffplan import models, noise
from diffplan.benchmarks.speed.timing import interleaved, row
from diffplan.denoise import Edm, loss
from diffplan.noise import LogNormal
from diffplan.samplers import Sampler, chunked, sample
from diffplan.settings import ConfigError

SHAPE, PLANS, WINDOWS, TRAINED = (128, 6), 64, 32, 4
"""A plan in Maze2D, plans of a batch, windows of a training step, training steps of a call."""

LOW, HIGH = 0.02, 20.0
"""The noise levels."""


def sampler(apply: Any, params: Any, steps: int) -> Callable[[], Any]:
    """One compiled call from keys to plans, with fresh keys each time."""
    how = Sampler(noise.karras(steps, LOW, HIGH), SHAPE)
    one = lambda params, key: sample(key, Edm(params, apply), how)[0]
    plans = jax.jit(lambda key, params: chunked(lambda key: one(params, key), jax.random.split(key, PLANS)))
    seeds = itertools.count()
    return lambda: plans(jax.random.key(next(seeds)), params)


def trainer(apply: Any, params: Any) -> Callable[[], Any]:
    """`TRAINED` updates in one compiled scan: the project's loss, Adam as Diffuser sets it."""
    adam, free = optax.adam(2e-4), jnp.zeros(SHAPE, bool)
    data = jax.random.normal(jax.random.key(1), (WINDOWS, *SHAPE))

    def mean_loss(params: Any, key: Any) -> Any:
        keys = jax.random.split(key, WINDOWS)
        return jax.vmap(lambda k, x0: loss(k, Edm(params, apply), x0, free, LogNormal())[0])(keys, data).mean()

    def update(carry: Any, key: Any) -> tuple[Any, Any]:
        params, state = carry
        value, grads = jax.value_and_grad(mean_loss)(params, key)
        updates, state = adam.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    train = jax.jit(lambda params, state, key: jax.lax.scan(update, (params, state), jax.random.split(key, TRAINED)))
    state = adam.init(params)
    return lambda: train(params, state, jax.random.key(2))


def compare(steps: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    """A row for each library, eager and compiled, of sampling and of training, and the ratios of PyTorch to JAX.

    Raises:
        ConfigError: if JAX is on an accelerator, if PyTorch is missing, or if the two networks give different outputs.
    """
    if jax.default_backend() != "cpu":
        raise ConfigError("parts=torch: compares CPUs, and JAX found an accelerator: set JAX_PLATFORMS=cpu")
    try:
        import torch

        from diffplan.benchmarks.speed import torch_unet
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError("parts=torch: needs PyTorch: pip install 'diffplan[bench]', or leave it out") from None
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    apply, params = models.build(jax.random.key(0), lambda rngs: models.TemporalUNet(SHAPE[1], rngs=rngs))
    network = torch_unet.TorchUNet(SHAPE[1])
    torch_unet.load(network, params)
    assert_same(network, apply, params)
    sigmas = [float(sigma) for sigma in noise.karras(steps, LOW, HIGH)]
    adam, data = torch.optim.Adam(network.parameters(), lr=2e-4), torch.randn(WINDOWS, *SHAPE)
    compiled = torch.compile(network, dynamic=False)
    plans = lambda network: partial(torch_unet.ancestral, network, sigmas, (PLANS, *SHAPE))

    def steps_of(network: Any) -> None:
        for _ in range(TRAINED):
            torch_unet.train_step(network, adam, data)

    train = lambda network: partial(steps_of, network)
    sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "torch": (plans(network), train(network)),
        "torch.compile": (plans(compiled), train(compiled)),
    }
    sides["jax"] = (sampler(apply, params, steps), trainer(apply, params))
    rows = []
    whats = (
        (f"U-Net, {PLANS} plans, {steps} ancestral steps", PLANS, "plans/s"),
        (f"U-Net, {TRAINED} training steps of {WINDOWS}", TRAINED, "steps/s"),
    )
    for which, (what, items, unit) in enumerate(whats):
        timings = interleaved({who: calls[which] for who, calls in sides.items()}, repeats, "bench torch")
        new = [row("torch", what, timing, items, unit) | {"who": who} for who, timing in timings.items()]
        for each in new[:-1]:
            pairs = np.divide(timings[each["who"]].seconds, timings["jax"].seconds).tolist()
            each |= {"over_jax": float(np.median(pairs)), "over_jax_min": min(pairs), "over_jax_max": max(pairs)}
        rows += new
    return rows


def assert_same(network: Any, apply: Any, params: Any) -> None:
    """Raise ConfigError unless both networks give the same output, to 1e-4, over the noise levels."""
    import torch

    x, levels = jax.random.normal(jax.random.key(3), (4, *SHAPE)), jnp.linspace(-1.5, 1.0, 4)
    ours = np.asarray(jax.vmap(apply, (None, 0, 0))(params, x, levels))
    with torch.no_grad():
        theirs = network(torch.tensor(np.asarray(x)), torch.tensor(np.asarray(levels))).numpy()
    if not (difference := float(np.abs(ours - theirs).max())) < 1e-4:
        raise ConfigError(f"parts=torch: the two U-Nets disagree by {difference:.1e}: their times would mean nothing")
