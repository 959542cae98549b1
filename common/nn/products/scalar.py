r"""The product with a scalar factor: the cheapest message with a direction.

$$ z_l = w_l\, x_0\, y_l + v_l\, x_l \quad (l > 0), \qquad z_0 = w_0\, x_0 $$
for harmonics y: of all paths only those in which one factor is a scalar (as in PaiNN,
Schütt et al. 2021, arXiv:2102.03150, here for any degree). What the other paths would
tell, a product inside the nodes can.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph, gather
from common.nn.products.spec import (
    EdgeWeights,
    PathWeights,
    Spec,
    added_up,
    as_array,
    equal_channels,
    num_weights_of,
    split_weights,
)
from common.so3.irreps import SCALAR, Path


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists (0, l, l) for all degrees, then (l, 0, l) for those above zero.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> [tuple(map(str, path)) for path in paths(make_spec(*[uniform(1, 8)] * 3))]
    [('0e', '0e', '0e'), ('0e', '1o', '1o'), ('1o', '0e', '1o')]
    """
    kept = [irrep for irrep in spec.out if irrep in dict(spec.y)]
    higher = [i for i, _ in spec.x if i != SCALAR and i in spec.out]
    return (
        *((SCALAR, irrep, irrep) for irrep in kept),
        *((irrep, SCALAR, irrep) for irrep in higher),
    )


num_weights = partial(num_weights_of, paths)
irreps_out = partial(added_up, paths)


def product(
    x: Features, y: Features, weights: Float[Array, "*batch num_weights"], spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> x = {SCALAR: jnp.ones((1, 2))}
    >>> product(x, x, jnp.ones(2), make_spec(*[uniform(0, 2)] * 3))[SCALAR]
    Array([[1., 1.]], dtype=float32)
    """
    total: Features = {}
    for (i, j, out), w in path_weights(weights, spec).items():
        term = w[..., None, :] * (x[i] * y[j])
        total[out] = total[out] + term if out in total else term
    return total


def convolve(x: Features, graph: Graph, weights: EdgeWeights, spec: Spec) -> Features:
    """Sums the products with the harmonics of the edges; no product ever exists.

    >>> from common.nn.graph import make_graph
    >>> from common.nn.products.spec import make_spec
    >>> ones, weights = jnp.ones((2, 2)), jnp.ones((2, 2, 8))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> spec = make_spec({SCALAR: 8}, {SCALAR: 1}, [SCALAR])
    >>> convolve({SCALAR: jnp.ones((2, 1, 8))}, graph, weights, spec)[SCALAR][0, 0, 0]
    Array(2., dtype=float32)
    """
    scalars = gather(x[SCALAR][:, 0], graph)
    total: Features = {}
    for (i, j, out), w in path_weights(as_array(weights), spec).items():
        if i == SCALAR:
            harmonics = graph.harmonics[j][..., 0]
            term = jnp.einsum("rsc,rsm->rmc", w * scalars, harmonics)
        elif graph.senders is None:
            term = jnp.einsum("rsc,smc->rmc", w, x[i])
        else:
            messages = w[:, :, None] * gather(x[i], graph)
            # Written out: XLA's product over each channel is far slower.
            term = sum(jnp.split(messages, messages.shape[1], axis=1))[:, 0]
        total[out] = total[out] + term if out in total else term
    return total


def path_weights(
    weights: Float[Array, "*batch num_weights"], spec: Spec
) -> PathWeights:
    """Returns the weights of the Clebsch-Gordan product: its own.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> len(path_weights(jnp.ones(24), make_spec(*[uniform(1, 8)] * 3)))
    3
    """
    every = paths(spec)
    sizes = (equal_channels(spec),) * len(every)
    return dict(zip(every, split_weights(weights, sizes), strict=True))
