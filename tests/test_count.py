"""Costs that are read off a program: held to numbers that anyone can count."""

import jax
import jax.numpy as jnp
import pytest

from diffplan.count import count, counted, uncounted

network = lambda x: counted("network_evals", jnp.tanh(x))
proxy = lambda x: counted("proxy_evals", jnp.sum(network(x) ** 2))
step = lambda x: counted("env_steps", x + 1)


def counts(function, *arguments) -> tuple[float, ...]:
    return tuple(count(function, *arguments).values())


X, MANY = jnp.ones(3), jnp.ones((7, 3))


@pytest.mark.parametrize(
    ("function", "argument", "expected"),
    [
        (network, X, (1, 0, 0)),
        (jax.jit(proxy), X, (1, 1, 0)),
        (jax.grad(proxy), X, (2, 2, 0)),  # forwards, and backwards
        (jax.vmap(jax.value_and_grad(proxy)), MANY, (14, 14, 0)),
        (lambda x: jax.jvp(proxy, (x,), (x,)), X, (2, 2, 0)),
        (jax.grad(lambda x: jax.lax.scan(lambda c, _: (network(c), None), x, length=9)[0].sum()), X, (18, 0, 0)),
        (jax.grad(lambda x: jnp.sum(x * jax.lax.stop_gradient(network(x)))), X, (1, 0, 0)),
        (lambda xs: jax.lax.map(jax.vmap(step), xs), jnp.ones((5, 7, 3)), (0, 0, 35)),
        (lambda x: jax.lax.scan(lambda c, _: (step(network(c)), None), x, length=9)[0], X, (9, 0, 9)),
        (lambda x: jax.lax.fori_loop(0, 4, lambda i, c: step(c), x), X, (0, 0, 4)),
        (lambda x: jax.lax.cond(x.sum() > 0, lambda x: step(step(x)), network, x), X, (1, 0, 2)),  # at most
        (jax.vmap(lambda x: network(X) + x), MANY, (1, 0, 0)),  # what no plan changes is evaluated once
        (lambda x: jax.checkpoint(network)(x), X, (1, 0, 0)),
    ],
)
def test_evaluations_are_counted_through_loops_batches_and_gradients(function, argument, expected):
    assert counts(function, argument) == expected


def test_what_only_measures_is_not_counted():
    def measured(x):
        with uncounted():
            y = network(x)
        return y + step(x)

    assert counts(measured, X) == (0, 0, 1)


def test_marks_change_no_value():
    assert proxy(X) == jnp.sum(jnp.tanh(X) ** 2)


def test_a_loop_of_unknown_length_is_named():
    endless = lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, step, x)
    with pytest.raises(ValueError, match="while loop cannot be counted"):
        count(endless, X)
