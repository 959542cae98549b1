"""Graphs as the blocks see them: receivers, and the senders next to each.

Two forms share one gather and one reduction. In the *dense* form (`senders` is None)
every node sends to every receiver; in the *sparse* form a table names the senders of
each receiver. Where there is no edge the envelope is zero, so nothing arrives from
there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from common.nn.features import Features, harmonics, take
from common.so3.irreps import Group
from common.so3.vectors import safe_norm


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


def keep_nearest(graph: Graph, count: int) -> Graph:
    """Keeps the shortest edges of each receiver, of a graph in the dense form.

    >>> vectors = jnp.array([[[1.0, 0, 0], [3.0, 0, 0], [2.0, 0, 0]]])
    >>> ones = jnp.ones((1, 3))
    >>> graph = make_graph(vectors, ones[..., None], ones, max_degree=0)
    >>> keep_nearest(graph, 2).senders.tolist()
    [[0, 2]]

    Args:
        graph: edges; those of a zero envelope come last.
        count: edges of each receiver that are kept; all of them if zero.
    """
    if not 0 < count < graph.envelope.shape[1]:
        return graph
    near = nearest(safe_norm(graph.vectors), graph.envelope > 0, count)
    rows = graph._replace(senders=None, receivers=None)
    rows = jax.tree.map(lambda array: take_senders(array, near), rows)
    return rows._replace(senders=near, receivers=graph.receivers)


def nearest(
    distances: Float[Array, "num_receivers num_senders"],
    mask: Bool[Array, "num_receivers num_senders"],
    count: int,
) -> Int[Array, "num_receivers count"]:
    """Returns the nearest senders of each receiver; those without an edge come last.

    >>> nearest(jnp.array([[3.0, 1.0, 2.0]]), jnp.array([[True, False, True]]), 2)
    Array([[2, 0]], dtype=int32)
    """
    return jax.lax.top_k(jnp.where(mask, -distances, -jnp.inf), count)[1]


def take_senders(
    array: Shaped[Array, "num_receivers num_senders *rest"],
    near: Int[Array, "num_receivers count"] | None,
) -> Shaped[Array, "num_receivers count *rest"]:
    """Returns the columns that a table of senders names; all of them where None.

    >>> take_senders(jnp.array([[5.0, 6.0, 7.0]]), jnp.array([[2, 0]])).tolist()
    [[7.0, 5.0]]
    """
    if near is None:
        return array
    index = near.reshape(*near.shape, *(1,) * (array.ndim - 2))
    return jnp.take_along_axis(array, index, axis=1)


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
    return at_senders(x, graph.senders)


def at_senders(
    x: Float[Array, "..."], senders: Int[Array, "num_receivers num_senders"] | None
) -> Float[Array, "..."]:
    """Returns an array of the nodes at the senders of a table; see `gather`.

    >>> at_senders(jnp.array([5.0, 6.0]), jnp.array([[1], [0]])).tolist()
    [[6.0], [5.0]]
    """
    return x[None] if senders is None else x[senders]


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
