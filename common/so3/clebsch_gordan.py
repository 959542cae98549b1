"""Real Clebsch-Gordan coefficients by Racah's closed sum, in exact integers.

They are computed here, so that e3nn-jax is no dependency of the mathematics; the tests
compare every table with e3nn-jax.
"""

import functools
import math
from fractions import Fraction

import numpy as np
from jaxtyping import Complex, Float


@functools.cache
def clebsch_gordan(
    degree_1: int, degree_2: int, degree_3: int
) -> Float[np.ndarray, "dim_1 dim_2 dim_3"]:
    r"""Returns the real Clebsch-Gordan coefficients of three degrees.

    Normalised by $\sum_{abc} C_{abc}^2 = 1$, in the real basis and with the signs of
    e3nn-jax; zero where the triangle inequality fails. The array is read-only.

    >>> clebsch_gordan(1, 1, 0)[:, :, 0].diagonal().round(4).tolist()
    [0.5774, 0.5774, 0.5774]
    """
    table = np.einsum(
        "ia,jb,kc,ijk->abc",
        real_basis(degree_1),
        real_basis(degree_2),
        real_basis(degree_3).conj(),
        _complex_clebsch_gordan(degree_1, degree_2, degree_3),
    ).real / math.sqrt(2 * degree_3 + 1)
    table.setflags(write=False)
    return table


def real_basis(degree: int) -> Complex[np.ndarray, "dim dim"]:
    """Returns the unitary whose columns are real harmonics in the complex basis.

    The factor (-i)**l makes the coefficients of all paths real, the odd included.

    >>> np.abs(real_basis(1)[1]).tolist()  # m = 0: y alone.
    [0.0, 1.0, 0.0]
    """
    basis = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    basis[degree, degree] = 1.0
    for m in range(1, degree + 1):
        cosine, sine = degree + m, degree - m
        sign = (-1) ** m
        basis[degree + m, cosine] = sign * math.sqrt(0.5)
        basis[degree - m, cosine] = math.sqrt(0.5)
        basis[degree + m, sine] = sign * 1j * math.sqrt(0.5)
        basis[degree - m, sine] = -1j * math.sqrt(0.5)
    return (-1j) ** degree * basis


def _complex_clebsch_gordan(
    j_1: int, j_2: int, j_3: int
) -> Float[np.ndarray, "dim_1 dim_2 dim_3"]:
    """Returns <j1 m1 j2 m2 | j3 m3>, by Racah's closed sum in exact integers."""
    table = np.zeros((2 * j_1 + 1, 2 * j_2 + 1, 2 * j_3 + 1))
    if not abs(j_1 - j_2) <= j_3 <= j_1 + j_2:
        return table
    factorial = math.factorial
    triangle = Fraction(
        (2 * j_3 + 1)
        * factorial(j_1 + j_2 - j_3)
        * factorial(j_1 - j_2 + j_3)
        * factorial(-j_1 + j_2 + j_3),
        factorial(j_1 + j_2 + j_3 + 1),
    )
    for m_1 in range(-j_1, j_1 + 1):
        for m_2 in range(max(-j_2, -j_3 - m_1), min(j_2, j_3 - m_1) + 1):
            m_3 = m_1 + m_2
            shifts = (j_1 + j_2 - j_3, j_1 - m_1, j_2 + m_2)
            raises = (0, j_3 - j_2 + m_1, j_3 - j_1 - m_2)
            total = sum(
                Fraction(
                    (-1) ** k,
                    math.prod(factorial(s - k) for s in shifts)
                    * math.prod(factorial(s + k) for s in raises),
                )
                for k in range(max(-s for s in raises), min(shifts) + 1)
            )
            squares = math.prod(
                factorial(j + m) * factorial(j - m)
                for j, m in ((j_1, m_1), (j_2, m_2), (j_3, m_3))
            )
            table[j_1 + m_1, j_2 + m_2, j_3 + m_3] = float(total) * math.sqrt(
                triangle * squares
            )
    return table
