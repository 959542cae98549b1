r"""The product of vector spherical harmonics: every path with a weight of its own.

A signal may have values in an irrep: $Y^{j}_{l s}(r) = Y_l(r) \otimes s$, coupled to j.
Multiplied point by point, signals of $s_1$ and $s_2$ coupled to $s_3$ give on the path
$(j_1, j_2, j_3)$ the generalised Gaunt constant
$$ \kappa \sqrt{2 j_3 + 1} = \pm \Big[\prod_{i=1}^3 (2 j_i + 1)(2 l_i + 1)\Big]^{1/2}
   \begin{pmatrix} l_1 & l_2 & l_3 \\ 0 & 0 & 0 \end{pmatrix} \begin{Bmatrix}
   l_1 & l_2 & l_3 \\ s_1 & s_2 & s_3 \\ j_1 & j_2 & j_3 \end{Bmatrix} $$
(Xie et al. 2026, arXiv:2602.21466), times $\sqrt 3$ where one factor is a scalar and
the other a vector. Scalars alone reach the even paths. A scalar times a vector signal,
$l = j$ in the factors and $l_3 = j_3 - 1$ in the product, reaches every odd one. Each
pair of degrees is multiplied apart, so that each path has its own weight, which is
divided by the constant: the product is that of `common.nn.products.self_product`.

A pair takes $L^2 \log^2 L$ with fast Legendre and Fourier transforms, all pairs
$O(L^4 \log^2 L)$. Here transforms are dense tables of $L^4$, and the values of all
paths, summed on the grid before one transform back for each output, take $L^5$.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from common.nn.features import Features
from common.nn.products import self_product, separable, signals
from common.nn.products.spec import Spec
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.grid import exact_resolution, quadrature
from common.so3.irreps import Path

paths, num_weights = self_product.paths, self_product.num_weights
irreps_out, path_weights = self_product.irreps_out, self_product.path_weights


@functools.cache
def constants(spec: Spec) -> dict[Path, float]:
    """Returns the multiples of the Clebsch-Gordan product that weights are divided by.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import PSEUDOVECTOR, VECTOR
    >>> spec = make_spec({VECTOR: 1}, {VECTOR: 1}, [PSEUDOVECTOR])
    >>> [round(abs(value), 4) for value in constants(spec).values()]
    [1.0]
    """
    every = paths(spec)
    found: dict[Path, float] = {}
    for of_kind, tables in zip(_by_kind(every), _tables(every), strict=True):
        found |= signals.constants(of_kind, tables, np.multiply)
    return found


def product(
    x: Features, y: Features, weights: separable.Weights, spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec, x = make_spec(*[{VECTOR: 1}] * 2, [SCALAR]), {VECTOR: jnp.ones((3, 1))}
    >>> round(float(product(x, x, jnp.ones(1), spec)[SCALAR][0, 0]), 3)
    1.732
    """
    every, scales = paths(spec), constants(spec)
    x, y = separable.aligned(x, y)
    weight_of = path_weights(weights, spec)
    found: Features = {}
    for of_kind, tables in zip(_by_kind(every), _tables(every), strict=True):
        first, second = (
            {i: signals.evaluate(table, {i: of[i]}) for i in {p[k] for p in of_kind}}
            for k, (of, table) in enumerate(((x, tables.x), (y, tables.y)))
        )
        for out in sorted({p[2] for p in of_kind}):
            total: Array | float = 0.0
            for path in (p for p in of_kind if p[2] == out):
                scaled = weight_of[path] / scales[path] * first[path[0]]
                total = total + scaled * second[path[1]]
            part = signals.project(tables.out, jnp.asarray(total), [out])[out]
            found[out] = found[out] + part if out in found else part
    return found


def _by_kind(every: tuple[Path, ...]) -> tuple[list[Path], list[Path]]:
    is_odd = signals.is_odd
    return [p for p in every if not is_odd(p)], [p for p in every if is_odd(p)]


@functools.cache
def _tables(every: tuple[Path, ...]) -> tuple[signals.Tables, signals.Tables]:
    """Returns tables of scalar signals, and of scalar and vector signals."""
    degrees = signals.largest_degrees(every)
    points, areas = quadrature(*exact_resolution(sum(degrees)))
    share = (areas / areas.sum())[:, None]
    scalars = signals.values(points, max(degrees))
    back = tuple(share * table for table in scalars)
    own, below = (_vectors(points, max(degrees), shift) for shift in (0, -1))
    vectors_back = tuple(share * table for table in below)
    return (
        signals.Tables(scalars, scalars, back),
        signals.Tables(scalars, own, vectors_back),
    )


def _vectors(
    points: Float64[np.ndarray, "grid 3"], max_degree: int, shift: int
) -> tuple[Float64[np.ndarray, "2 grid _dim"], ...]:
    """Returns the tangential parts of vector harmonics of l = j + shift, by j.

    The signals of l = j have no other part, and so none counts in a product with them.
    """
    scalars, frames = signals.values(points, max_degree), signals.tangents(points)
    found = []
    for j in range(max_degree + 1):
        l = max(j + shift, 0)
        table = clebsch_gordan(l, 1, j) * math.sqrt(2 * j + 1)
        found.append(np.einsum("pga,nam,gn->pgm", frames, table, scalars[l][0]))
    return tuple(found)
