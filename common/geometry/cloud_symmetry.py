r"""The symmetry of a cloud: its operations, and the name of their group.

For small clouds of points that are not all on one line.
"""

import numpy as np
from jaxtyping import Float, Int

from common.geometry.normalisers import conjugators
from common.geometry.point_groups import (
    Matrices,
    Matrix,
    frame,
    point_group,
    unique,
)


def symmetries(
    positions: Float[np.ndarray, "num_points 3"],
    species: Int[np.ndarray, " num_points"] | None = None,
    tolerance: float = 1e-2,
) -> Matrices:
    """Returns the rotations and reflections that map a cloud onto itself.

    They are about the centroid. Two points fix an operation, up to a reflection; all
    pairs that two of the rarest could be moved to are tried.

    >>> square = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    >>> symmetries(square).shape
    (16, 3, 3)

    Args:
        positions: cloud in Å.
        species: species of the points; one for all where None.
        tolerance: largest distance in Å of a moved point to one of the cloud.

    Raises:
        ValueError: The points lie on one line, so that the group is infinite.
    """
    points = positions - positions.mean(axis=0)
    kinds = np.zeros(len(points), int) if species is None else species
    radii = np.linalg.norm(points, axis=1)
    alike = (kinds[:, None] == kinds) & (np.abs(radii[:, None] - radii) < tolerance)
    order = np.argsort(np.where(radii > tolerance, alike.sum(1), len(points) + 1))
    first = order[0]
    apart = np.linalg.norm(np.cross(points[first], points[order]), axis=1)
    if apart.max() <= tolerance * max(radii[first], tolerance):
        raise ValueError("expected points that span a plane: those of a line do not")
    second = order[np.argmax(apart > 0.5 * apart.max())]
    inverse = np.linalg.inv(frame(points[first], points[second]))
    found = [np.eye(3)]
    for a in np.flatnonzero(alike[first]):
        for b in np.flatnonzero(alike[second]):
            if abs(points[a] @ points[b] - points[first] @ points[second]) > (
                2.0 * tolerance * radii.max()
            ):
                continue
            for hand in (1.0, -1.0):
                u, _, v = np.linalg.svd(frame(points[a], points[b], hand) @ inverse)
                moved = points @ (u @ v).T
                distances = np.linalg.norm(moved[:, None] - points, axis=-1)
                fits = (distances < tolerance) & (kinds[:, None] == kinds)
                if fits.any(axis=1).all():
                    found.append(u @ v)
    return unique(np.stack(found), max(10.0 * tolerance / radii.max(), 1e-3))


def identify(operations: Matrices) -> tuple[str, Matrix]:
    r"""Returns the name of a group, and an R that turns the named one into it.

    $R\, g\, R^\top$ are the operations, for g in `point_group(name)`. A group of
    several names gets the usual one, as `C2v` for `D1h`.

    >>> name, rotation = identify(point_group("Td"))
    >>> name, rotation.shape
    ('Td', (3, 3))

    Args:
        operations: elements of a finite group.

    Raises:
        ValueError: They form no group.
    """
    for name in _names(len(operations)):
        found = conjugators(point_group(name), operations)
        if len(found):
            return name, found[0]
    raise ValueError("expected the elements of a point group, found other matrices")


def _names(order: int) -> list[str]:
    """Lists the groups of an order, each by one name."""
    named = {1: ["C1"], 2: ["Ci", "Cs", "C2"], 12: ["T"], 24: ["Td", "Th", "O"],
             48: ["Oh"], 60: ["I"], 120: ["Ih"]}.get(order, [])  # fmt: skip
    if order > 2:
        named.append(f"C{order}")
        if order % 2 == 0:
            half = order // 2
            named += [f"C{half}v", f"C{half}h", f"D{half}", f"S{order}"]
        if order % 4 == 0 and order > 4:
            named += [f"D{order // 4}h", f"D{order // 4}d"]
    return named
