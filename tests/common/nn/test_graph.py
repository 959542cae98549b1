"""Graphs: both forms say the same, and rows and masks are what they name."""

import jax.numpy as jnp
import numpy as np

from common.nn import graph as gr
from tests.common.nn.random_inputs import (
    assert_close,
    dense_graph,
    features,
    positions,
    sparse_graph,
)


def test_masked_edges_have_no_weight():
    graph = dense_graph(positions(4))
    mask = jnp.tril(jnp.ones((4, 4), bool), -1)
    masked = gr.mask_edges(graph, mask)
    np.testing.assert_array_equal(masked.envelope == 0.0, ~mask)
    assert masked.feats is graph.feats


def test_selected_receivers_keep_their_rows():
    graph, rows = dense_graph(positions(5)), jnp.array([3, 1])
    few = gr.select_receivers(graph, rows)
    np.testing.assert_array_equal(few.receivers, rows)
    np.testing.assert_array_equal(few.envelope, graph.envelope[rows])
    again = gr.select_receivers(few, jnp.array([1]))
    np.testing.assert_array_equal(again.receivers, [1])


def test_receivers_are_all_nodes_unless_named():
    x, graph = features("2x0e+2x1o", 5), dense_graph(positions(5))
    assert gr.receiver_feats(x, graph) is x
    few = gr.receiver_feats(x, gr.select_receivers(graph, jnp.array([4])))
    assert_close(few, {i: part[4:] for i, part in x.items()}, atol=0.0)


def test_both_forms_gather_the_same():
    x, where = jnp.arange(5.0)[:, None], positions(5)
    dense, sparse = dense_graph(where), sparse_graph(where)
    assert gr.gather(x, dense).shape == (1, 5, 1)
    others = [[j for j in range(5) if j != i] for i in range(5)]
    np.testing.assert_array_equal(gr.gather(x, sparse)[..., 0], others)
    np.testing.assert_array_equal(gr.neighbour_table(sparse, 5), others)
    np.testing.assert_array_equal(gr.neighbour_table(dense, 5)[2], range(5))
