"""Symmetry-breaking sets: freedom, closure, size, draws, and a square."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks import symmetry_tasks
from common.geometry.normalisers import conjugators
from common.geometry.point_groups import point_group
from common.nn.symmetry_breaking import (
    IRREPS,
    breaking_set,
    breaking_set_of,
    draw,
)
from common.so3.irreps import PSEUDOVECTOR, VECTOR, Irrep
from common.so3.wigner import wigner_matrices

FINITE = (
    "C2v", "C3v", "D2", "D3", "D4", "D2h", "D3h", "D4h", "D2d", "D3d", "T", "Td", "Th",
    "O", "Oh", "I",
)  # fmt: skip
OF_ONE_AXIS = ("C2", "C3", "C4", "C2h", "C3h", "S4", "S6")
MINIMAL = ("C1", "Ci", "Cs")
SQUARE = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])

wigner = jax.jit(wigner_matrices, static_argnums=1)


def rows(objects):
    """Returns objects as rows of 12 numbers."""
    return np.concatenate([np.asarray(objects[i])[..., 0] for i in IRREPS], axis=-1)


def moved(found, operations):
    """Returns the images of the rows under each operation."""
    shown = np.zeros((128, 3, 3), np.float32)  # One shape, one compilation.
    shown[: len(operations)] = operations
    first, second = (np.asarray(d)[: len(operations)] for d in wigner(shown, 2)[1:])
    sign = np.linalg.det(operations).round()[:, None, None]
    act = lambda d, part: np.einsum("gij,bj->gbi", d, part)
    parts = np.split(rows(found.objects), (1, 4, 7), axis=1)
    matrices = (sign, first, sign * first, second)
    return np.concatenate(
        [act(*pair) for pair in zip(matrices, parts, strict=True)], -1
    )


def nearest(images, targets):
    """Returns the distance of each image to the nearest target."""
    return np.linalg.norm(images[..., None, :] - targets, axis=-1).min(axis=-1)


@pytest.mark.parametrize("name", [*FINITE, *OF_ONE_AXIS, *MINIMAL])
def test_no_operation_but_the_identity_keeps_an_object(name):
    found, group = breaking_set(name), point_group(name)
    shifts = np.linalg.norm(moved(found, group[1:]) - rows(found.objects), axis=-1)
    assert shifts.min(initial=1.0) > 0.3


@pytest.mark.parametrize("name", [*FINITE, *MINIMAL])
def test_a_minimal_set_is_one_orbit_and_closed_under_the_normaliser(name):
    found, group = breaking_set(name), point_group(name)
    assert found.is_minimal
    assert len(rows(found.objects)) == len(group)
    normaliser = conjugators(group, group)
    assert nearest(moved(found, normaliser), rows(found.objects)).max() < 1e-4
    from_first = moved(found, group)[:, 0]
    assert nearest(rows(found.objects), from_first).max() < 1e-4


@pytest.mark.parametrize("name", OF_ONE_AXIS)
def test_a_group_of_one_axis_has_circles(name):
    found = breaking_set(name)
    assert not found.is_minimal
    np.testing.assert_array_equal(found.axis, [0.0, 0.0, 1.0])
    # The normaliser turns by any angle, and about the lines across.
    objects = rows(found.objects)
    for operation in (np.diag([1.0, -1, -1]), np.diag([1.0, 1, -1]), -np.eye(3)):
        images = moved(found, operation[None])[0]
        turns = np.stack([np.eye(3), np.diag([-1.0, -1.0, 1.0])])
        circle = moved(found, turns).reshape(-1, objects.shape[1])
        assert nearest(images, circle).max() < 1e-5


@pytest.mark.parametrize("name", ["C3", "D4", "T", "O", "I"])
def test_objects_of_rotations_are_even(name):
    found = breaking_set(name)
    for irrep in (VECTOR, Irrep(0, -1)):
        np.testing.assert_array_equal(np.abs(found.objects[irrep]) < 1e-5, True)


@pytest.mark.parametrize("cloud", [SQUARE, SQUARE[[0, 1, 2]] * [2.0, 1.0, 1.0]])
def test_the_set_of_a_cloud_rotates_with_it(cloud):
    turn = Rotation.random(random_state=5).as_matrix()
    found, rotated = breaking_set_of(cloud), breaking_set_of(cloud @ turn.T)
    assert nearest(moved(found, turn[None])[0], rows(rotated.objects)).max() < 1e-3


def test_draws_are_uniform_over_the_objects():
    found = breaking_set("D4")
    keys = jax.random.split(jax.random.key(0), 800)
    drawn = jax.jit(jax.vmap(draw, (0, None)))(keys, found)
    distances = np.linalg.norm(rows(drawn)[:, None] - rows(found.objects), axis=-1)
    counts = np.bincount(distances.argmin(axis=1), minlength=8)
    assert distances.min(axis=1).max() < 1e-5
    # Chi squared of seven degrees of freedom: 24 has a chance of one in a thousand.
    assert np.sum((counts - 100.0) ** 2 / 100.0) < 24.0
    circle = jax.jit(jax.vmap(draw, (0, None)))(keys, breaking_set("C3"))
    axial = np.asarray(circle[PSEUDOVECTOR])[..., 0]
    np.testing.assert_allclose(np.linalg.norm(axial, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(axial[:, 2], 0.0, atol=1e-6)
    assert np.abs(axial.mean(axis=0)).max() < 0.1


def test_a_square_becomes_a_rectangle_and_a_vector():
    figures = symmetry_tasks.breaking()
    assert figures["vector without a set"] < 1e-4
    assert figures["strain without a set"] < 1e-4
    assert figures["objects"] == figures["vectors reached"] == 8
    assert figures["rectangles reached"] == 2
    for name in ("distance of an output to a valid one", "mean of the vectors",
                 "distance of a strain to a valid one", "mean of the strains",
                 "set of the rotated square"):  # fmt: skip
        assert figures[name] < 1e-4, name
