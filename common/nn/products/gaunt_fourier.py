r"""The Gaunt product as a product of Fourier series on the torus.

A harmonic of degree L is a trigonometric polynomial of both angles,
$$ Y(\beta, \alpha) = \sum_{|u|, |v| \le L} c_{u v}\, e^{i (u \beta + v \alpha)}, $$
also past the poles, where $(2 \pi - \beta, \alpha)$ is the point
$(\beta, \alpha + \pi)$. Products convolve coefficients, which fast Fourier transforms
do in $L^2 \log L$ (Luo et al. 2024, arXiv:2401.10216). The way back is the
integral over the sphere, $0 \le \beta \le \pi$: Gauss-Legendre nodes make it exact,
which equal steps would not. Paths, constants and weights are those of
`common.nn.products.gaunt`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float64

from common.nn.features import Features
from common.nn.products import gaunt, separable, signals
from common.nn.products.spec import Spec
from common.so3.grid import exact_resolution, quadrature
from common.so3.irreps import Path

paths, num_weights, irreps_out = gaunt.paths, gaunt.num_weights, gaunt.irreps_out
constants, path_weights = gaunt.constants, gaunt.path_weights


class _Plan(NamedTuple):
    """Tables to and from coefficients, real and imaginary, and degrees of factors."""

    tables: signals.Tables
    degrees: tuple[int, ...]


def product(
    x: Features, y: Features, weights: separable.Weights, spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec, x = make_spec(*[{VECTOR: 1}] * 2, [SCALAR]), {VECTOR: jnp.ones((3, 1))}
    >>> round(float(product(x, x, jnp.ones(3), spec)[SCALAR][0, 0]), 3)
    1.732
    """
    every = paths(spec)

    def bare(x: Features, y: Features) -> Features:
        tables, degrees = _plan(every)
        convolve = functools.partial(_convolve, degrees=degrees)
        grade = signals.grade_of(every)
        return signals.multiply(x, y, every, tables, convolve, grade)

    return separable.apply(x, y, weights, spec, constants(spec), bare)


def _convolve(
    f: signals.Signal, h: signals.Signal, degrees: tuple[int, ...]
) -> signals.Signal:
    """Multiplies two series on a grid of the torus."""
    first, second, out = degrees
    both = first + second
    # Any u of the product counts on the way back; of v only those of its degrees.
    sizes = (2 * both + 1, both + out + 1)
    values = [
        jnp.fft.irfft2(_padded(part, degree, sizes), sizes, (0, 1), norm="forward")
        for part, degree in ((f, first), (h, second))
    ]
    found = jnp.fft.rfft2(values[0] * values[1], axes=(0, 1), norm="forward")
    found = found[:, : out + 1]
    flat = found.reshape(-1, *found.shape[2:])
    return jnp.stack([jnp.real(flat), jnp.imag(flat)])


def _padded(
    part: signals.Signal, degree: int, sizes: tuple[int, int]
) -> Complex[Array, "res_u half_res_v *batch channels"]:
    """Lays out coefficients for the transform: u from 0, then from below zero."""
    full = jax.lax.complex(part[0], part[1])
    full = full.reshape(2 * degree + 1, degree + 1, *full.shape[1:])
    blank = ((0, 0),) * (full.ndim - 2)
    full = jnp.pad(full, ((0, 0), (0, sizes[1] // 2 - degree), *blank))
    gap = jnp.zeros((sizes[0] - len(full), *full.shape[1:]), full.dtype)
    return jnp.concatenate([full[: degree + 1], gap, full[degree + 1 :]])


@functools.cache
def _plan(every: tuple[Path, ...]) -> _Plan:
    first, second, out = degrees = signals.largest_degrees(every)
    tables = signals.Tables(_series(first), _series(second), _back(first + second, out))
    return _Plan(tables, degrees)


@functools.cache
def _series(max_degree: int) -> tuple[Float64[np.ndarray, "2 series _dim"], ...]:
    """Returns coefficients of the harmonics, v from zero, by degree."""
    size = 2 * max_degree + 1
    angles = 2.0 * np.pi * np.arange(size) / size
    beta, alpha = (a.ravel() for a in np.meshgrid(angles, angles, indexing="ij"))
    points = np.sin(beta) * np.sin(alpha), np.cos(beta), np.sin(beta) * np.cos(alpha)
    found = []
    for (values,) in signals.values(np.stack(points, axis=-1), max_degree):
        grid = values.reshape(size, size, -1)
        series = np.fft.rfft2(grid, axes=(0, 1), norm="forward")
        series = series.reshape(-1, grid.shape[-1])
        found.append(np.stack([series.real, series.imag]))
    return tuple(found)


@functools.cache
def _back(both: int, out: int) -> tuple[Float64[np.ndarray, "2 series _dim"], ...]:
    """Returns the integrals of each term of a series with the harmonics."""
    resolution = exact_resolution(both + out)
    points, areas = quadrature(*resolution)
    beta = np.arccos(points[:, 1])
    alpha = np.tile(2.0 * np.pi * np.arange(resolution[1]) / resolution[1], len(beta))
    alpha = alpha[: len(beta)]
    orders = np.concatenate([np.arange(both + 1), np.arange(-both, 0)])
    v = np.arange(out + 1)
    phases = orders[:, None, None] * beta + v[:, None] * alpha
    # Real signals: the terms of -v are the conjugates of those of v.
    terms = np.exp(1j * phases) * np.where(v, 2.0, 1.0)[:, None]
    terms = terms.reshape(-1, len(beta)) * (areas / areas.sum())
    rows = [terms @ values[0] for values in signals.values(points, out)]
    return tuple(np.stack([part.real, -part.imag]) for part in rows)
