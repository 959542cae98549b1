r"""Weights of products that cannot tell paths apart.

$$ w_{l_1 l_2 l_3} = u_{l_1} v_{l_2} s_{l_3} \kappa_{l_1 l_2 l_3} n_{l_3}, \qquad
   n_{l_3}^{-2} = \sum_{l_1 l_2} \kappa_{l_1 l_2 l_3}^2 $$
One weight for each irrep and channel of x, of y and of the product, and the constants
of the product: what it gains in time it pays in freedom (Xie et al. 2025,
arXiv:2506.13523). With all weights one and factors of unit second moment, so is the
product.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.products.spec import PathWeights, Spec, equal_channels, split_weights
from common.so3.irreps import Irrep, Path

Weights: TypeAlias = Float[Array, "*batch num_weights"]
Constants: TypeAlias = Mapping[Path, float]


class Factors(NamedTuple):
    """What belongs to the irreps of x, of y and of the product on some path."""

    x: dict[Irrep, Float[Array, "*batch channels"]]
    y: dict[Irrep, Float[Array, "*batch channels"]]
    out: dict[Irrep, Float[Array, "*batch channels"]]


def num_weights(paths: Callable[[Spec], Sequence[Path]], spec: Spec) -> int:
    """Returns one weight an irrep on some path and channel, of x, of y and of out.

    >>> from common.nn.products.gaunt import paths
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> num_weights(paths, make_spec(*[uniform(2, 8)] * 3))
    72
    """
    return equal_channels(spec) * sum(map(len, _irreps(paths(spec))))


def _irreps(every: Sequence[Path]) -> list[list[Irrep]]:
    return [sorted({path[place] for path in every}) for place in range(3)]


def _factors(weights: Weights, every: Sequence[Path], channels: int) -> Factors:
    irreps = _irreps(every)
    parts = iter(split_weights(weights, (channels,) * sum(map(len, irreps))))
    return Factors(*({i: next(parts) for i in own} for own in irreps))


def _norms(constants: Constants) -> dict[Irrep, float]:
    squares: dict[Irrep, float] = {}
    for (*_, out), constant in constants.items():
        squares[out] = squares.get(out, 0.0) + constant**2
    return {out: 1.0 / math.sqrt(square) for out, square in squares.items()}


def path_weights(weights: Weights, spec: Spec, constants: Constants) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product that is the same.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR
    >>> spec = make_spec({SCALAR: 1}, {SCALAR: 1}, [SCALAR])
    >>> path = (SCALAR,) * 3
    >>> path_weights(jnp.array([2.0, 3.0, 5.0]), spec, {path: 7.0})[path].tolist()
    [30.0]
    """
    if not constants:
        return {}
    u, v, s = _factors(weights, tuple(constants), equal_channels(spec))
    norms = _norms(constants)
    return {
        (i, j, k): (constant * norms[k]) * (u[i] * v[j] * s[k])
        for (i, j, k), constant in constants.items()
    }


def apply(
    x: Features,
    y: Features,
    weights: Weights,
    spec: Spec,
    constants: Constants,
    bare: Callable[[Features, Features], Features],
) -> Features:
    """Returns a product without weights, of scaled factors, scaled.

    >>> import jax.numpy as jnp
    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR
    >>> spec, x = make_spec(*[{SCALAR: 1}] * 3), {SCALAR: jnp.ones((1, 1))}
    >>> bare = lambda x, y: {SCALAR: 7.0 * x[SCALAR] * y[SCALAR]}
    >>> weights, constants = jnp.array([2.0, 3.0, 5.0]), {(SCALAR,) * 3: 7.0}
    >>> apply(x, x, weights, spec, constants, bare)[SCALAR].tolist()
    [[30.0]]

    Args:
        x: features of the first factor.
        y: features of the second one, of one channel or those of `x`.
        weights: weights of x, then of y, then of the product.
        spec: irreps.
        constants: constants of `bare`, by path.
        bare: product of features with as many axes as each other.
    """
    if not constants:
        return {}
    u, v, s = _factors(weights, tuple(constants), equal_channels(spec))
    x, y = aligned(
        *({i: w[i][..., None, :] * of[i] for i in w} for of, w in ((x, u), (y, v)))
    )
    found, norms = bare(x, y), _norms(constants)
    return {k: (norms[k] * s[k])[..., None, :] * found[k] for k in sorted(s)}


def aligned(x: Features, y: Features) -> tuple[Features, Features]:
    """Gives two features the same number of axes.

    >>> import jax.numpy as jnp
    >>> from common.nn.features import from_scalars
    >>> x, y = from_scalars(jnp.ones((5, 8))), from_scalars(jnp.ones(8))
    >>> [part.shape for of in aligned(x, y) for part in of.values()]
    [(5, 1, 8), (1, 1, 8)]
    """
    axes = max(np.ndim(part) for of in (x, y) for part in of.values())
    grow = lambda a: a.reshape((1,) * (axes - a.ndim) + a.shape)
    x, y = ({i: grow(part) for i, part in of.items()} for of in (x, y))
    return x, y
