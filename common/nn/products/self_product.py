r"""The channelwise product of features with features of the same node.

$$ z_{l_3 c} = \sum_{l_1 l_2} w_{l_1 l_2 l_3 c} \sqrt{2 l_3 + 1}\,
   C^{l_1 l_2 l_3} (x_{l_1 c} \otimes y_{l_2 c}) $$
in component normalisation: every path, and the paths to one irrep added up, so that the
product has as many channels as its factors.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph
from common.nn.products import clebsch_gordan as channelwise
from common.nn.products import multilinear
from common.nn.products.spec import (
    EdgeWeights,
    Spec,
    added_up,
    convolve_edges,
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
    x: Features, y: Features, weights: Float[Array, "*batch num_weights"], spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> x = {irrep: jnp.ones((irrep.dim, 8)) for irrep in uniform(1, 8)}
    >>> spec = make_spec(*[uniform(1, 8)] * 3)
    >>> [part.shape for part in product(x, x, jnp.ones(32), spec).values()]
    [(1, 8), (3, 8)]
    """
    form, rows = _form(spec)
    channels = equal_channels(spec)
    weights = weights.reshape(*weights.shape[:-1], len(paths(spec)), channels)
    if len(form.terms) > MAX_TERMS:
        return _by_tables(x, y, weights, spec)
    stack = lambda part: jnp.concatenate([part[i] for i in sorted(part)], axis=-2)
    z = multilinear.apply(form, weights, stack(x), stack(y))
    return {irrep: z[..., own, :] for irrep, own in rows.items()}


def convolve(x: Features, graph: Graph, weights: EdgeWeights, spec: Spec) -> Features:
    """Sums the products with the harmonics of the edges.

    >>> from common.nn.features import from_scalars, irreps_of
    >>> from common.nn.graph import make_graph
    >>> from common.nn.products.spec import make_spec
    >>> ones, x = jnp.ones((2, 2)), from_scalars(jnp.ones((2, 8)))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> spec = make_spec(irreps_of(x), irreps_of(graph.harmonics), irreps_of(x))
    >>> sums = convolve(x, graph, jnp.ones((2, 2, num_weights(spec))), spec)
    >>> [part.shape for part in sums.values()]
    [(2, 1, 8)]
    """
    return convolve_edges(product, x, graph, weights, spec)


def _rows(irreps: tuple[Irrep, ...]) -> dict[Irrep, slice]:
    ends = np.cumsum([0, *(irrep.dim for irrep in irreps)]).tolist()
    return {i: slice(ends[k], ends[k + 1]) for k, i in enumerate(irreps)}


@functools.cache
def _form(spec: Spec) -> tuple[multilinear.Form, dict[Irrep, slice]]:
    """Lists the couplings of all paths, and where each irrep of the product lies."""
    rows = [_rows(tuple(dict(part))) for part in (spec.x, spec.y)]
    rows.append(_rows(tuple(irreps_out(spec))))
    terms = []
    for path, irreps in enumerate(paths(spec)):
        degrees = (irrep.degree for irrep in irreps)
        table = clebsch_gordan(*degrees) * math.sqrt(irreps[2].dim)
        first = [of[irrep].start for of, irrep in zip(rows, irreps, strict=True)]
        for place in np.argwhere(np.abs(table) > 1e-9).tolist():
            own = (a + b for a, b in zip(first, place, strict=True))
            terms.append(multilinear.Term((path, *own), float(table[tuple(place)])))
    sizes = (len(paths(spec)), *(sum(i.dim for i in of) for of in rows))
    return multilinear.Form(tuple(terms), sizes), rows[2]


def _by_tables(x: Features, y: Features, weights: Array, spec: Spec) -> Features:
    """Multiplies path by path with dense tables: for degrees with too many terms."""
    flat = weights.reshape(*weights.shape[:-2], -1)
    total: Features = {}
    every = paths(spec)
    of_paths = split_weights(flat, (equal_channels(spec),) * len(every))
    for path, w in zip(every, of_paths, strict=True):
        term = w[..., None, :] * channelwise.path_product(x, y, path)
        total[path[2]] = total[path[2]] + term if path[2] in total else term
    return total
