"""The operations of clouds, and the names of groups in any frame."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from common.geometry.cloud_symmetry import identify, symmetries
from common.geometry.point_groups import closure, equal, point_group
from tests.common.geometry.test_point_groups import ORDERS


def turn(seed=1):
    return Rotation.random(random_state=seed).as_matrix()


@pytest.mark.parametrize("name", ORDERS)
def test_a_rotated_group_is_named_and_turned_back(name):
    group = turn() @ point_group(name) @ turn().T
    found, rotation = identify(group)
    assert found == name
    back = rotation @ point_group(name) @ rotation.T
    assert equal(back, group, 1e-2).any(axis=1).all()


def test_matrices_that_are_no_group_have_no_name():
    with pytest.raises(ValueError, match="point group"):
        identify(np.stack([np.eye(3), turn()]))


CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 1.0
METHANE = np.concatenate([np.zeros((1, 3)), 0.63 * CUBE[[0, 3, 5, 6]]])
WATER = np.array([[0, 0, 0.12], [0.76, 0, -0.47], [-0.76, 0, -0.47]])
AMMONIA = np.concatenate(
    [[[0, 0, 0.4]], [[np.cos(a), np.sin(a), 0] for a in 2 * np.pi / 3 * np.arange(3)]]
)
RING = np.array([[np.cos(a), np.sin(a), 0] for a in np.pi / 3 * np.arange(6)])


@pytest.mark.parametrize(
    ("name", "positions", "species"),
    [
        ("Oh", CUBE, [1] * 8),
        ("Td", METHANE, [6, 1, 1, 1, 1]),
        ("C3v", METHANE, [6, 9, 1, 1, 1]),
        ("C2v", WATER, [8, 1, 1]),
        ("C3v", AMMONIA, [7, 1, 1, 1]),
        ("D6h", RING, [6] * 6),
        ("D3h", RING, [6, 7] * 3),
        ("C2v", RING, [6, 1, 1, 6, 9, 9]),
    ],
)
def test_clouds_have_the_group_of_chemists(name, positions, species):
    species = None if species is None else np.array(species)
    found = symmetries(positions @ turn().T + 2.0, species)
    assert identify(found)[0] == name


def test_noise_below_the_tolerance_does_not_hide_a_symmetry():
    noise = 1e-3 * np.random.default_rng(0).normal(size=CUBE.shape)
    assert len(symmetries(CUBE + noise)) == 48
    assert len(symmetries(CUBE + 100.0 * noise)) == 1


def test_points_of_a_line_are_refused():
    with pytest.raises(ValueError, match="plane"):
        symmetries(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    with pytest.raises(ValueError, match="plane"):
        symmetries(np.zeros((1, 3)))


def test_closure_of_two_mirrors_is_a_rotation_group_with_mirrors():
    mirrors = np.stack([np.diag([1.0, -1, 1]), np.diag([-1.0, 1, 1])])
    assert identify(closure(mirrors))[0] == "C2v"
