r"""Products by tables: to other values, multiplied point by point, and back.

Gaunt, bracket and matrix products have one form,
$$ z_k = \sum_g P_{k g}\, B\Big(\sum_i F_{g i} x_i, \sum_j H_{g j} y_j\Big), $$
with constant tables F, H and P and a cheap bilinear B: values on a grid are multiplied,
or the entries of matrices. On every path it is a multiple of the Clebsch-Gordan
product (Schur's lemma), and `constants` says which. Signals lie first, channels last:
`[parts, points, ..., channels]`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from common.nn.features import Features
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.groups import so3
from common.so3.harmonics import solid_harmonics
from common.so3.irreps import Irrep, Path, degree_slices

Table: TypeAlias = Float64[np.ndarray, "_parts _points _components"]
Signal: TypeAlias = Float[Array, "_parts _points ..."]
Operand: TypeAlias = Signal | Float64[np.ndarray, "_parts _points"]
Grade: TypeAlias = Callable[[Irrep], int]
Pointwise: TypeAlias = Callable[[Operand, Operand], Operand]


class Tables(NamedTuple):
    """Tables of a product, each by degree.

    Attributes:
        x: signals of the first factor.
        y: signals of the second one.
        out: rows by which the product of signals is projected.
    """

    x: tuple[Table, ...]
    y: tuple[Table, ...]
    out: tuple[Table, ...]


def values(
    points: Float64[np.ndarray, "grid 3"], max_degree: int
) -> tuple[Float64[np.ndarray, "1 grid _components"], ...]:
    """Returns the harmonics at points, by degree.

    >>> [table.shape for table in values(np.eye(3), 1)]
    [(1, 3, 1), (1, 3, 3)]
    """
    rows = np.stack(solid_harmonics(*points.T, max_degree), axis=-1)[None]
    return tuple(rows[..., own] for own in degree_slices(max_degree))


def curls(
    points: Float64[np.ndarray, "grid 3"], max_degree: int
) -> tuple[Float64[np.ndarray, "2 grid _components"], ...]:
    r"""Returns $r \times \nabla Y$ at unit vectors, in tangent frames, by degree.

    It acts within a degree, as the generators of rotations do.

    >>> [table.shape for table in curls(np.eye(3), 1)]
    [(2, 3, 1), (2, 3, 3)]
    """
    frames = tangents(points)
    return tuple(
        np.einsum("pga,amn,gn->pgm", frames, so3(l).generators, own[0])
        for l, own in enumerate(values(points, max_degree))
    )


def tangents(
    points: Float64[np.ndarray, "grid 3"],
) -> Float64[np.ndarray, "2 grid 3"]:
    """Returns two tangents at unit vectors, right-handed with the vector.

    >>> tangents(np.array([[0.0, 0.0, 1.0]]))[:, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    # The axis y is the pole of the grids, and never one of their points.
    pole = np.where(np.abs(points[:, 1:2]) < 1.0 - 1e-9, [0.0, 1.0, 0.0], [1.0, 0, 0])
    first = np.cross(pole, points)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, np.cross(points, first)])


def largest_degrees(every: Sequence[Path]) -> tuple[int, ...]:
    """Returns the largest degree of x, of y and of the product on paths.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> largest_degrees([(VECTOR, VECTOR, SCALAR)])
    (1, 1, 0)
    """
    return tuple(max(irrep.degree for irrep in of) for of in zip(*every, strict=True))


def evaluate(tables: Sequence[Table], x: Features) -> Signal:
    """Returns the signal of features.

    >>> from common.so3.irreps import SCALAR
    >>> evaluate(values(np.eye(3), 0), {SCALAR: jnp.ones((5, 1, 8))}).shape
    (1, 3, 5, 8)
    """
    rows = jnp.concatenate([x[i] for i in sorted(x)], axis=-2)
    table = np.concatenate([tables[i.degree] for i in sorted(x)], axis=-1)
    return jnp.einsum(
        "pga,...ac->pg...c",
        jnp.asarray(table, rows.dtype),
        rows,
        precision=jax.lax.Precision.HIGHEST,
    )


def project(tables: Sequence[Table], signal: Signal, out: Iterable[Irrep]) -> Features:
    """Returns the features of a signal.

    >>> from common.so3.irreps import SCALAR
    >>> part = project(values(np.eye(3), 0), jnp.ones((1, 3, 5, 8)), [SCALAR])[SCALAR]
    >>> part.shape, float(part[0, 0, 0])
    ((5, 1, 8), 3.0)
    """
    out = sorted(out)
    table = np.concatenate([tables[k.degree] for k in out], axis=-1)
    rows = jnp.einsum(
        "pga,pg...c->...ac",
        jnp.asarray(table, signal.dtype),
        signal,
        precision=jax.lax.Precision.HIGHEST,
    )
    ends = np.cumsum([k.dim for k in out])[:-1]
    return dict(zip(out, jnp.split(rows, ends, axis=-2), strict=True))


def is_odd(path: Path) -> bool:
    """Returns whether the degrees of a path have an odd sum.

    >>> from common.so3.irreps import PSEUDOVECTOR, VECTOR
    >>> is_odd((VECTOR, VECTOR, PSEUDOVECTOR))
    True
    """
    return sum(irrep.degree for irrep in path) % 2 == 1


def grade_of(every: Sequence[Path]) -> Grade:
    """Returns what tells apart signals of one kind of path, even or odd in degrees.

    A signal is a scalar or a pseudoscalar: its irreps have natural parities, or the
    opposite ones. Where all irreps are called even, one signal can hold them all.

    >>> from common.so3.irreps import PSEUDOVECTOR, SCALAR, VECTOR
    >>> grade = grade_of([(VECTOR, PSEUDOVECTOR, SCALAR)])
    >>> grade(VECTOR), grade(PSEUDOVECTOR)
    (1, -1)
    """
    if all(irrep.parity == 1 for path in every for irrep in path):
        return parity
    return lambda irrep: irrep.parity * (-1) ** irrep.degree


def parity(irrep: Irrep) -> int:
    """Returns the parity of an irrep: the grade if paths of both kinds occur.

    >>> parity(Irrep(2, -1))
    -1
    """
    return irrep.parity


def multiply(
    x: Features,
    y: Features,
    every: Sequence[Path],
    tables: Tables,
    pointwise: Pointwise,
    grade: Grade,
) -> Features:
    """Returns the sum of all paths, each with the constant of its tables.

    >>> from common.so3.irreps import SCALAR
    >>> x, one = {SCALAR: jnp.full((1, 2), 3.0)}, values(np.eye(3)[:1], 0)
    >>> path = (SCALAR,) * 3
    >>> multiply(x, x, [path], Tables(one, one, one), jnp.multiply, parity)[SCALAR]
    Array([[9., 9.]], dtype=float32)

    Args:
        x: features of the first factor.
        y: features of the second one, with as many axes.
        every: paths; all irreps of `x` and `y` are on one.
        tables: tables by degree.
        pointwise: bilinear map of two signals.
        grade: 1 or -1 for an irrep; the three of all paths have one product.
    """
    first, second = (
        {
            sign: evaluate(table, own)
            for sign in (1, -1)
            if (own := {i: part for i, part in of.items() if grade(i) == sign})
        }
        for table, of in ((tables.x, x), (tables.y, y))
    )
    sign_of_paths = math.prod(grade(irrep) for irrep in every[0])
    found: Features = {}
    for sign in (1, -1):
        kept = {k for *_, k in every if grade(k) == sign}
        signals = [
            pointwise(f, h)
            for a, f in first.items()
            for b, h in second.items()
            if a * b * sign == sign_of_paths
        ]
        if kept:
            found |= project(tables.out, sum(signals[1:], signals[0]), kept)
    return found


def constants(
    every: Sequence[Path], tables: Tables, pointwise: Pointwise
) -> dict[Path, float]:
    r"""Returns the multiple of $\sqrt{2 l_3 + 1}\, C^{l_1 l_2 l_3}$ on each path.

    >>> from common.so3.irreps import SCALAR
    >>> one = values(np.eye(3)[:1], 0)
    >>> list(constants([(SCALAR,) * 3], Tables(one, one, one), np.multiply).values())
    [1.0]
    """
    found = {}
    for i, j, k in every:
        table = clebsch_gordan(i.degree, j.degree, k.degree)
        # Any coupling tells the ratio; the largest does it best.
        a, b, c = np.unravel_index(np.argmax(np.abs(table)), table.shape)
        one = pointwise(tables.x[i.degree][..., a], tables.y[j.degree][..., b])
        ours = np.sum(tables.out[k.degree][..., c] * one)
        found[i, j, k] = float(ours / (table[a, b, c] * math.sqrt(k.dim)))
    return found
