"""Tests of what the orders of a molecule share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from symphony import likelihood, sharing
from symphony.likelihood import ranks
from tests.symphony import small

NUM_NODES = 9


@pytest.mark.parametrize("num_neighbors", [0, 2])
def test_an_order_by_shared_edges_is_that_order_by_its_own(num_neighbors):
    model, params = small.model_and_params()
    model = model.clone(num_neighbors=num_neighbors)
    positions, species = small.chain(2, 6)
    given = jnp.zeros((NUM_NODES, 3)).at[:6].set(positions)
    numbers = jnp.zeros(NUM_NODES, jnp.int32).at[:6].set(species)
    node_mask = jnp.arange(NUM_NODES) < 6

    @jax.jit
    def both(drawn):
        bound = model.bind(params)
        shared = sharing.share(bound, given, node_mask)
        nodes = (numbers, node_mask, ranks(drawn))
        return (
            sharing.embed_order(bound, shared, *nodes, small.NO_NOISE),
            likelihood.step_features(bound, drawn, small.NO_NOISE),
        )

    orders = set()
    for seed in range(3):
        drawn = small.cut_of(positions, species, NUM_NODES, seed)
        orders.add(tuple(drawn.order[:6].tolist()))
        (feats, found), (own, expected) = both(drawn)
        for irrep, rows in own.items():
            np.testing.assert_allclose(feats[irrep][:6], rows[:6], atol=1e-5)
        for name in ("stop", "pooled"):
            rows = (getattr(one, name)[:6] for one in (found, expected))
            np.testing.assert_allclose(*rows, atol=1e-5)
        rows = (one.focus_species[:6] for one in (found, expected))
        np.testing.assert_allclose(*rows, atol=1e-5)
        rows = (one.hidden[:6, :6] for one in (found, expected))
        np.testing.assert_allclose(*rows, atol=1e-5)
    assert len(orders) > 1
