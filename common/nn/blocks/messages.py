"""Messages, said once: a product of the table for the edges of a graph."""

from typing import TypeAlias

from jaxtyping import Array, Float

from common.nn.features import Features, irreps_of
from common.nn.graph import Graph
from common.nn.products import PRODUCTS
from common.nn.products.spec import Product, Spec, make_spec
from common.so3.irreps import SCALAR, Irrep

Rows: TypeAlias = Float[Array, "num_receivers num_condition"] | None
"""Numbers by which a block is conditioned, a row a receiver."""


def message_product(
    name: str, x: Features, graph: Graph, out: tuple[Irrep, ...] = ()
) -> tuple[Product, Spec]:
    """Returns the row of a product, and its spec for features and harmonics.

    >>> import jax.numpy as jnp
    >>> from common.nn.features import from_scalars
    >>> from common.nn.graph import make_graph
    >>> ones = jnp.ones((3, 3))
    >>> graph = make_graph(jnp.ones((3, 3, 3)), ones[..., None], ones, max_degree=0)
    >>> row, spec = message_product("scalar", from_scalars(jnp.ones((3, 8))), graph)
    >>> row.num_weights(spec)
    8

    Args:
        name: row of `PRODUCTS`.
        x: features of the nodes.
        graph: edges.
        out: irreps of the messages; those of `x` if empty.

    Raises:
        ValueError: There is no such product.
    """
    if name not in PRODUCTS:
        raise ValueError(
            f"product: expected one of {', '.join(PRODUCTS)}, found {name!r}"
        )
    irreps = irreps_of(x)
    return PRODUCTS[name], make_spec(irreps, irreps_of(graph.harmonics), out or irreps)


def edge_feats(graph: Graph) -> Float[Array, "num_receivers num_senders num_feats"]:
    """Returns the features of the edges times their envelope.

    >>> import jax.numpy as jnp
    >>> from common.nn.graph import make_graph
    >>> ones = jnp.ones((2, 2))
    >>> vectors, feats = jnp.ones((2, 2, 3)), ones[..., None]
    >>> edge_feats(make_graph(vectors, feats, 0.5 * ones, max_degree=0))[0, 0]
    Array([0.5], dtype=float32)
    """
    return graph.feats * graph.envelope[..., None]


def with_scalars(x: Features, scalars: Float[Array, "num_nodes channels"]) -> Features:
    """Returns features with other scalars.

    >>> import jax.numpy as jnp
    >>> with_scalars({SCALAR: jnp.ones((2, 1, 8))}, jnp.zeros((2, 4)))[SCALAR].shape
    (2, 1, 4)
    """
    return {**x, SCALAR: scalars[:, None]}
