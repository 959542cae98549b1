"""Spherical harmonics against e3nn-jax; exactness of the grid on the sphere."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.so3 import harmonics


def reference(vectors, max_degree, normalize=True):
    irreps = e3nn.Irreps.spherical_harmonics(max_degree)
    array = e3nn.IrrepsArray("1o", vectors)
    return e3nn.spherical_harmonics(
        irreps, array, normalize, normalization="component"
    ).array


@pytest.fixture(scope="module")
def vectors():
    return jax.random.normal(jax.random.key(0), (40, 3))


@pytest.mark.parametrize("max_degree", [0, 1, 2, 3, 6])
def test_values_and_gradients_are_those_of_e3nn(vectors, max_degree):
    ours = harmonics.spherical_harmonics(vectors, max_degree)
    cotangent = jax.random.normal(jax.random.key(1), ours.shape)

    def pulled_back(function):
        return jax.jit(jax.grad(lambda v: jnp.vdot(function(v, max_degree), cotangent)))

    np.testing.assert_allclose(ours, reference(vectors, max_degree), atol=1e-5)
    # Gradients grow as one over the length of the vector; the tolerance is relative.
    expected = pulled_back(reference)(vectors)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        pulled_back(harmonics.spherical_harmonics)(vectors) / scale,
        expected / scale,
        atol=1e-5,
    )


def test_unnormalised_harmonics_are_homogeneous_polynomials(vectors):
    ours = harmonics.spherical_harmonics(vectors, 4, normalize=False)
    np.testing.assert_allclose(
        ours, reference(vectors, 4, normalize=False), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_zero_vector_has_finite_value_and_gradient(normalize):
    zero = jnp.zeros(3)
    value = harmonics.spherical_harmonics(zero, 6, normalize)
    jacobian = jax.jacobian(harmonics.spherical_harmonics)(zero, 6, normalize)
    np.testing.assert_array_equal(value, np.eye(49)[0])
    assert np.all(np.isfinite(jacobian))


def test_reflection_flips_odd_degrees_only(vectors):
    parity = np.repeat([1, -1, 1, -1, 1], [1, 3, 5, 7, 9])
    np.testing.assert_allclose(
        harmonics.spherical_harmonics(-vectors, 4),
        parity * harmonics.spherical_harmonics(vectors, 4),
        atol=1e-6,
    )
