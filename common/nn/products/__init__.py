"""Products of features: one table, one file a product.

To add a product, write a file with the functions of a row and add the row here; a
config names it in `config.model.product`. `common.nn.products.spec.Product` says what a
row is.
"""

from functools import partial
from typing import Any

from common.nn.features import Features, zeros
from common.nn.graph import Graph
from common.nn.products import (
    bracket,
    clebsch_gordan,
    complete,
    fully_connected,
    gaunt,
    gaunt_fourier,
    matrix,
    over_blocks,
    scalar,
    self_product,
    so2,
    vector_harmonics,
)
from common.nn.products.plan import edges_per_block, message_floats
from common.nn.products.spec import EdgeWeights, Product, Spec

_FUNCTIONS = ("paths", "num_weights", "irreps_out", "product", "path_weights")


def _row(module: Any, needs_direction: bool = False, **facts: Any) -> Product:
    functions = {name: getattr(module, name) for name in _FUNCTIONS}
    convolve = partial(_convolve, module)
    return Product(
        **functions, convolve=convolve, needs_direction=needs_direction, **facts
    )


def _convolve(
    module: Any, x: Features, graph: Graph, weights: EdgeWeights, spec: Spec
) -> Features:
    """Convolves; where no node has a sender, the sums are zero."""
    if graph.envelope.size == 0:
        return zeros(module.irreps_out(spec), len(graph.envelope))
    if hasattr(module, "convolve"):
        return module.convolve(x, graph, weights, spec)
    floats = message_floats(module.paths(spec), max(dict(spec.x).values()))
    edges = edges_per_block(floats)
    return over_blocks.convolve(module.product, x, graph, weights, spec, edges)


PRODUCTS: dict[str, Product] = {
    "scalar": _row(
        scalar,
        parity="any; one factor is a scalar",
        cost="L^2",
        is_complete=False,
    ),
    "clebsch_gordan": _row(
        clebsch_gordan,
        parity="p1 p2 = p3",
        cost="L^5 an edge, L^6 with y of many channels",
        is_complete=True,
    ),
    "self_product": _row(
        self_product,
        parity="p1 p2 = p3",
        cost="the couplings, about L^5",
        is_complete=True,
    ),
    "fully_connected": _row(
        fully_connected,
        parity="p1 p2 = p3",
        cost="the couplings, about L^5, of each pair of channels",
        is_complete=True,
        mixes_channels=True,
    ),
    "so2": _row(
        so2, needs_direction=True, parity="natural", cost="L^3", is_complete=True
    ),
    "gaunt": _row(
        gaunt,
        parity="p1 p2 = p3, l1 + l2 + l3 even",
        cost="L^4 with dense tables",
        is_complete=False,
        is_separable=True,
    ),
    "gaunt_fourier": _row(
        gaunt_fourier,
        parity="p1 p2 = p3, l1 + l2 + l3 even",
        cost="L^4 with dense tables, and L^2 log L",
        is_complete=False,
        is_separable=True,
    ),
    "bracket": _row(
        bracket,
        parity="p1 p2 = p3, l1 + l2 + l3 odd",
        cost="L^4 with dense tables",
        is_complete=False,
        is_separable=True,
        makes_messages=False,
    ),
    "complete": _row(
        complete,
        parity="p1 p2 = p3",
        cost="L^4 with dense tables",
        is_complete=True,
        is_separable=True,
    ),
    "vector_harmonics": _row(
        vector_harmonics, parity="p1 p2 = p3", cost="L^5", is_complete=True
    ),
    "matrix": _row(
        matrix,
        parity="p1 p2 = p3",
        cost="L^4 with dense tables",
        is_complete=True,
        is_separable=True,
    ),
}

MESSAGE_PRODUCTS = tuple(name for name, row in PRODUCTS.items() if row.makes_messages)
"""Names of the products that every block can take its messages from."""
