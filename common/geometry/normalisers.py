r"""Normalisers of point groups, and how one group is turned into another.

R turns a into b if $R a R^\top = b$; those that turn a group into itself are its
normaliser. Axes go to axes, and two of them fix R up to signs.
"""

import math

import numpy as np
from jaxtyping import Float

from common.geometry.point_groups import (
    Matrices,
    Matrix,
    equal,
    frame,
    rotation_about,
    unique,
)


def axis_of(operation: Matrix) -> Float[np.ndarray, " 3"]:
    """Returns the axis of an operation: of it, or of minus it where it reflects.

    >>> np.abs(axis_of(np.diag([1.0, 1.0, -1.0]))).tolist()
    [0.0, 0.0, 1.0]
    >>> axis_of(-np.eye(3)).tolist()  # The identity and the inversion have none.
    [0.0, 0.0, 0.0]
    """
    proper = operation * np.sign(np.linalg.det(operation))
    _, sizes, rows = np.linalg.svd(proper - np.eye(3))
    return rows[2] if sizes[0] > 1e-2 else np.zeros(3)


def axes(operations: Matrices) -> Float[np.ndarray, "num_axes 3"]:
    """Returns the different axes of operations.

    >>> from common.geometry.point_groups import point_group
    >>> len(axes(point_group("D4"))), len(axes(point_group("C4h")))
    (5, 1)
    """
    found = np.stack([axis_of(g) for g in operations])
    lines = unique(found[:, :, None] * found[:, None, :])
    is_line = np.trace(lines, axis1=1, axis2=2) > 0.5
    return np.linalg.eigh(lines[is_line])[1][..., 2]


def conjugators(a: Matrices, b: Matrices, tolerance: float = 1e-2) -> Matrices:
    r"""Returns the orthogonal R with $R a R^\top = b$.

    `conjugators(s, s)` is the normaliser of s in O(3), if s has more than one axis.
    With one axis the R are infinitely many, and a few stand for all; without one it is
    any R, and the identity stands for it.

    >>> from common.geometry.point_groups import point_group
    >>> len(conjugators(point_group("D4h"), point_group("D4h")))  # That is D8h.
    32

    Args:
        a: group.
        b: group; where it is none of those that are conjugate to a, there is no R.
        tolerance: largest difference of elements.
    """
    kind = lambda g: np.stack([np.trace(g, axis1=1, axis2=2), np.linalg.det(g)], 1)
    alike = np.abs(kind(a)[:, None] - kind(b)[None]).max(axis=-1) < tolerance
    lines = np.stack([axis_of(g) for g in a])
    # The rarest elements leave the fewest pairs to try.
    axed = [g for g in np.argsort(alike.sum(axis=1), kind="stable") if lines[g].any()]
    if not axed:
        count = int(_maps(np.eye(3), a, b, tolerance))
        return np.eye(3)[None][:count]
    first = axed[0]
    second = next((g for g in axed if abs(lines[first] @ lines[g]) < 0.99), None)
    if not alike[first].any() or (second is not None and not alike[second].any()):
        return np.zeros((0, 3, 3))
    tried = []
    for u in axes(b[alike[first]]):
        if second is None:
            tried += [_onto(lines[first], sign * u) for sign in (1.0, -1.0)]
            continue
        inverse = np.linalg.inv(frame(lines[first], lines[second]))
        for v in axes(b[alike[second]]):
            # Axes have no sign.
            for s, t in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)):
                if abs(s * t * (u @ v) - lines[first] @ lines[second]) < tolerance:
                    tried.append(frame(s * u, t * v) @ inverse)
    turns = [_orthogonal(r) for r in tried]
    fit = [s * r for r in turns if _maps(r, a, b, tolerance) for s in (1.0, -1.0)]
    return unique(np.array(fit).reshape(-1, 3, 3), 10.0 * tolerance)


def _maps(r: Matrix, a: Matrices, b: Matrices, tolerance: float) -> bool:
    """Returns whether the conjugate of a by r is b."""
    if len(a) != len(b):
        return False
    return bool(equal(r @ a @ r.T, b, 10.0 * tolerance).any(axis=1).all())


def _onto(a: np.ndarray, b: np.ndarray) -> Matrix:
    """Returns a rotation that takes the direction a to b."""
    normal = np.cross(a, b)
    if np.linalg.norm(normal) < 1e-6:
        other = np.eye(3)[np.argmin(np.abs(a))]
        return np.eye(3) if a @ b > 0.0 else rotation_about(np.cross(a, other), math.pi)
    return rotation_about(normal, math.atan2(np.linalg.norm(normal), a @ b))


def _orthogonal(r: Matrix) -> Matrix:
    u, _, v = np.linalg.svd(r)
    return u @ v
