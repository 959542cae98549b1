"""Allegro stays strictly local."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.blocks import make_block
from tests.common.nn.random_inputs import dense_graph, features

IRREPS = "2x0e+2x1o"
CHAIN = jnp.array([[0.0, 0, 0], [2.5, 0.3, 0], [5.0, 0, 0.4], [7.5, 0.2, 0]])


@pytest.mark.parametrize(
    ("name", "fields", "sees"),
    [("allegro", {"num_layers": 3}, [1, 1, 0, 0]), ("nequip", {}, [1, 1, 1, 0])],
)
def test_only_neighbours_of_the_receiver_enter(name, fields, sees):
    x = features(IRREPS, 4)
    module = make_block(name, irreps=IRREPS, **fields)
    graph = dense_graph(CHAIN, 1)
    # Messages pass twice, from neighbour to neighbour; pairs are made once.
    rounds = 2 if name == "nequip" else 1
    parameters = jax.jit(module.init)(jax.random.key(0), x, graph)

    def first(where):
        graph, out = dense_graph(where, 1), x
        for _ in range(rounds):
            out = module.apply(parameters, out, graph)
        return sum(jnp.sum(jnp.sin(part[0])) for part in out.values())

    slope = jax.jit(jax.grad(first))(CHAIN)
    np.testing.assert_array_equal(np.abs(slope).max(axis=1) > 0.0, sees)


def test_scalars_see_the_angle_between_two_neighbours():
    x = features("2x0e", 3)
    module = make_block("allegro", irreps=IRREPS, num_layers=1)
    at = lambda angle: jnp.array(
        [[0.0, 0, 0], [1.5, 0, 0], [1.5 * jnp.cos(angle), 1.5 * jnp.sin(angle), 0]]
    )
    parameters = jax.jit(module.init)(jax.random.key(0), x, dense_graph(at(1.0), 1))
    centre = jax.jit(
        lambda angle: next(
            iter(module.apply(parameters, x, dense_graph(at(angle), 1)).values())
        )[0]
    )
    assert np.abs(centre(1.0) - centre(2.0)).max() > 1e-3
