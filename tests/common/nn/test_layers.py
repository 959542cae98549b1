"""Layers against e3nn-jax, their symmetries, and their behaviour at the edges."""

import e3nn_jax as e3nn
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn import layers
from common.so3 import irreps


@pytest.fixture(scope="module")
def features():
    return jax.random.normal(jax.random.key(0), (5, 9, 6))


def applied(module, *arguments, seed=1):
    parameters = module.init(jax.random.key(seed), *arguments)
    # Constants at initialisation hide faults: every parameter is made random.
    leaves, structure = jax.tree.flatten(parameters)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    leaves = [
        a + 0.3 * jax.random.normal(k, a.shape)
        for k, a in zip(keys, leaves, strict=True)
    ]
    parameters = jax.tree.unflatten(structure, leaves)
    return lambda *inputs: module.apply(parameters, *inputs)


def assert_turns(function, features, sign, parity="natural"):
    """Asserts f(D x) = D f(x) for a random rotation, times a reflection if -1."""
    rotation = sign * e3nn.rand_matrix(jax.random.key(9), ())

    def turned(x):
        names = irreps.irreps_string(irreps.max_degree_of(x.shape[-2]), 1, parity)
        turn = e3nn.Irreps(names).D_from_matrix(rotation)
        return jnp.einsum("ab,...bc->...ac", turn, x)

    np.testing.assert_allclose(
        function(turned(features)), turned(function(features)), atol=2e-5
    )


def test_linear_equals_e3nn_in_value_and_gradient(features):
    module = layers.Linear(4)
    parameters = module.init(jax.random.key(1), features)
    array = irreps.to_irreps_array(features)
    peer = e3nn.flax.Linear("4x0e+4x1o+4x2e")
    kernels = parameters["params"]
    # e3nn divides by the root of the fan-in, which the core's initialiser does.
    renamed = {
        f"w[{l},{l}] 6x{ir},4x{ir}": kernels[f"kernel_{l}"] * 6**0.5
        for l, ir in enumerate(("0e", "1o", "2e"))
    }

    def ours(x):
        return module.apply(parameters, x)

    def theirs(x):
        array = irreps.to_irreps_array(x)
        return irreps.from_irreps_array(peer.apply({"params": renamed}, array))

    assert set(renamed) == set(peer.init(jax.random.key(1), array)["params"])
    np.testing.assert_allclose(ours(features), theirs(features), atol=1e-5)
    gradients = (
        jax.grad(lambda x, f=f: jnp.sum(jnp.cos(f(x))))(features)
        for f in (ours, theirs)
    )
    np.testing.assert_allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize("max_degree", [0, 1, 3])
def test_linear_drops_or_adds_degrees(features, max_degree):
    out = applied(layers.Linear(4, max_degree=max_degree, use_bias=True), features)(
        features
    )
    whole = applied(layers.Linear(4, use_bias=True), features)(features)
    assert out.shape == (5, (max_degree + 1) ** 2, 4)
    if max_degree == 3:
        np.testing.assert_array_equal(out[:, :9], whole)
        np.testing.assert_array_equal(out[:, 9:], 0.0)


def test_linear_weights_are_one_matrix_per_degree(features):
    parameters = layers.Linear(4).init(jax.random.key(0), features)["params"]
    assert {a.shape for a in jax.tree.leaves(parameters)} == {(6, 4)}
    assert len(parameters) == 3


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "module",
    [
        layers.Linear(4, use_bias=True),
        layers.Gate(),
        layers.RMSNorm(),
        layers.RMSNorm(joint=False),
        layers.SelfProduct(2),
        layers.SelfProduct(3),
    ],
    ids=lambda module: type(module).__name__,
)
def test_layers_turn_and_reflect_with_the_features(features, module, sign):
    assert_turns(applied(module, features), features, sign)


def test_product_along_all_paths_turns_and_tells_left_from_right(features):
    function = applied(layers.SelfProduct(2, group="SO3"), features, features)
    other = features[::-1]
    product = lambda x: function(x, jnp.flip(x, axis=0))
    assert_turns(product, features, 1, parity="even")
    mirrored = jnp.array([1.0, *[-1.0] * 3, *[1.0] * 5])[:, None]
    difference = function(mirrored * features, mirrored * other) - (
        mirrored * function(features, other)
    )
    assert float(jnp.max(jnp.abs(difference))) > 0.1


@pytest.mark.parametrize("group", ["O3", "SO3"])
@pytest.mark.parametrize("max_degree", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_product_equals_e3nn_in_value_and_gradient(max_degree, group):
    keys = jax.random.split(jax.random.key(3), 3)
    size = (max_degree + 1) ** 2
    x, y = (jax.random.normal(k, (2, size, 3)) for k in keys[:2])
    paths = irreps.tensor_product_paths(max_degree, max_degree, max_degree, group)
    weights = jax.random.normal(keys[2], (len(paths), 3))
    parity = "natural" if group == "O3" else "even"
    names = e3nn.Irreps(irreps.irreps_string(max_degree, 1, parity))

    def theirs(x, y, weights):
        one = [e3nn.IrrepsArray(names, jnp.swapaxes(a, -1, -2)) for a in (x, y)]
        product = e3nn.tensor_product(*one, filter_ir_out=names) * weights.T
        blocks = [jnp.sum(chunk, axis=-2) for chunk in product.chunks]
        return jnp.swapaxes(jnp.concatenate(blocks, axis=-1), -1, -2)

    def ours(x, y, weights):
        return layers.self_product(x, y, weights, max_degree, group)

    both = []
    for function in (ours, theirs):
        loss = lambda *a, f=function: (jnp.sum(jnp.cos(f(*a))), f(*a))
        both.append(jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(x, y, weights))
    for mine, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


def test_both_forms_of_the_product_agree(features, monkeypatch):
    weights = jax.random.normal(jax.random.key(4), (11, 6))
    run = lambda x: layers.self_product(x, x, weights, 2)
    value, gradient = run(features), jax.grad(lambda x: run(x)[..., 0].sum())(features)
    monkeypatch.setattr(layers, "MAX_UNROLLED_TERMS", 0)
    np.testing.assert_allclose(run(features), value, atol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda x: run(x)[..., 0].sum())(features), gradient, atol=1e-5
    )


def test_product_takes_weights_of_each_node(features):
    weights = jax.random.normal(jax.random.key(5), (5, 11, 6))
    gradient = jax.grad(lambda w: layers.self_product(features, features, w, 2).sum())
    for index in range(5):
        one = features[index]
        np.testing.assert_allclose(
            layers.self_product(features, features, weights, 2)[index],
            layers.self_product(one, one, weights[index], 2),
            atol=1e-5,
        )
    assert gradient(weights).shape == weights.shape


def test_norm_makes_the_mean_square_one(features):
    joint = layers.RMSNorm()
    out = joint.apply(joint.init(jax.random.key(0), features), 7.0 * features)
    per_degree = [
        jnp.mean(out[:, rows] ** 2, axis=(1, 2)) for rows in irreps.degree_slices(2)
    ]
    np.testing.assert_allclose(np.mean(per_degree, axis=0), 1.0, rtol=1e-5)
    apart = layers.RMSNorm(joint=False)
    out = apart.apply(apart.init(jax.random.key(0), features), 7.0 * features)
    for rows in irreps.degree_slices(2):
        np.testing.assert_allclose(
            jnp.mean(out[:, rows] ** 2, axis=(1, 2)), 1.0, rtol=1e-5
        )


def test_norm_of_an_empty_node_and_of_padding_is_zero_with_finite_gradient(features):
    module = layers.RMSNorm()
    features = features.at[1].set(0.0).at[2].set(jnp.inf)
    mask = jnp.array([True, True, False, True, True])
    parameters = module.init(jax.random.key(0), features, mask)
    out = module.apply(parameters, features, mask)
    np.testing.assert_array_equal(out[1:3], 0.0)
    gradient = jax.grad(lambda x: module.apply(parameters, x, mask).sum())(features)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[2], 0.0)
    np.testing.assert_array_equal(
        out[3:], module.apply(parameters, features[3:], mask[3:])
    )


def test_gate_acts_on_scalars_by_silu_and_scales_the_rest(features):
    gates = jax.random.normal(jax.random.key(6), (5, 2, 6))
    out = layers.gate(features, gates)
    np.testing.assert_allclose(out[:, 0], nn.silu(features[:, 0]), atol=1e-6)
    for degree, rows in ((1, slice(1, 4)), (2, slice(4, 9))):
        factor = nn.sigmoid(gates[:, degree - 1 : degree])
        np.testing.assert_allclose(out[:, rows], factor * features[:, rows], atol=1e-6)


def test_gate_of_scalars_alone_is_silu():
    x = jnp.linspace(-2.0, 2.0, 8).reshape(4, 1, 2)
    np.testing.assert_allclose(applied(layers.Gate(), x)(x), nn.silu(x), atol=1e-6)


def test_bessel_functions_are_those_of_e3nn_and_orthonormal():
    cutoff, num_basis = 5.0, 6
    distances = jnp.linspace(0.0, cutoff, 2001)
    basis = layers.bessel_basis(distances, num_basis, cutoff)
    np.testing.assert_allclose(
        basis[1:], e3nn.bessel(distances[1:], num_basis, cutoff), atol=1e-5
    )
    weighted = basis * distances[:, None]
    gram = weighted.T @ weighted * (cutoff / 2000)
    np.testing.assert_allclose(gram, np.eye(num_basis), atol=1e-3)


def test_bessel_functions_and_their_gradient_are_finite_at_zero():
    one = lambda d: layers.bessel_basis(d, 4, 5.0)
    limit = np.sqrt(2 / 5.0) * np.arange(1, 5) * np.pi / 5.0
    np.testing.assert_allclose(one(jnp.array(0.0)), limit, rtol=1e-6)
    np.testing.assert_array_equal(jax.jacobian(one)(jnp.array(0.0)), 0.0)
    near = jax.jacobian(one)(jnp.array(1e-3))
    np.testing.assert_allclose(
        near, -limit * (np.arange(1, 5) * np.pi / 5) ** 2 * 1e-3 / 3, rtol=1e-3
    )


@pytest.mark.parametrize("p", [2, 6])
def test_envelope_and_two_derivatives_vanish_at_the_cutoff(p):
    envelope = lambda d: layers.polynomial_envelope(d, 4.0, p)
    slope = jax.grad(envelope)
    curvature = jax.grad(slope)
    assert envelope(jnp.array(0.0)) == 1.0
    for distance in (4.0, 4.5, 100.0):
        assert envelope(jnp.array(distance)) == 0.0
    for derivative in (envelope, slope, curvature):
        assert abs(float(derivative(jnp.array(3.9999)))) < 2e-3
    x = jnp.linspace(0.0, 0.99, 30)
    expected = (
        1
        - (p + 1) * (p + 2) / 2 * x**p
        + p * (p + 2) * x ** (p + 1)
        - p * (p + 1) / 2 * x ** (p + 2)
    )
    np.testing.assert_allclose(envelope(4.0 * x), expected, atol=1e-5)


def test_norm_of_a_zero_vector_has_zero_gradient():
    np.testing.assert_array_equal(jax.grad(layers.safe_norm)(jnp.zeros(3)), 0.0)
    vectors = jnp.array([[3.0, 4.0, 0.0]])
    np.testing.assert_allclose(layers.safe_norm(vectors), 5.0)


def test_mlp_without_bias_keeps_zero():
    module = layers.MLP((8, 3), use_bias=False)
    assert module.init_with_output(jax.random.key(0), jnp.zeros((2, 4)))[0].shape == (
        2,
        3,
    )
    np.testing.assert_array_equal(applied(module, jnp.ones(4))(jnp.zeros(4)), 0.0)
    assert float(jnp.abs(applied(module, jnp.ones(4))(jnp.ones(4))).min()) > 0.0
