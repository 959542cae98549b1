"""Real spherical harmonics in closed form.

Conventions of e3nn: component normalisation (degree l has squared norm 2l + 1 on the
unit sphere), rows ordered by degree and then by m from -l to l, polar axis y, and
azimuth alpha measured from z towards x; degree 1 is sqrt(3) (x, y, z).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from common.so3.vectors import unit_vectors

Values = Float[Array, "*batch"] | Float[np.ndarray, "*batch"]

FEW = 64
"""Vectors up to which compilation counts for more than the time of derivatives."""


def spherical_harmonics(
    vectors: Float[Array, "*batch 3"], max_degree: int, normalize: bool = True
) -> Float[Array, "*batch components"]:
    """Evaluates the real spherical harmonics of degrees 0 to `max_degree`.

    >>> np.asarray(spherical_harmonics(jnp.array([0.0, 1.0, 0.0]), 1)).round(3)
    array([1.   , 0.   , 1.732, 0.   ], dtype=float32)

    Args:
        vectors: directions, of any length.
        max_degree: largest degree. Polynomials of more than `FEW` vectors are written
            out: by hand up to 3, generated above; fewer go by a recursion.
        normalize: true to divide by the length first. If not, degree l is the
            homogeneous polynomial, and grows with the l-th power of the length.

    Returns:
        The values. For a zero vector degree 0 is 1 and all others are 0, and the
        gradient is finite (zero, if `normalize`).
    """
    if normalize:
        vectors = unit_vectors(vectors)
    if math.prod(vectors.shape[:-1]) <= FEW:
        return _by_recursion(vectors, max_degree)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    rows = jnp.stack(solid_harmonics(x, y, z, min(max_degree, 3)), axis=-1)
    if max_degree <= 3:
        return rows
    powers = [[jnp.ones_like(v) for v in (x, y, z)]]
    for _ in range(max_degree):
        powers.append([last * v for last, v in zip(powers[-1], (x, y, z), strict=True)])
    blocks = [rows]
    for degree in range(4, max_degree + 1):
        exponents, matrix = _monomial_matrix(degree)
        monomials = [
            powers[a][0] * powers[b][1] * powers[c][2] for a, b, c in exponents
        ]
        blocks.append(_times(jnp.stack(monomials, axis=-1), matrix))
    return jnp.concatenate(blocks, axis=-1)


def _times(
    rows: Float[Array, "*batch inputs"], matrix: Float64[np.ndarray, "inputs outputs"]
) -> Float[Array, "*batch outputs"]:
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(rows, jnp.asarray(matrix, rows.dtype), precision=exact)


def _by_recursion(
    vectors: Float[Array, "*batch 3"], max_degree: int
) -> Float[Array, "*batch components"]:
    r"""Evaluates $Y^{l+1} = C^l (Y^l \otimes r)$, degree after degree.

    A product with a small matrix for each degree takes a fifth of the compilation of
    polynomials that are written out, and their time where only values are asked for;
    in derivatives of many vectors it takes two to three times as long.
    """
    blocks = [jnp.ones_like(vectors[..., :1]), math.sqrt(3) * vectors]
    for degree in range(1, max_degree):
        outer = blocks[-1][..., :, None] * vectors[..., None, :]
        outer = outer.reshape(*vectors.shape[:-1], 3 * (2 * degree + 1))
        blocks.append(_times(outer, _raising_matrix(degree)))
    return jnp.concatenate(blocks[: max_degree + 1], axis=-1)


@functools.cache
def _raising_matrix(degree: int) -> Float64[np.ndarray, "products orders"]:
    """Couples harmonics of a degree and a vector, in e3nn's order, to the next one.

    The smallest matrix that does so on the unit sphere: it is equivariant, since no
    rotation of it would be smaller.
    """
    points = np.random.default_rng(0).normal(size=(40 * (degree + 1), 3))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    values = np.stack(solid_harmonics(*points.T, degree + 1), axis=-1)
    here = values[:, degree**2 : (degree + 1) ** 2]
    products = (here[:, :, None] * points[:, None]).reshape(len(points), -1)
    above = values[:, (degree + 1) ** 2 :]
    matrix = np.linalg.lstsq(products, above, rcond=1e-10)[0]
    return np.where(np.abs(matrix) < 1e-9, 0.0, matrix)


@functools.cache
def _monomial_matrix(
    degree: int,
) -> tuple[tuple[tuple[int, int, int], ...], Float64[np.ndarray, "monomials orders"]]:
    """Writes the harmonics of one degree as combinations of its monomials.

    One product with a constant matrix compiles much faster than the polynomials that
    `solid_harmonics` writes out.

    Returns:
        Exponents of x, y and z in each monomial, and the matrix (monomials, 2l + 1).
    """
    exponents = tuple(
        (a, b, degree - a - b)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    )
    points = np.random.default_rng(0).normal(size=(8 * len(exponents), 3))
    monomials = np.prod(points[:, None] ** np.array(exponents), axis=-1)
    values = np.stack(solid_harmonics(*points.T, degree)[degree**2 :], axis=-1)
    matrix = np.linalg.lstsq(monomials, values, rcond=None)[0]
    return exponents, np.where(np.abs(matrix) < 1e-9, 0.0, matrix)


def solid_harmonics(x: Values, y: Values, z: Values, max_degree: int) -> list[Values]:
    """Lists the homogeneous harmonic polynomials, on NumPy and JAX arrays alike.

    >>> [row.round(3).tolist() for row in solid_harmonics(*np.eye(3), max_degree=0)]
    [[1.0, 1.0, 1.0]]
    >>> solid_harmonics(*np.eye(3), max_degree=1)[2].round(3).tolist()
    [0.0, 1.732, 0.0]
    """
    rows = [x * 0.0 + 1.0]
    if max_degree == 0:
        return rows
    rows += [math.sqrt(3) * x, math.sqrt(3) * y, math.sqrt(3) * z]
    if max_degree == 1:
        return rows
    xx, yy, zz = x * x, y * y, z * z
    xz, around, difference = x * z, xx + zz, zz - xx
    root_15 = math.sqrt(15)
    rows += [
        root_15 * xz,
        root_15 * x * y,
        math.sqrt(5) * (yy - 0.5 * around),
        root_15 * y * z,
        (0.5 * root_15) * difference,
    ]
    if max_degree == 2:
        return rows
    a, b, c = math.sqrt(35 / 8), math.sqrt(105), math.sqrt(21 / 8)
    ring = 4.0 * yy - around
    rows += [
        a * x * (3.0 * zz - xx),
        b * xz * y,
        c * x * ring,
        math.sqrt(7) * y * (yy - 1.5 * around),
        c * z * ring,
        (0.5 * b) * y * difference,
        a * z * (zz - 3.0 * xx),
    ]
    if max_degree == 3:
        return rows
    return rows + _generated_rows(x, y, z, max_degree)


def _generated_rows(x: Values, y: Values, z: Values, max_degree: int) -> list[Values]:
    """Lists degrees 4 and above: (z + i x)**m times a polynomial in y and r**2."""
    squared = x * x + y * y + z * z
    real, imaginary = [1.0, z], [0.0, x]
    for _ in range(max_degree - 1):
        last_real, last_imaginary = real[-1], imaginary[-1]
        real.append(last_real * z - last_imaginary * x)
        imaginary.append(last_real * x + last_imaginary * z)
    rows = []
    for degree in range(4, max_degree + 1):
        polar = [_polar_factor(y, squared, degree, m) for m in range(degree + 1)]
        rows += [polar[m] * imaginary[m] for m in range(degree, 0, -1)]
        rows.append(polar[0])
        rows += [polar[m] * real[m] for m in range(1, degree + 1)]
    return rows


@functools.cache
def _polar_coefficients(degree: int, m: int) -> tuple[float, ...]:
    r"""Returns the coefficients of $y^{n} r^0, y^{n-2} r^2, \dots$, $n = l - m$.

    They are those of the m-th derivative of the Legendre polynomial $P_l$, scaled to
    component normalisation.
    """
    legendre = np.polynomial.Legendre.basis(degree).convert(
        kind=np.polynomial.Polynomial
    )
    derivative = legendre.deriv(m).coef if m else legendre.coef
    norm = (2 * degree + 1) * math.factorial(degree - m) / math.factorial(degree + m)
    scale = math.sqrt(norm * (2 if m else 1))
    return tuple(float(scale * value) for value in derivative[::-2])


def _polar_factor(y: Values, squared: Values, degree: int, m: int) -> Values:
    r"""Evaluates $\sum_k c_k y^{n - 2k} r^{2k}$, $n = l - m$, by Horner's rule."""
    first, *others = _polar_coefficients(degree, m)
    value, power = first * y ** ((degree - m) % 2), 1.0
    for coefficient in others:
        power = power * squared
        odd = y if (degree - m) % 2 else 1.0
        value = value * (y * y) + (coefficient * odd) * power
    return value
