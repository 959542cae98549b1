"""Products of features: one table, one file a product.

To add a product, write a file with the functions of a row and add the row here; a
config names it in `config.model.product`. `common.nn.products.spec.Product` says what a
row is.
"""

from functools import partial
from typing import Any

from common.nn.features import Features, zeros
from common.nn.graph import Graph
from common.nn.products import clebsch_gordan, scalar, self_product, so2
from common.nn.products.spec import EdgeWeights, Product, Spec

_FUNCTIONS = ("paths", "num_weights", "irreps_out", "product")


def _row(module: Any, **facts: Any) -> Product:
    functions = {name: getattr(module, name) for name in _FUNCTIONS}
    return Product(**functions, convolve=partial(_convolve, module), **facts)


def _convolve(
    module: Any, x: Features, graph: Graph, weights: EdgeWeights, spec: Spec
) -> Features:
    """Convolves; where no node has a sender, the sums are zero."""
    if graph.envelope.size == 0:
        return zeros(module.irreps_out(spec), len(graph.envelope))
    return module.convolve(x, graph, weights, spec)


PRODUCTS: dict[str, Product] = {
    "scalar": _row(
        scalar,
        needs_direction=False,
        parity="any; one factor is a scalar",
        cost="L^2",
        is_complete=False,
    ),
    "clebsch_gordan": _row(
        clebsch_gordan,
        needs_direction=False,
        parity="p1 p2 = p3",
        cost="L^5 an edge, L^6 with y of many channels",
        is_complete=True,
    ),
    "self_product": _row(
        self_product,
        needs_direction=False,
        parity="p1 p2 = p3",
        cost="the couplings, about L^5",
        is_complete=True,
    ),
    "so2": _row(
        so2, needs_direction=True, parity="natural", cost="L^3", is_complete=True
    ),
}
