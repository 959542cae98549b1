"""Tests of the terms of EquiJump's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equijump import loss

FRAME = jnp.asarray(
    [[0, 0, 0], [1.5, 0, 0], [2.1, 1.4, 0], [3.6, 1.5, 0.3], [9, 9, 9]], jnp.float32
)
MASK = jnp.asarray([True, True, True, True, False])


def turned(x):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    return x @ jnp.asarray(rotation, jnp.float32)


def test_the_vector_map_is_the_hubers_loss_of_the_errors_of_all_vectors():
    """One atom is moved by .3 Å and one by 3: of six pairs five change."""
    found = FRAME.at[0, 2].add(0.3).at[3, 2].add(3.0)
    small, large, both = 0.5 * 0.3**2, 3.0 - 0.5, 2.7 - 0.5
    expected = (2 * small + 2 * large + both) / 6
    error = loss.vector_map_error(found, FRAME, MASK)
    assert float(error) == pytest.approx(expected, rel=1e-5)
    same = loss.vector_map_error(turned(found), turned(FRAME), MASK)
    assert float(same) == pytest.approx(expected, rel=1e-4)
    far = loss.vector_map_error(found.at[0, 0].add(1e3), FRAME, MASK)
    assert float(far) < loss.VECTOR_MAP_CLIP


def test_gradients_are_finite_where_atoms_meet():
    error = lambda found: loss.vector_map_error(found, FRAME, MASK)
    for found in (FRAME, jnp.zeros_like(FRAME)):
        assert np.all(np.isfinite(jax.grad(error)(found)))
