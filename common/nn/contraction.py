r"""Contractions: polynomials of features of one node, channel by channel.

$$ z_{L c} = \sum_{\nu = 1}^{N} \sum_p w^\nu_{p L c}\, B^\nu_{p L}(x_c) $$
In the form "symmetric" p counts all equivariant polynomials of order $\nu$, see
`common.so3.symmetric` (Batatia et al. 2022, arXiv:2206.07697, eqs. 10 and 11). In the
form "grid" there is one for each L, a power of the signal on the sphere,
$$ B^\nu_L(x) \propto \int Y_L(n)\, \Big( \sum_{l m} x_{l m} Y_{l m}(n) \Big)^\nu dn, $$
on a grid that is exact. Its sums of degrees are even, so it makes no pseudovector of
vectors, and its cost grows more slowly with the degree. Every B has unit second moment
where x is standard normal.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.so3.grid import SphereGrid, sphere_grid
from common.so3.irreps import Irrep, degree_slices
from common.so3.symmetric import symmetric_couplings


class Contraction(NamedTuple):
    """What a contraction knows before it sees arrays; hashable.

    Attributes:
        irreps: irreps of the features, sorted.
        out: irreps of the result, sorted.
        order: largest order N.
    """

    irreps: tuple[Irrep, ...]
    out: tuple[Irrep, ...]
    order: int


class Form(NamedTuple):
    """A row of the table of contractions.

    Attributes:
        paths: `(spec) -> irreps` of the paths, in the order of the weights.
        contract: `(x, weights, spec) -> features`; weights are `[..., paths, channels]`
            and x has one number of channels. Irreps without a path are left out.
    """

    paths: Callable[[Contraction], tuple[Irrep, ...]]
    contract: Callable[..., Features]


def symmetric_paths(spec: Contraction) -> tuple[Irrep, ...]:
    """Lists the irrep of every polynomial, by order first.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = Contraction((SCALAR, VECTOR), (SCALAR, VECTOR), 2)
    >>> " ".join(map(str, symmetric_paths(spec)))
    '0e 1o 0e 0e 1o'
    """
    return tuple(
        irrep
        for order in range(1, spec.order + 1)
        for irrep, paths in _tables(spec, order)
        for _ in range(len(paths))
    )


def contract_symmetric(
    x: Features, weights: Float[Array, "*batch paths channels"], spec: Contraction
) -> Features:
    """Contracts along all paths.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = Contraction((VECTOR,), (SCALAR,), 2)
    >>> found = contract_symmetric({VECTOR: jnp.ones((3, 1))}, jnp.ones((1, 1)), spec)
    >>> round(float(found[SCALAR][0, 0]), 3)  # Three, over the root of 15.
    0.775
    """
    stacked = jnp.concatenate([x[irrep] for irrep in spec.irreps], axis=-2)
    found = []
    for order in range(1, spec.order + 1):
        tables = _tables(spec, order)
        if not tables:
            continue
        rows = [paths.reshape(-1, paths.shape[-1]) for _, paths in tables]
        values = _times(np.concatenate(rows), _monomials(stacked, spec, order))
        parts = _split(values, [len(own) for own in rows])
        found += [
            (irrep, part.reshape(*part.shape[:-2], len(paths), irrep.dim, -1))
            for part, (irrep, paths) in zip(parts, tables, strict=True)
        ]
    return _weighted(found, weights)


def grid_paths(spec: Contraction) -> tuple[Irrep, ...]:
    """Lists the irreps that each power has.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = Contraction((SCALAR, VECTOR), (SCALAR, VECTOR), 2)
    >>> " ".join(map(str, grid_paths(spec)))
    '0e 1o 0e 1o'
    """
    return tuple(
        irrep
        for order in range(1, spec.order + 1)
        for irrep, _ in _projections(spec, order)
    )


def contract_on_grid(
    x: Features, weights: Float[Array, "*batch paths channels"], spec: Contraction
) -> Features:
    """Contracts by powers of signals.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = Contraction((VECTOR,), (SCALAR,), 2)
    >>> found = contract_on_grid({VECTOR: jnp.ones((3, 1))}, jnp.ones((1, 1)), spec)
    >>> round(float(found[SCALAR][0, 0]), 3)
    0.775

    Raises:
        ValueError: A degree comes twice, or parities are neither natural nor all even.
    """
    degrees = degree_slices(max(irrep.degree for irrep in spec.irreps))
    harmonics = _grid(spec).harmonics
    values = np.concatenate([harmonics[:, degrees[i.degree]] for i in spec.irreps], 1)
    stacked = jnp.concatenate([x[irrep] for irrep in spec.irreps], axis=-2)
    signal = _times(values, stacked)
    power, found = jnp.ones_like(signal), []
    for order in range(1, spec.order + 1):
        power = power * signal
        projections = _projections(spec, order)
        if not projections:
            continue
        irreps, rows = zip(*projections, strict=True)
        values = _times(np.concatenate(rows), power)
        parts = _split(values, [irrep.dim for irrep in irreps])
        found += [
            (irrep, part[..., None, :, :])
            for irrep, part in zip(irreps, parts, strict=True)
        ]
    return _weighted(found, weights)


CONTRACTIONS: dict[str, Form] = {
    "symmetric": Form(symmetric_paths, contract_symmetric),
    "grid": Form(grid_paths, contract_on_grid),
}


def _tables(
    spec: Contraction, order: int
) -> list[tuple[Irrep, Float[np.ndarray, "paths dim monomials"]]]:
    """Lists the couplings of the irreps that have any."""
    tables = symmetric_couplings(spec.irreps, spec.out, order).tables
    return [(irrep, paths) for irrep, paths in tables.items() if len(paths)]


def _monomials(x: Array, spec: Contraction, order: int) -> Array:
    """Multiplies rows; they are selected by products, whose gradients scatter not."""
    rows = symmetric_couplings(spec.irreps, spec.out, order).monomials
    select = np.eye(x.shape[-2])[rows]
    return math.prod(_times(select[:, k], x) for k in range(order))


@functools.cache
def _grid(spec: Contraction) -> SphereGrid:
    """Returns a grid exact for the last power times any harmonic of the output."""
    every = {*spec.irreps, *spec.out}
    degrees = [irrep.degree for irrep in every]
    is_natural = all(irrep.parity == (-1) ** irrep.degree for irrep in every)
    is_even = all(irrep.parity == 1 for irrep in every)
    if len({*degrees}) < len(every) or not (is_natural or is_even):
        raise ValueError(
            "expected each degree once, with natural parities or all even, for a "
            f"contraction on a grid, found {', '.join(map(str, sorted(every)))}"
        )
    largest = lambda irreps: max(irrep.degree for irrep in irreps)
    total = spec.order * largest(spec.irreps) + largest(spec.out)
    return sphere_grid(total // 2 + 1, total + 1, max(degrees))


@functools.cache
def _projections(
    spec: Contraction, order: int
) -> list[tuple[Irrep, Float[np.ndarray, "dim grid"]]]:
    """Lists the maps from a power to irreps, none where an irrep has no part in it."""
    grid = _grid(spec)
    harmonics = grid.harmonics.astype(float)
    weights = np.exp(grid.log_weights.astype(float)) / (4.0 * np.pi)
    slices = degree_slices(max(irrep.degree for irrep in {*spec.irreps, *spec.out}))
    own = np.concatenate([harmonics[:, slices[i.degree]] for i in spec.irreps], axis=1)
    # Mean products of the powers at two points, for a standard normal x (Isserlis).
    covariance, size = own @ own.T, own.shape[1]
    moments = sum(
        _pairings(order, crossed) * covariance**crossed * size ** (order - crossed)
        for crossed in range(order % 2, order + 1, 2)
    )
    found = []
    for irrep in spec.out:
        rows = (harmonics[:, slices[irrep.degree]] * weights[:, None]).T
        second_moment = np.einsum("ma,ab,mb->", rows, moments, rows) / irrep.dim
        if second_moment > 1e-6 * size**order:
            found.append((irrep, rows / math.sqrt(second_moment)))
    return found


def _pairings(order: int, crossed: int) -> int:
    """Counts the pairings of two sets of `order` things, so many of them crossed."""
    within = math.prod(range(order - crossed - 1, 0, -2))
    return math.comb(order, crossed) ** 2 * math.factorial(crossed) * within**2


def _times(matrix: Float[np.ndarray, "rows columns"], x: Array) -> Array:
    """Multiplies the components by an exact table."""
    table = jnp.asarray(matrix, x.dtype)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("ra,...ac->...rc", table, x, precision=highest)


def _split(x: Array, sizes: Sequence[int]) -> list[Array]:
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=-2)


def _weighted(
    parts: Sequence[tuple[Irrep, Array]],
    weights: Float[Array, "*batch paths channels"],
) -> Features:
    """Adds up the paths to each irrep, times their weights."""
    total: Features = {}
    start = 0
    for irrep, part in parts:
        own = weights[..., start : start + part.shape[-3], None, :]
        start += part.shape[-3]
        term = jnp.sum(own * part, axis=-3)
        total[irrep] = total[irrep] + term if irrep in total else term
    return total
