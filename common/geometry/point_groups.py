r"""Point groups: finite groups of rotations and reflections, and their normalisers.

Names are those of Schoenflies. The principal axis is z, the axis $C_2$ of a dihedral
group x, and the mirror of $C_{nv}$ contains x; cubic groups have twofold axes x, y, z
and a threefold one along (1, 1, 1). Matrices act on (x, y, z) and are float64.
"""

import functools
import math
import re

import numpy as np
from jaxtyping import Bool, Float

Matrix = Float[np.ndarray, "3 3"]
Matrices = Float[np.ndarray, "_count 3 3"]

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
_DIAGONAL = (1.0, 1.0, 1.0)
_CUBIC = {
    "T": ((2, "z"), (3, "d")),
    "Th": ((2, "z"), (3, "d"), (-1, "z")),
    "Td": ((-4, "z"), (3, "d")),
    "O": ((4, "z"), (3, "d")),
    "Oh": ((4, "z"), (3, "d"), (-1, "z")),
    "I": ((2, "z"), (3, "d"), (5, "g")),
    "Ih": ((2, "z"), (3, "d"), (5, "g"), (-1, "z")),
}
"""Generators: n for a rotation by 2 pi / n about an axis, -n for it times inversion."""

_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0),
         "d": _DIAGONAL, "g": (0.0, 1.0, _GOLDEN)}  # fmt: skip

_UNIAXIAL = re.compile(r"(C|D|S)([1-9]\d*)(v|h|d)?")


@functools.cache
def point_group(name: str) -> Matrices:
    """Returns the elements of a group, the identity first; read-only.

    >>> len(point_group("Oh")), len(point_group("D4h")), len(point_group("S6"))
    (48, 16, 6)

    Args:
        name: `Cn`, `Cnv`, `Cnh`, `Dn`, `Dnh`, `Dnd`, `Sn` (n even), `Cs`, `Ci`, `T`,
            `Td`, `Th`, `O`, `Oh`, `I` or `Ih`.

    Raises:
        ValueError: There is no such group.
    """
    found = closure(np.stack([_element(*one) for one in _generators(name)]))
    found.setflags(write=False)
    return found


def _generators(name: str) -> tuple[tuple[int, str], ...]:
    if name in _CUBIC:
        return _CUBIC[name]
    match = _UNIAXIAL.fullmatch({"Cs": "C1h", "Ci": "S2"}.get(name, name))
    if match is None:
        raise ValueError(f"expected a point group as C3v or Td, found {name!r}")
    kind, n, more = match[1], int(match[2]), match[3]
    # A mirror is the inversion times a half turn about its normal.
    turn, mirror = (n, "z"), (-2, "z")
    if kind == "C":
        rest = {None: (), "v": ((-2, "y"),), "h": (mirror,)}
    elif kind == "D":
        rest = {None: ((2, "x"),), "h": ((2, "x"), mirror)}
        # The generator S2n is minus a rotation by pi / n + pi.
        rest["d"] = ((2, "x"), (-2 * n, "z s"))
    else:
        turn = (-n, "z s")
        rest = {None: ()} if n % 2 == 0 else {}
    if more not in rest:
        raise ValueError(f"expected a point group as C3v or Td, found {name!r}")
    return (turn, *rest[more])


def _element(order: int, axis: str) -> Matrix:
    """Returns a rotation, minus it where the order is negative; "s" adds a half turn.

    An improper rotation, as Schoenflies has it, reflects in the plane of its axis.
    """
    angle = 2.0 * math.pi / abs(order) + (math.pi if axis.endswith("s") else 0.0)
    return math.copysign(1.0, order) * rotation_about(np.array(_AXES[axis[0]]), angle)


def rotation_about(axis: Float[np.ndarray, " 3"], angle: float) -> Matrix:
    """Returns the rotation about an axis by an angle, by Rodrigues' formula.

    >>> rotation_about(np.array([0.0, 0.0, 1.0]), math.pi).round(3).diagonal().tolist()
    [-1.0, -1.0, 1.0]
    """
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross


def closure(generators: Matrices) -> Matrices:
    """Returns the group that matrices generate, the identity first.

    >>> closure(-np.eye(3)[None]).shape
    (2, 3, 3)
    """
    group = np.eye(3)[None]
    while True:
        grown = unique(np.concatenate([group, *(group @ g for g in generators)]))
        if len(grown) == len(group):
            return group
        group = grown


def unique(matrices: Matrices, tolerance: float = 1e-3) -> Matrices:
    """Returns matrices without those that equal an earlier one.

    >>> unique(np.zeros((4, 3, 3))).shape
    (1, 3, 3)
    """
    is_new = np.tril(equal(matrices, matrices, tolerance), -1).any(axis=1)
    return matrices[~is_new]


def equal(
    a: Matrices, b: Matrices, tolerance: float = 1e-3
) -> Bool[np.ndarray, "num_a num_b"]:
    """Returns which matrices of a equal which of b, by the norm of their difference.

    >>> equal(point_group("C3"), np.eye(3)[None])[:, 0].tolist()
    [True, False, False]
    """
    a, b = a.reshape(-1, 9), b.reshape(-1, 9)
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * a @ b.T
    return squared < tolerance**2


def frame(
    a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"], hand: float = 1.0
) -> Matrix:
    """Returns the matrix of columns a, b and hand times their cross product.

    >>> frame(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return np.stack([a, b, hand * np.cross(a, b)], axis=1)


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
        return np.eye(3)[None] if _maps(np.eye(3), a, b, tolerance) else np.eye(3)[:0]
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
