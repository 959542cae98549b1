r"""The matrix product: features as matrices that act on spin J.

$$ X = \sum_l \sqrt{2 l + 1}\, x_l \cdot C^{J J l}, \qquad
   z_l = \sqrt{2 l + 1}\, C^{J J l} \cdot (X Y) $$
with X and Y of size 2J + 1 (Unke and Maennel 2024, arXiv:2401.07595, use matrices for
products likewise). Even paths are the anticommutator, odd ones the commutator:
$$ \kappa \sqrt{2 l_3 + 1} = \pm \sqrt{(2 l_1 + 1)(2 l_2 + 1)(2 l_3 + 1)}
   \begin{Bmatrix} l_1 & l_2 & l_3 \\ J & J & J \end{Bmatrix}. $$
J is the smallest whole number of at least half the largest degree for which none of
them is zero. Matrices of even and of odd parity are kept apart. Weights are separable,
and the cost is $L^3$ for the product and $L^4$ for the tables.
"""

import functools
import math

import numpy as np

from common.nn.features import Features
from common.nn.products import self_product, separable, signals
from common.nn.products.spec import PathWeights, Spec, added_up
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Path

paths = self_product.paths
num_weights = functools.partial(separable.num_weights, paths)
irreps_out = functools.partial(added_up, paths)


@functools.cache
def spin(every: tuple[Path, ...]) -> int:
    """Returns J for some paths.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> spin(paths(make_spec(*[uniform(2, 8, "SO3")] * 3)))
    1
    """
    found = (max(signals.largest_degrees(every)) + 1) // 2
    while any(abs(value) < 1e-6 for value in _constants(every, found).values()):
        found += 1
    return found


@functools.cache
def _constants(every: tuple[Path, ...], spin: int) -> dict[Path, float]:
    return signals.constants(every, _tables(every, spin), _matmul)


def constants(spec: Spec) -> dict[Path, float]:
    """Returns the multiples of the Clebsch-Gordan product.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = make_spec({VECTOR: 1}, {VECTOR: 1}, [SCALAR])
    >>> [round(abs(value), 4) for value in constants(spec).values()]
    [1.0]
    """
    every = paths(spec)
    return _constants(every, spin(every)) if every else {}


def product(
    x: Features, y: Features, weights: separable.Weights, spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec, x = make_spec(*[{VECTOR: 1}] * 2, [SCALAR]), {VECTOR: jnp.ones((3, 1))}
    >>> round(abs(float(product(x, x, jnp.ones(3), spec)[SCALAR][0, 0])), 3)
    1.732
    """
    every = paths(spec)
    bare = lambda x, y: signals.multiply(
        x, y, every, _tables(every, spin(every)), _matmul, signals.parity
    )
    return separable.apply(x, y, weights, spec, constants(spec), bare)


def path_weights(weights: separable.Weights, spec: Spec) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product that is the same.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = make_spec(*[{VECTOR: 1}] * 2, [SCALAR])
    >>> [abs(w).round(3).tolist() for w in path_weights(jnp.ones(3), spec).values()]
    [[1.0]]
    """
    return separable.path_weights(weights, spec, constants(spec))


def _matmul(f: signals.Operand, h: signals.Operand) -> signals.Operand:
    """Multiplies matrices whose entries are the first two axes, written out."""
    return sum(f[:, b, None] * h[None, b] for b in range(f.shape[1]))


@functools.cache
def _tables(every: tuple[Path, ...], spin: int) -> signals.Tables:
    tables = tuple(
        np.array(clebsch_gordan(spin, spin, l)) * math.sqrt(2 * l + 1)
        for l in range(max(signals.largest_degrees(every)) + 1)
    )
    return signals.Tables(tables, tables, tables)
