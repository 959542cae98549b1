r"""Point groups: finite groups of rotations and reflections, by name.

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
