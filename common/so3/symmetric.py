r"""Symmetric couplings: all equivariant polynomials of one feature.

Of a feature x with one copy of each of some irreps, those of order $\nu$ are spanned by
$$ B_M = \sum_{a_1 \le \dots \le a_\nu} U_{M a}\, x_{a_1} \cdots x_{a_\nu}, $$
one U for each *path*, as many as the output occurs in the symmetric power of the
irreps (Batatia et al. 2022, arXiv:2206.07697, and for any group 2023,
arXiv:2306.00091). Iterated Clebsch-Gordan coefficients, symmetrised by counting
monomials instead of products, give more than that; Gram-Schmidt leaves a basis.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep

TOLERANCE = 1e-9
"""Squared norm, of one at first, below which a coupling is one of those before."""


class Couplings(NamedTuple):
    """Polynomials of one order.

    Attributes:
        monomials: rows of x that each monomial multiplies, never falling.
        tables: for each irrep of the output its paths. Every path has unit second
            moment where x is standard normal.
    """

    monomials: Int[np.ndarray, "num_monomials order"]
    tables: dict[Irrep, Float[np.ndarray, "num_paths dim num_monomials"]]


@functools.cache
def symmetric_couplings(
    irreps: tuple[Irrep, ...], out: tuple[Irrep, ...], order: int
) -> Couplings:
    """Returns a basis of the equivariant polynomials.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> found = symmetric_couplings((VECTOR,), (SCALAR, VECTOR), 2)
    >>> found.monomials.tolist()
    [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]
    >>> found.tables[SCALAR].round(2).tolist()
    [[[0.26, 0.0, 0.0, 0.26, 0.0, 0.26]]]
    >>> len(found.tables[VECTOR])
    0

    Args:
        irreps: irreps of x, whose components are its rows in this order.
        out: irreps of the polynomials.
        order: order of the polynomials.
    """
    starts = np.cumsum([0, *(irrep.dim for irrep in irreps)])
    num_rows = int(starts[-1])
    every = list(itertools.combinations_with_replacement(range(num_rows), order))
    place = {monomial: index for index, monomial in enumerate(every)}
    tables: dict[Irrep, list[np.ndarray]] = {irrep: [] for irrep in out}
    for factors in itertools.combinations_with_replacement(range(len(irreps)), order):
        own = [irreps[k] for k in factors]
        rows = [starts[k] + np.arange(irreps[k].dim) for k in factors]
        products = np.stack(np.meshgrid(*rows, indexing="ij"), -1).reshape(-1, order)
        monomials, inverse = np.unique(
            np.sort(products, axis=1), axis=0, return_inverse=True
        )
        metric = _second_moments(monomials, num_rows)
        columns = [place[tuple(monomial)] for monomial in monomials.tolist()]
        trees = _trees([irrep.degree for irrep in own])
        parity = math.prod(irrep.parity for irrep in own)
        for irrep in out:
            if irrep.parity == parity:
                found = [
                    _symmetrised(tree, inverse.reshape(-1), len(monomials))
                    for tree in trees.get(irrep.degree, ())
                ]
                for path in _independent(found, metric):
                    table = np.zeros((irrep.dim, len(every)))
                    table[:, columns] = path
                    tables[irrep].append(table)
    stack = lambda irrep, parts: np.reshape(parts, (-1, irrep.dim, len(every)))
    couplings = Couplings(
        np.array(every), {i: stack(i, parts) for i, parts in tables.items()}
    )
    for array in (couplings.monomials, *couplings.tables.values()):
        array.setflags(write=False)
    return couplings


def _trees(degrees: Sequence[int]) -> dict[int, list[np.ndarray]]:
    """Couples degrees from the left, through every one between; output last."""
    found = {degrees[0]: [np.eye(2 * degrees[0] + 1)]}
    for degree in degrees[1:]:
        longer: dict[int, list[np.ndarray]] = {}
        for last, tables in found.items():
            for total in range(abs(last - degree), last + degree + 1):
                coupling = clebsch_gordan(last, degree, total)
                longer.setdefault(total, []).extend(
                    np.tensordot(table, coupling, 1) for table in tables
                )
        found = longer
    return found


def _symmetrised(
    tree: Float[np.ndarray, "..."],
    monomial: Int[np.ndarray, " num_products"],
    num_monomials: int,
) -> Float[np.ndarray, "dim num_monomials"]:
    """Adds up the coefficients of all products that are the same monomial."""
    total = np.zeros((num_monomials, tree.shape[-1]))
    np.add.at(total, monomial, tree.reshape(-1, tree.shape[-1]))
    return total.T


def _second_moments(
    monomials: Int[np.ndarray, "num_monomials order"], num_rows: int
) -> Float[np.ndarray, "num_monomials num_monomials"]:
    """Returns the mean products of monomials of standard normal numbers."""
    powers = np.stack([np.bincount(row, minlength=num_rows) for row in monomials])
    both = powers[:, None] + powers[None]
    moments = [0.0 if n % 2 else math.prod(range(n - 1, 0, -2)) for n in range(99)]
    return np.array(moments, dtype=float)[both].prod(axis=-1)


def _independent(
    couplings: Sequence[Float[np.ndarray, "dim num_monomials"]],
    metric: Float[np.ndarray, "num_monomials num_monomials"],
) -> list[Float[np.ndarray, "dim num_monomials"]]:
    """Orthonormalises couplings in their order, and leaves out what is dependent.

    No eigenvectors: those of equal eigenvalues would differ from machine to machine,
    and the weights of a network belong to this basis.
    """
    dot = lambda a, b: float(np.sum((a @ metric) * b)) / len(a)
    kept: list[np.ndarray] = []
    for coupling in couplings:
        squared = dot(coupling, coupling)
        if squared < TOLERANCE:
            continue
        rest = coupling / math.sqrt(squared)
        for other in (*kept, *kept):  # Twice: rounding errors of the first go too.
            rest = rest - dot(rest, other) * other
        squared = dot(rest, rest)
        if squared > TOLERANCE:
            kept.append(rest / math.sqrt(squared))
    return kept
