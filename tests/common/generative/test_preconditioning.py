"""Tests of preconditioning, against the published table and against samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.generative.preconditioning import precondition
from common.generative.schedules import Level


@pytest.mark.parametrize("sigma", [0.002, 0.8, 80.0])
def test_the_numbers_are_those_of_karras(sigma):
    """Table 1 of arXiv:2206.00364, which has a signal of scale one."""
    data, total = 0.5, sigma**2 + 0.5**2
    found = precondition(Level(jnp.ones(()), jnp.float32(sigma)), data)
    expected = data**2 / total, sigma * data / total**0.5, total**-0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 5.0])
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.3), (0.8, 0.6), (0.1, 2.0)])
def test_what_a_network_is_asked_for_has_unit_variance(alpha, sigma, mean):
    """And has nothing left to do with what it sees: it is the posterior's residual."""
    rng = np.random.default_rng(0)
    x, noise = mean + 1.3 * rng.normal(size=200_000), rng.normal(size=200_000)
    numbers = precondition(Level(jnp.float32(alpha), jnp.float32(sigma)), 1.3)
    seen = alpha * x + sigma * noise - alpha * mean
    asked = (x - mean - float(numbers.skip) * seen) / float(numbers.out)
    assert np.std(asked) == pytest.approx(1.0, abs=0.01)
    assert np.std(float(numbers.input) * seen) == pytest.approx(1.0, abs=0.01)
    assert np.corrcoef(asked, seen)[0, 1] == pytest.approx(0.0, abs=0.01)


def test_without_signal_or_noise_the_prior_is_left():
    zero = Level(jnp.zeros(()), jnp.zeros(()))
    np.testing.assert_array_equal(precondition(zero, 0.4), np.float32([0, 0.4, 1]))
    blind = precondition(Level(jnp.zeros(()), jnp.float32(2.0)), 0.4)
    np.testing.assert_allclose(blind, [0.0, 0.4, 0.5], rtol=1e-6)
    certain = precondition(Level(jnp.ones(()), jnp.zeros(())), 0.4)
    np.testing.assert_allclose(certain, [1.0, 0.0, 2.5], rtol=1e-6)


def test_gradients_are_finite_where_nothing_is_seen():
    total = lambda alpha, sigma: sum(precondition(Level(alpha, sigma), 0.4))
    found = jax.grad(total, (0, 1))(jnp.zeros(()), jnp.zeros(()))
    assert np.all(np.isfinite(found))


def test_every_slot_has_numbers_of_its_own():
    level = Level(jnp.float32(0.7), jnp.array([[0.1], [2.0]]))
    data = jnp.array([[1.0], [0.3]])
    found = precondition(level, data)
    for row in range(2):
        one = precondition(Level(level.alpha, level.sigma[row, 0]), data[row, 0])
        np.testing.assert_allclose([x[row, 0] for x in found], one, rtol=1e-6)
