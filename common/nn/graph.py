"""Graphs as the blocks see them: receivers, and the senders next to each.

Two forms share one gather and one reduction. In the *dense* form (`senders` is None)
every node sends to every receiver; in the *sparse* form a table names the senders of
each receiver. Where there is no edge the envelope is zero, so nothing arrives from
there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from common.nn.features import Features, harmonics, take
from common.so3.irreps import Group


class Graph(NamedTuple):
    """Edges from senders to receivers.

    Attributes:
        vectors: vectors from sender to receiver, in Å.
        harmonics: spherical harmonics of the vectors, one channel.
        feats: invariant features of the edges, as a basis of the distance.
        envelope: weight of each edge, zero where there is none.
        senders: sender of each edge; None if every node sends to every receiver.
        receivers: node of each receiver; None if they are all nodes in their order.
    """

    vectors: Float[Array, "num_receivers num_senders 3"]
    harmonics: Features
    feats: Float[Array, "num_receivers num_senders num_feats"]
    envelope: Float[Array, "num_receivers num_senders"]
    senders: Int[Array, "num_receivers num_senders"] | None = None
    receivers: Int[Array, " num_receivers"] | None = None


def make_graph(
    vectors: Float[Array, "num_receivers num_senders 3"],
    feats: Float[Array, "num_receivers num_senders num_feats"],
    envelope: Float[Array, "num_receivers num_senders"],
    max_degree: int,
    group: Group = "O3",
    senders: Int[Array, "num_receivers num_senders"] | None = None,
    receivers: Int[Array, " num_receivers"] | None = None,
) -> Graph:
    """Returns a graph with the harmonics of its vectors.

    >>> ones = jnp.ones((2, 2))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=1)
    >>> [str(irrep) for irrep in graph.harmonics]
    ['0e', '1o']
    """
    rows = harmonics(vectors, max_degree, group)
    return Graph(vectors, rows, feats, envelope, senders, receivers)


def mask_edges(graph: Graph, mask: Bool[Array, "num_receivers num_senders"]) -> Graph:
    """Removes the edges where the mask is false.

    >>> ones = jnp.ones((2, 2))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> mask_edges(graph, ~jnp.eye(2, dtype=bool)).envelope.tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return graph._replace(envelope=graph.envelope * mask)


def select_receivers(graph: Graph, receivers: Int[Array, " num_receivers"]) -> Graph:
    """Keeps the rows of some receivers; senders stay as they are.

    >>> ones = jnp.ones((3, 3))
    >>> graph = make_graph(jnp.ones((3, 3, 3)), ones[..., None], ones, max_degree=0)
    >>> select_receivers(graph, jnp.array([2])).envelope.shape
    (1, 3)
    """
    rows = graph._replace(receivers=None)
    rows = jax.tree.map(lambda array: array[receivers], rows)
    nodes = receivers if graph.receivers is None else graph.receivers[receivers]
    return rows._replace(receivers=nodes)


def receiver_feats(x: Features, graph: Graph) -> Features:
    """Returns the features of the receivers.

    >>> from common.nn.features import from_scalars
    >>> ones, x = jnp.ones((2, 2)), from_scalars(jnp.ones((2, 8)))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> graph = select_receivers(graph, jnp.array([1]))
    >>> [part.shape for part in receiver_feats(x, graph).values()]
    [(1, 1, 8)]
    """
    return x if graph.receivers is None else take(x, graph.receivers)


def gather(x: Float[Array, "..."], graph: Graph) -> Float[Array, "..."]:
    """Returns an array of the nodes, `[num_nodes, ...]`, at the sender of each edge.

    In the dense form the first axis has length one, and broadcasts.

    >>> ones = jnp.ones((2, 2))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> gather(jnp.ones((2, 8)), graph).shape
    (1, 2, 8)
    >>> gather(jnp.ones((2, 8)), graph._replace(senders=jnp.array([[1], [0]]))).shape
    (2, 1, 8)
    """
    return x[None] if graph.senders is None else x[graph.senders]


def neighbour_table(
    graph: Graph, num_nodes: int
) -> Int[Array, "num_receivers senders"]:
    """Returns the sender of each edge, also in the dense form.

    >>> ones = jnp.ones((2, 2))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> neighbour_table(graph, 2).tolist()
    [[0, 1], [0, 1]]
    """
    if graph.senders is not None:
        return graph.senders
    return jnp.broadcast_to(jnp.arange(num_nodes), graph.envelope.shape)


def never_empty(graph: Graph) -> Graph:
    """Gives receivers that have no senders at all one that does not count.

    >>> ones = jnp.ones((2, 0))
    >>> graph = make_graph(jnp.ones((2, 0, 3)), ones[..., None], ones, max_degree=0)
    >>> never_empty(graph).envelope.tolist()
    [[0.0], [0.0]]
    """
    if graph.envelope.shape[1] > 0:
        return graph
    pad = lambda a: jnp.pad(a, [(0, 0), (0, 1), *[(0, 0)] * (a.ndim - 2)])
    rows = jax.tree.map(pad, graph._replace(senders=None, receivers=None))
    senders = jnp.zeros(rows.envelope.shape, jnp.int32)
    return rows._replace(senders=senders, receivers=graph.receivers)
