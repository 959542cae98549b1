r"""The product with a scalar factor: the cheapest message with a direction.

$$ z_l = w_l\, x_0\, y_l + v_l\, x_l \quad (l > 0), \qquad z_0 = w_0\, x_0 $$
for harmonics y: of all paths only those in which one factor is a scalar (as in PaiNN,
Schütt et al. 2021, arXiv:2102.03150, here for any degree). What the other paths would
tell, a product inside the nodes can.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph, gather
from common.nn.products.spec import (
    EdgeWeights,
    Spec,
    as_array,
    equal_channels,
    split_weights,
)
from common.so3.irreps import SCALAR, Irrep, Path


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists (0, l, l) for all degrees, then (l, 0, l) for those above zero."""
    kept = [irrep for irrep in spec.out if irrep in dict(spec.y)]
    higher = [i for i, _ in spec.x if i != SCALAR and i in spec.out]
    return (
        *((SCALAR, irrep, irrep) for irrep in kept),
        *((irrep, SCALAR, irrep) for irrep in higher),
    )


def num_weights(spec: Spec) -> int:
    """Returns one weight a path and channel."""
    return equal_channels(spec) * len(paths(spec))


def irreps_out(spec: Spec) -> dict[Irrep, int]:
    """Returns the irreps of the product; its paths are added up."""
    return {out: equal_channels(spec) for *_, out in paths(spec)}


def product(
    x: Features, y: Features, weights: Float[Array, "*batch num_weights"], spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x."""
    total: Features = {}
    for (i, j, out), w in _with_weights(weights, spec):
        term = w[..., None, :] * (x[i] * y[j])
        total[out] = total[out] + term if out in total else term
    return total


def convolve(x: Features, graph: Graph, weights: EdgeWeights, spec: Spec) -> Features:
    """Sums the products with the harmonics of the edges; no product ever exists."""
    scalars = gather(x[SCALAR][:, 0], graph)
    total: Features = {}
    for (i, j, out), w in _with_weights(as_array(weights), spec):
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


def _with_weights(weights: Array, spec: Spec) -> "list[tuple[Path, Array]]":
    every = paths(spec)
    sizes = (equal_channels(spec),) * len(every)
    return list(zip(every, split_weights(weights, sizes), strict=True))
