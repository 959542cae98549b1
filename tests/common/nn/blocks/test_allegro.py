"""Allegro stays strictly local, and sees angles all the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.blocks import make_block
from common.nn.features import scalars_of
from tests.common.nn.random_inputs import applied, dense_graph, features

IRREPS = "2x0e+2x1o"
CHAIN = jnp.array([[0.0, 0, 0], [2.5, 0.3, 0], [5.0, 0, 0.4], [7.5, 0.2, 0]])


@pytest.mark.parametrize(
    ("name", "fields", "rounds", "sees"),
    [
        ("allegro", {"num_layers": 3}, 1, [True, False, False]),
        ("nequip", {"product": "scalar"}, 2, [True, True, False]),
    ],
)
def test_neighbours_of_neighbours_do_not_enter(name, fields, rounds, sees):
    x = features(IRREPS, 4)
    module = make_block(name, irreps=IRREPS, **fields)
    run = applied(module, x, dense_graph(CHAIN, 1))

    def first(where):
        """Features of the first atom after one block, or two that send messages."""
        graph, out = dense_graph(where, 1), x
        for _ in range(rounds):
            out = run(out, graph)
        return np.concatenate([part[0].ravel() for part in out.values()])

    moved = [CHAIN.at[atom, 1].add(0.2) for atom in (1, 2, 3)]
    assert [bool(np.any(first(m) != first(CHAIN))) for m in moved] == sees


def test_scalars_see_the_angle_between_two_neighbours():
    x = features("2x0e", 3)
    module = make_block("allegro", irreps=IRREPS, num_layers=1)
    at = lambda angle: dense_graph(
        1.5 * jnp.array([[0.0, 0, 0], [1, 0, 0], [jnp.cos(angle), jnp.sin(angle), 0]]),
        1,
    )
    run = applied(module, x, at(1.0))
    first, second = (scalars_of(run(x, at(angle)))[0] for angle in (1.0, 2.0))
    assert np.abs(first - second).max() > 1e-3
