"""Activations: second moments of normal numbers, and values known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.nn import activations

ALL = (activations.swish, activations.softplus, activations.shifted_softplus)


@pytest.mark.parametrize("activation", ALL)
def test_the_second_moment_of_a_normal_number_is_one(activation):
    z, step = np.linspace(-10.0, 10.0, 4001, retstep=True, dtype=np.float32)
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    square = np.sum(np.asarray(activation(jnp.asarray(z))) ** 2 * density) * step
    np.testing.assert_allclose(square, 1.0, rtol=1e-3)


def test_softplus_falls_off_on_the_left_only():
    x = jnp.array([-40.0, 40.0])
    left, right = activations.softplus(x)
    assert float(left) < 1e-6
    slope = float(right) / 40.0
    np.testing.assert_allclose(float(activations.softplus(2.0 * x)[1]), 80.0 * slope)


def test_shifted_softplus_is_softplus_less_log_two_and_scaled_anew():
    x = jnp.linspace(-3.0, 3.0, 7)
    plain = jnp.logaddexp(x, 0.0) - jnp.log(2.0)
    ratio = activations.shifted_softplus(x)[x != 0.0] / plain[x != 0.0]
    np.testing.assert_allclose(ratio, float(ratio[0]), rtol=1e-4)
