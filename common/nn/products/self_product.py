r"""The channelwise product of features with features of the same node.

$$ z_{l_3 c} = \sum_{l_1 l_2} w_{l_1 l_2 l_3 c} \sqrt{2 l_3 + 1}\,
   C^{l_1 l_2 l_3} (x_{l_1 c} \otimes y_{l_2 c}) $$
in component normalisation: every path, and the paths to one irrep added up, so that the
product has as many channels as its factors.
"""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.products import clebsch_gordan as channelwise
from common.nn.products import multilinear
from common.nn.products.spec import (
    PathWeights,
    Spec,
    added_up,
    equal_channels,
    num_weights_of,
    split_weights,
)
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, Path, product_paths

MAX_TERMS = 700
"""Couplings up to which a product is written out term by term."""


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists all paths of the irreps, ordered by output first.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> [tuple(map(str, path)) for path in paths(make_spec(*[uniform(1, 8)] * 3))][:2]
    [('0e', '0e', '0e'), ('1o', '1o', '0e')]
    """
    return product_paths(dict(spec.x), dict(spec.y), spec.out)


num_weights = functools.partial(num_weights_of, paths)
irreps_out = functools.partial(added_up, paths)


def product(
    x: Features,
    y: Features,
    weights: Float[Array, "*batch num_weights"],
    spec: Spec,
    max_terms: int = MAX_TERMS,
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> x = {irrep: jnp.ones((irrep.dim, 8)) for irrep in uniform(1, 8)}
    >>> spec = make_spec(*[uniform(1, 8)] * 3)
    >>> [part.shape for part in product(x, x, jnp.ones(32), spec).values()]
    [(1, 8), (3, 8)]

    Args:
        x: features of the first factor.
        y: features of the second one.
        weights: weights by path, then by channel.
        spec: irreps.
        max_terms: couplings up to which the product is written out term by term, the
            sparse form; more are multiplied by dense tables.
    """
    terms = form(spec)
    channels = equal_channels(spec)
    weights = weights.reshape(*weights.shape[:-1], len(paths(spec)), channels)
    if len(terms.terms) > max_terms:
        return _by_tables(x, y, weights, spec)
    stack = lambda part: jnp.concatenate([part[i] for i in sorted(part)], axis=-2)
    z = multilinear.apply(terms, weights, stack(x), stack(y))
    return {i: z[..., own, :] for i, own in rows(tuple(irreps_out(spec))).items()}


def path_weights(
    weights: Float[Array, "*batch num_weights"], spec: Spec
) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product: its own.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> spec = make_spec(*[uniform(1, 8)] * 3)
    >>> [w.shape for w in path_weights(jnp.ones(32), spec).values()]
    [(8,), (8,), (8,), (8,)]
    """
    every = paths(spec)
    sizes = (equal_channels(spec),) * len(every)
    return dict(zip(every, split_weights(weights, sizes), strict=True))


def rows(irreps: Sequence[Irrep]) -> dict[Irrep, slice]:
    """Returns where irreps lie in a stack of them.

    >>> rows((Irrep(0, 1), Irrep(1, -1)))[Irrep(1, -1)]
    slice(1, 4, None)
    """
    ends = np.cumsum([0, *(irrep.dim for irrep in irreps)]).tolist()
    return {i: slice(ends[k], ends[k + 1]) for k, i in enumerate(irreps)}


@functools.cache
def form(spec: Spec) -> multilinear.Form:
    """Lists the couplings of all paths.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> len(form(make_spec(*[uniform(1, 8)] * 3)).terms)
    10
    """
    parts = (tuple(dict(spec.x)), tuple(dict(spec.y)), tuple(irreps_out(spec)))
    places = [rows(part) for part in parts]
    terms = []
    for path, irreps in enumerate(paths(spec)):
        degrees = (irrep.degree for irrep in irreps)
        table = clebsch_gordan(*degrees) * math.sqrt(irreps[2].dim)
        first = [of[irrep].start for of, irrep in zip(places, irreps, strict=True)]
        for place in np.argwhere(np.abs(table) > 1e-9).tolist():
            own = (a + b for a, b in zip(first, place, strict=True))
            terms.append(multilinear.Term((path, *own), float(table[tuple(place)])))
    sizes = (len(paths(spec)), *(sum(i.dim for i in of) for of in places))
    return multilinear.Form(tuple(terms), sizes)


def _by_tables(x: Features, y: Features, weights: Array, spec: Spec) -> Features:
    """Multiplies path by path with dense tables: for degrees with too many terms."""
    flat = weights.reshape(*weights.shape[:-2], -1)
    total: Features = {}
    for path, w in path_weights(flat, spec).items():
        term = w[..., None, :] * channelwise.path_product(x, y, path)
        total[path[2]] = total[path[2]] + term if path[2] in total else term
    return total
