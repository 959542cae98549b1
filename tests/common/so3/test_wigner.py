"""Wigner matrices against e3nn-jax, as a representation, and at the pole."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.so3.wigner import wigner_matrices


@pytest.mark.parametrize("degree", range(6))
def test_matrices_are_those_of_e3nn(degree):
    turn = e3nn.rand_matrix(jax.random.key(degree), ())
    expected = e3nn.Irrep(degree, 1).D_from_matrix(turn)
    found = wigner_matrices(turn, degree)[degree]
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_product_of_rotations_is_product_of_matrices():
    turns = e3nn.rand_matrix(jax.random.key(0), (2,))
    first, second, both = (
        wigner_matrices(r, 4)[4] for r in (turns[0], turns[1], turns[0] @ turns[1])
    )
    np.testing.assert_allclose(first @ second, both, atol=1e-5)


def test_rotations_come_in_batches():
    turns = e3nn.rand_matrix(jax.random.key(1), (2, 3))
    together = wigner_matrices(turns, 3)
    assert [d.shape[:2] for d in together[1:]] == 3 * [(2, 3)]
    alone = wigner_matrices(turns[1, 2], 3)
    for many, one in zip(together[1:], alone[1:], strict=True):
        np.testing.assert_allclose(many[1, 2], one, atol=1e-6)


def test_derivative_at_the_identity_is_the_generator():
    def about_y(angle):
        c, s = jnp.cos(angle), jnp.sin(angle)
        return jnp.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])

    slope = jax.jacfwd(lambda angle: wigner_matrices(about_y(angle), 3)[3])(0.0)
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(slope, -slope.T, atol=1e-5)
    # A turn about the polar axis mixes m and -m only, by a factor m.
    np.testing.assert_allclose(
        np.abs(np.fliplr(slope).diagonal()), [3, 2, 1, 0, 1, 2, 3], atol=1e-5
    )
