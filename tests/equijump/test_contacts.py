"""Tests of contacts: energies and forces against those of all pairs, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.conditions import known
from equijump.cloud import along_axes, from_cloud, to_cloud, tree_of
from equijump.contacts import NUM_CONTACTS, NUM_KINDS, RADII, contacts_of
from equijump.scene import make_scene

TOKENS = jnp.array([1, 9, 18, 21, 5, 0])
CHAINS = jnp.array([0, 0, 0, 0, 0, -1])
MASK = jnp.arange(14)[None] < jnp.array([4, 9, 14, 2, 5, 0])[:, None]
NUM_NODES = len(TOKENS)


@pytest.fixture(scope="module")
def found():
    """A cloud, its weights, and what the function tells of them."""
    keys = jax.random.split(jax.random.key(0), 3)
    steps = 3.0 * jax.random.normal(keys[0], (NUM_NODES, 1, 3))
    atoms = jnp.cumsum(steps, 0) + jax.random.normal(keys[1], (*MASK.shape, 3))
    tree = tree_of("chain", 22, TOKENS, CHAINS, jnp.arange(NUM_NODES))
    cloud = to_cloud(jnp.where(MASK[..., None], atoms, 0.0), MASK, tree)
    weights = 1.0 + 0.3 * jax.random.normal(keys[2], (*MASK.shape, NUM_KINDS))
    scene = make_scene(
        atoms[:, 1], TOKENS, MASK, CHAINS, jnp.arange(NUM_NODES),
        known({"lag": jnp.float32(10.0)}), 16, 1, tree,
    )  # fmt: skip
    return cloud, tree, weights, contacts_of(cloud, scene, tree, weights)


def pairs(cloud, tree, weights, radius):
    """Energies of all atoms with those of other residues, by all distances."""
    atoms = from_cloud(cloud, tree).reshape(-1, 3)
    rows = jnp.repeat(jnp.arange(NUM_NODES), MASK.shape[1])
    counts = (rows[:, None] != rows[None]) & MASK.reshape(-1)[None]
    squares = jnp.sum(jnp.square(atoms[:, None] - atoms[None]), axis=-1)
    near = jnp.where(counts, 1.0 / (1.0 + jnp.square(squares) / radius**4), 0.0)
    return near @ weights.reshape(-1, NUM_KINDS)


def test_energies_are_sums_over_the_atoms_of_other_residues(found):
    cloud, tree, weights, feats = found
    energies = [pairs(cloud, tree, weights, radius) for radius in RADII]
    expected = jnp.concatenate(energies, axis=-1).reshape(*MASK.shape, -1)
    got = feats[..., : expected.shape[-1]]
    np.testing.assert_allclose(got[MASK], expected[MASK], rtol=1e-3, atol=1e-4)


def test_what_is_told_of_a_bond_is_the_derivative_by_its_vector(found):
    cloud, tree, weights, feats = found
    masked = jnp.where(MASK[..., None], weights, 0.0).reshape(-1, NUM_KINDS)

    def energy(vectors, radius, kind):
        each = pairs(vectors, tree, weights, radius)
        return 0.5 * radius * jnp.sum(masked[:, kind] * each[:, kind])

    slopes = [
        -jax.grad(energy)(cloud, radius, kind)
        for radius in RADII
        for kind in range(NUM_KINDS)
    ]
    expected = along_axes(cloud, tree, tuple(slopes))
    got = feats[..., len(RADII) * NUM_KINDS :]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(got).max() > 0.1


def test_there_are_as_many_features_as_told(found):
    assert found[-1].shape == (*MASK.shape, NUM_CONTACTS)
