"""The measured error of equivariance, of functions that have it and that lack it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.equivariance import equivariance_error, from_vectors
from common.nn.features import harmonics
from common.so3.irreps import VECTOR, Irrep
from tests.common.nn.random_inputs import positions

TENSOR = Irrep(2, 1)
errors = jax.jit(equivariance_error, static_argnums=(0, 3))


def good(x):
    return harmonics(x, 2)


def bad(x):
    """Adds to the second degree a fixed axis, which does not rotate."""
    found = good(x)
    return {**found, TENSOR: found[TENSOR].at[:, 2].add(0.1)}


def test_harmonics_have_no_error():
    found = errors(good, positions(5), jax.random.key(0), 8)
    assert max(map(float, found.values())) < 1e-5


def test_the_error_belongs_to_the_irrep_that_is_wrong():
    x = positions(5)
    found = errors(bad, x, jax.random.key(0), 64)
    assert found[VECTOR] < 1e-5
    size = np.linalg.norm(bad(x)[TENSOR])
    # A fixed axis and its rotated image are sqrt(2) apart in the mean square.
    assert found[TENSOR] == pytest.approx(0.1 * np.sqrt(2 * 5) / size, rel=0.3)


def test_denoisers_are_functions_of_vectors():
    x, key = positions(5), jax.random.key(0)
    shrink = lambda y: from_vectors(0.5 * y)
    assert errors(shrink, x, key, 8)[VECTOR] < 1e-5
    project = lambda y: from_vectors(y * jnp.array([1.0, 0.0, 0.0]))
    assert errors(project, x, key, 8)[VECTOR] > 0.5


def test_what_is_zero_has_no_error():
    nothing = lambda y: from_vectors(0.0 * y)
    assert errors(nothing, positions(3), jax.random.key(0), 2)[VECTOR] == 0.0
