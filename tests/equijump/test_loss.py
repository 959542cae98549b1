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


def test_bonds_count_and_other_pairs_do_not():
    longer = FRAME.at[0, 0].add(-0.2)  # The first bond, and no other.
    error = loss.bond_error(FRAME, FRAME, longer, MASK, jnp.float32(1e-3))
    assert float(error) == pytest.approx(0.2**2 / 3, rel=1e-3)
    bent = FRAME.at[0].set(jnp.array([1.5, 0, 1.5]))  # The same length elsewhere.
    error = loss.bond_error(FRAME, FRAME, bent, MASK, jnp.float32(1e-3))
    assert float(error) == pytest.approx(0.0, abs=1e-8)
    noisy = loss.bond_error(FRAME, FRAME, longer, MASK, jnp.float32(1.0))
    assert float(noisy) < 0.02 * 0.2**2 / 3


def test_unbonded_atoms_that_overlap_count():
    assert float(loss.clash_error(FRAME, FRAME, MASK)) == 0.0
    near = FRAME.at[3].set(jnp.array([0.0, 1.0, 0.0]))  # 1 Å from the first atom.
    assert float(loss.clash_error(FRAME, near, MASK)) > 2 * 1.0 / 4


@pytest.mark.parametrize("term", ["vector_map", "bond", "clash"])
def test_gradients_are_finite_where_atoms_meet(term):
    def error(found):
        if term == "vector_map":
            return loss.vector_map_error(found, FRAME, MASK)
        if term == "bond":
            return loss.bond_error(FRAME, FRAME, found, MASK, jnp.float32(0.1))
        return loss.clash_error(FRAME, found, MASK)

    for found in (FRAME, jnp.zeros_like(FRAME)):
        assert np.all(np.isfinite(jax.grad(error)(found)))
