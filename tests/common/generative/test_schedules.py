"""Tests of levels of noise and of their schedule."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.generative.schedules import karras_schedule, variance_exploding


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("num_steps", [2, 5, 18])
def test_levels_fall_evenly_in_their_root(num_steps, rho):
    """Equation 5 of arXiv:2206.00364."""
    found = np.asarray(karras_schedule(num_steps, 80.0, 0.002, rho), float)
    place = np.arange(num_steps) / (num_steps - 1)
    ends = 80.0 ** (1 / rho), 0.002 ** (1 / rho)
    expected = (ends[0] + place * (ends[1] - ends[0])) ** rho
    np.testing.assert_allclose(found[:-1], expected, rtol=2e-5)
    assert found[-1] == 0.0
    assert np.all(np.diff(found) < 0.0)


def test_a_single_step_goes_from_the_largest_level_to_none():
    np.testing.assert_array_equal(karras_schedule(1, 3.0, 0.1), [3.0, 0.0])
    np.testing.assert_array_equal(karras_schedule(0, 3.0, 0.1), [0.0])


def test_an_exploding_variance_leaves_the_signal_as_it_is():
    sigma = jnp.array([0.01, 1.0, 30.0])
    level = variance_exploding(sigma)
    np.testing.assert_array_equal(level.alpha, 1.0)
    np.testing.assert_array_equal(level.sigma, sigma)
