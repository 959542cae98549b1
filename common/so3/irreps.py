"""Bookkeeping of irreducible representations in the core's array layout.

Features are `[..., (max_degree + 1)**2, num_channels]`: degree l owns rows l**2 to
(l + 1)**2, ordered as in e3nn. Tables are computed here, so e3nn-jax is imported
only by the two conversion functions.
"""

import functools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

if TYPE_CHECKING:
    import e3nn_jax as e3nn

Path = tuple[int, int, int]


def degree_slices(max_degree: int) -> tuple[slice, ...]:
    """Returns the rows of each degree from 0 to `max_degree`."""
    return tuple(slice(l * l, (l + 1) ** 2) for l in range(max_degree + 1))


def max_degree_of(num_components: int) -> int:
    """Returns the largest degree of an array with `num_components` rows.

    Raises:
        ValueError: If the number is not that of whole degrees 0, 1, 2, and so on.
    """
    root = math.isqrt(num_components)
    if root == 0 or root * root != num_components:
        raise ValueError(f"expected (max_degree + 1)**2 rows, found {num_components}")
    return root - 1


def tensor_product_paths(
    max_degree_in: int, max_degree_filter: int, max_degree_out: int, group: str
) -> tuple[Path, ...]:
    """Lists the paths of a tensor product, ordered by output degree first.

    Args:
        max_degree_in: Largest degree of the first factor.
        max_degree_filter: Largest degree of the second factor.
        max_degree_out: Largest degree kept in the product.
        group: `"O3"` keeps the paths with an even sum of degrees, under which
            features of degree l have parity (-1)**l. `"SO3"` keeps all of them:
            the product then tells left from right.

    Returns:
        Triples (in, filter, out) of degrees that satisfy the triangle inequality.
    """
    if group not in ("O3", "SO3"):
        raise ValueError(f"expected the group 'O3' or 'SO3', found {group!r}")
    return tuple(
        (l1, l2, l3)
        for l3 in range(max_degree_out + 1)
        for l1 in range(max_degree_in + 1)
        for l2 in range(max_degree_filter + 1)
        if abs(l1 - l2) <= l3 <= l1 + l2 and (group == "SO3" or (l1 + l2 + l3) % 2 == 0)
    )


@functools.cache
def clebsch_gordan(
    degree_1: int, degree_2: int, degree_3: int
) -> Float[np.ndarray, "dim_1 dim_2 dim_3"]:
    r"""Returns the real Clebsch-Gordan coefficients of three degrees.

    Normalised by $\sum_{abc} C_{abc}^2 = 1$, in the real basis and with the signs of
    e3nn-jax; zero where the triangle inequality fails. The array is read-only.
    """
    table = np.einsum(
        "ia,jb,kc,ijk->abc",
        _real_basis(degree_1),
        _real_basis(degree_2),
        _real_basis(degree_3).conj(),
        _complex_clebsch_gordan(degree_1, degree_2, degree_3),
    ).real / math.sqrt(2 * degree_3 + 1)
    table.setflags(write=False)
    return table


def _real_basis(degree: int) -> Complex[np.ndarray, "dim dim"]:
    """Returns the unitary whose columns are real harmonics in the complex basis.

    The factor (-i)**l makes the coefficients of all paths real, the odd included.
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


def irreps_string(
    max_degree: int, num_channels: int, parity: Literal["natural", "even"] = "natural"
) -> str:
    """Returns the layout in e3nn's notation, e.g. `"8x0e+8x1o"`."""
    letters = "eo" if parity == "natural" else "ee"
    return "+".join(
        f"{num_channels}x{l}{letters[l % 2]}" for l in range(max_degree + 1)
    )


def to_irreps_array(
    features: Float[Array, "*batch components channels"],
    parity: Literal["natural", "even"] = "natural",
) -> "e3nn.IrrepsArray":
    """Converts features of the core to e3nn's layout, one chunk per degree.

    Args:
        features: Features, channels last.
        parity: `"natural"` gives degree l the parity (-1)**l; `"even"` calls every
            degree even, which is how e3nn writes a representation of SO(3).
    """
    import e3nn_jax as e3nn

    max_degree = max_degree_of(features.shape[-2])
    num_channels = features.shape[-1]
    chunks = [
        jnp.swapaxes(features[..., rows, :], -1, -2).reshape(*features.shape[:-2], -1)
        for rows in degree_slices(max_degree)
    ]
    return e3nn.IrrepsArray(
        irreps_string(max_degree, num_channels, parity), jnp.concatenate(chunks, -1)
    )


def from_irreps_array(
    array: "e3nn.IrrepsArray",
) -> Float[Array, "*batch components channels"]:
    """Converts an array of e3nn back to the core's layout; parities are dropped.

    Raises:
        ValueError: Unless the irreps are degrees 0, 1, 2 and so on, in this order,
            each once and with one number of channels.
    """
    import e3nn_jax as e3nn

    irreps = e3nn.Irreps(array.irreps)
    degrees = [ir.l for _, ir in irreps]
    if degrees != list(range(len(degrees))) or len({mul for mul, _ in irreps}) != 1:
        raise ValueError(
            "expected each degree from 0 once, with equal numbers of channels, "
            f"found {irreps}"
        )
    blocks = [
        jnp.swapaxes(
            array.array[..., rows].reshape(*array.shape[:-1], mul, ir.dim), -1, -2
        )
        for rows, (mul, ir) in zip(irreps.slices(), irreps, strict=True)
    ]
    return jnp.concatenate(blocks, axis=-2)
