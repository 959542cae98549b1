"""One test over the table of products: symmetry, permutation, padding, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import irreps_of
from common.nn.graph import make_graph
from common.nn.products import PRODUCTS
from common.nn.products.spec import RadialWeights, convolve_edges, make_spec
from common.so3.irreps import uniform
from tests.common.nn.random_inputs import (
    assert_close,
    dense_graph,
    features,
    harmonics,
    normal,
    positions,
    rotate,
    rotation,
    sparse_graph,
)

IRREPS = {"O3": "2x0e+2x1o+2x2e", "SO3": "2x0e+2x1e+2x2e"}
BOTH = "2x0e+2x0o+2x1e+2x1o"
GROUPS = [("O3", 1), ("O3", -1), ("SO3", 1)]
names = pytest.mark.parametrize("name", PRODUCTS)


def spec_of(x, y):
    return make_spec(irreps_of(x), irreps_of(y), irreps_of(x))


@functools.partial(jax.jit, static_argnums=(0, 4))
def product(name, x, y, weights, spec):
    return PRODUCTS[name].product(x, y, weights, spec)


@functools.partial(jax.jit, static_argnums=(0, 4))
def convolve(name, x, graph, weights, spec):
    return PRODUCTS[name].convolve(x, graph, weights, spec)


def inputs(name, group="O3", nodes=4, seed=0):
    """Features, the harmonics of one direction each, weights and the spec."""
    x = features(IRREPS[group], nodes, seed=seed)
    vectors = normal(nodes, 3, seed=50 + seed)
    y = harmonics(vectors, 2, group)
    spec = spec_of(x, y)
    count = PRODUCTS[name].num_weights(spec)
    weights = normal(nodes, count, seed=7)
    return x, vectors, y, weights, spec


@names
@pytest.mark.parametrize(("group", "sign"), GROUPS)
def test_products_rotate_and_reflect(name, group, sign):
    x, vectors, y, weights, spec = inputs(name, group)
    turn = rotation(sign)
    y_turned = harmonics(vectors @ turn.T, 2, group)
    turned = product(name, rotate(x, turn), y_turned, weights, spec)
    assert_close(turned, rotate(product(name, x, y, weights, spec), turn))


@names
def test_irreps_and_numbers_of_weights_are_what_the_row_says(name):
    x, _, y, weights, spec = inputs(name)
    row = PRODUCTS[name]
    out = product(name, x, y, weights, spec)
    assert irreps_of(out) == row.irreps_out(spec)
    # Every weight matters: none is without effect on the product.
    slope = jax.jit(jax.jacobian(lambda w: row.product(x, y, w, spec)))(weights)
    used = sum(
        np.abs(part).sum(axis=tuple(range(part.ndim - 2))) for part in slope.values()
    )
    assert np.all(used > 0.0)


@names
def test_products_are_linear_in_each_factor(name):
    x, _, y, weights, spec = inputs(name)
    twice = jax.tree.map(lambda a: 2.0 * a, x)
    double = jax.tree.map(lambda a: 2.0 * a, product(name, x, y, weights, spec))
    assert_close(product(name, twice, y, weights, spec), double)
    assert_close(product(name, x, y, 2.0 * weights, spec), double)


@names
@pytest.mark.parametrize("make", [dense_graph, sparse_graph])
def test_convolution_is_the_sum_of_products(name, make):
    x, graph = features(IRREPS["O3"], 5), make(positions(5))
    spec, row = spec_of(x, graph.harmonics), PRODUCTS[name]
    shape = (*graph.envelope.shape, row.num_weights(spec))
    weights = normal(*shape)
    weights *= graph.envelope[..., None]
    every = jax.jit(functools.partial(convolve_edges, row.product, spec=spec))
    expected = every(x, graph, weights)
    assert_close(convolve(name, x, graph, weights, spec), expected)


@names
def test_weights_made_from_a_kernel_change_nothing(name):
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    spec, row = spec_of(x, graph.harmonics), PRODUCTS[name]
    kernel = normal(6, row.num_weights(spec))
    radial = graph.feats * graph.envelope[..., None]
    expected = convolve(name, x, graph, radial @ kernel, spec)
    found = convolve(name, x, graph, RadialWeights(radial, kernel), spec)
    assert_close(found, expected)


@names
def test_convolution_does_not_see_order_or_padding(name):
    x, where = features(IRREPS["O3"], 5), positions(5)
    row, order = PRODUCTS[name], np.array([3, 0, 4, 1, 2])
    spec = spec_of(x, harmonics(where, 2))
    kernel = normal(6, row.num_weights(spec))

    def run(x, where, mask):
        graph = dense_graph(where, mask=mask)
        radial = graph.feats * graph.envelope[..., None]
        return convolve(name, x, graph, radial @ kernel, spec)

    full = run(x, where, jnp.ones(5, bool))
    shuffled = run({i: a[order] for i, a in x.items()}, where[order], jnp.ones(5, bool))
    assert_close(shuffled, {i: a[order] for i, a in full.items()})
    pad = lambda a: jnp.concatenate([a, jnp.full((2, *a.shape[1:]), 3.0)])
    padded = run(jax.tree.map(pad, x), pad(where), jnp.arange(7) < 5)
    assert_close({i: a[:5] for i, a in padded.items()}, full)


@names
def test_second_derivatives_are_those_of_differences(name):
    x, _, y, weights, spec = inputs(name, nodes=1)
    energy = lambda x: sum(
        jnp.sum(jnp.sin(a)) for a in product(name, x, y, weights, spec).values()
    )
    direction = features(IRREPS["O3"], 1, seed=3)
    slope = lambda s: jax.grad(energy)(
        jax.tree.map(lambda a, d: a + s * d, x, direction)
    )
    forward = jax.jvp(slope, (0.0,), (1.0,))[1]
    backward = jax.grad(
        lambda x: sum(jnp.vdot(jax.grad(energy)(x)[i], direction[i]) for i in direction)
    )(x)
    numeric = jax.tree.map(lambda a, b: (a - b) / 0.02, slope(0.01), slope(-0.01))
    assert_close(forward, backward)
    assert_close(forward, numeric, atol=5e-3)


@names
def test_gradient_by_positions_is_finite_where_atoms_coincide(name):
    where = positions(4).at[1].set(positions(4)[0])
    x, row = features(IRREPS["O3"], 4), PRODUCTS[name]

    def total(where):
        graph = dense_graph(where)
        spec = spec_of(x, graph.harmonics)
        shape = (6, row.num_weights(spec))
        weights = (graph.feats * graph.envelope[..., None]) @ jnp.ones(shape)
        found = row.convolve(x, graph, weights, spec)
        return sum(jnp.sum(jnp.square(a)) for a in found.values())

    slope = jax.jit(jax.grad(total))
    assert np.all(np.isfinite(slope(where)))
    along_pole = jnp.array([[0.0, 0, 0], [0, 1.2, 0], [0, -1.0, 0], [0.7, 0.1, 0.2]])
    assert np.all(np.isfinite(slope(along_pole)))


@pytest.mark.parametrize("name", ["clebsch_gordan", "self_product"])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_parities_may_be_held(name, sign):
    x, y = features(BOTH, 3), features(BOTH, 3, seed=1)
    spec, row, turn = spec_of(x, y), PRODUCTS[name], rotation(sign)
    weights = normal(row.num_weights(spec))
    turned = product(name, rotate(x, turn), rotate(y, turn), weights, spec)
    assert_close(turned, rotate(product(name, x, y, weights, spec), turn))


def test_frames_want_each_degree_once():
    x = features("2x0e+2x2e", 3)
    with pytest.raises(ValueError, match="each degree from 0 once"):
        PRODUCTS["so2"].num_weights(spec_of(x, x))


def test_adding_up_paths_wants_equal_channels():
    x = features("2x0e+3x1o", 3)
    with pytest.raises(ValueError, match="one number of channels"):
        PRODUCTS["self_product"].num_weights(spec_of(x, x))


def test_weights_are_counted_by_hand_at_degree_one():
    spec = make_spec(uniform(1, 5), uniform(1, 1), uniform(1, 1))
    # Paths 000, 011, 101, 110; in frames one for m = 0 each, and m = 1 for 11.
    expected = {"scalar": 3, "clebsch_gordan": 4, "self_product": 4, "so2": 5}
    counts = {name: PRODUCTS[name].num_weights(spec) // 5 for name in expected}
    assert counts == expected


@names
@pytest.mark.parametrize(("nodes", "senders"), [(1, 0), (3, 0)])
def test_nodes_without_senders_receive_zero(name, nodes, senders):
    x, vectors = features(IRREPS["O3"], nodes), jnp.ones((nodes, senders, 3))
    ones, table = jnp.ones((nodes, senders)), jnp.zeros((nodes, senders), int)
    graph = make_graph(vectors, ones[..., None], ones, 2, senders=table)
    spec = spec_of(x, graph.harmonics)
    weights = jnp.ones((nodes, senders, PRODUCTS[name].num_weights(spec)))
    found = convolve(name, x, graph, weights, spec)
    assert irreps_of(found) == PRODUCTS[name].irreps_out(spec)
    for irrep, part in found.items():
        assert part.shape[:2] == (nodes, irrep.dim)
        assert not part.any()
