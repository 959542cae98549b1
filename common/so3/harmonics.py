"""Real spherical harmonics in closed form, and quadrature on the sphere.

Conventions of e3nn: component normalisation (degree l has squared norm 2l + 1 on the
unit sphere), rows ordered by degree and then by m from -l to l, polar axis y, and
azimuth alpha measured from z towards x; degree 1 is sqrt(3) (x, y, z).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, Key

Values = Float[Array, "*batch"] | Float[np.ndarray, "*batch"]


class SphereGrid(NamedTuple):
    """A product grid on the sphere: Gauss-Legendre in cos(beta), uniform in alpha.

    Attributes:
        points: Unit vectors, beta running slower than alpha.
        log_weights: Logarithms of the quadrature weights, which sum to 4 pi.
        harmonics: Spherical harmonics at the points.
        cos_beta_edges: Edges of the cells in cos(beta), rising from -1 to 1. A cell
            spans 2 pi / res_alpha in alpha around its point, and its area is exactly
            the weight of the point.
    """

    points: Float[np.ndarray, "grid 3"]
    log_weights: Float[np.ndarray, " grid"]
    harmonics: Float[np.ndarray, "grid components"]
    cos_beta_edges: Float[np.ndarray, " res_beta_plus_1"]


def spherical_harmonics(
    vectors: Float[Array, "*batch 3"], max_degree: int, normalize: bool = True
) -> Float[Array, "*batch components"]:
    """Evaluates the real spherical harmonics of degrees 0 to `max_degree`.

    Args:
        vectors: Directions, of any length.
        max_degree: Largest degree. By hand up to 3, generated above.
        normalize: Whether to divide by the length first. If not, degree l is the
            homogeneous polynomial, and grows with the l-th power of the length.

    Returns:
        The values. For a zero vector degree 0 is 1 and all others are 0, and the
        gradient is finite (zero, if `normalize`).
    """
    if normalize:
        vectors = unit_vectors(vectors)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    rows = jnp.stack(_solid_harmonics(x, y, z, min(max_degree, 3)), axis=-1)
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
        blocks.append(
            jnp.matmul(
                jnp.stack(monomials, axis=-1),
                jnp.asarray(matrix, vectors.dtype),
                precision=jax.lax.Precision.HIGHEST,
            )
        )
    return jnp.concatenate(blocks, axis=-1)


def unit_vectors(vectors: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Divides vectors by their lengths; zero stays zero, and so does its gradient."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    # The root has no gradient at zero: one where keeps it away from zero, the other
    # discards what it gives there.
    is_zero = squared == 0.0
    inverse = jax.lax.rsqrt(jnp.where(is_zero, 1.0, squared))
    return jnp.where(is_zero, 0.0, vectors * inverse)


@functools.cache
def _monomial_matrix(
    degree: int,
) -> tuple[tuple[tuple[int, int, int], ...], Float64[np.ndarray, "monomials orders"]]:
    """Writes the harmonics of one degree as combinations of its monomials.

    One product with a constant matrix compiles much faster than the polynomials that
    `_solid_harmonics` writes out.

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
    values = np.stack(_solid_harmonics(*points.T, degree)[degree**2 :], axis=-1)
    matrix = np.linalg.lstsq(monomials, values, rcond=None)[0]
    return exponents, np.where(np.abs(matrix) < 1e-9, 0.0, matrix)


def _solid_harmonics(x: Values, y: Values, z: Values, max_degree: int) -> list[Values]:
    """Lists the homogeneous harmonic polynomials, on NumPy and JAX arrays alike."""
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


@functools.lru_cache(maxsize=16)
def sphere_grid(res_beta: int, res_alpha: int, max_degree: int) -> SphereGrid:
    """Builds a grid with exact quadrature up to a degree, once per arguments.

    Products of harmonics are integrated exactly while the sum of their degrees stays
    below 2 res_beta and below res_alpha.

    Args:
        res_beta: Number of polar angles.
        res_alpha: Number of azimuths, starting at zero (the direction of z).
        max_degree: Largest degree of the tabulated harmonics.
    """
    cos_beta, weights = np.polynomial.legendre.leggauss(res_beta)
    alpha = 2.0 * np.pi * np.arange(res_alpha) / res_alpha
    sin_beta = np.sqrt(1.0 - cos_beta**2)
    points = np.stack(
        [
            sin_beta[:, None] * np.sin(alpha),
            np.broadcast_to(cos_beta[:, None], (res_beta, res_alpha)),
            sin_beta[:, None] * np.cos(alpha),
        ],
        axis=-1,
    ).reshape(-1, 3)
    area = np.repeat(weights * (2.0 * np.pi / res_alpha), res_alpha)
    harmonics = np.stack(_solid_harmonics(*points.T, max_degree), axis=-1)
    edges = np.concatenate([[-1.0], np.cumsum(weights) - 1.0])
    edges[-1] = 1.0
    arrays = (points, np.log(area), harmonics, edges)
    grid = SphereGrid(*(np.ascontiguousarray(a, dtype=np.float32) for a in arrays))
    for array in grid:
        array.setflags(write=False)
    return grid


def jitter_in_cell(
    key: Key[Array, ""], grid: SphereGrid, cell_index: Int[Array, "*batch"]
) -> Float[Array, "*batch 3"]:
    """Draws unit vectors uniformly from cells of a grid.

    A cell drawn with probability proportional to its quadrature weight, followed by
    this draw, is uniform on the whole sphere.

    Args:
        key: Key of the draw.
        grid: Grid whose cells are meant.
        cell_index: Indices of the cells, as in `grid.points`.
    """
    beta_key, alpha_key = jax.random.split(key)
    edges = jnp.asarray(grid.cos_beta_edges)
    res_alpha = grid.points.shape[0] // (edges.shape[0] - 1)
    beta_index, alpha_index = cell_index // res_alpha, cell_index % res_alpha
    low, high = edges[beta_index], edges[beta_index + 1]
    cos_beta = low + (high - low) * jax.random.uniform(beta_key, cell_index.shape)
    offset = jax.random.uniform(alpha_key, cell_index.shape, minval=-0.5, maxval=0.5)
    alpha = (2.0 * math.pi / res_alpha) * (alpha_index + offset)
    sin_beta = jnp.sqrt(jnp.maximum(1.0 - cos_beta * cos_beta, 0.0))
    return jnp.stack(
        [sin_beta * jnp.sin(alpha), cos_beta, sin_beta * jnp.cos(alpha)], axis=-1
    )
