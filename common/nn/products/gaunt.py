r"""The Gaunt product: signals on the sphere, multiplied point by point.

$$ z_{l_3} = \frac{1}{4 \pi} \int (x \cdot Y)(r)\, (y \cdot Y)(r)\, Y_{l_3}(r)\, dr $$
reaches the paths of even $l_1 + l_2 + l_3$, those of its constants
$$ \kappa \sqrt{2 l_3 + 1} = \pm \sqrt{(2 l_1 + 1)(2 l_2 + 1)(2 l_3 + 1)}
   \begin{pmatrix} l_1 & l_2 & l_3 \\ 0 & 0 & 0 \end{pmatrix} $$
(Luo et al. 2024, arXiv:2401.10216). The integral is a sum over the smallest grid
that is exact. Weights are separable. Here transforms are dense tables, $L^4$ a channel;
with Legendre functions and azimuths apart they take $L^3$.
"""

import functools

from common.nn.features import Features
from common.nn.products import separable, signals
from common.nn.products.spec import PathWeights, Spec, added_up
from common.so3.grid import exact_resolution, quadrature
from common.so3.irreps import Path, product_paths


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists the paths whose degrees have an even sum.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> len(paths(make_spec(*[uniform(2, 8, "SO3")] * 3)))
    11
    """
    every = product_paths(dict(spec.x), dict(spec.y), spec.out)
    return tuple(p for p in every if not signals.is_odd(p))


num_weights = functools.partial(separable.num_weights, paths)
irreps_out = functools.partial(added_up, paths)


@functools.cache
def constants(spec: Spec) -> dict[Path, float]:
    """Returns the multiples of the Clebsch-Gordan product.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> spec = make_spec(*[uniform(1, 1)] * 3)
    >>> [round(value, 4) for value in constants(spec).values()]
    [1.0, 1.7321, 1.0, 1.0]
    """
    every = paths(spec)
    return signals.constants(every, _tables(every), _multiply) if every else {}


def product(
    x: Features, y: Features, weights: separable.Weights, spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec, x = make_spec(*[{VECTOR: 1}] * 2, [SCALAR]), {VECTOR: jnp.ones((3, 1))}
    >>> round(float(product(x, x, jnp.ones(3), spec)[SCALAR][0, 0]), 3)
    1.732
    """
    every = paths(spec)
    bare = lambda x, y: signals.multiply(
        x, y, every, _tables(every), _multiply, signals.grade_of(every)
    )
    return separable.apply(x, y, weights, spec, constants(spec), bare)


def path_weights(weights: separable.Weights, spec: Spec) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product that is the same.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = make_spec(*[{VECTOR: 1}] * 2, [SCALAR])
    >>> [w.tolist() for w in path_weights(jnp.ones(3), spec).values()]
    [[1.0]]
    """
    return separable.path_weights(weights, spec, constants(spec))


def _multiply(f: signals.Operand, h: signals.Operand) -> signals.Operand:
    return f * h


@functools.cache
def _tables(every: tuple[Path, ...]) -> signals.Tables:
    degrees = signals.largest_degrees(every)
    points, areas = quadrature(*exact_resolution(sum(degrees)))
    values = signals.values(points, max(degrees))
    share = (areas / areas.sum())[:, None]
    return signals.Tables(values, values, tuple(share * table for table in values))
