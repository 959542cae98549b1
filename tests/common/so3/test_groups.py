"""Couplings of any group: against exact sums, e3nn-jax and known invariants."""

import itertools

import e3nn_jax as e3nn
import numpy as np
import pytest

from common.so3 import groups
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.harmonics import solid_harmonics
from common.so3.irreps import PSEUDOVECTOR, SCALAR, VECTOR, Irrep


def up_to_sign(found, expected):
    return min(np.abs(found - expected).max(), np.abs(found + expected).max())


@pytest.mark.parametrize("degree_1", range(4))
def test_rotations_have_the_coefficients_of_the_closed_sum_and_of_e3nn(degree_1):
    for degree_2, degree_3 in itertools.product(range(degree_1 + 1), range(4)):
        degrees = degree_1, degree_2, degree_3
        basis = groups.intertwiners(*map(groups.so3, degrees))
        is_triangle = abs(degree_1 - degree_2) <= degree_3 <= degree_1 + degree_2
        assert len(basis) == is_triangle
        for found in basis:
            assert up_to_sign(found, clebsch_gordan(*degrees)) < 1e-12
            assert up_to_sign(found, e3nn.clebsch_gordan(*degrees)) < 1e-12


def test_generators_turn_the_harmonics():
    direction, axis = np.array([0.3, -0.5, 0.8]), np.array([0.2, 0.7, -0.4])
    line = lambda t: direction + t * np.cross(axis, direction)
    at = lambda t: np.array(solid_harmonics(*line(t)[:, None], 3))[:, 0]
    values, slope = at(0.0), (at(1e-5) - at(-1e-5)) / 2e-5
    for degree in range(4):
        own = slice(degree**2, (degree + 1) ** 2)
        turn = np.einsum("a,amn->mn", axis, groups.so3(degree).generators)
        np.testing.assert_allclose(turn @ values[own], slope[own], atol=1e-8)


def test_parities_multiply():
    natural = [Irrep(l, (-1) ** l) for l in range(3)]
    opposite = [Irrep(l, -((-1) ** l)) for l in range(3)]
    for triple in itertools.product(natural + opposite, repeat=3):
        i, j, k = triple
        basis = groups.intertwiners(*map(groups.o3, triple))
        is_triangle = abs(i.degree - j.degree) <= k.degree <= i.degree + j.degree
        assert len(basis) == (is_triangle and i.parity * j.parity == k.parity)


def test_two_spins_of_one_half_make_a_singlet_and_a_triplet():
    half = groups.su2(0.5)
    (singlet,) = groups.intertwiners(half, half, groups.su2(0.0))[..., 0]
    np.testing.assert_allclose(singlet, -singlet.T, atol=1e-12)
    (triplet,) = groups.intertwiners(half, half, groups.su2(1.0))
    np.testing.assert_allclose(triplet, np.swapaxes(triplet, 0, 1), atol=1e-12)
    # |1, 1> is up up, |1, 0> is (up down + down up) / sqrt 2.
    share = np.abs(triplet) ** 2 * 3
    np.testing.assert_allclose(share[1, 1, 2], 1.0, atol=1e-12)
    np.testing.assert_allclose(share[[0, 1], [1, 0], 1], 0.5, atol=1e-12)
    assert len(groups.intertwiners(half, half, half)) == 0


def test_the_scalar_of_two_vectors_of_space_time_is_the_metric_of_minkowski():
    vector, scalar = groups.lorentz_vector(), groups.lorentz(0, 0)
    (metric,) = groups.intertwiners(vector, vector, scalar)[..., 0]
    metric = metric / metric[0, 0]
    np.testing.assert_allclose(metric, np.diag([1.0, -1, -1, -1]), atol=1e-12)


def test_a_vector_of_space_time_is_a_pair_of_spins_of_one_half():
    vector, one = groups.lorentz_vector(), groups.lorentz(0, 0)
    same = groups.intertwiners(vector, one, groups.lorentz(0.5, 0.5))
    assert len(same) == 1
    # Antisymmetric tensors split into self-dual ones and their mirror images.
    for spins in ((1, 0), (0, 1), (1, 1)):
        assert len(groups.intertwiners(vector, vector, groups.lorentz(*spins))) == 1
    with pytest.raises(ValueError, match="whole sum"):
        groups.lorentz(0.5, 0)


def test_several_couplings_are_an_orthonormal_basis_that_commutes():
    pair = groups.tensor(groups.o3(VECTOR), groups.o3(VECTOR))
    third, out = groups.o3(VECTOR), groups.o3(VECTOR)
    basis = groups.intertwiners(pair, third, out)
    assert basis.shape == (3, 9, 3, 3)  # By the pair's degree: 0, 1 and 2.
    flat = basis.reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-12)
    for left, right, after in zip(
        *(r.generators for r in (pair, third, out)), strict=True
    ):
        turned = np.einsum("tabc,ai,bj->tijc", basis, left, np.eye(3))
        turned += np.einsum("tabc,ai,bj->tijc", basis, np.eye(9), right)
        np.testing.assert_allclose(turned, basis @ after.T, atol=1e-12)


def test_an_inversion_forbids_what_rotations_allow():
    odd = groups.o3(VECTOR), groups.o3(VECTOR), groups.o3(VECTOR)
    even = groups.o3(VECTOR), groups.o3(VECTOR), groups.o3(PSEUDOVECTOR)
    assert len(groups.intertwiners(*odd)) == 0
    assert len(groups.intertwiners(*even)) == 1
    assert groups.o3(SCALAR).dim == 1
