"""Synthetic sets with known symmetry: the Platonic solids and the tetris pieces.

Every vertex is one atom of the single species of atomic number 1; the shortest
distance is 1. Only the shapes matter, the unit stands in the place of Å.
"""

import itertools

import numpy as np
from jaxtyping import Float, Float64

from symphony.data.molecules import Molecules, make_molecules

_ATOMIC_NUMBER = 1
_GOLDEN = (1 + 5**0.5) / 2

_PIECES = {
    "chiral_1": [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)],
    "chiral_2": [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, -1, 0)],
    "square": [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)],
    "line": [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)],
    "corner": [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)],
    "l": [(0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0)],
    "t": [(0, 0, 0), (1, 0, 0), (2, 0, 0), (1, 1, 0)],
    "zigzag": [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)],
}


def _signs(num: int) -> Float64[np.ndarray, "num_signs num"]:
    return np.array(list(itertools.product((-1.0, 1.0), repeat=num)))


def _cyclic(
    points: Float[np.ndarray, "num_points 3"],
) -> Float[np.ndarray, "three_num_points 3"]:
    return np.concatenate([np.roll(points, shift, axis=1) for shift in range(3)])


def _with_unit_edge(
    points: Float[np.ndarray, "num_points 3"],
) -> Float[np.ndarray, "num_points 3"]:
    points = np.asarray(points, np.float64)
    points = points - points.mean(axis=0)
    first, second = np.triu_indices(len(points), 1)
    return points / np.linalg.norm(points[first] - points[second], axis=1).min()


def _pack_shapes(shapes: dict[str, Float[np.ndarray, "num_points 3"]]) -> Molecules:
    num_atoms = np.array([len(points) for points in shapes.values()])
    positions = np.concatenate([_with_unit_edge(p) for p in shapes.values()])
    numbers = np.full(len(positions), _ATOMIC_NUMBER)
    return make_molecules(num_atoms, numbers, positions, list(shapes))


def platonic_solids() -> Molecules:
    """Returns tetrahedron, octahedron, cube, icosahedron and dodecahedron.

    They have 4, 6, 8, 12 and 20 vertices, are centred on the origin, and their
    edges have length 1.
    """
    cube = _signs(3)
    plane = _signs(2)
    zero = np.zeros((4, 1))
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    rectangle = np.concatenate([zero, plane * (1.0, _GOLDEN)], axis=1)
    long_rectangle = np.concatenate([zero, plane * (1 / _GOLDEN, _GOLDEN)], axis=1)
    return _pack_shapes(
        {
            "tetrahedron": cube[cube.prod(axis=1) > 0],
            "octahedron": axes,
            "cube": cube,
            "icosahedron": _cyclic(rectangle),
            "dodecahedron": np.concatenate([cube, _cyclic(long_rectangle)]),
        }
    )


def tetris() -> Molecules:
    """Returns the eight pieces of four unit cubes, by their centres.

    The first two are mirror images of each other and cannot be rotated into one
    another; the other six are their own mirror images. Centred on the mean.
    """
    return _pack_shapes({name: np.array(p, float) for name, p in _PIECES.items()})
