r"""The Gaunt product and the bracket together: every path, at the cost of signals.

$$ z = z_{\text{Gaunt}} + z_{\text{bracket}} $$
Even paths and odd ones, none missing: for O(3) all parities, for SO(3) left and right.
Weights are separable, those of the bracket after those of the Gaunt product, so a
channel reaches only $O(L)$ of its $O(L^3)$ path weights at once; several channels and
the linear maps around a product make up for it.
"""

import functools

from common.nn.features import Features, add
from common.nn.products import bracket, gaunt
from common.nn.products.separable import Weights
from common.nn.products.spec import PathWeights, Spec, added_up
from common.so3.irreps import Path


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists the even paths, then the odd ones.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> len(paths(make_spec(*[uniform(2, 8, "SO3")] * 3)))
    15
    """
    return gaunt.paths(spec) + bracket.paths(spec)


irreps_out = functools.partial(added_up, paths)


def num_weights(spec: Spec) -> int:
    """Returns the weights of both products.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> num_weights(make_spec(*[uniform(2, 8, "SO3")] * 3))
    120
    """
    return gaunt.num_weights(spec) + bracket.num_weights(spec)


def product(x: Features, y: Features, weights: Weights, spec: Spec) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> irreps = uniform(1, 1, "SO3")
    >>> spec, x = make_spec(*[irreps] * 3), {i: jnp.ones((i.dim, 1)) for i in irreps}
    >>> [part.shape for part in product(x, x, jnp.ones(9), spec).values()]
    [(1, 1), (3, 1)]
    """
    even = gaunt.num_weights(spec)
    odd_part = bracket.product(x, y, weights[..., even:], spec)
    return add(gaunt.product(x, y, weights[..., :even], spec), odd_part)


def path_weights(weights: Weights, spec: Spec) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product that is the same.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> len(path_weights(jnp.ones(9), make_spec(*[uniform(1, 1, "SO3")] * 3)))
    5
    """
    even = gaunt.num_weights(spec)
    odd_part = bracket.path_weights(weights[..., even:], spec)
    return gaunt.path_weights(weights[..., :even], spec) | odd_part
