"""What the benchmark of precision rounds, and what it leaves as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.precision import with_rounded_factors
from common.nn.products.kernels import expand, times
from tests.common.nn.random_inputs import normal


def rounded(array):
    return jax.lax.reduce_precision(array, 8, 7)


@pytest.mark.parametrize("product", [jnp.matmul, times])
def test_factors_are_rounded_inside_of_loops_and_custom_derivatives(product):
    a, b = normal(3, 3), normal(3, 3, seed=1)
    step = jax.custom_vjp(lambda a, b: product(a, b))
    step.defvjp(lambda a, b: (step(a, b), None), lambda _, bar: (bar, bar))

    def power(a, b):
        return jax.lax.scan(lambda carry, _: (step(a, carry), carry[0]), b, length=2)

    (found, rows), once = with_rounded_factors(power, 7)(a, b), rounded(a) @ rounded(b)
    np.testing.assert_allclose(found, rounded(a) @ rounded(once), rtol=1e-5)
    np.testing.assert_allclose(rows, jnp.stack([b[0], once[0]]), rtol=1e-5)
    whole = with_rounded_factors(power, 23)(a, b)[0]
    np.testing.assert_allclose(whole, a @ (a @ b), rtol=1e-5)
    assert np.max(np.abs(found - whole)) > 1e-4


def test_tables_are_never_rounded():
    values, table = normal(5, 3), np.asarray(normal(3, 4, seed=1))
    (found,) = with_rounded_factors(lambda values: expand(values, table), 7)(values)
    np.testing.assert_allclose(found, values @ table, rtol=1e-5, atol=1e-6)
