"""Lengths and directions, and their gradients at zero."""

import jax
import jax.numpy as jnp
import numpy as np

from common.so3 import vectors


def test_norm_of_a_zero_vector_has_zero_gradient():
    np.testing.assert_array_equal(jax.grad(vectors.safe_norm)(jnp.zeros(3)), 0.0)
    np.testing.assert_allclose(vectors.safe_norm(jnp.array([[3.0, 4.0, 0.0]])), 5.0)


def test_direction_of_a_zero_vector_is_zero_with_zero_gradient():
    np.testing.assert_array_equal(vectors.unit_vectors(jnp.zeros(3)), 0.0)
    jacobian = jax.jacobian(vectors.unit_vectors)(jnp.zeros(3))
    np.testing.assert_array_equal(jacobian, 0.0)


def test_directions_have_length_one():
    given = jax.random.normal(jax.random.key(0), (6, 3))
    np.testing.assert_allclose(
        vectors.safe_norm(vectors.unit_vectors(given)), 1.0, rtol=1e-6
    )
