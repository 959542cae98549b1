"""Encodings by eigenvectors: which choices of them they see, padding, order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import symmetry_tasks
from common.nn.laplacian import BasisNet, Modes, SignNet, laplacian_modes, projectors

modes_of = jax.jit(laplacian_modes)
MODULES = {"sign": SignNet(3, 4, 8), "basis": BasisNet(3, 4, 8)}
SIZE = 14  # One size of all arrays, so that each encoding is compiled once.


def padded(adjacency):
    """Returns an adjacency and a mask of `SIZE` nodes; padding has bonds to ignore."""
    count = len(adjacency)
    whole = np.ones((SIZE, SIZE), np.float32)
    whole[:count, :count] = adjacency
    return jnp.asarray(whole), jnp.arange(SIZE) < count


def ring(count):
    return np.roll(np.eye(count), 1, axis=0) + np.roll(np.eye(count), -1, axis=0)


def toluene():
    """Returns a ring of six with one more node, whose eigenvalues are all different."""
    bonds = np.zeros((7, 7))
    bonds[:6, :6] = ring(6)
    bonds[0, 6] = bonds[6, 0] = 1.0
    bonds[1, 2] = bonds[2, 1] = 2.0
    return bonds


@functools.cache
def encoder(name):
    module = MODULES[name]
    adjacency, mask = padded(ring(6))
    init = jax.jit(module.init)
    parameters = init(jax.random.key(0), modes_of(adjacency, mask), mask)
    return parameters, jax.jit(module.apply)


def encode(name, modes, mask):
    parameters, apply = encoder(name)
    return np.asarray(apply(parameters, modes, mask))


@pytest.mark.parametrize("count", [6, 12])
def test_projectors_do_not_depend_on_the_basis_and_eigenvectors_do(count):
    adjacency, mask = padded(ring(count))
    modes = modes_of(adjacency, mask)
    other = rotated(modes, count)
    assert np.abs(other.vectors - modes.vectors)[:count, :4].max() > 0.3
    first, second = (encode("basis", m, mask) for m in (modes, other))
    assert np.abs(first).max() > 0.01
    np.testing.assert_allclose(second, first, atol=1e-5)
    # Signs alone are not enough for a ring.
    first, second = (encode("sign", m, mask) for m in (modes, other))
    assert np.abs(second - first).max() > 1e-3


def rotated(modes, count):
    """Rotates the eigenspaces of the real modes."""
    own = Modes(modes.values[:count], modes.vectors[:, :count], modes.mask[:count])
    turned = symmetry_tasks.another_choice(own, seed=1)
    return modes._replace(vectors=modes.vectors.at[:, :count].set(turned.vectors))


@pytest.mark.parametrize("name", MODULES)
def test_signs_are_not_seen(name):
    adjacency, mask = padded(toluene())
    modes = modes_of(adjacency, mask)
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], SIZE), jnp.float32)
    flipped = modes._replace(vectors=modes.vectors * signs)
    np.testing.assert_allclose(
        encode(name, flipped, mask), encode(name, modes, mask), atol=1e-5
    )


@pytest.mark.parametrize("name", MODULES)
def test_another_order_of_the_nodes_is_the_same_order_of_the_encoding(name):
    order = np.random.default_rng(1).permutation(7)
    plain, mask = padded(toluene())
    mixed, _ = padded(toluene()[order][:, order])
    first, second = (encode(name, modes_of(a, mask), mask) for a in (plain, mixed))
    np.testing.assert_allclose(second[:7], first[order], atol=1e-4)
    np.testing.assert_array_equal(second[7:], 0.0)


@pytest.mark.parametrize("name", MODULES)
def test_padding_changes_nothing(name):
    wide, mask = padded(toluene())
    small = jnp.asarray(toluene(), jnp.float32)
    parameters, _ = encoder(name)
    found = MODULES[name].apply(
        parameters, modes_of(small, mask[:7]), jnp.ones(7, bool)
    )
    np.testing.assert_allclose(
        encode(name, modes_of(wide, mask), mask)[:7], found, atol=1e-4
    )


def test_a_graph_smaller_than_the_modes_and_one_without_bonds_are_encoded():
    pair, mask = padded(np.array([[0.0, 1.0], [1.0, 0.0]]))
    for adjacency in (pair, jnp.zeros_like(pair)):
        modes = modes_of(adjacency, mask)
        assert int(modes.mask.sum()) == 2
        for name in MODULES:
            assert np.all(np.isfinite(encode(name, modes, mask)))


def test_projectors_add_up_to_the_identity():
    adjacency, mask = padded(ring(6))
    modes = modes_of(adjacency, mask)
    found = jax.jit(projectors)(modes)
    counts = jnp.round(jnp.trace(found, axis1=1, axis2=2))
    # Each eigenspace comes as often as its dimension.
    total = jnp.sum(found[:6] / counts[:6, None, None], axis=0)
    np.testing.assert_allclose(total, jnp.diag(mask * 1.0), atol=1e-5)


def test_both_derivatives_are_finite_where_eigenvalues_coincide():
    adjacency, mask = padded(ring(6))
    parameters, _ = encoder("basis")

    def total(weights, adjacency):
        modes = laplacian_modes(adjacency, mask)
        return jnp.sum(MODULES["basis"].apply(weights, modes, mask) ** 2)

    def slope(weights):
        return sum(
            jnp.sum(a**2) for a in jax.tree.leaves(jax.grad(total)(weights, adjacency))
        )

    for leaf in jax.tree.leaves(jax.jit(jax.grad(slope))(parameters)):
        assert np.all(np.isfinite(leaf))
    # Bonds are data: nothing flows into them.
    assert not np.any(jax.jit(jax.grad(total, 1))(parameters, adjacency))
