"""The channelwise product and its blocked convolution against e3nn-jax."""

import functools

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import (
    from_irreps_array,
    harmonics,
    irreps_of,
    to_irreps_array,
)
from common.nn.graph import Graph
from common.nn.products import clebsch_gordan as cg
from common.nn.products.spec import RadialWeights, convolve_edges, make_spec
from common.so3.irreps import SCALAR, format_irreps, uniform
from tests.common.nn.random_inputs import assert_close, features

NODES, NEIGHBOURS = 7, 3
UNEQUAL = "3x0e+2x1o+1x1e+2x2e"


def setting(irreps, group="O3", max_degree=2, seed=0):
    """Features, vectors, weights and senders of a random table of neighbours."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = features(irreps, NODES, seed=seed)
    vectors = jax.random.normal(keys[0], (NODES, NEIGHBOURS, 3))
    y = irreps_of(harmonics(vectors, max_degree, group))
    spec = make_spec(irreps_of(x), y, irreps_of(x))
    shape = (NODES, NEIGHBOURS, cg.num_weights(spec))
    weights = jax.random.normal(keys[1], shape)
    senders = jax.random.randint(keys[2], shape[:2], 0, NODES)
    return (x, vectors, weights), senders, spec


@functools.partial(jax.jit, static_argnames=("form", "spec", "group"))
def run(form, spec, senders, x, vectors, weights, group="O3"):
    max_degree = max(irrep.degree for irrep, _ in spec.y)
    y = harmonics(vectors, max_degree, group)
    ones = jnp.ones(vectors.shape[:2])
    graph = Graph(vectors, y, ones[..., None], ones, senders)
    return form(x, graph, weights, spec)


blocked = functools.partial(cg.convolve, edges_per_block=6)
plain = functools.partial(convolve_edges, cg.product)


def value_and_gradients(form, spec, senders, group="O3"):
    @jax.jit
    def both(*floats):
        def loss(*floats):
            out = run(form, spec, senders, *floats, group=group)
            return sum(jnp.sum(jnp.cos(a)) for a in out.values()), out

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*floats)

    return both


def of_e3nn(x, graph, weights, spec):
    """The same by e3nn's tensor product, one path at a time."""
    rows = jax.tree.map(lambda a: a[graph.senders], x)
    sizes = [dict(spec.x)[i] for i, *_ in cg.paths(spec)]
    starts = np.cumsum([0, *sizes])
    found = {}
    for (i, j, k), start, stop in zip(
        cg.paths(spec), starts[:-1], starts[1:], strict=True
    ):
        one = to_irreps_array({i: rows[i]}), to_irreps_array({j: graph.harmonics[j]})
        product = e3nn.tensor_product(*one, filter_ir_out=[e3nn.Irrep(*k)])
        part = from_irreps_array(product)[k] * weights[..., None, start:stop]
        found.setdefault(k, []).append(jnp.sum(part, axis=1))
    return {k: jnp.concatenate(found[k], axis=-1) for k in sorted(found)}


@pytest.mark.parametrize(
    ("irreps", "group", "max_degree"),
    [("2x0e", "O3", 0), ("2x0e+2x1o+2x2e+2x3o", "O3", 3), ("2x0e+2x1e+2x2e", "SO3", 2),
     (UNEQUAL, "O3", 2)],
)  # fmt: skip
def test_convolution_equals_e3nn_in_value_and_gradient(irreps, group, max_degree):
    floats, senders, spec = setting(irreps, group, max_degree)
    expected = value_and_gradients(of_e3nn, spec, senders, group)(*floats)
    assert_close(value_and_gradients(blocked, spec, senders, group)(*floats), expected)


@pytest.mark.parametrize("edges_per_block", [1, 4, 9, 1000])
def test_size_of_a_block_changes_nothing(edges_per_block):
    floats, senders, spec = setting("2x0e+2x1o")
    form = functools.partial(cg.convolve, edges_per_block=edges_per_block)
    ours, expected = (
        value_and_gradients(f, spec, senders)(*floats) for f in (form, plain)
    )
    assert_close(ours, expected)


def test_receivers_may_be_fewer_than_nodes():
    (x, vectors, weights), senders, spec = setting("2x0e+2x1o")
    few = run(blocked, spec, senders[:2], x, vectors[:2], weights[:2])
    every = run(plain, spec, senders, x, vectors, weights)
    assert_close(few, {irrep: a[:2] for irrep, a in every.items()})


def batch_of(size, irreps="2x0e+2x1o"):
    each = [setting(irreps, seed=seed) for seed in range(size)]
    floats = jax.tree.map(lambda *a: jnp.stack(a), *(one[0] for one in each))
    return floats, jnp.stack([one[1] for one in each]), each[0][2], each


def test_batching_equals_a_loop_in_value_and_gradient():
    floats, senders, spec, each = batch_of(3)
    whole = lambda senders, *floats: value_and_gradients(blocked, spec, senders)(
        *floats
    )
    together = jax.vmap(whole)(senders, *floats)
    for index, (own, table, _) in enumerate(each):
        alone = value_and_gradients(blocked, spec, table)(*own)
        assert_close(jax.tree.map(lambda a, k=index: a[k], together), alone)


def test_batching_twice_equals_batching_once():
    floats, senders, spec, _ = batch_of(4)
    one = lambda senders, *floats: run(blocked, spec, senders, *floats)
    once = jax.vmap(one)(senders, *floats)
    split = lambda a: a.reshape(2, 2, *a.shape[1:])
    twice = jax.vmap(jax.vmap(one))(split(senders), *jax.tree.map(split, floats))
    assert_close(jax.tree.map(lambda a: a.reshape(4, *a.shape[2:]), twice), once)


def test_a_batch_is_one_loop_over_its_receivers():
    floats, senders, spec, _ = batch_of(4)
    one = lambda senders, *floats: run(blocked, spec, senders, *floats)
    program = str(jax.make_jaxpr(jax.vmap(one))(senders, *floats))
    # 28 receivers, two of them (6 edges) at a time; one molecule alone makes 7 steps.
    assert program.count("scan[") == 1
    assert "length=14" in program


def with_kernel(form, spec, senders, x, vectors, radial, kernel):
    if form is plain:
        return run(form, spec, senders, x, vectors, radial @ kernel)
    return run(form, spec, senders, x, vectors, RadialWeights(radial, kernel))


@pytest.mark.parametrize("shared", [True, False])
def test_kernels_get_the_gradients_of_their_molecules(shared):
    (x, vectors, _), senders, spec, _ = batch_of(3)
    keys = jax.random.split(jax.random.key(5))
    radial = jax.random.normal(keys[0], (3, NODES, NEIGHBOURS, 4))
    shape = (4, cg.num_weights(spec)) if shared else (3, 4, cg.num_weights(spec))
    kernel = jax.random.normal(keys[1], shape)
    axes = (0, 0, 0, 0, None if shared else 0)

    def loss(form, x, radial, kernel):
        one = lambda table, *floats: with_kernel(form, spec, table, *floats)
        out = jax.vmap(one, axes)(senders, x, vectors, radial, kernel)
        return sum(jnp.sum(jnp.cos(a)) for a in out.values())

    found = [
        jax.jit(jax.grad(functools.partial(loss, form), (0, 1, 2)))(x, radial, kernel)
        for form in (blocked, plain)
    ]
    assert_close(*found, atol=5e-5)


def test_gradient_of_a_gradient_is_that_of_the_plain_form():
    (x, vectors, weights), senders, spec = setting("2x0e+2x1o")

    def forces(form, x, weights):
        energy = lambda vectors: sum(
            jnp.sum(jnp.sin(a))
            for a in run(form, spec, senders, x, vectors, weights).values()
        )
        return jax.grad(energy)(vectors)

    def loss(form, x, weights):
        return jnp.sum(jnp.square(forces(form, x, weights)))

    found = [
        jax.jit(jax.grad(functools.partial(loss, form), (0, 1)))(x, weights)
        for form in (blocked, plain)
    ]
    assert_close(*found, atol=5e-5)


def test_empty_places_change_nothing():
    floats, senders, spec = setting("2x0e+2x1o")
    grow = lambda a, value: jnp.pad(
        a, [(0, 2), (0, 1)] + [(0, 0)] * (a.ndim - 2), constant_values=value
    )
    x, vectors, weights = floats
    pad = lambda a: jnp.pad(a, ((0, 2), (0, 0), (0, 0)), constant_values=9.0)
    padded = jax.tree.map(pad, x), grow(vectors, 3.0), grow(weights, 0.0)
    run_padded = value_and_gradients(blocked, spec, grow(senders, NODES))
    (_, out), (x_bar, vectors_bar, _) = run_padded(*padded)
    (_, expected), bars = value_and_gradients(blocked, spec, senders)(*floats)
    assert_close({i: a[:NODES] for i, a in out.items()}, expected)
    np.testing.assert_allclose(out[SCALAR][NODES:], 0.0)
    assert_close({i: a[:NODES] for i, a in x_bar.items()}, bars[0])
    assert_close(vectors_bar[:NODES, :NEIGHBOURS], bars[1])


def test_blocked_form_needs_less_memory():
    irreps = uniform(2, 32)
    spec = make_spec(irreps, uniform(2, 1), irreps)
    x = {i: jnp.zeros((64, i.dim, 32)) for i in irreps}
    senders = jnp.zeros((64, 16), int)
    floats = x, jnp.zeros((64, 16, 3)), jnp.zeros((64, 16, cg.num_weights(spec)))

    def temporary(form):
        lowered = value_and_gradients(form, spec, senders).lower(*floats)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    form = functools.partial(cg.convolve, edges_per_block=32)
    assert temporary(form) < 0.2 * temporary(plain)
    assert format_irreps(irreps) == "32x0e+32x1o+32x2e"
