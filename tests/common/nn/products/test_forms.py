"""Gradients of forms: their values, and derivatives of any order in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.products.kernels import spread, times, transpose_times
from tests.common.nn.random_inputs import normal

CASES = {
    "times": (times, lambda a, b: a @ b, (4, 2, 3), (4, 3, 5)),
    "transpose_times": (
        transpose_times,
        lambda a, b: jnp.swapaxes(a, -1, -2) @ b,
        (4, 3, 2),
        (1, 3, 5),
    ),
    "spread": (
        lambda a: spread(a, 3),
        lambda a: jnp.repeat(a[..., None, :], 3, axis=-2),
        (4, 5),
    ),
    "spread in front": (
        lambda a: spread(a, 3, axis=-3),
        lambda a: jnp.repeat(a[..., None, :, :], 3, axis=-3),
        (2, 4, 5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_in_both_modes_are_those_of_plain_products(name):
    function, plain, *shapes = CASES[name]
    inputs = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    tangents = [normal(*shape, seed=9 + k) for k, shape in enumerate(shapes)]

    def derivatives(function):
        energy = lambda inputs: jnp.sum(jnp.sin(function(*inputs)))
        slope = jax.grad(energy)
        size = lambda inputs: sum(jnp.sum(jnp.square(a)) for a in slope(inputs))
        forward = jax.jvp(slope, (inputs,), (tangents,))[1]
        return function(*inputs), slope(inputs), forward, jax.grad(size)(inputs)

    found, expected = (
        jax.jit(derivatives, static_argnums=0)(f) for f in (function, plain)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_may_be_on_any_axis_or_none(name):
    function, _, *shapes = CASES[name]
    first, *rest = (normal(*shape, seed=k) for k, shape in enumerate(shapes))
    several = jnp.stack([first, 2.0 * first, -first], axis=1)
    mapped = jax.vmap(function, in_axes=(1, *(None for _ in rest)))
    expected = jnp.stack([k * function(first, *rest) for k in (1.0, 2.0, -1.0)])
    np.testing.assert_allclose(mapped(several, *rest), expected, rtol=1e-5, atol=1e-5)


def test_operands_of_two_types_meet_in_the_wider_one():
    a, b = normal(2, 3).astype(jnp.bfloat16), normal(3, 4)
    found, pullback = jax.vjp(times, a, b)
    assert found.dtype == jnp.float32
    assert [bar.dtype for bar in pullback(found)] == [jnp.bfloat16, jnp.float32]
