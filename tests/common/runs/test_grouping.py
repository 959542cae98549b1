"""Updates by groups of parameters are those of each parameter for itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.runs import training
from common.runs.grouping import grouped
from tests.common.runs.test_training import optimizer_config

SHAPES = {
    "a": {"kernel": (3, 4), "bias": (4,)},
    "b": {"kernel": (3, 4), "kernel_1": (4, 3), "scale": (2, 5)},
    "heads": {"kernel": (2, 3, 4)},
    "first": (),
}
"""Two matrices of one shape, one alone, a stack of two, and others."""


def draw(seed):
    shapes, structure = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    leaves = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_updates_and_states_are_those_of_single_parameters(name, monkeypatch):
    config = optimizer_config(optimizer=name, clip_norm=0.5, weight_decay=0.1)
    by_group = training.make_optimizer(config)
    monkeypatch.setattr(training, "grouped", lambda optimizer, is_matrix: optimizer)
    plain = training.make_optimizer(config)
    params = draw(0)
    found = []
    for optimizer in (plain, by_group):
        state = optimizer.init(params)
        step = jax.jit(optimizer.update)
        for seed in (1, 2, 3):
            updates, state = step(draw(seed), state, params)
        found.append((updates, state))
    assert jax.tree.structure(found[0]) == jax.tree.structure(found[1])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found[0][0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *found)


def test_equal_matrices_share_their_products():
    dimensions = training.muon_dimensions
    optimizer = optax.contrib.muon(0.1, muon_weight_dimension_numbers=dimensions)
    params = {f"kernel_{i}": jnp.ones((4, 4)) for i in range(6)}
    is_matrix = lambda path, leaf: leaf.ndim == 2
    programs = [
        str(jax.make_jaxpr(one.update)(params, optimizer.init(params), params))
        for one in (optimizer, grouped(optimizer, is_matrix))
    ]
    separate, together = (text.count("dot_general") for text in programs)
    assert separate == 6 * together > 0
