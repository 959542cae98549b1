"""Radial bases against e3nn-jax, and their behaviour at zero and at the cutoff."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn import radial


def test_bessel_functions_are_those_of_e3nn_and_orthonormal():
    cutoff, num_basis = 5.0, 6
    distances = jnp.linspace(0.0, cutoff, 2001)
    basis = radial.bessel_basis(distances, num_basis, cutoff)
    np.testing.assert_allclose(
        basis[1:], e3nn.bessel(distances[1:], num_basis, cutoff), atol=1e-5
    )
    weighted = basis * distances[:, None]
    gram = weighted.T @ weighted * (cutoff / 2000)
    np.testing.assert_allclose(gram, np.eye(num_basis), atol=1e-3)


def test_bessel_functions_and_their_gradient_are_finite_at_zero():
    one = lambda d: radial.bessel_basis(d, 4, 5.0)
    limit = np.sqrt(2 / 5.0) * np.arange(1, 5) * np.pi / 5.0
    np.testing.assert_allclose(one(jnp.array(0.0)), limit, rtol=1e-6)
    np.testing.assert_array_equal(jax.jacobian(one)(jnp.array(0.0)), 0.0)
    near = jax.jacobian(one)(jnp.array(1e-3))
    np.testing.assert_allclose(
        near, -limit * (np.arange(1, 5) * np.pi / 5) ** 2 * 1e-3 / 3, rtol=1e-3
    )


@pytest.mark.parametrize("p", [2, 6])
def test_envelope_and_two_derivatives_vanish_at_the_cutoff(p):
    envelope = lambda d: radial.polynomial_envelope(d, 4.0, p)
    slope = jax.grad(envelope)
    curvature = jax.grad(slope)
    assert envelope(jnp.array(0.0)) == 1.0
    for distance in (4.0, 4.5, 100.0):
        assert envelope(jnp.array(distance)) == 0.0
    for derivative in (envelope, slope, curvature):
        assert abs(float(derivative(jnp.array(3.9999)))) < 2e-3
    x = jnp.linspace(0.0, 0.99, 30)
    expected = (
        1
        - (p + 1) * (p + 2) / 2 * x**p
        + p * (p + 2) * x ** (p + 1)
        - p * (p + 1) / 2 * x ** (p + 2)
    )
    np.testing.assert_allclose(envelope(4.0 * x), expected, atol=1e-5)


def test_gaussians_peak_at_their_centres():
    values = radial.gaussian_basis(jnp.linspace(0.0, 2.0, 5), 0.0, 2.0, 5)
    np.testing.assert_array_equal(jnp.argmax(values, axis=1), range(5))
    np.testing.assert_allclose(jnp.diagonal(values), 1.0)
    np.testing.assert_allclose(values[0, 1], np.exp(-0.5), rtol=1e-6)
