r"""Clebsch-Gordan coefficients of any group, as the null space of its generators.

A coupling $C: V_1 \otimes V_2 \to V_3$ commutes with a group exactly if
$$ \rho_3(A)\, C = C\, (\rho_1(A) \otimes 1 + 1 \otimes \rho_2(A)) $$
for every generator A of its Lie algebra, and
$\rho_3(h)\, C = C\, (\rho_1(h) \otimes \rho_2(h))$ for one element h of each further
component (lie-nn, Batatia et al. 2023, arXiv:2306.00091). These equations
are linear: their null space is found by a singular value decomposition, and no closed
formula is needed. The products of features use the exact sums of
`common.so3.clebsch_gordan`, which the tests check by this.
"""

import functools
import math
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Complex, Float

from common.so3.clebsch_gordan import real_basis
from common.so3.irreps import Irrep

Matrices: TypeAlias = (
    Float[np.ndarray, "count dim dim"] | Complex[np.ndarray, "count dim dim"]
)
Couplings: TypeAlias = (
    Float[np.ndarray, "multiplicity dim_1 dim_2 dim_3"]
    | Complex[np.ndarray, "multiplicity dim_1 dim_2 dim_3"]
)


class Representation(NamedTuple):
    """A representation of a group of finitely many components.

    Attributes:
        generators: matrices of a basis of the Lie algebra.
        components: matrix of one element of each component but that of the identity.
    """

    generators: Matrices
    components: Matrices

    @property
    def dim(self) -> int:
        """Dimension."""
        return self.generators.shape[-1]


def intertwiners(
    first: Representation,
    second: Representation,
    out: Representation,
    tolerance: float = 1e-9,
) -> Couplings:
    """Returns a basis of all couplings of two representations to a third one.

    >>> intertwiners(so3(1), so3(1), so3(1)).shape  # The cross product.
    (1, 3, 3, 3)
    >>> intertwiners(o3(Irrep(1, -1)), o3(Irrep(1, -1)), o3(Irrep(1, -1))).shape
    (0, 3, 3, 3)

    Args:
        first: representation of the first factor.
        second: that of the second factor.
        out: that of the product.
        tolerance: singular value, relative to the largest, that counts as zero.

    Returns:
        An orthonormal basis; its signs, and its choice where there are several, are
        arbitrary.
    """
    product = tensor(first, second)
    pairs = [*zip(product.generators, out.generators, strict=True)]
    pairs += zip(product.components, out.components, strict=True)
    # Rows of C as one vector: C -> b C - C a is linear.
    equations = np.concatenate(
        [np.kron(b, np.eye(len(a))) - np.kron(np.eye(len(b)), a.T) for a, b in pairs]
    )
    _, values, vectors = np.linalg.svd(equations, full_matrices=False)
    scale = max(1.0, values[0])
    rank = int(np.sum(values > tolerance * scale))
    basis = vectors[rank:].conj()
    basis = basis.reshape(-1, out.dim, first.dim, second.dim)
    return np.moveaxis(basis, 1, 3)


def tensor(first: Representation, second: Representation) -> Representation:
    """Returns the tensor product of two representations.

    >>> tensor(so3(1), so3(2)).dim
    15
    """
    left, right = np.eye(first.dim), np.eye(second.dim)
    pairs = zip(first.generators, second.generators, strict=True)
    further = zip(first.components, second.components, strict=True)
    dim = first.dim * second.dim
    return Representation(
        np.array([np.kron(a, right) + np.kron(left, b) for a, b in pairs]),
        np.array([np.kron(a, b) for a, b in further]).reshape(-1, dim, dim),
    )


def su2(spin: float | int) -> Representation:
    r"""Returns the representation $-i J_x, -i J_y, -i J_z$ of SU(2).

    >>> su2(0.5).generators[2].imag.diagonal().tolist()  # m = -1/2, 1/2.
    [0.5, -0.5]

    Args:
        spin: a multiple of one half.
    """
    m = np.arange(-spin, spin + 0.5)
    raises = np.diag(np.sqrt(spin * (spin + 1) - m[:-1] * (m[:-1] + 1)), -1)
    lowers = raises.T
    x, y, z = (raises + lowers) / 2, (raises - lowers) / 2j, np.diag(m)
    return Representation(-1j * np.array([x, y, z]), np.zeros((0, len(m), len(m))))


@functools.cache
def so3(degree: int) -> Representation:
    r"""Returns the representation of SO(3) in the basis of the harmonics.

    Generators turn about x, y and z: $Y(R v) \approx (1 + \epsilon G) Y(v)$.

    >>> (so3(1).generators[2].round(6) + 0.0).tolist()  # z: x to y, and y to -x.
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    basis = real_basis(degree)
    turned = [basis.conj().T @ a @ basis for a in su2(degree).generators]
    # The polar axis of the harmonics is y. Their coefficients turn as the conjugates
    # of the states |m>, which takes the sign of two generators.
    z, x, y = (matrix.real for matrix in turned)
    return Representation(np.array([x, -y, -z]), np.zeros((0, *x.shape)))


def o3(irrep: Irrep) -> Representation:
    """Returns an irrep of O(3): that of SO(3), and the inversion.

    >>> o3(Irrep(1, -1)).components[0].diagonal().tolist()
    [-1.0, -1.0, -1.0]
    """
    inversion = float(irrep.parity) * np.eye(irrep.dim)
    return Representation(so3(irrep.degree).generators, inversion[None])


def lorentz(left: float | int, right: float | int) -> Representation:
    r"""Returns an irrep of SO(1,3): three turns, three boosts, and the element -1.

    $J = A + B$ and $K = i (A - B)$ with A and B the spins of two copies of SU(2).

    >>> lorentz(0.5, 0.5).dim  # Vectors of space-time, in a complex basis.
    4

    Args:
        left: spin of A, a multiple of one half.
        right: spin of B; the sum of both must be whole.

    Raises:
        ValueError: The sum is not whole: -1 has no such matrix.
    """
    if (left + right) % 1:
        raise ValueError(f"expected spins of a whole sum, found {left} and {right}")
    a, b = su2(left), su2(right)
    dim = a.dim * b.dim
    first = [np.kron(g, np.eye(b.dim)) for g in a.generators]
    second = [np.kron(np.eye(a.dim), g) for g in b.generators]
    turns = [f + s for f, s in zip(first, second, strict=True)]
    boosts = [1j * (f - s) for f, s in zip(first, second, strict=True)]
    minus_one = math.cos(2 * math.pi * left) * np.eye(dim)
    return Representation(np.array([*turns, *boosts]), minus_one[None])


def lorentz_vector() -> Representation:
    """Returns the vectors (t, x, y, z) of SO(1,3), with the generators of `lorentz`.

    >>> lorentz_vector().generators[3][:2, :2].tolist()  # A boost mixes t and x.
    [[0.0, 1.0], [1.0, 0.0]]
    """
    turns, boosts = np.zeros((3, 4, 4)), np.zeros((3, 4, 4))
    turns[:, 1:, 1:] = so3(1).generators
    for axis in range(3):
        boosts[axis, 0, axis + 1] = boosts[axis, axis + 1, 0] = 1.0
    return Representation(np.concatenate([turns, boosts]), -np.eye(4)[None])
