"""Both forms of the convolution against e3nn-jax, and their symmetries."""

import functools

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.products import clebsch_gordan as convolution
from common.so3 import irreps
from common.so3.harmonics import spherical_harmonics

NODES, NEIGHBOURS, CHANNELS = 7, 3, 2


def graph(max_degree, group, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    paths = convolution.num_paths(max_degree, max_degree, max_degree, group)
    return {
        "x": jax.random.normal(keys[0], (NODES, (max_degree + 1) ** 2, CHANNELS)),
        "vectors": jax.random.normal(keys[1], (NODES, NEIGHBOURS, 3)),
        "weights": jax.random.normal(keys[2], (NODES, NEIGHBOURS, paths, CHANNELS)),
        "senders": jax.random.randint(keys[3], (NODES, NEIGHBOURS), 0, NODES),
    }


def edges(array):
    return array.reshape(-1, *array.shape[2:])


def dense(x, vectors, weights, senders, max_degree, group):
    receivers = jnp.repeat(jnp.arange(len(senders)), senders.shape[1])
    harmonics = spherical_harmonics(vectors, max_degree)
    return convolution.convolution(
        x,
        edges(harmonics),
        edges(weights),
        edges(senders),
        receivers,
        max_degree,
        group,
    )


def blocked(x, vectors, weights, senders, max_degree, group, edges_per_block=6):
    harmonics = spherical_harmonics(vectors, max_degree)
    return convolution.neighbour_convolution(
        x, harmonics, weights, senders, max_degree, group, edges_per_block
    )


def reference(x, vectors, weights, senders, max_degree, group):
    """The same by e3nn's tensor product, its rows put in the core's order."""
    parity = "natural" if group == "O3" else "even"
    kept = irreps.irreps_string(max_degree, 1, parity)
    node_feats = irreps.to_irreps_array(x, parity)
    harmonics = spherical_harmonics(edges(vectors), max_degree)
    harmonics = irreps.to_irreps_array(harmonics[..., None], parity)
    messages = e3nn.tensor_product(
        node_feats[edges(senders)], harmonics, filter_ir_out=e3nn.Irreps(kept)
    )
    messages = messages * edges(weights).reshape(len(messages.array), -1)
    receivers = jnp.repeat(jnp.arange(len(senders)), senders.shape[1])
    total = e3nn.scatter_sum(messages, dst=receivers, output_size=len(senders))
    blocks = [jnp.swapaxes(chunk, -1, -2) for chunk in total.chunks]
    return jnp.concatenate(
        [block.reshape(len(senders), -1, CHANNELS) for block in blocks], axis=-2
    )


def value_and_gradients(function, max_degree, group):
    @jax.jit
    def run(x, vectors, weights, senders):
        def scalar(x, vectors, weights):
            rows = function(x, vectors, weights, senders, max_degree, group)
            return jnp.sum(jnp.cos(rows)), rows

        gradients, rows = jax.grad(scalar, argnums=(0, 1, 2), has_aux=True)(
            x, vectors, weights
        )
        return rows, gradients

    return run


@pytest.mark.parametrize("group", ["O3", "SO3"])
@pytest.mark.parametrize("max_degree", [0, 1, 2, 3])
def test_both_forms_equal_e3nn_in_value_and_gradient(max_degree, group):
    inputs = graph(max_degree, group)
    expected = value_and_gradients(reference, max_degree, group)(**inputs)
    for form in (dense, blocked):
        ours = value_and_gradients(form, max_degree, group)(**inputs)
        for mine, theirs in zip(
            jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True
        ):
            scale = max(1.0, float(jnp.max(jnp.abs(theirs))))
            np.testing.assert_allclose(mine / scale, theirs / scale, atol=1e-5)


@pytest.mark.parametrize("edges_per_block", [1, 4, 9, 15, 1000])
def test_size_of_a_block_changes_nothing(edges_per_block):
    inputs = graph(2, "O3")
    form = functools.partial(blocked, edges_per_block=edges_per_block)
    ours = value_and_gradients(form, 2, "O3")(**inputs)
    expected = value_and_gradients(dense, 2, "O3")(**inputs)
    for mine, other in zip(
        jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(mine, other, atol=2e-5)


def test_receivers_may_be_fewer_than_nodes():
    inputs = graph(1, "O3")
    few = {name: value[:2] for name, value in inputs.items() if name != "x"}
    np.testing.assert_allclose(
        blocked(inputs["x"], **few, max_degree=1, group="O3"),
        dense(**inputs, max_degree=1, group="O3")[:2],
        atol=1e-5,
    )


def batch_of_graphs(size):
    each = [graph(2, "O3", seed) for seed in range(size)]
    return {name: jnp.stack([inputs[name] for inputs in each]) for name in each[0]}


def test_batching_equals_a_loop_in_value_and_gradient():
    batch = batch_of_graphs(3)
    run = value_and_gradients(blocked, 2, "O3")
    together = jax.vmap(lambda inputs: run(**inputs))(batch)
    for index in range(3):
        alone = run(**{name: array[index] for name, array in batch.items()})
        for mine, other in zip(
            jax.tree.leaves(together), jax.tree.leaves(alone), strict=True
        ):
            np.testing.assert_allclose(mine[index], other, atol=2e-5)


def test_gradient_through_a_batch_reaches_an_argument_all_share():
    batch = batch_of_graphs(3)
    shared = batch["weights"][0]

    def loss(form, weights):
        inputs = {name: batch[name] for name in ("x", "vectors", "senders")}
        run = lambda arrays: form(**arrays, weights=weights, max_degree=2, group="O3")
        return jnp.sum(jnp.sin(jax.vmap(run)(inputs)))

    np.testing.assert_allclose(
        jax.grad(functools.partial(loss, blocked))(shared),
        jax.grad(functools.partial(loss, dense))(shared),
        atol=5e-5,
    )


def test_batching_twice_equals_batching_once():
    batch = batch_of_graphs(4)
    run = lambda inputs: blocked(**inputs, max_degree=2, group="O3")
    once = jax.vmap(run)(batch)
    pairs = jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), batch)
    twice = jax.vmap(jax.vmap(run))(pairs)
    np.testing.assert_allclose(twice.reshape(once.shape), once, atol=1e-5)


def test_a_batch_is_one_loop_over_its_receivers():
    batch = batch_of_graphs(4)
    run = lambda inputs: blocked(**inputs, max_degree=2, group="O3")
    program = str(jax.make_jaxpr(jax.vmap(run))(batch))
    # 28 receivers, two of them (6 edges) at a time; one molecule alone makes 7 steps.
    assert program.count("scan[") == 1
    assert "length=14" in program


def folded(x, vectors, radial, kernel, senders):
    harmonics = spherical_harmonics(vectors, 2)
    return convolution.radial_convolution(
        x, harmonics, radial, kernel, senders, 2, edges_per_block=6
    )


def unfolded(x, vectors, radial, kernel, senders):
    weights = jnp.einsum("nkh,hpc->nkpc", radial, kernel)
    return dense(x, vectors, weights, senders, 2, "O3")


def radial_inputs(seed):
    inputs = graph(2, "O3", seed)
    del inputs["weights"]
    keys = jax.random.split(jax.random.key(100 + seed))
    inputs["radial"] = jax.random.normal(keys[0], (NODES, NEIGHBOURS, 4))
    inputs["kernel"] = jax.random.normal(keys[1], (4, 11, CHANNELS))
    return inputs


def assert_same_gradients(loss, inputs):
    floats = {name: inputs[name] for name in inputs if name != "senders"}
    ours, expected = (
        jax.jit(jax.grad(functools.partial(loss, form)))(floats)
        for form in (folded, unfolded)
    )
    for name, gradient in ours.items():
        np.testing.assert_allclose(
            gradient, expected[name], rtol=1e-4, atol=2e-4, err_msg=name
        )


def test_weights_made_in_blocks_change_nothing():
    inputs = radial_inputs(0)
    np.testing.assert_allclose(folded(**inputs), unfolded(**inputs), atol=1e-5)

    def loss(form, floats):
        return jnp.sum(jnp.cos(form(**floats, senders=inputs["senders"])))

    assert_same_gradients(loss, inputs)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sizes", [(3,), (2, 2)])
def test_batch_of_radial_convolutions_equals_a_loop(shared, sizes):
    each = [radial_inputs(seed) for seed in range(int(np.prod(sizes)))]
    inputs = jax.tree.map(lambda *a: jnp.stack(a).reshape(*sizes, *a[0].shape), *each)
    if shared:
        inputs["kernel"] = each[0]["kernel"]

    def loss(form, floats):
        run = lambda arrays: form(**arrays)
        axes = dict.fromkeys(inputs, 0) | {"kernel": None if shared else 0}
        for _ in sizes:
            run = jax.vmap(run, in_axes=(axes,))
        return jnp.sum(jnp.cos(run(floats | {"senders": inputs["senders"]})))

    np.testing.assert_allclose(loss(folded, inputs), loss(unfolded, inputs), rtol=1e-4)
    assert_same_gradients(loss, inputs)


def test_gradients_of_single_molecules_stay_apart():
    each = [radial_inputs(seed) for seed in range(3)]
    inputs = jax.tree.map(lambda *a: jnp.stack(a), *each)
    kernel = each[0]["kernel"]

    def gradient(form, arrays):
        loss = lambda kernel: jnp.sum(jnp.cos(form(**(arrays | {"kernel": kernel}))))
        return jax.grad(loss)(kernel)

    together = jax.vmap(functools.partial(gradient, folded))(inputs)
    for index, arrays in enumerate(each):
        np.testing.assert_allclose(
            together[index], gradient(unfolded, arrays), rtol=1e-4, atol=2e-4
        )


def rotation_of_features(rotation, max_degree):
    names = irreps.irreps_string(max_degree, 1)
    return e3nn.Irreps(names).D_from_matrix(rotation)


def turned_and_not(rotation, group, max_degree=2):
    """Returns the output for turned input, and the turned output."""
    inputs = graph(max_degree, group)
    before = dense(**inputs, max_degree=max_degree, group=group)
    turn = rotation_of_features(rotation, max_degree)
    inputs["x"] = jnp.einsum("ab,nbc->nac", turn, inputs["x"])
    inputs["vectors"] = inputs["vectors"] @ rotation.T
    after = blocked(**inputs, max_degree=max_degree, group=group)
    degrees = convolution.Degrees(max_degree, max_degree, max_degree, group)
    turned = [
        jnp.einsum("ab,nbc->nac", turn[rows, rows], block)
        for rows, block in zip(
            irreps.degree_slices(max_degree),
            convolution.message_per_degree(before, degrees),
            strict=True,
        )
    ]
    return convolution.message_per_degree(after, degrees), turned


@pytest.mark.parametrize(("group", "sign"), [("O3", 1), ("O3", -1), ("SO3", 1)])
def test_messages_turn_with_the_molecule(group, sign):
    rotation = sign * e3nn.rand_matrix(jax.random.key(5), ())
    for after, turned in zip(*turned_and_not(rotation, group), strict=True):
        np.testing.assert_allclose(after, turned, atol=1e-5)


def test_all_paths_tell_left_from_right():
    rotation = -e3nn.rand_matrix(jax.random.key(5), ())
    after, turned = turned_and_not(rotation, "SO3")
    assert float(jnp.max(jnp.abs(after[1] - turned[1]))) > 0.1


def test_empty_places_change_nothing():
    inputs = graph(2, "O3")
    padded = dict(inputs)
    padded["x"] = jnp.pad(inputs["x"], ((0, 2), (0, 0), (0, 0)), constant_values=9.0)
    grow = lambda a, value: jnp.pad(
        a, [(0, 2), (0, 1)] + [(0, 0)] * (a.ndim - 2), constant_values=value
    )
    padded["vectors"] = grow(inputs["vectors"], 3.0)
    padded["weights"] = grow(inputs["weights"], 0.0)
    padded["senders"] = grow(inputs["senders"], NODES)
    rows, (x_bar, vectors_bar, _) = value_and_gradients(blocked, 2, "O3")(**padded)
    expected, (x_bar_0, vectors_bar_0, _) = value_and_gradients(blocked, 2, "O3")(
        **inputs
    )
    np.testing.assert_allclose(rows[:NODES], expected, atol=1e-5)
    np.testing.assert_allclose(rows[NODES:], 0.0)
    np.testing.assert_allclose(x_bar[:NODES], x_bar_0, atol=1e-5)
    np.testing.assert_allclose(x_bar[NODES:], 0.0)
    np.testing.assert_allclose(
        vectors_bar[:NODES, :NEIGHBOURS], vectors_bar_0, atol=1e-5
    )


def test_blocked_form_needs_less_memory():
    shape = (64, 16)
    inputs = (
        jnp.zeros((64, 9, 32)),
        jnp.zeros((*shape, 3)),
        jnp.zeros((*shape, 11, 32)),
        jnp.zeros(shape, int),
    )

    def temporary(form):
        run = value_and_gradients(form, 2, "O3")
        analysis = run.lower(*inputs).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    form = functools.partial(blocked, edges_per_block=32)
    assert temporary(form) < 0.1 * temporary(dense)
