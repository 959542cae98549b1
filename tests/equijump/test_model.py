"""Tests of the network: its symmetry, handedness, and indifference to padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from equijump.model import EquiJump, from_cloud, make_scene, recentred, to_cloud

NUM_NODES, SIZE = 6, 5
SLOTS = np.array([4, 5, 9, 14, 2, 0])  # Atoms of each residue; the last is padding.


def make_model(max_degree=1, num_neighbours=3):
    return EquiJump(
        num_channels=8, max_degree=max_degree, num_conditioner_layers=1, num_layers=2,
        num_hidden=16, num_condition=8, num_edge_feats=8,
        num_neighbours=num_neighbours, reach=1, cutoff=20.0,
    )  # fmt: skip


def random_rotation(seed=0):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.float32(q if np.linalg.det(q) > 0 else -q)


def inputs(num_nodes=NUM_NODES, order=None):
    """Source, estimate and displacement of a chain of five, and its scene's arrays."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(3, NUM_NODES, 14, 3)) + 3.0 * np.cumsum(
        rng.normal(size=(NUM_NODES, 1, 3)), axis=0
    )
    mask = np.arange(14) < SLOTS[:, None]
    atoms = np.where(mask[..., None], atoms, 0.0)
    tokens = np.array([1, 5, 9, 18, 21, 0])
    numbers = np.arange(NUM_NODES)
    chains = np.array([0, 0, 0, 1, 1, -1])
    arrays = [atoms[0], atoms[1], atoms[2], tokens, mask, chains, numbers]
    arrays = [a[:num_nodes] for a in arrays]
    if order is not None:
        arrays = [a[order] for a in arrays]
    types = [np.float32] * 3 + [np.int32, bool, np.int32, np.int32]
    return [jnp.asarray(a, t) for a, t in zip(arrays, types, strict=True)]


def randomised(model):
    """Parameters without the zeros that a fresh network has."""
    params = jax.jit(lambda: call(model, None, *inputs()))()
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.1 * jax.random.normal(k, leaf.shape)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def call(model, params, source, end, displacement, *arrays):
    tokens, mask, chains, numbers = arrays
    lag = jnp.float32(10.0)
    scene = make_scene(
        source[:, 1], tokens, mask, chains, numbers, lag, jnp.float32(300.0),
        model.num_neighbours, model.reach,
    )  # fmt: skip
    clouds = [to_cloud(x, mask) for x in (source, end)]
    vectors = jnp.where(mask[..., None], displacement, 0.0)
    if params is None:
        return nn.Module.init(model, jax.random.key(0), scene, clouds[0])
    bound = model.bind(params)
    conditioned = bound.conditioner(scene, clouds[0])
    return bound.transport(
        scene, clouds[0], conditioned, clouds[1], vectors, jnp.float32(-1.0)
    )


@pytest.fixture(scope="module", params=[(1, 3), (2, 16)], ids=str)
def network(request):
    model = make_model(*request.param)
    params = randomised(model)
    run = jax.jit(lambda *given: call(model, params, *given))
    return lambda *given: np.asarray(run(*given))[0]


def turned(given, matrix):
    return [x @ matrix.T for x in given[:3]] + given[3:]


def test_the_output_turns_with_the_input(network):
    rotation = random_rotation()
    found = network(*turned(inputs(), rotation))
    np.testing.assert_allclose(found, network(*inputs()) @ rotation.T, atol=1e-4)


def test_a_mirror_image_is_seen_as_something_else(network):
    straight = network(*inputs())
    mirrored = network(*turned(inputs(), -np.eye(3, dtype=np.float32)))
    difference = np.linalg.norm(mirrored + straight) / np.linalg.norm(straight)
    assert difference > 1e-2


def test_moving_everything_changes_nothing(network):
    given = inputs()
    moved = [x + np.float32([5.0, -3.0, 2.0]) for x in given[:2]] + given[2:]
    np.testing.assert_allclose(network(*moved), network(*given), atol=1e-4)


def test_padding_changes_nothing(network):
    padded, real = network(*inputs()), network(*inputs(SIZE))
    np.testing.assert_allclose(padded[:SIZE], real, atol=1e-5)
    assert not padded[SIZE:].any()
    mask = np.arange(14) < SLOTS[:, None]
    assert not padded[~mask].any()
    assert np.abs(padded[mask]).min() > 0.0


def test_the_order_of_residues_changes_nothing(network):
    order = np.array([3, 0, 5, 4, 2, 1])
    found = network(*inputs(order=order))
    np.testing.assert_allclose(found, network(*inputs())[order], atol=1e-4)


def test_neighbours_are_those_along_the_chain_and_then_the_nearest():
    positions = jnp.asarray([[0, 0, 0], [9, 0, 0], [1, 0, 0], [2, 0, 0.0]])
    tokens, numbers = jnp.ones(4, jnp.int32), jnp.arange(4)
    scene = make_scene(
        positions, tokens, jnp.ones((4, 14), bool), jnp.array([0, 0, 0, 1]), numbers,
        jnp.ones(()), jnp.float32(300.0), num_neighbours=2, reach=1,
    )  # fmt: skip
    np.testing.assert_array_equal(scene.senders, [[1, 2], [0, 2], [1, 0], [2, 0]][:4])
    assert scene.edge_mask.all()
    assert int(scene.offsets[3, 0]) == 3  # Another chain.


def test_clouds_and_positions_are_each_others_inverse():
    source, *_ = inputs()
    mask = inputs()[4]
    cloud = to_cloud(source, mask)
    found = np.asarray(from_cloud(cloud))[np.asarray(mask)]
    expected = np.asarray(source)[np.asarray(mask)]
    np.testing.assert_allclose(
        found - found.mean(0), expected - expected.mean(0), atol=1e-5
    )
    np.testing.assert_allclose(recentred(cloud, mask), cloud, atol=1e-6)
    assert not np.asarray(cloud)[~np.asarray(mask)].any()
