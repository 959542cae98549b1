r"""The spherical Poisson bracket: what the Gaunt product cannot reach.

$$ z_{l_3} = \frac{1}{4 \pi} \int r \cdot (\nabla f \times \nabla g)\, Y_{l_3}\, dr,
   \qquad f = x \cdot Y, \quad g = y \cdot Y $$
is odd under the exchange of factors, and reaches the paths of odd $l_1 + l_2 + l_3$:
$$ \kappa \sqrt{2 l_3 + 1} = \pm \sqrt{l_1 (l_1 + 1)\, l_2 (l_2 + 1)}
   \sqrt{(2 l_1 + 1)(2 l_2 + 1)(2 l_3 + 1)}
   \begin{pmatrix} l_1 & l_2 & l_3 \\ 1 & -1 & 0 \end{pmatrix}, $$
zero on none of them. It is a pseudoscalar: of natural parities in both factors it makes
the opposite one, as the cross product does. The integrand has degree
$l_1 + l_2 + l_3 - 1$, and the grid is the smallest that is exact for it. Weights are
separable.
"""

import functools

from common.nn.features import Features
from common.nn.products import separable, signals
from common.nn.products.spec import PathWeights, Spec, added_up
from common.so3.grid import exact_resolution, quadrature
from common.so3.irreps import Path, product_paths


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists the paths whose degrees have an odd sum.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> len(paths(make_spec(*[uniform(2, 8, "SO3")] * 3)))
    4
    >>> len(paths(make_spec(*[uniform(2, 8)] * 3)))  # Natural parities: none.
    0
    """
    every = product_paths(dict(spec.x), dict(spec.y), spec.out)
    return tuple(p for p in every if signals.is_odd(p))


num_weights = functools.partial(separable.num_weights, paths)
irreps_out = functools.partial(added_up, paths)


@functools.cache
def constants(spec: Spec) -> dict[Path, float]:
    """Returns the multiples of the Clebsch-Gordan product.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import PSEUDOVECTOR, VECTOR
    >>> spec = make_spec({VECTOR: 1}, {VECTOR: 1}, [PSEUDOVECTOR])
    >>> [round(abs(value), 4) for value in constants(spec).values()]
    [2.4495]
    """
    every = paths(spec)
    return signals.constants(every, _tables(every), _cross) if every else {}


def product(
    x: Features, y: Features, weights: separable.Weights, spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import PSEUDOVECTOR, VECTOR
    >>> spec = make_spec({VECTOR: 1}, {VECTOR: 1}, [PSEUDOVECTOR])
    >>> x, y = ({VECTOR: jnp.eye(3)[:, k, None]} for k in (0, 1))
    >>> jnp.abs(product(x, y, jnp.ones(3), spec)[PSEUDOVECTOR]).round(3).ravel()
    Array([0.   , 0.   , 0.707], dtype=float32)
    """
    every = paths(spec)
    bare = lambda x, y: signals.multiply(
        x, y, every, _tables(every), _cross, signals.grade_of(every)
    )
    return separable.apply(x, y, weights, spec, constants(spec), bare)


def path_weights(weights: separable.Weights, spec: Spec) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product that is the same.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import PSEUDOVECTOR, VECTOR
    >>> spec = make_spec({VECTOR: 1}, {VECTOR: 1}, [PSEUDOVECTOR])
    >>> [abs(w).tolist() for w in path_weights(jnp.ones(3), spec).values()]
    [[1.0]]
    """
    return separable.path_weights(weights, spec, constants(spec))


def _cross(f: signals.Operand, h: signals.Operand) -> signals.Operand:
    """Returns the part along r of the product of two tangents."""
    return (f[0] * h[1] - f[1] * h[0])[None]


@functools.cache
def _tables(every: tuple[Path, ...]) -> signals.Tables:
    degrees = signals.largest_degrees(every)
    points, areas = quadrature(*exact_resolution(sum(degrees) - 1))
    # A quarter turn about r of both gradients leaves their product as it is.
    curls = signals.curls(points, max(degrees[:2]))
    share = (areas / areas.sum())[:, None]
    values = signals.values(points, degrees[2])
    return signals.Tables(curls, curls, tuple(share * table for table in values))
