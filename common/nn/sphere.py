r"""Signals on the sphere, and activations that act there point by point.

Features with one irrep of every degree are functions of a direction r,
$$ f_c(r) = (L + 1)^{-1/2} \sum_l (2 l + 1)^{-1/2} \sum_m x_{l m c} Y_{l m}(r), $$
of unit variance where x has it. What acts on values alone commutes with rotations; its
projection back on degrees up to L is exact only if it is a polynomial and the grid is
fine enough. The product of two signals needs no more than
$n_\beta \ge (3 L + 1) / 2$ and $n_\alpha \ge 3 M + 1$ points, M the largest order.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features, irreps_of
from common.nn.products import multilinear
from common.nn.products.kernels import spread, unstacked
from common.so3.grid import exact_resolution, sphere_grid
from common.so3.irreps import Irrep, Irreps, degree_slices

Rows: TypeAlias = Float[Array, "rows *batch channels"]
"""Coefficients of signals, a row for each (l, m)."""


MAX_TERMS = 128
"""Most terms of a product of signals that are written out: up to degree two.

At that degree it saves a fifth of the time of a block on a CPU.
"""


class Sphere(NamedTuple):
    """Matrices between the coefficients of signals and their values on a grid.

    Attributes:
        rows: (l, m) of the coefficients.
        to_grid: values from coefficients.
        from_grid: coefficients from values.
    """

    rows: tuple[tuple[int, int], ...]
    to_grid: Float[np.ndarray, "points rows"]
    from_grid: Float[np.ndarray, "rows points"]


def product_resolution(max_degree: int, max_order: int) -> tuple[int, int]:
    """Returns the numbers of polar angles and azimuths that products need.

    >>> product_resolution(max_degree=4, max_order=4)
    (7, 13)
    """
    (res_beta, _), (_, res_alpha) = map(
        exact_resolution, (3 * max_degree, 3 * max_order)
    )
    return res_beta, res_alpha


@functools.lru_cache(maxsize=32)
def sphere(rows: tuple[tuple[int, int], ...], res_beta: int, res_alpha: int) -> Sphere:
    """Returns the matrices of a grid, once per arguments.

    >>> found = sphere(tuple(degree_rows(1)), 2, 4)
    >>> (found.from_grid @ found.to_grid).round(6).diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]

    Args:
        rows: (l, m) of the rows.
        res_beta: number of polar angles.
        res_alpha: number of azimuths.
    """
    degrees = np.array([l for l, _ in rows])
    max_degree = int(degrees.max())
    grid = sphere_grid(res_beta, res_alpha, max_degree, np.float64)
    columns = [l * l + l + m for l, m in rows]
    harmonics, scale = grid.harmonics[:, columns], (max_degree + 1) * (2 * degrees + 1)
    weights = np.exp(grid.log_weights) / (4.0 * np.pi)
    from_grid = (harmonics * weights[:, None]).T
    to_grid, from_grid = harmonics / np.sqrt(scale), from_grid * np.sqrt(scale)[:, None]
    return Sphere(rows, to_grid, from_grid)


def degree_rows(max_degree: int) -> list[tuple[int, int]]:
    """Lists (l, m) by degree, as `stack` puts them.

    >>> degree_rows(1)
    [(0, 0), (1, -1), (1, 0), (1, 1)]
    """
    return [(l, m) for l in range(max_degree + 1) for m in range(-l, l + 1)]


def stack(x: Features) -> Rows:
    """Puts the components of all degrees into one array, ordered as `degree_rows`.

    >>> from common.nn.features import harmonics
    >>> stack(harmonics(jnp.ones((5, 3)), 2)).shape
    (9, 5, 1)

    Raises:
        ValueError: A degree is missing or comes twice, or numbers of channels differ.
    """
    signal_degree(irreps_of(x))
    return jnp.stack([row for i in sorted(x) for row in unstacked(x[i], axis=-2)])


def unstack(rows: Rows, irreps: Iterable[Irrep]) -> Features:
    """Returns features from an array of all degrees.

    >>> from common.so3.irreps import harmonic_irreps
    >>> found = unstack(jnp.ones((9, 5, 1)), harmonic_irreps(2))
    >>> [part.shape for part in found.values()]
    [(5, 1, 1), (5, 3, 1), (5, 5, 1)]
    """
    by_degree = sorted(irreps)
    own = degree_slices(len(by_degree) - 1)
    return {
        irrep: jnp.moveaxis(rows[place], 0, -2)
        for irrep, place in zip(by_degree, own, strict=True)
    }


def signal_degree(irreps: Irreps) -> int:
    """Returns the largest degree of features that are signals.

    >>> from common.so3.irreps import uniform
    >>> signal_degree(uniform(2, 8))
    2

    Raises:
        ValueError: A degree is missing or comes twice, or numbers of channels differ.
    """
    degrees = [irrep.degree for irrep in sorted(irreps)]
    if degrees != list(range(len(degrees))) or len({*irreps.values()}) > 1:
        found = ", ".join(f"{irreps[i]}x{i}" for i in sorted(irreps))
        raise ValueError(
            "expected each degree from 0 once, all with one number of channels, for "
            f"signals on the sphere, found {found}"
        )
    return len(degrees) - 1


def values(rows: Rows, on: Sphere) -> Float[Array, "points *batch channels"]:
    """Returns the values of signals on a grid.

    >>> on = sphere(tuple(degree_rows(1)), 2, 4)
    >>> values(jnp.ones((4, 5, 3)), on).shape
    (8, 5, 3)
    """
    return _apply(on.to_grid, rows)


def coefficients(points: Float[Array, "points *batch channels"], on: Sphere) -> Rows:
    """Returns the coefficients of signals from their values on a grid.

    >>> on = sphere(tuple(degree_rows(1)), 2, 4)
    >>> coefficients(jnp.ones((8, 5, 3)), on).shape
    (4, 5, 3)
    """
    return _apply(on.from_grid, points)


def _apply(
    matrix: Float[np.ndarray, "out in"], x: Float[Array, "in *batch channels"]
) -> Float[Array, "out *batch channels"]:
    # One product of two matrices, the second long: nothing is transposed.
    matrix = jnp.asarray(matrix, x.dtype)
    flat = x.reshape(len(x), -1)
    found = jnp.matmul(matrix, flat, precision=jax.lax.Precision.HIGHEST)
    return found.reshape(-1, *x.shape[1:])


def separable_silu(
    rows: Rows, scalars: Float[Array, "*batch channels"], on: Sphere
) -> Rows:
    """Applies SiLU to the values of signals; scalars have a branch of their own.

    The separable S2 activation of EquiformerV2 (arXiv:2306.12059). SiLU is no
    polynomial, so that any grid leaves an error of equivariance.

    >>> on = sphere(tuple(degree_rows(1)), 2, 4)
    >>> separable_silu(jnp.ones((4, 5, 3)), jnp.zeros((5, 3)), on)[0, 0].tolist()
    [0.0, 0.0, 0.0]

    Args:
        rows: coefficients, (0, 0) the first.
        scalars: the numbers whose SiLU takes the place of degree 0.
        on: grid.
    """
    found = coefficients(nn.silu(values(rows, on)), on)
    return jnp.concatenate([nn.silu(scalars)[None], found[1:]])


def swiglu(
    rows: Float[Array, "rows *batch twice_channels"],
    scalars: Float[Array, "*batch thrice_channels"],
    on: Sphere,
) -> Rows:
    r"""Multiplies two halves of the channels on the sphere, and gates the product.

    The SwiGLU-S2 activation of EquiformerV3 (arXiv:2604.09130),
    $$ y = \sigma(g) \odot P[f_a f_b], \qquad y_0 \mathrel{+}= \mathrm{SiLU}(s)\, t, $$
    P the projection on the coefficients, a and b the halves of the channels, and g, s
    and t the thirds of the scalars. The grid of `product_resolution` makes it exact.

    >>> on = sphere(tuple(degree_rows(1)), *product_resolution(1, 1))
    >>> swiglu(jnp.ones((4, 5, 6)), jnp.zeros((5, 9)), on).shape
    (4, 5, 3)

    Args:
        rows: coefficients of both halves, (0, 0) the first.
        scalars: three for each channel of a half.
        on: their grid; not used where products have few terms, which are exact too.
    """
    left, right = jnp.split(rows, 2, axis=-1)
    gates, inside, outside = jnp.split(scalars, 3, axis=-1)
    products = _multiply(left, right, on)
    found = spread(nn.sigmoid(gates), len(rows), axis=-rows.ndim) * products
    first = found[:1] + nn.silu(inside) * outside
    return jnp.concatenate([first, found[1:]])


def _multiply(left: Rows, right: Rows, on: Sphere) -> Rows:
    """Returns the coefficients of products: by their terms if they are few."""
    form = _product_form(on.rows)
    if len(form.terms) > MAX_TERMS:
        return coefficients(values(left, on) * values(right, on), on)
    rows_last = lambda rows: jnp.moveaxis(rows, 0, -2)
    one = jnp.ones((1, 1), left.dtype)
    found = multilinear.apply(form, one, rows_last(left), rows_last(right))
    return jnp.moveaxis(found, -2, 0)


@functools.lru_cache(maxsize=32)
def _product_form(rows: tuple[tuple[int, int], ...]) -> multilinear.Form:
    """Returns the products of signals, exactly, as sums of products of coefficients."""
    max_degree, max_order = (max(abs(row[k]) for row in rows) for k in range(2))
    on = sphere(rows, *product_resolution(max_degree, max_order))
    table = np.einsum("op,px,py->xyo", on.from_grid, on.to_grid, on.to_grid)
    places = np.argwhere(np.abs(table) > 1e-9).tolist()
    terms = tuple(
        multilinear.Term((0, x, y, out), float(table[x, y, out]))
        for x, y, out in places
    )
    return multilinear.Form(terms, (1, *(len(rows),) * 3))
