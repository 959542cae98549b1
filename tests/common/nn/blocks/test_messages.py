"""What blocks share of messages."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.blocks import make_block, messages
from common.nn.products import PRODUCTS
from common.so3.irreps import SCALAR, VECTOR, Irrep
from tests.common.nn.random_inputs import dense_graph, features, positions


def test_a_product_is_found_with_the_irreps_of_both_factors():
    x, graph = features("4x0e+4x1o", 5), dense_graph(positions(5))
    row, spec = messages.message_product("clebsch_gordan", x, graph)
    assert row is PRODUCTS["clebsch_gordan"]
    assert dict(spec.x) == {SCALAR: 4, VECTOR: 4}
    assert spec.out == (SCALAR, VECTOR)
    assert {channels for _, channels in spec.y} == {1}


def test_messages_may_have_irreps_of_their_own():
    x, graph = features("4x0e+4x1o", 5), dense_graph(positions(5))
    out = (SCALAR, VECTOR, Irrep(2, 1))
    assert messages.message_product("scalar", x, graph, out)[1].out == out


def test_unknown_rows_are_answered_with_the_table():
    x, graph = features("4x0e", 5), dense_graph(positions(5))
    with pytest.raises(ValueError, match=r"expected one of scalar, .*found 'bracket'"):
        messages.message_product("bracket", x, graph)
    with pytest.raises(ValueError, match=r"expected one of symphony, .*found 'schnet'"):
        make_block("schnet", irreps="4x0e")


def test_features_of_edges_vanish_where_there_is_none():
    graph = dense_graph(positions(4))
    graph = graph._replace(envelope=graph.envelope.at[0, 1].set(0.0))
    found = messages.edge_feats(graph)
    np.testing.assert_array_equal(found[0, 1], 0.0)
    expected = graph.feats[2, 3] * graph.envelope[2, 3]
    np.testing.assert_allclose(found[2, 3], expected, rtol=1e-6)


def test_other_scalars_leave_the_vectors():
    x = features("4x0e+4x1o", 5)
    found = messages.with_scalars(x, jnp.zeros((5, 2)))
    assert found[SCALAR].shape == (5, 1, 2)
    assert found[VECTOR] is x[VECTOR]
    assert x[SCALAR].shape == (5, 1, 4)
