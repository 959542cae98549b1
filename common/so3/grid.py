r"""Grids on the sphere: quadrature, and uniform draws from their cells.

Conventions are those of `common.so3.harmonics`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, Key

from common.so3.harmonics import solid_harmonics


def quadrature(
    res_beta: int, res_alpha: int
) -> tuple[Float64[np.ndarray, "grid 3"], Float64[np.ndarray, " grid"]]:
    """Returns unit vectors and weights, which sum to 4 pi, in float64.

    >>> points, weights = quadrature(2, 3)  # Exact up to degree two.
    >>> np.abs(weights @ points**2 / (4 * np.pi) - 1 / 3).max() < 1e-15
    np.True_

    Args:
        res_beta: number of polar angles, at the nodes of Gauss and Legendre.
        res_alpha: number of azimuths, starting at zero (the direction of z).
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
    return points, np.repeat(weights * (2.0 * np.pi / res_alpha), res_alpha)


def exact_resolution(degree: int) -> tuple[int, int]:
    r"""Returns the smallest grid that integrates polynomials of a degree exactly.

    $2 n_\beta > L$ and $n_\alpha > L$: one angle less of either kind is too few.

    >>> exact_resolution(12)  # Two factors and a product of degree four.
    (7, 13)
    """
    return degree // 2 + 1, degree + 1


class SphereGrid(NamedTuple):
    """A product grid on the sphere: Gauss-Legendre in cos(beta), uniform in alpha.

    Attributes:
        points: unit vectors, beta running slower than alpha.
        log_weights: logarithms of the quadrature weights, which sum to 4 pi.
        harmonics: spherical harmonics at the points.
        cos_beta_edges: edges of the cells in cos(beta), rising from -1 to 1. A cell
            spans 2 pi / res_alpha in alpha around its point, and its area is exactly
            the weight of the point.
    """

    points: Float[np.ndarray, "grid 3"]
    log_weights: Float[np.ndarray, " grid"]
    harmonics: Float[np.ndarray, "grid components"]
    cos_beta_edges: Float[np.ndarray, " res_beta_plus_1"]


@functools.lru_cache(maxsize=16)
def sphere_grid(
    res_beta: int,
    res_alpha: int,
    max_degree: int,
    dtype: type[np.floating] = np.float32,
) -> SphereGrid:
    """Builds a grid with exact quadrature up to a degree, once per arguments.

    >>> round(float(np.exp(sphere_grid(4, 7, 2).log_weights).sum()), 4)  # 4 pi
    12.5664

    Products of harmonics are integrated exactly while the sum of their degrees stays
    below 2 res_beta and below res_alpha.

    Args:
        res_beta: number of polar angles.
        res_alpha: number of azimuths, starting at zero (the direction of z).
        max_degree: largest degree of the tabulated harmonics.
        dtype: type of all arrays.
    """
    points, area = quadrature(res_beta, res_alpha)
    weights = area[::res_alpha] * (res_alpha / (2.0 * np.pi))
    harmonics = np.stack(solid_harmonics(*points.T, max_degree), axis=-1)
    edges = np.concatenate([[-1.0], np.cumsum(weights) - 1.0])
    edges[-1] = 1.0
    arrays = (points, np.log(area), harmonics, edges)
    grid = SphereGrid(*(np.ascontiguousarray(a, dtype=dtype) for a in arrays))
    for array in grid:
        array.setflags(write=False)
    return grid


def jitter_in_cell(
    key: Key[Array, ""], grid: SphereGrid, cell_index: Int[Array, "*batch"]
) -> Float[Array, "*batch 3"]:
    """Draws unit vectors uniformly from cells of a grid.

    A cell drawn with probability proportional to its quadrature weight, followed by
    this draw, is uniform on the whole sphere.

    >>> grid = sphere_grid(4, 7, 2)
    >>> vectors = jitter_in_cell(jax.random.key(0), grid, jnp.array([0, 5]))
    >>> jnp.linalg.norm(vectors, axis=-1).round(4).tolist()
    [1.0, 1.0]

    Args:
        key: JAX key.
        grid: grid whose cells are drawn from.
        cell_index: indices of the cells, as in `grid.points`.
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
