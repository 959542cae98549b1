"""Tests of the network: its symmetry, handedness, and indifference to padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from common.nn.conditions import Known, known
from configs.equijump import tiny
from equijump import build
from equijump.cloud import to_cloud, tree_of
from equijump.model import EquiJump
from equijump.scene import make_scene
from equijump.transport import paths

NUM_NODES, SIZE = 6, 5
KEY = jax.random.key(0)
SLOTS = np.array([4, 5, 9, 14, 2, 0])  # Atoms of each residue; the last is padding.


def make_model(max_degree=1, num_neighbours=3, cloud="ca", refinements=0):
    return EquiJump(
        num_channels=8, max_degree=max_degree, num_conditioner_layers=1, num_layers=2,
        num_hidden=16, num_condition=8, num_edge_feats=8,
        num_neighbours=num_neighbours, reach=1, cutoff=20.0, conditions=("lag",),
        block="equijump", product="scalar", cloud=cloud, refinements=refinements,
        refresh_neighbours=cloud != "ca",
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
    tree = tree_of(model.cloud, model.residue_types, tokens, chains, numbers)
    scene = make_scene(
        source[:, 1], tokens, mask, chains, numbers, known({"lag": jnp.float32(10.0)}),
        model.num_neighbours, model.reach, tree,
    )  # fmt: skip
    clouds = [to_cloud(x, mask, tree) for x in (source, end)]
    vectors = jnp.where(mask[..., None], displacement, 0.0)
    if params is None:
        return nn.Module.init(model, jax.random.key(0), scene, clouds[0])
    bound = model.bind(params)
    conditioned = bound.conditioner(scene, clouds[0])
    ones, level = jnp.ones((*mask.shape, 1)), jnp.float32(-1.0)
    estimate = paths.Estimate(clouds[1], ones, vectors, level, level)
    return bound.transport(
        scene, clouds[0], conditioned, estimate, paths.Scales(ones, ones)
    )


@pytest.fixture(scope="module", params=[(1, 3), (2, 16), (1, 3, "chain", 2)], ids=str)
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


def test_the_order_of_residues_changes_nothing():
    """Of clouds with bonds along the chain residues stand in the chain's order."""
    model = make_model(cloud="parent")
    params = randomised(model)
    network = lambda *given: np.asarray(call(model, params, *given))[0]
    order = np.array([3, 0, 5, 4, 2, 1])
    found = network(*inputs(order=order))
    np.testing.assert_allclose(found, network(*inputs())[order], atol=1e-4)


def test_rounds_add_nothing_before_they_are_trained():
    """So a trained network goes on with rounds where it stood without them."""
    plain, rounds = (make_model(cloud="chain", refinements=n) for n in (0, 1))
    trained = randomised(plain)["params"]
    fresh = jax.jit(lambda: call(rounds, None, *inputs()))()["params"]
    fresh, others = {**fresh, **trained}, {**fresh, **trained}
    others["rounds_0"] = jax.tree.map(lambda x: x + 0.1, fresh["rounds_0"])
    run = jax.jit(lambda params: call(rounds, {"params": params}, *inputs()))
    expected = jax.jit(lambda: call(plain, {"params": trained}, *inputs()))()
    np.testing.assert_allclose(run(fresh), expected, atol=1e-5)
    assert np.abs(run(others) - expected)[0, :SIZE].max() > 1e-2


def test_neighbours_are_those_along_the_chain_and_then_the_nearest():
    positions = jnp.asarray([[0, 0, 0], [9, 0, 0], [1, 0, 0], [2, 0, 0.0]])
    tokens, numbers = jnp.ones(4, jnp.int32), jnp.arange(4)
    scene = make_scene(
        positions, tokens, jnp.ones((4, 14), bool), jnp.array([0, 0, 0, 1]), numbers,
        known({"lag": jnp.ones(())}), num_neighbours=2, reach=1,
    )  # fmt: skip
    np.testing.assert_array_equal(scene.senders, [[1, 2], [0, 2], [1, 0], [2, 0]][:4])
    assert scene.edge_mask.all()
    assert int(scene.offsets[3, 0]) == 3  # Another chain.


@pytest.mark.parametrize("step", [4.0, 0.1])
def test_neighbours_are_those_of_the_brute_force_search(step):
    """On a lattice, where many are equally near, and of two chains with padding."""
    rng = np.random.default_rng(0)
    places = np.float32(step * rng.integers(0, 4, (40, 3)))
    chains = np.repeat([0, 1], [25, 15])
    numbers = np.concatenate([np.arange(25), np.arange(15)])
    tokens = np.where(np.arange(40) < 37, 1, 0)
    lag = known({"lag": jnp.ones(())})
    scene = make_scene(
        jnp.asarray(places), jnp.asarray(tokens), jnp.ones((40, 14), bool),
        jnp.asarray(chains), jnp.asarray(numbers), lag, 16, 4,
    )  # fmt: skip
    ties = np.abs(np.subtract.outer(numbers, numbers))
    between = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    same = np.equal.outer(chains, chains)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    apart += np.float32(1e-4) * np.where(same, ties, 40 + between).astype(np.float32)
    for i in range(37):
        rank = lambda j, i=i: (
            (0, ties[i, j]) if same[i, j] and ties[i, j] <= 4 else (1, apart[i, j])
        )
        others = sorted((j for j in range(37) if j != i), key=rank)
        np.testing.assert_array_equal(scene.senders[i], others[:16])
    assert scene.edge_mask[:37].all()
    assert not scene.edge_mask[37:].any()


def chain_scene(positions, has_source, chains=None, num_neighbours=16, reach=4):
    size = len(positions)
    return make_scene(
        jnp.asarray(positions, jnp.float32),
        jnp.ones(size, jnp.int32),
        jnp.ones((size, 14), bool),
        jnp.zeros(size, jnp.int32) if chains is None else jnp.asarray(chains),
        jnp.arange(size),
        {"lag": Known(jnp.float32(10.0), jnp.asarray(has_source))},
        num_neighbours,
        reach,
    )


def test_with_a_hidden_source_neighbours_are_those_along_the_chain():
    scene = chain_scene(np.zeros((40, 3)), has_source=False)
    for residue in range(40):
        apart = np.abs(np.asarray(scene.senders[residue]) - residue)
        others = np.abs(np.delete(np.arange(40), residue) - residue)
        np.testing.assert_array_equal(np.sort(apart), np.sort(others)[:16])
    assert scene.edge_mask.all()


def test_with_a_hidden_source_other_chains_come_last():
    scene = chain_scene(np.zeros((40, 3)), False, np.arange(40) // 10)
    own = np.asarray(scene.senders) // 10 == np.arange(40)[:, None] // 10
    np.testing.assert_array_equal(own[:, :9], True)
    np.testing.assert_array_equal(own[:, 9:], False)
    np.testing.assert_array_equal(np.asarray(scene.offsets)[:, 9:], 9)


def test_a_hidden_source_is_not_looked_at():
    line = 3.8 * np.arange(40)[:, None] * np.float32([1.0, 0.0, 0.0])
    scattered = np.random.default_rng(0).normal(size=(40, 3))
    ours, theirs = (chain_scene(x, has_source=False) for x in (line, scattered))
    np.testing.assert_array_equal(ours.senders, theirs.senders)
    seen = chain_scene(scattered, has_source=True)
    assert np.any(np.asarray(seen.senders) != ours.senders)


@pytest.mark.parametrize("has_source", [False, True])
def test_without_a_source_neighbours_come_from_the_estimate(has_source):
    """Of a hairpin, whose ends meet."""
    model, scene = make_model(1, 16), chain_scene(np.zeros((40, 3)), has_source)
    along = np.minimum(np.arange(40), 39 - np.arange(40))
    hairpin = np.zeros((40, 14, 3), np.float32)
    hairpin[:, 1, 0] = 3.8 * along
    hairpin[20:, 1, 1] = 5.0
    none = jnp.zeros((40, 14, 3))
    found = model.bind({})._around(scene, none, jnp.asarray(hairpin))
    assert (39 in np.asarray(found.senders[0])) != has_source
    if has_source:
        np.testing.assert_array_equal(found.senders, scene.senders)


def test_residues_that_meet_become_neighbours():
    model = make_model(1, 16, cloud="parent")
    hairpin = np.zeros((40, 14, 3), np.float32)
    hairpin[:, 1, 0] = 3.8 * np.minimum(np.arange(40), 39 - np.arange(40))
    hairpin[20:, 1, 1] = 5.0
    line = np.zeros((40, 14, 3), np.float32)
    line[:, 1, 0] = 3.8 * np.arange(40)
    scene = chain_scene(line[:, 1], True)
    found = model.bind({})._around(scene, jnp.asarray(line), jnp.asarray(hairpin))
    assert 39 not in np.asarray(scene.senders[0])
    assert 39 in np.asarray(found.senders[0])


@pytest.mark.parametrize("names", [("lag",), ("lag", "temperature"), ("lag", "gap")])
def test_conditions_have_parameters_of_their_own(names):
    config = tiny.get_config()
    config.model.conditions = names
    params = jax.eval_shape(lambda key: build.init_params(config, key), KEY)["params"]
    assert set(params["embed_conditions"]) == set(names)


def test_an_unknown_condition_has_no_influence():
    config = tiny.get_config()
    config.model.conditions = ("lag", "gap")
    model = build.make_model(config)
    params = randomised_params(config)
    scene = chain_scene(np.zeros((3, 3)), has_source=True)

    def embed(value, mask):
        gap = Known(jnp.float32(value), jnp.asarray(mask))
        given = scene._replace(conditions={**scene.conditions, "gap": gap})
        return model.apply(params, given, method="_condition")

    np.testing.assert_array_equal(embed(1.0, False), embed(7.0, False))
    assert np.any(np.asarray(embed(1.0, True)) != embed(7.0, True))


def randomised_params(config):
    shapes = jax.eval_shape(lambda key: build.init_params(config, key), KEY)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), shapes)
