"""One test over the table of products: symmetry, permutation, padding, derivatives.

Every product is also compared, in value and gradient, with the Clebsch-Gordan product
of the weights that its row says.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import irreps_of
from common.nn.graph import make_graph
from common.nn.products import MESSAGE_PRODUCTS, PRODUCTS
from common.nn.products.clebsch_gordan import path_product
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
AXIAL = "2x0e+2x1e+2x1o+2x2e"
GROUPS = [("O3", 1), ("O3", -1), ("SO3", 1)]
names = pytest.mark.parametrize("name", PRODUCTS)
of_any_factors = pytest.mark.parametrize(
    "name", [name for name, row in PRODUCTS.items() if not row.needs_direction]
)


def irreps(name, group="O3"):
    """Irreps of x that have a path with harmonics: a bracket wants a cross product."""
    return IRREPS[group] if name in MESSAGE_PRODUCTS or group == "SO3" else AXIAL


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
    x = features(irreps(name, group), nodes, seed=seed)
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
    factor = 8.0 if PRODUCTS[name].is_separable else 2.0
    scaled = jax.tree.map(lambda a: 0.5 * factor * a, double)
    assert_close(product(name, x, y, 2.0 * weights, spec), scaled)


@names
@pytest.mark.parametrize("make", [dense_graph, sparse_graph])
def test_convolution_is_the_sum_of_products(name, make):
    x, graph = features(irreps(name), 5), make(positions(5))
    spec, row = spec_of(x, graph.harmonics), PRODUCTS[name]
    shape = (*graph.envelope.shape, row.num_weights(spec))
    weights = normal(*shape)
    weights *= graph.envelope[..., None]
    every = jax.jit(functools.partial(convolve_edges, row.product, spec=spec))
    expected = every(x, graph, weights)
    assert_close(convolve(name, x, graph, weights, spec), expected)


@names
def test_weights_made_from_a_kernel_change_nothing(name):
    x, graph = features(irreps(name), 5), dense_graph(positions(5))
    spec, row = spec_of(x, graph.harmonics), PRODUCTS[name]
    kernel = normal(6, row.num_weights(spec))
    radial = graph.feats * graph.envelope[..., None]
    expected = convolve(name, x, graph, radial @ kernel, spec)
    found = convolve(name, x, graph, RadialWeights(radial, kernel), spec)
    assert_close(found, expected)


@names
def test_convolution_does_not_see_order_or_padding(name):
    x, where = features(irreps(name), 5), positions(5)
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
    direction = features(irreps(name), 1, seed=3)
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
    x, row = features(irreps(name), 4), PRODUCTS[name]

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


def of_paths(x, y, weight_of, mixes_channels):
    """The Clebsch-Gordan product along every path, those to one irrep added up."""
    total = {}
    for path, w in weight_of.items():
        i, j, k = path
        if mixes_channels:
            first, second = w.shape[-3:-1]
            pairs = jnp.repeat(x[i], second, axis=-1), jnp.tile(y[j], first)
            part = path_product({i: pairs[0]}, {j: pairs[1]}, path)
            part = part @ w.reshape(*w.shape[:-3], first * second, -1)
        else:
            part = w[..., None, :] * path_product(x, y, path)
        total[k] = total[k] + part if k in total else part
    return total


def value_and_slopes(form):
    """Returns a function that gives a form's value and a random slope of it."""

    @jax.jit
    def run(x, y, weights):
        out, pull = jax.vjp(form, x, y, weights)
        along = {i: normal(*part.shape, seed=i.degree) for i, part in out.items()}
        return out, pull(along)

    return run


@names
@pytest.mark.parametrize("held", [BOTH, IRREPS["SO3"]])
def test_products_are_those_of_the_path_weights_that_the_row_tells(name, held):
    row, directed = PRODUCTS[name], PRODUCTS[name].needs_direction
    x = features(IRREPS["O3" if held == BOTH else "SO3"] if directed else held, 3)
    group, vectors = "O3" if held == BOTH else "SO3", normal(3, 3, seed=50)
    # In frames harmonics of all degrees act; only directions can be varied.
    factor = (lambda v: harmonics(v, 4, group)) if directed else (lambda y: y)
    y = vectors if directed else features(held, 3, seed=1)
    spec = make_spec(irreps_of(x), irreps_of(factor(y)), irreps_of(x))
    weights = normal(3, row.num_weights(spec), seed=7)

    def ours(x, y, weights):
        out = row.product(x, factor(y), weights, spec)
        # Where paths lie side by side in the channels, they are added up here.
        return {i: a.reshape(*a.shape[:-1], -1, 2).sum(axis=-2) for i, a in out.items()}

    def theirs(x, y, weights):
        weight_of = row.path_weights(weights, spec)
        return of_paths(x, factor(y), weight_of, row.mixes_channels)

    found, expected = (value_and_slopes(f)(x, y, weights) for f in (ours, theirs))
    assert_close(found, expected, atol=1e-5)


@of_any_factors
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
    # Separable weights: two irreps of x, of y and of the product, no odd path.
    expected = {
        "scalar": 3, "clebsch_gordan": 4, "self_product": 4, "so2": 5,
        "fully_connected": 4 * 5, "vector_harmonics": 4, "gaunt": 6,
        "gaunt_fourier": 6, "matrix": 6, "bracket": 0, "complete": 6,
    }  # fmt: skip
    counts = {name: PRODUCTS[name].num_weights(spec) // 5 for name in expected}
    assert counts == expected
    assert expected.keys() == PRODUCTS.keys()


@names
@pytest.mark.parametrize(("nodes", "senders"), [(1, 0), (3, 0)])
def test_nodes_without_senders_receive_zero(name, nodes, senders):
    x, vectors = features(irreps(name), nodes), jnp.ones((nodes, senders, 3))
    ones, table = jnp.ones((nodes, senders)), jnp.zeros((nodes, senders), int)
    graph = make_graph(vectors, ones[..., None], ones, 2, senders=table)
    spec = spec_of(x, graph.harmonics)
    weights = jnp.ones((nodes, senders, PRODUCTS[name].num_weights(spec)))
    found = convolve(name, x, graph, weights, spec)
    assert irreps_of(found) == PRODUCTS[name].irreps_out(spec)
    for irrep, part in found.items():
        assert part.shape[:2] == (nodes, irrep.dim)
        assert not part.any()
