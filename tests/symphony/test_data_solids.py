"""The synthetic sets: edges, vertices, chirality."""

import itertools

import numpy as np
import pytest

from symphony import data


def shapes(molecules):
    parts = np.split(molecules.positions, molecules.offsets[1:-1])
    return dict(zip(molecules.names.tolist(), parts, strict=True))


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.parametrize(
    ("name", "num_vertices", "num_edges"),
    [
        ("tetrahedron", 4, 6),
        ("octahedron", 6, 12),
        ("cube", 8, 12),
        ("icosahedron", 12, 30),
        ("dodecahedron", 20, 30),
    ],
)
def test_solids_have_their_vertices_and_edges_of_unit_length(
    name, num_vertices, num_edges
):
    points = shapes(data.platonic_solids())[name]
    between = distances(points)[np.triu_indices(num_vertices, 1)]
    assert len(points) == num_vertices
    np.testing.assert_allclose(between.min(), 1.0, atol=1e-6)
    assert np.sum(np.abs(between - 1.0) < 1e-5) == num_edges
    radii = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(radii, radii[0], atol=1e-6)
    np.testing.assert_allclose(points.sum(axis=0), 0.0, atol=1e-5)


def superposable(first, second):
    """Whether a rotation, without reflection, maps one set of points on the other."""
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    for order in itertools.permutations(range(len(first))):
        u, _, vt = np.linalg.svd(first.T @ second[list(order)])
        flip = np.diag([1.0, 1.0, np.linalg.det(u @ vt)])
        if np.allclose(first @ u @ flip @ vt, second[list(order)], atol=1e-4):
            return True
    return False


def test_eight_pieces_of_four_cubes_that_touch():
    pieces = shapes(data.tetris())
    assert len(pieces) == 8
    for points in pieces.values():
        touching = np.abs(distances(points) - 1.0) < 1e-5
        assert points.shape == (4, 3)
        assert np.linalg.matrix_power(touching + np.eye(4), 3).all()
    for (_, first), (_, second) in itertools.combinations(pieces.items(), 2):
        assert not superposable(first, second)


def test_two_pieces_are_chiral_and_mirror_each_other():
    pieces = shapes(data.tetris())
    mirror = np.array([1.0, 1.0, -1.0])
    chiral = [
        n for n, points in pieces.items() if not superposable(points * mirror, points)
    ]
    assert chiral == ["chiral_1", "chiral_2"]
    assert superposable(pieces["chiral_1"] * mirror, pieces["chiral_2"])


@pytest.mark.parametrize(("name", "num"), [("platonic-solids", 5), ("tetris", 8)])
def test_sets_are_read_by_name_and_not_divided(name, num):
    for split in data.SPLITS:
        molecules, _ = data.read_molecules(name, (1,), 20, split=split)
        assert len(molecules.num_atoms) == num
