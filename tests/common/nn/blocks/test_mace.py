"""How many bodies the messages of MACE see, and their form on a grid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.blocks import make_block
from common.nn.features import scalars_of
from common.nn.graph import select_receivers
from tests.common.nn.random_inputs import (
    applied,
    assert_close,
    dense_graph,
    features,
    positions,
    rotate,
    rotation,
)

IRREPS = "4x0e+4x1o+4x2e"


def on_a_circle(*eighths):
    """A centre and neighbours at distance one; those left out are far away."""
    angles = np.array(eighths) * np.pi / 4.0
    around = np.stack([np.cos(angles), np.sin(angles), 0.0 * angles], axis=1)
    absent = np.full((4 - len(around), 3), 50.0)
    return jnp.asarray(np.concatenate([np.zeros((1, 3)), around, absent]), jnp.float32)


def graph_of(where):
    return select_receivers(dense_graph(where), jnp.array([0]))


@functools.cache
def centre(correlation):
    """Scalars that the centre gets from neighbours of one species."""
    module = make_block(
        "mace", irreps=IRREPS, correlation=correlation, product="scalar"
    )
    x = {i: jnp.ones_like(a) for i, a in features("4x0e", 5).items()}
    run = applied(module, x, graph_of(on_a_circle(0, 1, 2)))
    return lambda where: np.asarray(scalars_of(run(x, graph_of(where))))


THREE_BODIES = on_a_circle(0, 1, 2), on_a_circle(0, 1, 4)
# As many pairs at each angle in both, but other triples.
FOUR_BODIES = on_a_circle(0, 1, 3, 4), on_a_circle(0, 1, 2, 5)


@pytest.mark.parametrize("correlation", [1, 2, 3])
@pytest.mark.parametrize(("bodies", "pair"), [(3, THREE_BODIES), (4, FOUR_BODIES)])
def test_order_n_sees_n_plus_one_bodies(correlation, bodies, pair):
    first, second = (centre(correlation)(where) for where in pair)
    assert (np.abs(first - second).max() > 1e-2) == (correlation + 1 >= bodies)
    if correlation + 1 < bodies:
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_contraction_on_a_grid_rotates_and_reflects():
    module = make_block("mace", irreps=IRREPS, contraction="grid", product="scalar")
    x, where, turn = features(IRREPS, 5), positions(5), rotation(-1)
    run = applied(module, x, dense_graph(where))
    turned = run(rotate(x, turn), dense_graph(where @ turn.T))
    assert_close(turned, rotate(run(x, dense_graph(where)), turn), 5e-5)


def test_unknown_contractions_are_refused():
    module = make_block("mace", irreps=IRREPS, contraction="cross")
    with pytest.raises(
        ValueError, match="contraction: expected one of symmetric, grid"
    ):
        module.init(jax.random.key(0), features(IRREPS, 5), dense_graph(positions(5)))
